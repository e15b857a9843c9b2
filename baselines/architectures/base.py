"""What every architecture says of itself."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor

from baselines.stacked import Shape
from mtenvs.conditioning import CONDITIONINGS, ObservationSlices


class Architecture(abc.ABC):
    """One network, an actor or a critic, of R runs at once.

    Whatever the architecture, a network acts at the start as if it were not told of its task: codes
    enter with zero weight, and so do masks (DESIGN, decision 7).

    Args:
        net: first part of its parameters' names.
        slices: which inputs are body, mask and code.
        hidden: units of the hidden layers.
        outputs: entries of its output.
        head_gain: gain of the last layer's orthogonal initialisation.
    """

    conditionings: ClassVar[tuple[str, ...]] = CONDITIONINGS
    """By which it can be told."""
    least_hidden: ClassVar[int] = 0
    """Hidden layers that it cannot do without."""
    shapes: tuple[Shape, ...]
    """Parameters of one network, in the order in which they are initialised."""
    trunk: frozenset[str]
    """Names of those that stand still when the trunk is frozen."""
    heads: frozenset[str]
    """Names of those of the last layer."""

    @abc.abstractmethod
    def __init__(
        self, net: str, slices: ObservationSlices, hidden: Sequence[int], outputs: int, head_gain: float
    ) -> None: ...

    @abc.abstractmethod
    def __call__(self, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Inputs ``(R, n, size)`` to outputs ``(R, n, outputs)``.

        Args:
            x: inputs, normalised, with mask and code behind the body.
            parameters: all of the R runs' parameters by name, each ``(R, *size)``.
        """
