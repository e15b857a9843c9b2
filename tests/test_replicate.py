"""A cell that is trained again: its seeds are fresh, its verdict is what the numbers say."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from fuzzing import small_learner
from synthetic import fails, ramp, stalls, write_planned
from synthetic_plans import write_plan_and_rows

from harness import cli
from harness.pack import pack
from harness.plan import (
    ARMS,
    NO_FOLD,
    PlanError,
    Preset,
    load_plan,
    make_cell_plan,
    make_joint_plan,
    make_matrix_plan,
    make_plan,
    write_plan,
)
from harness.replicate import (
    AGREES,
    CANNOT_TELL,
    DIFFERS,
    compare_again,
    compare_fresh,
    fold_number,
    plan_again,
    plan_fresh,
    run_of,
)
from harness.report import analyse
from harness.report.sections_joint import analyse_joint
from harness.run import checkpoint_path, run_plan
from harness.store import Store

SETTINGS = Preset(
    folds=(3, 5), arms=ARMS, seeds=3, budget=8000, pretrain_budget=12_000, checkpoints=20, episodes=2,
    first_episodes=100, worlds_per_run=56,
)  # fmt: skip
LARGER = dataclasses.replace(SETTINGS, seeds=6)


def entries(plan):
    return {run["id"]: run for run in plan["runs"]}


@pytest.fixture(scope="module")
def plans():
    return make_plan("Biped", SETTINGS, small_learner()), make_plan("Biped", LARGER, small_learner())


def test_a_fold_has_a_number_and_its_task_a_name(plans):
    assert [fold_number(plans[0], fold) for fold in (5, "child", None)] == [5, 5, NO_FOLD]
    with pytest.raises(PlanError, match=r"no task is named 'chidl' \(did you mean 'child'\?\); there are"):
        fold_number(plans[0], "chidl")


@pytest.mark.parametrize("arm", ARMS)
def test_fresh_runs_are_what_more_seeds_of_the_plan_would_have_been(plans, arm):
    plan, larger = map(entries, plans)
    cell = entries(make_cell_plan(plans[0], 5, arm, 3))
    assert not {*cell} & {*plan}
    assert {run["entropy"] for run in cell.values()}.isdisjoint(run["entropy"] for run in plan.values())
    assert {run["seed"] for run in cell.values()} == {3, 4, 5}
    assert make_cell_plan(plans[0], 5, arm, 2)["control_seeds"] == 2
    assert all(larger[run_id] == run for run_id, run in cell.items())
    learning = [
        run for run in larger.values() if (run["fold"], run["arm"], run["phase"]) == (5, arm, "learn")
    ]
    assert {run["id"] for run in learning if run["seed"] >= 3} <= {*cell}


def test_single_sources_that_are_networks_from_scratch_are_fresh_too():
    settings = dataclasses.replace(
        SETTINGS, folds=None, arms=("scratch", "single_source"), pretrain_budget=None, seeds=1
    )
    plan = make_plan("Biped", settings, small_learner())
    larger = entries(make_plan("Biped", dataclasses.replace(settings, seeds=2), small_learner()))
    cell = make_cell_plan(plan, 5, "single_source", 1)
    assert [(run["phase"], run["arm"]) for run in cell["runs"]] == [
        ("learn", "scratch"),
        ("learn", "single_source"),
    ]
    assert all(larger[run["id"]] == run for run in cell["runs"])
    start = run_of(plan, 5, "single_source", 0)["start"]
    published = make_cell_plan(plan, 5, "single_source", 1, starts=[start])
    assert published["runs"][0]["id"] == start
    assert published["runs"][1]["start"] == start


def test_seeds_of_a_matrix_are_fresh_too():
    settings = dataclasses.replace(SETTINGS, arms=Preset().arms, folds=(0, 1))
    plan = make_matrix_plan("Biped", settings, small_learner())
    arm = f"from={plan['tasks'][1]['name']}"
    cell = make_cell_plan(plan, 0, arm, 2)
    larger = make_matrix_plan("Biped", dataclasses.replace(settings, seeds=5), small_learner())
    assert len(cell["runs"]) == 4
    assert all(entries(larger)[run["id"]] == run for run in cell["runs"])


def test_networks_of_all_tasks_are_fresh_too():
    plan = make_joint_plan("Biped", SETTINGS, small_learner())
    larger = entries(make_joint_plan("Biped", dataclasses.replace(SETTINGS, seeds=5), small_learner()))
    for arm in ("joint", "joint-wide"):
        cell = make_cell_plan(plan, NO_FOLD, arm, 2)
        assert [run["tasks"] for run in cell["runs"]] == [[3, 5]] * 2
        assert all(larger[run["id"]] == run for run in cell["runs"])
        assert cell["title"].endswith(f"fresh seeds of {arm} on all tasks")
        assert cell["folds"] == plan["folds"]
    assert {run["fold"] for run in make_cell_plan(plan, 5, "separate", 2)["runs"]} == {5}
    with pytest.raises(PlanError, match=r"learns all tasks in arm 'separate'; there are all tasks: joint"):
        make_cell_plan(plan, NO_FOLD, "separate", 2)


def test_networks_that_are_named_are_started_from_in_turn(plans):
    plan = plans[0]
    models = [
        run for run in plan["runs"] if (run["fold"], run["arm"], run["phase"]) == (5, "blind", "learn")
    ]
    cell = make_cell_plan(
        plan, 5, "blind", 3, first_seed=7, starts=[models[1]["start"], models[2]["start"]]
    )
    fresh = [run for run in cell["runs"] if run["phase"] == "learn"]
    assert [run["seed"] for run in fresh] == [7, 8, 9]
    assert [run["start"] for run in fresh] == [models[1]["start"], models[2]["start"], models[1]["start"]]
    there = entries(plan)
    assert all(run == there[run["id"]] for run in cell["runs"] if run["phase"] == "pretrain")
    assert not {run["entropy"] for run in fresh} & {run["entropy"] for run in plan["runs"]}


def test_seeds_of_the_plan_and_cells_that_are_none_are_refused(plans):
    for fold, arm, seeds, first, message in (
        (5, "transfer", 3, 2, "seeds 2 to 4 are not fresh: the plan has 0 to 2"),
        (5, "transfer", 0, None, "at least one"),
        (4, "transfer", 3, None, r"fold 3 \(long-shins\): scratch, transfer"),
        (5, "transfr", 3, None, "arm 'transfr'; there are fold 3"),
    ):
        with pytest.raises(PlanError, match=message):
            make_cell_plan(plans[0], fold, arm, seeds, first)


# --- the verdict -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A finished plan of scratch and transfer, ten seeds, packed."""
    directory = tmp_path_factory.mktemp("replicate") / "stored"
    settings = dataclasses.replace(SETTINGS, folds=(3,), arms=("scratch", "transfer"), seeds=10)
    plan = make_plan("Biped", settings, small_learner())
    write_planned(directory, plan, {3: ramp(2.0, scratch_steps=6000, noise=0.0)})
    pack(directory)
    return directory


