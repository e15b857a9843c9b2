from __future__ import annotations

import csv
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import may_fall, needs_gl
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecMonitor, VecNormalize

import mtenvs
from mtenvs.adapters import sb3

LIMIT = 20  # short, so that episodes end by truncation as well as by falling


def actions(envs: VecEnv, steps: int = 100) -> np.ndarray:
    shape = (steps, envs.num_envs, *envs.action_space.shape)
    return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


# ---- the same worlds as single environments in DummyVecEnv


def test_equals_dummy_vec_env(family: mtenvs.Family) -> None:
    """What is returned over several episodes, to the last bit, and all that is told of an ended one."""
    tasks = [*family.tasks, mtenvs.sample_task(family.name, 0)]
    ours = sb3.make(family.id, num_envs=len(tasks), tasks=tasks, seed=3, max_episode_steps=LIMIT)
    theirs = DummyVecEnv(
        [lambda t=t: gym.make(family.id, task=t, max_episode_steps=LIMIT) for t in tasks]  # type: ignore[misc]
    )
    theirs.seed(3)
    assert (ours.observation_space, ours.action_space) == (theirs.observation_space, theirs.action_space)
    np.testing.assert_array_equal(ours.reset(), theirs.reset())
    assert ours.reset_infos == [{"task": info["task"]} for info in theirs.reset_infos]
    causes = set()
    for action in actions(ours):
        *arrays, infos = ours.step(action)
        *expected, their_infos = theirs.step(action)
        for mine, other in zip(arrays, expected, strict=True):
            assert mine.dtype == other.dtype
            np.testing.assert_array_equal(mine, other)
        for world, (info, other) in enumerate(zip(infos, their_infos, strict=True)):
            if not arrays[2][world]:
                assert info == {}
                continue
            causes.add(other["TimeLimit.truncated"])
            assert set(info) == set(other) | {"is_success"}
            np.testing.assert_array_equal(info["terminal_observation"], other["terminal_observation"])
            del info["terminal_observation"], other["terminal_observation"]
            assert info == other | {"is_success": other["success"]}
    assert causes == ({True, False} if may_fall(family.name) else {True})


def test_termination_at_the_time_limit_is_no_truncation(family: mtenvs.Family) -> None:
    """Or its value would be bootstrapped: physics diverges in the very step in which time is up."""
    envs = sb3.make(family.id, num_envs=2, tasks=[0], seed=0, max_episode_steps=1)
    envs.reset()
    envs.vector_env._groups[0].backend.state.qvel[1] = 1e20
    _, _, dones, infos = envs.step(np.zeros((2, *envs.action_space.shape)))
    assert dones.all()
    assert [info["TimeLimit.truncated"] for info in infos] == [True, False]
    assert [info["physics_diverged"] for info in infos] == [False, True]


def test_running_worlds_are_told_of_in_arrays(family: mtenvs.Family) -> None:
    envs = sb3.make(family.id, num_envs=3, seed=0)
    envs.reset()
    _, rewards, _, infos = envs.step(actions(envs)[0])
    terms = [envs.step_info[f"reward_{term}"] for term in family.reward_terms]
    np.testing.assert_allclose(np.sum(terms, axis=0), rewards, rtol=1e-6, atol=1e-7)
    infos[0]["mine"] = 1  # as a wrapper might
    assert infos[1:] == [{}, {}]
    assert envs.step(actions(envs)[1])[3] == [{}, {}, {}]


# ---- seeds, tasks, attributes


def test_seeds_are_used_once(family: mtenvs.Family) -> None:
    envs = sb3.make(family.id, num_envs=2, tasks=[0], seed=5)
    first, second = envs.reset(), envs.reset()
    assert not np.array_equal(first, second)
    envs.seed(5)
    np.testing.assert_array_equal(envs.reset(), first)
    np.testing.assert_array_equal(envs.reset(), second)
    native = gym.make_vec(family.id, num_envs=2, tasks=[0])
    np.testing.assert_array_equal(native.reset(seed=[5, 6])[0], first)
    zero = [sb3.make(family.id, num_envs=2, seed=0).reset() for _ in range(2)]
    np.testing.assert_array_equal(*zero)
    unseeded = [sb3.make(family.id, num_envs=2).reset() for _ in range(2)]
    assert not np.array_equal(*unseeded)


