"""A training that was killed goes on as if nothing had happened: the same weights, the same rows."""

import errno
import itertools
import json
import os
import pickle
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import harness.bookmark
import harness.run
import mtenvs
from baselines.checkpoint import FACTS, TENSORS, load_state, save_state
from baselines.ppo import PPO, PPOConfig
from benchmarks.faults import begun, harass, interruptions, planned, rows
from harness.bookmark import Bookmark
from harness.plan import load_plan
from harness.run import TrainingError, run_plan
from harness.store import Store
from mtenvs.vector_env import TaskVectorEnv


class Killed(BaseException):
    """What ends a process without a word."""


def killed_after(directory: Path, rollouts: int, **options: object) -> bool:
    """Trains a plan until so many rollouts have been told of; whether it was killed."""
    left = itertools.count(rollouts, -1)

    def progress(steps: int) -> None:
        if next(left) <= 0:
            raise Killed

    try:
        run_plan(directory, progress=progress, **options)
    except Killed:
        return True
    return False


# ------------------------------------------------------------------------------- learner and worlds


@pytest.mark.parametrize("family", mtenvs.families())
def test_a_learner_goes_on_from_its_state_bit_for_bit(family: str, tmp_path: Path) -> None:
    rng = random.Random(family)
    config = PPOConfig(num_steps=8, num_minibatches=4, update_epochs=2, return_scale="task")
    tasks = [0, 3, 3, 1] * 4

    def made() -> tuple[TaskVectorEnv, PPO]:
        worlds = TaskVectorEnv(family, 16, tasks=tasks, max_episode_steps=30)
        return worlds, PPO(worlds, [1, 2], config)

    worlds, learner = made()
    for saved in sorted(rng.sample(range(1, 12), 3)):  # rollouts of 64 steps a run
        learner.train(worlds, 64 * saved)
        save_state(tmp_path / str(saved), learner.get_state(), {})
    learner.train(worlds, 64 * 13)
    for place in tmp_path.iterdir():
        others, resumed = made()
        resumed.set_state(load_state(place)[0], others)
        resumed.train(others, 64 * 13)
        assert torch.equal(resumed._parameters.flat, learner._parameters.flat)
        assert torch.equal(resumed._reward_scale.moments.var, learner._reward_scale.moments.var)
        assert (resumed.steps, resumed.updates) == (learner.steps, learner.updates)
        assert others.steps_taken == worlds.steps_taken
        # and what comes of a reset without a seed is the same too
        np.testing.assert_array_equal(others.reset()[0], twin_of(worlds).reset()[0])


def twin_of(worlds: TaskVectorEnv) -> TaskVectorEnv:
    """A copy of worlds, so that looking at what they would do does not change them."""
    twin = TaskVectorEnv(worlds.family.name, worlds.num_envs, tasks=worlds.tasks, max_episode_steps=30)
    twin.set_state(worlds.get_state())
    return twin


def test_the_state_that_is_given_is_a_copy() -> None:
    worlds = TaskVectorEnv("Biped", 4, tasks=[0])
    worlds.reset(seed=0)
    state = worlds.get_state()
    before = pickle.dumps(state)
    worlds.step(np.ones((4, worlds.num_actions)))
    worlds.reset()
    assert pickle.dumps(state) == before


# -------------------------------------------------------------------------------------------- plans


@pytest.mark.parametrize("rollouts", [0, pytest.param(3, marks=pytest.mark.slow), 11])
def test_a_plan_that_was_killed_ends_with_the_same_rows(whole: Path, tmp_path: Path, rollouts: int) -> None:
    directory = begun(whole, tmp_path / "plan")
    assert killed_after(directory, rollouts, save_every=0.0)
    run_plan(directory, save_every=0.0)
    assert rows(directory) == rows(whole)
    assert not (directory / "resume").exists()
    # nothing was saved before the first rollout of all; then two pretrainings go on, or the four runs that
    # follow
    assert interruptions(directory) == (0 if rollouts == 0 else 2 if rollouts < 5 else 4)


def test_a_plan_that_is_killed_at_every_rollout_ends(whole: Path, tmp_path: Path) -> None:
    directory = begun(whole, tmp_path / "plan")
    kills = 0
    # one rollout is told of when it goes on, and one is made
    while killed_after(directory, 2, save_every=0.0):
        kills += 1
        assert kills < 40
    assert kills > 5
    assert rows(directory) == rows(whole)


DAMAGE = {
    "torn tensors": lambda place: (place / TENSORS).write_bytes((place / TENSORS).read_bytes()[:-50]),
    "no tensors": lambda place: (place / TENSORS).unlink(),
    "no facts": lambda place: (place / FACTS).unlink(),
    "torn facts": lambda place: (place / FACTS).write_text((place / FACTS).read_text()[:-50]),
    "other facts": lambda place: (place / FACTS).write_text("[]"),
    "nothing": lambda place: shutil.rmtree(place),
}


