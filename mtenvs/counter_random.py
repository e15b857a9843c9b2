"""Random numbers that are functions of a key and a counter, for worlds and networks on a device.

Nothing is carried along but the counters, so that a stream is the same whatever runs beside it and
however the work is cut, and nothing has to be seeded inside a captured graph.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

# SplitMix64 (Steele, Lea & Flood 2014, "Fast splittable pseudorandom number generators", fig. 12 and 13)
_GOLDEN = 0x9E3779B97F4A7C15
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
_MANTISSA = 24  # bits of a float32


def _signed(word: int) -> int:
    """An unsigned 64-bit number as PyTorch's int64, whose products wrap around in the same bits."""
    return word - (1 << 64) if word >= 1 << 63 else word


def _shifted(words: Tensor, by: int) -> Tensor:
    """``words >> by`` without the sign, which int64 would pull in from the left."""
    return (words >> by) & ((1 << (64 - by)) - 1)


def mix(words: Tensor) -> Tensor:
    """SplitMix64's finaliser: 64-bit words, as int64, to words that look independent of them."""
    words = (words ^ _shifted(words, 30)) * _signed(_FIRST)
    words = (words ^ _shifted(words, 27)) * _signed(_SECOND)
    return words ^ _shifted(words, 31)


def words(keys: Tensor, counters: Tensor | int, size: int) -> Tensor:
    """Random 64-bit words, ``(n, size)`` of int64.

    Args:
        keys: which stream, ``(n,)`` of int64.
        counters: which block of it, ``(n,)`` of int64, or one number for all.
        size: words of a block.
    """
    # a generator of its own for every key and counter, whose outputs the words are
    if isinstance(counters, int):
        block: Tensor | int = _signed(_GOLDEN * counters % 2**64)
    else:
        block = _signed(_GOLDEN) * counters
    state = mix(mix(keys) + block)
    steps = torch.arange(1, size + 1, dtype=torch.int64, device=keys.device)
    return mix(state.unsqueeze(1) + _signed(_GOLDEN) * steps)


def uniform(keys: Tensor, counters: Tensor | int, size: int) -> Tensor:
    """Uniform numbers in [0, 1), ``(n, size)`` of float32; arguments as of :func:`words`."""
    return _shifted(words(keys, counters, size), 64 - _MANTISSA).float() * 2.0**-_MANTISSA


def normal(keys: Tensor, counters: Tensor | int, size: int) -> Tensor:
    """Standard normal numbers, ``(n, size)`` of float32; arguments as of :func:`words`.

    By Box and Muller (1958), from two uniform numbers each.
    """
    radius, angle = uniform(keys, counters, 2 * size).split(size, dim=1)
    # 1 - u is in (0, 1]: the logarithm is finite
    return torch.sqrt(-2.0 * torch.log1p(-radius)) * torch.cos(2.0 * math.pi * angle)
