"""Building blocks of rewards, for any array library.

``tolerance`` is the soft indicator of the DeepMind Control Suite (Tassa et al. 2018,
arXiv:1801.00690, section 3). Scalar constants use ``math``: a NumPy scalar would widen float32.
"""

from __future__ import annotations

import math
from typing import Any

from array_api_compat import array_namespace

Array = Any
SIGMOIDS = ("gaussian", "linear", "quadratic")
_NAMESPACES: dict[type, Any] = {}


def namespace(x: Array) -> Any:
    """The array API namespace of an array: ``array_namespace``, which looks again at every call, once."""
    kind = type(x)
    if kind not in _NAMESPACES:
        _NAMESPACES[kind] = array_namespace(x)
    return _NAMESPACES[kind]


def tolerance(
    x: Array,
    lower: Array | float,
    upper: Array | float,
    margin: Array | float,
    sigmoid: str = "gaussian",
    value_at_margin: float = 0.1,
) -> Array:
    """1 where ``lower <= x <= upper``, falling smoothly to ``value_at_margin`` at distance ``margin``.

    Args:
        x: values, ``(num_envs,)``.
        lower: lower bound, a number or ``(num_envs,)``; may be ``-inf``.
        upper: upper bound, likewise.
        margin: distance from the nearer bound at which the result is ``value_at_margin``; positive.
        sigmoid: shape of the fall, one of ``SIGMOIDS``. ``linear`` and ``quadratic`` reach zero.
        value_at_margin: in (0, 1), and 0 is allowed where the shape reaches zero.

    Returns:
        Values in [0, 1], ``(num_envs,)``.

    Raises:
        ValueError: for an unknown sigmoid or a ``value_at_margin`` that it cannot have.
    """
    if sigmoid not in SIGMOIDS:
        raise ValueError(f"unknown sigmoid {sigmoid!r}; valid: {', '.join(SIGMOIDS)}")
    if not (0.0 <= value_at_margin < 1.0) or (sigmoid == "gaussian" and value_at_margin == 0.0):
        raise ValueError(f"value_at_margin {value_at_margin} is impossible for {sigmoid!r}")
    xp = namespace(x)
    zero = xp.zeros_like(x)
    outside = xp.maximum(xp.maximum(lower - x, x - upper), zero) / margin
    if sigmoid == "gaussian":
        # exp(-d^2 s^2 / 2) = v at d = 1  =>  s^2 = -2 log v
        return xp.exp(outside * outside * math.log(value_at_margin))
    if sigmoid == "linear":
        # 1 - d (1 - v)
        return xp.maximum(1.0 - outside * (1.0 - value_at_margin), zero)
    # 1 - d^2 (1 - v)
    return xp.maximum(1.0 - outside * outside * (1.0 - value_at_margin), zero)
