"""A training that was killed goes on as if nothing had happened: the same weights, the same rows."""

import dataclasses
import errno
import itertools
import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import harness.bookmark
import mtenvs
from baselines.checkpoint import FACTS, TENSORS, load_state, save_state
from baselines.ppo import PPO, PPOConfig
from baselines.registry import describe_learner
from harness.plan import PRESETS, load_plan, make_plan, write_plan
from harness.run import TrainingError, run_plan
from harness.store import Store
from mtenvs.vector_env import TaskVectorEnv

ROOT = Path(__file__).parents[1]
SOURCES = len(mtenvs.tasks("Biped")) - 1
PRESET = dataclasses.replace(
    PRESETS["quick"],
    folds=(5,),
    seeds=2,
    budget=6 * 32 * SOURCES,
    pretrain_budget=4 * 32 * SOURCES,
    worlds_per_run=SOURCES,
    checkpoints=4,
    episodes=2,
    first_episodes=100,
)


class Killed(BaseException):
    """What ends a process without a word."""


def planned(directory: Path, **changes: object) -> Path:
    learner = dataclasses.asdict(describe_learner("ppo", "Biped"))
    preset = dataclasses.replace(PRESET, **changes)
    return write_plan(make_plan("Biped", preset, learner, "quick"), directory).parent


def rows(directory: Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in sorted(directory.glob("runs/*/rows.jsonl"))}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A plan that nothing happened to."""
    directory = planned(tmp_path_factory.mktemp("whole") / "plan")
    run_plan(directory)
    assert not (directory / "resume").exists()
    return directory


def begun(whole: Path, directory: Path) -> Path:
    """The same plan, of which nothing is trained."""
    directory.mkdir()
    shutil.copy(whole / "plan.json", directory)
    return directory


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


@pytest.mark.parametrize("rollouts", [0, 1, 3, 5, 9, 11])
def test_a_plan_that_was_killed_ends_with_the_same_rows(whole: Path, tmp_path: Path, rollouts: int) -> None:
    directory = begun(whole, tmp_path / "plan")
    assert killed_after(directory, rollouts, save_every=0.0)
    run_plan(directory, save_every=0.0)
    assert rows(directory) == rows(whole)
    assert not (directory / "resume").exists()
    done = [json.loads(path.read_text()) for path in directory.glob("runs/*/done.json")]
    # nothing was saved before the first rollout of all
    # of two pretrainings, or of the four runs that follow
    assert sum(record["interruptions"] for record in done) == (
        0 if rollouts == 0 else 2 if rollouts < 5 else 4
    )


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
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("slots", [1, 2])
def test_a_bookmark_that_is_damaged_is_not_gone_on_with(
    whole: Path, tmp_path: Path, how: str, slots: int
) -> None:
    """The one before is, and where both are damaged, nothing is."""
    directory = begun(whole, tmp_path / "plan")
    assert killed_after(directory, 3, save_every=0.0)
    (resume,) = (directory / "resume").iterdir()
    numbers = {place: json.loads((place / FACTS).read_text())["number"] for place in resume.iterdir()}
    assert len(numbers) == 2
    for place in sorted(numbers, key=numbers.get, reverse=True)[:slots]:
        DAMAGE[how](place)
    run_plan(directory, save_every=0.0)
    assert rows(directory) == rows(whole)
    done = [json.loads(path.read_text())["interruptions"] for path in directory.glob("runs/*/done.json")]
    assert sum(done) == (2 if slots == 1 else 0)


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


def test_another_plans_bookmark_is_not_gone_on_with(whole: Path, tmp_path: Path) -> None:
    first = begun(whole, tmp_path / "first")
    assert killed_after(first, 3, save_every=0.0)
    second = planned(tmp_path / "second", root_seed=1)
    (resume,) = (first / "resume").iterdir()
    ids = [run["id"] for run in load_plan(second)["runs"]]
    shutil.copytree(resume, second / "resume" / ids[0])
    run_plan(second)
    assert set(Store(second).status().values()) == {"finished"}
    assert all(
        json.loads(path.read_text())["interruptions"] == 0 for path in second.glob("runs/*/done.json")
    )


def test_rows_are_cut_only_of_runs_that_go_on(whole: Path) -> None:
    store = Store(whole)
    run_id = store.plan["runs"][0]["id"]
    assert store.count(run_id) == len(rows(whole)[run_id].splitlines())
    with pytest.raises(ValueError, match="is finished: only a run that is going on can be cut"):
        store.truncate(run_id, 1)


def kill_at_random(whole: Path, directory: Path, kills: int, seed: int) -> int:
    """Runs the command, killed with all its processes at random moments; how often it was."""
    rng, done = random.Random(seed), 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    while done < kills:
        words = ["run", str(directory), "--save-every", "0.2", "--processes", str(1 + done % 2)]
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", *words],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            process.wait(timeout=rng.uniform(3.0, 9.0))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            done += 1
        else:
            assert process.returncode == 0
            break
    run_plan(directory)
    assert rows(directory) == rows(whole)
    return done


def test_the_command_that_is_killed_ends_with_the_same_rows(whole: Path, tmp_path: Path) -> None:
    assert kill_at_random(whole, begun(whole, tmp_path / "plan"), 2, seed=0) > 0
