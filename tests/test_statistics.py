"""Intervals, tests and bands of PROTOCOL §6: known answers, scipy as oracle, and small simulations."""

from __future__ import annotations

import itertools
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


def test_a_difference_of_what_is_no_number_says_whose():
    e = statistics.difference(np.array([0.1, 0.2]), np.array([0.3, math.nan]))
    assert e.reason == "not estimable: a value of transfer is not a number"


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
    # two-sided as the test of one task is, with arms of unequal size too: 2 of 35
    unequal = (np.ones(3), np.full(4, 5.0))
    assert statistics.permutation_p(*unequal, rng) == pytest.approx(2 / 35)
    assert statistics.suite_permutation_p([unequal], rng) == pytest.approx(2 / 35, abs=0.01)
    assert statistics.suite_permutation_p([unequal[::-1]], rng) == pytest.approx(2 / 35, abs=0.01)
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
    mean = statistics.mean_band(curves, np.random.default_rng(0))
    np.testing.assert_allclose(mean.mean, curves.mean(axis=(0, 1)))
    np.testing.assert_allclose(mean.variance, sum(c.var(axis=0, ddof=1) / 5 for c in curves) / 4)
    assert np.all(mean.low < mean.mean)
    # the whole curve is held by a wider band, which no order of tasks' seeds moves
    assert np.all(mean.low_simultaneous < mean.low)
    assert np.all(mean.high_simultaneous > mean.high)
    turned = statistics.mean_band(curves[:, ::-1], np.random.default_rng(0))
    np.testing.assert_array_equal(mean.low_simultaneous, turned.low_simultaneous)
    # a task without clusters is left out, and one task alone is curve_band
    alone = statistics.mean_band([curves[0], curves[1][:0]], np.random.default_rng(0))
    same = statistics.curve_band(curves[0], np.random.default_rng(0))
    np.testing.assert_array_equal(alone.high_simultaneous, same.high_simultaneous)
    with pytest.raises(ValueError, match="no task"):
        statistics.mean_band([curves[0][:0]], rng)


def test_bonferroni_levels_hold_together():
    assert statistics.bonferroni(1) == pytest.approx(0.95)
    assert statistics.bonferroni(8) == pytest.approx(1 - 0.05 / 8)
    a, b = np.array([8.0, 12.0, 9.0]), np.array([4.0, 5.0, 6.0])
    plain, wide = (
        statistics.log_ratio(a, b, confidence) for confidence in (0.95, statistics.bonferroni(8))
    )
    assert wide.low < plain.low < plain.high < wide.high
    with pytest.raises(ValueError, match="at least 1, got 0"):
        statistics.bonferroni(0)


