"""The plan: what it lists, what it hashes, and what it refuses."""

import dataclasses
import itertools
import json
import math
from collections import Counter

import pytest

import harness.plan
import mtenvs
from harness.plan import (
    ARMS,
    CONTROLS,
    PRESETS,
    THRESHOLDS,
    PlanError,
    Preset,
    checkpoint_steps,
    load_plan,
    make_joint_plan,
    make_matrix_plan,
    make_plan,
    summarise,
    write_plan,
)
from harness.schema import check_plan

TASKS = len(mtenvs.tasks("Biped"))
SOURCES = TASKS - 1
WORLDS = 8 * SOURCES
LEARNER = {
    "name": "ppo",
    "version": "1",
    "rollout": 32,
    "config": {"learning_rate": 0.001},
    "many_runs": True,
    "starts": ["normalizer", "shuffled", "freeze_trunk"],
    "tuning": {"trials": 0, "steps": 0},
}


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


def by_arm(plan, phase="learn"):
    found = {}
    for run in plan["runs"]:
        if run["phase"] == phase:
            found.setdefault(run["arm"], []).append(run)
    return found


def test_every_arm_of_the_protocol_starts_as_it_says():
    family = mtenvs.get_family("Biped")
    plan = plan_of(arms=ARMS, control_folds=(5,), worlds_per_run=SOURCES * TASKS)
    runs = {run["id"]: run for run in plan["runs"]}
    learned, trained = by_arm(plan), by_arm(plan, "pretrain")
    assert set(learned) == set(ARMS)
    assert set(trained) == {"transfer", "blind", "single_source", "ceiling"}
    for arm in ARMS:  # controls on one of the two folds
        assert {run["fold"] for run in learned[arm]} == ({5} if arm in CONTROLS else {3, 5})
    for arm, of_arm in learned.items():
        for run in of_arm:
            assert run["conditioning"] == ("none" if arm == "blind" else "descriptor")
            if arm == "scratch":
                assert run["start"] is run["init"] is None
                continue
            start = runs[run["start"]]
            assert (start["fold"], start["seed"]) == (run["fold"], run["seed"])
            assert start["conditioning"] == run["conditioning"]
            # the controls start from the very networks that transfer starts from
            shared = arm in ("normalizer", "shuffled")
            assert start["arm"] == ("transfer" if shared else arm)
            assert run["init"] == (arm if shared else "all")
            others = [k for k in range(TASKS) if k != run["fold"]]
            if arm == "single_source":
                held_out = family.tasks[run["fold"]]
                nearest = min(others, key=lambda k: family.distance(family.tasks[k], held_out))
                assert start["tasks"] == [nearest]
            else:
                assert start["tasks"] == (list(range(TASKS)) if arm == "ceiling" else others)


def test_controls_may_have_fewer_seeds():
    plan = plan_of(arms=ARMS, control_folds=(5,), control_seeds=1, seeds=3, worlds_per_run=SOURCES * TASKS)
    learned, trained = by_arm(plan), by_arm(plan, "pretrain")
    for arm, runs in {**learned, "ceiling (pretraining)": trained["ceiling"]}.items():
        of_controls = arm in CONTROLS or arm.startswith("ceiling")
        assert sorted(run["seed"] for run in runs if run["fold"] == 5) == (
            [0] if of_controls else [0, 1, 2]
        )
    # those of the controls begin from the networks of transfer, which are there as before
    assert {run["start"] for run in learned["shuffled"]} <= {run["start"] for run in learned["transfer"]}
    same = plan_of(arms=ARMS, control_seeds=3, seeds=3, worlds_per_run=SOURCES * TASKS)
    assert same["sha256"] == plan_of(arms=ARMS, seeds=3, worlds_per_run=SOURCES * TASKS)["sha256"]


def test_single_source_takes_the_scratch_networks_where_steps_are_equal():
    changes = {"arms": ("scratch", "single_source"), "folds": None}
    last = plan_of(**changes)["checkpoints"][-1]
    plan = plan_of(pretrain_budget=last, **changes)
    assert plan["sha256"] == plan_of(pretrain_budget=None, **changes)["sha256"]
    runs = {run["id"]: run for run in plan["runs"]}
    assert not by_arm(plan, "pretrain")
    for run in by_arm(plan)["single_source"]:
        start = runs[run["start"]]
        assert (start["arm"], start["seed"], start["tasks"]) == ("scratch", run["seed"], [start["fold"]])
        assert start["fold"] != run["fold"]
    # the wanted network may be of a fold that is not in the plan: then it is trained for this alone
    plan = plan_of(pretrain_budget=last, arms=changes["arms"], folds=(3,))
    assert [run["steps"] for run in by_arm(plan, "pretrain")["single_source"]] == [last] * 3


