"""The types that everything else speaks of: Parameter, Task, Fold, Family.

Nothing here compiles a model or touches an array library at import, so that a
family file can be read, and a task sent to another process, at no cost.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import mujoco

    from mtenvs.state import State

ALL_FAMILIES = "AllFamilies"
"""Name of the set of all families, ``mt/AllFamilies-v0``."""

Array = Any
"""An array of any library that follows the array API standard (NumPy, PyTorch)."""


class NotFiniteError(ValueError):
    """An action, or another number of an agent's, that is infinite or no number."""


class MissingPackageError(ModuleNotFoundError):
    """A package that not every installation has is needed; the message says which, and what to do."""


class MissingDeviceError(ValueError):
    """A device was asked for that this machine does not have, or cannot use; the message says why."""


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One number that tells the tasks of a family apart."""

    name: str
    """Name, as in ``Task.parameters``."""
    unit: str
    """SI unit, or ``"1"`` for a ratio."""
    low: float
    """Lowest value that a task may have."""
    high: float
    """Highest value that a task may have."""
    nominal: float
    """Value of a task that does not mention the parameter."""
    reason: str
    """Why the range is what it is."""
    log: bool = False
    """Whether ratios, not differences, tell two values apart (densities, strengths)."""
    integer: bool = False
    """Whether only whole numbers make sense (a number of links)."""

    def __post_init__(self) -> None:
        if not self.low <= self.nominal <= self.high:
            raise ValueError(
                f"parameter {self.name!r}: nominal {self.nominal} lies outside [{self.low}, {self.high}]"
            )

    def standardise(self, value: float) -> float:
        """Maps ``[low, high]`` to ``[-1, 1]``, linearly or by logarithms; never uses a list of tasks."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return 2.0 * (self._scaled(value) - low) / (high - low) - 1.0

    def restore(self, standardised: float) -> float:
        """The inverse of :meth:`standardise`; of a whole number, to the nearest one."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        value = low + (standardised + 1.0) / 2.0 * (high - low)
        # rounding must not carry a value past the end of its range
        value = min(max(math.exp(value) if self.log else value, self.low), self.high)
        return float(round(value)) if self.integer else value

    def draw(self, uniform: float) -> float:
        """A value of the range from a uniform number in [0, 1); whole numbers are equally likely."""
        if self.integer:
            # rounding of a number just under 1 must not carry past the end
            return float(min(math.floor(self.low + uniform * (self.high - self.low + 1.0)), self.high))
        return self.restore(2.0 * uniform - 1.0)

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.log else value


@dataclasses.dataclass(frozen=True)
class Task:
    """One MDP of a family. Holds JSON types only, so that Gymnasium's ``spec.to_json()`` works."""

    family: str
    """Name of the family, for example ``"Biped"``."""
    name: str
    """Telling name, unique among the published tasks of the family."""
    parameters: Mapping[str, float]
    """Value of every parameter of the family, in the parameter's unit."""
    number: int | None = None
    """Number in the family's published list; ``None`` for a task that is not published."""
    why: str = dataclasses.field(default="", compare=False, repr=False)
    """Why a published task is there, one sentence. No part of what the task is: neither comparison, hash
    nor dictionary has it."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the task as a dictionary that ``gym.make(..., task=...)`` accepts again."""
        return {
            "family": self.family,
            "name": self.name,
            "parameters": dict(self.parameters),
            "number": self.number,
        }

    def __hash__(self) -> int:
        return hash((self.family, self.name, tuple(sorted(self.parameters.items())), self.number))


