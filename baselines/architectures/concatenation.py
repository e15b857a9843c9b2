"""The code is an input beside the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from baselines.architectures.base import Architecture
from baselines.stacked import mlp, mlp_shapes
from mtenvs.conditioning import ObservationSlices


class Concatenation(Architecture):
    """A perceptron of body, mask and code; the trunk is all but the last layer."""

    def __init__(
        self, net: str, slices: ObservationSlices, hidden: Sequence[int], outputs: int, head_gain: float
    ) -> None:
        told = slice(slices.mask.start, slices.code.stop)
        self.shapes = tuple(mlp_shapes(net, slices.size, hidden, outputs, head_gain, silent=told))
        self._names = [s.name for s in self.shapes]
        self.heads = frozenset(self._names[-2:])
        self.trunk = frozenset(self._names[:-2])

    def __call__(self, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Inputs to outputs; see :class:`Architecture`."""
        return mlp(x, [parameters[name] for name in self._names])