def replica(stored, out, curve, arm="scratch", seeds=3, starts=None):
    plan = make_cell_plan(load_plan(stored), 3, arm, seeds, starts=starts)
    return write_planned(out, plan, {3: curve})


@pytest.mark.parametrize(
    ("steps", "spread", "code", "words"),
    [
        (6000, 0.15, AGREES, "agrees: the stored mean of"),
        (18_000, 0.15, DIFFERS, "differs: fresh runs are slower"),
        (1500, 0.15, DIFFERS, "differs: fresh runs are faster"),
        (6000, 1.5, CANNOT_TELL, "cannot tell: the stored mean of"),
    ],
)
def test_the_verdict_follows_the_planted_ratio(stored, tmp_path, steps, spread, code, words):
    out = replica(
        stored, tmp_path / "out", ramp(2.0, scratch_steps=steps, noise=0.0, spread=spread, seed=1)
    )
    verdict = compare_fresh(stored, out, 3, "scratch")
    assert (verdict.code, words in verdict.text) == (code, True), verdict.text
    assert "seeds 10, 11, 12 against" in verdict.text
    assert "permutation p" in verdict.text
    if code == AGREES:
        # what the fresh runs let expect lies around their own mean, not around the stored one
        low, high = (
            float(x.replace(",", ""))
            for x in re.search(r"\[([\d,]+), ([\d,]+)\], where", verdict.text).groups()
        )
        assert math.sqrt(low * high) == pytest.approx(mean_times(verdict.text, "fresh"), rel=0.01)
        assert math.sqrt(low * high) != pytest.approx(mean_times(verdict.text, "stored"), rel=0.01)