@dataclasses.dataclass(frozen=True)
class Fold:
    """One turn of the leave-one-out rotation."""

    number: int
    """Number of the task that is held out."""
    held_out: Task
    """The task that the network has never seen."""
    sources: tuple[Task, ...]
    """The tasks to train on: all published tasks of the family but ``held_out``."""


Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Of the entries of a body's own observation, and of its motors in the order of ``ctrl``."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """A set of tasks that one network can be given: one observation layout, one action layout.

    Bodies of unequal size share the layout by *names*: ``observation_names`` and ``action_names`` name
    the entries that some body has, and ``names`` those of one body. What a body lacks is padding.

    The functions take a :class:`mtenvs.state.State`, whose arrays have a leading world axis, and
    return arrays of the same library; they hold for every backend, so nothing is written twice.
    """

    name: str
    """Name in ids: ``"Biped"`` gives ``mt/Biped-v0``."""
    summary: str
    """One sentence for tables."""
    parameters: tuple[Parameter, ...]
    """What tells the tasks apart, in the order of the descriptor."""
    published: Mapping[str, Mapping[str, float]]
    """Published tasks in their order: name to the parameters that differ from nominal."""
    why: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Name of a published task to one sentence that says why it is there: what it covers, and with which
    others it makes a pair. From descriptors and learning from scratch, never from transfer."""
    decided: str = ""
    """How list, ranges and rewards of this version came to be, with what a reader has to know of it."""
    build: Callable[[Mapping[str, float]], mujoco.MjSpec]
    """Parameters to the body. The spec has one keyframe, ``home``, around which episodes start."""
    constants: Callable[[Mapping[str, float]], dict[str, float]]
    """Parameters to the per-task numbers that the functions below read with ``State.constant``."""
    observation_names: tuple[str, ...]
    """Name of every entry of the body's observation; with padding, of the largest body's."""
    action_names: tuple[str, ...]
    """Name of every entry of the action; with padding, of the largest body's."""
    observe: Callable[[State], Array]
    """State to the body's own observation, ``(num_envs, entries)``, without any padding."""
    reward_terms: tuple[str, ...]
    """Names of the terms whose sum is the reward."""
    reward: Callable[[State], dict[str, Array]]
    """State to ``{term: (num_envs,)}``."""
    terminated: Callable[[State], Array]
    """State to the worlds whose episode has ended for good, ``(num_envs,)`` of bool."""
    success: Callable[[State], Array]
    """State to whether an episode that ended now would have done its task, ``(num_envs,)`` of bool;
    may read ``State.total``."""
    start: Callable[[Array, Array], tuple[Array, Array]]
    """Home ``qpos`` ``(n, nq)`` and uniform draws in [0, 1) ``(n, start_draws)`` to ``qpos, qvel``."""
    start_draws: int
    """How many uniform numbers the start of an episode takes."""
    frame_skip: int
    """Physics steps in one control step."""
    episode_steps: int
    """Control steps until an episode is truncated."""
    names: Callable[[Mapping[str, float], str], Names] | None = None
    """Parameters and layout to the names of one body's own entries; ``None`` if all bodies have all."""
    layouts: tuple[str, ...] = ()
    """Ways to place a body's entries, the default first; none where there is only one way."""
    topologies: tuple[Mapping[str, float], ...] = ({},)
    """Parameters of one body of every size, by what differs from nominal."""
    source: str = ""
    """Package that the bodies are loaded from, whose text is not kept in ``assets/``; empty for ours."""
    version: int = 0
    """The ``v`` of the id. A published version never changes its tasks, rewards or reference scores."""

    @property
    def id(self) -> str:
        """Gymnasium id, for example ``"mt/Biped-v0"``."""
        return f"mt/{self.name}-v{self.version}"

    @property
    def families(self) -> tuple[Family, ...]:
        """Itself: a family is a set of one."""
        return (self,)

    def of(self, task: Task) -> Family:
        """Itself, whose tasks all are."""
        return self

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The published tasks, by number."""
        return tuple(
            Task(self.name, name, self.complete(values), number, self.why.get(name, ""))
            for number, (name, values) in enumerate(self.published.items())
        )

    def complete(self, values: Mapping[str, float]) -> dict[str, float]:
        """Fills in nominal values and checks names and ranges.

        Raises:
            ValueError: for an unknown parameter or a value outside its range.
        """
        known = {p.name: p for p in self.parameters}
        for name, value in values.items():
            if name not in known:
                raise ValueError(
                    f"family {self.name!r} has no parameter {name!r}{did_you_mean(name, known)}; "
                    f"it has {', '.join(known)}"
                )
            p = known[name]
            # compared, not asked math for: a whole number may be too large for it
            real = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not real or not -math.inf < value < math.inf:
                raise ValueError(
                    f"parameter {name!r} of {self.name!r} must be a finite number, got {value!r}"
                )
            if not p.low <= value <= p.high:
                raise ValueError(
                    f"parameter {name!r} of {self.name!r} is {value}, outside its range "
                    f"[{p.low}, {p.high}]{'' if p.unit == '1' else ' ' + p.unit}: {p.reason}"
                )
            if p.integer and value != int(value):
                raise ValueError(f"parameter {name!r} of {self.name!r} must be a whole number, got {value}")
        return {p.name: float(values.get(p.name, p.nominal)) for p in self.parameters}

    def descriptor(self, task: Task) -> list[float]:
        """The task's parameters, each mapped from its declared range to [-1, 1]."""
        return [p.standardise(task.parameters[p.name]) for p in self.parameters]

    def distance(self, a: Task, b: Task) -> float:
        """Euclidean distance of two tasks in descriptor units."""
        return math.dist(self.descriptor(a), self.descriptor(b))


@dataclasses.dataclass(frozen=True)
class FamilySet:
    """Several families in one layout, so that one network can be trained on everything.

    Entries of the same name are the same entry: a set of two walkers has one ``left_knee``.
    """

    name: str
    """``"AllFamilies"``, or the names of its families."""
    families: tuple[Family, ...]
    """Its families, in the order of the code."""
    version: int = 0
    """The ``v`` of the id."""

    @property
    def id(self) -> str:
        """Gymnasium id of all sets; which families are in one is an argument of ``gymnasium.make``."""
        return f"mt/{ALL_FAMILIES}-v{self.version}"

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The published tasks of every family in turn."""
        return tuple(task for family in self.families for task in family.tasks)

    @property
    def reward_terms(self) -> tuple[str, ...]:
        """Names of the reward terms of all families."""
        return tuple(dict.fromkeys(term for family in self.families for term in family.reward_terms))

    @property
    def episode_steps(self) -> int:
        """Control steps of the longest episode; every family keeps its own limit."""
        return max(family.episode_steps for family in self.families)

    def of(self, task: Task) -> Family:
        """The family of one of its tasks.

        Raises:
            ValueError: for a task of a family that is not in the set.
        """
        for family in self.families:
            if family.name == task.family:
                return family
        raise ValueError(
            f"task {task.name!r} belongs to family {task.family!r}, which is not in {self.name!r}; "
            f"it has {', '.join(family.name for family in self.families)}"
        )


def did_you_mean(name: str, valid: Iterable[str]) -> str:
    """Returns ``' (did you mean ...?)'`` for close matches, or an empty string."""
    close = difflib.get_close_matches(str(name), list(valid), n=2)
    return f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""


def published_list(tasks: Sequence[Task]) -> str:
    """``'0 nominal, 1 short-torso, ...'``, for error messages."""
    return ", ".join(f"{t.number} {t.name}" for t in tasks)