def test_one_sample_is_students_interval_and_names_carry_into_reasons():
    x = np.random.default_rng(0).normal(1, 2, 9)
    mine, oracle = statistics.one_sample(x), stats.ttest_1samp(x, 0.0)
    assert (mine.low, mine.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert mine.p == pytest.approx(oracle.pvalue)
    assert statistics.one_sample(x[:1]).reason == "one seed"
    assert statistics.one_sample(x[:0]).reason == "no value"
    assert statistics.one_sample(np.full(3, 0.1)).reason == "zero variance"
    names = ("blind", "transfer")
    assert statistics.log_ratio(x[:1] ** 2, x**2, names=names).reason == "one seed in blind"
    assert statistics.difference(x, x[:0], names=names).reason == "no run of transfer is complete"


# --- sign flips ------------------------------------------------------------------------------------

values_of_tasks = st.lists(st.floats(-3, 3).map(lambda v: round(v, 3)), min_size=2, max_size=8)


@settings(deadline=None, max_examples=60)
@given(values_of_tasks)
def test_sign_flip_agrees_with_scipys_exact_test(values):
    x = np.array(values)
    # scipy compares sums to a relative slack only; shifting by rounding is no tie there
    oracle = stats.permutation_test(
        (x,), lambda s, axis: s.sum(axis=axis).round(9), permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert statistics.sign_flip(values).p == pytest.approx(oracle)


@settings(deadline=None, max_examples=100)
@given(st.lists(st.floats(-3, 3), min_size=6, max_size=9, unique=True), st.floats(-2, 2))
def test_the_sign_flip_interval_holds_what_the_test_does_not_reject(values, shift):
    e = statistics.sign_flip(values)
    if min(abs(e.low - shift), abs(e.high - shift)) < 1e-6:
        return
    moved = statistics.sign_flip([v - shift for v in values])
    assert (e.low < shift < e.high) == (moved.p > 0.05)
    assert e.p == statistics.sign_flip(values[::-1]).p


def test_few_tasks_cannot_reach_the_level():
    assert [statistics.sign_flip([1.0] * k).p for k in (1, 5, 6)] == [1.0, 0.0625, 0.03125]
    five = statistics.sign_flip([0.5, 0.3, 0.9, 0.2, 0.7])
    assert five.p == 0.0625
    assert five.reason == "5 tasks are too few to flip signs"
    assert math.isnan(five.low)
    # with six the interval is from the smallest to the largest value: one order on each side is cut
    six = statistics.sign_flip([0.5, 0.3, 0.9, 0.2, 0.7, 0.4, math.nan])
    assert (six.low, six.high, six.p) == (0.2, 0.9, 0.03125)
    assert statistics.sign_flip([0.0] * 6).p == 1.0
    assert statistics.sign_flip([math.nan]).reason == "no task is estimable"
    assert statistics.sign_flip([1.0] * 21).reason == "more than 20 tasks"


# --- joint rows ------------------------------------------------------------------------------------


def test_suite_of_runs_is_t_over_the_means_of_rows():
    rows = np.array([[1.0, 3.0], [2.0, 6.0], [4.0, 5.0]])
    e = statistics.suite_of_runs(rows)
    oracle = stats.ttest_1samp([2.0, 4.0, 4.5], 0.0)
    assert e.value == pytest.approx(3.5)
    assert (e.low, e.high) == pytest.approx(tuple(oracle.confidence_interval(0.95)))
    assert e.df == pytest.approx(2)
    assert statistics.suite_of_runs(rows[:1]).reason == "one seed"
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        statistics.suite_of_runs(rows[:, 0])


def test_joint_log_ratio_of_one_task_is_the_log_ratio_and_knows_covariance():
    rng = np.random.default_rng(1)
    separate = [rng.lognormal(1, 0.3, 6) for _ in range(3)]
    joint = rng.lognormal(0.5, 0.3, (5, 1))
    one, plain = (
        statistics.joint_log_ratio(separate[:1], joint),
        statistics.log_ratio(separate[0], joint[:, 0]),
    )
    for field in ("value", "low", "high", "variance", "df", "p"):
        assert getattr(one, field) == pytest.approx(getattr(plain, field))
    # tasks of one network that move as one: the joint side's variance is that of one task, not a third
    together = statistics.joint_log_ratio(separate, np.repeat(joint, 3, axis=1))
    of_joint = stats.variation(joint[:, 0], ddof=1) ** 2 / 5
    of_separate = sum(stats.variation(s, ddof=1) ** 2 / 6 for s in separate) / 9
    assert together.variance == pytest.approx(of_joint + of_separate)
    assert statistics.joint_log_ratio(separate, np.ones((1, 3))).reason == "one seed in joint"
    assert "not estimable" in statistics.joint_log_ratio(separate, np.full((2, 3), math.nan)).reason
    with pytest.raises(ValueError, match=r"3 separate tasks do not fit joint rows of shape \(5, 1\)"):
        statistics.joint_log_ratio(separate, joint)


def test_intervals_of_joint_rows_cover_and_columns_taken_apart_do_not():
    # one network's tasks share its luck; resampling them apart, as if they were independent, hides it
    rng = np.random.default_rng(7)
    trials, n, k = 300, 10, 8
    good = naive = 0
    truth = math.log(2.0)
    for _ in range(trials):
        separate = [2 * rng.lognormal(0, 0.3, n) for _ in range(k)]
        joint = rng.lognormal(0, 0.3, (n, 1)) * rng.lognormal(0, 0.1, (n, k)) / math.exp(0.1**2 / 2)
        e = statistics.joint_log_ratio(separate, joint)
        good += e.low <= truth <= e.high
        apart = statistics.suite_mean(
            [statistics.log_ratio(s, joint[:, i]) for i, s in enumerate(separate)]
        )
        naive += apart.low <= truth <= apart.high
    assert 0.91 <= good / trials <= 0.98
    assert naive / trials < 0.8  # the negative control


def test_the_permutation_test_of_joint_rows_agrees_with_all_arrangements_and_keeps_rows_whole():
    rng = np.random.default_rng(2)
    separate = [rng.lognormal(0.5, 0.3, 4) for _ in range(2)]
    joint = rng.lognormal(0.0, 0.3, (3, 1)) * rng.lognormal(0.0, 0.1, (3, 2))
    rows = np.concatenate([np.stack(separate, axis=1), joint])

    def studentised(chosen):
        rest = [i for i in range(7) if i not in chosen]
        e = statistics.joint_log_ratio(rows[list(chosen)].T, rows[rest])
        # separate rows are kept whole here, which joint_log_ratio has no need of
        parts = sum(statistics.suite_of_runs(rows[list(i)] / rows[list(i)].mean(axis=0)).variance
                    for i in (chosen, rest))  # fmt: skip
        return e.value / math.sqrt(parts)

    every = np.array([studentised(c) for c in itertools.combinations(range(7), 4)])
    exact = 2 * min(np.mean(every >= every[0] - 1e-9), np.mean(every <= every[0] + 1e-9))
    assert statistics.joint_permutation_p(separate, joint, rng) == pytest.approx(exact, abs=0.02)
    assert math.isnan(statistics.joint_permutation_p([separate[0], separate[1][1:]], joint, rng))
    assert math.isnan(statistics.joint_permutation_p(separate, joint[:1], rng))
    assert math.isnan(statistics.joint_permutation_p([], joint[:, :0], rng))
    assert statistics.joint_permutation_p(separate, joint / 50, rng) == pytest.approx(2 / 35, abs=0.01)


# --- break-even and equivalence --------------------------------------------------------------------


def test_break_even_by_hand():
    saving = statistics.t_interval(50.0, [(100.0, 8.0)])
    e = statistics.fieller(1000.0, saving)
    half = stats.t.ppf(0.975, 8) * 10
    assert (e.value, e.low, e.high) == pytest.approx((20.0, 1000 / (50 + half), 1000 / (50 - half)))
    assert not e.unbounded
    # Fieller's quadratic with a known numerator a: (a - r b)^2 <= t^2 r^2 v
    for r in (e.low, e.high):
        assert (1000 - r * 50) ** 2 == pytest.approx(stats.t.ppf(0.975, 8) ** 2 * r**2 * 100)


def test_break_even_is_unbounded_where_the_saving_may_be_nothing():
    maybe = statistics.fieller(1000.0, statistics.t_interval(10.0, [(100.0, 8.0)]))
    assert maybe.value == 100.0
    assert maybe.unbounded
    assert math.isfinite(maybe.low)
    never = statistics.fieller(1000.0, statistics.t_interval(-50.0, [(100.0, 8.0)]))
    assert (never.value, never.low, never.high) == (math.inf, math.inf, math.inf)
    single = statistics.fieller(1000.0, statistics.difference(np.array([10.0]), np.array([60.0, 70.0])))
    assert single.value == pytest.approx(1000 / 55)
    assert single.reason == "one seed in scratch"
    assert math.isnan(single.high)
    assert not single.unbounded
    with pytest.raises(ValueError, match="cost must be above 0, got 0"):
        statistics.fieller(0, maybe)


def test_two_one_sided_tests_agree_with_statsmodels():
    from statsmodels.stats.weightstats import DescrStatsW, ttost_ind

    rng = np.random.default_rng(3)
    margin = math.log(1.1)
    x = rng.normal(0.02, 0.06, 9)
    mine = statistics.tost([statistics.one_sample(x)])
    oracle = DescrStatsW(x).ttost_mean(-margin, margin)[0]
    assert mine.p == pytest.approx(oracle)
    y = rng.normal(0.05, 0.15, 7)
    welch = statistics.tost([statistics.difference(x, y)], 0.3)
    assert welch.p == pytest.approx(ttost_ind(y, x, -0.3, 0.3, usevar="unequal")[0])
    # p < .05 exactly where the 90% interval lies inside
    for spread in (0.02, 0.1, 0.2, 0.4):
        e = statistics.tost([statistics.t_interval(0.03, [(spread**2 / 9, 8.0)])])
        assert (e.p < 0.05) == (-margin < e.low and e.high < margin)
    assert math.isnan(statistics.tost([]).p)
    with pytest.raises(ValueError, match="margin must be above 0"):
        statistics.tost([mine], 0.0)


def test_newcombe():
    # Newcombe (1998, table II, method 10), 56/70 - 48/80: 0.0524 to 0.3339
    e = statistics.newcombe(48 / 80, 80, 56 / 70, 70)
    assert (e.value, e.low, e.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=5e-5)
    whole = statistics.newcombe(0.0, 10, 1.0, 10)
    assert whole.high == 1.0
    assert 0 < whole.low < 1
    none = statistics.newcombe(1.0, 10, 1.0, 10)
    assert none.low == pytest.approx(-none.high)
    assert statistics.newcombe(math.nan, 0, 1.0, 10).reason == "an arm has no run"


# --- censoring -------------------------------------------------------------------------------------

INF = math.inf


def test_kaplan_meier_by_hand_and_its_restricted_mean():
    arrival = np.array([3, 5, 7, 9, 10, INF, INF, INF])
    curve = statistics.kaplan_meier(arrival[::-1], 10.0)
    assert curve.times.tolist() == [0, 3, 5, 7, 9, 10]
    np.testing.assert_allclose(curve.share, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8])
    assert curve.n == 8
    # with one follow-up for all, the area under the curve is the mean of Y: the 8.0 of PROTOCOL §9
    assert (np.diff(np.append(curve.times, 10.0)) * curve.share).sum() == pytest.approx(8.0)
    assert statistics.at_risk(arrival, 10.0, [0, 3, 4, 10, 11]).tolist() == [8, 8, 7, 4, 0]
    late = statistics.kaplan_meier(np.array([3.0, 12.0]), 10.0)
    assert late.times.tolist() == [0, 3]
    # with runs that leave early: 1 * 2/3 at 4, and the one of 5 is alone at 6
    early = statistics.kaplan_meier(np.array([4.0, INF, 6.0]), np.array([10.0, 5.0, 10.0]))
    np.testing.assert_allclose(early.share, [1, 2 / 3, 0])
    assert math.isnan(early.high[-1])


def test_all_runs_censored_or_none():
    curve = statistics.kaplan_meier(np.array([INF, INF]), 10.0)
    assert curve.times.tolist() == [0]
    assert curve.share.tolist() == [1]
    nothing = np.array([INF, INF, INF])
    assert math.isnan(statistics.logrank(nothing, nothing, 10.0, 5.0))
    assert math.isnan(statistics.logrank(nothing[:0], nothing, 10.0, 10.0))
    with pytest.raises(ValueError, match="no run to follow"):
        statistics.kaplan_meier(nothing[:0], 10.0)


def test_survival_and_logrank_agree_with_lifelines():
    # golden numbers made once with lifelines 0.30.3: KaplanMeierFitter().fit(y, observed) and
    # logrank_test(x, y, x_observed, y_observed), follow-up of the censored 30, 20, 20 and 40, 40
    x = np.array([3, 5, 7, 9, 10, INF, INF, INF])
    y = np.array([2, 3, 3, 4, 6, 9, INF, INF, 15])
    curve = statistics.kaplan_meier(y, 40.0)
    assert curve.times.tolist() == [0, 2, 3, 4, 6, 9, 15]
    shares = [1, 0.888889, 0.666667, 0.555556, 0.444444, 0.333333, 0.222222]
    np.testing.assert_allclose(curve.share, shares, atol=1e-6)
    lows = [0.432965, 0.281682, 0.204242, 0.135872, 0.078289, 0.033711]
    highs = [0.983564, 0.878307, 0.804525, 0.719315, 0.622627, 0.513068]
    np.testing.assert_allclose(curve.low[1:], lows, atol=2e-6)
    np.testing.assert_allclose(curve.high[1:], highs, atol=2e-6)
    assert statistics.at_risk(y, 40.0, curve.times[1:]).tolist() == [9, 8, 6, 5, 4, 3]
    follow_up = np.array([30, 30, 30, 30, 30, 30, 20, 20.0])
    p = statistics.logrank(x, y, follow_up, 40.0)
    assert p == pytest.approx(0.39644692239369395, abs=1e-12)
    assert p == pytest.approx(statistics.logrank(y[::-1], x, 40.0, follow_up), abs=1e-12)


def test_the_smallest_permutation_p_is_that_of_arms_apart():
    rng = np.random.default_rng(0)
    for n, m in ((2, 2), (3, 5), (5, 5), (9, 9)):
        apart = statistics.permutation_p(np.arange(n) + 100.0, np.arange(m) * 1.0, rng)
        assert statistics.smallest_permutation_p(n, m) == pytest.approx(apart)
    assert math.isnan(statistics.smallest_permutation_p(1, 9))
    assert [statistics.runs_for_a_verdict(tests) for tests in (1, 8, 56, 249, 250)] == [4, 6, 7, 8, None]


# --- what could be seen ----------------------------------------------------------------------------


def test_minimum_detectable_effect_has_the_power_that_statsmodels_says():
    from statsmodels.stats.power import TTestIndPower, TTestPower

    for n in (3, 5, 10, 20):
        d = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8)
        mine = statistics.minimum_detectable(statistics.t_interval(9.0, [(4.0 / n, n - 1.0)]))
        assert mine.effect / 2.0 == pytest.approx(d, rel=1e-4)
        assert mine.half_width == pytest.approx(stats.t.ppf(0.975, n - 1) * 2 / math.sqrt(n))
    # two arms of equal spread and size
    d = TTestIndPower().solve_power(nobs1=10, alpha=0.05, power=0.8)
    both = statistics.t_interval(0.0, [(0.1, 9.0), (0.1, 9.0)])
    assert statistics.minimum_detectable(both).effect == pytest.approx(d, rel=1e-4)
    assert statistics.minimum_detectable(both).ratio == pytest.approx(math.exp(d), rel=1e-4)
    # twice the runs are runs, not copies of them
    d = TTestIndPower().solve_power(nobs1=20, alpha=0.05, power=0.8)
    assert statistics.minimum_detectable(both, clusters=20).effect == pytest.approx(d, rel=1e-4)
    # from a spread of arms of which one has lost runs, too
    uneven = statistics.t_interval(0.0, [(0.1, 9.0), (0.25, 3.0)])
    assert statistics.minimum_detectable(uneven, clusters=20).effect == pytest.approx(d, rel=1e-4)