def test_options_choose_tasks_at_the_next_reset(family: mtenvs.Family) -> None:
    envs = sb3.make(family.id, num_envs=3, tasks=[0, 1, 2], seed=0)
    own = mtenvs.sample_task(family.name, 1)
    last = len(family.tasks) - 1

    def at_reset() -> list[int]:
        envs.reset()
        assert [t.number for t in envs.get_attr("task")] == [
            None if info["task"] < 0 else info["task"] for info in envs.reset_infos
        ]
        return [info["task"] for info in envs.reset_infos]

    assert at_reset() == [0, 1, 2]
    envs.set_options([{"task": own}, {}, {"task": family.tasks[last].name}])
    assert envs.get_attr("task", [0, 2]) == [family.tasks[0], family.tasks[2]]
    assert at_reset() == [-1, 1, last]
    assert envs.get_attr("task", 0) == [own]
    assert at_reset() == [-1, 1, last]  # for good
    envs.set_options({"task": 2})
    envs.set_options()  # taken back
    assert at_reset() == [-1, 1, last]
    envs.set_options({"task": 2})
    assert at_reset() == [2, 2, 2]
    envs.set_attr("task", 0, indices=[1])
    assert at_reset() == [2, 0, 2]
    envs.vector_env.reset(options={"tasks": [2, 0, 1]})
    assert at_reset() == [2, 0, 1]  # used once: not given again
    envs.seed(9)
    fresh = sb3.make(family.id, num_envs=3, tasks=[2, 0, 1], seed=9)
    np.testing.assert_array_equal(envs.reset(), fresh.reset())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"task": 99}, "unknown task number 99; valid tasks of 'Biped'"),
        ([{"task": 0}], "1 options for 2 worlds; give one each, or a dict"),
        ({"tasks": [0, 1]}, r"unknown options \['tasks'\]; valid: task"),
        ([{}, {"speed": 1}], r"unknown options \['speed'\]; valid: task"),
    ],
)
def test_bad_options_are_named_and_forgotten(options: Any, message: str) -> None:
    envs = sb3.make("mt/Biped-v0", num_envs=2)
    with pytest.raises(ValueError, match=message):
        envs.set_options(options)
    envs.reset()
    assert [info["task"] for info in envs.reset_infos] == [0, 1]


def test_attributes_of_worlds(family: mtenvs.Family) -> None:
    envs = sb3.make(family.id, num_envs=3, tasks=[2, 0], seed=0)
    envs.reset()
    assert envs.get_attr("task") == [family.tasks[i] for i in (2, 0, 2)]
    assert envs.get_attr("action_space", 1) == [envs.action_space]
    assert envs.get_attr("observation_space", [0]) == [envs.observation_space]
    assert envs.get_attr("np_random_seed") == [0, 1, 2]
    assert envs.get_attr("family", indices=[0, 1]) == [family, family]
    assert envs.env_is_wrapped(Monitor) == [False] * 3
    assert envs.env_is_wrapped(Monitor, indices=0) == [False]
    assert envs.has_attr("conditioning")
    assert not envs.has_attr("wings")
    with pytest.raises(AttributeError, match=r"cannot set 'conditioning'.*valid: task"):
        envs.set_attr("conditioning", "none")
    with pytest.raises(AttributeError, match=r"cannot call 'wave' on single worlds.*valid: render"):
        envs.env_method("wave")
    with pytest.raises(ValueError, match="unknown task number 99"):
        envs.set_attr("task", 99)


@needs_gl
def test_pictures_of_worlds() -> None:
    kwargs: dict[str, Any] = {"render_mode": "rgb_array", "width": 32, "height": 24, "tasks": [0, 4]}
    envs = sb3.make("mt/Biped-v0", num_envs=2, seed=0, **kwargs)
    native = gym.make_vec("mt/Biped-v0", num_envs=2, **kwargs)
    envs.reset()
    native.reset(seed=0)
    expected = native.render()
    assert not np.array_equal(expected[0], expected[1])
    for images in (envs.get_images(), envs.env_method("render")):
        np.testing.assert_array_equal(images, expected)
    np.testing.assert_array_equal(envs.env_method("render", indices=1), expected[1:])
    assert envs.render().shape == (48, 32, 3)  # tiled
    envs.close()
    blind = sb3.make("mt/Biped-v0", num_envs=2)
    blind.reset()
    with pytest.warns(UserWarning, match="render_mode='rgb_array'"):
        assert blind.get_images() == [None, None]


# ---- what it refuses


def test_other_environments_are_refused() -> None:
    with pytest.raises(ValueError, match=r"autoreset_mode is 'NextStep', but .* needs 'SameStep'"):
        sb3.make("mt/Biped-v0", num_envs=2, autoreset_mode="NextStep")
    with pytest.raises(TypeError, match=r"needs a TaskVectorEnv of mtenvs, got .*Sync"):
        sb3.TaskVecEnv(gym.make_vec("mt/Biped-v0", num_envs=2, vectorization_mode="sync"))
    for name in ("CartPole-v1", "Biped", "mt/Biped"):
        with pytest.raises(ValueError, match=rf"'{name}' is no id of mtenvs.*valid: .*mt/Biped-v0, "):
            sb3.make(name, num_envs=2)
    assert sb3.make("mtenvs:mt/Biped-v0", num_envs=2).num_envs == 2
    with pytest.raises(TypeError, match=r"keyword argument 'tsks' \(did you mean 'tasks'"):
        sb3.make("mt/Biped-v0", tsks=[0])
    with pytest.raises(ValueError, match="3 tasks do not fit into num_envs=2 worlds"):
        sb3.make("mt/Biped-v0", num_envs=2, tasks=[0, 1, 2])
    with pytest.raises(gym.error.ResetNeeded):
        sb3.make("mt/Biped-v0", num_envs=2).step(np.zeros((2, 6)))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    monkeypatch.delitem(sys.modules, "mtenvs.adapters.sb3")
    with pytest.raises(ModuleNotFoundError, match=r"package stable_baselines3.*'mtenvs\[train\]'"):
        import mtenvs.adapters.sb3  # noqa: F401


