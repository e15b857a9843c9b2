"""The named reward terms as a vector, in MO-Gymnasium's convention, which needs no package of its own.

That convention: ``step`` returns an array for a reward, and the innermost environment, which wrappers ask
for as ``env.unwrapped``, says in ``reward_space`` what is in it. A vector environment's rewards are
``(num_envs, terms)``, and its ``reward_space`` is that of one world.
"""

from __future__ import annotations

from typing import Any, SupportsFloat, cast

import gymnasium
import numpy as np

from mtenvs.env import TaskEnv
from mtenvs.vector_env import TaskVectorEnv, VectorWorlds

ROUNDING = 1e-9
"""By which a vector's sum may differ from the scalar reward, whose terms are added in another order."""


class _Terms:
    """What both wrappers know of the reward's terms."""

    reward_names: tuple[str, ...]
    """Names of the vector's entries: the ``reward_terms`` of the family, or of all families of a set."""
    reward_space: gymnasium.spaces.Box
    """Of one world's vector, ``(terms,)`` of float64; without bounds, since families declare none."""
    reward_dim: int
    """Number of terms."""

    def _describe(self, env: Any) -> None:
        layer = env
        while isinstance(layer, (gymnasium.Wrapper, gymnasium.vector.VectorWrapper)):
            if isinstance(layer, _Terms):
                names = ", ".join(layer.reward_names)
                raise ValueError(f"the reward of {env} is a vector already, of {names}")
            layer = layer.env
        if isinstance(layer, VectorWorlds) and not isinstance(layer, TaskVectorEnv):
            raise TypeError(
                f"vector_reward is for backend='batch', got {layer}; on a device the terms are in its "
                "`terms` after every step, and in info"
            )
        if not isinstance(layer, (TaskEnv, TaskVectorEnv)):
            advice = (
                "; around Gymnasium's own vectors it cannot be: give MO-Gymnasium's MOSyncVectorEnv "
                "environments that have it"
            ) * isinstance(layer, gymnasium.vector.VectorEnv)
            raise TypeError(f"vector_reward needs an environment of mtenvs, got {env}{advice}")
        self.reward_names = layer.family.reward_terms
        self.reward_dim = len(self.reward_names)
        self.reward_space = gymnasium.spaces.Box(-np.inf, np.inf, (self.reward_dim,), np.float64)
        # MO-Gymnasium's wrappers look for both at the innermost environment, and nowhere else
        innermost = cast(Any, layer)
        innermost.reward_space, innermost.reward_dim = self.reward_space, self.reward_dim

    def _check(self, vectors: np.ndarray, rewards: Any) -> None:
        """Refuses terms that are not the reward's: a wrapper within has changed it."""
        sums = vectors.sum(axis=-1)
        if not (np.abs(sums - rewards) <= ROUNDING).all():  # also of numbers that are none
            raise ValueError(
                f"the terms {', '.join(self.reward_names)} sum to {sums}, but the reward is {rewards}: a "
                "wrapper within vector_reward changes the reward; put it around it"
            )


class VectorReward(
    _Terms,
    gymnasium.Wrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
    gymnasium.utils.RecordConstructorArgs,
):
    """An environment of ours whose reward is the vector of its terms, ``(terms,)`` of float64.

    Args:
        env: made by ``gymnasium.make("mt/<Family>-v0", ...)``, with whatever wrappers that do not change
            its reward.

    Raises:
        TypeError: for another environment.
        ValueError: for one whose reward is a vector already.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.ndarray]) -> None:
        self._describe(env)  # first: it names what Gymnasium's constructor would only assert
        gymnasium.utils.RecordConstructorArgs.__init__(self)
        gymnasium.Wrapper.__init__(self, env)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray, bool, bool, dict[str, Any]]:
        """Advances by one control step; the reward is ``(terms,)``, of a body's missing terms 0.

        Args:
            action: ``(num_actions,)``.

        Raises:
            ValueError: for a bad action, or if a wrapper within changes the reward.
        """
        observation, reward, terminated, truncated, info = self.env.step(action)
        # in a set of families, a body does not have the terms of the others
        vector = np.array([info.get(f"reward_{name}", 0.0) for name in self.reward_names])
        self._check(vector, float(cast(SupportsFloat, reward)))
        return observation, vector, terminated, truncated, info


class BatchedVectorReward(
    _Terms, gymnasium.vector.VectorWrapper[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]
):
    """A native vector environment whose rewards are the vectors of the terms, ``(num_envs, terms)``.

    Args:
        env: made by ``gymnasium.make_vec("mt/<Family>-v0", ...)``, with whatever wrappers that do not
            change its rewards.

    Raises:
        TypeError: for another environment.
        ValueError: for one whose rewards are vectors already.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[np.ndarray, np.ndarray, np.ndarray]) -> None:
        self._describe(env)  # first: it names what Gymnasium's constructor would only assert
        gymnasium.vector.VectorWrapper.__init__(self, env)

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advances every world by one control step.

        The rewards are ``(num_envs, terms)``, of a body's missing terms 0; of an episode that ended in this
        step those of its last step, also where the world has already started the next.

        Args:
            actions: ``(num_envs, num_actions)``.

        Raises:
            ValueError: for bad actions, or if a wrapper within changes the rewards.
        """
        observations, rewards, terminations, truncations, infos = self.env.step(actions)
        vectors = self._vectors(infos)
        if "final_info" in infos:
            ended = infos["_final_info"]
            vectors[ended] = self._vectors(infos["final_info"])[ended]
        self._check(vectors, rewards)
        return observations, vectors, terminations, truncations, infos

    def _vectors(self, infos: dict[str, Any]) -> np.ndarray:
        return np.stack([infos[f"reward_{name}"] for name in self.reward_names], axis=-1)