def test_runs_that_are_missing_or_changed_are_told(stored, tmp_path):
    out = replica(stored, tmp_path / "out", ramp(2.0, scratch_steps=6000, noise=0.0, spread=0.15, seed=1))
    first, second, _ = [run["id"] for run in load_plan(out)["runs"] if run["arm"] == "scratch"]
    shutil.rmtree(out / "runs" / first)
    rows = out / "runs" / second / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"return_mean": ', '"return_mean": 1', 1))
    told = compare_fresh(stored, out, 3, "scratch").text
    assert "2 of 3 fresh runs have a result that counts" in told
    assert "1 fresh run changed since finished" in told
    # of the stored side, nothing is missing nor changed
    assert not re.search(r"\d stored runs? (have|changed)", told)


def mean_times(text, side):
    """Ȳ that the table of a verdict prints of a side, steps."""
    (line,) = [line for line in text.splitlines() if line.split()[:1] == [side] and "over" not in line]
    return float(line.split()[3].replace(",", ""))


@pytest.mark.parametrize("reading", ["interpolated", "checkpoint"])
def test_mean_times_are_read_as_the_plan_reads_them(tmp_path, reading):
    """Of straight lines, which cross θ at θ times the steps to 1; dated to checkpoints it is later."""
    settings = dataclasses.replace(
        SETTINGS, folds=(3,), arms=("scratch", "blind"), seeds=4, checkpoints=8, arrivals=reading
    )
    plan = make_plan("Biped", settings, small_learner())
    steps, thresholds = np.array(plan["checkpoints"]), np.array(plan["thresholds"])
    took = {"stored": 6000.0, "fresh": 7000.0}
    for name, cell in (("stored", plan), ("fresh", make_cell_plan(plan, 3, "scratch", 4))):
        straight = ramp(1.0, noise=0.0, spread=0.05, plateau=9.0, scratch_steps=took[name])
        write_planned(tmp_path / name, cell, {3: straight})
    verdict = compare_fresh(tmp_path / "stored", tmp_path / "fresh", 3, "scratch")
    for name, tau in took.items():
        crossed = np.maximum(thresholds * tau, steps[1])
        seen = steps[np.searchsorted(steps, crossed)]
        expected = (crossed if reading == "interpolated" else seen).mean()
        assert mean_times(verdict.text, name) == pytest.approx(expected, rel=0.06), verdict.text
        assert seen.mean() > 1.15 * crossed.mean()


def test_one_network_is_one_cluster_and_is_told_so(stored, tmp_path):
    starts = [run["start"] for run in load_plan(stored)["runs"] if run["start"]][:1]
    for name, steps, code in (("same", 6000, AGREES), ("slow", 60_000, DIFFERS)):
        curve = ramp(2.0, scratch_steps=steps, noise=0.0, seed=2)
        out = replica(stored, tmp_path / name, curve, "transfer", starts=starts)
        verdict = compare_fresh(stored, out, 3, "transfer")
        assert verdict.code == code, verdict.text
        assert "t prediction interval for one more network" in verdict.text
        assert "fresh runs start from 1 network of the plan's" in verdict.text
        assert "permutation p" not in verdict.text


