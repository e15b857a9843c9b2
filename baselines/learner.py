"""The Learner protocol: what an agent must offer to be put through the whole harness.

The harness knows nothing of an agent but this, and what its class says of itself (:class:`Described`).
Ours is :class:`baselines.ppo.PPO`; whoever brings one that trains a run at a time subclasses
:class:`baselines.agent.Agent`, which does most of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np

from mtenvs.vector_env import TaskVectorEnv, VectorWorlds

PARTS = ("all", "normalizer", "shuffled")
"""What a run may take over from a checkpoint: everything; only the statistics of its normalisers; or
everything with the entries of every weight array permuted, which keeps scale and loses content."""


@dataclasses.dataclass(frozen=True)
class Start:
    """What a run takes over from a checkpoint, and what of it may learn; the defaults are what is usual.

    An agent's class lists in ``starts`` which of these it can do other than by default.
    """

    part: str = "all"
    """One of ``PARTS``."""
    freeze_trunk: bool = False
    """Only the last layers learn (and the log standard deviation): features stay those of pretraining."""
    fresh_heads: bool = False
    """The last layers start afresh."""
    fresh_critic: bool = False
    """All of the critic starts afresh."""
    keep_optimizer: bool = False
    """The optimiser's state is taken over as well."""
    reset_log_std: bool = False
    """The log standard deviation of actions starts afresh."""

    def asked(self) -> set[str]:
        """What is not by default, by the names that ``starts`` has for it."""
        switches = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) is True}
        return switches if self.part == "all" else {*switches, self.part}

    def check(self, agent: type[Described] | Described) -> None:
        """Makes sure that an agent can start so.

        Raises:
            ValueError: for an unknown part, or naming what the agent does not offer.
        """
        if self.part not in PARTS:
            raise ValueError(f"unknown part {self.part!r} of a checkpoint; valid: {', '.join(PARTS)}")
        if refused := sorted(self.asked() - agent.starts):
            offered = ", ".join(sorted(agent.starts)) or "nothing but its usual start"
            raise ValueError(
                f"agent {agent.agent_name()} cannot start with {', '.join(refused)}; it offers {offered}"
            )


DEFAULT_START = Start()
STARTS = frozenset({*PARTS[1:], *(f.name for f in dataclasses.fields(Start) if f.name != "part")})
"""All names that an agent's ``starts`` may hold."""