@pytest.fixture(scope="module")
def stopped(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A plan whose pretraining was killed when both its bookmarks were there."""
    directory = begun(whole, tmp_path_factory.mktemp("stopped") / "plan")
    assert killed_after(directory, 3, save_every=0.0)
    return directory


def places(directory: Path) -> list[Path]:
    """Where the bookmarks of a plan's only cohort are, the newest first."""
    (resume,) = (directory / "resume").iterdir()
    return sorted(resume.iterdir(), key=lambda place: -json.loads((place / FACTS).read_text())["number"])


@pytest.mark.parametrize("how", DAMAGE)
def test_a_bookmark_that_is_damaged_is_not_gone_on_with(stopped: Path, tmp_path: Path, how: str) -> None:
    """The one before is, and where both are damaged, nothing is."""
    directory = tmp_path / "plan"
    shutil.copytree(stopped, directory)
    newest, older = places(directory)
    store = Store(directory)
    cohort = store.plan["cohorts"][0]
    bookmark = Bookmark(directory, store, cohort, cohort, {})
    steps = [load_state(place)[0]["steps"] for place in (newest, older)]
    assert steps[0] > steps[1] > 0
    assert bookmark.load()[0]["steps"] == steps[0]
    DAMAGE[how](newest)
    state, place = bookmark.load()
    assert state["steps"] == steps[1]
    assert place.interruptions == 1
    DAMAGE[how](older)
    assert bookmark.load() is None


def test_a_training_whose_bookmarks_are_damaged_begins_again(
    whole: Path, stopped: Path, tmp_path: Path
) -> None:
    directory = tmp_path / "plan"
    shutil.copytree(stopped, directory)
    for place in places(directory):
        DAMAGE["torn tensors"](place)
    run_plan(directory)
    assert rows(directory) == rows(whole)
    assert interruptions(directory) == 0


def test_a_full_disk_stops_the_plan_and_loses_nothing(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begun(whole, tmp_path / "plan")
    own, left = harness.bookmark.save_state, itertools.count(4, -1)

    def full(*args: object) -> None:
        if next(left) <= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(args[0]))
        own(*args)

    with monkeypatch.context() as patch:
        patch.setattr(harness.bookmark, "save_state", full)
        with pytest.raises(OSError, match="No space left on device"):
            run_plan(directory, save_every=0.0)
    assert "failed" not in Store(directory).status().values()
    run_plan(directory)
    assert rows(directory) == rows(whole)


def test_a_training_that_failed_goes_on_where_it_was_saved(whole: Path, tmp_path: Path) -> None:
    directory = begun(whole, tmp_path / "plan")
    left = itertools.count(3, -1)

    def progress(steps: int) -> None:
        if next(left) <= 0:
            raise MemoryError("once")

    with pytest.raises(TrainingError, match="MemoryError: once"):
        run_plan(directory, progress=progress, save_every=0.0)
    assert "failed" in Store(directory).status().values()
    run_plan(directory)
    assert rows(directory) == rows(whole)
    done = [json.loads(path.read_text())["interruptions"] for path in directory.glob("runs/*/done.json")]
    assert sum(done) == 2


def test_a_cohort_that_was_killed_between_two_results_goes_on(whole: Path, tmp_path: Path) -> None:
    """Runs that have had theirs do not spoil the bookmark for the others."""
    directory = begun(whole, tmp_path / "plan")
    finish, left = Store.finish, itertools.count(3, -1)

    def finish_some(store: Store, run_id: str, record: dict) -> None:
        if next(left) <= 0:
            raise Killed
        finish(store, run_id, record)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Store, "finish", finish_some)
        with pytest.raises(Killed):
            run_plan(directory, save_every=0.0)
    status = Store(directory).status()
    assert sorted(status.values()) == ["finished"] * 3 + ["started"] * 3
    steps: list[int] = []
    run_plan(directory, progress=steps.append)
    assert rows(directory) == rows(whole)
    done = {i: json.loads((directory / "runs" / i / "done.json").read_text()) for i in status}
    assert {i: record["interruptions"] for i, record in done.items()} == {
        i: int(of == "started") for i, of in status.items()
    }
    # nothing was trained again: what is told is where it stood
    assert len(steps) == 1


def test_another_plans_bookmark_is_not_gone_on_with(whole: Path, tmp_path: Path) -> None:
    first = begun(whole, tmp_path / "first")
    assert killed_after(first, 3, save_every=0.0)
    second = planned(tmp_path / "second", root_seed=1)
    (resume,) = (first / "resume").iterdir()
    ids = [run["id"] for run in load_plan(second)["runs"]]
    shutil.copytree(resume, second / "resume" / ids[0])
    run_plan(second)
    assert set(Store(second).status().values()) == {"finished"}
    assert interruptions(second) == 0


def test_a_training_that_goes_on_elsewhere_says_so(
    whole: Path, stopped: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tmp_path / "plan"
    shutil.copytree(stopped, directory)
    here = harness.run.circumstances()
    assert here["torch_threads"] == torch.get_num_threads()
    there = here | {"processor": "another one"}
    monkeypatch.setattr(harness.run, "circumstances", lambda *args: there)
    run_plan(directory)
    done = {path.parent.name: json.loads(path.read_text()) for path in directory.glob("runs/*/done.json")}
    for run_id, record in done.items():
        assert record["processor"] == "another one"
        assert record.get("before") == ([here] if run_id.startswith("pretrain") else None)
    assert not any("before" in path.read_text() for path in whole.glob("runs/*/done.json"))


def test_rows_are_cut_only_of_runs_that_go_on(whole: Path) -> None:
    store = Store(whole)
    run_id = store.plan["runs"][0]["id"]
    assert store.count(run_id) == len(rows(whole)[run_id].splitlines())
    with pytest.raises(ValueError, match="is finished: only a run that is going on can be cut"):
        store.truncate(run_id, 1)


def test_the_command_that_is_killed_ends_with_the_same_rows(whole: Path, tmp_path: Path) -> None:
    toll = harass(whole, tmp_path, 2, seed=0)
    assert (toll.faults, toll.lost, toll.surplus) == (2, 0, 0)
    each = sum(len(lines.splitlines()) for lines in rows(whole).values())
    assert toll.rows == toll.plans * each > 20