@pytest.mark.parametrize("limit", [1, 4, 20])
@pytest.mark.parametrize("kind", ["arms", "matrix", "joint", "equal"])
def test_cohorts_share_shape_and_follow_what_they_start_from(kind, limit):
    preset = preset_of(cohort_runs=limit, folds=None, seeds=2)
    if kind == "matrix":
        plan = make_matrix_plan("Biped", preset, LEARNER)
    elif kind == "joint":
        plan = make_joint_plan("Biped", preset, LEARNER, {"learning_rate": 0.5})
    else:
        preset = dataclasses.replace(preset, arms=ARMS, worlds_per_run=SOURCES * TASKS)
        if kind == "equal":
            last = make_plan("Biped", preset, LEARNER)["checkpoints"][-1]
            preset = dataclasses.replace(preset, pretrain_budget=last)
        plan = make_plan("Biped", preset, LEARNER)
    runs = {run["id"]: run for run in plan["runs"]}
    assert sorted(i for cohort in plan["cohorts"] for i in cohort) == sorted(runs)
    trained = set()
    for cohort in plan["cohorts"]:
        assert 1 <= len(cohort) <= limit
        shapes = {
            (r["phase"], len(r["tasks"]), r["steps"], r["conditioning"], str(r.get("config")))
            for r in map(runs.get, cohort)
        }
        assert len(shapes) == 1
        assert all(runs[i]["start"] is None or runs[i]["start"] in trained for i in cohort)
        trained |= set(cohort)
    if limit == 20:  # hardly a batch is left half empty
        assert len(plan["cohorts"]) <= len(runs) / limit + 2 * len({*map(str, by_arm(plan))})


def test_fine_tunings_share_their_network_and_nothing_else():
    plan = plan_of(finetunes=3, finetune_folds=(5,))
    tuned = [run for run in by_arm(plan)["transfer"] if run["fold"] == 5]
    assert len(tuned) == 3 * plan["seeds"]
    for run in tuned:
        assert [r["finetune"] for r in tuned if r["start"] == run["start"]] == [0, 1, 2]
    assert len({run["entropy"] for run in plan["runs"]}) == len(plan["runs"])
    assert len([run for run in by_arm(plan)["transfer"] if run["fold"] == 3]) == plan["seeds"]
    assert len([run for run in by_arm(plan)["scratch"] if run["fold"] == 5]) == plan["seeds"]
    # the first of them is the run of a plan with one
    assert {run["id"] for run in plan_of()["runs"]} <= {run["id"] for run in plan["runs"]}


def test_doses():
    worlds = math.lcm(2, 7, SOURCES)
    plan = plan_of(arms=("scratch", "sources=2", "sources=7", "steps=100000"), worlds_per_run=worlds)
    assert plan["kind"] == "dose"
    trained = by_arm(plan, "pretrain")
    (steps,) = {run["steps"] for run in trained["steps=100000"]}
    assert 0 <= steps - 100_000 < plan["learner"]["rollout"] * plan["worlds_per_run"]
    assert steps % (plan["learner"]["rollout"] * plan["worlds_per_run"]) == 0
    assert {run["steps"] for run in trained["sources=2"]} == {plan["pretrain_budget"]}
    for run in trained["sources=2"]:
        assert len(set(run["tasks"])) == 2
        assert run["fold"] not in run["tasks"]
    assert len({tuple(run["tasks"]) for run in trained["sources=2"]}) > 1  # others for every seed
    wider = by_arm(plan_of(arms=("scratch", "sources=2", "sources=4"), worlds_per_run=worlds), "pretrain")
    few = {(run["fold"], run["seed"]): {*run["tasks"]} for run in wider["sources=2"]}
    assert all(few[run["fold"], run["seed"]] < {*run["tasks"]} for run in wider["sources=4"])
    assert all(len(run["tasks"]) == 7 for run in trained["sources=7"])


