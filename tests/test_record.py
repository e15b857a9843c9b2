"""Recorded episodes, read back with Minari and compared with what the environment gives."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from helpers import rewrite_facts
from test_show import save_policy

import harness.record
import mtenvs
from baselines.registry import load_policy, make_learner
from harness.cli import main
from harness.record import Recording
from harness.reference_scores import load_reference
from mtenvs.vector_env import TaskVectorEnv


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari keeps its datasets; and no test may ask the network for any."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def refuse(*args: Any) -> None:
        raise AssertionError(f"no network is needed: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path / "minari"


def replay(env: Any, dataset: minari.MinariDataset) -> list[int]:
    """Compares every episode with the environment's, and returns their lengths."""
    told = dataset.storage.get_episode_metadata(dataset.episode_indices)
    for episode, metadata in zip(dataset.iterate_episodes(), told, strict=True):
        observation, info = env.reset(seed=metadata["seed"])
        np.testing.assert_array_equal(episode.observations[0], observation)
        assert episode.infos["task"][0] == info["task"]
        assert len(episode.observations) == len(episode) + 1
        for t, action in enumerate(episode.actions):
            assert dataset.action_space.contains(action)
            observation, reward, terminated, truncated, info = env.step(action)
            np.testing.assert_array_equal(episode.observations[t + 1], observation)
            assert episode.rewards[t] == reward
            assert (episode.terminations[t], episode.truncations[t]) == (terminated, truncated)
            assert {key: value[t + 1] for key, value in episode.infos.items()} == info
            assert (terminated or truncated) == (t + 1 == len(episode))
        assert metadata["success"] == info["success"]
        assert metadata["rewards_sum"] == pytest.approx(episode.rewards.sum())
        for key, value in episode.infos.items():
            assert key == "task" or value[0] == 0
    return [len(episode) for episode in dataset.iterate_episodes()]


@pytest.mark.parametrize(
    ("family", "task", "options"),
    [
        ("Biped", 5, {}),
        ("Octopus", "three-links", {"conditioning": "none", "layout": "arc"}),
        ("AllFamilies", "Biped/child", {}),
    ],
)
def test_a_policys_episodes_are_the_environments(
    family: str, task: Any, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness.record, "WORLDS", 2)  # so that there are rounds, the last not full
    learner = save_policy(tmp_path / "policy", family, **options)
    policy = load_policy(tmp_path / "policy", family)
    finished: list[int] = []
    written = Recording(family, task, 3, policy, seed=4).write(finished.append)
    assert finished == [2, 1]
    dataset = minari.load_dataset(written.id)
    env: Any = dataset.recover_environment()
    assert env.unwrapped.conditioning == options.get("conditioning", "descriptor")
    lengths = replay(env, dataset)
    assert dataset.total_steps == sum(lengths)
    first = dataset[0]
    np.testing.assert_allclose(
        first.actions[0], np.clip(learner.act(first.observations[:1])[0], -1, 1), rtol=1e-5, atol=1e-6
    )
    starts = [tuple(episode.observations[0]) for episode in dataset.iterate_episodes()]
    assert len(set(starts)) == 3

    chosen, known = env.unwrapped.task, dataset.storage.metadata
    assert known["algorithm_name"] == "ppo"
    assert (known["family"], known["task"]) == (family, chosen.to_dict())
    assert known["conditioning"] == env.unwrapped.conditioning
    assert known["layout"] == env.unwrapped.layout
    assert known["seed"] == 4
    terms = mtenvs.get_family(chosen.family).reward_terms
    assert known["reward_names"] == list(terms)
    # the sum in this order is the reward, to the last bit
    np.testing.assert_array_equal(sum(first.infos[f"reward_{term}"][1:] for term in terms), first.rewards)


