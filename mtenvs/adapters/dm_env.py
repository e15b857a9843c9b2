"""One world as a ``dm_env.Environment``, the interface of the DeepMind Control Suite and of Acme."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np

from mtenvs import registry
from mtenvs.env import TaskEnv
from mtenvs.spec import MissingPackageError

try:
    import dm_env
    from dm_env import specs
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f"mtenvs.dm_env needs the package {error.name}: pip install 'mtenvs[dm-control]'", name=error.name
    ) from error


class DmEnv(dm_env.Environment):
    """Speaks dm_env for one of our Gymnasium environments, step by step the same.

    An observation is an ordered dictionary of float32 arrays, as the Control Suite's are:

    - ``body``: the body's own observation;
    - ``mask``: 1 for what the body has, 0 for padding; only in families whose bodies differ in size;
    - ``code``: what the policy is told of its task; not with ``conditioning="none"``.

    Flattened in this order it is Gymnasium's observation. Actions are float32 in [-1, 1]; the name of
    their spec lists the motors, separated by tabs, as the Control Suite's does. An episode that the time
    limit ends has the discount 1 in its last step; one that ended for good (fallen, or physics that
    diverged) has 0.

    Args:
        env: made by ``gymnasium.make("mt/<Family>-v0", ...)``.
        seed: of the random stream, which goes on from episode to episode; ``None`` for a new one.

    Raises:
        ValueError: for a seed that is not a non-negative integer.
    """

    def __init__(self, env: gymnasium.Env[np.ndarray, np.ndarray], seed: int | None = None) -> None:
        if seed is not None and (
            isinstance(seed, bool) or not isinstance(seed, (int, np.integer)) or seed < 0
        ):
            raise ValueError(f"seed must be a non-negative integer or None, got {seed!r}")
        if not isinstance(env.unwrapped, TaskEnv):
            raise TypeError(f"DmEnv needs an environment of mtenvs, got {env}")
        self._env = env
        self._encoding = env.unwrapped.encoding
        slices = self._encoding.slices
        parts = {"body": slices.body, "mask": slices.mask, "code": slices.code}
        self._parts = {name: part for name, part in parts.items() if part.stop > part.start}
        self._seed = None if seed is None else int(seed)
        self._ended = True
        self._info: dict[str, Any] = {}

    @property
    def gym_env(self) -> gymnasium.Env[np.ndarray, np.ndarray]:
        """The wrapped environment; ``gym_env.unwrapped`` has ``task``, ``model`` and ``data``."""
        return self._env

    @property
    def info(self) -> dict[str, Any]:
        """Gymnasium's ``info`` of the last step: ``task``, ``success``, ``reward_<term>`` and so on."""
        return self._info

    def reset(self) -> dm_env.TimeStep:
        """Starts an episode; the first one from ``seed``, later ones go on with its stream."""
        observation, self._info = self._env.reset(seed=self._seed)
        self._seed = None
        self._ended = False
        return dm_env.restart(self._split(observation))

    def step(self, action: np.ndarray) -> dm_env.TimeStep:
        """Advances by one control step, or starts an episode where there is none.

        Args:
            action: ``(num_actions,)``, clipped to [-1, 1]; ignored where an episode starts.

        Raises:
            ValueError: for an action of another shape or with values that are not finite.
        """
        if self._ended:
            return self.reset()
        observation, reward, terminated, truncated, self._info = self._env.step(action)
        self._ended = terminated or truncated
        if terminated:  # also where the time limit falls on the same step: nothing follows to be valued
            return dm_env.termination(float(reward), self._split(observation))
        if truncated:
            return dm_env.truncation(float(reward), self._split(observation), discount=1.0)
        return dm_env.transition(float(reward), self._split(observation), discount=1.0)

    def _split(self, observation: np.ndarray) -> collections.OrderedDict[str, np.ndarray]:
        return collections.OrderedDict((name, observation[part]) for name, part in self._parts.items())

    def observation_spec(self) -> collections.OrderedDict[str, specs.Array]:
        """Specs by name, in the observation's order."""
        return collections.OrderedDict(
            (name, specs.Array((part.stop - part.start,), np.float32, name))
            for name, part in self._parts.items()
        )

    def action_spec(self) -> specs.BoundedArray:
        """Bounds [-1, 1] of ``(num_actions,)`` float32."""
        names = self._encoding.action_names
        return specs.BoundedArray((len(names),), np.float32, -1.0, 1.0, "\t".join(names))

    def close(self) -> None:
        """Closes the window or image context."""
        self._env.close()


def make(
    family: str | Sequence[str],
    task: registry.TaskLike | None = None,
    conditioning: str = "descriptor",
    seed: int | None = None,
    **kwargs: Any,
) -> DmEnv:
    """Makes a :class:`DmEnv`; see :func:`mtenvs.dm_env`."""
    env = gymnasium.make(
        registry.get_families(family).id,
        disable_env_checker=True,  # it would look for Gymnasium's habits in a client of another interface
        family=family,
        task=task,
        conditioning=conditioning,
        **kwargs,
    )
    return DmEnv(env, seed)
