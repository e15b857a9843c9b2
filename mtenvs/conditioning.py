"""What the policy is told of its task, and which entry of an observation or action is which.

An observation is ``[body, mask, code]``. Codes and masks are constants of a world: learners keep
them out of the running normaliser (DESIGN, decision 7), so an :class:`Encoding` says where they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

from mtenvs.spec import Family, FamilySet, Names, Task, did_you_mean

CONDITIONINGS = ("descriptor", "one_hot", "none")

Array = TypeVar("Array", bound=Any)
"""Of NumPy or of PyTorch."""


@dataclasses.dataclass(frozen=True)
class ObservationSlices:
    """Which entries of an observation are which."""

    body: slice
    """The body's own observation, zero where it is padded."""
    mask: slice
    """1 for what the body has, 0 for what is padding; empty in families whose bodies are alike."""
    code: slice
    """What the policy is told of its task; empty for ``conditioning="none"``."""

    @property
    def size(self) -> int:
        """Length of the whole observation."""
        return self.code.stop


@dataclasses.dataclass(frozen=True)
class Columns:
    """Where one body's own entries lie in the layout; slices where nothing is padded."""

    observation: slice | np.ndarray
    """Of its observation, in the body's part of the observation."""
    action: slice | np.ndarray
    """Of its controls, in the action."""


class Encoding:
    """How the tasks of a family, or of a set of families, share one observation and one action.

    The mask is not part of the code: with ``conditioning="none"`` it still tells what a body lacks, as an
    arm's number of links, or the family in a set.

    Entries are shared by name. The mask has one entry for every distinct pattern of which bodies
    have an entry, so that it says everything and nothing twice.

    Args:
        family: the family, or the set.
        conditioning: what is told of the task, one of ``CONDITIONINGS``.
        layout: one of the family's ``layouts``; ``None`` for its default.

    Raises:
        ValueError: for an unknown conditioning or layout.
    """

    def __init__(
        self, family: Family | FamilySet, conditioning: str = "descriptor", layout: str | None = None
    ) -> None:
        self.family = family
        self.conditioning = check_conditioning(conditioning)
        self.layout = check_layout(family, layout)
        families = family.families
        self.observation_names = _union(f.observation_names for f in families)
        self.action_names = _union(f.action_names for f in families)
        bodies = [self._names(f, f.complete(p)) for f in families for p in f.topologies]
        patterns: dict[tuple[bool, ...], int] = {(True,) * len(bodies): -1}

        def mask_entries(names: Sequence[str], part: int) -> np.ndarray:
            found = [tuple(name in body[part] for body in bodies) for name in names]
            return np.array([patterns.setdefault(p, len(patterns) - 1) for p in found], np.int64)

        self.observation_mask = mask_entries(self.observation_names, 0)
        """Entry of the mask that tells whether an entry of the body's part is there; -1 for always."""
        self.action_mask = mask_entries(self.action_names, 1)
        """Entry of the mask that tells whether an entry of the action is there; -1 for always."""
        body, mask = len(self.observation_names), len(patterns) - 1
        code = self._code_size()
        self.slices = ObservationSlices(
            slice(0, body), slice(body, body + mask), slice(body + mask, body + mask + code)
        )
        self._numbers = {task: number for number, task in enumerate(family.tasks)}

    @property
    def num_actions(self) -> int:
        """Entries of an action."""
        return len(self.action_names)

    def number(self, task: Task) -> int:
        """The task's place in the published list, of the whole set for a set; -1 if it has none."""
        return self._numbers.get(task, -1)

    def _names(self, family: Family, parameters: Mapping[str, float]) -> Names:
        if family.names is None:
            return family.observation_names, family.action_names
        default = family.layouts[0] if family.layouts else ""
        return family.names(parameters, self.layout if self.layout in family.layouts else default)

    def columns(self, task: Task) -> Columns:
        """Where the entries of a task's body lie."""
        observations, actions = self._names(self.family.of(task), task.parameters)
        return Columns(_places(observations, self.observation_names), _places(actions, self.action_names))

    def mask(self, task: Task) -> np.ndarray:
        """What of the layout a task's body has, ``(mask_size,)`` of float32."""
        mask = np.zeros(self.slices.mask.stop - self.slices.mask.start, np.float32)
        columns = self.columns(task)
        for entries, own in (
            (self.observation_mask, columns.observation),
            (self.action_mask, columns.action),
        ):
            present = entries[own]
            mask[present[present >= 0]] = 1.0
        return mask

    def present(self, observations: Array, entries: Array) -> Array:
        """Reads from observations what their bodies have: 1 for what is there, 0 for padding.

        Args:
            observations: ``(..., size)``, an array or a tensor.
            entries: :attr:`observation_mask` or :attr:`action_mask`, ``(n,)``, of the same library.

        Returns:
            An array of its own, ``(..., n)``, of the observations' type.
        """
        found: Array = observations[..., entries + self.slices.mask.start]
        found[..., entries < 0] = 1  # always there, and no entry of the mask
        return found

    def code(self, task: Task) -> np.ndarray:
        """What a policy is told of a task, ``(code_size,)`` of float32.

        In a set of families, one entry for each family precedes the descriptors of each.

        Raises:
            ValueError: for ``one_hot`` and a task that is not published.
        """
        code = np.zeros(self._code_size(), np.float32)
        if self.conditioning == "one_hot":
            if self.number(task) < 0:
                raise ValueError(
                    f"task {task.name!r} is not published, so it has no one-hot slot; use "
                    "conditioning='descriptor' or 'none'"
                )
            code[self.number(task)] = 1.0
        elif self.conditioning == "descriptor":
            own, families = self.family.of(task), self.family.families
            start = 0
            if len(families) > 1:
                code[families.index(own)] = 1.0
                start = len(families)
            for family in families:
                stop = start + len(family.parameters)
                if family is own:
                    code[start:stop] = family.descriptor(task)
                start = stop
        return code

    def _code_size(self) -> int:
        families = self.family.families
        if self.conditioning == "one_hot":
            return len(self.family.tasks)
        if self.conditioning == "none":
            return 0
        return (len(families) if len(families) > 1 else 0) + sum(len(f.parameters) for f in families)

    def template(self, task: Task) -> np.ndarray:
        """An observation with mask and code written and the body still zero, ``(size,)`` of float32."""
        body = np.zeros(self.slices.body.stop, np.float32)
        return np.concatenate([body, self.mask(task), self.code(task)])