def test_the_matrix_trains_every_source_once():
    plan = make_matrix_plan("Biped", preset_of(folds=None, seeds=2), LEARNER)
    trained = by_arm(plan, "pretrain")
    assert len(trained) == TASKS
    assert all(len(runs) == 2 and len(runs[0]["tasks"]) == 1 for runs in trained.values())
    pairs = {(run["arm"], run["fold"]) for run in plan["runs"] if run["phase"] == "learn"}
    names = [task["name"] for task in plan["tasks"]]
    assert pairs == {("scratch", k) for k in range(TASKS)} | {
        (f"from={names[j]}", k) for j in range(TASKS) for k in range(TASKS) if j != k
    }


def test_joint_networks_have_as_many_steps_as_all_separate_ones():
    wide = {"learning_rate": 0.5}
    plan = make_joint_plan("Biped", preset_of(folds=None), LEARNER, wide)
    learned = by_arm(plan)
    assert set(learned) == {"separate", "joint", "joint-wide"}
    assert plan["joint_checkpoints"][-3] == TASKS * plan["budget"]
    assert {run["steps"] for run in learned["joint"]} == {plan["joint_checkpoints"][-1]}
    assert all(run["tasks"] == list(range(TASKS)) for run in learned["joint"])
    assert all(run["config"] == wide for run in learned["joint-wide"])
    with pytest.raises(PlanError, match="at least two tasks"):
        make_joint_plan("Biped", preset_of(folds=(3,)), LEARNER, wide)


@pytest.mark.parametrize("asked", [None, "legs", "Biped: legs"])
def test_a_title_is_what_was_asked_for_after_the_familys_name(asked):
    preset = preset_of() if asked is None else preset_of(title=asked)
    plans = {
        "quick leave-one-out": make_plan("Biped", preset, LEARNER, "quick"),
        "source by target": make_matrix_plan("Biped", preset, LEARNER),
        "joint against separate": make_joint_plan("Biped", preset, LEARNER, {"learning_rate": 0.5}),
    }
    for usual, plan in plans.items():
        assert plan["title"] == f"Biped: {usual if asked is None else 'legs'}"


def test_the_plan_proves_that_nothing_leaks(family):
    plan = make_plan(family.name, preset_of(folds=None, worlds_per_run=56), LEARNER)
    leaks = plan["leaks"]
    names = [task.name for task in family.tasks]
    assert set(leaks["models"]) == set(leaks["goals"]) == set(leaks["distances"]) == set(names)
    pairs = [(leaks["models"][name], leaks["goals"][name]) for name in names]
    assert len(set(pairs)) == len(pairs)
    for name, distances in leaks["distances"].items():
        assert set(distances) == set(names) - {name}
        assert min(distances.values()) >= leaks["min_distance"] > 0
    assert leaks["seeds"]["training_below"] <= leaks["seeds"]["evaluation_from"]
    played = [plan["first_episodes"], *[plan["episodes"]] * (len(plan["checkpoints"]) - 1)]
    assert leaks["seeds"]["evaluation"] == pytest.approx(len(names) * sum(played), rel=0.01)


def test_a_leak_is_refused_by_name(monkeypatch):
    with pytest.raises(PlanError, match=r"leaks: its training task .* descriptor units away, and min_dist"):
        plan_of(min_distance=5.0)
    family = mtenvs.get_family("Biped")
    twin = dataclasses.replace(family, published={**family.published, "twin": family.published["child"]})
    monkeypatch.setattr(harness.plan.mtenvs, "get_family", lambda _: twin)
    scores = harness.plan.load_reference("Biped", 0)
    scores = {**scores, "scores": {**scores["scores"], "twin": scores["scores"]["child"]}}
    monkeypatch.setattr(harness.plan, "load_reference", lambda *_: scores)
    monkeypatch.setattr(harness.plan.mtenvs, "leave_one_out", lambda _: ())
    with pytest.raises(PlanError, match="'child' leaks: 'twin' has the same body and goal"):
        plan_of(worlds_per_run=TASKS, min_distance=0.0)


