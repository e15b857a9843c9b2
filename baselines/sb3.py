"""Agents of Stable-Baselines3 and sb3-contrib, through :class:`baselines.agent.Agent` and nothing else.

PPO, TRPO and RecurrentPPO learn on policy; SAC, TD3 and TQC from a replay buffer. The algorithms are
theirs, unchanged; this file says where they get their worlds, their random streams and their
hyperparameters, and what of them is kept in a checkpoint.

- Observations: where they are normalised it is the body's entries alone; masks and codes pass unchanged,
  and enter the networks at zero weight, as in :mod:`baselines.ppo`.
- Actions that a body lacks are sampled and counted like all others, unlike in :mod:`baselines.ppo`, because
  Stable-Baselines3 knows no masks for continuous actions; :class:`SB3Agent` says what that does.
- Random streams: Stable-Baselines3 draws from the global ones of Python, NumPy and PyTorch. While an agent
  learns, these are its run's own; afterwards they are as if it had never learned.
- Handed on are the weights, those of target networks too, the entropy coefficient and the statistics of the
  normaliser, on request the optimisers' state. A replay buffer is not: it would be the other tasks' data.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import math
import random
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import torch

from baselines.agent import Agent
from baselines.learner import DEFAULT_START, Episodes, Start, check_hidden, layout_facts
from mtenvs.conditioning import Encoding
from mtenvs.spec import MissingPackageError
from mtenvs.vector_env import TaskVectorEnv

try:
    import sb3_contrib
    import stable_baselines3
    from stable_baselines3.common.base_class import BaseAlgorithm
    from stable_baselines3.common.logger import Logger
    from stable_baselines3.common.noise import NormalActionNoise
    from stable_baselines3.common.running_mean_std import RunningMeanStd
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f"agents sb3:... need the package {error.name}: pip install 'mtenvs[sb3]'", name=error.name
    ) from error

from mtenvs.adapters.sb3 import TaskVecEnv

# ---------------------------------------------------------------------- worlds


class BodyMoments(RunningMeanStd):
    """Running mean and variance of the entries of observations that are there, each with its own count.

    Args:
        encoding: which entries are the body's, and which of them a body lacks.
    """

    def __init__(self, encoding: Encoding) -> None:
        self.body, self._encoding = encoding.slices.body, encoding
        super().__init__(shape=(self.body.stop,))
        self.count = np.full(self.body.stop, self.count)  # type: ignore[assignment]

    def present(self, observations: np.ndarray) -> np.ndarray:
        """1 for entries that are there, ``(..., size)`` to ``(..., body)``."""
        return self._encoding.present(observations, self._encoding.observation_mask)

    def update(self, arr: np.ndarray) -> None:
        """Takes in observations ``(n, size)``."""
        values, present = arr[:, self.body].astype(np.float64), self.present(arr)
        counts = present.sum(axis=0, dtype=np.float64)
        mean = (values * present).sum(axis=0) / np.maximum(counts, 1.0)
        var = (np.square(values - mean) * present).sum(axis=0) / np.maximum(counts, 1.0)
        self.update_from_moments(mean, var, counts)  # one count for each entry


class NormalizedWorlds(VecNormalize):
    """Stable-Baselines3's normaliser, of the body's entries alone; padded ones stay zero.

    Args:
        venv: worlds whose observations begin as the encoding says; what follows passes unchanged.
        encoding: which entries of observations are which.
        kwargs: to ``VecNormalize``.
    """

    def __init__(self, venv: VecEnv, encoding: Encoding, **kwargs: Any) -> None:
        super().__init__(venv, **kwargs)
        if self.norm_obs:
            self.obs_rms = BodyMoments(encoding)  # type: ignore[assignment]  # declared for dictionaries

    def _normalize_obs(self, obs: np.ndarray, obs_rms: RunningMeanStd) -> np.ndarray:
        assert isinstance(obs_rms, BodyMoments)
        result = np.array(obs)
        body = super()._normalize_obs(obs[..., obs_rms.body], obs_rms)
        result[..., obs_rms.body] = body * obs_rms.present(obs)
        return result

    def _unnormalize_obs(self, obs: np.ndarray, obs_rms: RunningMeanStd) -> np.ndarray:
        assert isinstance(obs_rms, BodyMoments)
        result = np.array(obs)
        body = super()._unnormalize_obs(obs[..., obs_rms.body], obs_rms)
        result[..., obs_rms.body] = body * obs_rms.present(obs)
        return result


class Trials(VecEnvWrapper):
    """Makes one long episode, a trial, of several episodes of a world: Duan et al. 2016, arXiv:1611.02779.

    Observations end with what came before: the action ``(num_actions,)``, its reward, and whether it ended
    an episode; zeros where a trial begins. ``dones`` tells the ends of trials alone; a trial whose last
    episode was truncated is truncated, so that its value goes on from the last observation.

    Args:
        venv: the worlds.
        episodes: of a trial.
    """

    def __init__(self, venv: VecEnv, episodes: int) -> None:
        size = int(np.prod(venv.observation_space.shape or ()))
        self._episodes, self._extra = episodes, int(np.prod(venv.action_space.shape or ())) + 2
        space = gymnasium.spaces.Box(-np.inf, np.inf, (size + self._extra,), np.float32)
        super().__init__(venv, observation_space=space)
        self._actions: np.ndarray = np.empty(0)
        self._ended = np.zeros(self.num_envs, np.int64)

    def reset(self) -> np.ndarray:
        """Starts a trial in every world and returns observations ``(num_envs, size + num_actions + 2)``."""
        observations = self.venv.reset()
        assert isinstance(observations, np.ndarray)
        self._ended[:] = 0
        return np.concatenate([observations, np.zeros((self.num_envs, self._extra), np.float32)], axis=1)

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions for :meth:`step_wait`."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Advances every world by one control step."""
        observations, rewards, ends, infos = self.venv.step_wait()
        assert isinstance(observations, np.ndarray)
        self._ended += ends
        dones = self._ended >= self._episodes
        before = previous(self._actions, rewards, ends)
        for i in np.flatnonzero(ends):
            last = infos[i].pop("terminal_observation")
            truncated = infos[i].pop("TimeLimit.truncated")
            if dones[i]:
                # its value is asked for where the episode would have gone on: nothing has ended there
                goes_on = [last, before[i, :-1], np.zeros(1, np.float32)]
                infos[i] |= {
                    "terminal_observation": np.concatenate(goes_on),
                    "TimeLimit.truncated": truncated,
                }
        before[dones] = 0.0
        self._ended[dones] = 0
        return np.concatenate([observations, before], axis=1), rewards, dones, infos


