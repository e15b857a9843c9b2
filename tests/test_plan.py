"""The plan: what it lists, what it hashes, and what it refuses."""

import dataclasses
import itertools
import json
from collections import Counter

import pytest

import harness.plan
import mtenvs
from harness.plan import (
    PRESETS,
    THRESHOLDS,
    PlanError,
    Preset,
    checkpoint_steps,
    load_plan,
    make_plan,
    write_plan,
)

TASKS = len(mtenvs.tasks("Biped"))
SOURCES = TASKS - 1
WORLDS = 8 * SOURCES
LEARNER = {"name": "ppo", "rollout": 32, "config": {"learning_rate": 0.001}}


def plan_of(**changes):
    return make_plan("Biped", preset_of(**changes), LEARNER, "quick")


def preset_of(**changes):
    return dataclasses.replace(PRESETS["quick"], **{"worlds_per_run": WORLDS, **changes})


def test_checkpoints_double_until_linear_steps_are_finer():
    steps = checkpoint_steps(budget=200_000, count=20, rollout=1)
    # from 16,000 on, (200,000 - 16,000) / 14 = 13,142.9 is finer than doubling
    assert steps[:6] == [0, 1000, 2000, 4000, 8000, 16000]
    gaps = [b - a for a, b in itertools.pairwise(steps[5:])]
    assert all(13_142 <= gap <= 13_144 for gap in gaps)
    assert len(steps) == 22
    assert steps[19] == 200_000
    assert len([s for s in steps if s > 200_000]) == 2


def test_checkpoints_are_whole_rollouts_at_or_after_their_step():
    rollout = 1792
    steps = checkpoint_steps(200_000, 20, rollout)
    assert all(s % rollout == 0 for s in steps)
    assert steps == sorted(set(steps))
    assert max(s for s in steps if s < 200_000 + rollout) >= 200_000
    with pytest.raises(PlanError, match="budget 100 is too small"):
        checkpoint_steps(100, 20, rollout)


def test_a_checkpoint_lies_at_the_budget_and_two_beyond():
    plan = plan_of(budget=200_000)
    assert plan["budget"] % (LEARNER["rollout"] * WORLDS) == 0
    assert 0 <= plan["budget"] - 200_000 < LEARNER["rollout"] * WORLDS
    assert plan["checkpoints"][-3] == plan["budget"]


def test_plan_lists_every_run_once_and_cohorts_share_shape():
    plan = plan_of()
    runs = {run["id"]: run for run in plan["runs"]}
    assert len(runs) == len(plan["runs"]) == 2 * 3 * 3  # folds x seeds x (pretrain, transfer, scratch)
    assert sorted(i for cohort in plan["cohorts"] for i in cohort) == sorted(runs)
    trained = set()
    for cohort in plan["cohorts"]:
        assert len(cohort) <= plan["cohort_runs"]
        shapes = {(runs[i]["phase"], len(runs[i]["tasks"]), runs[i]["steps"]) for i in cohort}
        assert len(shapes) == 1
        # whatever a run starts from is trained in an earlier cohort
        assert all(runs[i]["start"] is None or runs[i]["start"] in trained for i in cohort)
        trained |= set(cohort)
    assert Counter(run["arm"] for run in plan["runs"] if run["phase"] == "learn") == {
        "scratch": 6,
        "transfer": 6,
    }


def test_the_held_out_task_is_in_no_pretraining():
    plan = plan_of(folds=None)
    assert plan["folds"] == list(range(TASKS))
    for run in plan["runs"]:
        if run["phase"] == "pretrain":
            assert run["fold"] not in run["tasks"]
            assert sorted([*run["tasks"], run["fold"]]) == list(range(TASKS))
        else:
            assert run["tasks"] == [run["fold"]]


def test_streams_are_keyed_so_that_nobody_shares_one():
    runs = plan_of()["runs"]
    assert len({run["entropy"] for run in runs}) == len(runs)
    other = plan_of(root_seed=1)["runs"]
    assert not {run["entropy"] for run in runs} & {run["entropy"] for run in other}


def test_runs_are_keyed_by_content_not_by_position():
    def ids(**changes):
        return {run["id"] for run in plan_of(**changes)["runs"]}

    assert ids(seeds=2) < ids(seeds=3)
    assert ids(folds=(5, 3)) == ids(folds=(3, 5))
    # a pretraining does not depend on how long the learning after it takes
    assert set(ids(budget=150_000) & ids()) == {i for i in ids() if i.startswith("pretrain")}
    other = {**LEARNER, "config": {"learning_rate": 0.002}}
    assert not {r["id"] for r in make_plan("Biped", preset_of(), other)["runs"]} & ids()


