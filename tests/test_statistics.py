"""Intervals, tests and bands of PROTOCOL §6: known answers, scipy as oracle, and small simulations."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import statistics

times = st.lists(st.floats(1.0, 1e6), min_size=2, max_size=8)


def test_log_ratio_by_hand():
    scratch, transfer = np.array([8.0, 12.0]), np.array([4.0, 5.0, 6.0])
    e = statistics.log_ratio(scratch, transfer)
    assert e.value == pytest.approx(math.log(2))
    # s²/(n Ȳ²): 8/(2·100) and 1/(3·25)
    v_s, v_t = 0.04, 1 / 75
    assert e.variance == pytest.approx(v_s + v_t)
    assert e.df == pytest.approx((v_s + v_t) ** 2 / (v_s**2 / 1 + v_t**2 / 2))
    half = stats.t.ppf(0.975, e.df) * math.sqrt(v_s + v_t)
    assert (e.low, e.high) == pytest.approx((math.log(2) - half, math.log(2) + half))
    assert e.exp().value == pytest.approx(2.0)


@settings(deadline=None)
@given(times, times)
def test_swapping_the_arms_negates_the_log_ratio(a, b):
    one, other = (
        statistics.log_ratio(np.array(a), np.array(b)),
        statistics.log_ratio(np.array(b), np.array(a)),
    )
    assert one.value == pytest.approx(-other.value, abs=1e-9)
    assert one.reason == other.reason
    if not one.reason:
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), rel=1e-6, abs=1e-9)


def test_difference_is_welchs_interval():
    rng = np.random.default_rng(1)
    a, b = rng.normal(0, 1, 7), rng.normal(0.5, 3, 5)
    mine = statistics.difference(a, b)
    oracle = stats.ttest_ind(b, a, equal_var=False)
    assert (mine.low, mine.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert mine.df == pytest.approx(oracle.df)
    assert mine.p == pytest.approx(oracle.pvalue)


@pytest.mark.parametrize(
    ("scratch", "transfer", "reason"),
    [
        ([1.0], [1.0, 2.0], "one seed in scratch"),
        ([1.0, 2.0], [1.0], "one seed in transfer"),
        ([], [1.0, 2.0], "no run of scratch is complete"),
        ([3.0, 3.0], [2.0, 2.0], "zero variance in both arms"),
        ([0.1 + 0.2, 0.3], [0.3, 0.3], ""),
        ([math.nan, math.nan], [math.nan, math.nan], "not estimable: no run reaches any threshold"),
    ],
)
def test_where_there_is_no_interval_there_is_a_reason(scratch, transfer, reason):
    e = statistics.log_ratio(np.array(scratch), np.array(transfer))
    assert e.reason == reason
    assert math.isnan(e.low) == bool(reason)


def test_suite_is_the_mean_with_summed_variances():
    rng = np.random.default_rng(0)
    tasks = [(rng.lognormal(2, 0.3, 4), rng.lognormal(1, 0.5, 6)) for _ in range(3)]
    logs = [statistics.log_ratio(*t) for t in tasks]
    suite = statistics.suite_mean(logs)
    assert suite.value == pytest.approx(np.mean([e.value for e in logs]))
    assert suite.variance == pytest.approx(sum(e.variance for e in logs) / 9)
    parts = [(v / 9, d) for e in logs for v, d in e.parts]
    assert suite.df == pytest.approx(sum(v for v, _ in parts) ** 2 / sum(v**2 / d for v, d in parts))
    # a suite of one task is that task
    assert statistics.suite_mean(logs[:1]).low == pytest.approx(logs[0].low)
    # what is not estimable is left out, one seed takes the interval from all
    nothing = statistics.log_ratio(np.array([math.nan] * 2), np.array([math.nan] * 2))
    assert statistics.suite_mean([*logs, nothing]).low == pytest.approx(suite.low)
    single = statistics.log_ratio(np.array([2.0]), np.array([1.0, 1.5]))
    assert statistics.suite_mean([*logs, single]).reason == "one seed in scratch"
    assert math.isnan(statistics.suite_mean([nothing]).value)
    assert statistics.suite_mean([]).reason == "no task in this set"


def test_wilson():
    assert statistics.wilson(1.0, 10) == pytest.approx((0.722, 1.0), abs=5e-4)
    for n in (1, 3, 10, 40):
        for k in range(n + 1):
            oracle = stats.binomtest(k, n).proportion_ci(method="wilson")
            assert statistics.wilson(k / n, n) == pytest.approx((oracle.low, oracle.high), abs=1e-12)
    assert all(map(math.isnan, statistics.wilson(math.nan, 0)))


def test_permutation_p_is_exact_where_it_can_be_and_ignores_order():
    rng = np.random.default_rng
    a, b = np.array([1.0, 2.0, 3.0]), np.array([7.0, 9.0, 8.0])
    assert statistics.permutation_p(a, b, rng(0)) == pytest.approx(0.1)  # 2 of 20
    assert statistics.permutation_p(np.ones(3), np.full(3, 5.0), rng(0)) == pytest.approx(0.1)
    assert statistics.permutation_p(np.ones(3), np.ones(3), rng(0)) == 1.0
    assert math.isnan(statistics.permutation_p(np.ones(1), np.arange(3.0), rng(0)))
    # too many to list: drawn, and the draw does not see the order of seeds
    x, y = rng(1).normal(0, 1, 12), rng(2).normal(1, 1, 12)
    p = statistics.permutation_p(x, y, rng(3))
    assert p == statistics.permutation_p(x[::-1], rng(4).permutation(y), rng(3))
    assert p == pytest.approx(stats.ttest_ind(x, y, equal_var=False).pvalue, abs=0.03)


def test_suite_permutation_p_keeps_its_level_and_sees_an_effect():
    rng = np.random.default_rng(5)
    shift = [1.0, 10.0, 100.0]  # tasks differ widely, which permuting within tasks respects

    def p(ratio):
        tasks = [(m * rng.lognormal(0, 0.4, 5) * ratio, m * rng.lognormal(0, 0.4, 5)) for m in shift]
        return statistics.suite_permutation_p(tasks, rng, resamples=199)

    null = np.array([p(1.0) for _ in range(200)])
    assert 0.01 <= np.mean(null <= 0.05) <= 0.10
    assert np.mean([p(2.5) for _ in range(20)]) < 0.02
    assert statistics.suite_permutation_p([(np.ones(3), np.ones(3))], rng, 99) == 1.0
    assert statistics.suite_permutation_p([(np.ones(4), np.full(4, 9.0))], rng, 999) == pytest.approx(
        2 / 70, abs=0.02
    )
    assert math.isnan(statistics.suite_permutation_p([], rng))
    assert math.isnan(statistics.suite_permutation_p([(np.ones(1), np.ones(3))], rng))


def test_holm():
    assert statistics.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    adjusted = statistics.holm([math.nan, 0.03, 0.02])
    assert math.isnan(adjusted[0])
    assert adjusted[1:] == pytest.approx([0.04, 0.04])


def test_coverage_of_the_cluster_interval_and_failure_of_the_naive_bootstrap():
    # three fine-tunings to a pretraining: runs of one cluster move together
    rng = np.random.default_rng(11)
    n, f, trials = 8, 3, 400
    cluster = rng.lognormal(0, 0.3, (trials, n, 1)) * rng.lognormal(0, 0.1, (trials, n, f))
    scratch = 2 * rng.lognormal(0, 0.3, (trials, n))
    mean = math.exp(0.3**2 / 2)
    truth = math.log(2 * mean / (mean * math.exp(0.1**2 / 2)))
    good = naive = 0
    for i in range(trials):
        e = statistics.log_ratio(scratch[i], cluster[i].mean(axis=1))
        good += e.low <= truth <= e.high
        runs = cluster[i].ravel()
        boot = np.log(
            scratch[i][rng.integers(n, size=(300, n))].mean(axis=1)
            / runs[rng.integers(n * f, size=(300, n * f))].mean(axis=1)
        )
        low, high = np.quantile(boot, [0.025, 0.975])
        naive += low <= truth <= high
    assert 0.92 <= good / trials <= 0.98
    assert naive / trials < 0.89  # the negative control


def test_bands_by_hand_and_their_order():
    rng = np.random.default_rng(2)
    curves = rng.normal(0, 1, (6, 5)).cumsum(axis=1)
    curves[:, 0] = 0.25  # equal in all runs
    band = statistics.curve_band(curves, np.random.default_rng(0))
    half = stats.t.ppf(0.975, 5) * curves.std(axis=0, ddof=1) / math.sqrt(6)
    np.testing.assert_allclose(band.low, curves.mean(axis=0) - half, atol=1e-12)
    assert np.all(band.low_simultaneous[1:] < band.low[1:])
    assert np.all(band.high_simultaneous[1:] > band.high[1:])
    assert band.low_simultaneous[0] == pytest.approx(0.25)
    shuffled = statistics.curve_band(curves[::-1], np.random.default_rng(0))
    np.testing.assert_array_equal(band.low_simultaneous, shuffled.low_simultaneous)
    single = statistics.curve_band(curves[:1], np.random.default_rng(0))
    np.testing.assert_array_equal(single.mean, curves[0])
    assert np.isnan(single.low).all()


def test_the_simultaneous_band_covers_the_whole_curve_and_the_pointwise_does_not():
    rng = np.random.default_rng(3)
    trials, whole, points = 150, 0, 0
    for _ in range(trials):
        # a random level and independent noise at 12 checkpoints around a true curve of 0
        curves = rng.normal(0, 0.5, (10, 1)) + rng.normal(0, 1, (10, 12))
        band = statistics.curve_band(curves, rng, resamples=200)
        whole += bool(np.all((band.low_simultaneous <= 0) & (band.high_simultaneous >= 0)))
        points += bool(np.all((band.low <= 0) & (band.high >= 0)))
    assert whole / trials >= 0.90
    assert points / trials < 0.85


def test_mean_band_sums_the_variances_of_tasks():
    rng = np.random.default_rng(4)
    curves = rng.normal(0, 1, (2, 5, 4))
    bands = [statistics.curve_band(c, rng) for c in curves]
    mean = statistics.mean_band(bands)
    np.testing.assert_allclose(mean.mean, curves.mean(axis=(0, 1)))
    np.testing.assert_allclose(mean.variance, sum(c.var(axis=0, ddof=1) / 5 for c in curves) / 4)
    assert np.all(mean.low < mean.mean)
    with pytest.raises(ValueError, match="no task"):
        statistics.mean_band([])
