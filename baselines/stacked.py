"""Many small networks as one: parameters, running statistics and Adam with a leading run axis.

R networks of equal shape are multiplied with one ``torch.baddbmm``, so that ten seeds cost little
more than one. Row r of everything belongs to run r alone: nothing is ever summed over runs.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


@dataclasses.dataclass(frozen=True)
class Shape:
    """One named parameter of a single network."""

    name: str
    """Name in checkpoints."""
    size: tuple[int, ...]
    """Its shape without the run axis. Three entries are several layers, each initialised on its own."""
    gain: float
    """Gain of the orthogonal initialisation; 0 starts at ``fill``."""
    fill: float = 0.0
    """Start value where ``gain`` is 0."""
    silent: slice | None = None
    """Inputs of a layer whose weights start at zero."""


def mlp_shapes(
    name: str,
    inputs: int,
    hidden: Sequence[int],
    outputs: int,
    head_gain: float,
    silent: slice | None = None,
) -> list[Shape]:
    """Weights ``(in, out)`` and biases ``(1, out)`` of a multi-layer perceptron, first layer first.

    Args:
        name: first part of the parameters' names.
        inputs: of the first layer.
        hidden: units of the hidden layers.
        outputs: of the last layer.
        head_gain: of the last layer's initialisation.
        silent: inputs of the first layer whose weights start at zero.
    """
    sizes = [inputs, *hidden, outputs]
    shapes = []
    for i in range(len(sizes) - 1):
        # sqrt(2) for hidden layers as in the reference PPO (Huang et al. 2022, "37 details", no. 2)
        gain = head_gain if i == len(sizes) - 2 else math.sqrt(2.0)
        zero = silent if i == 0 else None
        shapes.append(Shape(f"{name}.{i}.weight", (sizes[i], sizes[i + 1]), gain, silent=zero))
        shapes.append(Shape(f"{name}.{i}.bias", (1, sizes[i + 1]), 0.0))
    return shapes


def mlp(x: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """R perceptrons with tanh between layers.

    Args:
        x: ``(R, batch, in)``.
        parameters: weight ``(R, in, out)`` and bias ``(R, 1, out)`` of every layer in turn.

    Returns:
        ``(R, batch, out)``.
    """
    for i in range(0, len(parameters), 2):
        x = torch.baddbmm(parameters[i + 1], x, parameters[i])
        if i < len(parameters) - 2:
            x = torch.tanh(x)
    return x


class StackedParameters:
    """All parameters of R networks in one tensor ``(R, P)``, so that an optimiser step is a few calls.

    Args:
        shapes: the parameters of one network.
        generators: one per run, for the initialisation.
        device: where the tensor lives.
    """

    def __init__(
        self, shapes: Sequence[Shape], generators: Sequence[torch.Generator], device: torch.device
    ) -> None:
        self.shapes = tuple(shapes)
        self._sizes = [math.prod(s.size) for s in self.shapes]
        rows = [torch.cat([_initial(s, g).flatten() for s in self.shapes]) for g in generators]
        self.flat = torch.stack(rows).to(device).requires_grad_(True)

    @property
    def count(self) -> int:
        """Parameters of one network."""
        return sum(self._sizes)

    def views(self, flat: Tensor | None = None) -> dict[str, Tensor]:
        """Parameters by name, each ``(R, *size)``; gradients flow back to ``flat``.

        Args:
            flat: ``(R, P)``, something else of every parameter, such as a moment; ``None`` for the values.
        """
        # one split, whose gradient is one concatenation
        parts = (self.flat if flat is None else flat).split(self._sizes, dim=1)
        return {s.name: part.view(-1, *s.size) for s, part in zip(self.shapes, parts, strict=True)}


def _initial(shape: Shape, generator: torch.Generator) -> Tensor:
    if shape.gain == 0.0:
        return torch.full(shape.size, shape.fill)
    if len(shape.size) == 3:
        one = dataclasses.replace(shape, size=shape.size[1:])
        return torch.stack([_initial(one, generator) for _ in range(shape.size[0])])
    # orthogonal_ wants (out, in); drawn on the CPU, so that a seed means the same on every device
    weight = torch.empty(shape.size[1], shape.size[0])
    torch.nn.init.orthogonal_(weight, shape.gain, generator=generator)
    weight = weight.T.contiguous()
    if shape.silent is not None:
        weight[shape.silent] = 0.0
    return weight


class StackedAdam:
    """Adam (Kingma & Ba 2015, arXiv:1412.6980, algorithm 1), each run with its own rate and clock.

    Args:
        like: the parameters, ``(R, P)``.
        learning_rate: per run, ``(R,)``.
        betas: decay of the first and second moments.
        eps: added to the root of the second moment.
    """

    def __init__(
        self,
        like: Tensor,
        learning_rate: Tensor,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-5,
    ) -> None:
        self.learning_rate = learning_rate.to(like.device).view(-1, 1)
        self.betas, self.eps = betas, eps
        self.first = torch.zeros_like(like, requires_grad=False)
        self.second = torch.zeros_like(like, requires_grad=False)
        self.clock = torch.zeros(like.shape[0], 1, device=like.device)

    @torch.no_grad()
    def step(self, flat: Tensor, gradient: Tensor, active: Tensor, frozen: Tensor | None = None) -> None:
        """Updates the parameters of active runs in place.

        Args:
            flat: parameters, ``(R, P)``.
            gradient: their gradient, ``(R, P)``; finite in active runs.
            active: ``(R,)`` of bool; the others keep parameters and moments.
            frozen: ``(R, P)`` of bool; these parameters and their moments stay as they are, too. ``None``
                for none.
        """
        if frozen is not None:
            kept = [tensor.detach().clone() for tensor in (flat, self.first, self.second)]
        b1, b2 = self.betas
        self.clock += active.view(-1, 1)
        if flat.is_cuda or not bool(active.all()):  # a GPU is not waited for
            keep = active.view(-1, 1)
            # an inactive run has zero moments, so that its step below is zero
            gradient = torch.where(keep, gradient, 0.0)
            self.first.mul_(keep)
        self.first.lerp_(gradient, 1.0 - b1)  # m = b1 m + (1 - b1) g
        self.second.mul_(b2).addcmul_(gradient, gradient, value=1.0 - b2)  # v = b2 v + (1 - b2) g^2
        clock = self.clock.clamp(min=1.0)
        root = (self.second / (1.0 - b2**clock)).sqrt_().add_(self.eps)  # sqrt(v^) + eps
        flat.sub_(self.learning_rate / (1.0 - b1**clock) * self.first / root)
        if frozen is not None:
            for tensor, values in zip((flat, self.first, self.second), kept, strict=True):
                tensor.copy_(torch.where(frozen, values, tensor))


@torch.no_grad()
def clip_gradient(gradient: Tensor, max_norm: float) -> Tensor:
    """Scales each run's gradient ``(R, P)`` to a Euclidean norm of at most ``max_norm``."""
    norm = gradient.norm(dim=1, keepdim=True)
    return gradient * (max_norm / (norm + 1e-6)).clamp(max=1.0)