def previous(actions: np.ndarray, rewards: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """What :class:`Trials` tells of the step before, ``(num_envs, num_actions + 2)``."""
    return np.concatenate([actions, rewards[:, None], ends[:, None]], axis=1, dtype=np.float32)


# ------------------------------------------------------------- hyperparameters


@dataclasses.dataclass(frozen=True)
class Range:
    """Finite numbers that a hyperparameter may be."""

    least: float
    """May be, unless ``above``."""
    most: float = math.inf
    """May be."""
    above: bool = False
    """The least is no longer one of them."""

    def __contains__(self, number: float) -> bool:
        least = self.least < number if self.above else self.least <= number
        return math.isfinite(number) and least and number <= self.most

    def __str__(self) -> str:
        least = f"{'above' if self.above else 'at least'} {self.least:g}"
        return least if math.isinf(self.most) else f"{least} and at most {self.most:g}"


POSITIVE, FRACTION = Range(0, above=True), Range(0, 1)
RANGES: Mapping[str, Range] = {
    "batch_size": Range(2),  # advantages are normalised over minibatches
    "n_steps": Range(2),  # and over rollouts, if need be of one world
    "learning_starts": Range(0),
    "top_quantiles_to_drop_per_net": Range(0, 24),  # of 25
    "learning_rate": POSITIVE,
    "clip_range": POSITIVE,
    "max_grad_norm": POSITIVE,
    "target_kl": POSITIVE,
    "gamma": FRACTION,
    "gae_lambda": FRACTION,
    "tau": Range(0, 1, above=True),
    "line_search_shrinking_factor": Range(0, 1, above=True),
}
"""By hyperparameter; otherwise whole numbers are at least 1, and others at least 0."""


def wanted(key: str, value: Any, default: Any) -> str | None:
    """What a hyperparameter must be, by the kind of its default; ``None`` if it is that."""
    is_number = type(value) in (int, float)
    if isinstance(default, bool):
        return None if isinstance(value, bool) else "true or false"
    if isinstance(default, int):
        numbers = RANGES.get(key, Range(1))
        if type(value) is int and (value in numbers or (key == "gradient_steps" and value == -1)):
            return None
        other = "-1, for one after every control step, or " if key == "gradient_steps" else ""
        return f"{other}a whole number, {numbers}"
    if isinstance(default, float):
        numbers = RANGES.get(key, Range(0))
        return None if is_number and value in numbers else f"a number, {numbers}"
    # the coefficient of an entropy that is learned by default
    if isinstance(value, str):
        learned = re.fullmatch(r"auto(?:_(\d*\.?\d+(?:e-?\d+)?))?", value)
        valid = learned is not None and (learned[1] is None or float(learned[1]) in POSITIVE)
    else:
        valid = is_number and value in POSITIVE
    return None if valid else 'a number, above 0, or "auto", or, to be learned from 0.1 on, "auto_0.1"'


# ---------------------------------------------------------------------- agents


class SB3Agent(Agent):
    """One run of an algorithm of Stable-Baselines3; subclasses say which, and with what.

    Hyperparameters are the algorithm's own arguments, but for

    - ``hidden``: units of the hidden layers, of every network;
    - ``normalize_observation``, ``normalize_reward``: what of ``VecNormalize`` is switched on.

    Another number of worlds than the agent was made for is no matter, but that the replay buffer, which
    has a row for each world, begins anew.

    Padded actions, which move nothing, are not masked, a departure from DESIGN, decision 7, that matters
    where bodies are unlike:

    - PPO and RecurrentPPO: noise in the policy gradient, and in the ratio that is clipped, so that what
      a small body's motors learn from a minibatch is cut off sooner.
    - TRPO: the same noise in the gradient, and a share of the KL divergence that a step may have.
    - SAC and TQC: absent motors count in the entropy, whose target is minus the number of entries of the
      padded action. Theirs costs no reward and grows until they are uniform, so that the real motors of a
      small body are given less entropy than a target of their own would give them.
    - TD3: inputs of the critics that mean nothing.
    """

    algorithm: ClassVar[type[BaseAlgorithm]]
    """Of Stable-Baselines3, or of sb3-contrib."""
    policy: ClassVar[str] = "MlpPolicy"
    """The name that the algorithm has for its networks."""
    shape: ClassVar[frozenset[str]] = frozenset({"hidden", "normalize_observation", "normalize_reward"})
    """Hyperparameters that are not the algorithm's arguments; checkpoints with others are refused."""
    own: ClassVar[frozenset[str]] = frozenset()
    """Others that are not the algorithm's arguments."""
    starts = frozenset({"normalizer", "shuffled", "keep_optimizer"})

    @classmethod
    def check(cls, worlds: TaskVectorEnv, config: Mapping[str, Any]) -> None:
        """Refuses what is of another kind than the default, or out of range.

        See :class:`baselines.learner.Described`.
        """
        hidden = config["hidden"]
        if not isinstance(hidden, (list, tuple)) or not hidden:
            raise ValueError(
                f"agent {cls.agent_name()}: hidden must list the units of a layer at least, got {hidden!r}"
            )
        given = {key: (config[key], default) for key, default in cls.hyperparameters.items()}
        del given["hidden"]
        given |= {f"hidden[{i}]": (units, 1) for i, units in enumerate(hidden)}
        for key, (value, default) in given.items():
            if (valid := wanted(key, value, default)) is not None:
                raise ValueError(f"agent {cls.agent_name()}: {key} must be {valid}, got {value!r}")
        check_hidden(hidden)

    @classmethod
    def offers(cls, config: Mapping[str, Any]) -> frozenset[str]:
        """Of ``starts``, what there is with such hyperparameters: a normaliser only where there is one."""
        return cls.starts if config["normalize_observation"] else cls.starts - {"normalizer"}

    def __init__(
        self, worlds: TaskVectorEnv, seed: int, hyperparameters: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        super().__init__(worlds, seed, hyperparameters, device)
        self._device = torch.device(device)
        self._encoding = worlds.encoding
        model, starts, order = np.random.SeedSequence(seed).spawn(3)
        self._model_seed = int(model.generate_state(1)[0])
        self._world_rng = np.random.default_rng(starts)
        self._permuting_generator = torch.Generator()
        self._permuting_generator.manual_seed(int(order.generate_state(1)[0]))
        self._streams: tuple[Any, ...] | None = None
        self._updates = 0
        self._worlds: TaskVectorEnv | None = None
        self._model = self._make_model(worlds)
        self._initial = {name: torch.as_tensor(value).clone() for name, value in self.state().items()}
        self.starts = self.offers(self.config)  # type: ignore[misc]  # what a class offers at most

    # ----------------------------------------------------------- the model

    @contextlib.contextmanager
    def _own_streams(self) -> Iterator[None]:
        """Puts the run's random streams where Stable-Baselines3 draws, and the others back afterwards."""
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            others = random.getstate(), np.random.get_state()  # noqa: NPY002
            if self._streams is not None:
                python, numpy, cpu, *gpus = self._streams
                random.setstate(python)
                np.random.set_state(numpy)  # noqa: NPY002
                torch.set_rng_state(cpu)
                for device, state in zip(devices, gpus, strict=True):
                    torch.cuda.set_rng_state(state, device)
            try:
                yield
            finally:
                gpus = [torch.cuda.get_rng_state(device) for device in devices]
                drawn = np.random.get_state()  # noqa: NPY002
                self._streams = (random.getstate(), drawn, torch.get_rng_state(), *gpus)
                random.setstate(others[0])
                np.random.set_state(others[1])  # noqa: NPY002

    def _make_env(self, worlds: TaskVectorEnv) -> VecEnv:
        """The worlds as the algorithm sees them."""
        env = self._wrapped(TaskVecEnv(worlds))
        if self.config["normalize_observation"] or self.config["normalize_reward"]:
            env = NormalizedWorlds(
                env,
                self._encoding,
                norm_obs=self.config["normalize_observation"],
                norm_reward=self.config["normalize_reward"],
                gamma=self.config["gamma"],
            )
        return env

    def _wrapped(self, env: VecEnv) -> VecEnv:
        """The worlds below the normaliser."""
        return env

    def _make_model(self, worlds: TaskVectorEnv) -> BaseAlgorithm:
        arguments = {k: v for k, v in self.config.items() if k not in self.own | self.shape}
        env = self._make_env(worlds)
        with self._own_streams(), warnings.catch_warnings():
            # a minibatch that is left over at a rollout's end is a smaller one, and no matter
            warnings.filterwarnings("ignore", "You have specified a mini-batch size", UserWarning)
            # a seed starts all streams: only the first model of a run is given one
            seed = self._model_seed if self._streams is None else None
            model: BaseAlgorithm = self.algorithm(
                self.policy,
                env,
                seed=seed,
                device=self._device,
                policy_kwargs=self._policy_arguments(),
                **arguments,
                **self._more_arguments(worlds),
            )
        model.set_logger(Logger(folder=None, output_formats=[]))
        model.action_space = copy.deepcopy(model.action_space)  # its stream is the run's, not the worlds'
        self._zero_told(model.policy)
        self._optimizers_of(model)[0][1].register_step_post_hook(self._count_update)
        return model

    def _policy_arguments(self) -> dict[str, Any]:
        return {"net_arch": list(self.config["hidden"])}

    def _more_arguments(self, worlds: TaskVectorEnv) -> dict[str, Any]:
        """Arguments of the algorithm that are not of JSON types."""
        return {}

    def _count_update(self, *_: Any) -> None:
        self._updates += 1

    @torch.no_grad()
    def _zero_told(self, policy: torch.nn.Module) -> None:
        """Masks and codes enter at zero weight: at first the networks act as if they were not told."""
        told = slice(self._encoding.slices.mask.start, self._encoding.slices.code.stop)
        for weight in first_weights(policy):
            weight[:, told] = 0.0

    def _enter(self, worlds: TaskVectorEnv) -> None:
        """Starts first episodes, staggered so that the worlds do not all end at once."""
        found = layout_facts(worlds)
        if found != self._layout:
            raise ValueError(f"worlds of {found} do not suit an agent for {self._layout}")
        if worlds.num_envs != self._model.n_envs:
            self._rebuild(worlds)
        old, env = self._model.get_vec_normalize_env(), self._make_env(worlds)
        if old is not None:
            assert isinstance(env, NormalizedWorlds)
            env.ret_rms = old.ret_rms
            if old.norm_obs:
                env.obs_rms = old.obs_rms
        env.seed(int(self._world_rng.integers(2**31)))
        elapsed = self._world_rng.integers(worlds.episode_limits)
        env.set_options([{"elapsed_steps": int(steps)} for steps in elapsed])
        self._model.set_env(env)  # which also discards the last observations
        self._worlds = worlds

    def _rebuild(self, worlds: TaskVectorEnv) -> None:
        """Makes the model anew for another number of worlds, with all that was learned."""
        old = self._model
        state = {name: torch.as_tensor(value).clone() for name, value in self.state().items()}
        self._model = self._make_model(worlds)
        for name in CARRIED:
            if hasattr(old, name):
                setattr(self._model, name, getattr(old, name))
        self.restore(state)

    # ---------------------------------------------------------- the interface

    def learn(self, worlds: TaskVectorEnv, steps: int) -> None:
        """Trains for so many more control steps; see :class:`baselines.agent.Agent`.

        Raises:
            ValueError: if the worlds are not of the family and conditioning that the agent was made for.
        """
        if worlds is not self._worlds:
            self._enter(worlds)
        with self._own_streams():
            self._model.learn(steps, log_interval=None, reset_num_timesteps=False)  # type: ignore[arg-type]

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The deterministic policy: observations ``(n, size)`` to actions ``(n, num_actions)``."""
        return self._model.predict(self._inputs(observations), deterministic=True)[0]

    def _inputs(self, observations: np.ndarray) -> np.ndarray:
        """Observations as the networks know them, with statistics as they are."""
        env = self._model.get_vec_normalize_env()
        inputs = observations if env is None else env.normalize_obs(observations)
        assert isinstance(inputs, np.ndarray)
        return inputs

    def evaluate(self, worlds: TaskVectorEnv, seeds: Sequence[int]) -> Episodes:
        """Plays one episode in every world; see :class:`baselines.learner.Learner`."""
        if worlds is self._worlds:
            self._worlds = None  # their training episodes are gone: learn() starts them afresh
        return super().evaluate(worlds, seeds)

    def updates(self) -> int:
        """Gradient updates so far, each on one minibatch."""
        return self._updates

    def describe(self) -> dict[str, Any]:
        """Gradient updates, and parameters of actor and critics; targets, mere copies, do not count."""
        named = self._model.policy.named_parameters()
        parameters = sum(p.numel() for name, p in named if "_target." not in name)
        return {"updates": self.updates(), "parameters": parameters}

    def _optimizers_of(self, model: BaseAlgorithm) -> list[tuple[str, torch.optim.Optimizer]]:
        """Names and optimisers; the first steps once an update."""
        names = [name for name in model._get_torch_save_params()[0] if "optimizer" in name]
        # an actor may be updated less often than its critic
        names.sort(key=lambda name: not name.startswith(("policy", "critic")))
        found = []
        for name in names:
            optimizer: Any = model
            for part in name.split("."):
                optimizer = getattr(optimizer, part)
            found.append((name, optimizer))
        return found

    def _facts(self) -> dict[str, Any]:
        return {**super()._facts(), **{name: self.config[name] for name in sorted(self.shape)}}

    def state(self) -> dict[str, np.ndarray | torch.Tensor]:
        """Weights, entropy coefficient, statistics of the normaliser and the optimisers' state, by name."""
        model = self._model
        state: dict[str, Any] = {f"policy.{k}": v.detach() for k, v in model.policy.state_dict().items()}
        if (coefficient := self._learned_entropy()) is not None:
            state["log_ent_coef"] = coefficient.detach()
        for name, moments in self._moments().items():
            state |= {f"{name}.{key}": np.asarray(getattr(moments, key)) for key in MOMENTS}
        for name, optimizer in self._optimizers_of(model):
            for index, slots in optimizer.state_dict()["state"].items():
                state |= {f"optimizer.{name}.{index}.{key}": value for key, value in slots.items()}
        return state

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Takes over what :meth:`state` gave; optimisers whose state is missing start afresh.

        Raises:
            RuntimeError: if tensors are missing, or of another shape; then nothing is taken over.
        """
        model = self._model
        for name, fresh in self._initial.items():
            require(name, state, fresh.shape)
        optimizers = [
            (optimizer, moments_of(optimizer, f"optimizer.{name}", state))
            for name, optimizer in self._optimizers_of(model)
        ]
        model.policy.load_state_dict(under("policy", state))
        if (coefficient := self._learned_entropy()) is not None:
            with torch.no_grad():
                coefficient.copy_(state["log_ent_coef"])
        for name, moments in self._moments().items():
            for key in MOMENTS:
                number = state[f"{name}.{key}"].cpu().numpy()
                setattr(moments, key, number.copy() if number.shape else number.item())
        for optimizer, kept in optimizers:
            if kept:
                groups = optimizer.state_dict()["param_groups"]
                optimizer.load_state_dict({"state": kept, "param_groups": groups})
            else:
                optimizer.state.clear()

    def load(self, run: int, directory: Path, start: Start = DEFAULT_START) -> None:
        """Starts from a checkpoint, whatever was trained before; see :class:`baselines.agent.Agent`.

        What is not taken over is as it was in the beginning, and worlds start afresh. The random streams
        go on.

        Raises:
            ValueError: also if tensors are missing, or of another shape.
        """
        super().load(run, directory, start)
        self._worlds = None
        self.begin()

    def _learned_entropy(self) -> torch.Tensor | None:
        """Logarithm of the entropy coefficient ``(1,)``, where it is learned and not a hyperparameter."""
        return getattr(self._model, "log_ent_coef", None)

    def _moments(self) -> dict[str, RunningMeanStd]:
        env = self._model.get_vec_normalize_env()
        found: dict[str, RunningMeanStd] = {}
        if env is not None and isinstance(env.obs_rms if env.norm_obs else None, RunningMeanStd):
            found["normalizer"] = env.obs_rms  # type: ignore[assignment]
        if env is not None and env.norm_reward:
            found["returns"] = env.ret_rms
        return found

    def started(self, state: dict[str, torch.Tensor], start: Start) -> dict[str, torch.Tensor]:
        """What is taken over of a checkpoint's state.

        ``part="normalizer"`` is the statistics of observations alone; ``"shuffled"`` is all, the entries of
        every weight array permuted, targets as what they are targets of; not the log standard deviation.

        Returns:
            What :meth:`restore` takes: what is not taken over as it was in the beginning.
        """
        if start.part == "normalizer":
            fresh = {n: v for n, v in self._initial.items() if not n.startswith("normalizer.")}
            return fresh | {n: v for n, v in state.items() if n.startswith("normalizer.")}
        if (learned := self._initial.get("log_ent_coef")) is not None:
            state = {"log_ent_coef": learned, **state}  # the checkpoint's agent may have been given its own
        if not start.keep_optimizer:
            state = {name: value for name, value in state.items() if not name.startswith("optimizer.")}
        if start.part == "shuffled":
            orders: dict[str, torch.Tensor] = {}
            for name, value in state.items():
                if not name.startswith("policy.") or name == "policy.log_std":
                    continue
                online = name.replace("_target.", ".")
                if online not in orders:
                    orders[online] = torch.randperm(value.numel(), generator=self._permuting_generator)
                state[name] = value.flatten()[orders[online]].view_as(value)
        return state


def require(name: str, state: Mapping[str, torch.Tensor], shape: Sequence[int]) -> None:
    """Makes sure that a state has a tensor of that shape.

    Raises:
        RuntimeError: otherwise.
    """
    if name not in state:
        raise RuntimeError(f"it has no {name}")
    if state[name].shape != torch.Size(shape):
        raise RuntimeError(f"{name} has shape {tuple(state[name].shape)}, this agent needs {tuple(shape)}")


def moments_of(
    optimizer: torch.optim.Optimizer, name: str, state: Mapping[str, torch.Tensor]
) -> dict[int, dict[str, torch.Tensor]]:
    """Copies of Adam's state, for ``load_state_dict``; parameters that it has never moved have none.

    Args:
        optimizer: that it is for.
        name: what its tensors are named before ``.index.slot``.
        state: of the agent.

    Raises:
        RuntimeError: if tensors are missing, or of another shape.
    """
    found: dict[int, dict[str, torch.Tensor]] = {}
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for i, parameter in enumerate(parameters):
        if under(f"{name}.{i}", state):
            shapes = {"step": (), "exp_avg": parameter.shape, "exp_avg_sq": parameter.shape}
            for slot, shape in shapes.items():
                require(f"{name}.{i}.{slot}", state, shape)
            found[i] = {slot: state[f"{name}.{i}.{slot}"].clone() for slot in shapes}
    return found


CARRIED = ("num_timesteps", "_n_updates", "action_space", "handed_over")
"""What a model remembers that is no state to be handed on."""
MOMENTS = ("mean", "var", "count")
"""What a running mean and variance consists of."""


def under(name: str, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a state whose names begin with ``name.``, without that."""
    return {key.removeprefix(f"{name}."): v for key, v in state.items() if key.startswith(f"{name}.")}


def first_weights(policy: torch.nn.Module) -> list[torch.Tensor]:
    """Weights ``(units, inputs)`` that observations meet first, of all networks of a policy.

    In Stable-Baselines3 these are an LSTM's where there is one, else the first of a ``Sequential``; critics
    of actions read the observation first.
    """
    if memories := [m for m in policy.modules() if isinstance(m, torch.nn.LSTM)]:
        return [memory.get_parameter("weight_ih_l0") for memory in memories]
    networks = [m for m in policy.modules() if isinstance(m, torch.nn.Sequential) and len(m)]
    return [network[0].weight for network in networks if isinstance(network[0], torch.nn.Linear)]


# ------------------------------------------------------------------- on policy


class OnPolicyAgent(SB3Agent):
    """What agents that learn from whole rollouts have in common."""

    @classmethod
    def rollout(cls, config: Mapping[str, Any]) -> int:
        """Control steps of a world between updates."""
        return int(config["n_steps"])


class PPO(OnPolicyAgent):
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347)."""

    name = "sb3:ppo"
    algorithm = stable_baselines3.PPO
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "learning_rate": 3e-4,
        "n_steps": 32,
        "batch_size": 64,
        "n_epochs": 10,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "clip_range": 0.2,
        "ent_coef": 0.0,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "hidden": [64, 64],
        "normalize_observation": True,
        "normalize_reward": True,
    }
    source = (
        "Stable-Baselines3 2.9's defaults with normalize: true, as rl-baselines3-zoo has for MuJoCo "
        "(mujoco-defaults of ppo.yml); n_steps 2048 of 1 world became 32 of 56, 1792 samples a rollout"
    )


class TRPO(OnPolicyAgent):
    """Trust region policy optimisation (Schulman et al. 2015, arXiv:1502.05477)."""

    name = "sb3:trpo"
    algorithm = sb3_contrib.TRPO
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "learning_rate": 1e-3,
        "n_steps": 32,
        "batch_size": 128,
        "gamma": 0.99,
        "gae_lambda": 0.95,
        "target_kl": 0.01,
        "cg_max_steps": 25,
        "cg_damping": 0.1,
        "line_search_shrinking_factor": 0.8,
        "line_search_max_iter": 10,
        "n_critic_updates": 20,
        "sub_sampling_factor": 1,
        "hidden": [64, 64],
        "normalize_observation": True,
        "normalize_reward": True,
    }
    source = (
        "rl-baselines3-zoo, tuned for Walker2d-v4 (trpo.yml); n_steps 1024 of 2 worlds became 32 of 56, "
        "1792 samples a rollout"
    )

    def updates(self) -> int:
        """Gradient updates of the critic on minibatches, and of the policy on whole rollouts."""
        return super().updates() + self._model._n_updates


class RecurrentPPO(OnPolicyAgent):
    """PPO with an LSTM; with ``meta``, RL2 (Duan et al. 2016, arXiv:1611.02779).

    RL2 is told the previous action, reward and end of episode, and its memory lasts for a trial: for
    ``trial_episodes`` episodes of one task. An evaluated episode is the first of a trial, because what it
    would learn in earlier ones would be control steps that nobody counted. ``meta=False`` makes every
    episode a trial and tells nothing more than the observation.

    Its own hyperparameters: ``hidden`` is the LSTM's units, then those of the layers behind it.
    """

    name = "sb3:recurrentppo"
    algorithm = sb3_contrib.RecurrentPPO
    policy = "MlpLstmPolicy"
    shape = SB3Agent.shape | {"meta"}
    own = frozenset({"trial_episodes"})
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "learning_rate": 3e-4,
        "n_steps": 64,
        "batch_size": 448,
        "n_epochs": 10,
        "gamma": 0.99,
        "gae_lambda": 0.9,
        "clip_range": 0.2,
        "ent_coef": 0.0,
        "vf_coef": 0.5,
        "max_grad_norm": 0.5,
        "hidden": [128],
        "normalize_observation": True,
        "normalize_reward": True,
        "meta": True,
        "trial_episodes": 2,
    }
    source = (
        "rl-baselines3-zoo for HalfCheetahBulletEnv-v0 (ppo_lstm.yml), with its LSTM of 128 and nothing "
        "behind it, but without its ortho_init=False; n_steps 256 of 16 worlds became 64 of 56, 3584 "
        "samples a rollout; batch_size 128 became 448, the steps of 7 worlds, for speed; evaluated in the "
        "first episode of a trial"
    )

    def __init__(
        self, worlds: TaskVectorEnv, seed: int, hyperparameters: Mapping[str, Any], device: str = "cpu"
    ) -> None:
        super().__init__(worlds, seed, hyperparameters, device)
        self._num_actions = worlds.num_actions
        self.begin()

    def _wrapped(self, env: VecEnv) -> VecEnv:
        return Trials(env, self.config["trial_episodes"]) if self.config["meta"] else env

    def _policy_arguments(self) -> dict[str, Any]:
        memory, *behind = self.config["hidden"]
        return {"lstm_hidden_size": memory, "net_arch": behind}

    def begin(self) -> None:
        """Forgets: trials begin."""
        self._memory: Any = None
        self._before = np.empty((0, 0), np.float32)

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The policy without noise, which remembers: observations ``(n, size)`` to actions.

        Calls go on with the memory of the one before, of as many worlds, until :meth:`begin`; where
        :meth:`told` is not called, it is not told rewards and ends either.
        """
        if len(self._before) != len(observations):
            self._memory = None
            self._before = np.zeros((len(observations), self._num_actions + 2), np.float32)
        inputs = (
            np.concatenate([observations, self._before], axis=1) if self.config["meta"] else observations
        )
        actions, self._memory = self._model.predict(
            self._inputs(inputs), state=self._memory, deterministic=True
        )
        nothing = np.zeros(len(actions))
        self._before = previous(actions, nothing, nothing)
        return actions

    def told(self, rewards: np.ndarray, ends: np.ndarray) -> None:
        """Remembers rewards ``(n,)`` of the last actions, and which of them ended an episode, ``(n,)``."""
        self._before[:, -2], self._before[:, -1] = rewards, ends


# ------------------------------------------------------------------ off policy


class _Experienced:
    """A mixin for off-policy algorithms: what was handed over, not chance, acts while the buffer fills."""

    handed_over = False

    def _sample_action(self, learning_starts: int, *args: Any, **kwargs: Any) -> Any:
        return super()._sample_action(0 if self.handed_over else learning_starts, *args, **kwargs)  # type: ignore[misc]


class _SAC(_Experienced, stable_baselines3.SAC):
    pass


class _TD3(_Experienced, stable_baselines3.TD3):
    pass


class _TQC(_Experienced, sb3_contrib.TQC):
    pass


class OffPolicyAgent(SB3Agent):
    """What agents that learn from a replay buffer have in common.

    For its first ``learning_starts`` control steps, which count like all others, a fresh agent acts at
    random and one that was handed over acts with its policy; neither learns yet.

    The published ratio is one update for every control step. On one thread an update with
    layers of 256 took 15 ms (SAC), 10 ms (TD3) or 30 ms (TQC), so that 100,000 steps would take 25, 15 or
    45 minutes; by default there are an eighth as many updates, in 2 to 6 minutes.
    """

    @classmethod
    def rollout(cls, config: Mapping[str, Any]) -> int:
        """Control steps of a world between updates."""
        return int(config["train_freq"])

    def load(self, run: int, directory: Path, start: Start = DEFAULT_START) -> None:
        """Starts from a checkpoint, with an empty replay buffer; see :class:`SB3Agent`."""
        super().load(run, directory, start)
        model: Any = self._model
        model.replay_buffer.reset()
        model.num_timesteps = model._n_updates = 0
        model.handed_over = start.part != "normalizer"  # whose weights are fresh


class SAC(OffPolicyAgent):
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905)."""

    name = "sb3:sac"
    algorithm = _SAC
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "learning_rate": 3e-4,
        "buffer_size": 1_000_000,
        "learning_starts": 10_000,
        "batch_size": 256,
        "tau": 0.005,
        "gamma": 0.99,
        "train_freq": 1,
        "gradient_steps": 7,
        "ent_coef": "auto",
        "target_update_interval": 1,
        "hidden": [256, 256],
        "normalize_observation": False,
        "normalize_reward": False,
    }
    source = (
        "rl-baselines3-zoo for MuJoCo (mujoco-defaults of sac.yml: Stable-Baselines3's defaults with "
        "learning_starts 10000); gradient_steps 7 after every step of all worlds, with 56 worlds an eighth "
        "of the published updates, for speed: gradient_steps -1 is all of them"
    )


class TD3(OffPolicyAgent):
    """Twin delayed deep deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477).

    Its own hyperparameter: ``action_noise_std``, the standard deviation of the noise of actions.
    """

    name = "sb3:td3"
    algorithm = _TD3
    own = frozenset({"action_noise_std"})
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        "learning_rate": 1e-3,
        "buffer_size": 1_000_000,
        "learning_starts": 10_000,
        "batch_size": 256,
        "tau": 0.005,
        "gamma": 0.99,
        "train_freq": 1,
        "gradient_steps": 7,
        "policy_delay": 2,
        "target_policy_noise": 0.2,
        "target_noise_clip": 0.5,
        "action_noise_std": 0.1,
        "hidden": [256, 256],
        "normalize_observation": False,
        "normalize_reward": False,
    }
    source = (
        "Stable-Baselines3 2.9's defaults, with learning_starts 10000 and noise of 0.1 as "
        "rl-baselines3-zoo (td3.yml) and the paper have, layers of 256 as SAC; gradient_steps 7 after "
        "every step of all worlds, with 56 worlds an eighth of the published updates, for speed: "
        "gradient_steps -1 is all of them"
    )

    def _more_arguments(self, worlds: TaskVectorEnv) -> dict[str, Any]:
        std = np.full(worlds.num_actions, self.config["action_noise_std"], np.float32)
        return {"action_noise": NormalActionNoise(np.zeros_like(std), std)}


class TQC(OffPolicyAgent):
    """Truncated quantile critics (Kuznetsov et al. 2020, arXiv:2005.04269)."""

    name = "sb3:tqc"
    algorithm = _TQC
    hyperparameters: ClassVar[Mapping[str, Any]] = {
        **SAC.hyperparameters,
        "top_quantiles_to_drop_per_net": 2,
    }
    source = (
        "sb3-contrib 2.9's defaults, with learning_starts 10000 as SAC; gradient_steps 7 after every "
        "step of all worlds, with 56 worlds an eighth of the published updates, for speed: "
        "gradient_steps -1 is all of them"
    )
