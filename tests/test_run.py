"""From a plan to stored rows: a tiny experiment, killed and continued."""

import ctypes
import dataclasses
import json
import shutil
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch

import harness.run
import mtenvs
from baselines.checkpoint import TENSORS, load_checkpoint, read_lessons
from baselines.learner import Described, Learner, Start, play_episodes
from baselines.registry import (
    AGENTS,
    describe_learner,
    load_policy,
    make_learner,
    widened,
)
from harness.plan import (
    ARMS,
    PRESETS,
    TRAINING_SEEDS,
    PlanError,
    digest,
    load_plan,
    make_joint_plan,
    make_matrix_plan,
    make_plan,
    write_plan,
)
from harness.report import analyse, write_report
from harness.run import (
    TrainingError,
    checkpoint_path,
    estimate_cost,
    evaluation_seeds,
    make_worlds,
    pending_steps,
    run_plan,
    widest,
)
from harness.store import Store
from mtenvs import registry
from mtenvs.vector_env import TaskVectorEnv

SOURCES = len(mtenvs.tasks("Biped")) - 1
ROLLOUT = 32 * SOURCES
TINY = dataclasses.replace(
    PRESETS["quick"],
    folds=(5,),
    seeds=2,
    budget=4 * ROLLOUT,
    pretrain_budget=2 * ROLLOUT,
    worlds_per_run=SOURCES,
    checkpoints=4,
    episodes=2,
    first_episodes=100,
)


def tiny(directory: Path) -> Path:
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    write_plan(make_plan("Biped", TINY, learner, "quick"), directory)
    return directory


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tiny(tmp_path_factory.mktemp("run") / "tiny")
    seen = []
    total = pending_steps(directory)
    run_plan(directory, progress=seen.append)
    assert sum(seen) >= total > 0
    return directory


def rows(directory: Path) -> dict[str, bytes]:
    return {p.parent.name: p.read_bytes() for p in sorted(directory.glob("runs/*/rows.jsonl"))}


def test_every_run_finishes_with_all_its_rows(finished):
    plan, store = load_plan(finished), Store(finished)
    assert set(store.status().values()) == {"finished"}
    assert pending_steps(finished) == 0
    table = store.evaluations()
    learned = table[table["phase"] == "learn"]
    for _, run in learned.groupby("run"):
        assert run["steps"].tolist() == plan["checkpoints"]
        assert set(run["task"]) == {"child"}
        assert run["episodes"].tolist() == [100] + [2] * (len(plan["checkpoints"]) - 1)
    for _, run in table[table["phase"] == "pretrain"].groupby("run"):
        # the sources, and the held-out task with three codes
        assert sorted(run["task"]) == sorted([*(t.name for t in mtenvs.tasks("Biped")), "child", "child"])
        held_out = run[run["task"] == "child"]
        assert sorted(held_out["code"]) == ["mean", "true", "wrong"]
        assert (held_out["episodes"] == 100).all()
        assert set(run[run["task"] != "child"]["code"]) == {"true"}
    assert set(learned["code"]) == {"true"}


def test_transfer_starts_where_pretraining_ended(finished):
    plan, table = load_plan(finished), Store(finished).evaluations()
    stored = table[table["checkpoint"] == 0].set_index(["run", "task"])["return_mean"]
    starts = [run for run in plan["runs"] if run["start"] is not None]
    assert len(starts) == TINY.seeds
    for run in starts:
        body, episodes = plan["tasks"][run["fold"]], plan["first_episodes"]
        worlds = make_worlds(plan["family"], [[body]], episodes, plan["conditioning"])
        learner = make_learner(plan["learner"]["name"], plan["learner"]["config"], worlds, [0])
        seeds = evaluation_seeds(plan["root_seed"], run["fold"], 0, episodes)
        expected = stored[run["id"], body["name"]]
        untrained = learner.evaluate(worlds, seeds).returns.mean()
        assert untrained != pytest.approx(expected, rel=1e-3)
        learner.load(0, checkpoint_path(finished, run["start"]))
        # alone, matrices are multiplied by another kernel: equal up to rounding
        assert learner.evaluate(worlds, seeds).returns.mean() == pytest.approx(expected, rel=1e-3)


def test_what_was_learned_can_be_looked_at(finished):
    """Of every fold and arm one network is kept, at its end, beside all that others start from."""
    plan = load_plan(finished)
    kept = {path.name for path in (finished / "checkpoints").iterdir()}
    assert kept == {run["id"] for run in plan["runs"] if run["phase"] == "pretrain" or run["seed"] == 0}
    (run,) = [r for r in plan["runs"] if (r["phase"], r["arm"], r["seed"]) == ("learn", "transfer", 0)]
    rows = Store(finished).evaluations()
    learned = rows[(rows["run"] == run["id"])].iloc[-1]
    episodes, body = plan["episodes"], plan["tasks"][run["fold"]]
    worlds = make_worlds(plan["family"], [[body]], episodes, plan["conditioning"])
    learner = make_learner(plan["learner"]["name"], plan["learner"]["config"], worlds, [0])
    learner.load(0, checkpoint_path(finished, run["id"]))
    seeds = evaluation_seeds(plan["root_seed"], run["fold"], int(learned["checkpoint"]), episodes)
    again = learner.evaluate(worlds, seeds).returns.mean()
    assert again == pytest.approx(learned["return_mean"], rel=1e-3)


