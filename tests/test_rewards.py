from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from array_api_compat import array_namespace
from hypothesis import given
from hypothesis import strategies as st

from mtenvs.rewards import SIGMOIDS, namespace, tolerance


def at(x: float, **kwargs: object) -> float:
    return float(tolerance(np.array([x]), 1.0, 3.0, **{"margin": 2.0, **kwargs})[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
def test_one_inside_and_the_value_at_the_margin(sigmoid: str) -> None:
    assert [at(x, sigmoid=sigmoid) for x in (1.0, 2.0, 3.0)] == [1.0, 1.0, 1.0]
    for x in (-1.0, 5.0):  # distance 2 = margin
        assert at(x, sigmoid=sigmoid, value_at_margin=0.2) == pytest.approx(0.2)


def test_halfway_by_hand() -> None:
    # d = 1/2, v = 0.2
    assert at(0.0, sigmoid="linear", value_at_margin=0.2) == pytest.approx(1 - 0.5 * 0.8)
    assert at(4.0, sigmoid="quadratic", value_at_margin=0.2) == pytest.approx(1 - 0.25 * 0.8)
    assert at(0.0, sigmoid="gaussian", value_at_margin=0.2) == pytest.approx(math.exp(0.25 * math.log(0.2)))


def test_linear_and_quadratic_reach_zero_and_stay() -> None:
    for sigmoid in ("linear", "quadratic"):
        assert [at(x, sigmoid=sigmoid, value_at_margin=0.0) for x in (-1.0, -9.0, 5.0, 50.0)] == [0.0] * 4


def test_bounds_may_be_infinite_or_arrays() -> None:
    x = np.array([0.0, 5.0, 1e6])
    assert tolerance(x, 5.0, math.inf, margin=5.0, sigmoid="linear", value_at_margin=0.0).tolist() == [
        0.0,
        1.0,
        1.0,
    ]
    each = tolerance(
        x, np.array([0.0, 6.0, 0.0]), np.array([0.0, 6.0, 1e6]), margin=np.array([1.0, 1.0, 1.0])
    )
    np.testing.assert_allclose(each, [1.0, 0.1, 1.0])


@pytest.mark.parametrize("sigmoid", SIGMOIDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_equals_numpy_and_keeps_the_type(sigmoid: str, dtype: str) -> None:
    x = np.linspace(-4.0, 8.0, 101).astype(dtype)
    expected = tolerance(x, 1.0, 3.0, margin=2.0, sigmoid=sigmoid)
    result = tolerance(torch.from_numpy(x), 1.0, 3.0, margin=2.0, sigmoid=sigmoid)
    assert expected.dtype == dtype
    assert result.dtype == getattr(torch, dtype)
    np.testing.assert_allclose(result.numpy(), expected, atol=1e-6)


@given(
    x=st.floats(-1e3, 1e3), lower=st.floats(-10, 10), width=st.floats(0, 10), margin=st.floats(0.01, 10),
    sigmoid=st.sampled_from(SIGMOIDS), v=st.floats(0.01, 0.99),
)  # fmt: skip
def test_within_zero_and_one_and_falling_with_distance(
    x: float, lower: float, width: float, margin: float, sigmoid: str, v: float
) -> None:
    upper = lower + width
    further = x + 1.0 if x > upper else x - 1.0
    near, far = tolerance(np.array([x, further]), lower, upper, margin, sigmoid, v)
    assert 0.0 <= far <= 1.0
    assert 0.0 <= near <= 1.0
    assert far <= near or lower <= x <= upper + 1.0


def test_bad_input_is_named_with_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="unknown sigmoid 'cosine'; valid: gaussian, linear, quadratic"):
        at(0.0, sigmoid="cosine")
    for sigmoid, value in (("gaussian", 0.0), ("linear", 1.0), ("quadratic", -0.1)):
        with pytest.raises(ValueError, match=f"value_at_margin {value} is impossible for '{sigmoid}'"):
            at(0.0, sigmoid=sigmoid, value_at_margin=value)


def test_namespace_is_that_of_the_library() -> None:
    for _ in range(2):  # also when it is asked again
        for array in (np.zeros(2), np.zeros(2, np.float32), torch.zeros(2), torch.zeros(2).double()):
            assert namespace(array) is array_namespace(array)
