"""Random numbers by key and counter: known answers, distribution, streams with nothing in common."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mtenvs import counter_random

WORD = 2**64
GOLDEN = 0x9E3779B97F4A7C15
SURELY = 1e-6
"""A p-value below this is no chance: with a sound generator such a test would fail once in a million."""


def splitmix64(state: int, size: int) -> list[int]:
    """The generator as its authors' C code has it, in integers of any length."""
    out = []
    for _ in range(size):
        state = (state + GOLDEN) % WORD
        z = state
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % WORD
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % WORD
        out.append(z ^ (z >> 31))
    return out


def finalised(word: int) -> int:
    return splitmix64((word - GOLDEN) % WORD, 1)[0]


def signed(values: list[int]) -> torch.Tensor:
    return torch.from_numpy(np.array(values, np.uint64).view(np.int64))


def unsigned(words: torch.Tensor) -> list[int]:
    return words.numpy().view(np.uint64).tolist()


KEYS = [0, 1, 2**63 - 1, 2**63, WORD - 1, 0x0123456789ABCDEF]


def test_the_generator_is_splitmix64() -> None:
    """The five first outputs of seed 1234567, as published with the reference code."""
    published = [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]
    assert splitmix64(1234567, 5) == published
    states = [(1234567 + GOLDEN * i) % WORD for i in range(1, 6)]
    assert unsigned(counter_random.mix(signed(states))) == published


@pytest.mark.parametrize("counter", [0, 1, 7, 2**40, 2**62])
def test_words_are_those_of_a_generator_for_every_key_and_counter(counter: int) -> None:
    expected = [splitmix64(finalised((finalised(key) + GOLDEN * counter) % WORD), 3) for key in KEYS]
    assert [unsigned(row) for row in counter_random.words(signed(KEYS), counter, 3)] == expected
    counters = torch.full((len(KEYS),), counter)
    assert [unsigned(row) for row in counter_random.words(signed(KEYS), counters, 3)] == expected


def test_every_world_has_a_counter_of_its_own() -> None:
    keys, counters = signed(KEYS), torch.arange(len(KEYS))
    whole = counter_random.uniform(keys, counters, 5)
    for i in range(len(KEYS)):
        alone = counter_random.uniform(keys[i : i + 1], i, 5)
        torch.testing.assert_close(whole[i : i + 1], alone, rtol=0, atol=0)
    # a longer block begins with the shorter one
    longer = counter_random.words(keys, counters, 9)
    assert torch.equal(longer[:, :5], counter_random.words(keys, counters, 5))


def test_uniform_numbers_are_the_leading_bits() -> None:
    words = counter_random.words(signed(KEYS), 3, 4)
    expected = [[(word >> 40) / 2**24 for word in unsigned(row)] for row in words]
    found = counter_random.uniform(signed(KEYS), 3, 4)
    assert found.dtype == torch.float32
    assert found.tolist() == expected


def test_the_ends_of_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """All bits set is below 1, and a normal number is finite whatever the bits are."""
    for word in (0, -1):
        monkeypatch.setattr(
            counter_random, "words", lambda keys, counters, size, w=word: torch.full((1, size), w)
        )
        uniform = counter_random.uniform(torch.zeros(1, dtype=torch.int64), 0, 2)
        assert uniform.tolist() == [[-word * (1 - 2.0**-24)] * 2]
        assert torch.isfinite(counter_random.normal(torch.zeros(1, dtype=torch.int64), 0, 2)).all()


def test_normal_numbers_by_box_and_muller() -> None:
    keys = signed(KEYS)
    uniform = counter_random.uniform(keys, 2, 6).double()
    radius, angle = (-2.0 * (1.0 - uniform[:, :3]).log()).sqrt(), 2.0 * math.pi * uniform[:, 3:]
    torch.testing.assert_close(
        counter_random.normal(keys, 2, 3).double(), radius * angle.cos(), rtol=1e-4, atol=1e-5
    )


# neighbouring keys and counters are what worlds and episodes have
STREAMS = {
    "one block": lambda size: counter_random.uniform(signed([3]), 0, size)[0],
    "keys": lambda size: counter_random.uniform(torch.arange(size), 0, 1)[:, 0],
    "counters": lambda size: counter_random.uniform(
        torch.zeros(size, dtype=torch.int64), torch.arange(size), 1
    )[:, 0],
}


def uniformity(values: np.ndarray) -> float:
    """p-value of equally many numbers in each of 256 parts of [0, 1)."""
    return stats.chisquare(np.histogram(values, 256, (0, 1))[0]).pvalue


def independence(a: np.ndarray, b: np.ndarray) -> float:
    """p-value of equally many pairs in each of 16 x 16 parts of the unit square."""
    return stats.chisquare(np.histogram2d(a, b, 16, [[0, 1], [0, 1]])[0].ravel()).pvalue


@pytest.mark.parametrize("name", STREAMS)
def test_numbers_are_uniform_and_neighbours_independent(name: str) -> None:
    values = STREAMS[name](2**17).numpy().astype(float)
    assert uniformity(values) > SURELY
    for lag in (1, 2, 64):  # every number in one pair only
        earlier, later = values.reshape(-1, 2, lag).swapaxes(0, 1)
        assert independence(earlier.ravel(), later.ravel()) > SURELY


@pytest.mark.parametrize("name", STREAMS)
def test_every_bit_is_fair(name: str) -> None:
    size = 2**14
    words = {
        "one block": lambda: counter_random.words(signed([3]), 0, size)[0],
        "keys": lambda: counter_random.words(torch.arange(size), 0, 1)[:, 0],
        "counters": lambda: counter_random.words(
            torch.zeros(size, dtype=torch.int64), torch.arange(size), 1
        )[:, 0],
    }[name]()
    ones = np.array([(words >> bit & 1).sum().item() for bit in range(64)])
    # binomial: 6 deviations are once in 5e8
    assert np.abs(ones - size / 2).max() < 6 * math.sqrt(size) / 2


def test_the_tests_can_fail() -> None:
    """What is nearly uniform, and numbers that nearly follow from their neighbours, are found out."""
    values = STREAMS["one block"](2**17).numpy().astype(float)
    assert uniformity(values**1.05) < SURELY
    assert independence(values[:-1], 0.1 * values[:-1] + 0.9 * values[1:]) < SURELY


def test_keys_and_counters_do_not_make_each_others_numbers() -> None:
    """Key k at counter c + 1 is not key k + 1 at counter c, nor is any word there twice."""
    keys, counters = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    words = counter_random.words(keys.flatten(), counters.flatten(), 16)
    assert len(torch.unique(words)) == words.numel()


def test_normal_numbers_are_normal() -> None:
    values = counter_random.normal(torch.arange(64), 5, 1024).flatten().numpy().astype(float)
    assert stats.kstest(values, "norm").pvalue > SURELY
    assert stats.kstest(1.06 * values, "norm").pvalue < SURELY
    halves = counter_random.normal(torch.arange(4096), 0, 2).numpy().astype(float)
    assert independence(*stats.norm.cdf(halves).T) > SURELY