@pytest.mark.parametrize("at_a_time", [1, 2])
def test_a_policy_with_a_memory_is_recorded_as_it_is_evaluated(
    at_a_time: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever its round-mates are, and in whichever round it is."""
    worlds = TaskVectorEnv("Biped", num_envs=3, tasks=[5], num_threads=1)
    config = {"n_steps": 8, "batch_size": 24, "n_epochs": 2, "hidden": [8]}
    learner = make_learner("sb3:recurrentppo", config, worlds, [0])
    learner.train(worlds, 24 * 4)
    learner.save(0, tmp_path / "policy")
    wanted = learner.evaluate(worlds, harness.record._seeds(4, 3))

    monkeypatch.setattr(harness.record, "WORLDS", at_a_time)
    dataset = Recording("Biped", 5, 3, load_policy(tmp_path / "policy", "Biped"), seed=4).write()
    found = harness.record.recorded(dataset)
    assert [episode.steps for episode in found] == wanted.lengths.tolist()
    np.testing.assert_allclose([episode.total for episode in found], wanted.returns, rtol=1e-5)


def test_random_episodes_are_the_seeds(tmp_path: Path) -> None:
    def actions(seed: int, name: str) -> np.ndarray:
        dataset = Recording("Biped", 0, 4, seed=seed, name=name).write()
        replay(dataset.recover_environment(), dataset)
        assert dataset.storage.metadata["algorithm_name"] == "random"
        return np.concatenate([episode.actions for episode in dataset.iterate_episodes()])

    first, again, other = actions(0, "a-v0"), actions(0, "b-v0"), actions(1, "c-v0")
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first[:5], other[:5])
    assert 0.3 < first.std() < 0.9


def test_normalised_scores_are_the_reports(place: Path) -> None:
    dataset = Recording("Biped", "child", 1).write()
    score = load_reference("Biped", 0)["scores"]["child"]
    returns = np.array([score["random"], score["reference"]])
    np.testing.assert_allclose(minari.get_normalized_score(dataset, returns), [0.0, 1.0])


def test_a_process_that_knows_minari_alone_has_the_environment_back(place: Path) -> None:
    main(["record", "Biped", "--task", "long-shins", "--random", "--episodes", "2"])
    script = (
        "import minari\n"
        "(name,) = minari.list_local_datasets()\n"
        "dataset = minari.load_dataset(name)\n"
        "env = dataset.recover_environment()\n"
        "print(name, env.spec.id, env.spec.max_episode_steps, env.unwrapped.task.name)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        check=True,
    )
    limit = gym.spec("mt/Biped-v0").max_episode_steps
    expected = ["mtenvs/biped/long-shins-random-v0", "mt/Biped-v0", str(limit), "long-shins"]
    assert run.stdout.split() == expected
    assert not run.stderr


def test_the_command_says_how_it_went_and_writes_nothing_over(
    tmp_path: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_policy(tmp_path / "policy")
    out = tmp_path / "deep" / "data"
    words = ["record", "Biped", "--policy", str(tmp_path / "policy"), "--episodes", "3", "--out", str(out)]
    main(words)
    *_, episodes, wrote, read = capsys.readouterr().out.splitlines()
    assert episodes.startswith("3 episodes: mean return ")
    assert wrote == f"wrote {out / 'mtenvs/biped/nominal-ppo-v0'}"
    code = read.removeprefix("read it with: ")
    names = {"os": os, "minari": minari}
    statement, expression = code.split("; ")
    exec(statement, names)
    assert len(eval(expression, names)) == 3
    assert not place.exists()

    def files() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    before = files()
    assert {path.name for path in before} == {"main_data.hdf5", "metadata.json", "namespace_metadata.json"}
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert "already, and none is written over" in " ".join(capsys.readouterr().err.split())
    assert files() == before


@pytest.mark.parametrize("words", [["--out", "data"], []])
def test_a_path_may_be_relative(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MINARI_DATASETS_PATH", "data")
    main(["record", "Biped", "--random", "--episodes", "2", *words])
    assert len(minari.load_dataset("mtenvs/biped/nominal-random-v0")) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Bipd", "--random"], "did you mean 'Biped'"),
        (["Biped", "--random", "--task", "long-shin"], "did you mean 'long-shins'"),
        (["Biped", "--random", "--episodes", "0"], "episodes must be a positive integer, got 0"),
        (["Biped", "--random", "--seed", "-1"], "seed must be a non-negative integer, got -1"),
        (
            ["Biped", "--random", "--id", "a"],
            "is named namespace/name-v0, of letters, digits, - and _; got 'a'",
        ),
        (["Biped", "--random", "--id", "../a-v0"], "got '../a-v0'"),
        (["Biped"], "nobody acts: give --policy DIR or --random"),
        (["Biped", "--policy", "nowhere"], "no checkpoint in nowhere"),
        (["Biped", "--policy", "nowhere", "--random"], "--policy or --random, not both"),
        (["Biped", "--random", "--agent", "mine:Mine"], "give --policy with mine:Mine"),
    ],
)
def test_bad_input_ends_with_a_message_and_touches_nothing(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["record", *words])
    assert stop.value.code == 2
    printed = capsys.readouterr()
    assert message in " ".join(printed.err.split())
    assert not printed.out
    assert not list(tmp_path.iterdir())


def test_actions_that_are_no_numbers_leave_no_dataset(tmp_path: Path, place: Path) -> None:
    save_policy(tmp_path / "policy")
    policy = load_policy(tmp_path / "policy", "Biped")
    object.__setattr__(policy, "act", lambda observations: np.full((len(observations), 6), np.nan))
    with pytest.raises(ValueError, match="actions must be finite"):
        Recording("Biped", 0, 2, policy).write()
    assert not list(place.iterdir())


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("minari", "h5py"):
        with monkeypatch.context() as patch:
            patch.setitem(sys.modules, name, None)
            with pytest.raises(
                ModuleNotFoundError, match=rf"package {name}: pip install 'mtenvs\[offline\]'"
            ):
                Recording("Biped", 0, 1)


@pytest.mark.parametrize("command", ["view", "video", "record"])
def test_whose_a_checkpoint_is_can_be_said(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No file may name code to be run."""
    save_policy(tmp_path)
    rewrite_facts(tmp_path, learner="nobodys:Agent")
    for words, message in (
        ([], "add --agent nobodys:Agent"),
        (["--agent", "ppo"], "is of agent 'nobodys:Agent', not of 'ppo'"),
        (["--agent", "nobodys:Agent"], "agent 'nobodys:Agent' cannot be imported"),
    ):
        with pytest.raises(SystemExit) as stop:
            main([command, "Biped", "--policy", str(tmp_path), *words])
        assert stop.value.code == 2
        assert message in " ".join(capsys.readouterr().err.split())
