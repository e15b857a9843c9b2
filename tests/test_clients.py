"""Other people's code, which knows Gymnasium and nothing of us."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import helpers
import imageio_ffmpeg
import numpy as np
import pytest
import torch
from gymnasium.envs.registration import EnvSpec
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.wrappers import (
    NormalizeObservation,
    NormalizeReward,
    RecordEpisodeStatistics,
    RecordVideo,
)
from gymnasium.wrappers import vector as vector_wrappers
from helpers import needs_gl
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from tensordict import TensorDictBase
from tensordict.nn import NormalParamExtractor, TensorDictModule
from torchrl.collectors import Collector
from torchrl.envs import GymEnv, GymWrapper, check_env_specs
from torchrl.modules import ProbabilisticActor, TanhNormal, ValueOperator
from torchrl.objectives import ClipPPOLoss
from torchrl.objectives.value import GAE

import mtenvs

LIMIT = 20  # short, so that episodes end by truncation as well as by falling
STEPS = 60


def actions(env: gym.Env | VectorEnv, steps: int = STEPS) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def timeless(result: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a step returns, less the seconds that an episode took."""
    *rest, info = result
    told = {k: v for k, v in info.get("episode", {}).items() if k not in ("t", "_t")}
    return (*rest, {**info, "episode": told} if told else info)


def assert_same(a: tuple[Any, ...], b: tuple[Any, ...]) -> None:
    """Of what two steps return, everything but the seconds that an episode took."""
    helpers.assert_same(timeless(a), timeless(b))


# ---- Gymnasium's checker and wrappers


def test_checker_with_tasks_of_all_families() -> None:
    with warnings.catch_warnings():  # an unbounded observation is meant
        warnings.filterwarnings("ignore", ".*A Box observation space")
        check_env(gym.make("mt/AllFamilies-v0").unwrapped, skip_render_check=True)


@needs_gl
def test_videos_show_the_episode_at_life_speed(tmp_path: Path) -> None:
    env = gym.make(
        "mt/Biped-v0", task=0, render_mode="rgb_array", width=64, height=48, max_episode_steps=10
    )
    env = RecordVideo(env, str(tmp_path / "videos"), episode_trigger=lambda number: number == 0)
    env.reset(seed=0)
    for action in actions(env, 10):
        env.step(action)
    env.close()
    (path,) = tmp_path.glob("videos/*.mp4")
    frames, seconds = imageio_ffmpeg.count_frames_and_secs(str(path))
    data = env.unwrapped.data  # type: ignore[attr-defined]
    assert frames == 11
    assert seconds == pytest.approx(11 * data.time / 10, abs=0.011)  # ffmpeg tells hundredths
    reader = imageio_ffmpeg.read_frames(str(path))
    assert next(reader)["size"] == (64, 48)
    pictures = [np.frombuffer(picture, np.uint8).astype(float) for picture in reader]
    assert np.abs(pictures[0] - pictures[-1]).max() > 50


def test_statistics_of_single_episodes(family: mtenvs.Family) -> None:
    env = RecordEpisodeStatistics(gym.make(family.id, task=0, max_episode_steps=LIMIT))
    env.reset(seed=0)
    rewards: list[float] = []
    episodes = 0
    for action in actions(env):
        _, reward, terminated, truncated, info = env.step(action)
        rewards.append(float(reward))
        if terminated or truncated:
            assert info["episode"]["l"] == len(rewards)
            assert info["episode"]["r"] == pytest.approx(sum(rewards))
            rewards.clear()
            episodes += 1
            env.reset()
    assert episodes >= 2


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP], ids=lambda m: m.name)
def test_vector_wrappers_see_what_gymnasiums_own_vector_shows(
    family: mtenvs.Family, mode: AutoresetMode
) -> None:
    def wrapped(envs: VectorEnv) -> VectorEnv:
        envs = vector_wrappers.RecordEpisodeStatistics(envs)
        if mode == AutoresetMode.NEXT_STEP:  # the only one that it takes
            envs = vector_wrappers.NormalizeObservation(envs)
        return envs

    tasks = family.tasks[:4]
    kwargs: dict[str, Any] = {"max_episode_steps": LIMIT}
    ours = wrapped(gym.make_vec(family.id, num_envs=4, tasks=tasks, autoreset_mode=mode, **kwargs))
    theirs = wrapped(
        SyncVectorEnv(
            [lambda t=t: gym.make(family.id, task=t, **kwargs) for t in tasks],  # type: ignore[misc]
            autoreset_mode=mode,
        )
    )
    assert_same(ours.reset(seed=0), theirs.reset(seed=0))
    episodes = 0
    for action in actions(ours):
        result = ours.step(action)
        assert_same(result, theirs.step(action))
        episodes += int(result[-1].get("_episode", np.zeros(4)).sum())
    assert episodes >= 8


# ---- copies and specs, through wrappers


def single(family: mtenvs.Family) -> gym.Env:
    env = gym.make(family.id, task=mtenvs.sample_task(family.name, 2), max_episode_steps=LIMIT)
    return RecordEpisodeStatistics(NormalizeReward(NormalizeObservation(env)))


def vector(family: mtenvs.Family) -> VectorEnv:
    kwargs: dict[str, Any] = {"autoreset_mode": "NextStep", "max_episode_steps": LIMIT}
    envs = gym.make_vec(family.id, num_envs=3, **kwargs)
    return vector_wrappers.NormalizeObservation(vector_wrappers.RecordEpisodeStatistics(envs))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