def test_how_arrivals_are_dated_is_frozen_and_decides_no_training():
    made = {
        "leave_one_out": plan_of,
        "matrix": lambda **changes: make_matrix_plan("Biped", preset_of(seeds=1, **changes), LEARNER),
        "joint": lambda **changes: make_joint_plan("Biped", preset_of(**changes), LEARNER, {}),
    }
    for kind, make in made.items():
        usual, other = make(), make(arrivals="checkpoint")
        assert (usual["kind"], usual["arrivals"], other["arrivals"]) == (kind, "interpolated", "checkpoint")
        assert usual["sha256"] != other["sha256"]
        assert usual["runs"] == other["runs"]
    with pytest.raises(PlanError, match="unknown arrivals 'late'; valid: interpolated, checkpoint"):
        plan_of(arrivals="late")
    plan = json.loads(json.dumps(plan_of()))
    assert check_plan(plan) == ""
    assert check_plan(plan | {"arrivals": "late"}).startswith("its plan.arrivals is 'late'; valid: ")


def test_a_summary_for_people_adds_up():
    plan = plan_of(arms=("scratch", "transfer", "shuffled"))
    rows = {(phase, arm): rest for phase, arm, *rest in summarise(plan)}
    assert rows["learn", "shuffled"][0] == "pretrain transfer, shuffled"
    assert rows["learn", "scratch"][:3] == ["nothing", 6, 2]
    assert rows["total", ""][1] == len(plan["runs"]) == sum(r[1] for r in rows.values()) / 2


def test_standard_asks_for_four_arms_and_quick_for_minutes():
    # worlds that can be dealt to all tasks and to all but one, however many a body that was added makes
    even = math.lcm(SOURCES, SOURCES + 1)
    steps = {}
    for name, preset in PRESETS.items():
        settings = dataclasses.replace(preset, worlds_per_run=max(1, preset.worlds_per_run // even) * even)
        steps[name] = sum(r["steps"] for r in make_plan("Biped", settings, LEARNER, name)["runs"]) / 1e6
    assert steps["quick"] < 6
    assert steps["standard"] < 4 * 3600 * 30_000 / 1e6  # four hours at 30,000 steps a second
    assert steps["full"] > 2 * steps["standard"]
    assert PRESETS["full"].arms == ARMS


def test_write_and_load(tmp_path):
    plan = plan_of()
    path = write_plan(plan, tmp_path / "new")
    assert load_plan(tmp_path / "new") == plan
    before = path.read_bytes()
    write_plan(plan, tmp_path / "new")  # the same plan again is fine
    with pytest.raises(PlanError, match=rf"another plan .* differ in seeds: {plan['seeds']} and 4; .*runs"):
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
        ({"finetunes": 0}, "finetunes must be positive, got 0"),
        ({"arms": ("scratch", "sources=0")}, "unusable arms.*sources=N, steps=N"),
        ({"arms": ("scratch", f"sources={TASKS}")}, f"asks for more than the {SOURCES} other tasks"),
        ({"control_folds": (99,)}, r"unknown control_folds \[99\]"),
        ({"control_seeds": 0}, "control_seeds must be positive, got 0"),
        ({"control_seeds": 99}, "control_seeds must be at most seeds, .*, got 99: normalizer and shuffled"),
        ({"finetune_folds": (3, 3)}, "finetune_folds .* name a task twice"),
        ({"headline": "best_folds"}, "unknown headline 'best_folds'; valid: all_folds, not_yet_solved"),
        ({"break_even_threshold": 0.33}, r"break_even_threshold must be one of 0.10, .*, 0.80, got 0.33"),
        ({"min_distance": math.nan}, "min_distance must not be negative, got nan"),
        ({"arms": ("scratch", "steps=07000")}, "unusable arms"),
        ({"finetunes": 3}, r"finetunes=3 has no fold: finetune_folds are \[\]"),
        ({"finetunes": 3, "finetune_folds": (0,), "folds": (3,)}, r"finetune_folds are \[0\], folds \[3\]"),
        (
            {"arms": ("scratch", "ceiling"), "control_folds": (0,), "folds": (3,)},
            r"arms ceiling have no fold: control_folds are \[0\], folds \[3\]",
        ),
        ({"tuning_trials": -1}, "tuning_trials must not be negative"),
        (
            {"worlds_per_run": SOURCES - 1},
            f"worlds_per_run={SOURCES - 1} cannot be dealt evenly to {SOURCES} tasks; use {SOURCES} or",
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
