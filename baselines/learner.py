"""The Learner protocol: what an agent must offer to be put through the whole harness.

The harness knows nothing of an agent but this. Ours is :class:`baselines.ppo.PPO`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from mtenvs.vector_env import TaskVectorEnv

PARTS = ("all", "normalizer", "shuffled")
"""What a run may take over from a checkpoint: everything; only the statistics of its normalisers; or
everything with the entries of every weight array permuted, which keeps scale and loses content."""


@dataclasses.dataclass(frozen=True)
class Episodes:
    """One finished episode of every world."""

    returns: np.ndarray
    """Undiscounted sums of rewards, ``(num_envs,)``."""
    lengths: np.ndarray
    """Control steps, ``(num_envs,)``."""
    success: np.ndarray
    """``info["success"]`` at the last step, ``(num_envs,)`` of bool."""


@runtime_checkable
class Learner(Protocol):
    """Trains ``num_runs`` independent runs on worlds laid out ``[run, world of the run]``.

    A run's result must not depend on its neighbours. Agents that train one run at a time have
    ``num_runs == 1``. One that also has ``act(observations)``, its deterministic policy
    ``(num_envs, size)`` to ``(num_envs, num_actions)``, can be watched with ``mtenvs view``.
    """

    num_runs: int
    """How many independent runs this learner trains at once."""

    def train(
        self, worlds: TaskVectorEnv, until: int, progress: Callable[[int], object] | None = None
    ) -> int:
        """Trains every run until it has taken at least ``until`` steps, and returns how many it has.

        Args:
            worlds: ``num_runs`` equal blocks of worlds. The same object goes on where it was; another
                one starts afresh.
            until: control steps per run, summed over the run's worlds, since the learner was made.
            progress: called with the steps just taken, summed over all runs.
        """
        ...

    def evaluate(self, worlds: TaskVectorEnv, seeds: Sequence[int]) -> Episodes:
        """Plays one episode in every world with the deterministic policy, without learning anything.

        Args:
            worlds: ``num_runs`` equal blocks of worlds.
            seeds: of the start states, one per world.
        """
        ...

    def diverged(self) -> np.ndarray:
        """Runs that met a number which is not finite and stopped learning, ``(num_runs,)`` of bool."""
        ...

    def save(self, run: int, directory: Path) -> None:
        """Writes one run's checkpoint (policy, normaliser, optimiser), without pickle."""
        ...

    def load(self, run: int, directory: Path, optimizer: bool = False, part: str = "all") -> None:
        """Starts one run from a checkpoint; the optimiser starts afresh unless asked for.

        Args:
            run: which run.
            directory: that :meth:`save` wrote.
            optimizer: also the optimiser's state.
            part: one of ``PARTS``; a learner that cannot take a part over refuses it.

        Raises:
            ValueError: if the checkpoint is of another learner, family, conditioning or shape, or for a
                part that this learner does not offer.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for the records: ``updates`` and ``parameters`` per run."""
        ...


def play_episodes(
    act: Callable[[np.ndarray], np.ndarray], worlds: TaskVectorEnv, seeds: Sequence[int]
) -> Episodes:
    """Plays one episode in every world.

    Args:
        act: observations ``(num_envs, size)`` to actions ``(num_envs, nu)``.
        worlds: worlds in same-step autoreset mode; those that have ended idle on until all have.
        seeds: one per world.
    """
    observations, _ = worlds.reset(seed=seeds)
    returns, lengths = np.zeros(worlds.num_envs), np.zeros(worlds.num_envs, np.int64)
    success, playing = np.zeros(worlds.num_envs, bool), np.ones(worlds.num_envs, bool)
    while playing.any():
        observations, rewards, terminations, truncations, info = worlds.step(act(observations))
        returns += rewards * playing
        lengths += playing
        ended = playing & (terminations | truncations)
        if ended.any():
            success[ended] = info["final_info"]["success"][ended]
            playing &= ~ended
    return Episodes(returns, lengths, success)
