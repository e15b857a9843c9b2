"""What a rollout brings, wherever its worlds are."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor


@dataclasses.dataclass
class Experience:
    """What T steps of R runs of W worlds brought; row r of every array is run r's alone."""

    observed: Tensor
    """Observations, the last one after the last step, ``(T + 1, R, W, size)``."""
    actions: Tensor
    """``(T, R, W, num_actions)``, not clipped."""
    noise: Tensor
    """Standard normal numbers that the actions follow from, likewise."""
    rewards: Tensor
    """``(T, R, W)``."""
    terminations: Tensor
    """Where an episode ended for good, ``(T, R, W)`` of bool."""
    dones: Tensor
    """Where an episode ended at all, likewise."""
    finals: Tensor | list[tuple[int, int, np.ndarray]]
    """What every step led to before any reset, ``(T, R, W, size)``; or of truncated episodes alone, as
    step, world and observation ``(size,)``."""


def idle(active: Tensor, actions: Tensor) -> Tensor:
    """Actions with none of runs that have diverged, so that their neighbours go on.

    Parameters that are finite can give actions that are not: a large ``log_std`` does, or large weights.

    Args:
        active: runs that have not, ``(R,)`` of bool; those with such actions are struck out, in place.
        actions: ``(R, W, num_actions)``.
    """
    active &= torch.isfinite(actions).flatten(1).all(dim=1)
    return torch.where(active.view(-1, 1, 1), actions, 0.0)