def test_detectable_effects_of_other_numbers_of_clusters_rescale_each_part_by_its_own():
    # 10 planned, of which 2 are there in one arm: what 5 would see is asked of that arm's 2
    uneven = statistics.t_interval(0.0, [(0.5, 1.0), (0.1, 9.0)])
    five = statistics.t_interval(0.0, [(0.5 * 2 / 5, 4.0), (0.1 * 10 / 5, 4.0)])
    assert statistics.minimum_detectable(uneven, clusters=5).effect == pytest.approx(
        statistics.minimum_detectable(five).effect
    )
    even = statistics.t_interval(0.0, [(0.1, 9.0), (0.1, 9.0)])
    double = statistics.t_interval(0.0, [(0.05, 19.0), (0.05, 19.0)])
    assert statistics.minimum_detectable(even, clusters=20) == statistics.minimum_detectable(double)
    with pytest.raises(ValueError, match="clusters must be at least 2, got 1"):
        statistics.minimum_detectable(even, clusters=1)


@pytest.mark.parametrize("df", [1.0, 1.5, 2.0, 300.0])
def test_the_detectable_effect_is_found_at_the_edges_of_scipys_noncentral_t(df):
    found = statistics.minimum_detectable(statistics.t_interval(0.0, [(1.0, df)])).effect
    rng = np.random.default_rng(0)
    t = (rng.standard_normal(200_000) + found) / np.sqrt(rng.chisquare(df, 200_000) / df)
    assert np.mean(np.abs(t) > stats.t.ppf(0.975, df)) == pytest.approx(0.8, abs=0.005)