def test_three_networks_are_three_clusters(tmp_path):
    """A spread that is too large for one network, of which more seeds would not help either."""
    settings = dataclasses.replace(SETTINGS, folds=(3,), arms=("scratch", "transfer"), seeds=6)
    plan = make_plan("Biped", settings, small_learner())
    curve = ramp(2.0, scratch_steps=8000, noise=0.0, spread=0.7)
    write_planned(tmp_path / "stored", plan, {3: curve})
    starts = [run["start"] for run in plan["runs"] if run["phase"] == "learn" and run["start"]]
    fresh = ramp(2.0, scratch_steps=8000, noise=0.0, spread=0.15, seed=4)
    one, three = (
        compare_fresh(
            tmp_path / "stored",
            replica(tmp_path / "stored", tmp_path / str(n), fresh, "transfer", starts=starts[:n]),
            3,
            "transfer",
        )
        for n in (1, 3)
    )
    assert one.code == CANNOT_TELL, one.text
    assert one.text.endswith("train more seeds, with --pretrain")
    assert three.code == AGREES, three.text
    assert "Welch's t interval" in three.text
    assert "fresh runs start from 3 networks of the plan's" in three.text


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_where_nothing_varies_both_sides_agree(tmp_path, score):
    """No run ever arrives, or all are there at once."""
    settings = dataclasses.replace(SETTINGS, folds=(3,), arms=("scratch", "blind"))
    plan = make_plan("Biped", settings, small_learner())

    def level(value):
        return lambda steps, arm, seed: np.full(len(steps), value)

    write_planned(tmp_path / "stored", plan, {3: level(score)})
    same = compare_fresh(
        tmp_path / "stored", replica(tmp_path / "stored", tmp_path / "same", level(score)), 3, "scratch"
    )
    assert same.code == AGREES, same.text
    assert ("no run, stored or fresh, arrives" in same.text) == (score == 0)
    assert ("all runs, stored and fresh, take" in same.text) == (score == 1)
    other = compare_fresh(
        tmp_path / "stored", replica(tmp_path / "stored", tmp_path / "other", level(0.5)), 3, "scratch"
    )
    assert other.code != AGREES, other.text


def test_mixed_outcomes_and_none_at_all_are_told(stored, tmp_path):
    rises = ramp(2.0, scratch_steps=6000, noise=0.0)
    never = stalls(rises, "scratch", 0.3)
    verdict = compare_fresh(stored, replica(stored, tmp_path / "never", never), 3, "scratch")
    assert verdict.code == DIFFERS
    assert "and others do" not in verdict.text
    mixed = compare_fresh(
        stored, replica(stored, tmp_path / "mixed", fails(rises, "scratch", [11])), 3, "scratch"
    )
    assert "some fresh runs never reach θ=0.10 and others do: the interval covers badly" in mixed.text
    assert mixed.code == CANNOT_TELL, mixed.text
    plan = make_cell_plan(load_plan(stored), 3, "scratch", 3)
    write_planned(tmp_path / "empty", plan, {3: never})
    for run in plan["runs"]:
        shutil.rmtree(tmp_path / "empty" / "runs" / run["id"])
    with pytest.raises(ValueError, match="has its result"):
        compare_fresh(stored, tmp_path / "empty", 3, "scratch")