def test_running_again_trains_nothing(finished, monkeypatch):
    monkeypatch.setattr(harness.run, "make_learner", lambda *a: pytest.fail("trained again"))
    run_plan(finished)


def test_a_killed_run_started_again_ends_with_the_same_rows(finished, tmp_path, monkeypatch):
    directory = tiny(tmp_path / "killed")
    append, calls = Store.append, []

    def killed(self, new):
        calls.append(1)
        if len(calls) == 6:  # in the middle of the second cohort, after four evaluations of the first
            raise KeyboardInterrupt
        append(self, new)

    monkeypatch.setattr(Store, "append", killed)
    with pytest.raises(KeyboardInterrupt):
        run_plan(directory)
    monkeypatch.setattr(Store, "append", append)
    status = Store(directory).status()
    assert {s for i, s in status.items() if i.startswith("pretrain")} == {"finished"}
    assert "finished" not in {s for i, s in status.items() if i.startswith("learn")}
    run_plan(directory)
    assert rows(directory) == rows(finished)


def test_a_missing_run_is_trained_beside_the_same_neighbours(finished, tmp_path):
    directory = tmp_path / "copy"
    shutil.copytree(finished, directory)
    victim = next(p for p in (directory / "runs").iterdir() if p.name.startswith("learn-5-scratch-1"))
    kept = next(p for p in (directory / "runs").iterdir() if p.name.startswith("learn-5-transfer-0"))
    before = (kept / "done.json").stat().st_mtime_ns
    shutil.rmtree(victim)
    run_plan(directory)
    assert rows(directory) == rows(finished)
    assert (kept / "done.json").stat().st_mtime_ns == before


def test_a_run_that_lost_rows_is_trained_again(finished, tmp_path):
    directory = tmp_path / "damaged"
    shutil.copytree(finished, directory)
    victim = next((directory / "runs").glob("learn-5-transfer-1*")) / "rows.jsonl"
    victim.write_bytes(b"".join(victim.read_bytes().splitlines(keepends=True)[:-3]))
    assert pending_steps(directory) > 0
    run_plan(directory)
    assert rows(directory) == rows(finished)
    assert not Store(directory).changed()


@pytest.mark.slow
def test_several_processes_end_with_the_same_rows(finished, tmp_path):
    """Also where a batch waits for another's networks; steps of all of them are reported."""
    plan = load_plan(finished)
    plan["cohorts"] = [[run["id"]] for run in plan["runs"]]
    plan["sha256"] = digest(plan)
    for name in ("one", "two"):
        write_plan(plan, tmp_path / name)
    assert widest(plan) > 1
    seen = []
    run_plan(tmp_path / "one")
    run_plan(tmp_path / "two", progress=seen.append, processes=2)
    assert sum(seen) == sum(run["steps"] for run in plan["runs"])
    assert rows(tmp_path / "one") == rows(tmp_path / "two")


def test_what_fails_is_stored_and_the_others_go_on(tmp_path, monkeypatch):
    directory = tiny(tmp_path / "failing")
    plan = load_plan(directory)
    evaluate = harness.run._Cohort._evaluate

    def failing(self, *args, **kwargs):
        if self.runs[0]["phase"] == "pretrain":
            raise FloatingPointError("the moon was full")
        evaluate(self, *args, **kwargs)

    monkeypatch.setattr(harness.run._Cohort, "_evaluate", failing)
    with pytest.raises(TrainingError, match=r"6 runs failed or .*FloatingPointError: the moon"):
        run_plan(directory)
    status = Store(directory).status()
    done = {run["id"]: status[run["id"]] for run in plan["runs"]}
    assert {s for i, s in done.items() if i.startswith("pretrain")} == {"failed"}
    failed = next((directory / "runs").glob("pretrain-*")) / "done.json"
    assert "the moon was full" in json.loads(failed.read_text())["error"]
    monkeypatch.undo()
    run_plan(directory)
    assert set(Store(directory).status().values()) == {"finished"}