@pytest.mark.parametrize("make", [single, vector])
def test_copies_go_on_alike_in_mid_episode(
    family: mtenvs.Family, make: Callable[[mtenvs.Family], Any], duplicate: Callable[[Any], Any]
) -> None:
    env = make(family)
    env.reset(seed=0)
    for action in actions(env, 7):
        env.step(action)
    twin = duplicate(env)
    for action in actions(env, 3 * LIMIT):
        a, b = env.step(action), twin.step(action)
        assert_same(a, b)
        if make is single and (a[2] or a[3]):
            assert_same(env.reset(), twin.reset())


def test_a_spec_with_wrappers_makes_the_same_environment_again(family: mtenvs.Family) -> None:
    env = single(family)
    assert env.spec is not None
    again = gym.make(EnvSpec.from_json(env.spec.to_json()))
    assert again.unwrapped.task == mtenvs.sample_task(family.name, 2)  # type: ignore[attr-defined]
    assert str(again) == str(env)
    assert_same(env.reset(seed=4), again.reset(seed=4))
    for action in actions(env, LIMIT // 2):
        assert_same(env.step(action), again.step(action))


# ---- Stable-Baselines3 on a single environment


def settings() -> dict[str, Any]:
    """Of a small learner; new at every call, because algorithms write into ``policy_kwargs``."""
    return {"policy_kwargs": {"net_arch": [16]}, "batch_size": 32, "seed": 0, "device": "cpu"}


def ppo(env: gym.Env) -> BaseAlgorithm:
    return PPO("MlpPolicy", env, n_steps=128, n_epochs=2, **settings())


def sac(env: gym.Env) -> BaseAlgorithm:
    return SAC("MlpPolicy", env, learning_starts=150, **settings())


@pytest.mark.parametrize("algorithm", [ppo, sac])
def test_stable_baselines3_trains(
    family: mtenvs.Family, algorithm: Callable[[gym.Env], BaseAlgorithm]
) -> None:
    model = algorithm(gym.make(family.id, task=0, max_episode_steps=LIMIT))
    vector_of = torch.nn.utils.parameters_to_vector
    before = vector_of(model.policy.parameters()).detach().clone()
    model.learn(256)
    after = vector_of(model.policy.parameters()).detach()
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)
    assert model.ep_info_buffer is not None
    assert len(model.ep_info_buffer) >= 256 // LIMIT
    assert max(info["l"] for info in model.ep_info_buffer) <= LIMIT


# ---- TorchRL


def test_torchrl_trains(family: mtenvs.Family) -> None:
    """Its own check, a collector, advantages and a few gradient steps of PPO's loss."""
    env = GymEnv(family.id, task=0, max_episode_steps=LIMIT)
    check_env_specs(env, seed=0)
    size, controls = env.observation_spec["observation"].shape[-1], env.action_spec.shape[-1]
    torch.manual_seed(0)
    policy = ProbabilisticActor(
        TensorDictModule(
            torch.nn.Sequential(torch.nn.Linear(size, 2 * controls), NormalParamExtractor()),
            in_keys=["observation"],
            out_keys=["loc", "scale"],
        ),
        in_keys=["loc", "scale"],
        spec=env.action_spec,
        distribution_class=TanhNormal,
        return_log_prob=True,
    )
    critic = ValueOperator(torch.nn.Linear(size, 1))
    loss = ClipPPOLoss(policy, critic)
    advantage = GAE(gamma=0.99, lmbda=0.95, value_network=critic)
    optimizer = torch.optim.Adam(loss.parameters(), 1e-3)
    before = torch.nn.utils.parameters_to_vector(loss.parameters()).detach().clone()
    collector = Collector(
        env, policy, frames_per_batch=64, total_frames=192, auto_register_policy_transforms=True
    )
    ends = 0
    for batch in collector:
        ends += int(batch["next", "done"].sum())
        advantage(batch)
        terms = loss(batch)
        total = terms["loss_objective"] + terms["loss_critic"] + terms["loss_entropy"]
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    collector.shutdown()
    after = torch.nn.utils.parameters_to_vector(loss.parameters()).detach()
    assert ends >= 192 // LIMIT
    assert torch.isfinite(after).all()
    assert not torch.equal(before, after)


def test_torchrl_sees_our_vector_as_gymnasiums_own(family: mtenvs.Family) -> None:
    """To the last bit, infos and the last observations of ended episodes included."""

    def rollout(envs: VectorEnv) -> TensorDictBase:
        coming = iter(torch.as_tensor(actions(envs)))

        def policy(td: TensorDictBase) -> TensorDictBase:  # by its name TorchRL knows what it takes
            return td.set("action", next(coming))

        wrapped = GymWrapper(envs)
        wrapped.set_seed(0)
        return wrapped.rollout(STEPS, policy, break_when_any_done=False)

    kwargs: dict[str, Any] = {"max_episode_steps": LIMIT}
    ours = rollout(gym.make_vec(family.id, num_envs=3, **kwargs))
    theirs = rollout(
        SyncVectorEnv(
            [lambda i=i: gym.make(family.id, task=i, **kwargs) for i in range(3)],  # type: ignore[misc]
            autoreset_mode=AutoresetMode.SAME_STEP,
        )
    )
    assert set(ours.keys(True, True)) == set(theirs.keys(True, True))
    for key in ours.keys(True, True):
        assert torch.equal(ours[key], theirs[key]), key
    ended = ours["next", "done"][:, :-1, 0]
    assert ended.sum() >= 6
    last, first = ours["next", "observation"][:, :-1][ended], ours["observation"][:, 1:][ended]
    assert (last != first).any(dim=-1).all()