@pytest.mark.parametrize(("times", "code"), [(1.0, AGREES), (1.5, DIFFERS)])
def test_networks_of_all_tasks_count_once_each_with_the_mean_of_their_tasks(tmp_path, times, code):
    settings = dataclasses.replace(SETTINGS, seeds=8)
    plan = make_joint_plan("Biped", settings, small_learner())
    slow = {3: 3000.0, 5: 8000.0}  # steps of each task until it is learned, of one network

    def learners(factor):
        def score(run, task, steps, rng):
            spread = np.exp(0.1 * (run["seed"] % 4 - 1.5))
            return np.minimum(1.0, steps / (slow[task] * factor * spread))

        return score

    write_plan_and_rows(tmp_path / "stored", plan, learners(1.0))
    cell = make_cell_plan(plan, NO_FOLD, "joint", 4)
    write_plan_and_rows(tmp_path / "fresh", cell, learners(times))
    verdict = compare_fresh(tmp_path / "stored", tmp_path / "fresh", NO_FOLD, "joint")
    assert verdict.code == code, verdict.text
    assert "all tasks, arm joint: fresh seeds 8, 9, 10, 11 against" in verdict.text
    rows = [line.split() for line in verdict.text.splitlines()]
    assert [row[1:3] for row in rows if row[0] in ("stored", "fresh") and row[1] != "over"] == [
        ["8", "8"],
        ["4", "4"],
    ]
    # the report's own times, of every task and score, at most the budgets of both tasks
    (curves,) = (c for c in analyse_joint(analyse(tmp_path / "stored")).every if c.arm == "joint")
    assert curves.scores.shape[:2] == (8, 2)
    expected = np.minimum(curves.arrivals, 2 * plan["budget"]).mean()
    assert mean_times(verdict.text, "stored") == pytest.approx(expected, abs=1)


# --- trained ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def published(whole, tmp_path_factory):
    """A trained plan as it is published: packed, with one network of each arm, without moments."""
    out = tmp_path_factory.mktemp("published") / "plan"
    pack(whole, out, networks=1)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    yield out
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before


def ends(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["replicate", *map(str, words), "--processes", "1"])
    return stop.value.code


def test_fresh_seeds_are_trained_from_the_published_network(published, tmp_path, capsys):
    plan, out = load_plan(published), tmp_path / "replica"
    (fold,) = plan["folds"]
    code = ends(published, "--fold", fold, "--seeds", 2, "--out", out)
    said = capsys.readouterr().out
    verdict = compare_fresh(published, out, fold, "transfer")
    assert code == verdict.code
    # the words are broken into lines for the terminal
    assert " ".join(verdict.text.splitlines()[-1].split()) in " ".join(said.split())
    assert f"fold {fold} ({plan['tasks'][fold]['name']}), arm transfer: fresh seeds 2, 3 against" in said
    assert "steps of the stored runs over those of the fresh" in said or "cannot tell" in said
    there = Store(out)
    assert {*there.status().values()} == {"finished"}
    start = run_of(plan, fold, "transfer", 0)["start"]
    assert {run["start"] for run in there.plan["runs"] if run["phase"] == "learn"} == {start}
    assert there.lines(start) == Store(published).lines(start)  # copied, not trained
    # fresh runs differ from one another and from the stored ones
    rows = {tuple(r["return_mean"] for r in map(json.loads, s.lines(i)))
            for s, ids in ((there, [r["id"] for r in there.plan["runs"] if r["phase"] == "learn"]),
                           (Store(published), [run_of(plan, fold, "transfer", k)["id"] for k in (0, 1)]))
            for i in ids}  # fmt: skip
    assert len(rows) == 4
    # asked again, nothing is left to train
    ends(published, "--fold", fold, "--seeds", 2, "--out", out)
    assert "nothing left to train" in capsys.readouterr().out