def test_worlds_of_training_and_of_evaluation_start_from_other_states(tmp_path, monkeypatch):
    seeds = {"train": [], "evaluate": []}
    phase, reset = ["train"], TaskVectorEnv.reset

    def watched(self, *, seed=None, options=None):
        if seed is not None:
            seeds[phase[0]] += [seed] if isinstance(seed, int) else [int(s) for s in seed]
        return reset(self, seed=seed, options=options)

    evaluate = harness.run._Cohort._evaluate

    def evaluating(*args, **kwargs):
        phase[0] = "evaluate"
        evaluate(*args, **kwargs)
        phase[0] = "train"

    monkeypatch.setattr(TaskVectorEnv, "reset", watched)
    monkeypatch.setattr(harness.run._Cohort, "_evaluate", evaluating)
    run_plan(tiny(tmp_path / "seeds"))
    assert min(seeds["train"]) >= 0
    assert max(seeds["train"]) < TRAINING_SEEDS <= min(seeds["evaluate"])


def test_the_arms_start_from_what_they_should(tmp_path, monkeypatch):
    """All seven, with two fine-tunings; what each network holds at its step 0 is read off the learner."""
    preset = dataclasses.replace(
        TINY,
        arms=ARMS,
        seeds=1,
        finetunes=2,
        finetune_folds=(5,),
        worlds_per_run=SOURCES * (SOURCES + 1),
        budget=4 * 32 * SOURCES * (SOURCES + 1),
    )
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    directory = tmp_path / "arms"
    write_plan(make_plan("Biped", preset, learner), directory)
    at_start = {}
    make = harness.run.make_learner

    def watched(*args):
        made = make(*args)
        train, runs = made.train, cohorts.pop(0)

        def first(*words):
            for r, run in enumerate(runs):
                at_start.setdefault(run, {n: t[r].clone() for n, t in made._parameters.views().items()})
                means.setdefault(run, made._observation_moments.mean[r].clone())
                counts.setdefault(run, made._reward_scale.moments.count[r].clone())
            return train(*words)

        made.train = first
        return made

    means, counts = {}, {}
    plan = load_plan(directory)
    cohorts = [list(cohort) for cohort in plan["cohorts"]]
    monkeypatch.setattr(harness.run, "make_learner", watched)
    run_plan(directory)
    assert not cohorts
    store = Store(directory)
    assert set(store.status().values()) == {"finished"}
    runs = {run["id"]: run for run in plan["runs"]}
    for i, run in runs.items():
        if run["start"] is None:
            assert not means[i].any()  # a fresh normaliser has seen nothing
            continue
        stored, _ = load_checkpoint(checkpoint_path(directory, run["start"]), {})
        assert torch.equal(means[i].double(), stored["observations.mean"].double())
        fresh = run["arm"] == "normalizer"  # of rewards no scale moves over
        assert torch.equal(counts[i].double(), stored["returns.count"].double()) is not fresh
        for name, values in at_start[i].items():
            was = stored[f"parameters.{name}"]
            same = torch.equal(values, was)
            if run["arm"] == "shuffled" and name == "log_std":
                assert same  # no layer: what one motor explores with is not another's
            elif run["arm"] == "normalizer":
                assert not same or name == "log_std" or not was.any() or was.numel() == 1
            elif run["arm"] == "shuffled":
                assert torch.equal(values.flatten().sort().values, was.flatten().sort().values)
                assert not same or was.numel() == 1
            else:
                assert same
    told = {run["arm"]: run["conditioning"] for run in runs.values()}
    assert told.pop("blind") == "none"
    assert set(told.values()) == {"descriptor"}
    # the two fine-tunings start alike and go apart, each on a stream of its own
    pair = [i for i, r in runs.items() if r["arm"] == "transfer" and r["phase"] == "learn"]
    assert [runs[i]["finetune"] for i in pair] == [0, 1]
    last = store.evaluations().query("steps > 0").groupby("run")["return_mean"].last()
    assert last[pair[0]] != last[pair[1]]
    codes = store.evaluations().query("phase == 'pretrain'").groupby("arm")["code"].unique()
    assert {arm: set(found) for arm, found in codes.items()} == {
        "transfer": {"true", "mean", "wrong"},
        "single_source": {"true", "mean", "wrong"},
        "blind": {"true"},  # is told nothing
        "ceiling": {"true"},  # has seen the task
    }


def test_what_is_told_is_what_the_code_says(tmp_path):
    """The mean of the sources' codes, and that of the farthest; the body's part is the task's own."""
    directory = tiny(tmp_path / "told")
    plan = load_plan(directory)
    seen = {}

    class Watching(harness.run._Cohort):
        def _worlds(self, tasks, per_task, told=None):
            worlds = super()._worlds(tasks, per_task, told)
            if told is not None:
                worlds.reset(seed=0)
                seen.setdefault(len(seen), (tasks, worlds._observations[:, worlds.observation_slices.code]))
            return worlds

    runs = [run for run in plan["runs"] if run["phase"] == "pretrain"]
    cohort = Watching(directory, plan, Store(directory), runs, "ppo", harness.run.Where())
    learner, _ = cohort.learner()
    for run in runs:
        cohort.store.begin(run["id"])
    cohort._hand_over(learner)
    family = registry.get_family("Biped")
    sources = [t for t in family.tasks if t.number != 5]
    far = max(sources, key=lambda t: family.distance(t, family.tasks[5]))
    mean = np.mean([family.descriptor(t) for t in sources], axis=0)
    for (tasks, codes), expected in zip(seen.values(), (mean, family.descriptor(far)), strict=True):
        assert tasks == [[5]] * len(runs)
        np.testing.assert_allclose(codes, np.tile(expected, (len(codes), 1)), rtol=1e-6)


