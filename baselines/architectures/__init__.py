"""How a network uses what it is told of its task: one small module for each way, chosen by name.

Parameters of R networks are stacked ``(R, ...)`` (:mod:`baselines.stacked`), so every architecture trains
many runs at once. To add one: subclass :class:`Architecture` in a module of its own and name it here.
"""

from __future__ import annotations

from collections.abc import Sequence

from baselines.architectures.base import Architecture
from baselines.architectures.concatenation import Concatenation
from baselines.architectures.film import FiLM
from baselines.architectures.own_layers import OwnLayers
from mtenvs.spec import did_you_mean

ARCHITECTURES: dict[str, type[Architecture]] = {
    "concatenation": Concatenation,
    "film": FiLM,
    "own_layers": OwnLayers,
}
"""By the names that hyperparameters and checkpoints have for them."""


def find_architecture(name: str, conditioning: str, hidden: Sequence[int]) -> type[Architecture]:
    """Finds an architecture that suits what the network is told.

    Args:
        name: one of ``ARCHITECTURES``.
        conditioning: of the worlds.
        hidden: units of the hidden layers.

    Raises:
        ValueError: for an unknown name, or a conditioning or layers that it cannot work with.
    """
    if name not in ARCHITECTURES:
        raise ValueError(
            f"unknown architecture {name!r}{did_you_mean(name, ARCHITECTURES)}; "
            f"valid: {', '.join(ARCHITECTURES)}"
        )
    found = ARCHITECTURES[name]
    if conditioning not in found.conditionings:
        raise ValueError(
            f"architecture {name!r} cannot be told by conditioning={conditioning!r}; "
            f"valid: {', '.join(found.conditionings)}"
        )
    if len(hidden) < found.least_hidden:
        raise ValueError(
            f"architecture {name!r} needs at least {found.least_hidden} hidden layers, got "
            f"hidden={list(hidden)}"
        )
    return found
