"""Acting on worlds that live on a device: rollouts and evaluations without a word to the host.

Policy and worlds make a control step from one CUDA graph
(:meth:`mtenvs.device_env.DeviceVectorEnv.stepper`); what comes of it is written to arrays that were there
before, at a time that is itself on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from baselines.experience import Experience, idle
from baselines.learner import Episodes
from mtenvs.device_env import DeviceVectorEnv

LOOK = 50
"""Steps of an evaluation after which the host looks whether all episodes have ended."""

Act = Callable[[Tensor], Tensor]
"""Observations ``(R, W, size)`` to actions ``(R, W, num_actions)``; asks the host for nothing."""


class Rollouts:
    """Collects experience of the same length again and again, always into the same arrays.

    Args:
        worlds: R equal blocks.
        num_runs: R.
        steps: T.
        act: means of the actions.
        std: standard deviations of the actions, ``(R, 1, num_actions)``, computed anew at every step.
        active: runs that act, ``(R,)`` of bool; the others idle. Those that give actions which are not
            finite are struck out.
    """

    def __init__(
        self,
        worlds: DeviceVectorEnv,
        num_runs: int,
        steps: int,
        act: Act,
        std: Callable[[], Tensor],
        active: Tensor,
    ) -> None:
        self._worlds, self._steps, self._mean, self._std, self._active = worlds, steps, act, std, active
        size, entries = worlds.observation_slices.size, worlds.num_actions
        shape = (num_runs, worlds.num_envs // num_runs)

        def empty(*sizes: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(*sizes, device=worlds.device, dtype=dtype)

        self._finals = empty(steps, *shape, size)
        self._kept = Experience(
            observed=empty(steps + 1, *shape, size),
            actions=empty(steps, *shape, entries),
            noise=empty(steps, *shape, entries),
            rewards=empty(steps, *shape),
            terminations=empty(steps, *shape, dtype=torch.bool),
            dones=empty(steps, *shape, dtype=torch.bool),
            finals=self._finals,
        )
        self._time = empty(1, dtype=torch.int64)
        self._step = worlds.stepper(self._act, self._take)

    def _act(self) -> Tensor:
        kept, now = self._kept, self._time
        seen = self._worlds.observations.view(kept.observed.shape[1:])
        noise = kept.noise.index_select(0, now).squeeze(0)
        actions = torch.addcmul(self._mean(seen), self._std(), noise)
        kept.observed.index_copy_(0, now, seen.unsqueeze(0))
        kept.actions.index_copy_(0, now, actions.unsqueeze(0))
        return idle(self._active, actions).flatten(0, 1)

    def _take(self) -> None:
        kept, now, worlds = self._kept, self._time, self._worlds
        for into, value in (
            (kept.rewards, worlds.rewards),
            (kept.terminations, worlds.terminations),
            (kept.dones, worlds.dones),
            (self._finals, worlds.final_observations),
        ):
            into.index_copy_(0, now, value.view(1, *into.shape[1:]))
        now += 1

    def collect(self, noise: Tensor) -> Experience:
        """Makes T steps.

        Args:
            noise: standard normal numbers, ``(T, R, W, num_actions)``.

        Returns:
            What they brought, in arrays that the next call writes over.
        """
        kept = self._kept
        kept.noise.copy_(noise)
        self._time.zero_()
        for _ in range(self._steps):
            self._step()
        kept.observed[self._steps] = self._worlds.observations.view(kept.observed.shape[1:])
        self._worlds.check()
        return kept


class Player:
    """Plays episodes with the deterministic policy, as :func:`baselines.learner.play_episodes` does.

    Args:
        worlds: R equal blocks.
        num_runs: R.
        act: the policy; a run that it gives no finite actions for idles.
    """

    def __init__(self, worlds: DeviceVectorEnv, num_runs: int, act: Act) -> None:
        self._worlds, self._policy, self._num_runs = worlds, act, num_runs
        count, device = worlds.num_envs, worlds.device
        self._returns = torch.zeros(count, dtype=torch.float64, device=device)
        self._lengths = torch.zeros(count, dtype=torch.int64, device=device)
        self._success = torch.zeros(count, dtype=torch.bool, device=device)
        self._playing = torch.ones(count, dtype=torch.bool, device=device)
        self._step = worlds.stepper(self._act, self._take)

    def _act(self) -> Tensor:
        seen = self._worlds.observations
        return self._policy(seen.view(self._num_runs, -1, seen.shape[1])).flatten(0, 1)

    def _take(self) -> None:
        worlds, playing = self._worlds, self._playing
        self._returns += worlds.rewards * playing
        self._lengths += playing
        self._success |= worlds.success & worlds.dones & playing
        playing &= ~worlds.dones

    def play(self, seeds: Sequence[int]) -> Episodes:
        """Plays one episode in every world.

        Args:
            seeds: of the start states, one per world.
        """
        worlds = self._worlds
        worlds.reset(seed=list(seeds))
        for array, value in (
            (self._returns, 0),
            (self._lengths, 0),
            (self._success, 0),
            (self._playing, 1),
        ):
            array.fill_(value)
        for step in range(1, worlds.max_episode_steps + 1):
            self._step()
            if step % LOOK == 0 and not bool(self._playing.any()):
                break
        worlds.check()
        return Episodes(*(a.cpu().numpy() for a in (self._returns, self._lengths, self._success)))