def test_joint_and_matrix_plans_train(tmp_path):
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    preset = dataclasses.replace(TINY, folds=(0, 5), seeds=1, worlds_per_run=2, budget=4 * 64)
    wide = widened("ppo", "Biped", learner["config"], 2)
    joint = tmp_path / "joint"
    write_plan(make_joint_plan("Biped", preset, learner, wide), joint)
    run_plan(joint)
    store = Store(joint)
    table, runs = store.evaluations(), store.runs().set_index("arm")
    assert set(store.status().values()) == {"finished"}
    for arm, checkpoints in (
        ("separate", store.plan["checkpoints"]),
        *((arm, store.plan["joint_checkpoints"]) for arm in ("joint", "joint-wide")),
    ):
        for task in ("nominal", "child"):
            rows = table[(table["arm"] == arm) & (table["task"] == task)]
            assert rows["steps"].tolist() == checkpoints
    parameters = runs["parameters"].groupby("arm").first()
    assert parameters["joint"] == parameters["separate"]
    assert parameters["joint-wide"] == pytest.approx(2 * parameters["separate"], rel=0.02)

    matrix = tmp_path / "matrix"
    write_plan(make_matrix_plan("Biped", preset, learner), matrix)
    run_plan(matrix)
    learned = Store(matrix).runs().query("phase == 'learn'")
    assert set(learned["status"]) == {"finished"}
    assert len(learned) == 2 * SOURCES + 2  # every other network, and scratch


def test_networks_from_scratch_are_handed_on_as_single_sources(tmp_path):
    """And are shown the tasks that they were not trained on, with three codes, as pretrained ones are."""
    # two tasks that are nearest to one another: each has the other for its source
    changes = {"folds": (0, 1), "seeds": 1, "worlds_per_run": 2, "pretrain_budget": None}
    preset = dataclasses.replace(TINY, arms=("scratch", "single_source"), **changes)
    directory = tmp_path / "handed"
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    plan = make_plan("Biped", preset, learner)
    write_plan(plan, directory)
    run_plan(directory)
    runs = {run["id"]: run for run in plan["runs"]}
    assert {run["phase"] for run in plan["runs"]} == {"learn"}
    table = Store(directory).evaluations()
    names = [task["name"] for task in plan["tasks"]]
    expected = {(run["start"], names[run["fold"]]) for run in plan["runs"] if run["start"]}
    assert len(expected) == 2
    shown = table[[row.task != names[runs[row.run]["fold"]] for row in table.itertuples()]]
    assert set(zip(shown["run"], shown["task"], strict=True)) == expected
    assert set(shown["steps"]) == {plan["checkpoints"][-1]}
    assert set(shown["episodes"]) == {plan["first_episodes"]}
    for _, codes in shown.groupby(["run", "task"])["code"]:
        assert sorted(codes) == ["mean", "true", "wrong"]
    # the network handed on is the one that single_source starts from
    true = shown[shown["code"] == "true"].set_index(["run", "task"])["return_mean"]
    first = table[table["checkpoint"] == 0].set_index("run")["return_mean"]
    analysis = analyse(directory)
    handed = analysis.competence
    assert sorted(handed["fold"]) == [0, 1]
    assert set(handed["arm"]) == {"single_source"}
    assert handed["score"].notna().all()
    assert handed["held_out"].notna().all()
    for i, run in runs.items():
        if run["start"]:
            # other start states, of a task whose episodes are short without training
            assert true[run["start"], names[run["fold"]]] == pytest.approx(first[i], rel=0.5, abs=2.0)
    assert "single_source" in write_report(directory).read_text()