# ---- Stable-Baselines3's wrappers and algorithms


def test_monitor_counts_episodes(family: mtenvs.Family, tmp_path: Path) -> None:
    inner = sb3.make(family.id, num_envs=4, seed=0, max_episode_steps=LIMIT)
    keywords = ("success", "task", *(f"reward_{term}" for term in family.reward_terms))
    envs = VecMonitor(inner, str(tmp_path / "log"), info_keywords=keywords)
    envs.reset()
    returns, lengths = np.zeros(4), np.zeros(4, int)
    rows = []
    for action in actions(envs):
        _, rewards, dones, infos = envs.step(action)
        returns += rewards
        lengths += 1
        for i in np.flatnonzero(dones):
            assert infos[i]["episode"]["l"] == lengths[i]
            assert infos[i]["episode"]["r"] == pytest.approx(returns[i], rel=1e-5, abs=1e-5)
            rows.append(infos[i]["episode"]["task"])
            returns[i] = lengths[i] = 0
    envs.close()
    with (tmp_path / "log.monitor.csv").open() as file:
        assert family.id in file.readline()
        assert [int(row["task"]) for row in csv.DictReader(file)] == rows
    assert set(rows) == {0, 1, 2, 3}


def parameters(model: BaseAlgorithm) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(model.policy.parameters()).detach().clone()


def ppo(envs: VecEnv) -> BaseAlgorithm:
    return PPO("MlpPolicy", envs, n_steps=64, batch_size=128, n_epochs=2, seed=0, device="cpu")


def sac(envs: VecEnv) -> BaseAlgorithm:
    return SAC("MlpPolicy", envs, learning_starts=100, batch_size=64, seed=0, device="cpu")


@pytest.mark.parametrize("algorithm", [ppo, sac])
def test_training(
    family: mtenvs.Family, algorithm: Callable[[VecEnv], BaseAlgorithm], tmp_path: Path
) -> None:
    """Through normaliser and monitor, saved, loaded and evaluated: nothing needs special care."""
    envs = VecNormalize(VecMonitor(sb3.make(family.id, num_envs=8, max_episode_steps=LIMIT)))
    model = algorithm(envs)
    before = parameters(model)
    model.learn(512, log_interval=1)
    after = parameters(model)
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) >= 8
    assert model.ep_success_buffer is not None
    assert len(model.ep_success_buffer) == len(model.ep_info_buffer)
    if isinstance(model, SAC):
        assert model.replay_buffer is not None
        dones = model.replay_buffer.dones[: model.replay_buffer.pos]
        truncated = model.replay_buffer.timeouts[: model.replay_buffer.pos]
        assert dones.sum() == len(model.ep_info_buffer)
        assert truncated.sum() >= 1
        assert not (truncated.astype(bool) & ~dones.astype(bool)).any()

    model.save(tmp_path / "model")
    envs.training = False
    loaded = type(model).load(tmp_path / "model", env=envs, device="cpu")
    torch.testing.assert_close(parameters(loaded), after, rtol=0, atol=0)
    lengths = evaluate_policy(loaded, envs, n_eval_episodes=8, return_episode_rewards=True)[1]
    assert max(lengths) <= LIMIT


def test_the_last_value_is_that_of_the_last_observation(family: mtenvs.Family) -> None:
    """PPO adds gamma V(terminal observation) to a truncated reward, and nothing to a terminated one."""
    envs = sb3.make(family.id, num_envs=4, max_episode_steps=LIMIT)
    model = PPO("MlpPolicy", envs, n_steps=64, batch_size=256, n_epochs=1, seed=0, device="cpu")
    seen: list[tuple[np.ndarray, list[dict[str, Any]]]] = []
    step = envs.step_wait

    def recording() -> Any:
        result = step()
        seen.append((result[1].copy(), result[3]))
        return result

    envs.step_wait = recording  # type: ignore[method-assign]
    values: dict[tuple[int, int], float] = {}
    train = model.train

    def before_training() -> None:  # the values must be those of the collecting policy
        for t, (_, infos) in enumerate(seen):
            for world, info in enumerate(infos):
                if info.get("TimeLimit.truncated"):
                    observation = torch.as_tensor(info["terminal_observation"])[None]
                    values[t, world] = model.policy.predict_values(observation).item()
        train()

    model.train = before_training  # type: ignore[method-assign]
    model.learn(256)
    assert values
    for t, (rewards, _) in enumerate(seen):
        bonus = model.rollout_buffer.rewards[t] - rewards
        for world in range(4):
            assert bonus[world] == pytest.approx(0.99 * values.get((t, world), 0.0), abs=1e-5)