class Encoded:
    """What the environments, single and vector, have from their :class:`Encoding`."""

    encoding: Encoding
    """How tasks share one observation and one action."""

    @property
    def conditioning(self) -> str:
        """What the observation tells of the task."""
        return self.encoding.conditioning

    @property
    def layout(self) -> str | None:
        """How bodies of unequal size share the observation; ``None`` where there is only one way."""
        return self.encoding.layout

    @property
    def observation_slices(self) -> ObservationSlices:
        """Which entries of an observation are which."""
        return self.encoding.slices

    @property
    def num_actions(self) -> int:
        """Entries of an action."""
        return self.encoding.num_actions


def check_conditioning(conditioning: str) -> str:
    """Returns ``conditioning`` if it is a known one.

    Raises:
        ValueError: otherwise.
    """
    if conditioning not in CONDITIONINGS:
        close = did_you_mean(conditioning, CONDITIONINGS)
        raise ValueError(f"unknown conditioning {conditioning!r}{close}; valid: {', '.join(CONDITIONINGS)}")
    return conditioning


def check_layout(family: Family | FamilySet, layout: str | None) -> str | None:
    """Returns ``layout``, or the default of a family that has several.

    Raises:
        ValueError: for a layout that no family here has.
    """
    valid = _union(f.layouts for f in family.families)
    if layout is not None and layout not in valid:
        told = f"valid: {', '.join(valid)}" if valid else "its bodies are alike, leave it out"
        raise ValueError(f"unknown layout {layout!r} of {family.name!r}; {told}")
    return layout or (valid[0] if valid else None)


def _union(groups: Iterable[Iterable[str]]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


def _places(names: Sequence[str], layout: Sequence[str]) -> slice | np.ndarray:
    places = [layout.index(name) for name in names]
    # a slice copies less than a list of indices, and most bodies are a whole block
    if places == list(range(places[0], places[0] + len(places))):
        return slice(places[0], places[0] + len(places))
    return np.array(places)
