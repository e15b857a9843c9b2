"""The measures of PROTOCOL §4 against known answers, a literal restatement of the rules, and properties."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from harness import measures, statistics

STEPS = np.array([0, 1, 2, 4, 8, 16, 32, 48, 64, 80.0])
BUDGET = 64.0
GRID = np.round(np.arange(0.10, 0.801, 0.05), 2)
NAN = float("nan")

scores_of_a_run = st.lists(
    st.one_of(st.floats(-0.3, 1.3), st.sampled_from([0.1, 0.3, 0.8, NAN])),
    min_size=len(STEPS),
    max_size=len(STEPS),
)


def arrival_by_the_book(steps, g, theta, budget):
    """PROTOCOL §4.1, word for word."""
    for i in range(len(g) - 2):
        mean = (g[i] + g[i + 1] + g[i + 2]) / 3
        if g[i] >= theta - 1e-9 and mean >= theta - 1e-9:
            time = steps[i] if i > 0 else steps[1]
            return time if time <= budget else math.inf
    return math.inf


@settings(deadline=None, max_examples=200)
@given(scores_of_a_run)
def test_arrivals_follow_the_rule_and_are_monotone_in_theta(g):
    times = measures.arrivals(STEPS, np.array([g]), GRID, BUDGET, False)
    assert times[0].tolist() == [arrival_by_the_book(STEPS, g, theta, BUDGET) for theta in GRID]
    restricted = measures.restricted_times(times, BUDGET)
    assert np.all(np.diff(restricted) >= 0)
    assert restricted.min() >= STEPS[1]
    assert restricted.max() <= BUDGET


@pytest.mark.parametrize(
    ("g", "expected"),
    [
        ([0, 0.9, 0, 0, 0.9, 0.9, 0.9, 1, 1, 1], 8.0),  # a lone peak does not count
        ([0, 0.4, 1, 1, 1, 1, 1, 1, 1, 1], 2.0),  # no look-ahead: the checkpoint itself must be there
        ([0.6, 0.6, 0.6, 0, 0, 0, 0, 0, 0, 0], 1.0),  # T = 0 counts as the first positive checkpoint
        ([0, 0, 0, 0, 0, 0, 0, 0, 0.5, 0.5], math.inf),  # not to be confirmed
        ([0, 0, 0, 0, 0, 0, 0, 0.5, 0.5, 0.5], 48.0),  # equality arrives
        ([0, 0.6, 0.6, NAN, NAN, NAN, NAN, NAN, NAN, NAN], math.inf),  # diverged before confirmation
        ([0, 0.6, 0.6, 0.6, NAN, NAN, NAN, NAN, NAN, NAN], 1.0),  # reached before the divergence
    ],
)
def test_arrival_at_one_half(g, expected):
    assert measures.arrivals(STEPS, np.array([g], float), np.array([0.5]), BUDGET, False).item() == expected


@settings(deadline=None, max_examples=100)
@given(scores_of_a_run)
def test_interpolated_arrivals_lie_in_the_gap_before_the_checkpoint_and_are_monotone_too(g):
    planned, between = (measures.arrivals(STEPS, np.array([g]), GRID, BUDGET, i)[0] for i in (False, True))
    assert np.isfinite(planned).tolist() == np.isfinite(between).tolist()
    for late, crossed in zip(planned, between, strict=True):
        if math.isfinite(late):
            before = STEPS[int(np.searchsorted(STEPS, late)) - 1]
            assert max(before, STEPS[1]) <= crossed <= late
    assert np.all(np.diff(measures.restricted_times(between, BUDGET)) >= 0)


@pytest.mark.parametrize(
    ("g", "expected"),
    [
        ([0, 0, 0, 0.2, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], 6.0),  # half way from 4 to 8
        ([0, 0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5], 8.0),  # at the checkpoint itself
        ([0, 0, 0.6, 0, 0, 0, 0.8, 0.8, 0.8, 0.8], 16 + 16 * 0.5 / 0.8),  # a lone peak does not count
        ([0, 0, 0, 0.6, 0.7, 0.1, 0.8, 0.8, 0.8, 0.8], 4.0),  # above θ before, unconfirmed: early
        ([0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 1.0),  # in the first gap: at its end
        ([0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 1.0),  # T = 0 too
        ([0, 0.9, -0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9], 2 + 2 * 1.4 / 1.8),
        ([0] * 10, math.inf),
        ([0, 0, 0.6, 0.6, NAN, NAN, NAN, NAN, NAN, NAN], math.inf),  # diverged before confirmation
        ([0, 0, 0.8, 0.8, 0.8, NAN, NAN, NAN, NAN, NAN], 1 + 0.5 / 0.8),  # reached before the divergence
        ([0, 0, 0, 0, 0, 0, 0, 0, 0, 1.0], math.inf),
        ([0, 0, 0, 0, 0, 0, 0, 0, 1, 1.0], math.inf),  # not to be confirmed
    ],
)
def test_interpolated_arrival_at_one_half(g, expected):
    found = measures.arrivals(STEPS, np.array([g], float), np.array([0.5]), BUDGET, interpolate=True)
    assert found.item() == pytest.approx(expected)


def test_an_arrival_after_the_budget_is_none_and_one_at_it_counts():
    g = np.array([[0, 0, 0, 0, 0, 0, 0, 1, 1, 1.0]])
    assert measures.arrivals(STEPS, g, np.array([0.5]), 48.0, False).item() == 48.0
    assert measures.arrivals(STEPS, g, np.array([0.5]), 47.0, False).item() == math.inf


def test_checkpoints_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="start at 0 and increase"):
        measures.arrivals(STEPS[1:], np.zeros((1, 9)), GRID, BUDGET, False)
    with pytest.raises(ValueError, match="9 scores per run do not fit 10"):
        measures.arrivals(STEPS, np.zeros((1, 9)), GRID, BUDGET, False)


def test_restricted_mean_of_the_protocol():
    times = np.array([3, 5, 7, 9, 10, math.inf, math.inf, math.inf])
    assert measures.restricted_times(times, 10.0).mean() == 8.0


def curves(arm, scores, clusters=None, steps=STEPS):
    scores = np.array(scores, float)
    runs = tuple(f"{arm}{i}" for i in range(len(scores)))
    return measures.ArmCurves(
        arm,
        runs,
        tuple((i, r) for i, r in enumerate(runs)) if clusters is None else tuple(clusters),
        np.asarray(steps, float),
        scores,
        np.isnan(scores).any(axis=1),
    )


def test_a_step_curve_delayed_by_two_gives_a_speed_up_of_exactly_two():
    steps = np.array([0, 1, 2, 4, 8, 16, 32, 64, 128, 256.0])
    # g rises by a step at every checkpoint; the delayed one is there one doubling later
    fast = np.array([0, 0, 0.15, 0.3, 0.55, 0.8, 0.8, 0.8, 0.8, 0.8])
    slow = np.concatenate([[0], fast[:-1]])
    fold = measures.fold_measures(
        0,
        "t",
        curves("scratch", [slow, slow], steps=steps),
        curves("transfer", [fast, fast], steps=steps),
        GRID,
        64,
        False,
    )
    assert fold.speed_up == 2.0
    assert fold.limit == ""
    np.testing.assert_array_equal(fold.times[0] / fold.times[1], 2.0)


def test_bounds_hold_wherever_in_its_gap_a_run_arrived():
    late = [0, 0, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]  # seen at 16, after 8
    early = [0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]  # at 4, after 2
    fold = measures.fold_measures(
        0, "t", curves("s", [late] * 2), curves("t", [early] * 2), GRID, 64, False
    )
    assert measures.speed_up_bounds(fold) == (8 / 4, 16 / 2)
    at_once = measures.fold_measures(
        0, "t", curves("s", [late]), curves("t", [[0.9] * 10]), GRID, 64, False
    )
    assert measures.speed_up_bounds(at_once) == (8.0, math.inf)
    # what never arrives counts with B at both ends
    never = measures.fold_measures(0, "t", curves("s", [[0] * 10]), curves("t", [early]), GRID, 64, False)
    assert measures.speed_up_bounds(never) == (64 / 4, 64 / 2)
    nobody = measures.fold_measures(
        0, "t", curves("s", [[0] * 10]), curves("t", [[0] * 10]), GRID, 64, False
    )
    assert np.isnan(measures.speed_up_bounds(nobody)).all()
    # 0.9 is reached on a straight line from 0 at the checkpoint before
    between = measures.fold_measures(
        0, "t", curves("s", [late]), curves("t", [early]), GRID, 64, interpolate=True
    )
    share = GRID.mean() / 0.9
    assert between.speed_up == pytest.approx((8 + 8 * share) / (2 + 2 * share))
    # the bounds are of the gaps, however arrivals are dated
    assert measures.speed_up_bounds(between) == measures.speed_up_bounds(fold)
    assert (fold.interpolated, between.interpolated) == (False, True)


def test_thresholds_that_no_run_reaches_are_left_out_of_both_arms():
    low = [0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    late = [0, 0, 0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    fold = measures.fold_measures(
        0, "t", curves("scratch", [late] * 2), curves("transfer", [low] * 2), GRID, 64, False
    )
    assert fold.estimable.tolist() == [theta <= 0.3 for theta in GRID]
    assert fold.speed_up == 4.0
    assert fold.mixed == []
    # one run of one arm that does arrive makes them estimable again, with B for all the others
    high = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    mixed = measures.fold_measures(
        0, "t", curves("scratch", [late] * 2), curves("transfer", [low, high]), GRID, 64, False
    )
    assert mixed.estimable.all()
    assert mixed.mixed == [("transfer", 0.35)]
    y_scratch = (5 * 4 + 10 * 64) / 15
    y_transfer = ((5 * 1 + 10 * 64) / 15 + 1) / 2
    assert mixed.speed_up == pytest.approx(y_scratch / y_transfer)


def test_all_censored_and_empty_arms_are_not_estimable():
    flat = np.zeros((3, len(STEPS)))
    censored = measures.fold_measures(
        0, "t", curves("scratch", flat), curves("transfer", flat), GRID, 64, False
    )
    assert math.isnan(censored.speed_up)
    assert not censored.estimable.any()
    assert np.isnan(censored.mean_times[0]).all()
    empty = measures.fold_measures(
        0, "t", curves("scratch", flat), curves("transfer", flat[:0]), GRID, 64, False
    )
    assert math.isnan(empty.speed_up)
    assert empty.curves[1].count == 0
    assert not empty.solved


def test_a_diverged_run_stays_in_with_the_budget():
    rise = [0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    half = [0, 0.3, 0.3, 0.3, 0.3, NAN, NAN, NAN, NAN, NAN]
    fold = measures.fold_measures(
        0, "t", curves("scratch", [rise] * 2), curves("transfer", [rise, half]), GRID, 64, False
    )
    lost = np.array([1.0 if theta <= 0.3 else 64.0 for theta in GRID])
    np.testing.assert_array_equal(fold.times[1][1], lost)
    assert fold.success[1].tolist() == [1.0 if theta <= 0.3 else 0.5 for theta in GRID]
    assert fold.at_end[1].tolist() == pytest.approx([0.9, 0.0])  # a random policy, as in mean curves
    assert fold.curves[1].diverged.tolist() == [False, True]


@pytest.mark.parametrize("interpolate", [False, True])
def test_resolution_limits_the_side_that_arrives_at_the_first_checkpoint(interpolate):
    at_once = [0.9] * 10
    later = [0, 0, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]

    def limit(scratch, transfer):
        sides = curves("scratch", [scratch] * 2), curves("transfer", [transfer] * 2)
        return measures.fold_measures(0, "t", *sides, GRID, 64, interpolate).limit

    assert limit(later, at_once) == "at least"
    assert limit(at_once, later) == "at most"
    assert limit(at_once, at_once) == "unresolved"
    assert limit(later, later) == ""
    # a single easy threshold does not decide a long mean
    assert limit(later, [0.12, 0.12, 0.12, 0.12, 0.12, 0.9, 0.9, 0.9, 0.9, 0.9]) == ""


def test_fine_tunings_of_one_pretraining_are_averaged_to_one_cluster():
    values = np.array([[1.0, 2], [3, 4], [10, 20]])
    labels = [(0, "a"), (0, "a"), (1, "b")]
    np.testing.assert_array_equal(measures.cluster_means(values, labels), [[2, 3], [10, 20]])
    order = [2, 1, 0]
    np.testing.assert_array_equal(
        measures.cluster_means(values[order], [labels[i] for i in order]), [[2, 3], [10, 20]]
    )
    assert measures.cluster_means(np.zeros((0, 4)), []).shape == (0, 4)


@settings(deadline=None, max_examples=150)
@given(st.lists(scores_of_a_run, min_size=1, max_size=3), st.sampled_from([30.0, 48.0, 64.0]))
def test_integral_of_restricted_times_is_the_area_above_the_monotone_curve(runs, budget):
    # §4.6: ∫ Y_θ dθ = B (1 - A*) over θ in [0, 1], which needs g(0) <= 0 as T = 0 counts as t_1
    g = np.array(runs)
    g[:, 0] = 0.0
    # g*(t) = max{θ in [0, 1] : T_θ <= t}
    monotone = np.clip(np.maximum.accumulate(measures.arrival_levels(g), axis=1), 0.0, 1.0)
    area = measures.areas(STEPS, monotone, budget)
    for run in range(len(g)):
        # Y is a step function of θ that jumps at arrival levels only: exact from one θ per step
        jumps = np.clip(measures.arrival_levels(g[run])[0], 0, 1)
        edges = np.unique(np.concatenate([[0, 1], jumps]))
        middles = (edges[1:] + edges[:-1]) / 2
        times = measures.restricted_times(
            measures.arrivals(STEPS, g[run : run + 1], middles, budget, False), budget
        )
        assert (times[0] * np.diff(edges)).sum() == pytest.approx(budget * (1 - area[run]), abs=1e-6)


def area_under_crossings(g, budget):
    """∫ g* dt up to B, g*(t) = max{θ in [0, 1] : T_θ <= t} with T_θ interpolated, gap by gap."""
    levels = np.clip(measures.arrival_levels(g)[0], 0.0, 1.0)
    best, area, now = max(levels[:2]), 0.0, STEPS[1]  # nothing counts before the first checkpoint
    for i in range(2, len(STEPS)):
        if STEPS[i] > budget:  # what is seen later is no arrival
            break
        gap, (before, there) = STEPS[i] - STEPS[i - 1], g[i - 1 : i + 1]
        if levels[i] > best:
            # the line from score to score, from the best until now up to what this checkpoint holds
            turns = [(level - before) / (there - before) for level in (best, levels[i]) if there != before]
            parts = np.unique(np.clip([0.0, 1.0, *turns], 0.0, 1.0))
            middles = before + (parts[1:] + parts[:-1]) / 2 * (there - before)
            area += gap * (np.clip(middles, best, levels[i]) * np.diff(parts)).sum()
            best = levels[i]
        else:
            area += gap * best
        now = STEPS[i]
    return area + best * (budget - now)


@settings(deadline=None, max_examples=150)
@given(scores_of_a_run, st.sampled_from([30.0, 48.0, 64.0]))
def test_the_identity_holds_for_interpolated_arrivals_and_the_curve_that_is_made_of_them(g, budget):
    g = np.where(np.logical_or.accumulate(np.isnan(g)), NAN, g)  # what has diverged has not come back
    # T_θ is straight in θ between levels and scores: exact from the middle of each piece
    corners = np.concatenate([measures.arrival_levels(g)[0], np.nan_to_num(g)])
    edges = np.unique(np.concatenate([[0, 1], np.clip(corners, 0, 1)]))
    middles = (edges[1:] + edges[:-1]) / 2
    times = measures.arrivals(STEPS, g[None], middles, budget, interpolate=True)
    total = (measures.restricted_times(times, budget)[0] * np.diff(edges)).sum()
    assert total == pytest.approx(budget - area_under_crossings(g, budget), abs=1e-6)


def test_shares_are_shown_within_gaps_where_arrivals_lie_there():
    assert measures.shown_steps([0, 1, 2, 4], False).tolist() == [0, 1, 2, 4]
    assert measures.shown_steps([0, 1, 2, 4], True).tolist() == [0, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, 4]


def test_areas_by_hand():
    # 0.5 from 1 to 4, 2 (clipped to 1) from 4 to 10, nothing after B = 10, NaN counts as 0
    steps = np.array([0, 1, 4, 16, 32.0])
    g = np.array([[-1, 0.5, 2, 0.3, 0.3], [1, NAN, NAN, NAN, NAN]])
    np.testing.assert_allclose(measures.areas(steps, g, 10.0), [(0.5 * 3 + 6) / 10, 0.1])
    assert measures.forward_transfer(0.5, 0.75) == 0.5
    assert measures.transfer_ratio(0.5, 0.75) == 0.5
    assert math.isnan(measures.forward_transfer(1.0, 1.0))
    assert math.isnan(measures.transfer_ratio(0.0, 0.5))


def test_scores_are_normalised_and_bad_references_are_named():
    np.testing.assert_allclose(
        measures.normalise(np.array([10.0, 60, 110, 160]), 10, 110), [0, 0.5, 1, 1.5]
    )
    table = pd.DataFrame({"task": ["a", "b"], "return_mean": [60.0, 5.0]})
    good = {"a": {"random": 10, "reference": 110}, "b": {"random": 0, "reference": 10}}
    assert measures.add_scores(table, good)["score"].tolist() == [0.5, 0.5]
    with pytest.raises(ValueError, match="no reference scores for task 'b'"):
        measures.add_scores(table, {"a": good["a"]})
    with pytest.raises(ValueError, match="task 'b': the reference return 10 must be above"):
        measures.add_scores(table, good | {"b": {"random": 10, "reference": 10}})


def test_jumpstart_and_asymptote_values():
    scratch = curves("scratch", [[0.0, *[0.5] * 6, 0.6, 0.7, 0.8], [0.2, *[0.5] * 9]])
    transfer = curves("transfer", [[0.5, *[0.9] * 6, 1.0, 1.1, 1.2], [0.7, *[0.9] * 9]])
    fold = measures.fold_measures(0, "t", scratch, transfer, GRID, 64, False)
    np.testing.assert_allclose(fold.at_start[1] - fold.at_start[0], [0.5, 0.5])
    np.testing.assert_allclose(fold.at_end[0], [0.7, 0.5])
    np.testing.assert_allclose(fold.at_end[1], [1.1, 0.9])  # unclipped
    assert fold.solved  # 0.6 >= 0.5


def test_competence_is_the_mean_over_sources_at_the_end_of_pretraining():
    plan = {
        "tasks": [{"number": i, "name": n} for i, n in enumerate("abc")],
        "runs": [{"id": "p", "tasks": [0, 1]}, {"id": "q", "tasks": [0, 1]}],
    }
    runs = pd.DataFrame(
        {
            "run": ["p", "q"],
            "phase": "pretrain",
            "fold": 2,
            "arm": "transfer",
            "seed": [0, 1],
            "status": "finished",
            "start": None,
        }
    )
    rows = [
        ("p", 0, "a", 0.0),
        ("p", 0, "b", 0.0),
        ("p", 1, "a", 1.0),
        ("p", 1, "b", 0.5),
        ("p", 1, "c", 0.2),
    ]
    rows += [("q", 1, "a", 0.9), ("q", 1, "b", NAN)]  # b diverged: it counts as 0
    table = pd.DataFrame(rows, columns=["run", "checkpoint", "task", "score"])
    found = measures.competence(table, runs, plan).set_index("run")
    assert found["score"].to_dict() == pytest.approx({"p": 0.75, "q": 0.45})
    assert found.loc["p", "held_out"] == 0.2
    # a source task that was not evaluated leaves no mean
    missing = measures.competence(table[table["task"] != "b"], runs, plan).set_index("run")
    assert math.isnan(missing.loc["p", "score"])
    # a diverged pretraining is not evaluated and counts as 0, so that it cannot hide behind the others
    diverged = runs.assign(status=["diverged", "finished"])
    lost = measures.competence(table[table["run"] != "p"], diverged, plan).set_index("run")
    assert lost["score"].to_dict() == pytest.approx({"p": 0.0, "q": 0.45})
    assert lost.loc["p", "held_out"] == 0.0
    assert math.isnan(lost.loc["q", "held_out"])


# --- properties of the comparison ------------------------------------------------------------------


def test_expected_running_time_of_the_protocol():
    arrived = np.array([[10.0], [20.0], [math.inf], [math.inf]])
    assert measures.expected_running_times(arrived, 50.0).tolist() == [65.0]
    nobody = measures.expected_running_times(np.full((2, 1), math.inf), 50.0)
    assert nobody.tolist() == [math.inf]
    assert np.isnan(measures.expected_running_times(np.zeros((0, 2)), 50.0)).all()


@settings(deadline=None, max_examples=100)
@given(
    st.lists(scores_of_a_run, min_size=2, max_size=4),
    st.lists(scores_of_a_run, min_size=2, max_size=4),
    st.randoms(use_true_random=False),
)
def test_swapping_the_sides_negates_the_log_ratio_and_order_is_nothing(a, b, random):
    one = measures.fold_measures(0, "t", curves("a", a), curves("b", b), GRID, BUDGET, False)
    other = measures.fold_measures(0, "t", curves("b", b), curves("a", a), GRID, BUDGET, False)
    mine, swapped = one.log_ratio(), other.log_ratio()
    assert one.names == other.names[::-1] == ("a", "b")
    assert mine.value == pytest.approx(-swapped.value, nan_ok=True)
    assert mine.low == pytest.approx(-swapped.high, nan_ok=True)
    random.shuffle(a)
    random.shuffle(b)
    shuffled = measures.fold_measures(
        0, "t", curves("a", a), curves("b", b), GRID, BUDGET, False
    ).log_ratio()
    assert mine.value == pytest.approx(shuffled.value, nan_ok=True)
    assert mine.high == pytest.approx(shuffled.high, nan_ok=True)


def test_one_seed_gives_a_point_without_an_interval():
    late = [0, 0, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]
    early = [0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    fold = measures.fold_measures(
        0, "t", curves("blind", [late]), curves("transfer", [early] * 2), GRID, 64, False
    )
    estimate = fold.log_ratio()
    assert estimate.value == pytest.approx(math.log(4))
    assert estimate.reason == "one seed in blind"
    assert math.isnan(estimate.low)
    equal = measures.fold_measures(
        0, "t", curves("s", [late] * 2), curves("t", [early] * 2), GRID, 64, False
    )
    assert equal.log_ratio().reason == "zero variance in both arms"


# --- tables of a whole experiment ------------------------------------------------------------------

NAMES = ("near", "middle", "far")
LATE = [0, 0, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]  # arrives at 16
EARLY = [0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]  # at 4
FIRST = [0, 0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]  # at 2
NEVER = [0.0] * 10


def experiment(arms, seeds=2, finetunes=1, folds=(0, 1, 2), **changes):
    """Plan, runs and evaluations of a leave-one-out in which each arm has its scores, by (fold, seed)."""
    planned, rows = [], []

    def add(phase, fold, arm, seed, finetune, tasks, steps, start):
        name = f"{phase}-{fold}-{arm}-{seed}-{finetune}"
        run = {"id": name, "phase": phase, "fold": fold, "arm": arm, "seed": seed, "finetune": finetune}
        planned.append(run | {"tasks": tasks, "steps": steps, "start": start})
        return name

    for fold in folds:
        sources = [k for k in range(3) if k != fold]
        for arm, scores in arms.items():
            for seed in range(seeds):
                start = None
                if arm != "scratch":
                    start = add("pretrain", fold, arm, seed, 0, sources, 1000, None)
                    rows += [(start, 0, 1000, NAMES[k], 0.9, "true") for k in sources]
                    for code, g in (("true", 0.6), ("mean", 0.4), ("wrong", 0.1)):
                        rows.append((start, 0, 1000, NAMES[fold], g + 0.1 * seed * (code == "true"), code))
                for f in range(finetunes if start else 1):
                    run = add("learn", fold, arm, seed, f, [fold], int(STEPS[-1]), start)
                    g = scores(fold, seed, f) if callable(scores) else scores
                    rows += [(run, c, int(STEPS[c]), NAMES[fold], x, "true") for c, x in enumerate(g)]
    plan = {
        "tasks": [{"number": k, "name": name} for k, name in enumerate(NAMES)],
        "folds": list(folds),
        "arms": list(arms),
        "budget": 64,
        "checkpoints": STEPS.astype(int).tolist(),
        "thresholds": GRID.tolist(),
        "descriptors": {"near": [0.0, 0.0], "middle": [3.0, 4.0], "far": [30.0, 40.0]},
        "runs": planned,
    } | changes
    runs = pd.DataFrame(planned).rename(columns={"id": "run"}).drop(columns="tasks")
    runs = runs.assign(status="finished", updates=runs["steps"] / 10, parameters=99.0, wall_seconds=2.0)
    columns = ["run", "checkpoint", "steps", "task", "score", "code"]
    return pd.DataFrame(rows, columns=columns), runs, plan


def compare(table, runs, plan, arm, baseline="scratch"):
    return measures.compare(measures.all_curves(table, runs, plan), plan, arm, baseline)


def test_any_arm_is_compared_with_any_other_on_the_folds_that_both_are_planned_on():
    table, runs, plan = experiment({"scratch": LATE, "transfer": FIRST, "blind": EARLY})
    speed_ups = {
        (baseline, arm): [f.speed_up for f in compare(table, runs, plan, arm, baseline)]
        for baseline, arm in (("scratch", "transfer"), ("scratch", "blind"), ("blind", "transfer"))
    }
    assert speed_ups == {
        ("scratch", "transfer"): [8.0] * 3,
        ("scratch", "blind"): [4.0] * 3,
        ("blind", "transfer"): [2.0] * 3,
    }
    # a control on one fold only: it is not missing on the others
    named = runs[(runs["arm"] != "blind") | (runs["fold"] == 1)]
    assert [f.fold for f in compare(table, named, plan, "blind")] == [1]
    with pytest.raises(ValueError, match="no run of arm 'ceiling' is planned; there are"):
        compare(table, runs, plan, "ceiling")
    # runs that are planned but not there leave the fold in, and its reason
    gone = runs.assign(status=runs["status"].where(runs["arm"] != "blind", "missing"))
    fold = compare(table, gone, plan, "blind")[0]
    assert not fold.complete
    assert fold.log_ratio().reason == "no run of blind is complete"


def test_other_codes_and_duplicated_rows_do_not_reach_a_curve():
    table, runs, plan = experiment({"scratch": LATE, "transfer": EARLY})
    told_wrong = table[table["run"].str.startswith("learn")].assign(code="wrong", score=1.0)
    twice = pd.concat([table, table.assign(score=1.0), told_wrong], ignore_index=True)
    mine, doubled = (compare(t, runs, plan, "transfer") for t in (table, twice))
    assert [f.speed_up for f in mine] == [f.speed_up for f in doubled] == [4.0] * 3
    assert measures.damaged_runs(twice, runs, plan) == {}
    assert measures.competence(twice, runs, plan).equals(measures.competence(table, runs, plan))
    assert len(measures.code_scores(twice, runs, plan)) == len(measures.code_scores(table, runs, plan))
    # rows of before there were codes are true
    old = table[table["code"] == "true"].drop(columns="code")
    assert [f.speed_up for f in compare(old, runs, plan, "transfer")] == [4.0] * 3
    assert set(measures.code_scores(old, runs, plan)["code"]) == {"true"}
    # and the order of rows is nothing
    turned = compare(table[::-1], runs[::-1], plan, "transfer")
    assert [f.log_ratio() for f in turned] == [f.log_ratio() for f in mine]


def test_a_nan_score_is_a_divergence_from_there_on():
    table, runs, plan = experiment({"scratch": LATE, "transfer": EARLY})
    hit = (table["run"] == "learn-0-transfer-1-0") & (table["checkpoint"] == 1)
    table.loc[hit, "score"] = NAN
    fold = compare(table, runs, plan, "transfer")[0]
    assert fold.curves[1].diverged.tolist() == [False, True]
    assert np.isnan(fold.curves[1].scores[1, 1:]).all()
    assert fold.mean_times[1].tolist() == [4.0, 64.0]  # it stays in, with the whole budget
    assert fold.success[1].tolist() == [0.5] * len(GRID)
    assert fold.mixed == [("transfer", 0.10)]
    # and the flow of runs counts it so
    marked = measures.mark_diverged(table, runs).set_index("run")["status"]
    assert marked[marked == "diverged"].index.tolist() == ["learn-0-transfer-1-0"]
    # as it does a row that says so itself, whatever return stands beside it
    rows = pd.DataFrame({"task": "near", "return_mean": [5.0, 5.0], "diverged": [False, True]})
    scored = measures.add_scores(rows, {"near": {"random": 0, "reference": 10}})["score"]
    assert scored.isna().tolist() == [False, True]


def test_damaged_runs_are_named_with_the_reason():
    table, runs, plan = experiment({"scratch": LATE, "transfer": EARLY})
    lost = table[~((table["run"] == "learn-0-scratch-0-0") & (table["checkpoint"] > 7))].copy()
    lost.loc[(lost["run"] == "learn-1-scratch-0-0") & (lost["checkpoint"] == 3), "steps"] = 5
    assert measures.damaged_runs(lost, runs, plan) == {
        "learn-0-scratch-0-0": "2 of 10 checkpoints are not in the store",
        "learn-1-scratch-0-0": "its rows are not at the plan's checkpoints",
    }
    # of a diverged run the end is not there, and that is no damage
    diverged = runs.assign(status=runs["status"].where(runs["run"] != "learn-0-scratch-0-0", "diverged"))
    assert list(measures.damaged_runs(lost, diverged, plan)) == ["learn-1-scratch-0-0"]


def test_damaged_pretrainings_are_named_with_the_reason():
    table, runs, plan = experiment({"scratch": LATE, "transfer": EARLY})
    of_run = {seed: table["run"] == f"pretrain-0-transfer-{seed}-0" for seed in (0, 1)}
    held_out = of_run[1] & (table["task"] == "near")
    assert measures.damaged_runs(table[~of_run[0]], runs, plan) == {
        "pretrain-0-transfer-0-0": "3 of 3 evaluations at the end of pretraining are not in the store"
    }
    assert measures.damaged_runs(table[~held_out], runs, plan) == {
        "pretrain-0-transfer-1-0": "1 of 3 evaluations at the end of pretraining are not in the store"
    }
    early = table.assign(steps=table["steps"].mask(held_out, 999))
    assert measures.damaged_runs(early, runs, plan) == {
        "pretrain-0-transfer-1-0": "its rows are not at the end of its pretraining"
    }
    # a network that is told its task is told two others too; one that has learned the task is not
    told = plan | {"runs": [run | {"conditioning": "descriptor"} for run in plan["runs"]]}
    assert measures.damaged_runs(table, runs, told) == {}
    wrong = table[~(of_run[0] & (table["code"] == "wrong"))]
    assert list(measures.damaged_runs(wrong, runs, told)) == ["pretrain-0-transfer-0-0"]
    assert measures.damaged_runs(wrong, runs, plan) == {}
    nowhere = told | {"runs": [run | {"fold": -1} for run in told["runs"]]}
    assert measures.damaged_runs(table[table["code"] != "wrong"], runs, nowhere) == {}
    diverged = runs.assign(status=runs["status"].mask(runs["run"] == "pretrain-0-transfer-0-0", "diverged"))
    assert measures.damaged_runs(table[~of_run[0]], diverged, plan) == {}


def test_damage_of_joint_runs_is_looked_for_in_all_their_tasks():
    plan = {
        "tasks": [{"number": k, "name": name} for k, name in enumerate(NAMES)],
        "checkpoints": [0, 1, 2, 4],
        "joint_checkpoints": [0, 3, 6, 12, 24],
        "runs": [{"id": "j", "phase": "learn", "arm": "joint", "tasks": [0, 1, 2]}],
    }
    runs = pd.DataFrame([{"run": "j", "phase": "learn", "fold": -1, "arm": "joint", "status": "finished"}])
    rows = [("j", c, s, name) for c, s in enumerate(plan["joint_checkpoints"]) for name in NAMES]
    table = pd.DataFrame(rows, columns=["run", "checkpoint", "steps", "task"])
    assert measures.damaged_runs(table, runs, plan) == {}
    short = table[~((table["task"] == "far") & (table["checkpoint"] == 4))]
    assert measures.damaged_runs(short, runs, plan) == {"j": "1 of 5 checkpoints are not in the store"}


def test_fine_tunings_are_one_cluster_and_their_variance_can_be_split():
    def scores(fold, seed, f):
        return EARLY if f else LATE

    table, runs, plan = experiment({"scratch": LATE, "transfer": scores}, seeds=3, finetunes=2, folds=(1,))
    (fold,) = compare(table, runs, plan, "transfer")
    assert fold.curves[1].count == 3
    assert fold.run_mean_times[1].tolist() == [16.0, 4.0] * 3
    assert fold.mean_times[1].tolist() == [10.0] * 3
    split = statistics.variance_split(fold.run_mean_times[1], fold.curves[1].clusters)
    assert (split.between, split.within) == (0.0, 72.0)
    alone = statistics.variance_split(fold.run_mean_times[0], fold.curves[0].clusters)
    assert alone.reason.startswith("one run per cluster")


def test_codes_at_hand_over_are_compared_within_a_network():
    table, runs, plan = experiment({"scratch": LATE, "transfer": EARLY}, folds=(0, 2))
    scores = measures.code_scores(table, runs, plan)
    assert len(scores) == 2 * 2 * 3
    differences = measures.code_differences(scores).set_index(["fold", "code"])
    assert differences.loc[(0, "mean"), "difference"] == pytest.approx((0.2 + 0.3) / 2)
    assert differences.loc[(2, "wrong"), "difference"] == pytest.approx((0.5 + 0.6) / 2)
    # two pretrainings with 0.2 and 0.3: se = 0.05, one degree of freedom
    assert differences.loc[(0, "mean"), "high"] == pytest.approx(0.25 + 12.706 * 0.05, abs=1e-3)
    suite = differences.loc[(-1, "mean")]
    assert (suite["task"], suite["n"]) == ("mean of tasks", 4)
    assert suite["difference"] == pytest.approx(0.25)
    # of two networks each, on two tasks with two codes
    single = [i for i in differences.index if i[0] != -1]
    p = [2 * stats.t.sf(d / 0.05, 1) for d in differences.loc[single, "difference"]]
    assert differences.loc[single, "p"].tolist() == pytest.approx(p)
    assert differences.loc[single, "p_holm"].tolist() == pytest.approx(statistics.holm(p))
    assert suite["p_holm"] == suite["p"] < 0.05
    assert measures.code_differences(scores[scores["code"] == "true"]).empty
    assert measures.code_scores(table, runs[runs["phase"] == "learn"], plan).empty


def test_competence_of_a_source_that_holds_nothing_out():
    table, runs, plan = experiment({"scratch": LATE, "transfer": EARLY}, folds=(0,))
    nowhere = runs.assign(fold=runs["fold"].where(runs["phase"] == "learn", -1))
    found = measures.competence(table, nowhere, plan)
    assert found["score"].tolist() == [0.9, 0.9]
    assert found["held_out"].isna().all()


def test_success_differences_are_arm_minus_baseline():
    def scores(fold, seed, f):
        return EARLY if seed else NEVER

    table, runs, plan = experiment({"scratch": LATE, "transfer": scores}, folds=(1,))
    folds = compare(table, runs, plan, "transfer")
    assert measures.success_differences(folds, 0.5) == [statistics.newcombe(1.0, 2, 0.5, 2)]
    assert measures.success_differences(folds, 0.5)[0].value == -0.5
    with pytest.raises(ValueError, match=r"θ = 0\.52 is not in the grid"):
        measures.success_differences(folds, 0.52)


def test_break_even_counts_the_pretraining_and_says_where_there_is_none():
    def late(fold, seed, f):
        return [0, 0, 0, 0, 0.9, *[0.9] * 5] if seed else LATE  # at 8 and 16

    table, runs, plan = experiment({"scratch": late, "transfer": EARLY}, folds=(0, 1))
    folds = compare(table, runs, plan, "transfer")
    paid = measures.break_even(folds, plan, 0.5)
    assert paid["pretraining_steps"].tolist() == [1000.0] * 2
    assert paid["saving"].tolist() == [8.0] * 2
    assert paid["uses"].tolist() == [125.0] * 2
    assert paid["high"].tolist() == [math.inf] * 2  # two seeds: the saving may be 0
    assert paid["low"].iloc[0] == pytest.approx(1000 / paid["saving_high"].iloc[0])
    back = measures.break_even(compare(table, runs, plan, "scratch", "transfer"), plan, 0.5)
    assert back["reason"].tolist() == ["nothing was spent beforehand"] * 2
    # a source that was itself trained from another counts both
    plan["runs"][-2]["start"] = "pretrain-0-transfer-0-0"
    assert plan["runs"][-2]["phase"] == "pretrain"
    assert measures.pretraining_steps(plan, folds[1].curves[1]) == 1500.0
    nothing = compare(*experiment({"scratch": NEVER, "transfer": NEVER}), "transfer")
    reasons = measures.break_even(nothing, experiment({"scratch": NEVER, "transfer": NEVER})[2], 0.5)
    assert set(reasons["reason"]) == {"not estimable: no run reaches θ = 0.50"}


def test_nearest_sources_from_the_plan_s_distances_or_its_descriptors():
    _, _, plan = experiment({"scratch": LATE, "transfer": EARLY})
    found = measures.nearest_sources(plan)
    assert found["nearest"].tolist() == ["middle", "near", "middle"]
    assert found["distance"].tolist() == [5.0, 5.0, 45.0]
    given = plan | {"leaks": {"distances": {"far": {"near": 1.5, "middle": 2.5}}}}
    assert measures.nearest_sources(given).iloc[2].tolist() == [2, "far", "near", 1.5]
    # an arm that was pretrained on one task only has no nearer one
    for run in plan["runs"]:
        if run["phase"] == "pretrain" and run["fold"] == 0:
            run["tasks"] = [2]
    assert measures.nearest_sources(plan).iloc[0].tolist() == [0, "near", "far", 50.0]
    assert measures.nearest_sources(plan, "blind")["nearest"].iloc[0] == "middle"
    del plan["descriptors"]["far"]
    with pytest.raises(
        ValueError, match="no distance between 'near' and 'far', and no descriptor of 'far'"
    ):
        measures.nearest_sources(plan)


def test_fairness_shows_what_each_arm_spent():
    tuning = {"trials": 12, "steps": 5000, "shared": True}
    _, runs, plan = experiment({"scratch": LATE, "transfer": EARLY}, tuning=tuning)
    runs.loc[runs["run"] == "learn-0-transfer-0-0", ["status", "steps"]] = ["failed", 1]
    table = measures.fairness(runs, plan).set_index(["phase", "arm"])
    assert table.index.tolist() == [("learn", "scratch"), ("pretrain", "transfer"), ("learn", "transfer")]
    assert table["runs"].tolist() == [6, 6, 5]
    assert table["steps"].tolist() == [80.0, 1000.0, 80.0]
    assert table["updates"].tolist() == [8.0, 100.0, 8.0]
    assert (table["tuning_trials"] == 12).all()
    assert table["shared"].tolist() == [True] * 3
    silent = measures.fairness(runs, {})
    assert silent["tuning_trials"].isna().all()


def test_sensitivity_changes_one_choice_at_a_time():
    def scratch(fold, seed, f):
        return [0, 0, 0, 0, 0, 0.45, 0.45, 0.9, 0.9, 0.9] if seed else LATE

    def transfer(fold, seed, f):
        # solved at step 0, but not held
        return [0.9, -0.9, *EARLY[2:]] if fold == 0 else EARLY

    table, runs, plan = experiment({"scratch": scratch, "transfer": transfer})
    folds = compare(table, runs, plan, "transfer")
    found = measures.sensitivity(folds).set_index(["setting", "set"])
    assert found.loc[("as planned", "all_folds"), "tasks"] == 3
    assert found.loc[("as planned", "not_yet_solved"), "tasks"] == 2
    assert found.loc[("as planned", "all_folds"), "log_ratio"] == folds[0].log_ratio().value

    def mean(low, high):
        # seed 0 at 16 for every θ, seed 1 at 16 up to 0.45 and at 48 above
        thetas = np.round(np.arange(low, high + 0.001, 0.05), 2)
        times = [(16 + (16 if theta <= 0.45 else 48)) / 2 for theta in thetas]
        return math.log(np.mean(times) / 4)

    assert found.loc[("θ from 0.1 to 0.5", "all_folds"), "log_ratio"] == pytest.approx(mean(0.1, 0.5))
    assert found.loc[("θ from 0.1 to 0.9", "all_folds"), "log_ratio"] == pytest.approx(mean(0.1, 0.9))
    half = found.loc[("half the budget", "all_folds"), "log_ratio"]
    assert half == pytest.approx(math.log(((16 + (8 * 16 + 7 * 32) / 15) / 2) / 4))
    crossed = [
        measures.fold_measures(f.fold, f.task, *f.curves, GRID, 64, interpolate=True).speed_up
        for f in folds
    ]
    between = found.loc[(measures.READINGS["interpolated"], "all_folds"), "log_ratio"]
    assert between == pytest.approx(np.log(crossed).mean())
    planned = found.loc[("as planned", "all_folds"), "log_ratio"]
    assert between != pytest.approx(planned, rel=0.01)
    assert measures.sensitivity([]).empty

    # of a plan that interpolates the other reading is the variation, and the others are interpolated too
    folds = compare(table, runs, plan | {"arrivals": "interpolated"}, "transfer")
    assert [f.speed_up for f in folds] == crossed
    turned = measures.sensitivity(folds).set_index(["setting", "set"])
    assert turned.loc[("as planned", "all_folds"), "log_ratio"] == between
    assert turned.loc[(measures.READINGS["checkpoint"], "all_folds"), "log_ratio"] == planned
    assert set(turned.index) ^ set(found.index) == {
        (reading, key) for reading in measures.READINGS.values() for key in ("all_folds", "not_yet_solved")
    }
    halved = [measures.fold_measures(f.fold, f.task, *f.curves, GRID, 32, True).speed_up for f in folds]
    of_half = turned.loc[("half the budget", "all_folds"), "log_ratio"]
    assert of_half == pytest.approx(np.log(halved).mean())
    # a plan that says so reads as one of before there was a choice
    said = compare(table, runs, plan | {"arrivals": "checkpoint"}, "transfer")
    assert measures.sensitivity(said).equals(found.reset_index())


def test_coarse_checkpoints_pull_the_speed_up_towards_one():
    # every second checkpoint from the last: 0, 1, 4, 16, 48, 80; arrivals at 2 and 4 are both seen at 4
    two = measures.fold_measures(
        0, "t", curves("s", [EARLY] * 2), curves("t", [FIRST] * 2), GRID, 64, False
    )
    found = measures.sensitivity([two]).set_index(["setting", "set"])["log_ratio"]
    assert math.exp(found[("as planned", "all_folds")]) == pytest.approx(2.0)
    assert math.exp(found[("every second checkpoint", "all_folds")]) == pytest.approx(1.0)


def test_dose_table_is_sorted_and_knows_its_arms():
    at_once = [0, *[0.9] * 9]
    doses = {"sources=7": at_once, "sources=2": FIRST, "sources=1": EARLY}
    table, runs, plan = experiment({"scratch": LATE} | doses)
    arms = {arm: compare(table, runs, plan, arm) for arm in doses}
    found = measures.dose_table(arms)
    assert found["dose"].tolist() == [1] * 4 + [2] * 4 + [7] * 4
    suite = found[found["fold"] == -1]
    assert np.exp(suite["log_ratio"]).tolist() == pytest.approx([4.0, 8.0, 16.0])
    assert suite["reason"].tolist() == ["zero variance"] * 3
    # the mean is limited by its tasks
    assert suite["limit"].tolist() == ["", "", "at least"]
    assert measures.join_limits(["at least", "", "at most"]) == "unresolved"
    with pytest.raises(ValueError, match="arm 'transfer' is no dose"):
        measures.dose_table({"transfer": []})


def test_transfer_matrix_adjusts_over_all_cells_and_marks_what_hurts():
    spread = [0, 0, 0, 0, 0.9, *[0.9] * 5]

    def scratch(fold, seed, f):
        return EARLY if seed % 2 else FIRST

    def hurts(fold, seed, f):
        return LATE if seed % 2 else spread

    arms = {"scratch": scratch, "from=near": hurts, "from=far": scratch}
    table, runs, plan = experiment(arms, seeds=6)
    comparisons = {arm: compare(table, runs, plan, arm) for arm in ("from=near", "from=far")}
    found = measures.transfer_matrix(comparisons, np.random.default_rng(0))
    cells = list(zip(found["source"], found["target"], strict=True))
    assert cells == [("near", "middle"), ("near", "far"), ("far", "near"), ("far", "middle")]
    assert found["negative"].tolist() == [True, True, False, False]
    assert found["p_holm"].tolist() == statistics.holm(found["p"])
    assert found["log_ratio"].iloc[0] == pytest.approx(math.log(3 / 12))
    with pytest.raises(ValueError, match="arm 'transfer' is no source"):
        measures.transfer_matrix({"transfer": []}, np.random.default_rng(0))
