"""Stable-Baselines3's PPO with our PPO's hyperparameters, and its interface over our native batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv, VecNormalize

from baselines.ppo import PPOConfig
from mtenvs.vector_env import TaskVectorEnv

ROLLOUT = 2048
"""Steps between updates in all worlds of a run: 64 worlds x 32 steps, or 8 x 256."""


class NativeVecEnv(VecEnv):
    """Our worlds as a ``VecEnv``, so that SB3's PPO can learn on rollouts of the same shape as ours.

    Args:
        worlds: in same-step autoreset mode.
        seed: of start states, and of how first episodes are staggered, as our PPO does it too.
    """

    def __init__(self, worlds: TaskVectorEnv, seed: int) -> None:
        self.worlds = worlds
        self._rng = np.random.default_rng(seed)
        super().__init__(worlds.num_envs, worlds.single_observation_space, worlds.single_action_space)

    def reset(self) -> np.ndarray:
        """Starts all worlds."""
        seeds = [int(s) for s in self._rng.integers(2**31, size=self.num_envs)]
        elapsed = self._rng.integers(self.worlds.max_episode_steps, size=self.num_envs)
        return self.worlds.reset(seed=seeds, options={"elapsed_steps": elapsed})[0]

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Steps all worlds."""
        observations, rewards, terminations, truncations, info = self.worlds.step(self._actions)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(terminations | truncations):
            infos[i]["terminal_observation"] = info["final_obs"][i]
            infos[i]["TimeLimit.truncated"] = bool(truncations[i] and not terminations[i])
        return observations, rewards.astype(np.float32), terminations | truncations, infos

    def close(self) -> None:
        """Closes the worlds."""
        self.worlds.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """The worlds share every attribute."""
        return [getattr(self.worlds, attr_name, None)] * len(list(self._get_indices(indices)))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Not offered."""
        raise NotImplementedError("a native batch has no attributes of single worlds")

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Not offered."""
        raise NotImplementedError("a native batch has no methods of single worlds")

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """No world is wrapped."""
        return [False] * len(list(self._get_indices(indices)))


def single(task: int, conditioning: str) -> gym.Env[Any, Any]:
    """One of our single environments."""
    return gym.make("mt/Biped-v0", task=task, conditioning=conditioning)


def make_vec(kind: str, num_envs: int, task: int, conditioning: str, seed: int) -> VecEnv:
    """Worlds behind SB3's interface.

    Args:
        kind: ``dummy`` or ``subproc``, over our single environments, or ``native``.
        num_envs: number of worlds.
        task: published number.
        conditioning: of the observation.
        seed: of start states.
    """
    if kind == "native":
        worlds = gym.make_vec(
            "mt/Biped-v0", num_envs=num_envs, tasks=[task], conditioning=conditioning
        ).unwrapped
        assert isinstance(worlds, TaskVectorEnv)
        return NativeVecEnv(worlds, seed)
    makers = [functools.partial(single, task, conditioning)] * num_envs
    envs = DummyVecEnv(makers) if kind == "dummy" else SubprocVecEnv(makers, start_method="forkserver")
    envs.seed(seed)
    return envs


def make_ppo(vec: VecEnv, seed: int, config: PPOConfig) -> PPO:
    """SB3's PPO with the hyperparameters of ``config``, rollouts of :data:`ROLLOUT` steps, VecNormalize."""
    normalised = VecNormalize(vec, gamma=config.gamma, clip_obs=config.clip_observation, clip_reward=10.0)
    return PPO(
        "MlpPolicy",
        normalised,
        learning_rate=config.learning_rate,
        n_steps=ROLLOUT // vec.num_envs,
        batch_size=ROLLOUT // config.num_minibatches,
        n_epochs=config.update_epochs,
        gamma=config.gamma,
        gae_lambda=config.gae_lambda,
        clip_range=config.clip_coef,
        ent_coef=config.ent_coef,
        vf_coef=config.vf_coef,
        max_grad_norm=config.max_grad_norm,
        policy_kwargs={
            "net_arch": {"pi": list(config.hidden), "vf": list(config.hidden)},
            "activation_fn": torch.nn.Tanh,
            "log_std_init": config.initial_log_std,
        },
        seed=seed,
        device="cpu",
    )


def act(model: PPO, observations: np.ndarray) -> np.ndarray:
    """The deterministic policy on raw observations ``(num_envs, size)``."""
    normaliser = model.get_env()
    assert isinstance(normaliser, VecNormalize)
    actions: Sequence[Any] = model.predict(normaliser.normalize_obs(observations), deterministic=True)[0]
    return np.asarray(actions)
