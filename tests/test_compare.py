"""Plans side by side: planted ratios come back, and what cannot be compared is refused by name."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import CHECKPOINTS, TASKS, fails, make_plan, ramp, write
from synthetic_plans import SAC, joint, planted, write_plan_and_rows

from harness.cli import main
from harness.compare import MUST_AGREE, compare, labels, leaderboard, ratio_text
from harness.report import analyse
from harness.statistics import Estimate, one_sample

ROOT = Path(__file__).parents[1]
FOLDS = {0: (1.5, 3.0), 1: (2.0, 2.0)}  # speed-up of the first and of the second agent
SLOWER = 1.25  # of the second agent, from scratch
BUDGET = 200_000


def plan_of(directory, name="ppo", sha="1", curves=None, **changes):
    learner = {"name": name, "rollout": 32, "config": {"gamma": 0.99}}
    curves = curves or {0: ramp(2.0)}
    return write(directory, curves, version=0, sha256=sha * 64, **({"learner": learner} | changes))


def agents():
    first = {k: ramp(r, seed=k) for k, (r, _) in FOLDS.items()}
    second = {k: ramp(r, seed=10 + k, scratch_steps=150_000 * SLOWER) for k, (_, r) in FOLDS.items()}
    return {"ppo": first, "sac": second}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    root = tmp_path_factory.mktemp("pair")
    return [
        plan_of(root / name, name, str(i), curves, seeds=8)
        for i, (name, curves) in enumerate(agents().items())
    ]


@pytest.fixture(scope="module")
def compared(pair):
    return compare(pair)


def test_planted_ratios_come_back_within_their_intervals(compared):
    assert compared.plans == ("ppo", "sac")
    assert [(row.task, row.plan) for row in compared.rows[:4]] == [
        (TASKS[k], name) for k in FOLDS for name in compared.plans
    ]
    for k, (first, second) in FOLDS.items():
        base, row = compared.rows[2 * k : 2 * k + 2]
        truth = {
            "scratch": 1 / SLOWER,
            "transfer": second / first / SLOWER,
            "speed_up": second / first,
        }
        assert base.against == {}
        for name, expected in truth.items():
            ratio = row.against[name].exp()
            assert ratio.low < expected < ratio.high, (k, name)
            assert ratio.high / ratio.low < 3
    suite = compared.rows[-1]
    assert suite.task == "mean of 2 tasks"
    # what is planted is far from 1 with transfer on task 0 and in the mean of speed-ups
    assert compared.rows[1].p["transfer"] < 0.01
    assert suite.p["speed_up"] == suite.against["speed_up"].p < 0.05
    assert 0 < suite.p["scratch"] < 0.05
    assert f", p = {suite.p['scratch']:.3f}" in compared.text() or ", p < 0.001" in compared.text()
    assert "of single tasks not adjusted for their number" in compared.text()
    assert compared.table()["transfer_ratio_p"].isna().tolist() == [True, False] * 3
    ratio = suite.against["speed_up"].exp()
    assert ratio.low < math.sqrt(2.0) < ratio.high
    assert suite.runs == (16, 16)


def test_speed_ups_are_those_of_the_reports(pair, compared):
    for i, directory in enumerate(pair):
        analysis = analyse(directory)
        for row, fold in zip(compared.rows[i::2], analysis.folds, strict=False):
            assert row.speed_up == fold.log_ratio
        assert compared.rows[-2 + i].speed_up == analysis.headline.log_ratio


def test_turning_the_order_turns_every_ratio(pair, compared):
    turned = compare(pair[::-1])
    for row, other in zip(compared.rows[1::2], turned.rows[1::2], strict=True):
        for name, estimate in row.against.items():
            assert other.against[name].value == pytest.approx(-estimate.value)
            assert other.against[name].low == pytest.approx(-estimate.high)


def test_ratios_hand_computed(tmp_path):
    """Straight rises without noise or spread: θ is reached at the first checkpoint at or after θ tau."""
    exact = {"noise": 0.0, "spread": 0.0}
    grid = list(range(0, 302_000, 1000))
    curves = [{0: ramp(2.0, scratch_steps=tau, **exact)} for tau in (200_000, 160_000)]
    plans = [
        plan_of(tmp_path / str(i), f"a{i}", str(i), c, seeds=2, checkpoints=grid, budget=250_000)
        for i, c in enumerate(curves)
    ]
    row = compare(plans).rows[1]
    thetas = np.linspace(0.1, 0.8, 15)
    times = [[np.ceil(thetas * tau / k / 1000 - 1e-9).mean() for k in (1, 2)] for tau in (200_000, 160_000)]
    for arm, name in enumerate(("scratch", "transfer")):
        assert row.against[name].exp().value == pytest.approx(times[0][arm] / times[1][arm])
        assert row.against[name].reason == "zero variance in both plans"
    expected = times[1][0] / times[1][1] / (times[0][0] / times[0][1])
    assert row.against["speed_up"].exp().value == pytest.approx(expected)


def test_budgets_that_differ_by_rounding_are_compared_at_the_smaller(tmp_path):
    learner = {"name": "sac", "rollout": 200, "config": {"gamma": 0.99}}  # times 56 worlds: 11,200 steps
    plans = [
        plan_of(tmp_path / "a", seeds=3),
        plan_of(tmp_path / "b", sha="2", seeds=3, learner=learner, budget=BUDGET + 8000,
                checkpoints=[*CHECKPOINTS, CHECKPOINTS[-1] + 8000]),
    ]  # fmt: skip
    comparison = compare(plans)
    assert comparison.budget == BUDGET
    assert any(
        "200,000, 208,000 steps differ by their rounding" in n and "smallest" in n for n in comparison.notes
    )
    # equal curves: up to the common budget nothing differs, and more would have been seen up to the longer
    assert comparison.rows[0].speed_up == comparison.rows[1].speed_up
    assert comparison.rows[1].against["transfer"].value == 0


def test_what_is_read_again_at_the_smaller_budget_is_dated_as_planned(tmp_path):
    exact = {0: ramp(2.0, scratch_steps=200_000, noise=0.0, spread=0.0)}
    grid = list(range(0, 300_000, 20_000))
    plans = [
        plan_of(tmp_path / "a", seeds=2, curves=exact, checkpoints=grid, budget=200_000,
                arrivals="interpolated"),
        plan_of(tmp_path / "b", "sac", "2", exact, seeds=2, checkpoints=grid, budget=201_000,
                arrivals="interpolated"),
    ]  # fmt: skip
    comparison = compare(plans)
    assert comparison.budget == 200_000
    # a straight rise is at θ after θ · 200,000 steps, with transfer θ · 100,000 but not before 20,000
    thetas = np.linspace(0.1, 0.8, 15)
    expected = (thetas * 200_000).mean() / np.maximum(thetas * 100_000, 20_000).mean()
    for row in comparison.rows[:2]:
        assert row.speed_up.exp().value == pytest.approx(expected)


def test_runs_that_are_the_same_have_no_interval(tmp_path):
    def other(steps, arm, seed):
        return (ramp(2.0) if arm == "scratch" else ramp(3.0, seed=5))(steps, arm, seed)

    plans = [
        plan_of(tmp_path / "a", seeds=3),
        plan_of(tmp_path / "b", "sac", "2", {0: other}, seeds=3, pretrain_budget=900_000),
        plan_of(tmp_path / "c", "td3", "3", seeds=4),
    ]
    comparison = compare(plans)
    _, b, c = comparison.rows[:3]
    assert b.against["scratch"].value == 0
    assert b.against["scratch"].reason == "the same runs in both plans"
    assert b.against["transfer"].low < b.against["transfer"].value < b.against["transfer"].high
    assert b.against["speed_up"].reason == "some runs are the same in both plans"
    assert c.against["transfer"].reason == "some runs are the same in both plans"
    assert comparison.rows[-2].against["scratch"].reason == "the same runs in both plans"
    assert math.isnan(b.p["scratch"])
    assert b.p["transfer"] > 0
    assert any("pretrain_budget: 400000 and 900000 and 400000" in note for note in comparison.notes)
    assert "1.00 (the same runs in both plans)" in comparison.text()


def test_what_differs_and_how_plans_stand_is_said(tmp_path):
    learner = {"name": "ppo", "rollout": 32, "config": {"gamma": 0.98, "layers": list(range(50))}}
    plans = [
        plan_of(tmp_path / "a", curves={0: ramp(2.0), 1: ramp(1.5)}, seeds=2, exploratory=True),
        plan_of(tmp_path / "b", sha="2", curves={1: ramp(1.5, seed=3), 2: ramp(2.0)}, seeds=2,
                learner=learner, skip=["transfer-1-0"]),
    ]  # fmt: skip
    comparison = compare(plans)
    assert comparison.plans == ("a", "b")
    assert [row.task for row in comparison.rows] == [TASKS[1]] * 2 + ["mean of 1 task"] * 2
    assert comparison.notes[0] == (
        "They differ in learner.config.gamma: 0.99 and 0.98; learner.config.layers."
    )
    assert "a is exploratory." in comparison.notes
    assert "b is incomplete." in comparison.notes
    assert [n for n in comparison.notes if "left out" in n] == [
        f"Not all plans have {TASKS[0]}, which a has: left out.",
        f"Not all plans have {TASKS[2]}, which b has: left out.",
    ]
    row = comparison.rows[1]
    assert row.runs == (2, 1)
    assert row.against["transfer"].reason == "one seed in transfer"
    assert row.against["speed_up"].reason == "one seed in transfer"
    assert math.isnan(row.against["transfer"].low)


def test_mixed_outcomes_are_said(tmp_path):
    other = {0: fails(ramp(2.0, seed=7), "transfer", [0])}
    comparison = compare(
        [plan_of(tmp_path / "a", seeds=3), plan_of(tmp_path / "b", "sac", "2", other, seeds=3)]
    )
    (note,) = [note for note in comparison.notes if "mixed" in note]
    assert note.startswith(f"sac has mixed outcomes, transfer on {TASKS[0]}: some runs arrive")


def test_a_fold_without_runs_is_shown_and_left_out_of_the_mean(tmp_path):
    curves = {0: ramp(2.0), 1: ramp(1.5)}
    other = {k: ramp(2.0, seed=7) for k in curves}
    plans = [
        plan_of(tmp_path / "a", curves=curves, seeds=2),
        plan_of(tmp_path / "b", "sac", "2", other, seeds=2, skip=["scratch-0-0", "scratch-0-1"]),
    ]
    comparison = compare(plans)
    assert comparison.rows[1].against["scratch"].reason == "no run of scratch is complete"
    assert comparison.rows[1].against["transfer"].low < comparison.rows[1].against["transfer"].high
    assert {row.task for row in comparison.rows[4:]} == {"mean of 1 task"}
    assert comparison.rows[-1].speed_up.value == pytest.approx(comparison.rows[3].speed_up.value)
    assert "no run of scratch is complete" in comparison.text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "Octopus"}, "differ in family: Biped and Octopus"),
        ({"version": 1}, "differ in version: 0 and 1"),
        ({"kind": "dose"}, "differ in kind: leave_one_out and dose"),
        ({"thresholds": [0.5]}, "differ in thresholds; plans can be compared that agree in kind, family"),
        ({"worlds_per_run": 64}, "differ in worlds per run: 56 and 64"),
        ({"episodes": 4}, r"differ in episodes: \(112, 16\) and \(112, 4\)"),
        ({"primary": "area"}, "differ in primary measure: speed_up and area"),
        ({"arrivals": "interpolated"}, "differ in arrivals: checkpoint and interpolated"),
        ({"tasks": [t | {"parameters": {}} for t in make_plan([0])["tasks"]]}, "differ in tasks"),
        ({"reference": {"scores": {}}}, "differ in reference scores"),
        ({"budget": 100_000}, "differ in budget: 200000 and 100000 steps"),
        ({"arms": ["scratch", "blind"]}, "b has no arm transfer; it has scratch, blind"),
        ({"folds": [3]}, r"no fold is in all plans: \[0\] and \[3\]"),
        ({"sha256": "1" * 64}, "hold the same plan"),
    ],
)
def test_plans_that_cannot_be_compared_are_refused_by_name(changes, message, tmp_path):
    plans = [plan_of(tmp_path / "a", seeds=1), plan_of(tmp_path / "b", sha="2", seeds=1)]
    path = plans[1] / "plan.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ValueError, match=message):
        compare(plans)


def test_refusals_cover_what_must_agree_and_fewer_than_two(tmp_path):
    assert set(MUST_AGREE) >= {"family", "version", "thresholds", "tasks", "reference scores"}
    plan = plan_of(tmp_path, seeds=1, kind="joint")
    with pytest.raises(ValueError, match="at least two plans, got 1"):
        compare([plan])
    with pytest.raises(ValueError, match="hold the same plan"):
        compare([plan, plan])
    other = plan_of(tmp_path / "b", sha="2", seeds=1, kind="joint")
    with pytest.raises(ValueError, match="of kind 'joint'; valid: leave_one_out"):
        compare([plan, other])


def test_labels_tell_plans_apart():
    def plan(name, sha):
        return {"learner": {"name": name}, "sha256": sha}

    assert labels([plan("ppo", "1"), plan("sac", "2")], [Path("x"), Path("y")]) == ("ppo", "sac")
    assert labels([plan("ppo", "1"), plan("ppo", "2")], [Path("r/x"), Path("r/y")]) == ("x", "y")
    assert labels([plan("ppo", "1"), plan("ppo", "2")], [Path("a/x"), Path("b/x")]) == ("a/x", "b/x")


def test_the_table_says_what_the_text_says(compared):
    table = compared.table()
    assert len(table) == len(compared.rows) == 6
    row = table[(table["task"] == TASKS[0]) & (table["plan"] == "sac")].iloc[0]
    assert row["against"] == "ppo"
    assert row["transfer_ratio"] == pytest.approx(compared.rows[1].against["transfer"].exp().value)
    assert row["scratch_runs"] == 8
    text = compared.text()
    assert ratio_text(compared.rows[1].against["transfer"]) in text
    assert f"{row['transfer_arrived']}/8 arrive" in text
    assert max(map(len, text.splitlines())) < 200


def test_ratios_in_words():
    log = Estimate(math.log(2), math.log(1.5), math.log(3000))
    assert ratio_text(log) == "2.00 [1.50, 3000]"
    assert ratio_text(log, "at least") == "≥ 2.00 [1.50, 3000]"
    assert ratio_text(Estimate(0.0, reason="one seed")) == "1.00 (one seed)"
    assert ratio_text(Estimate(math.nan, reason="no data")) == "no data"


# --- the list of all plans -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("results")
    plan_of(root / "slow", "slow|er", "1", {0: ramp(1.2)}, seeds=3)
    plan_of(root / "deep" / "fast", "fast", "2", {0: ramp(2.5)}, seeds=3)
    plan_of(root / "trial", "trial", "3", {0: ramp(6.0)}, seeds=3, exploratory=True)
    plan_of(root / "half", "half", "4", {0: ramp(4.0)}, seeds=3, skip=["scratch-0-0"])
    plan_of(root / "empty", "empty", "5", {0: ramp(4.0)}, seeds=1, skip=["scratch-0-0", "transfer-0-0"])
    # of other questions, and without an interval
    plan_of(root / "longer", "longer", "7", {0: ramp(9.0)}, seeds=3, budget=208_000)
    plan_of(root / "other folds", "other", "8", {0: ramp(9.0), 1: ramp(9.0, plateau=0.0)}, seeds=3)
    plan_of(root / "single", "single", "9", {0: ramp(9.0)}, seeds=1)
    plan_of(root / "between", "between", "a", {0: ramp(1.1)}, seeds=3, arrivals="interpolated")
    plan_of(root / "said", "said", "b", {0: ramp(1.1)}, seeds=3, arrivals="checkpoint")
    plan_of(root / "matrix", "matrix", "6", {0: ramp(4.0)}, seeds=1, kind="matrix")
    (root / "broken").mkdir()
    (root / "broken" / "plan.json").write_text("{")
    return root


def test_plans_are_ranked_and_what_proves_nothing_stands_below(results):
    board = leaderboard(results)
    assert board.table["plan"].tolist() == [
        "between", "deep/fast", "slow", "said", "longer", "other folds", "single", "trial", "half", "empty",
    ]  # fmt: skip
    assert board.table["rank"].tolist() == [1, 1, 2, 3, 1, 1, 0, 0, 0, 0]
    assert board.table["group"].tolist() == [1, 2, 2, 2, 3, 4, 2, 2, 2, 2]
    dated = "arrivals at checkpoints"
    assert board.table["marks"].tolist() == [
        "", dated, dated, dated, dated, f"{dated}, 1 of 2 folds", dated, f"exploratory, {dated}",
        f"incomplete, {dated}", f"incomplete, {dated}, 0 of 1 folds",
    ]  # fmt: skip
    first = board.table.iloc[1]
    assert first["low"] < 2.5 < first["high"]
    assert first["speed_up"] == analyse(results / "deep/fast").headline.log_ratio.exp().value
    assert (first["family"], first["folds"], first["seeds"]) == ("Biped-v0", 1, 3)
    assert math.isnan(board.table.iloc[-1]["speed_up"])
    assert len(board.left_out) == 2
    assert board.left_out[0].startswith("broken: ")
    assert board.left_out[1] == "matrix is a plan of kind matrix, which has no speed-up over folds"


def test_the_list_as_text_and_markdown(results, capsys):
    board = leaderboard(results)
    lines = board.text().splitlines()
    assert lines[3].startswith("1  2      deep/fast    Biped-v0  fast")
    assert lines[9].startswith("–  2      trial")
    assert "Exploratory and incomplete plans, and those without an interval, are not ranked" in board.text()
    table = board.markdown().splitlines()
    assert table[1].count("---") == 11
    assert "slow\\|er" in table[4]
    assert all(line.replace("\\|", "").count("|") == 12 for line in table[:12])
    main(["leaderboard", str(ROOT / "results"), "--markdown"])
    printed = capsys.readouterr().out
    assert re.search(r"\| – \| \d \| quick-dm-walker \| DMWalker-v0 \| ppo \| \d", printed)
    assert "| exploratory, arrivals at checkpoints |" in printed


@pytest.fixture(scope="module")
def baselines(tmp_path_factory):
    """Joint plans: three of two tasks, one with more worlds and one untrained, and one of other tasks."""
    root = tmp_path_factory.mktemp("baselines")

    def reaches(level):
        # every seed stays a little below the one before it
        return lambda run, task, steps, rng: np.minimum(
            planted()(run, task, steps, rng), level - 0.05 * run["seed"]
        )

    ppo = {"name": "ppo", "rollout": 32, "config": {}}
    of = {"tasks": range(2), "seeds": 3, "arms": ("joint",)}
    for name, plan, level in (
        ("ppo", joint(**of, version=0, learner=ppo, worlds_per_run=112), 0.52),
        ("sac", joint(**of, version=0, learner=SAC, conditioning="one_hot"), 0.92),
        ("all", joint(range(3), 2, version=0, learner=ppo, exploratory=True), 0.7),
        # when scores are reached is nothing here
        ("none", joint(**of, version=0, learner=ppo, root_seed=1, arrivals="interpolated"), 0.7),
    ):
        skip = [run["id"] for run in plan["runs"]] if name == "none" else []
        write_plan_and_rows(root / name, plan | {"folds": sorted({*plan["runs"][-1]["tasks"]})},
                            reaches(level), skip=skip)  # fmt: skip
    return root


def test_networks_of_all_tasks_have_a_list_of_their_own(baselines):
    board = leaderboard(baselines)
    assert board.table.empty
    table = board.joint
    assert table[["plan", "arm", "group"]].to_numpy().tolist() == [
        ["all", "joint", 1],
        ["all", "joint-wide", 1],
        ["sac", "joint", 2],
        ["ppo", "joint", 2],
        ["none", "joint", 2],
    ]
    sac, ppo, none = (table.iloc[i] for i in (2, 3, 4))
    assert (sac["agent"], sac["architecture"], sac["variant"]) == (
        "sb3:sac",
        "film",
        "conditioning=one_hot",
    )
    # networks of 0.92, 0.87 and 0.82
    expected = one_sample(np.array([0.92, 0.87, 0.82]))
    found = sac[["score", "low", "high"]].tolist()
    assert found == pytest.approx([expected.value, expected.low, expected.high])
    assert ppo["score"] == pytest.approx(0.47)
    # of θ = 0.10, 0.15 ... 0.80 nine lie below 0.52, eight below 0.47, seven below 0.42
    assert (sac["reached"], ppo["reached"]) == (1.0, pytest.approx(8 / 15))
    assert (sac["total_steps"], sac["seeds"], sac["networks"], sac["worlds"]) == (2 * BUDGET, 3, 3, 56)
    assert (sac["parameters"], sac["minutes"]) == (9000, 61.5 / 60)
    assert (none["networks"], none["no_interval"], none["marks"]) == (0, "no value", "incomplete")


def test_that_list_is_text_markdown_and_csv(baselines, tmp_path):
    board = leaderboard(baselines)
    lines = board.text().splitlines()
    assert lines[0] == "One network on all tasks"
    assert " ".join(lines[5].split()).startswith(
        "2 sac Biped-v0 sb3:sac (conditioning=one_hot) film joint 400,000 3 0.87 [0.75, 0.99] 100% "
    )
    assert " 0 of 3 " in lines[7]
    rows = [line for line in board.markdown().splitlines() if line.startswith("|")]
    assert {row.count("|") for row in rows} == {15}
    board.numbers().to_csv(tmp_path / "numbers.csv", index=False)
    numbers = pd.read_csv(tmp_path / "numbers.csv", keep_default_na=False)
    assert set(numbers["kind"]) == {"joint"}
    assert "speed_up" not in numbers
    assert float(numbers["score"][2]) == pytest.approx(board.joint["score"][2])


def test_both_lists_stand_one_below_the_other(results, baselines, tmp_path):
    for name, path in zip(
        "abc", (results / "deep/fast", baselines / "sac", results / "matrix"), strict=True
    ):
        shutil.copytree(path, tmp_path / name)
    board = leaderboard(tmp_path)
    text = board.text()
    assert text.index("fast") < text.index("One network on all tasks") < text.index("left out: c is")
    assert board.numbers()["kind"].tolist() == ["leave_one_out", "joint"]


def test_what_is_not_as_usual_tells_plans_apart(tmp_path):
    frozen = {"switches": ["freeze_trunk"], "new_code": "mean"}
    plans = [
        plan_of(tmp_path / "a", seeds=2),
        plan_of(tmp_path / "b", sha="2", curves={0: ramp(2.0, seed=1)}, seeds=2, **frozen),
    ]
    comparison = compare(plans)
    assert comparison.notes[0] == ("They differ in handed on: as usual and freeze_trunk, new_code=mean.")
    (note,) = [n for n in comparison.notes if n.startswith("b is not the usual experiment: ")]
    assert "only the last layers learn, the log standard deviation" in note
    board = leaderboard(tmp_path)
    assert board.table.set_index("plan")["variant"].to_dict() == {
        "a": "",
        "b": "freeze_trunk, new_code=mean",
    }
    assert "ppo (freeze_trunk, new_code=mean)" in board.text()
    # a plan of before there were switches is as usual
    usual = plan_of(
        tmp_path / "c", "sac", "3", {0: ramp(2.0, seed=1)}, seeds=2, switches=[], new_code="true"
    )
    # whose hyperparameters stand for other things, and are not set side by side
    assert compare([plans[0], usual]).notes == (
        "They differ in learner.name: ppo and sac. Each has its agent's hyperparameters, which are in its "
        "report.",
    )


def test_edited_plans_have_no_place_in_the_list(tmp_path, capsys):
    (tmp_path / "edited").mkdir()
    plan = json.loads((ROOT / "results/quickstart/plan.json").read_text())
    (tmp_path / "edited/plan.json").write_text(json.dumps(plan | {"exploratory": False}))
    main(["leaderboard", str(tmp_path)])
    assert "was edited after it was frozen" in capsys.readouterr().out


def test_commands_print_and_write(tmp_path, capsys):
    quick = str(ROOT / "results/quickstart")
    for words, message in (
        (["compare", quick], "at least two plans"),
        (["compare", quick, str(ROOT / "results/octopus")], "differ in family: Biped and Octopus"),
        (["leaderboard", str(tmp_path)], "no plan.json in"),
    ):
        with pytest.raises(SystemExit) as stop:
            main(words)
        assert stop.value.code == 2
        assert message in " ".join(capsys.readouterr().err.split())


def test_compare_writes_its_numbers(tmp_path, monkeypatch, capsys):
    plans = [plan_of(tmp_path / "a", seeds=2), plan_of(tmp_path / "b", "sac", "2", {0: ramp(3.0)}, seeds=2)]
    # synthetic plans are not frozen
    monkeypatch.setattr("harness.cli.check_frozen", lambda directory: None)
    main(["compare", *map(str, plans), "--out", str(tmp_path / "numbers.csv")])
    out = capsys.readouterr().out
    assert "ppo and sac, budget 200,000 steps" in out
    table = pd.read_csv(tmp_path / "numbers.csv")
    assert table["plan"].tolist() == ["ppo", "sac"] * 2
    assert table.loc[1, "transfer_ratio"] > 1