def test_bodies_of_unequal_size_go_through(tmp_path):
    """Pretraining on seven topologies, learning on the eighth, in the layout that the plan names."""
    family = mtenvs.get_family("Octopus")
    sources = len(family.tasks) - 1
    preset = dataclasses.replace(
        TINY,
        folds=(2,),
        seeds=1,
        layout=family.layouts[1],
        worlds_per_run=sources,
        budget=4 * 32 * sources,
        pretrain_budget=2 * 32 * sources,
    )
    learner = dataclasses.asdict(describe_learner("ppo", family.name))
    plan = make_plan(family.name, preset, learner)
    write_plan(plan, tmp_path / "arms")
    run_plan(tmp_path / "arms")
    assert set(Store(tmp_path / "arms").status().values()) == {"finished"}
    start = next(run["start"] for run in plan["runs"] if run["start"])
    for layout in family.layouts:
        worlds = make_worlds(family.name, [[2]], 1, "descriptor", layout)
        fresh = make_learner("ppo", learner["config"], worlds, [0])
        if layout == plan["layout"]:
            fresh.load(0, checkpoint_path(tmp_path / "arms", start))
        else:
            with pytest.raises(ValueError, match=f"layout = '{plan['layout']}'.*'{layout}'"):
                fresh.load(0, checkpoint_path(tmp_path / "arms", start))


def test_evaluation_starts_are_shared_by_arms_and_fresh_at_every_checkpoint():
    first = evaluation_seeds(0, task=5, checkpoint=1, episodes=16)
    assert first == evaluation_seeds(0, task=5, checkpoint=1, episodes=16)
    assert not set(first) & set(evaluation_seeds(0, task=5, checkpoint=2, episodes=16))
    assert not set(first) & set(evaluation_seeds(1, task=5, checkpoint=1, episodes=16))


def test_a_diverged_run_is_marked_and_the_others_go_on(tmp_path, monkeypatch):
    directory = tiny(tmp_path / "diverging")
    make = harness.run.make_learner

    def poisoned(name, config, worlds, seeds, device):
        learner = make(name, config, worlds, seeds, device)
        if worlds.family.name == "Biped" and len(seeds) == 4:
            learner._parameters.flat.data[1] = float("nan")
        return learner

    monkeypatch.setattr(harness.run, "make_learner", poisoned)
    monkeypatch.setattr("baselines.ppo.PPO.load", lambda *a, **k: None)
    run_plan(directory)
    status = Store(directory).status()
    assert sorted(status.values()).count("diverged") == 1


def test_bodies_that_have_changed_are_refused(tmp_path, monkeypatch):
    directory = tiny(tmp_path / "old")
    family = mtenvs.get_family("Biped")
    other = {**family.published, "child": {**family.published["child"], "motor_strength": 1.1}}
    changed = dataclasses.replace(family, published=other)
    monkeypatch.setitem(registry._families(), "Biped", changed)
    with pytest.raises(PlanError, match=r"published tasks have changed .*: child;"):
        run_plan(directory)
    renamed = {("boy" if name == "child" else name): values for name, values in family.published.items()}
    monkeypatch.setitem(registry._families(), "Biped", dataclasses.replace(family, published=renamed))
    with pytest.raises(PlanError, match=r"published tasks have changed .*: child;"):
        run_plan(directory)
    monkeypatch.setitem(registry._families(), "Biped", dataclasses.replace(family, version=99))
    with pytest.raises(PlanError, match="Biped-v99"):
        run_plan(directory)
    assert [p.name for p in directory.iterdir()] == ["plan.json"]


def test_an_unknown_device_is_refused_before_anything_is_written(tmp_path):
    directory = tiny(tmp_path / "device")
    with pytest.raises(ValueError, match=r"no device 'cdua' on this machine; valid: cpu"):
        run_plan(directory, "cdua")
    assert [p.name for p in directory.iterdir()] == ["plan.json"]


@pytest.mark.parametrize("how", ["gone", "torn"])
def test_a_pretrained_network_that_is_not_whole_is_named(finished, tmp_path, how):
    directory = tmp_path / "copy"
    shutil.copytree(finished, directory)
    if how == "gone":
        shutil.rmtree(directory / "checkpoints")
    else:
        for path in directory.glob(f"checkpoints/pretrain-*/{TENSORS}"):
            path.write_bytes(path.read_bytes()[:-20])
    victim = next(p for p in (directory / "runs").iterdir() if p.name.startswith("learn-5-transfer-0"))
    shutil.rmtree(victim)
    with pytest.raises(
        PlanError,
        match=r"/pretrain-5-transfer-0-\w+.* Without that network .*remove .*/runs/pretrain-5.*again",
    ):
        run_plan(directory)
    assert not victim.exists()