class RunningMoments:
    """Mean and variance of a stream, per run and entry, merged batch by batch (Chan et al. 1983).

    Args:
        num_runs: R.
        size: entries.
        device: where the tensors live.
    """

    def __init__(self, num_runs: int, size: int, device: torch.device) -> None:
        # float64: the count passes 2^24 in long trainings
        self.mean = torch.zeros(num_runs, size, dtype=torch.float64, device=device)
        self.var = torch.ones(num_runs, size, dtype=torch.float64, device=device)
        # per entry, as padded entries of some worlds are not seen
        self.count = torch.full((num_runs, size), 1e-4, dtype=torch.float64, device=device)

    def update(self, batch: Tensor, present: Tensor | None = None) -> None:
        """Merges a batch.

        Args:
            batch: ``(R, n, size)``.
            present: 1 for entries that count, 0 for padding, like ``batch``; ``None`` if all do.
        """
        batch = batch.double()
        n: Tensor | int
        if present is None:
            n = batch.shape[1]
            var, mean = torch.var_mean(batch, dim=1, correction=0)
        else:
            present = present.double()
            n = present.sum(dim=1)
            mean = (batch * present).sum(dim=1) / n.clamp(min=1.0)
            var = ((batch - mean.unsqueeze(1)) ** 2 * present).sum(dim=1) / n.clamp(min=1.0)
        delta, total = mean - self.mean, self.count + n
        self.mean = self.mean + delta * n / total
        # sums of squares add, plus what the two means differ by
        squares = self.var * self.count + var * n + delta**2 * self.count * n / total
        self.var, self.count = squares / total, total

    def widen(self, size: int) -> None:
        """Adds entries that have seen nothing until there are at least ``size``."""
        wide = RunningMoments(self.mean.shape[0], max(size, self.mean.shape[1]), self.mean.device)
        for name in ("mean", "var", "count"):
            old = getattr(self, name)
            getattr(wide, name)[:, : old.shape[1]] = old
            setattr(self, name, getattr(wide, name))

    def get_state(self) -> dict[str, Tensor]:
        """The numbers of all runs."""
        return {"mean": self.mean, "var": self.var, "count": self.count}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what :meth:`get_state` returned."""
        for name in ("mean", "var", "count"):
            setattr(self, name, state[name].to(self.mean.device, copy=True))

    def tensors(self, run: int) -> dict[str, Tensor]:
        """One run's numbers, for a checkpoint."""
        return {"mean": self.mean[run], "var": self.var[run], "count": self.count[run]}

    def restore(self, run: int, tensors: dict[str, Tensor]) -> None:
        """Sets one run's numbers from a checkpoint."""
        for name in ("mean", "var", "count"):
            getattr(self, name)[run] = tensors[name].to(self.mean.device)
