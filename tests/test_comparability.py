"""The comparability panel: golden numbers of rliable, scipy as oracle, and resampling of whole runs."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from harness import comparability, measures

A = np.array([[0.64, 0.56, 0.79, 0.63], [0.44, 0.71, 0.99, 0.88], [0.39, 0.22, 0.41, 0.61],
              [-0.1, 0.53, 0.23, 0.38], [0.44, 0.51, 0.72, 0.91]])  # fmt: skip
B = np.array([[0.64, 1.21, 0.6, 0.91], [1.07, 0.83, 0.58, 0.52], [0.66, 0.87, 0.5, 0.74],
              [0.75, 0.96, 0.86, 0.91], [0.6, 0.76, 1.04, 1.25], [0.42, 1.25, 1.2, 1.03]])  # fmt: skip
SIDES = {"scratch": list(A.T), "transfer": list(B.T)}


def rng(seed=0):
    return np.random.default_rng(seed)


def test_aggregates_are_those_of_rliable():
    # golden numbers made once with rliable 1.2.0: metrics.aggregate_mean, _median, _iqm, _optimality_gap
    # and probability_of_improvement(B, A), and library.run_score_deviation at 0.3, 0.6 and 0.9
    golden = {
        "mean": (0.5445, 0.84),
        "median": (0.567, 0.845),
        "IQM": (0.548, 0.8266666666666667),
        "optimality gap": (0.4555, 0.20375),
    }
    table = comparability.panel(SIDES, rng()).set_index(["measure", "arm"])
    for measure, (a, b) in golden.items():
        assert table.loc[(measure, "scratch"), "value"] == pytest.approx(a)
        assert table.loc[(measure, "transfer"), "value"] == pytest.approx(b)
    chance = table.loc[("probability of improvement", "transfer"), "value"]
    assert chance == pytest.approx(0.8208333333333333)
    u = [stats.mannwhitneyu(B[:, k], A[:, k]).statistic / 30 for k in range(4)]
    assert chance == pytest.approx(np.mean(u))
    profile = comparability.profiles(SIDES, rng(), [0.3, 0.6, 0.9])
    assert profile["share"].tolist() == pytest.approx([0.85, 0.45, 0.1, 1.0, 0.75, 0.4166666666666667])


def test_intervals_hold_the_value_and_come_from_the_generator():
    table = comparability.panel(SIDES, rng(1))
    assert (table["low"] < table["value"]).all()
    assert (table["value"] < table["high"]).all()
    assert (table["reason"] == "").all()
    assert comparability.panel(SIDES, rng(1)).equals(table)
    assert not comparability.panel(SIDES, rng(2)).equals(table)
    generator = rng(1)
    comparability.panel(SIDES, generator)
    assert not comparability.panel(SIDES, generator).equals(table)
    # the order of seeds does not matter
    turned = {name: [x[::-1] for x in tasks] for name, tasks in SIDES.items()}
    assert comparability.panel(turned, rng(1))["low"].tolist() == pytest.approx(table["low"].tolist())


def test_the_interval_of_a_mean_has_the_width_of_its_standard_error():
    x = rng(3).normal(0, 1, 200)
    row = comparability.panel({"a": [x]}, rng()).iloc[0]
    half = 1.96 * x.std() / math.sqrt(200)
    assert (row["high"] - row["low"]) / 2 == pytest.approx(half, rel=0.06)


def test_whole_networks_are_drawn_with_all_their_tasks():
    rows = rng(4).normal(0, 1, (30, 1)) + np.zeros((30, 5))  # tasks of one network move as one
    whole = comparability.resample(list(rows.T), rng(), whole_rows=True)
    assert all(np.array_equal(task, whole[0]) for task in whole)
    apart = comparability.resample(list(rows.T), rng())
    assert not np.array_equal(apart[0], apart[1])
    widths = []
    for joint in ([], ["joint"]):
        row = comparability.panel({"joint": list(rows.T)}, rng(), joint).iloc[0]
        widths.append(row["high"] - row["low"])
    assert widths[1] / widths[0] == pytest.approx(math.sqrt(5), rel=0.15)
    with pytest.raises(ValueError, match=r"equally many runs of every task, got \[2, 3\]"):
        comparability.resample([np.ones(2), np.ones(3)], rng(), whole_rows=True)


def test_unequal_numbers_of_runs_weigh_tasks_equally():
    tasks = [np.array([1.0, 1, 1, 1]), np.array([0.0, 0])]
    assert comparability.mean(tasks) == 0.5
    assert comparability.median(tasks) == 0.5
    assert comparability.optimality_gap(tasks) == 0.5
    assert comparability.performance_profile(tasks, [0.5]).tolist() == [0.5]
    assert comparability.probability_of_improvement(tasks, tasks) == 0.5


def test_one_seed_has_no_interval_and_bad_scores_are_named():
    table = comparability.panel({"scratch": [A[:, 0]], "transfer": [B[:1, 0]]}, rng())
    of_arm = table[table["arm"] == "transfer"]
    assert (of_arm["reason"] == "one seed").all()
    assert of_arm["low"].isna().all()
    assert (table.loc[table["arm"] == "scratch", "reason"] == "").all()
    with pytest.raises(ValueError, match="side 'b' has a task without scores"):
        comparability.panel({"a": [A[:, 0]], "b": [np.array([])]}, rng())
    with pytest.raises(ValueError, match="side 'b' has a task without scores, or a score that is NaN"):
        comparability.panel({"a": [A[:, 0]], "b": [np.array([math.nan])]}, rng())
    with pytest.raises(ValueError, match=r"the same tasks, at least one; got \{'a': 1, 'b': 0\}"):
        comparability.panel({"a": [A[:, 0]], "b": []}, rng())
    with pytest.raises(ValueError, match=r"unknown sides \['c'\]"):
        comparability.panel(SIDES, rng(), ["c"])


def test_final_scores_are_cluster_means_and_a_diverged_run_counts_as_0():
    steps = np.array([0, 1, 2, 4, 8.0])

    def curves(arm, scores, clusters):
        g = np.array(scores, float)
        runs = tuple(f"{arm}{i}" for i in range(len(g)))
        return measures.ArmCurves(arm, runs, tuple(clusters), steps, g, np.isnan(g).any(axis=1))

    def fold(scratch, transfer):
        return measures.fold_measures(0, "t", scratch, transfer, [0.1, 0.5], 4.0, False)

    one = curves("scratch", [[0, 0, 0.3, 0.6, 0.9]], [(0, "a")])
    two = [[0, 0, 1, 1, 1], [0, 0, 0.5, 0.5, 0.5], [0, math.nan, math.nan, math.nan, math.nan]]
    other = curves("transfer", two, [(0, "p"), (0, "p"), (1, "q")])
    none = curves("transfer", np.zeros((0, 5)), [])
    scratch, transfer = comparability.end_scores([fold(one, other), fold(one, none)])
    assert [x.tolist() for x in scratch] == [pytest.approx([0.6])]
    assert [x.tolist() for x in transfer] == [[0.75, 0.0]]
