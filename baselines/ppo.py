"""Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347) of many runs at once.

R runs of W worlds each are laid out ``[run, world]``; row r of every tensor belongs to run r alone,
so a run's result does not depend on its neighbours. Read from top to bottom: configuration, the
advantage estimate, then the learner with its rollout and its update.

In the words of Huang et al. 2022 ("The 37 implementation details of PPO"): separate actor and
critic, orthogonal initialisation, state-independent log standard deviation, running normalisation
of observations and of the reward's scale, advantages normalised (here per task), clipped
surrogate, gradient clipping, Adam with eps 1e-5; a constant learning rate and no value clipping.
Truncated episodes bootstrap from the value of their final observation, terminated ones do not.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from baselines.architectures import find_architecture
from baselines.checkpoint import check_moments, load_checkpoint, save_checkpoint
from baselines.experience import Experience, idle
from baselines.learner import (
    DEFAULT_START,
    STARTS,
    Described,
    Episodes,
    Start,
    check_hidden,
    layout_facts,
    play_episodes,
)
from baselines.reward_scale import RETURN_SCALES, RewardScale
from baselines.stacked import RunningMoments, Shape, StackedAdam, StackedParameters, clip_gradient
from mtenvs import counter_random
from mtenvs.cuda_graphs import captured
from mtenvs.spec import NotFiniteError, did_you_mean
from mtenvs.vector_env import TaskVectorEnv, VectorWorlds

if TYPE_CHECKING:  # they need MuJoCo Warp
    from baselines.device import Player, Rollouts


ADAM = ("first", "second", "clock")
COUNTERS = ("steps", "updates", "_rollouts_made")


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Hyperparameters of one run; all runs of a learner share them."""

    num_steps: int = 32
    """Control steps of every world between updates."""
    num_minibatches: int = 8
    """Equal parts that a rollout is cut into in each epoch."""
    update_epochs: int = 6
    """Passes over a rollout."""
    learning_rate: float = 5e-4
    """Adam's rate, constant."""
    gamma: float = 0.99
    """Discount factor."""
    gae_lambda: float = 0.95
    """Mixing factor of the advantage estimate."""
    clip_coef: float = 0.2
    """Half width of the interval that probability ratios are clipped to."""
    ent_coef: float = 0.0
    """Weight of the entropy bonus."""
    vf_coef: float = 0.5
    """Weight of the value loss."""
    max_grad_norm: float = 0.5
    """Largest gradient norm, per run."""
    hidden: tuple[int, ...] = (64, 64)
    """Units of the hidden layers, of actor and critic each."""
    architecture: str = "concatenation"
    """How actor and critic use what they are told, one of ``baselines.architectures.ARCHITECTURES``."""
    initial_log_std: float = -0.5
    """Logarithm of the standard deviation of actions at the start."""
    clip_observation: float = 10.0
    """Normalised observations are clipped to this many standard deviations."""
    return_scale: str = "run"
    """Rewards are divided by the deviation of the discounted returns of the whole run, or of each task."""