def test_detectable_effects_need_an_interval():
    single = statistics.minimum_detectable(statistics.log_ratio(np.array([1.0]), np.array([1.0, 2.0])))
    assert single.reason == "one seed in scratch"
    assert math.isnan(single.ratio)
    two = statistics.t_interval(0.0, [(1.0, 1.0)])
    with pytest.raises(ValueError, match="clusters must be at least 2, got 1"):
        statistics.minimum_detectable(two, clusters=1)
    with pytest.raises(ValueError, match=r"power must lie between 0\.05 and 1, got 1"):
        statistics.minimum_detectable(two, power=1.0)


def test_variance_split_agrees_with_the_analysis_of_variance():
    rng = np.random.default_rng(5)
    groups = [rng.normal(m, 1, 3) for m in rng.normal(0, 2, 6)]
    values = np.concatenate(groups)
    labels = np.repeat(list("abcdef"), 3)
    split = statistics.variance_split(values, labels)
    oracle = stats.f_oneway(*groups)
    within = np.mean([g.var(ddof=1) for g in groups])
    assert split.within == pytest.approx(within)
    # balanced: F = MS_between / MS_within, and MS_between = within + 3 between
    assert split.between == pytest.approx((oracle.statistic * within - within) / 3)
    assert split.p == pytest.approx(oracle.pvalue)
    assert (split.clusters, split.runs) == (6, 18)
    assert split.share == pytest.approx(split.between / (split.between + split.within))
    order = rng.permutation(18)
    assert statistics.variance_split(values[order], labels[order]) == split