class Lazy(Described):
    """A learner of somebody else: it never moves, and counts what it is asked for."""

    version = "0.1"
    hyperparameters = {"mood": "lazy"}
    family_hyperparameters = {"Biped": {"mood": "no Biped today"}}
    many_runs = True

    @classmethod
    def rollout(cls, config):
        return 10

    @classmethod
    def make(cls, worlds, seeds, config, device):
        assert config == {"mood": "no Biped today"}
        return cls(len(seeds), worlds.num_actions)

    def __init__(self, num_runs, size):
        self.num_runs, self.size, self.steps, self.loaded = num_runs, size, 0, []

    def train(self, worlds, until, progress=None):
        worlds.reset(seed=self.steps)
        while self.steps < until:
            worlds.step(np.zeros((worlds.num_envs, self.size)))
            self.steps += worlds.num_envs // self.num_runs
            if progress is not None:
                progress(worlds.num_envs)
        return self.steps

    def evaluate(self, worlds, seeds):
        return play_episodes(lambda _: np.zeros((worlds.num_envs, self.size)), worlds, seeds)

    def diverged(self):
        return np.zeros(self.num_runs, bool)

    def save(self, run, directory):
        directory.mkdir(parents=True)
        (directory / "lazy").touch()

    def load(self, run, directory):
        if not (directory / "lazy").is_file():
            raise FileNotFoundError(directory)

    def describe(self):
        return {"updates": 0, "parameters": 0}


def test_a_learner_of_ones_own_goes_through(tmp_path, monkeypatch):
    assert isinstance(Lazy(1, 1), Learner)

    monkeypatch.setitem(AGENTS, "lazy", f"{__name__}:Lazy")
    preset = dataclasses.replace(TINY, agent="lazy", budget=40 * SOURCES)
    plan = make_plan("Biped", preset, dataclasses.asdict(describe_learner("lazy", "Biped")))
    write_plan(plan, tmp_path / "lazy")
    seen = []
    total = pending_steps(tmp_path / "lazy")
    run_plan(tmp_path / "lazy", progress=seen.append)
    assert sum(seen) == total
    store = Store(tmp_path / "lazy")
    assert set(store.status().values()) == {"finished"}
    table = store.evaluations()
    first = table[(table["phase"] == "learn") & (table["checkpoint"] == 0)]
    assert first["return_mean"].nunique() == 1  # the same starts in all arms and seeds
    assert write_report(tmp_path / "lazy").is_file()


def test_the_cost_of_a_plan_is_measured_and_nothing_is_stored(finished, monkeypatch):
    monkeypatch.setattr(harness.run, "PROBE_SECONDS", 0.2)
    before = sorted(p for p in finished.rglob("*"))
    cost = estimate_cost(finished)
    assert sorted(p for p in finished.rglob("*")) == before
    assert cost.train_speed > 100
    assert cost.test_speed > 100
    assert 0 < cost.hours < 1
    assert 0.1 < cost.memory < 10  # GB, PyTorch included
    stored = sum(p.stat().st_size for p in finished.rglob("*") if p.is_file())
    assert 0.5 * stored < 1e6 * cost.megabytes < 2 * stored


def test_a_plan_of_many_worlds_is_tried_out_with_fewer_on_a_cpu(finished, monkeypatch):
    plan, tried = load_plan(finished), []

    def answer(self, function, directory, cohort, *rest):
        tried.append(len(cohort))
        known = Future()  # 1 GB a process, and 0.1 for every run that it trains at a time
        known.set_result((1e3, 1e3, 100, 1e9, 1e8 * len(cohort)))
        return known

    monkeypatch.setattr(harness.run.Workers, "submit", answer)
    widest = max(map(len, plan["cohorts"]))
    processes = min(2, harness.run.widest(plan))
    whole = processes * (1.0 + 0.1 * widest)
    assert estimate_cost(finished, processes=2).memory == pytest.approx(whole)
    assert max(tried) == widest > 1
    # of one run's worlds, all that it takes is extrapolated to the whole batch
    monkeypatch.setattr(harness.run, "PROBE_WORLDS", plan["worlds_per_run"])
    assert estimate_cost(finished, processes=2).memory == pytest.approx(whole)
    assert tried[-1] == 1


