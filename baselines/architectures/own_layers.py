"""Every task has its own first and last layer around a shared trunk."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from baselines.architectures.base import Architecture
from baselines.stacked import Shape, mlp, mlp_shapes
from mtenvs.conditioning import ObservationSlices


class OwnLayers(Architecture):
    """K first layers, a perceptron that all tasks share, and K last layers, for K tasks.

    The code weights the layers' outputs: a one-hot code picks a task's own, a mean of codes mixes them.
    Layers of a task that was never trained are as they were initialised. Every first layer sees body and
    mask. With a frozen trunk the own layers learn, first and last.
    """

    conditionings = ("one_hot",)
    least_hidden = 2

    def __init__(
        self, net: str, slices: ObservationSlices, hidden: Sequence[int], outputs: int, head_gain: float
    ) -> None:
        self._inputs, self._code = slice(0, slices.mask.stop), slices.code
        tasks = slices.code.stop - slices.code.start
        inputs, root = slices.mask.stop, math.sqrt(2.0)
        first = (
            Shape(f"{net}.first.weight", (tasks, inputs, hidden[0]), root, silent=slices.mask),
            Shape(f"{net}.first.bias", (tasks, 1, hidden[0]), 0.0),
        )
        shared = mlp_shapes(f"{net}.shared", hidden[0], hidden[1:-1], hidden[-1], root)
        last = (
            Shape(f"{net}.last.weight", (tasks, hidden[-1], outputs), head_gain),
            Shape(f"{net}.last.bias", (tasks, 1, outputs), 0.0),
        )
        self.shapes = (*first, *shared, *last)
        self._first, self._shared, self._last = ([s.name for s in part] for part in (first, shared, last))
        self.heads = frozenset(self._last)
        self.trunk = frozenset(self._shared)

    def __call__(self, x: Tensor, parameters: Mapping[str, Tensor]) -> Tensor:
        """Inputs to outputs; see :class:`Architecture`."""
        x, code = x[..., self._inputs], x[..., self._code]
        weight, bias = (parameters[name] for name in self._first)
        # sum_k c_k (x W_k + b_k) = (c (x) x) W + c b: one product, and nothing of size K hidden is kept
        pairs = (code.unsqueeze(3) * x.unsqueeze(2)).flatten(2)
        h = torch.tanh(torch.baddbmm(torch.bmm(code, bias.squeeze(2)), pairs, weight.flatten(1, 2)))
        h = torch.tanh(mlp(h, [parameters[name] for name in self._shared]))
        weight, bias = (parameters[name] for name in self._last)
        # sum_k c_k (h V_k + d_k): here outputs are few, so all K are computed and then weighted
        each = torch.bmm(h, weight.transpose(1, 2).flatten(2)).unflatten(2, (code.shape[2], -1))
        return (code.unsqueeze(3) * each).sum(2) + torch.bmm(code, bias.squeeze(2))
