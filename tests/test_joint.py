"""Joint against separate (PROTOCOL §4.8) by hand: two tasks, a doubling grid, and planted times."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from harness import joint, measures, statistics

OWN = [0, 1, 2, 4, 8, 16, 32, 64]  # steps of a separate network; B = 16
TOTAL = [0, 2, 4, 8, 16, 32, 64, 128]  # of a joint one; K B = 32
NAMES = ("a", "b")
GRID = [0.2, 0.4, 0.6, 0.8]
NAN = math.nan


def rise(at, level=1.0):
    """Scores that are 0 before the checkpoint ``at`` and ``level`` from there on; never, for None."""
    return [0.0 if at is None or i < at else level for i in range(len(OWN))]


def experiment(separate, joint_runs, **arms):
    """Tables of a joint plan: by arm, by seed, the curves of both tasks; None for a run that is missing."""
    planned, rows, statuses = [], [], {}

    def add(arm, seed, tasks, steps, curves, parameters):
        name = f"learn-{arm}-{seed}-{'-'.join(map(str, tasks))}"
        planned.append(
            {"id": name, "phase": "learn", "fold": -1, "arm": arm, "seed": seed, "tasks": tasks}
            | {
                "steps": steps[-1],
                "updates": 10.0,
                "parameters": parameters,
                "wall_seconds": 3.0 * len(tasks),
            }
        )
        statuses[name] = "missing" if curves is None else "finished"
        for task, g in zip(tasks, curves or (), strict=bool(curves)):
            rows.extend((name, c, s, NAMES[task], x) for c, (s, x) in enumerate(zip(steps, g, strict=True)))

    for seed, curves in enumerate(separate):
        for task, g in enumerate(curves):
            add("separate", seed, [task], OWN, None if g is None else [g], 100.0)
    for arm, members in {"joint": joint_runs, **arms}.items():
        for seed, curves in enumerate(members):
            add(arm, seed, [0, 1], TOTAL, curves, 120.0)
    plan = {
        "tasks": [{"number": k, "name": name} for k, name in enumerate(NAMES)],
        "budget": 16,
        "checkpoints": OWN,
        "joint_checkpoints": TOTAL,
        "thresholds": GRID,
        "runs": planned,
    }
    runs = pd.DataFrame(planned).rename(columns={"id": "run"}).drop(columns="tasks")
    runs["status"] = runs["run"].map(statuses)
    table = pd.DataFrame(rows, columns=["run", "checkpoint", "steps", "task", "score"])
    return table, runs, plan


SEPARATE = [(rise(3), rise(5)), (rise(2), rise(4))]  # own steps (4, 16) and (2, 8)
JOINT = [(rise(3), rise(4)), (rise(2), rise(3))]  # total steps (8, 16) and (4, 8)


def test_times_until_all_tasks_are_there():
    data = experiment(SEPARATE, JOINT)
    sets, networks = (joint.joint_curves(*data, arm) for arm in ("separate", "joint"))
    assert (sets.count, networks.count) == (2, 2)
    assert sets.budget == networks.budget == 32
    assert sets.runs[0] == ("learn-separate-0-0", "learn-separate-0-1")
    assert networks.runs[1] == ("learn-joint-1-0-1",)
    # K max T_k = 2 * 16 and 2 * 8; sum T_k = 4 + 16 and 2 + 8
    assert joint.completion_times(sets)["lock-step"][:, 0].tolist() == [32.0, 16.0]
    assert joint.completion_times(sets)["one after another"][:, 0].tolist() == [20.0, 10.0]
    assert joint.completion_times(networks)["all at one checkpoint"][:, 0].tolist() == [16.0, 8.0]
    assert joint.completion_times(networks)["each at some time"][:, 0].tolist() == [16.0, 8.0]
    rng = np.random.default_rng(0)
    ratios = joint.completion_ratios(sets, networks, 0.6, rng).set_index(["joint_mode", "separate_mode"])
    assert math.exp(ratios.loc[("all at one checkpoint", "lock-step"), "log_ratio"]) == pytest.approx(2.0)
    in_turn = ratios.loc[("each at some time", "one after another"), "log_ratio"]
    assert math.exp(in_turn) == pytest.approx(15 / 12)
    with pytest.raises(ValueError, match=r"θ = 0\.5 is not in the grid"):
        joint.completion_ratios(sets, networks, 0.5, rng)


def test_interpolated_times_by_hand():
    table, runs, plan = experiment(SEPARATE, JOINT)
    data = (table, runs, plan | {"arrivals": "interpolated"})
    sets, networks = (joint.joint_curves(*data, arm) for arm in ("separate", "joint"))

    def first(curves):
        return {mode: times[:, 0].tolist() for mode, times in joint.completion_times(curves).items()}

    # own steps at θ = 0.2: 2 + 2 θ = 2.4 and 8 + 8 θ = 9.6; 1 + θ = 1.2 and 4 + 4 θ = 4.8
    assert first(sets) == {
        "lock-step": pytest.approx([2 * 9.6, 2 * 4.8]),
        "one after another": pytest.approx([2.4 + 9.6, 1.2 + 4.8]),
    }
    # total steps: 4 + 4 θ and 8 + 8 θ; 2 + 2 θ and 4 + 4 θ
    assert first(networks) == dict.fromkeys(
        ("all at one checkpoint", "each at some time"), pytest.approx([9.6, 4.8])
    )
    # all at once is when the last of them crosses, each on its own line: 8 + 8 * 0.4 / 0.5 and 8 + 8 * 0.4
    slow = joint.joint_curves(*experiment_like(data, [(rise(4, 0.5), rise(4))]), "joint")
    assert slow.at_once[0].tolist() == pytest.approx([11.2, 14.4, math.inf, math.inf])
    # a task that was there before waits for the other
    gone = [0, 0, 0.9, 0.9, 0.9, 0, 0, 0]
    forgets = joint.joint_curves(*experiment_like(data, [(gone, rise(4))]), "joint")
    assert forgets.at_once[0].tolist() == pytest.approx([9.6, math.inf, math.inf, math.inf])
    assert forgets.sometime[0].tolist() == pytest.approx([9.6, 11.2, 12.8, 14.4])
    times = joint.task_times(*data, networks)
    # mean θ is 0.5
    assert times.joint.tolist() == [pytest.approx([6.0, 12.0]), pytest.approx([3.0, 6.0])]
    assert [of_task.tolist() for of_task in times.separate] == [
        pytest.approx([2 * 3.0, 2 * 1.5]), pytest.approx([2 * 12.0, 2 * 6.0])
    ]  # fmt: skip
    shares = joint.share_table([sets, networks]).set_index(["arm", "mode", "steps"])["share"]
    # by 6 the joint network of seed 0 has 0.2 and 0.4 of a; that of seed 1 all of a, and 0.2 and 0.4 of b
    assert shares[("joint", "", 6)] == pytest.approx((2 / 8 + 6 / 8) / 2)
    assert shares[("joint", "", 32)] == 1.0
    # own steps 3 and 1.5: of seed 0 two of four θ of a, of seed 1 all of a, and of b, from 2 on, none
    assert shares[("separate", "one after another", 3)] == pytest.approx((2 / 8 + 4 / 8) / 2)


def experiment_like(data, networks):
    """:func:`experiment` with other joint networks, its arrivals dated as in ``data``."""
    table, runs, plan = experiment(SEPARATE, networks)
    return table, runs, plan | {"arrivals": data[2]["arrivals"]}


def test_a_task_that_is_forgotten_was_there_at_some_time_only():
    forgets = [0, 0, 0.9, 0.9, 0.9, 0, 0, 0]  # there at checkpoint 2 (4 steps), gone from 5 on
    networks = joint.joint_curves(*experiment(SEPARATE, [(forgets, rise(4))]), "joint")
    times = joint.completion_times(networks)
    # at checkpoint 4 the first task's own rule of three checkpoints fails: 0.9, 0, 0 is 0.3 on average
    assert times["all at one checkpoint"][0].tolist() == [16.0, math.inf, math.inf, math.inf]
    assert times["each at some time"][0].tolist() == [16.0] * 4
    table = joint.completion_table([networks]).set_index(["mode", "theta"])
    late = table.loc[("all at one checkpoint", 0.8)]
    assert (late["reached"], late["steps"], late["reason"]) == (0, 32.0, "one seed")


def test_censored_tasks_censor_the_set_and_divergence_stays_in():
    diverged = [0, 0, *[NAN] * 6]
    data = experiment(
        [(rise(3), rise(None)), (rise(3), rise(3))], [(rise(3), diverged), (rise(3), rise(3))]
    )
    sets, networks = (joint.joint_curves(*data, arm) for arm in ("separate", "joint"))
    assert joint.completion_times(sets)["one after another"][:, 0].tolist() == [math.inf, 8.0]
    table = joint.completion_table([sets, networks]).set_index(["arm", "mode", "theta"])
    assert table.loc[("separate", "lock-step", 0.2), "steps"] == (32 + 8) / 2
    assert table.loc[("joint", "each at some time", 0.2), "steps"] == (32 + 8) / 2
    assert table.loc[("joint", "each at some time", 0.2), "reached"] == 1
    times = joint.task_times(*data, networks)
    assert times.joint[:, 1].tolist() == [32.0, 8.0]


def test_speed_up_per_task_and_suite_keep_networks_whole():
    data = experiment(SEPARATE, JOINT)
    times = joint.task_times(*data, joint.joint_curves(*data, "joint"))
    assert times.tasks == NAMES
    # separate, in lock-step: 2 * (4, 2) and 2 * (16, 8)
    assert [t.tolist() for t in times.separate] == [[8.0, 4.0], [32.0, 16.0]]
    assert times.joint.tolist() == [[8.0, 16.0], [4.0, 8.0]]
    found = joint.speed_ups(times, np.random.default_rng(0)).set_index("task")
    assert np.exp(found["log_ratio"]).tolist() == pytest.approx([1.0, 2.0, math.sqrt(2)])
    suite = statistics.joint_log_ratio(times.separate, times.joint)
    assert found.loc["mean of tasks", "low"] == suite.low
    # 2 rows of each: of 6 arrangements each p is over 1/3
    permuted = statistics.joint_permutation_p(times.separate, times.joint, np.random.default_rng(0))
    assert found.loc["mean of tasks", "p_permutation"] == pytest.approx(permuted, abs=0.02)
    assert found["reason"].tolist() == [""] * 3


def test_what_no_run_reaches_and_what_the_first_checkpoint_hides():
    at_once, never = rise(1), rise(None)
    data = experiment([(rise(4), never)] * 2, [(at_once, never)] * 2)
    networks = joint.joint_curves(*data, "joint")
    times = joint.task_times(*data, networks)
    assert times.tasks == ("a",)
    assert times.limits == ("at least",)
    found = joint.speed_ups(times, np.random.default_rng(0))
    assert math.exp(found["log_ratio"].iloc[0]) == pytest.approx(8.0)
    assert found["limit"].tolist() == ["at least", "at least"]
    assert found["tasks"].tolist() == [1, 1]
    sets = joint.joint_curves(*data, "separate")
    reason = "not estimable: no run reaches θ = 0.60 on all tasks"
    assert set(joint.completion_ratios(sets, networks, 0.6, np.random.default_rng(0))["reason"]) == {reason}
    flat = experiment([(never, never)] * 2, [(never, never)] * 2)
    nothing = joint.speed_ups(
        joint.task_times(*flat, joint.joint_curves(*flat, "joint")), np.random.default_rng(0)
    )
    assert nothing["reason"].tolist() == ["no task is estimable"]


def test_shares_of_pairs_against_total_steps():
    data = experiment([(rise(3, 0.5), rise(None))], [(rise(3), rise(4))])
    table = joint.share_table([joint.joint_curves(*data, arm) for arm in ("separate", "joint")])
    shares = table.set_index(["arm", "mode", "steps"])["share"]
    # the separate network of a reaches two of four θ at 4 of its own steps: 8 in lock-step, 4 in turn
    assert shares[("separate", "lock-step", 4)] == 0
    assert shares[("separate", "lock-step", 8)] == 0.25
    assert shares[("separate", "one after another", 4)] == 0.25
    assert shares[("joint", "", 8)] == 0.5
    assert shares[("joint", "", 16)] == 1.0
    assert table["steps"].max() == 32
    # in turn the second network begins where the first is done: 4, or at the end of its budget, 16
    for first, start in ((rise(3), 4), (rise(3, 0.5), 16)):
        sets = joint.joint_curves(*experiment([(first, rise(2))], JOINT), "separate")
        reached = dict(zip(sets.steps, sets.shares_in_turn[0], strict=True))
        before = 0.5 if start == 4 else 0.25
        assert reached[4.0] == before
        assert reached[8.0] == (1.0 if start == 4 else before)
        assert reached[32.0] == before + 0.5


def test_costs_are_of_whole_sets():
    data = experiment(SEPARATE, JOINT)
    arms = [joint.joint_curves(*data, arm) for arm in ("separate", "joint")]
    table = joint.cost_table(arms, data[1]).set_index("arm")
    assert table["networks"].tolist() == [2, 1]
    assert table["steps"].tolist() == [128.0, 128.0]
    assert table["updates"].tolist() == [20.0, 10.0]
    assert table["parameters"].tolist() == [200.0, 120.0]
    assert table["wall_seconds"].tolist() == [6.0, 6.0]


def test_final_scores_and_what_is_reached_by_hand():
    low = rise(3, 0.5)
    diverged = [*rise(2)[:5], *[NAN] * 3]
    data = experiment(SEPARATE, [(rise(3), low), (rise(2), diverged), (rise(2), rise(None))])
    networks = joint.joint_curves(*data, "joint")
    # the last three checkpoints, a divergence as 0
    assert networks.final_scores.tolist() == [[1.0, 0.5], [1.0, 0.0], [1.0, 0.0]]
    scores = joint.score_table([networks]).set_index("task")
    assert scores["score"].tolist() == pytest.approx([1.0, 1 / 6, 7 / 12])
    assert scores["lowest"].tolist() == [1.0, 0.0, 0.5]
    # the interval of the mean is over the networks' means 0.75, 0.5 and 0.5
    expected = statistics.one_sample(np.array([0.75, 0.5, 0.5]))
    assert scores.loc[joint.SUITE, ["low", "high"]].tolist() == pytest.approx([expected.low, expected.high])
    # 4 of 4 and 2 of 4 θ; then 4 and 4, before it diverged; then 4 and none
    assert networks.reached.tolist() == [0.75, 1.0, 0.5]
    reach = joint.reach_table([networks]).set_index(["task", "theta"])
    assert reach.loc[("b", 0.4), ["reached", "steps"]].tolist() == [2, (8 + 4 + 32) / 3]
    assert reach.loc[("b", 0.6), ["reached", "steps"]].tolist() == [1, (32 + 4 + 32) / 3]
    empty = joint.joint_curves(*experiment(SEPARATE, [None]), "joint")
    assert joint.score_table([empty])["reason"].unique().tolist() == ["no value"]
    assert joint.reach_table([empty])["steps"].isna().all()


def test_incomplete_sets_are_no_sets_but_their_runs_count_by_task():
    data = experiment([*SEPARATE, (rise(3), None)], JOINT, **{"joint-wide": [None]})
    sets = joint.joint_curves(*data, "separate")
    assert sets.count == 2
    networks = joint.joint_curves(*data, "joint")
    assert [len(t) for t in joint.task_times(*data, networks).separate] == [3, 2]
    fewer = joint.task_times(*data, networks, exclude=["learn-separate-2-0"])
    assert [len(t) for t in fewer.separate] == [2, 2]
    wide = joint.joint_curves(*data, "joint-wide")
    assert wide.count == 0
    assert joint.speed_ups(joint.task_times(*data, wide), np.random.default_rng(0))["reason"].tolist()[
        -1
    ] == ("no run of joint-wide is complete")
    assert joint.completion_table([wide])["reason"].unique().tolist() == ["no value"]
    assert joint.cost_table([wide], data[1])["n"].tolist() == [0]
    assert joint.share_table([wide])["share"].isna().all()
    with pytest.raises(ValueError, match="no run of arm 'ceiling' is planned"):
        joint.joint_curves(*data, "ceiling")


def test_the_order_of_rows_and_runs_is_nothing():
    table, runs, plan = experiment(SEPARATE, JOINT)
    turned = (table[::-1], runs[::-1], plan | {"runs": plan["runs"][::-1]})
    one, other = (joint.joint_curves(*data, "joint") for data in ((table, runs, plan), turned))
    np.testing.assert_array_equal(one.scores, other.scores)
    found = [
        joint.speed_ups(joint.task_times(*d, one), np.random.default_rng(0))
        for d in ((table, runs, plan), turned)
    ]
    assert found[0].equals(found[1])
    assert measures.damaged_runs(table, runs, plan) == {}
