"""What the policy is told of its task, and where in an observation it stands.

An observation is ``[body, mask, code]``. Codes and masks are constants of a world: learners keep
them out of the running normaliser (DESIGN, decision 7), so the slices are published.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from mtenvs.spec import Family, Task

CONDITIONINGS = ("descriptor", "one_hot", "none")


@dataclasses.dataclass(frozen=True)
class ObservationSlices:
    """Which entries of an observation are which."""

    body: slice
    """The body's own observation."""
    mask: slice
    """1 for slots that the body has, 0 for padding; empty in families whose bodies are alike."""
    code: slice
    """What the policy is told of its task; empty for ``conditioning="none"``."""

    @property
    def size(self) -> int:
        """Length of the whole observation."""
        return self.code.stop


def check_conditioning(conditioning: str) -> str:
    """Returns ``conditioning`` if it is a known one.

    Raises:
        ValueError: otherwise.
    """
    if conditioning not in CONDITIONINGS:
        raise ValueError(f"unknown conditioning {conditioning!r}; valid: {', '.join(CONDITIONINGS)}")
    return conditioning


def code_size(family: Family, conditioning: str) -> int:
    """Length of a task's code."""
    if check_conditioning(conditioning) == "descriptor":
        return len(family.parameters)
    return len(family.published) if conditioning == "one_hot" else 0


def observation_slices(family: Family, conditioning: str) -> ObservationSlices:
    """Layout of a family's observations under a conditioning."""
    body = len(family.observation_names)
    return ObservationSlices(
        slice(0, body), slice(body, body), slice(body, body + code_size(family, conditioning))
    )


def task_code(family: Family, task: Task, conditioning: str) -> np.ndarray:
    """What a policy is told of a task, ``(code_size,)`` of float32.

    Raises:
        ValueError: for an unknown conditioning, or ``one_hot`` for a task without a number.
    """
    if check_conditioning(conditioning) == "descriptor":
        return np.array(family.descriptor(task), np.float32)
    code = np.zeros(code_size(family, conditioning), np.float32)
    if conditioning == "one_hot":
        if task.number is None:
            raise ValueError(
                f"task {task.name!r} is not published, so it has no one-hot slot; use "
                "conditioning='descriptor' or 'none'"
            )
        code[task.number] = 1.0
    return code
