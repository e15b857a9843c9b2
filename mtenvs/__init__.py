"""mtenvs: multitask MuJoCo environments for measuring transfer. Importing it registers the ``mt/*`` ids."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

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


register()