def test_an_unknown_part_of_a_checkpoint_is_refused(finished):
    plan = load_plan(finished)
    run = next(run for run in plan["runs"] if run["phase"] == "pretrain")
    worlds = make_worlds("Biped", [[0]], 1, "descriptor")
    learner = make_learner("ppo", plan["learner"]["config"], worlds, [0])
    with pytest.raises(
        ValueError, match="unknown part 'head' of a checkpoint; valid: all, normalizer, shuff"
    ):
        learner.load(0, checkpoint_path(finished, run["id"]), Start(part="head"))


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        ({}, {"freeze_trunk": True, "new_code": "mean", "arms": ("scratch", "transfer", "shuffled")}),
        ({"architecture": "own_layers"}, {"conditioning": "one_hot", "fresh_critic": True}),
    ],
    ids=["frozen trunk and mean code", "own layers and fresh critic"],
)
def test_the_held_out_learner_starts_as_the_plan_says(tmp_path, changes, fields):
    preset = dataclasses.replace(TINY, seeds=1, **fields)
    described = describe_learner("ppo", "Biped", changes, conditioning=preset.conditioning)
    plan = make_plan("Biped", preset, dataclasses.asdict(described))
    assert plan["new_code"] == fields.get("new_code", "unused")
    directory = write_plan(plan, tmp_path / "plan").parent
    told = {}

    class Watching(harness.run._Cohort):
        def _worlds(self, tasks, per_task, told_codes=None):
            worlds = super()._worlds(tasks, per_task, told_codes)
            worlds.reset(seed=0)
            codes = worlds._observations[:, worlds.observation_slices.code]
            for run, code in zip(self.runs, codes[:: len(codes) // len(self.runs)], strict=True):
                if run["phase"] == "learn":
                    told.setdefault(run["arm"], []).append(code)
            return worlds

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.run, "_Cohort", Watching)
        run_plan(directory)
    assert set(Store(directory).status().values()) == {"finished"}
    family = mtenvs.get_family("Biped")
    encoding = harness.run.Encoding(family, preset.conditioning)
    own = encoding.code(family.tasks[5])
    sources = np.mean([encoding.code(t) for t in family.tasks if t.number != 5], axis=0)
    for arm, codes in told.items():
        # in training and in every evaluation
        mean = preset.new_code == "mean" and arm != "scratch"
        np.testing.assert_allclose(codes, np.tile(sources if mean else own, (len(codes), 1)), atol=1e-6)
    runs = {run["arm"]: run for run in plan["runs"] if run["phase"] == "learn"}
    # and wherever its network is played
    for arm, run in runs.items():
        taught = read_lessons(checkpoint_path(directory, run["id"]))
        mean = preset.new_code == "mean" and arm != "scratch"
        assert taught.tasks == ("child",)
        assert (taught.code is None) is not mean
        body = np.random.default_rng(0).normal(size=encoding.slices.body.stop)
        seen = [np.concatenate([body, code])[None].astype(np.float32) for code in (own, sources)]
        acts = [load_policy(checkpoint_path(directory, run["id"]), "Biped").act(s) for s in seen]
        assert np.array_equal(*acts) is mean
    assert read_lessons(checkpoint_path(directory, runs["transfer"]["start"])).code is None
    before = load_checkpoint(checkpoint_path(directory, runs["transfer"]["start"]), {})[0]
    after = load_checkpoint(checkpoint_path(directory, runs["transfer"]["id"]), {})[0]
    assert runs["scratch"]["switches"] == []
    heads = {name for name in before if "actor" in name and not torch.equal(before[name], after[name])}
    every = {name for name in before if "actor" in name}
    if preset.freeze_trunk:
        assert heads == {"parameters.actor.2.weight", "parameters.actor.2.bias"}
        assert runs["shuffled"]["switches"] == ["freeze_trunk"]
    else:
        assert heads == every
        assert runs["transfer"]["switches"] == ["fresh_critic"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"new_code": "unused"}, "'unused' does not go with conditioning 'descriptor'; valid: true, mean"),
        ({"new_code": "true", "conditioning": "one_hot"}, "valid: unused, mean"),
        ({"new_code": "mean", "conditioning": "none"}, "leave it out, for nothing is told"),
        ({"freeze_trunk": True, "fresh_heads": True}, "agent still cannot .* freeze_trunk, fresh_heads;"),
        ({"arms": ("scratch", "shuffled")}, "agent still cannot start learners with shuffled;"),
        ({"tuning_trials": 3}, "give tuning_trials and tuning_steps, or neither"),
        ({"arms": ("scratch",)}, "compare nothing"),
        ({"joint_arms": ("joint",)}, "joint_arms are for joint experiments"),
        ({"arms": ("scratch", "transfer", "sources=2")}, r"doses \(sources=2\) .* plan transfer in an exp"),
    ],
)
def test_what_cannot_be_started_so_is_refused_when_it_is_planned(fields, message):
    learner = {**dataclasses.asdict(describe_learner("ppo", "Biped")), "name": "still", "starts": ()}
    with pytest.raises(PlanError, match=message):
        make_plan("Biped", dataclasses.replace(TINY, **fields), learner)


def test_joint_plans_have_the_arms_that_are_asked_for():
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    preset = dataclasses.replace(TINY, folds=(0, 1), worlds_per_run=8)
    for arms in (("joint",), ("separate", "joint")):
        plan = make_joint_plan("Biped", dataclasses.replace(preset, joint_arms=arms), learner)
        assert plan["arms"] == list(arms)
        assert {run["arm"] for run in plan["runs"]} == set(arms)
    for fields, message in (
        ({"joint_arms": ("separate",)}, "unusable joint_arms"),
        ({"joint_arms": ("joint", "jiont")}, "unusable joint_arms"),
        ({"fresh_heads": True, "joint_arms": ("joint",)}, "nothing is handed on .* leave out fresh_heads"),
    ):
        with pytest.raises(PlanError, match=message):
            make_joint_plan("Biped", dataclasses.replace(preset, **fields), learner)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"freeze_trunk": True, "arms": ("scratch", "normalizer")}, "freeze_trunk would change no run"),
        ({"keep_optimizer": True, "arms": ("scratch", "shuffled")}, "keep_optimizer would change no run"),
        ({"new_code": "mean", "arms": ("scratch", "blind")}, "new_code mean would change no run"),
        ({"new_code": "mean", "arms": ("scratch", "ceiling")}, "new_code mean would change no run"),
    ],
)
def test_what_would_change_nothing_is_refused(fields, message):
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    preset = dataclasses.replace(TINY, worlds_per_run=56, budget=4 * 56 * 32, **fields)
    with pytest.raises(PlanError, match=message):
        make_plan("Biped", preset, learner)