def test_plan_copies_in_what_decides_it():
    plan = plan_of()
    assert plan["tasks"] == [task.to_dict() for task in mtenvs.tasks("Biped")]
    assert plan["thresholds"] == list(THRESHOLDS) == [round(0.1 + 0.05 * i, 2) for i in range(15)]
    assert set(plan["reference"]["scores"]) == {task.name for task in mtenvs.tasks("Biped")}
    assert plan["exploratory"] is True
    assert make_plan("Biped", Preset(worlds_per_run=WORLDS), LEARNER)["exploratory"] is False


def test_a_task_without_a_reference_score_is_named_with_the_remedy(monkeypatch):
    record = harness.plan.load_reference("Biped", 0)
    scores = {name: value for name, value in record["scores"].items() if name != "child"}
    monkeypatch.setattr(harness.plan, "load_reference", lambda *_: {**record, "scores": scores})
    with pytest.raises(PlanError, match="no reference scores for child: run 'mtenvs reference Biped'"):
        plan_of()


def test_worlds_are_dealt_evenly_to_the_sources(family):
    """Rounded down, and never to none; every budget and checkpoint follows from what is left."""
    sources = len(family.tasks) - 1
    for asked in (sources, 2 * sources + 1, 56, 57):
        plan = make_plan(family.name, preset_of(worlds_per_run=asked, folds=(0,)), LEARNER)
        assert plan["worlds_per_run"] == asked - asked % sources > 0
        assert plan["budget"] % (LEARNER["rollout"] * plan["worlds_per_run"]) == 0


def test_the_layout_is_part_of_what_decides_where_there_are_several(family):
    def made(layout):
        plan = make_plan(family.name, preset_of(layout=layout, folds=(0,)), LEARNER)
        return plan, {run["id"] for run in plan["runs"]}

    default, ids = made(None)
    assert default.get("layout") == (family.layouts[0] if family.layouts else None)
    assert ("layout" in default) == bool(family.layouts)
    for layout in family.layouts:
        plan, own = made(layout)
        assert plan["layout"] == layout
        assert (own == ids) if layout == family.layouts[0] else not own & ids
    if family.layouts:
        told = f"valid: {', '.join(family.layouts)}"
        with pytest.raises(ValueError, match=f"unknown layout 'spiral' of '{family.name}'; {told}"):
            made("spiral")


def test_write_and_load(tmp_path):
    plan = plan_of()
    path = write_plan(plan, tmp_path / "new")
    assert load_plan(tmp_path / "new") == plan
    before = path.read_bytes()
    write_plan(plan, tmp_path / "new")  # the same plan again is fine
    with pytest.raises(PlanError, match="another plan"):
        write_plan(plan_of(seeds=4), tmp_path / "new")
    assert path.read_bytes() == before


def test_a_directory_that_is_no_plan_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(PlanError, match=r"is not empty and holds no plan\.json"):
        write_plan(plan_of(), tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(PlanError, match=r"holds no plan\.json"):
        load_plan(tmp_path)


def test_an_edited_plan_is_refused(tmp_path):
    write_plan(plan_of(), tmp_path)
    plan = json.loads((tmp_path / "plan.json").read_text())
    plan["budget"] = 1
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(PlanError, match="was edited after it was frozen"):
        load_plan(tmp_path)
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(PlanError, match="is not JSON"):
        load_plan(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"folds": (3, 99)}, r"unknown folds \[3, 99\]; valid: \[0, 1"),
        ({"folds": ()}, "unknown folds"),
        ({"folds": (3, 3)}, r"folds \[3, 3\] name a task twice"),
        ({"arms": ("scratch", "blond")}, "unusable arms.*blond"),
        ({"arms": ("transfer",)}, "scratch"),
        ({"seeds": 0}, "seeds must be positive, got 0"),
        (
            {"worlds_per_run": SOURCES - 1},
            f"worlds_per_run={SOURCES - 1} is too few for {SOURCES} source tasks; use at least {SOURCES}",
        ),
        ({"root_seed": -1}, "root_seed must not be negative, got -1"),
        ({"first_episodes": 16}, "first_episodes must be at least 100"),
        ({"conditioning": "telepathy"}, "unknown conditioning 'telepathy'.*one_hot"),
        ({"layout": "spiral"}, "unknown layout 'spiral' of 'Biped'; its bodies are alike, leave it out"),
    ],
)
def test_bad_settings(changes, message):
    with pytest.raises(ValueError, match=message):
        plan_of(**changes)
