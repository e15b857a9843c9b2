"""The measures of PROTOCOL §4 against known answers, a literal restatement of the rules, and properties."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness import measures

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
    times = measures.arrivals(STEPS, np.array([g]), GRID, BUDGET)
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
    assert measures.arrivals(STEPS, np.array([g], float), np.array([0.5]), BUDGET).item() == expected


def test_an_arrival_after_the_budget_is_none_and_one_at_it_counts():
    g = np.array([[0, 0, 0, 0, 0, 0, 0, 1, 1, 1.0]])
    assert measures.arrivals(STEPS, g, np.array([0.5]), 48.0).item() == 48.0
    assert measures.arrivals(STEPS, g, np.array([0.5]), 47.0).item() == math.inf


def test_checkpoints_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="start at 0 and increase"):
        measures.arrivals(STEPS[1:], np.zeros((1, 9)), GRID, BUDGET)
    with pytest.raises(ValueError, match="9 scores per run do not fit 10"):
        measures.arrivals(STEPS, np.zeros((1, 9)), GRID, BUDGET)


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
    )
    assert fold.speed_up == 2.0
    assert fold.limit == ""
    np.testing.assert_array_equal(fold.times[0] / fold.times[1], 2.0)


def test_thresholds_that_no_run_reaches_are_left_out_of_both_arms():
    low = [0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    late = [0, 0, 0, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3]
    fold = measures.fold_measures(
        0, "t", curves("scratch", [late] * 2), curves("transfer", [low] * 2), GRID, 64
    )
    assert fold.estimable.tolist() == [theta <= 0.3 for theta in GRID]
    assert fold.speed_up == 4.0
    assert fold.mixed == []
    # one run of one arm that does arrive makes them estimable again, with B for all the others
    high = [0, 1, 1, 1, 1, 1, 1, 1, 1, 1]
    mixed = measures.fold_measures(
        0, "t", curves("scratch", [late] * 2), curves("transfer", [low, high]), GRID, 64
    )
    assert mixed.estimable.all()
    assert mixed.mixed == [("transfer", 0.35)]
    y_scratch = (5 * 4 + 10 * 64) / 15
    y_transfer = ((5 * 1 + 10 * 64) / 15 + 1) / 2
    assert mixed.speed_up == pytest.approx(y_scratch / y_transfer)


def test_all_censored_and_empty_arms_are_not_estimable():
    flat = np.zeros((3, len(STEPS)))
    censored = measures.fold_measures(0, "t", curves("scratch", flat), curves("transfer", flat), GRID, 64)
    assert math.isnan(censored.speed_up)
    assert not censored.estimable.any()
    assert np.isnan(censored.mean_times[0]).all()
    empty = measures.fold_measures(0, "t", curves("scratch", flat), curves("transfer", flat[:0]), GRID, 64)
    assert math.isnan(empty.speed_up)
    assert empty.curves[1].count == 0
    assert not empty.solved


def test_a_diverged_run_stays_in_with_the_budget():
    rise = [0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9]
    half = [0, 0.3, 0.3, 0.3, 0.3, NAN, NAN, NAN, NAN, NAN]
    fold = measures.fold_measures(
        0, "t", curves("scratch", [rise] * 2), curves("transfer", [rise, half]), GRID, 64
    )
    lost = np.array([1.0 if theta <= 0.3 else 64.0 for theta in GRID])
    np.testing.assert_array_equal(fold.times[1][1], lost)
    assert fold.success[1].tolist() == [1.0 if theta <= 0.3 else 0.5 for theta in GRID]
    assert fold.at_end[1].tolist() == pytest.approx([0.9])
    assert fold.curves[1].diverged.tolist() == [False, True]


def test_resolution_limits_the_side_that_arrives_at_the_first_checkpoint():
    at_once = [0.9] * 10
    later = [0, 0, 0, 0, 0, 0.9, 0.9, 0.9, 0.9, 0.9]

    def limit(scratch, transfer):
        return measures.fold_measures(
            0, "t", curves("scratch", [scratch] * 2), curves("transfer", [transfer] * 2), GRID, 64
        ).limit

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
    area = measures.areas(STEPS, measures.monotone_curves(g), budget)
    for run in range(len(g)):
        # Y is a step function of θ that jumps at arrival levels only: exact from one θ per step
        jumps = np.clip(measures.arrival_levels(g[run])[0], 0, 1)
        edges = np.unique(np.concatenate([[0, 1], jumps]))
        middles = (edges[1:] + edges[:-1]) / 2
        times = measures.restricted_times(
            measures.arrivals(STEPS, g[run : run + 1], middles, budget), budget
        )
        assert (times[0] * np.diff(edges)).sum() == pytest.approx(budget * (1 - area[run]), abs=1e-6)


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
    fold = measures.fold_measures(0, "t", scratch, transfer, GRID, 64)
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
