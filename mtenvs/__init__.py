"""mtenvs: multitask MuJoCo environments for measuring transfer. Importing it registers the ``mt/*`` ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, overload

import gymnasium

from mtenvs.registry import (
    families,
    get_family,
    leave_one_out,
    mjcf,
    model,
    register,
    sample_task,
    tasks,
)
from mtenvs.spec import Family, Fold, Parameter, Task

if TYPE_CHECKING:
    from mtenvs.adapters.dm_env import DmEnv
    from mtenvs.adapters.multi_objective import BatchedVectorReward, VectorReward
    from mtenvs.registry import TaskLike

__version__ = "0.1.0"
__all__ = [
    "Family",
    "Fold",
    "Parameter",
    "Task",
    "dm_env",
    "families",
    "get_family",
    "leave_one_out",
    "mjcf",
    "model",
    "register",
    "sample_task",
    "tasks",
    "vector_reward",
]


def dm_env(
    family: str | Sequence[str],
    task: TaskLike | None = None,
    conditioning: str = "descriptor",
    seed: int | None = None,
    **kwargs: Any,
) -> DmEnv:
    """Makes one task, or one drawn anew in every episode, as a ``dm_env.Environment``.

    Args:
        family: name of the family, or ``"AllFamilies"``, or the names of several.
        task: number, name, :class:`Task` or its dictionary; ``None`` draws a published task in every
            episode.
        conditioning: what the observation tells of the task: ``"descriptor"``, ``"one_hot"``, ``"none"``.
        seed: of the random stream, which goes on from episode to episode; ``None`` for a new one.
        kwargs: to ``gymnasium.make``: ``layout``, ``max_episode_steps``, ``render_mode``, ...

    Raises:
        MissingPackageError: where the extra ``mtenvs[dm-control]`` is not installed.
        ValueError: for an unknown family, task or conditioning, or a seed that is no non-negative integer.
    """
    from mtenvs.adapters.dm_env import make  # dm_env is an extra, and importing mtenvs is to be light

    return make(family, task, conditioning, seed, **kwargs)


@overload
def vector_reward(env: gymnasium.Env[Any, Any]) -> VectorReward: ...
@overload
def vector_reward(env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> BatchedVectorReward: ...
def vector_reward(env: Any) -> VectorReward | BatchedVectorReward:
    """Makes the reward of an environment the vector of its named terms, in MO-Gymnasium's convention.

    The terms stand in the order of the family's ``reward_terms``, which ``reward_names`` of what is
    returned repeats; ``reward_space`` is the space of one world's vector. The sum of the terms, added in
    this order, is the scalar reward: of a family to the last bit, of a set of families, where terms that
    a body does not have are 0, to rounding.

    Args:
        env: one world, of ``gymnasium.make``: the reward becomes ``(terms,)`` of float64; or a native
            vector environment, of ``gymnasium.make_vec``: the rewards become ``(num_envs, terms)``.
            Wrappers around it stay, so long as they do not change the reward.

    Raises:
        TypeError: for an environment that is not of mtenvs.
        ValueError: for one whose reward is a vector already.
    """
    from mtenvs.adapters import multi_objective  # which imports the environments

    many = isinstance(env, gymnasium.vector.VectorEnv)
    return (multi_objective.BatchedVectorReward if many else multi_objective.VectorReward)(env)


register()