def test_only_tasks_that_are_new_to_a_network_are_told_the_mean():
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    arms = ("scratch", "transfer", "ceiling", "normalizer", "shuffled", "blind")
    preset = dataclasses.replace(TINY, worlds_per_run=56, budget=4 * 56 * 32, new_code="mean", arms=arms)
    plan = make_plan("Biped", preset, learner)
    told = {run["arm"]: run["told"] for run in plan["runs"] if run["phase"] == "learn"}
    assert told == dict.fromkeys(arms, "own") | {"transfer": "mean", "shuffled": "mean"}
    assert {run["told"] for run in plan["runs"] if run["phase"] == "pretrain"} == {"own"}


def test_a_diverged_pretraining_costs_its_own_learner_alone(tmp_path):
    learner = dataclasses.asdict(describe_learner("ppo", "Biped", {"update_epochs": 1}))
    directory = write_plan(make_plan("Biped", TINY, learner), tmp_path / "plan").parent
    plan = load_plan(directory)
    first = next(run["id"] for run in plan["runs"] if run["phase"] == "pretrain")

    class Poisoning(harness.run._Cohort):
        def _steps(self, learner, *rest):
            if first in [run["id"] for run in self.runs]:
                learner._parameters.flat.data[0] = float("nan")
            return super()._steps(learner, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.run, "_Cohort", Poisoning)
        run_plan(directory)
    status = Store(directory).status()
    lost = {run["id"] for run in plan["runs"] if first in (run["id"], run["start"])}
    assert len(lost) == 2
    assert {i for i, s in status.items() if s == "diverged"} == lost
    assert {s for i, s in status.items() if i not in lost} == {"finished"}


def test_neighbours_that_were_finished_before_are_not_failed(tmp_path):
    directory = tiny(tmp_path / "again")
    run_plan(directory)
    plan = load_plan(directory)
    first, second = (run["id"] for run in plan["runs"] if run["phase"] == "pretrain")
    learned = next(run["id"] for run in plan["runs"] if run["start"] == first)
    for run_id in (second, learned):
        shutil.rmtree(directory / "runs" / run_id)

    class Failing(harness.run._Cohort):
        def _train(self, learner, worlds, progress):
            if self.runs[0]["phase"] == "pretrain":
                raise SystemExit(3)
            super()._train(learner, worlds, progress)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(harness.run, "_Cohort", Failing)
        with pytest.raises(TrainingError, match=f"^1 runs? failed .*{second}: agent ppo: SystemExit: 3"):
            run_plan(directory)
    status = Store(directory).status()
    assert status.pop(second) == "failed"
    assert set(status.values()) == {"finished"}


def test_a_plan_of_before_agents_had_versions_is_reported_and_not_trained(tmp_path):
    directory = tiny(tmp_path / "old")
    plan = load_plan(directory)
    del plan["learner"]["version"]
    plan["sha256"] = digest(plan)
    (directory / "plan.json").write_text(json.dumps(plan))
    with pytest.raises(PlanError, match="before agents had versions: it can be reported, but not trained"):
        run_plan(directory)


GIVES_BACK = """
import gc, os
from harness.workers import give_back_memory

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20

del bytearray(20 << 20)[:]  # what is freed once is kept from then on, if it is as large
before, kept, freed = resident(), [], []
for _ in range(300):
    freed.append(bytearray(1 << 20))
    kept.append(bytearray(1 << 10))  # between, so that the end of the heap does not just sink
held = resident()
del freed
give_back_memory()
print(held - before, resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's account of memory")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc can be asked")
def test_memory_of_worlds_that_are_gone_is_given_back():
    done = subprocess.run([sys.executable, "-c", GIVES_BACK], capture_output=True, text=True, check=True)
    held, left = map(float, done.stdout.split())
    assert held > 250
    assert left < 50


def test_every_cohort_gives_its_memory_back(tmp_path, monkeypatch):
    times = []
    monkeypatch.setattr(harness.run, "give_back_memory", lambda: times.append(1))
    directory = tiny(tmp_path / "tiny")
    run_plan(directory)
    assert len(times) == len(load_plan(directory)["cohorts"])