def test_a_stored_run_is_the_same_with_its_own_seed(published, tmp_path, capsys):
    plan = load_plan(published)
    (fold,) = plan["folds"]
    cell = (published, "--fold", fold)
    assert ends(*cell, "--arm", "scratch", "--same-seed", 1) == AGREES
    assert "identical: all" in capsys.readouterr().out
    assert ends(*cell, "--same-seed", 0, "--out", tmp_path / "same") == AGREES
    # of seed 1 no network is kept
    assert ends(*cell, "--same-seed", 1) == 2
    assert "train it again too, with --pretrain" in " ".join(capsys.readouterr().err.split())
    assert ends(*cell, "--same-seed", 1, "--pretrain", "--out", tmp_path / "both") == AGREES
    capsys.readouterr()
    assert ends(*cell, "--same-seed", 2) == 2
    assert "has seed 2; there are [0, 1]" in capsys.readouterr().err
    # one stored row is another: of the same circumstances, and of others
    run = run_of(plan, fold, "transfer", 0)
    again = tmp_path / "same"
    store = Store(again)
    rows = [json.loads(line) for line in store.lines(run["id"])]
    rows[-1]["return_mean"] += 0.5
    record = {k: v for k, v in store.record(run["id"]).items() if k != "rows_sha256"}
    for processor, code, words in (
        (record["processor"], DIFFERS, "differs: under the same"),
        ("another", CANNOT_TELL, "processor: "),
    ):
        store.discard(run["id"])
        store.begin(run["id"])
        store.append(rows)
        store.finish(run["id"], {**record, "processor": processor})
        verdict = compare_again(published, again, run)
        assert (verdict.code, words in verdict.text) == (code, True), verdict.text
        assert f"{len(rows) - 1} of {len(rows)} rows are identical" in verdict.text
        assert "up to 0.5 apart" in verdict.text


def test_a_network_of_all_tasks_is_the_same_with_its_own_seed(tmp_path, capsys):
    settings = dataclasses.replace(SETTINGS, seeds=2, joint_arms=("joint",), budget=2000, checkpoints=4)
    write_plan(make_joint_plan("Biped", settings, small_learner()), tmp_path / "plan")
    run_plan(tmp_path / "plan", processes=1)
    cell = (tmp_path / "plan", "--arm", "joint")
    assert ends(*cell, "--same-seed", 1) == AGREES
    assert "identical: all" in capsys.readouterr().out
    code = ends(*cell, "--seeds", 2, "--out", tmp_path / "replica")
    said = capsys.readouterr().out
    assert code == compare_fresh(tmp_path / "plan", tmp_path / "replica", NO_FOLD, "joint").code
    assert "fresh seeds 2, 3 against" in said
    assert ends(tmp_path / "plan") == 2
    assert "learns all tasks in arm 'transfer'" in " ".join(capsys.readouterr().err.split())


def test_what_cannot_be_started_is_refused_before_anything_is_written(published, whole, tmp_path):
    plan = load_plan(whole)
    (fold,) = plan["folds"]
    bare = tmp_path / "bare"
    pack(whole, bare, networks=0)
    with pytest.raises(PlanError, match=r"not kept in .* pretrain anew, with --pretrain"):
        plan_fresh(bare, tmp_path / "out", fold, "transfer")
    with pytest.raises(PlanError, match="choose another seed"):
        plan_again(bare, tmp_path / "out", run_of(plan, fold, "transfer", 0))
    # its network is there, but may be of a training that goes on
    shutil.copytree(published, tmp_path / "begun")
    start = run_of(plan, fold, "transfer", 0)["start"]
    begun = Store(tmp_path / "begun")
    begun.unpack(next(n for n, cohort in enumerate(begun.cohorts) if start in cohort))
    for call in (
        lambda: plan_fresh(tmp_path / "begun", tmp_path / "out", fold, "transfer"),
        lambda: plan_again(tmp_path / "begun", tmp_path / "out", run_of(plan, fold, "transfer", 0)),
    ):
        with pytest.raises(PlanError, match=f"{start} is missing in .*, so that its network"):
            call()
    old = Path(__file__).parents[1] / "results" / "quick-dm-walker"
    with pytest.raises(PlanError, match="it can be reported, but not trained any more"):
        plan_fresh(old, tmp_path / "out", 3, "scratch")
    assert not (tmp_path / "out").exists()
    plan_fresh(bare, tmp_path / "out", fold, "transfer", pretrain=True)
    assert not (tmp_path / "out/runs").exists()
    assert not checkpoint_path(tmp_path / "out", plan["runs"][0]["id"]).exists()
