"""The code scales and shifts every hidden unit: FiLM (Perez et al. 2018, arXiv:1709.07871)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from baselines.architectures.base import Architecture
from baselines.stacked import Shape, mlp_shapes
from mtenvs.conditioning import ObservationSlices


class FiLM(Architecture):
    """A perceptron of body and mask, each of whose hidden layers the code modulates.

    The generators are linear in the code and start at zero, so that at first nothing is modulated. Without
    a code it is a plain perceptron. The trunk is the perceptron but for its last layer; with a frozen
    trunk the generators learn, as that is how a task is told.
    """

    least_hidden = 1

    def __init__(
        self, net: str, slices: ObservationSlices, hidden: Sequence[int], outputs: int, head_gain: float
    ) -> None:
        self._inputs, self._code = slice(0, slices.mask.stop), slices.code
        codes = slices.code.stop - slices.code.start
        layers = mlp_shapes(net, slices.mask.stop, hidden, outputs, head_gain, silent=slices.mask)
        generators = [
            Shape(f"{net}.{i}.{kind}", (codes, units), 0.0)
            for i, units in enumerate(hidden)
            for kind in ("scale", "shift")
            if codes
        ]
        self._net, self._depth, self._told = net, len(hidden), bool(codes)
        self.shapes = (*layers, *generators)
        self.heads = frozenset(s.name for s in layers[-2:])
        self.trunk = frozenset(s.name for s in layers[:-2])

    def __call__(self, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Inputs to outputs; see :class:`Architecture`."""
        h, code = x[..., self._inputs], x[..., self._code]
        for i in range(self._depth + 1):
            layer = f"{self._net}.{i}"
            h = torch.baddbmm(parameters[f"{layer}.bias"], h, parameters[f"{layer}.weight"])
            if i == self._depth:
                break
            if self._told:
                # (1 + c G) (x W + b) + c B
                scale = torch.baddbmm(h.new_ones(1), code, parameters[f"{layer}.scale"])
                shift = torch.bmm(code, parameters[f"{layer}.shift"])
                h = torch.addcmul(shift, scale, h)
            h = torch.tanh(h)
        return h
