"""Many worlds whose physics, observations, rewards and resets never leave a device.

What :class:`mtenvs.vector_env.TaskVectorEnv` is with NumPy's arrays, this is with PyTorch's, over one batch
of MuJoCo Warp for every topology. A control step asks the host for nothing, so that it can be captured in a
CUDA graph together with the policy that acts; without CUDA the same code runs uncaptured.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
import torch
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode
from torch import Tensor

from mtenvs import counter_random, registry
from mtenvs.backends.mujoco_batch import topology
from mtenvs.backends.mujoco_warp import Sizes, WarpBackend, capture_scope, check_device, probe_sizes
from mtenvs.cuda_graphs import captured
from mtenvs.env import check_action
from mtenvs.spec import Family, Task
from mtenvs.state import bad_numbers
from mtenvs.vector_env import VectorWorlds, check_autoreset_mode


@dataclasses.dataclass(frozen=True)
class DeviceGroup:
    """The worlds of one topology."""

    worlds: np.ndarray
    """Their indices in the vector environment, sorted, ``(n,)``."""
    family: Family
    """Whose bodies they have."""
    backend: WarpBackend
    """What steps them; its world ``i`` is ``worlds[i]``."""
    rows: Tensor | slice
    """The same indices on the device; a slice if the topology is the only one."""
    observation: tuple[Any, Any]
    """Index of its entries in the observations of all worlds."""
    action: tuple[Any, Any]
    """Index of its entries in the actions of all worlds."""


class DeviceVectorEnv(VectorWorlds):
    """Worlds of one family or set of families on a device, each with a task of its own.

    Observations ``(num_envs, size)`` and rewards ``(num_envs,)`` are float32, ``terminations`` and
    ``truncations`` ``(num_envs,)`` of bool: PyTorch tensors on :attr:`device`, fresh ones at every step.
    ``infos`` has the entries of :class:`mtenvs.vector_env.TaskVectorEnv` as tensors. ``final_obs`` and
    ``final_info`` are always there, with their masks. ``final_obs`` holds, for every world, what its step
    led to before any reset: where an episode goes on, the observation itself.

    The same seeds start the same first episodes as on the CPU, but for rounding to float32. Episodes that
    begin by themselves start from a counter-based generator of the device, keyed by the world's seed.
    Worlds reset themselves in the same step.

    Made by ``gymnasium.make_vec("mt/<Family>-v0", num_envs, backend="warp", device="cuda")``.

    Args:
        family: as of :class:`mtenvs.vector_env.TaskVectorEnv`, as the arguments that follow.
        num_envs: number of worlds.
        device: ``"cuda"``, ``"cuda:N"`` or ``"cpu"``, which is slow.
        options: ``tasks``, ``conditioning``, ``layout``, ``max_episode_steps``, ``render_mode``,
            ``width``, ``height``, ``codes``.

    Raises:
        mtenvs.spec.MissingDeviceError: if the device is not there, or its driver is too old.
        MemoryError: if the worlds do not fit; it says how many do.
        ValueError: as :class:`mtenvs.vector_env.TaskVectorEnv`; for another autoreset mode; or for tasks
            that MuJoCo Warp cannot step in one batch, naming the field and the tasks.
    """

    _groups: list[DeviceGroup]

    def __init__(
        self,
        family: str | Sequence[str],
        num_envs: int = 1,
        device: str | torch.device = "cuda",
        **options: Any,
    ) -> None:
        mode = check_autoreset_mode(options.get("autoreset_mode", AutoresetMode.SAME_STEP))
        if mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode {mode.value!r} is for backend='batch'; valid: "
                f"{AutoresetMode.SAME_STEP.value!r}"
            )
        self.device = check_device(device)
        if options.get("num_threads"):
            raise ValueError("num_threads is for backend='batch': a device has its own")
        # weakly: a learner that is gone shall not keep its arrays here
        self._steppers: weakref.WeakSet[Stepper] = weakref.WeakSet()
        super().__init__(family, num_envs, **options)
        self._own_step = self.stepper(lambda: self._actions)

    # ------------------------------------------------------------------ worlds

    def _assign(self, tasks: Sequence[Task]) -> None:
        super()._assign(tasks)
        n, device = self.num_envs, self.device
        self.observations = torch.from_numpy(self._observations).to(self.device)
        """What every world is seen as now, ``(num_envs, size)``; written in place at every step."""
        self.final_observations = self.observations.clone()
        """What the last step led to before any reset, ``(num_envs, size)``."""
        self.rewards = torch.zeros(n, device=device)
        """Of the last step, ``(num_envs,)``."""
        self.terminations, self.truncations, self.dones, self.success, self.physics_diverged = (
            torch.zeros(n, dtype=torch.bool, device=device) for _ in range(5)
        )
        self.terms = {name: torch.zeros(n, device=device) for name in self._term_names}
        """Terms of the last step's reward by name, ``(num_envs,)`` each."""
        self._actions = torch.zeros(n, self.num_actions, device=device)
        self._keys, self._episodes, self._steps_in_episode = (
            torch.zeros(n, dtype=torch.int64, device=device) for _ in range(3)
        )
        self._limits_there = torch.from_numpy(self.episode_limits).to(self.device)
        self._numbers_there = torch.from_numpy(self._numbers).to(self.device)
        self._earning_there = {k: torch.from_numpy(v).to(self.device) for k, v in self._earning.items()}
        # since they were last asked for: steps with actions that are not finite, and of every group those
        # that outgrew its memory
        self._faults = torch.zeros(1 + len(self._groups), dtype=torch.int64, device=device)
        self._streams_of_groups = (
            [torch.cuda.Stream(self.device) for _ in self._groups]
            if self.device.type == "cuda" and len(self._groups) > 1
            else []
        )
        for stepper in self._steppers:  # what was captured reads the arrays of before
            stepper.forget()

    def _group(
        self, worlds: Sequence[int], tasks: Sequence[Task], models: dict[Task, mujoco.MjModel]
    ) -> DeviceGroup:
        own = [tasks[w] for w in worlds]
        family = self.family.of(own[0])
        constants = {task: family.constants(task.parameters) for task in dict.fromkeys(own)}
        arrays = {name: np.array([constants[t][name] for t in own]) for name in constants[own[0]]}
        backend = WarpBackend(
            [models[t] for t in own],
            [t.name for t in own],
            arrays,
            family.reward_terms,
            family.frame_skip,
            self.device,
            _sizes(
                family, models[own[0]], [models[t] for t in dict.fromkeys(own) if t not in family.tasks]
            ),
        )
        rows = slice(None) if len(worlds) == self.num_envs else torch.tensor(worlds, device=self.device)
        columns = self.encoding.columns(own[0])
        return DeviceGroup(
            np.array(worlds),
            family,
            backend,
            rows,
            self._index(rows, columns.observation),
            self._index(rows, columns.action),
        )

    def _index(self, rows: Tensor | slice, columns: slice | np.ndarray) -> tuple[Any, Any]:
        if isinstance(columns, slice):
            return rows, columns
        there = torch.from_numpy(columns).to(self.device)
        return (rows, there) if isinstance(rows, slice) else (rows.unsqueeze(1), there)

    # ---------------------------------------------------------------- episodes

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        """Starts an episode in every world; arguments and errors as of :class:`TaskVectorEnv`'s."""
        ids, elapsed, fresh = self._prepare(seed, options)
        # as the seeds say, though a stream of before may have been gone on with
        keys = np.array([s % 2**64 for s in self._seeds], np.uint64).view(np.int64)
        self._keys.copy_(torch.from_numpy(keys))
        starting = np.zeros(self.num_envs, bool)
        starting[ids] = True
        mask = torch.from_numpy(starting).to(self.device)
        for group in self._groups:
            draws = np.zeros((len(group.worlds), group.family.start_draws))
            local = np.flatnonzero(starting[group.worlds])
            if len(local):
                draws[local] = self._draws(group.family, group.worlds[local])
                self._begin(group, mask[group.rows], torch.from_numpy(draws).float().to(self.device))
        self._steps_in_episode.masked_fill_(mask, 0)
        if elapsed is not None:
            there = torch.from_numpy(elapsed.astype(np.int64)).to(self.device)
            self._steps_in_episode.copy_(torch.where(mask, there, self._steps_in_episode))
        # episodes that begin by themselves are numbered from the seed on
        self._episodes.masked_fill_(torch.from_numpy(fresh).to(self.device), 0)
        self._started = True
        info = {"task": torch.where(mask, self._numbers_there, 0), "_task": mask}
        return self.observations.clone(), info

    def _begin(self, group: DeviceGroup, mask: Tensor, draws: Tensor) -> None:
        """Starts episodes in some worlds of a group, and writes their observations."""
        backend, family = group.backend, group.family
        backend.reset(mask, *family.start(backend.home, draws))
        seen, body = self.observations[group.observation], family.observe(backend.state)
        # what starts with bad numbers is shown as zeros, and its first step ends it as diverged
        bad = (mask & bad_numbers(body, {})).unsqueeze(1)
        backend.state.qpos.masked_fill_(bad, math.nan)
        self.observations[group.observation] = torch.where(
            mask.unsqueeze(1), body.masked_fill(bad, 0.0), seen
        )

    def advance(self, actions: Tensor) -> None:
        """One control step of all worlds, on the tensors of this object; the host is asked for nothing.

        This is what :meth:`step` does and what :meth:`stepper` captures. Actions that are not finite count
        as 0 and are told of by :meth:`check`.

        Args:
            actions: ``(num_envs, num_actions)``, clipped to [-1, 1].
        """
        if not isinstance(actions, Tensor) or actions.shape != self._actions.shape:
            found = tuple(actions.shape) if isinstance(actions, Tensor) else type(actions).__name__
            raise ValueError(f"actions are {found}, expected a tensor {tuple(self._actions.shape)}")
        wrong = ~torch.isfinite(actions)
        self._faults[0] += wrong.any(dim=1).sum()
        actions = actions.masked_fill(wrong, 0.0).clamp(-1.0, 1.0)
        self.rewards.zero_()
        self._each(lambda number, group: self._advance_group(number, group, actions))
        self._steps_in_episode += 1
        torch.ge(self._steps_in_episode, self._limits_there, out=self.truncations)
        torch.logical_or(self.terminations, self.truncations, out=self.dones)
        self.final_observations.copy_(self.observations)
        self._each(lambda _, group: self._restart_group(group))
        self._episodes += self.dones
        self._steps_in_episode.masked_fill_(self.dones, 0)

    def _each(self, work: Callable[[int, DeviceGroup], None]) -> None:
        """Does something for every topology; side by side, in a CUDA graph.

        Launched one by one they take turns: what Warp allocates for a while is given back while the kernels
        that use it are still to run, and only the same stream may have it next.
        """
        if not (self._streams_of_groups and torch.cuda.is_current_stream_capturing()):
            for number, group in enumerate(self._groups):
                work(number, group)
            return
        here = torch.cuda.current_stream(self.device)
        for number, stream in enumerate(self._streams_of_groups):
            stream.wait_stream(here)
            with torch.cuda.stream(stream):
                work(number, self._groups[number])
        for stream in self._streams_of_groups:
            here.wait_stream(stream)

    def _advance_group(self, number: int, group: DeviceGroup, actions: Tensor) -> None:
        family, backend, rows = group.family, group.backend, group.rows
        backend.step(actions[group.action])
        state = backend.state
        body, terms = family.observe(state), family.reward(state)
        bad = backend.diverged() | bad_numbers(body, terms)
        # a diverged world keeps its last valid observation, zero terms and no success
        seen = self.observations[group.observation]
        self.observations[group.observation] = torch.where(bad.unsqueeze(1), seen, body)
        total = torch.zeros_like(state.time)
        for name in family.reward_terms:
            term = terms[name].masked_fill(bad, 0.0)
            state.totals[name].add_(term)
            self.terms[f"reward_{name}"][rows] = term
            total = total + term
        self.rewards[rows] = total
        self.terminations[rows] = family.terminated(state) | bad
        self.success[rows] = family.success(state) & ~bad
        self.physics_diverged[rows] = bad
        self._faults[1 + number] += backend.overflown().sum()

    def _restart_group(self, group: DeviceGroup) -> None:
        rows, family = group.rows, group.family
        # block 0 of a world's stream is none of these: its first episode was drawn otherwise
        counters = self._episodes[rows] + 1
        draws = counter_random.uniform(self._keys[rows], counters, family.start_draws)
        self._begin(group, self.dones[rows], draws)

    def stepper(
        self, act: Callable[[], Tensor], then: Callable[[], None] = lambda: None
    ) -> Callable[[], None]:
        """A function that makes one control step, captured in one CUDA graph where there is CUDA.

        Args:
            act: gives the actions, ``(num_envs, num_actions)``, of what it reads from this object's and its
                own tensors. It is captured too, and so must ask the host for nothing, change tensors in
                place only, and have no other effect.
            then: takes in what came of it, likewise.
        """
        made = Stepper(self, act, then)
        self._steppers.add(made)
        return made

    def step(self, actions: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, dict[str, Any]]:
        """Advances every world by one control step; see the class for what comes back.

        Args:
            actions: ``(num_envs, num_actions)``, a tensor or an array, clipped to [-1, 1].

        Raises:
            ValueError: for actions of another shape; for some that are not finite, at once on the CPU and
                by :meth:`check` elsewhere.
            gymnasium.error.ResetNeeded: before the first reset.
            gymnasium.error.ClosedEnvironmentError: after ``close()``.
        """
        self.check_ready()
        if self.device.type == "cpu":
            own = actions.detach().numpy() if isinstance(actions, Tensor) else actions
            given = torch.from_numpy(check_action(own, (self.num_envs, self.num_actions)))
        else:
            given = torch.as_tensor(actions, device=self.device).detach()
            if given.shape != self._actions.shape:
                raise ValueError(
                    f"actions have shape {tuple(given.shape)}, expected {tuple(self._actions.shape)}"
                )
            # what is finite stays so in float32, and what is not is not clipped
            given = torch.where(torch.isfinite(given), given.clamp(-1.0, 1.0), given)
        self._actions.copy_(given)
        self._own_step()
        return (
            self.observations.clone(),
            self.rewards.clone(),
            self.terminations.clone(),
            self.truncations.clone(),
            self._info(),
        )

    def _info(self) -> dict[str, Any]:
        """What Gymnasium's vector environments say of a step after which worlds reset themselves."""
        done, alive = self.dones.clone(), ~self.dones
        info: dict[str, Any] = {"task": self._numbers_there.clone(), "_task": torch.ones_like(done)}
        final: dict[str, Any] = {"task": torch.where(done, self._numbers_there, 0), "_task": done}
        values = {"success": self.success, "physics_diverged": self.physics_diverged, **self.terms}
        for name, value in values.items():
            own = self._earning_there.get(name, torch.ones_like(done))
            info[name], final[name] = value.masked_fill(done, 0), value.masked_fill(alive, 0)
            info[f"_{name}"], final[f"_{name}"] = alive & own, done & own
        return info | {
            "final_obs": self.final_observations.clone(),
            "_final_obs": done,
            "final_info": final,
            "_final_info": done,
        }

    def check(self) -> None:
        """Asks the device what went wrong since it was last asked; between rollouts, for the host waits.

        A world that outgrows what was allocated for its contacts has diverged: its episode ends, as when
        it meets a bad number. Here it is warned of besides.

        Raises:
            ValueError: if actions were not finite.
        """
        wrong, *overflown = self._faults.tolist()
        self._faults.zero_()
        for count, group in zip(overflown, self._groups, strict=True):
            if count:
                warnings.warn(
                    f"{count:,} steps of single worlds of {group.family.name} had more contacts or "
                    f"constraints than was allocated ({group.backend.sizes}); their episodes ended as "
                    "diverged",
                    RuntimeWarning,
                    stacklevel=2,
                )
        if wrong:
            raise ValueError(f"actions of {wrong:,} steps of single worlds were not finite")

    def check_ready(self) -> None:
        """Makes sure that a step can be made.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            gymnasium.error.ClosedEnvironmentError: after ``close()``.
        """
        self._check_open()
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset() before step()")

    def __getstate__(self) -> dict[str, Any]:
        raise TypeError(
            "worlds on a device cannot be pickled or copied: make others with the same tasks and give them "
            "what get_state() returns"
        )

    def close(self, **kwargs: Any) -> None:
        """Closes the worlds and gives their memory back."""
        super().close(**kwargs)
        self._groups = []
        for stepper in self._steppers:
            stepper.forget()

    # ------------------------------------------------------------------- state

    def get_state(self) -> dict[str, Any]:
        """All that the worlds' futures depend on, on the CPU, but for tasks and options.

        What is drawn at a reset without a seed is not: these streams start afresh from the seeds.
        """
        physics = [{k: v.cpu() for k, v in group.backend.get_state().items()} for group in self._groups]
        self._streams()
        counted = {"seeds": list(self._seeds), "steps_taken": self.steps_taken}
        # on the CPU, .cpu() is no copy
        carried = {k: v.clone().cpu() for k, v in self._carried().items()}
        return {"physics": physics, **counted, **carried}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`get_state` returned, in worlds of the same tasks."""
        for group, own in zip(self._groups, state["physics"], strict=True):
            group.backend.set_state(own)
        for name, tensor in self._carried().items():
            tensor.copy_(state[name])
        self._seeds, self.steps_taken = list(state["seeds"]), state["steps_taken"]
        self._generators = [seeding.np_random(seed)[0] for seed in self._seeds]
        self._started = True

    def _carried(self) -> dict[str, Tensor]:
        return {
            "observations": self.observations,
            "keys": self._keys,
            "episodes": self._episodes,
            "steps_in_episode": self._steps_in_episode,
        }


_SIZES: dict[tuple[str, tuple[int, ...]], Sizes] = {}


def _sizes(family: Family, model: mujoco.MjModel, unpublished: Sequence[mujoco.MjModel]) -> Sizes:
    """What bodies of a topology need; those that are published are always included, and so have the same.

    Args:
        family: the family.
        model: of the topology.
        unpublished: bodies that are to be asked besides.
    """
    shape = topology(model)
    if (key := (family.id, shape)) not in _SIZES:
        published = [registry.model(family, task) for task in family.tasks]
        _SIZES[key] = probe_sizes([m for m in published if topology(m) == shape], family.frame_skip)
    known = _SIZES[key]
    if not unpublished:
        return known
    own = probe_sizes(unpublished, family.frame_skip)
    return Sizes(*map(max, dataclasses.astuple(known), dataclasses.astuple(own)))


class Stepper:
    """One control step with what acts and what takes it in; see :meth:`DeviceVectorEnv.stepper`."""

    def __init__(
        self, worlds: DeviceVectorEnv, act: Callable[[], Tensor], then: Callable[[], None]
    ) -> None:
        self._worlds, self._act, self._then = worlds, act, then
        self.forget()

    def forget(self) -> None:
        """Captures anew at the next chance: the arrays are others."""
        self._run = captured(self._body, self._worlds.device, capture_scope)

    def _body(self) -> None:
        self._worlds.advance(self._act())
        self._then()

    def __call__(self) -> None:
        """Makes the step.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
            gymnasium.error.ClosedEnvironmentError: after ``close()``.
        """
        self._worlds.check_ready()
        with torch.no_grad():
            self._run()
        self._worlds.steps_taken += self._worlds.num_envs