def generalised_advantages(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminations: Tensor,
    dones: Tensor,
    gamma: float,
    gae_lambda: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438, equation 16).

    Args:
        rewards: ``(T, ...)``.
        values: V of the observation that was acted on, ``(T, ...)``.
        next_values: V of what came next, of the *final* observation where an episode ended, ``(T, ...)``.
        terminations: where the future is worth nothing, ``(T, ...)`` of bool.
        dones: where an episode ended, for whatever reason, ``(T, ...)`` of bool.
        gamma: discount factor.
        gae_lambda: mixing factor.

    Returns:
        Advantages, ``(T, ...)``.
    """
    # delta_t = r_t + gamma V(s_t+1) [not terminated] - V(s_t)
    deltas = rewards + gamma * next_values * ~terminations - values
    advantages = torch.empty_like(deltas)
    carried = torch.zeros_like(deltas[0])
    for t in reversed(range(len(deltas))):
        # A_t = delta_t + gamma lambda A_t+1 [same episode]
        carried = deltas[t] + gamma * gae_lambda * ~dones[t] * carried
        advantages[t] = carried
    return advantages


class PPO(Described):
    """Trains R runs at once; a :class:`baselines.learner.Learner`.

    Args:
        worlds: any worlds of the family and conditioning to be trained on; only their layout is read.
        seeds: one per run. Every random stream of a run derives from its seed.
        config: hyperparameters.
        device: ``"cpu"``, ``"cuda"`` or another PyTorch device.
    """

    name = "ppo"
    # through JSON, so that what is frozen equals what is read back
    hyperparameters: ClassVar[Mapping[str, Any]] = json.loads(json.dumps(dataclasses.asdict(PPOConfig())))
    family_hyperparameters: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        # It starts lying anywhere and has to stand up first, so it needs longer rollouts and more noise.
        # Tuned on tasks that are not published: speeds 2.5, -0.6 and 6 m/s, lifts of 0.05 and 0.1 m, also
        # at 0.6 m/s.
        "DMWalker": {"num_steps": 64, "num_minibatches": 16, "initial_log_std": 0.0, "ent_coef": 0.005},
        "BipedSkills": {"hidden": [128, 128]},  # results/tuning, which says why
        "Octopus": {"learning_rate": 1e-3},  # results/tuning
    }
    source = "this project; tuned on sampled tasks only"
    # results/tuning has the trials, confirmations included, and what was adopted; not of DMWalker, whose
    # tuning was before that record
    tuning: ClassVar[Mapping[str, tuple[int, int]]] = {
        "Biped": (10, 6_000_000),
        "BipedSkills": (14, 11_200_000),
        "DMWalker": (5, 900_000),
        "Octopus": (11, 4_000_000),
    }
    many_runs = True
    device_worlds = True
    starts = STARTS

    @classmethod
    def check(cls, worlds: TaskVectorEnv, config: Mapping[str, Any]) -> None:
        """Refuses hyperparameters out of range, and an architecture that is none for such worlds."""
        for key in ("num_steps", "num_minibatches", "update_epochs"):
            if config[key] < 1:
                raise ValueError(f"{key} must be at least 1, got {config[key]}")
        for key in ("learning_rate", "max_grad_norm", "clip_coef", "clip_observation"):
            if not config[key] > 0:
                raise ValueError(f"{key} must be positive, got {config[key]}")
        for key in ("gamma", "gae_lambda"):
            if not 0 <= config[key] <= 1:
                raise ValueError(f"{key} must be in [0, 1], got {config[key]}")
        for key in ("ent_coef", "vf_coef"):
            if config[key] < 0:
                raise ValueError(f"{key} must not be negative, got {config[key]}")
        if not all(isinstance(units, int) and units > 0 for units in config["hidden"]):
            raise ValueError(f"hidden must be a list of whole numbers above 0, got {config['hidden']}")
        check_hidden(config["hidden"])
        find_architecture(config["architecture"], worlds.conditioning, config["hidden"])
        if (scale := config["return_scale"]) not in RETURN_SCALES:
            raise ValueError(
                f"unknown return_scale {scale!r}{did_you_mean(scale, RETURN_SCALES)}; "
                f"valid: {', '.join(RETURN_SCALES)}"
            )

    @classmethod
    def make(
        cls, worlds: TaskVectorEnv, seeds: Sequence[int], config: Mapping[str, Any], device: str = "cpu"
    ) -> PPO:
        """Makes the learner of some runs; see :class:`baselines.learner.Described`."""
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        return cls(worlds, seeds, PPOConfig(**values), device)

    def __init__(
        self,
        worlds: TaskVectorEnv,
        seeds: Sequence[int],
        config: PPOConfig | None = None,
        device: str = "cpu",
    ) -> None:
        self.config = config = PPOConfig() if config is None else config
        self.check(worlds, dataclasses.asdict(config))
        self.device = torch.zeros(0, device=device).device  # with its number, as worlds have it
        self.num_runs = len(seeds)
        self.steps, self.updates = 0, 0
        self._layout = layout_facts(worlds)
        self._slices = slices = worlds.observation_slices
        self._padding = None if slices.mask.start == slices.mask.stop else _Padding(worlds, self.device)
        self._num_actions = worlds.num_actions

        # one stream per run and purpose
        streams = [np.random.SeedSequence(seed).spawn(5) for seed in seeds]
        initial = [_torch_generator(s[0]) for s in streams]
        self._world_rngs = [np.random.default_rng(s[1]) for s in streams]
        self._noise_generators = [_torch_generator(s[2]) for s in streams]
        self._shuffle_generators = [_torch_generator(s[3]) for s in streams]
        self._permuting_generators = [_torch_generator(s[4]) for s in streams]
        # on a device, keys of counter-based streams: a run's noise and its shuffles
        self._keys = torch.tensor(
            [[_word(s[2]), _word(s[3])] for s in streams], dtype=torch.int64, device=self.device
        )
        self._rollouts_made = 0

        network = find_architecture(config.architecture, worlds.conditioning, config.hidden)
        self._actor = network("actor", slices, config.hidden, self._num_actions, head_gain=0.01)
        self._critic = network("critic", slices, config.hidden, 1, head_gain=1.0)
        log_std = Shape("log_std", (1, self._num_actions), 0.0, config.initial_log_std)
        shapes = [*self._actor.shapes, *self._critic.shapes, log_std]
        self._parameters = StackedParameters(shapes, initial, self.device)
        self._initial = self._parameters.flat.detach().clone()
        self._frozen = torch.zeros_like(self._initial, dtype=torch.bool)
        self._any_frozen = False
        rates = torch.full((self.num_runs,), config.learning_rate)
        self._adam = StackedAdam(self._parameters.flat, rates)
        self._active = torch.ones(self.num_runs, dtype=torch.bool, device=self.device)
        self._observation_moments = RunningMoments(self.num_runs, slices.body.stop, self.device)
        self._reward_scale = RewardScale(self.num_runs, config.gamma, config.return_scale, self.device)
        self._mean = torch.zeros(self.num_runs, 1, slices.size, device=self.device)
        self._inverse_std = torch.ones_like(self._mean)
        self._set_scale()

        self._worlds: VectorWorlds | None = None
        self._rollouts: Rollouts | None = None
        self._players: dict[VectorWorlds, Player] = {}
        self._minibatch: tuple[Tensor, Callable[[], None]] | None = None

    # ------------------------------------------------------------------ acting

    def _set_scale(self) -> None:
        """Freezes the normaliser until the next update; masks and codes pass through unchanged."""
        body, moments = self._slices.body.stop, self._observation_moments
        # in place: what is captured reads these
        self._mean[:, 0, :body] = moments.mean.float()
        self._inverse_std[:, 0, :body] = (moments.var + 1e-8).rsqrt().float()

    def _normalise(self, observations: Tensor, runs: slice = slice(None)) -> Tensor:
        """Observations ``(R, n, size)`` of some runs to network inputs, zero where they are padded."""
        bound = self.config.clip_observation
        inputs = (observations - self._mean[runs]) * self._inverse_std[runs]
        if self._padding is not None:
            inputs[..., self._slices.body] *= self._padding.of_body(observations)
        return inputs.clamp_(-bound, bound)

    def _blocks(self, array: np.ndarray) -> Tensor:
        """``(num_envs, ...)`` to ``(R, W, ...)`` on the device."""
        tensor = torch.from_numpy(array).to(self.device)
        return tensor.view(self.num_runs, -1, *tensor.shape[1:])

    @torch.no_grad()
    def act(self, observations: np.ndarray) -> np.ndarray:
        """The deterministic policy: observations ``(num_envs, size)`` to actions ``(num_envs, nu)``."""
        inputs = self._normalise(self._blocks(observations))
        return self._to_worlds(self._actor(inputs, self._parameters.views()))

    def _to_worlds(self, actions: Tensor) -> np.ndarray:
        return self._idle(actions).reshape(-1, self._num_actions).cpu().numpy()

    def _idle(self, actions: Tensor) -> Tensor:
        """Actions ``(R, W, nu)`` with none of diverged runs, so that their neighbours go on."""
        return idle(self._active, actions)

    def _policy(self, observations: Tensor) -> Tensor:
        """The deterministic policy on the device: ``(R, W, size)`` to ``(R, W, nu)``."""
        return self._idle(self._actor(self._normalise(observations), self._parameters.views()))

    def evaluate(self, worlds: Any, seeds: Sequence[int]) -> Episodes:
        """Plays one episode in every world; see :class:`baselines.learner.Learner`."""
        if worlds is self._worlds:
            self._worlds = None  # their training episodes are gone: train() starts them afresh
        self._mark_diverged()
        if isinstance(worlds, TaskVectorEnv):
            return play_episodes(self.act, worlds, seeds)
        if worlds not in self._players:
            from baselines.device import Player

            self._players[worlds] = Player(worlds, self.num_runs, self._policy)
        return self._players[worlds].play(seeds)

    def _mark_diverged(self) -> None:
        """Stops runs with a bad number in what they have learned, wherever it came from, for good."""
        learned = [self._parameters.flat.detach(), *(getattr(self._adam, name) for name in ADAM)]
        for moments in (self._observation_moments, self._reward_scale.moments):
            learned += moments.get_state().values()
        for tensor in learned:
            self._active &= torch.isfinite(tensor).all(dim=1)

    # ---------------------------------------------------------------- training

    def train(self, worlds: Any, until: int, progress: Callable[[int], object] | None = None) -> int:
        """Trains to at least ``until`` steps per run; see :class:`baselines.learner.Learner`.

        On worlds of a device all stays there: noise and shuffles are drawn there, by counter, and steps and
        updates are captured in CUDA graphs.

        Raises:
            ValueError: if the worlds are not R equal blocks of the family and conditioning, or live on
                another device.
        """
        if worlds is not self._worlds:
            self._enter(worlds)
        per_rollout = self.config.num_steps * (worlds.num_envs // self.num_runs)
        while self.steps < until:
            self._update(*self._rollout(worlds))
            self.steps += per_rollout
            if progress is not None:
                progress(per_rollout * self.num_runs)
        return self.steps

    def _enter(self, worlds: VectorWorlds) -> None:
        """Starts first episodes, staggered so that the worlds do not all end at once."""
        there = getattr(worlds, "device", None)  # NumPy's worlds may be trained on with any
        if there not in (None, self.device):
            raise ValueError(f"worlds on {there} do not suit a learner on {self.device}")
        found = layout_facts(worlds)
        if found != self._layout or worlds.num_envs % self.num_runs:
            raise ValueError(
                f"worlds of {found} in number {worlds.num_envs} do not suit {self.num_runs} runs of "
                f"{self._layout}"
            )
        width = worlds.num_envs // self.num_runs
        if (self.config.num_steps * width) % self.config.num_minibatches:
            raise ValueError(
                f"a rollout of {self.config.num_steps} x {width} steps cannot be cut into "
                f"num_minibatches={self.config.num_minibatches} equal parts"
            )
        self._attach(worlds, width)
        limit = worlds.max_episode_steps
        seeds = [int(s) for rng in self._world_rngs for s in rng.integers(2**31, size=width)]
        elapsed = np.concatenate([rng.integers(limit, size=width) for rng in self._world_rngs])
        elapsed %= worlds.episode_limits  # of worlds whose family has shorter episodes
        self._observations, _ = worlds.reset(seed=seeds, options={"elapsed_steps": elapsed})  # type: ignore[arg-type]

    def _attach(self, worlds: VectorWorlds, width: int) -> None:
        """Learns from now on from these worlds, ``width`` of each run."""
        there = getattr(worlds, "device", None)
        self._rollouts = None
        keys = [f"{task.family}/{task.name}" for task in worlds.tasks]
        self._reward_scale.enter([keys[i : i + width] for i in range(0, len(keys), width)])
        # which task of its run every world has, for the advantages
        names: dict[Any, int] = {}
        slots = [names.setdefault((i // width, t), len(names)) for i, t in enumerate(worlds.tasks)]
        self._task_slots = torch.tensor(slots, device=self.device).view(self.num_runs, width)
        self._worlds = worlds
        if there is not None:
            from baselines.device import Rollouts

            # slots are numbered run by run
            local = self._task_slots - self._task_slots.amin(dim=1, keepdim=True)
            self._members = torch.nn.functional.one_hot(local).float()
            steps = self.config.num_steps
            self._rollouts = Rollouts(
                worlds,  # type: ignore[arg-type]  # what has a device is a DeviceVectorEnv
                self.num_runs,
                steps,
                lambda seen: self._actor(self._normalise(seen), self._parameters.views()),
                lambda: self._parameters.views()["log_std"].exp(),
                self._active,
            )

    @torch.no_grad()
    def _rollout(self, worlds: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Acts for ``num_steps`` steps.

        Returns:
            Inputs ``(R, T W, size)``, actions ``(R, T W, nu)``, and log-probabilities, advantages and
            value targets, each ``(R, T W)``.
        """
        config, runs = self.config, self.num_runs
        width, steps = worlds.num_envs // runs, config.num_steps
        parameters = self._parameters.views()
        log_std = parameters["log_std"]
        self._mark_diverged()
        brought = self._collect(worlds) if self._rollouts is None else self._rollouts.collect(self._noise())
        observed, dones, noise = brought.observed, brought.dones, brought.noise

        def by_run(tensor: Tensor) -> Tensor:  # (T, R, W, ...) to (R, T W, ...)
            return tensor.transpose(0, 1).reshape(runs, -1, *tensor.shape[3:])

        inputs = self._normalise(by_run(observed))
        values = self._critic(inputs, parameters).view(runs, steps + 1, width).transpose(0, 1)
        if isinstance(brought.finals, Tensor):
            next_values = self._critic(self._normalise(by_run(brought.finals)), parameters)
            next_values = next_values.view(runs, steps, width).transpose(0, 1)
        else:
            next_values = values[1:].clone()
            for step, world, final in brought.finals:
                run = world // width
                one = slice(run, run + 1)
                x = self._normalise(torch.from_numpy(final).to(self.device).view(1, 1, -1), one)
                own = {name: stacked[one] for name, stacked in parameters.items()}
                next_values[step, run, world % width] = self._critic(x, own).view(())

        scaled = self._reward_scale(brought.rewards, dones)
        advantages = generalised_advantages(
            scaled, values[:-1], next_values, brought.terminations, dones, config.gamma, config.gae_lambda
        )
        targets = advantages + values[:-1]
        # log N(a; mean, std) with (a - mean) / std = noise
        log_probs = -0.5 * noise**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        # the statistics move only now, so that acting and learning saw the same inputs
        seen, present = by_run(observed[:-1]), None
        if self._padding is not None:
            log_probs = log_probs * self._padding.of_actions(observed[:-1])
            present = self._padding.of_body(seen)
        self._observation_moments.update(seen[..., self._slices.body], present)
        self._set_scale()
        return (
            inputs[:, : steps * width],
            by_run(brought.actions),
            by_run(log_probs.sum(-1)),
            by_run(self._normalise_advantages(advantages)),
            by_run(targets),
        )

    def _collect(self, worlds: TaskVectorEnv) -> Experience:
        """Acts in NumPy's worlds."""
        runs, steps = self.num_runs, self.config.num_steps
        width = worlds.num_envs // runs
        parameters = self._parameters.views()
        std = parameters["log_std"].exp()
        noise = torch.stack(
            [torch.randn(steps, width, self._num_actions, generator=g) for g in self._noise_generators],
            dim=1,
        ).to(self.device)  # (T, R, W, nu)
        observed = torch.empty(steps + 1, runs, width, self._slices.size, device=self.device)
        actions = torch.empty_like(noise)
        rewards = torch.empty(steps, runs, width, dtype=torch.float64, device=self.device)
        terminations = torch.empty(steps, runs, width, dtype=torch.bool, device=self.device)
        dones = torch.empty_like(terminations)
        finals: list[tuple[int, int, np.ndarray]] = []
        for t in range(steps):
            observed[t] = self._blocks(self._observations)
            means = self._actor(self._normalise(observed[t]), parameters)
            actions[t] = torch.addcmul(means, std, noise[t])
            self._observations, reward, terminated, truncation, info = worlds.step(
                self._to_worlds(actions[t])
            )
            rewards[t] = self._blocks(reward)
            terminations[t] = self._blocks(terminated)
            dones[t] = self._blocks(terminated | truncation)
            for world in map(int, np.flatnonzero(truncation & ~terminated)):
                finals.append((t, world, info["final_obs"][world]))
        observed[steps] = self._blocks(self._observations)
        return Experience(observed, actions, noise, rewards, terminations, dones, finals)

    def _noise(self) -> Tensor:
        """What a rollout on a device is disturbed by, of every run's own stream, ``(T, R, W, nu)``."""
        steps, width = self.config.num_steps, self._task_slots.shape[1]
        drawn = counter_random.normal(
            self._keys[:, 0], self._rollouts_made, steps * width * self._num_actions
        )
        self._rollouts_made += 1
        return drawn.view(self.num_runs, steps, width, -1).transpose(0, 1)

    def _order(self, samples: int) -> Tensor:
        """A shuffle of every run's samples, ``(R, samples)``, from its own stream."""
        if self._rollouts is None:
            found = [torch.randperm(samples, generator=g) for g in self._shuffle_generators]
            return torch.stack(found).to(self.device)
        # the order of random words is a random order; one for every epoch of every rollout
        epoch = self.updates // self.config.num_minibatches
        return counter_random.words(self._keys[:, 1], epoch, samples).argsort(dim=1)

    def _normalise_advantages(self, advantages: Tensor) -> Tensor:
        """Zero mean and unit deviation per run *and task*, so that no task drowns the others."""
        if self._rollouts is not None:
            # products of matrices add up in an order of their own, index_add_ on a GPU in none
            return self._normalise_by(self._members, advantages)
        slots = self._task_slots.expand_as(advantages).reshape(-1)
        flat = advantages.reshape(-1)
        count = int(self._task_slots.max()) + 1
        total = torch.bincount(slots, minlength=count)
        mean = torch.zeros(count, device=self.device).index_add_(0, slots, flat) / total
        centred = flat - mean[slots]
        square = torch.zeros(count, device=self.device).index_add_(0, slots, centred**2)
        deviation = (square / (total - 1).clamp(min=1)).sqrt()
        return (centred / (deviation[slots] + 1e-8)).view_as(advantages)

    @staticmethod
    def _normalise_by(members: Tensor, advantages: Tensor) -> Tensor:
        """The same, by which worlds have which task of their run, ``(R, W, K)`` of 0 and 1."""

        def sums(x: Tensor) -> Tensor:  # (T, R, W) to (R, K, 1)
            return torch.bmm(x.sum(0).unsqueeze(1), members).transpose(1, 2)

        # runs may have fewer tasks than others
        total = (len(advantages) * members.sum(1).unsqueeze(2)).clamp(min=1)
        centred = advantages - torch.bmm(members, sums(advantages) / total).squeeze(2)
        deviation = (sums(centred**2) / (total - 1).clamp(min=1)).sqrt()
        return centred / (torch.bmm(members, deviation).squeeze(2) + 1e-8)

    def _update(
        self, inputs: Tensor, actions: Tensor, log_probs: Tensor, advantages: Tensor, targets: Tensor
    ) -> None:
        """Several epochs of minibatch steps on one rollout; shapes as :meth:`_rollout` returns them."""
        config = self.config
        samples = inputs.shape[1]
        size = samples // config.num_minibatches
        # one table, so that a shuffle is one gather
        table = torch.cat(
            [inputs, actions, log_probs[..., None], advantages[..., None], targets[..., None]], dim=2
        )
        offsets = torch.arange(self.num_runs, device=self.device).view(-1, 1) * samples
        for _ in range(config.update_epochs):
            rows = (self._order(samples) + offsets).view(-1)
            shuffled = table.view(-1, table.shape[2]).index_select(0, rows).view_as(table)
            for start in range(0, samples, size):
                self._learn(shuffled[:, start : start + size])
                self.updates += 1

    def _learn(self, batch: Tensor) -> None:
        """One minibatch step on rows of the table, ``(R, size, columns)``; on a device, captured."""
        if self._rollouts is None:
            self._descend(batch)
            return
        if self._minibatch is None or self._minibatch[0].shape != batch.shape:
            kept = torch.empty_like(batch, memory_format=torch.contiguous_format)
            self._minibatch = kept, captured(lambda: self._descend(kept), self.device)
        kept, step = self._minibatch
        kept.copy_(batch)
        step()

    def _descend(self, batch: Tensor) -> None:
        widths = [self._slices.size, self._num_actions, 1, 1, 1]
        x, a, old, advantage, target = batch.split(widths, dim=2)
        loss = self._loss(x, a, old.squeeze(2), advantage.squeeze(2), target.squeeze(2))
        (gradient,) = torch.autograd.grad(loss.sum(), self._parameters.flat)
        # a run with a bad number stops for good and keeps its last good parameters
        self._active &= torch.isfinite(gradient).all(dim=1)
        frozen = self._frozen if self._any_frozen else None
        if frozen is not None:  # what stands still takes no part in the norm
            gradient = gradient.masked_fill(frozen, 0.0)
        gradient = clip_gradient(gradient, self.config.max_grad_norm)
        self._adam.step(self._parameters.flat, gradient, self._active, frozen)

    def _loss(self, x: Tensor, actions: Tensor, old: Tensor, advantage: Tensor, target: Tensor) -> Tensor:
        """The loss of every run, ``(R,)``: each the mean over its own samples."""
        config = self.config
        parameters = self._parameters.views()
        means = self._actor(x, parameters)
        values = self._critic(x, parameters).squeeze(2)
        log_std = parameters["log_std"]
        # log N(a; mean, std), summed over the action's entries
        scaled = (actions - means) * (-log_std).exp()
        each = -0.5 * scaled**2 - log_std - 0.5 * math.log(2.0 * math.pi)
        if self._padding is not None:  # inputs carry the mask as it was observed
            acting = self._padding.of_actions(x)
            each = each * acting
        ratio = (each.sum(2) - old).exp()
        # L_clip = -E[min(r A, clip(r, 1 - eps, 1 + eps) A)]
        clipped = ratio.clamp(1.0 - config.clip_coef, 1.0 + config.clip_coef)
        policy_loss = -torch.minimum(ratio * advantage, clipped * advantage).mean(1)
        value_loss = ((values - target) ** 2).mean(1)
        loss = policy_loss + config.vf_coef * value_loss
        if config.ent_coef:
            # H[N] = log std + (1 + log 2 pi) / 2 per entry
            entropy = log_std + 0.5 * (1.0 + math.log(2.0 * math.pi))
            if self._padding is not None:
                entropy = (entropy * acting).mean(1, keepdim=True)
            entropy = entropy.sum((1, 2))
            loss = loss - config.ent_coef * entropy
        return loss

    # ----------------------------------------------------------------- resuming

    def get_state(self) -> dict[str, Any]:
        """All that the future of all runs depends on, of the worlds that they are trained on too.

        Between rollouts, training goes on from it as if nothing had happened, bit for bit on the same
        processor with the same number of threads.

        Returns:
            Dictionaries and lists of tensors, arrays and JSON types.
        """
        streams = {
            "worlds": [rng.bit_generator.state for rng in self._world_rngs],
            "noise": [g.get_state() for g in self._noise_generators],
            "shuffle": [g.get_state() for g in self._shuffle_generators],
            "permuting": [g.get_state() for g in self._permuting_generators],
        }
        learned = {
            "parameters": self._parameters.flat.detach(),
            "frozen": self._frozen,
            "active": self._active,
            **{f"adam_{name}": getattr(self._adam, name) for name in ADAM},
        }
        counters = {name: getattr(self, name) for name in COUNTERS}
        entered = None
        if self._worlds is not None:
            entered = {"worlds": self._worlds.get_state(), "returns": self._reward_scale.get_state()}
        moments = self._observation_moments.get_state()
        return {"streams": streams, "moments": moments, "entered": entered, **learned, **counters}

    def set_state(self, state: Mapping[str, Any], worlds: Any) -> None:
        """Restores what :meth:`get_state` returned, in a learner made with the same seeds.

        Args:
            state: what was returned; tensors may have taken the place of arrays.
            worlds: of the same tasks as those that were trained on; their state is restored too.
        """
        for rng, own in zip(self._world_rngs, state["streams"]["worlds"], strict=True):
            rng.bit_generator.state = own
        for name in ("noise", "shuffle", "permuting"):
            generators = getattr(self, f"_{name}_generators")
            for generator, own in zip(generators, state["streams"][name], strict=True):
                generator.set_state(own)
        with torch.no_grad():
            self._parameters.flat.copy_(state["parameters"])
        self._frozen.copy_(state["frozen"])
        self._any_frozen, self._minibatch = bool(self._frozen.any()), None
        self._active.copy_(state["active"])
        for name in ADAM:
            getattr(self._adam, name).copy_(state[f"adam_{name}"])
        for name in COUNTERS:
            setattr(self, name, state[name])
        self._observation_moments.set_state(state["moments"])
        self._set_scale()
        if (entered := state["entered"]) is not None:
            self._attach(worlds, worlds.num_envs // self.num_runs)
            self._reward_scale.set_state(entered["returns"])
            worlds.set_state(entered["worlds"])
            self._observations = np.asarray(entered["worlds"]["observations"])

    # ----------------------------------------------------------------- records

    def diverged(self) -> np.ndarray:
        """Runs that met a number which is not finite, ``(R,)`` of bool."""
        self._mark_diverged()
        return (~self._active).cpu().numpy()

    def describe(self) -> dict[str, Any]:
        """Gradient updates and parameters of each run."""
        return {"updates": self.updates, "parameters": self._parameters.count}

    def _facts(self) -> dict[str, Any]:
        return {
            "learner": self.known_as or self.agent_name(),
            "learner_version": self.version,
            **self._layout,
            "architecture": self.config.architecture,
            "hidden": list(self.config.hidden),
            "return_scale": self.config.return_scale,
        }

    def save(self, run: int, directory: Path) -> None:
        """Writes one run: policy, both normalisers and optimiser are one checkpoint."""
        tensors = {f"parameters.{n}": t[run] for n, t in self._parameters.views().items()}
        for name, moments in (("observations", self._observation_moments), ("returns", self._reward_scale)):
            tensors |= {f"{name}.{k}": v for k, v in moments.tensors(run).items()}
        tensors |= {
            "optimizer.first": self._adam.first[run],
            "optimizer.second": self._adam.second[run],
            "optimizer.clock": self._adam.clock[run],
        }
        facts = {
            "steps": self.steps,
            "config": dataclasses.asdict(self.config),
            "diverged": bool(self.diverged()[run]),
            **self._reward_scale.facts(run),
        }
        save_checkpoint(directory, tensors, {**self._facts(), **facts})

    def load(self, run: int, directory: Path, start: Start = DEFAULT_START) -> None:
        """Starts one run from a checkpoint: all weights, log standard deviation and normalisers.

        From the checkpoint of a run that diverged, this one has diverged too. What starts afresh has the
        run's own initial weights. The normalisers' statistics move on whatever is frozen. What the
        switches of ``start`` mean here:

        - ``part="normalizer"``: the statistics of observations alone, beside fresh weights and rewards
          scaled afresh. All weights are fresh, so that ``fresh_*`` and ``reset_log_std`` change nothing;
          ``freeze_trunk`` then freezes random features.
        - ``part="shuffled"``: all, the entries of every weight array permuted, of a task's own layers each
          among themselves; but not the log standard deviation, which is no layer.
        - ``freeze_trunk``: only the last layers and the log standard deviation learn, and what tells the
          network of its task where it is no input: FiLM's generators, the own first layers.
        - ``fresh_heads``: the last layers of actor and critic.
        - ``fresh_critic``: all its weights, which all learn; the scale of rewards stays.
        - ``keep_optimizer``: Adam's moments and clock; but of weights that start afresh the first moment,
          a direction for other weights, starts at zero.

        Args:
            run: which run.
            directory: that :meth:`save` wrote.
            start: what is taken over.

        Raises:
            FileNotFoundError: if there is no checkpoint.
            ValueError: if it is of another learner, version, family, conditioning, layout, architecture,
                shape or scale of returns, for an unknown part, or for an optimiser that is to be kept
                without the weights that it is of.
        """
        start.check(self)
        if start.keep_optimizer and start.part != "all":
            raise ValueError(
                f"keep_optimizer needs the weights that the optimiser's state is of, so part='all', "
                f"got part={start.part!r}"
            )
        try:
            tensors, facts = load_checkpoint(directory, self._facts())
        except NotFiniteError:  # from the network of a run that diverged nothing can be learned
            self._active[run] = False
            return
        if start.keep_optimizer:
            check_moments(directory, facts)
        self._active[run] = not facts.get("diverged")
        missing = {f"parameters.{shape.name}" for shape in self._parameters.shapes} - {*tensors}
        if missing:
            raise ValueError(f"checkpoint {directory} is damaged: it lacks {', '.join(sorted(missing))}")
        initial = self._parameters.views(self._initial)
        fresh, frozen = self._named(start)
        with torch.no_grad():
            for name, view in self._parameters.views().items():
                if name in fresh:
                    view[run] = initial[name][run]
                    continue
                values = tensors[f"parameters.{name}"]
                if values.shape != view[run].shape:
                    raise ValueError(
                        f"checkpoint {directory} is damaged: parameters.{name} has shape "
                        f"{tuple(values.shape)}, this learner needs {tuple(view[run].shape)}"
                    )
                if start.part == "shuffled" and name != "log_std":
                    values = _permuted(values, self._permuting_generators[run])
                view[run] = values.to(self.device)
        for name, view in self._parameters.views(self._frozen).items():
            view[run] = name in frozen
        self._any_frozen = bool(self._frozen.any())
        self._minibatch = None  # what was captured may have been without
        observations, returns = (
            {k: tensors[f"{name}.{k}"] for k in ("mean", "var", "count")}
            for name in ("observations", "returns")
        )
        self._observation_moments.restore(run, observations)
        self._set_scale()
        self._reward_scale.restore(run, *(({}, {}) if start.part == "normalizer" else (returns, facts)))
        self._adam.first[run] = self._adam.second[run] = self._adam.clock[run] = 0.0
        if start.keep_optimizer:
            for name in ("first", "second", "clock"):
                getattr(self._adam, name)[run] = tensors[f"optimizer.{name}"].to(self.device)
            for name, view in self._parameters.views(self._adam.first).items():
                if name in fresh:
                    view[run] = 0.0

    def _named(self, start: Start) -> tuple[set[str], set[str]]:
        """Names of the parameters that start afresh, and of those that do not learn."""
        fresh: set[str] = set()
        if start.part == "normalizer":
            fresh |= {*self._parameters.views()}
        if start.fresh_heads:
            fresh |= self._actor.heads | self._critic.heads
        if start.fresh_critic:
            fresh |= {shape.name for shape in self._critic.shapes}
        if start.reset_log_std:
            fresh.add("log_std")
        frozen: set[str] = set()
        if start.freeze_trunk:
            # a critic that starts afresh has no features worth keeping
            frozen = {*self._actor.trunk, *(() if start.fresh_critic else self._critic.trunk)}
        return fresh, frozen


class _Padding:
    """Reads from observations which of their own entries, and of the actions', are padding."""

    def __init__(self, worlds: TaskVectorEnv, device: torch.device) -> None:
        self._mask = worlds.observation_slices.mask
        # -1, always there, picks the column of ones that is put behind the mask
        self._body = torch.from_numpy(worlds.encoding.observation_mask).to(device)
        self._actions = torch.from_numpy(worlds.encoding.action_mask).to(device)

    def of_body(self, observations: Tensor) -> Tensor:
        """1 for entries that are there, ``(..., size)`` to ``(..., body)``."""
        return self._with_ones(observations)[..., self._body]

    def of_actions(self, observations: Tensor) -> Tensor:
        """1 for motors that are there, ``(..., size)`` to ``(..., num_actions)``."""
        return self._with_ones(observations)[..., self._actions]

    def _with_ones(self, observations: Tensor) -> Tensor:
        mask = observations[..., self._mask]
        return torch.cat([mask, torch.ones_like(mask[..., :1])], dim=-1)


def _permuted(values: Tensor, generator: torch.Generator) -> Tensor:
    """The entries in another order; those of several layers in one array, each among themselves."""
    layers = values.flatten(1) if values.dim() == 3 else values.flatten().unsqueeze(0)
    orders = [torch.randperm(layers.shape[1], generator=generator) for _ in layers]
    return layers.gather(1, torch.stack(orders)).view_as(values)


def _torch_generator(sequence: np.random.SeedSequence) -> torch.Generator:
    # on the CPU whatever the device is, so that a seed means the same run everywhere
    generator = torch.Generator()
    generator.manual_seed(_word(sequence))
    return generator


def _word(sequence: np.random.SeedSequence) -> int:
    return int(sequence.generate_state(1, np.uint64)[0]) % 2**63