def test_variance_split_comes_back_from_unequal_clusters_and_is_never_negative():
    rng = np.random.default_rng(6)
    sizes = rng.integers(1, 5, 3000)
    labels = np.repeat(np.arange(3000), sizes)
    values = rng.normal(0, 2, 3000)[labels] + rng.normal(0, 1, len(labels))
    split = statistics.variance_split(values, labels)
    assert split.between == pytest.approx(4, rel=0.1)
    assert split.within == pytest.approx(1, rel=0.1)
    # clusters that differ less than their runs
    assert statistics.variance_split([1, 3, 1.1, 2.9], [0, 0, 1, 1]).between == 0.0


@pytest.mark.parametrize(
    ("values", "clusters", "reason"),
    [
        ([1.0, 2, 3], [0, 1, 2], "one run per cluster: between and within cannot be told apart"),
        ([1.0, 2, math.nan], [0, 1, 1], "one run per cluster: between and within cannot be told apart"),
        ([1.0, 2], [0, 0], "one cluster"),
        ([], [], "no run"),
        ([2.0, 2, 2, 2], [0, 0, 1, 1], ""),
    ],
)
def test_where_there_is_no_variance_split_there_is_a_reason(values, clusters, reason):
    split = statistics.variance_split(values, clusters)
    assert split.reason == reason
    assert math.isnan(split.share)