class Described:
    """What an agent's class says of itself; it is frozen in plans and printed in reports."""

    name: ClassVar[str] = ""
    """Of an agent of this project; it does not pass to classes derived from it."""
    known_as: str = ""
    """The name that the learner was found by, set when it is made; it stands in its checkpoints."""
    version: ClassVar[str] = "1"
    """To be raised whenever equal seeds and hyperparameters give other results: checkpoints and plans of
    another version are refused."""
    hyperparameters: ClassVar[Mapping[str, Any]] = {}
    """Defaults, of JSON types; a plan freezes them, and refuses unknown ones."""
    family_hyperparameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Other defaults, by the family's name."""
    source: ClassVar[str] = ""
    """Where the defaults come from."""
    tuning: ClassVar[Mapping[str, tuple[int, int]]] = {}
    """By family: configurations tried before the defaults were chosen, and control steps of each."""
    many_runs: ClassVar[bool] = False
    """Whether it trains whole cohorts at once; else it is given one run at a time."""
    device_worlds: ClassVar[bool] = False
    """Whether it also trains on worlds whose arrays are PyTorch's and live on its device
    (:class:`mtenvs.device_env.DeviceVectorEnv`)."""
    starts: ClassVar[frozenset[str]] = frozenset()
    """Of ``STARTS``, what :meth:`Learner.load` can do."""

    @classmethod
    def agent_name(cls) -> str:
        """What the class is called where nobody has named it."""
        return cls.__dict__.get("name") or f"{cls.__module__}:{cls.__qualname__}"

    @classmethod
    def offers(cls, config: Mapping[str, Any]) -> frozenset[str]:
        """Of :data:`STARTS`, what it can do with such hyperparameters; frozen in plans."""
        return cls.starts

    @classmethod
    def warm_up(cls, config: Mapping[str, Any]) -> int:
        """Control steps of a run before it learns, which are no measure of its speed.

        The hyperparameter ``learning_starts``, or 0 where there is none.
        """
        return int(config.get("learning_starts", 0))

    @classmethod
    def rollout(cls, config: Mapping[str, Any]) -> int:
        """Control steps of every world that are trained on at once: checkpoints are at multiples of it.

        The hyperparameter ``num_steps``, or 1 where there is none.
        """
        return int(config.get("num_steps", 1))

    @classmethod
    def check(cls, worlds: TaskVectorEnv, config: Mapping[str, Any]) -> None:
        """Refuses hyperparameters that make no agent for such worlds, before anything is planned.

        Raises:
            ValueError: saying which, and what is valid.
        """

    @classmethod
    def make(
        cls, worlds: TaskVectorEnv, seeds: Sequence[int], config: Mapping[str, Any], device: str
    ) -> Learner:
        """Makes the learner of some runs.

        Args:
            worlds: worlds like those to train on.
            seeds: one per run; a single one unless ``many_runs``.
            config: hyperparameters, all of them.
            device: where networks live.
        """
        raise NotImplementedError


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

    def load(self, run: int, directory: Path, start: Start = DEFAULT_START) -> None:
        """Starts one run from a checkpoint.

        Args:
            run: which run.
            directory: that :meth:`save` wrote.
            start: what is taken over.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if the checkpoint is of another learner, version, family, conditioning,
                architecture or shape, or for a start that this learner does not offer.
        """
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for the records: ``updates`` and ``parameters`` per run."""
        ...


def play_episodes(
    act: Callable[[np.ndarray], np.ndarray],
    worlds: TaskVectorEnv,
    seeds: Sequence[int],
    told: Callable[[np.ndarray, np.ndarray], object] | None = None,
) -> Episodes:
    """Plays one episode in every world.

    Args:
        act: observations ``(num_envs, size)`` to actions ``(num_envs, nu)``.
        worlds: worlds in same-step autoreset mode; those that have ended idle on until all have.
        seeds: one per world.
        told: called after every step with rewards ``(num_envs,)`` and which worlds' episodes ended,
            ``(num_envs,)`` of bool; for agents with a memory.

    Raises:
        NotFiniteError: for actions that are not finite.
        ValueError: for actions of another shape.
    """
    observations, _ = worlds.reset(seed=seeds)
    returns, lengths = np.zeros(worlds.num_envs), np.zeros(worlds.num_envs, np.int64)
    success, playing = np.zeros(worlds.num_envs, bool), np.ones(worlds.num_envs, bool)
    while playing.any():
        observations, rewards, terminations, truncations, info = worlds.step(act(observations))
        returns += rewards * playing
        lengths += playing
        ends = terminations | truncations
        if told is not None:
            told(rewards, ends)
        ended = playing & ends
        if ended.any():
            success[ended] = info["final_info"]["success"][ended]
            playing &= ~ended
    return Episodes(returns, lengths, success)


MOST_WEIGHTS = 2**28
"""Of the hidden layers of a network, whose sizes a checkpoint of a stranger's may name: 1 GB."""


def check_hidden(hidden: Sequence[int]) -> None:
    """Refuses hidden layers that would fill the memory.

    Args:
        hidden: their units, whole numbers above 0.

    Raises:
        ValueError: naming them.
    """
    # a first layer has inputs too, and what is behind the last has outputs: fewer than a thousand
    if sum(a * b for a, b in zip((1000, *hidden), (*hidden, 1000), strict=True)) > MOST_WEIGHTS:
        shown = f"{list(hidden[:8])}{' ...' * (len(hidden) > 8)}"
        raise ValueError(f"hidden layers of {shown} units have more than {MOST_WEIGHTS:,} weights")


def layout_facts(worlds: VectorWorlds) -> dict[str, Any]:
    """What two sets of worlds must share for one network to act in both."""
    facts: dict[str, Any] = {"family": worlds.family.id, "conditioning": worlds.conditioning}
    if worlds.layout is not None:
        facts["layout"] = worlds.layout
    if worlds.family.families != (worlds.family,):  # a set, which may be one of many
        facts["families"] = [family.id for family in worlds.family.families]
    return facts
