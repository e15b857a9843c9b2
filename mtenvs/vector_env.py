"""Many worlds as a ``gymnasium.vector.VectorEnv`` over one native batch per topology."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from mtenvs import registry
from mtenvs.backends.mujoco_batch import BatchBackend, topology
from mtenvs.conditioning import Columns, Encoded, Encoding
from mtenvs.env import MOST_THREADS, MOST_WORLDS, check_action, check_count, check_options, check_size
from mtenvs.rendering import Camera, check_render_mode, frames_per_second
from mtenvs.spec import Family, FamilySet, Task
from mtenvs.state import bad_numbers


@dataclasses.dataclass(frozen=True)
class Group:
    """The worlds of one topology."""

    worlds: np.ndarray
    """Their indices in the vector environment, sorted, ``(n,)``."""
    family: Family
    """Whose bodies they have."""
    columns: Columns
    """Where their entries lie in observation and action."""
    backend: BatchBackend
    """What steps them; its world ``i`` is ``worlds[i]``."""


class VectorWorlds(Encoded, gymnasium.vector.VectorEnv[Any, Any, Any], abc.ABC):
    """What the vector environments of all backends share: tasks, topologies, seeds, limits, pictures.

    See :class:`TaskVectorEnv` for the arguments; subclasses hold the arrays and step them.
    """

    def __init__(
        self,
        family: str | Sequence[str],
        num_envs: int = 1,
        tasks: Sequence[registry.TaskLike] | None = None,
        conditioning: str = "descriptor",
        layout: str | None = None,
        autoreset_mode: AutoresetMode | str = AutoresetMode.SAME_STEP,
        max_episode_steps: int | None = None,
        num_threads: int = 0,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        codes: np.ndarray | None = None,
        task: registry.TaskLike | None = None,
        made_as: str | None = None,
        **unknown: Any,
    ) -> None:
        registry.check_keywords(unknown, TaskVectorEnv.__init__, refused="task")
        self.family = registry.get_families(family)
        registry.check_id(made_as, self.family)
        if task is not None:
            raise ValueError("a vector environment takes tasks=[...], a list, instead of task=...")
        self.num_envs = check_count("num_envs", num_envs, most=MOST_WORLDS)
        self.encoding = Encoding(self.family, conditioning, layout)
        code = self.encoding.slices.code
        self._codes = None if codes is None else check_codes(codes, (self.num_envs, code.stop - code.start))
        self.autoreset_mode = check_autoreset_mode(autoreset_mode)
        self.render_mode = check_render_mode(render_mode, ["rgb_array"])
        self._given_limit = (
            None
            if max_episode_steps is None
            else check_count("max_episode_steps", max_episode_steps, most=2**62)
        )
        self.max_episode_steps = self._given_limit or self.family.episode_steps
        self._num_threads = check_count("num_threads", num_threads, least=0, most=MOST_THREADS)
        self._size = check_size(height, width)
        self._cameras: dict[int, Camera] = {}
        self._term_names = tuple(f"reward_{term}" for term in self.family.reward_terms)

        published = self.family.tasks
        dealt = (
            published[: self.num_envs]
            if tasks is None
            else [registry.as_task(self.family, t) for t in _as_list(tasks)]
        )
        if len(dealt) > self.num_envs:
            raise ValueError(
                f"{len(dealt)} tasks do not fit into num_envs={self.num_envs} worlds; "
                "use at least one world a task"
            )
        self._assign([dealt[i % len(dealt)] for i in range(self.num_envs)])
        first = self._groups[0]
        self.metadata = {
            "autoreset_mode": self.autoreset_mode,
            "render_modes": ["rgb_array"],
            "render_fps": frames_per_second(first.backend.models[0], first.family.frame_skip),
        }

        self.single_observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (self.observation_slices.size,), np.float32
        )
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.num_actions,), np.float32)
        batch = gymnasium.vector.utils.batch_space
        self.observation_space = batch(self.single_observation_space, self.num_envs)
        self.action_space = batch(self.single_action_space, self.num_envs)

        self._generators: list[np.random.Generator] | None = None
        self._seeds: list[int] = []
        self._started = False
        self.steps_taken = 0
        self._elapsed = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, bool)

    steps_taken: int
    """Control steps of all worlds together since they were made."""
    episode_limits: np.ndarray
    """Control steps until truncation in every world, ``(num_envs,)``; at most ``max_episode_steps``."""

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The task of every world."""
        return self._tasks

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """The random stream of every world."""
        return tuple(self._streams())

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """The seed of every world's random stream."""
        self._streams()
        return tuple(self._seeds)

    def _assign(self, tasks: Sequence[Task]) -> None:
        """Gives every world its task and builds the batches."""
        distinct = dict.fromkeys(tasks)
        # first what may raise, so that a refused task leaves the worlds as they are
        templates = {task: self.encoding.template(task) for task in distinct}
        families = {task: self.family.of(task) for task in distinct}
        models = {task: registry.model(families[task], task) for task in distinct}
        by_topology: dict[tuple[str, tuple[int, ...]], list[int]] = {}
        for world, task in enumerate(tasks):
            by_topology.setdefault((task.family, topology(models[task])), []).append(world)
        # a device may be too small for them, or unable
        groups = [self._group(worlds, tasks, models) for worlds in by_topology.values()]
        self.close_extras()  # cameras belong to the models of before
        self._tasks, self._groups = tuple(tasks), groups
        # the template of an observation: masks and codes are written once, bodies at every step
        self._observations = np.stack([templates[t] for t in tasks])
        if self._codes is not None:
            self._observations[:, self.encoding.slices.code] = self._codes
        numbers = {task: self.encoding.number(task) for task in distinct}
        self._numbers = np.array([numbers[t] for t in tasks])
        self._earning = {
            f"reward_{term}": np.array([term in families[t].reward_terms for t in tasks])
            for term in self.family.reward_terms
        }
        self.episode_limits = self._limits(tasks)

    def _limits(self, tasks: Sequence[Task]) -> np.ndarray:
        """Control steps until truncation, by task."""
        own = np.array([self.family.of(task).episode_steps for task in tasks])
        if self._given_limit is None:
            return own
        # in a set, as in its single environments, no episode outlasts its family's
        whole = isinstance(self.family, FamilySet)
        return np.minimum(own, self._given_limit) if whole else np.full_like(own, self._given_limit)

    @abc.abstractmethod
    def _group(
        self, worlds: Sequence[int], tasks: Sequence[Task], models: dict[Task, mujoco.MjModel]
    ) -> Any:
        """Builds the batch of some worlds of one topology."""

    def _streams(self) -> list[np.random.Generator]:
        if self._generators is None:
            pairs = [seeding.np_random(None) for _ in range(self.num_envs)]
            self._generators, self._seeds = [p[0] for p in pairs], [p[1] for p in pairs]
        return self._generators

    def _prepare(
        self, seed: int | Sequence[int | None] | None, options: dict[str, Any] | None
    ) -> tuple[np.ndarray, np.ndarray | None, np.ndarray]:
        """What a reset has to do before any episode starts: checks, new tasks, seeds.

        Returns:
            Indices of the worlds to start; control steps that count as taken in all worlds, if given; and
            which worlds were given a seed, ``(num_envs,)`` of bool.
        """
        self._check_open()
        options = check_options(options, ("task", "tasks", "reset_mask", "elapsed_steps"))
        mask = options.pop("reset_mask", None)
        elapsed = options.pop("elapsed_steps", None)
        tasks = options.pop("tasks", None)
        if "task" in options:
            if tasks is not None:
                raise ValueError(
                    "give either options['task'], for all worlds, or options['tasks'], not both"
                )
            tasks = [options.pop("task")] * self.num_envs
        if mask is not None:
            mask = np.asarray(mask)
            if mask.shape != (self.num_envs,) or mask.dtype != bool or not mask.any():
                raise ValueError(
                    f"reset_mask must be ({self.num_envs},) of bool with a world to reset, got {mask!r}"
                )
            if not (self._started or mask.all()):
                raise ValueError(
                    "the first reset is of all worlds: leave out reset_mask, which leaves out "
                    f"{np.flatnonzero(~mask).tolist()}"
                )
        # whatever may raise comes before anything is changed
        seeded = [None if s is None else seeding.np_random(s) for s in self._seed_list(seed)]
        if tasks is not None:
            resolved = [registry.as_task(self.family, t) for t in _as_list(tasks)]
            if len(resolved) != self.num_envs:
                raise ValueError(f"{len(resolved)} tasks for {self.num_envs} worlds")
            if mask is not None:
                raise ValueError("new tasks need all worlds to be reset: leave out reset_mask")
        if elapsed is not None:
            elapsed = np.asarray(elapsed)
            limits = self.episode_limits if tasks is None else self._limits(resolved)
            if elapsed.shape != limits.shape or not ((elapsed >= 0) & (elapsed < limits)).all():
                raise ValueError(
                    f"elapsed_steps must be ({self.num_envs},) in [0, {self.max_episode_steps}), below "
                    f"every world's own limit; got {elapsed!r}"
                )
        if tasks is not None and tuple(resolved) != self._tasks:
            self._assign(resolved)

        generators = self._streams()
        ids = np.arange(self.num_envs) if mask is None else np.flatnonzero(mask)
        for i in ids:
            if (pair := seeded[i]) is not None:
                generators[i], self._seeds[i] = pair
        fresh = np.zeros(self.num_envs, bool)
        fresh[ids] = [seeded[i] is not None for i in ids]
        return ids, elapsed, fresh

    def _draws(self, family: Family, worlds: np.ndarray) -> np.ndarray:
        """What the start states of some worlds follow from, ``(n, start_draws)``, of their own streams."""
        generators = self._streams()
        return np.stack([generators[w].random(family.start_draws) for w in worlds])

    @abc.abstractmethod
    def get_state(self) -> dict[str, Any]:
        """All that the worlds' futures depend on, but for tasks and options: arrays and JSON types."""

    @abc.abstractmethod
    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`get_state` returned, in worlds of the same tasks."""

    def _counted(self) -> dict[str, Any]:
        """Of the state, what all backends have: streams and counters."""
        return {
            "streams": [generator.bit_generator.state for generator in self._streams()],
            "seeds": list(self._seeds),
            "steps_taken": self.steps_taken,
            "started": self._started,
        }

    def _recount(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`_counted` returned."""
        for generator, own in zip(self._streams(), state["streams"], strict=True):
            generator.bit_generator.state = own
        self._seeds = list(state["seeds"])
        self.steps_taken, self._started = state["steps_taken"], state["started"]

    def _seed_list(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, (int, np.integer)):
            return [int(seed) + i for i in range(self.num_envs)]
        seeds: list[Any] = list(seed) if hasattr(seed, "__iter__") else [seed]
        if wrong := [s for s in seeds if s is not None and not isinstance(s, (int, np.integer))]:
            raise ValueError(f"a seed is a whole number or None, got {wrong[0]!r}")
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} worlds; give one each, or an int")
        return [None if s is None else int(s) for s in seeds]

    def _reset_info(self, ids: np.ndarray) -> dict[str, Any]:
        mask = np.zeros(self.num_envs, bool)
        mask[ids] = True
        return {"task": np.where(mask, self._numbers, 0), "_task": mask}

    def render(self) -> tuple[np.ndarray, ...] | None:
        """Returns an image ``(height, width, 3)`` of uint8 of every world."""
        self._check_open()
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs gym.make_vec(..., render_mode='rgb_array')")
            return None
        frames: list[np.ndarray] = [np.empty(0)] * self.num_envs
        for group in self._groups:
            for i, world in enumerate(group.worlds):
                model = group.backend.models[i]
                if id(model) not in self._cameras:  # worlds of one task share a model and a camera
                    self._cameras[id(model)] = Camera(model, *self._size)
                frames[world] = self._cameras[id(model)].show(group.backend.data(i))
        return tuple(frames)

    def _check_open(self) -> None:
        if self.closed:  # in the words of Gymnasium's AsyncVectorEnv; its SyncVectorEnv goes on
            raise gymnasium.error.ClosedEnvironmentError("the environment was closed; make a new one")

    def close_extras(self, **kwargs: Any) -> None:
        """Closes the image contexts; called by ``close()``."""
        for camera in self._cameras.values():
            camera.close()
        self._cameras.clear()


class TaskVectorEnv(VectorWorlds):
    """Worlds of one family or set of families, each with a task of its own that changes only when told to.

    Arrays are those of Gymnasium's own vector environments: observations ``(num_envs, size)`` of
    float32, rewards ``(num_envs,)`` of float64, ``terminations`` and ``truncations`` ``(num_envs,)``
    of bool. ``infos`` holds ``task``, ``success``, ``physics_diverged`` and ``reward_<term>`` with
    their masks, and in same-step mode ``final_obs`` and ``final_info`` of the episodes that ended.

    Made by ``gymnasium.make_vec("mt/<Family>-v0", num_envs, ...)``.

    Args:
        family: name of the family, or ``"AllFamilies"``, or the names of several.
        num_envs: number of worlds.
        tasks: tasks dealt round robin to the worlds; ``None`` deals all the published ones,
            or the first of them where there are fewer worlds.
        conditioning: what the observation tells of the task: ``"descriptor"``, ``"one_hot"``, ``"none"``.
        layout: how bodies of unequal size share the observation, in families that have ``layouts``.
        autoreset_mode: ``SAME_STEP`` (default), ``NEXT_STEP`` or ``DISABLED``, or its value.
        max_episode_steps: control steps until truncation; ``None`` for the family's own.
        num_threads: threads to step on; 0 for all processors. Results do not depend on it.
        render_mode: ``"rgb_array"`` or ``None``.
        width: of rendered images, in pixels.
        height: of rendered images, in pixels.
        codes: what to tell every world instead of its task's code, ``(num_envs, code_size)``: for
            instance a wrong one, to see what it is worth.
        task: refused: it is for the single environment.
        made_as: the id it is made under, given by Gymnasium's registry; a family of another id is refused.
        unknown: refused, by name.

    Raises:
        TypeError: for an unknown argument.
        ValueError: for an unknown argument's value, a family of another id, codes of another shape
            or not finite, no tasks, or more tasks than worlds.
    """

    _groups: list[Group]

    def _group(
        self, worlds: Sequence[int], tasks: Sequence[Task], models: dict[Task, mujoco.MjModel]
    ) -> Group:
        """Builds the batch of some worlds of one topology."""
        own = [tasks[w] for w in worlds]
        family = self.family.of(own[0])
        constants = {task: family.constants(task.parameters) for task in dict.fromkeys(own)}
        arrays = {name: np.array([constants[t][name] for t in own]) for name in constants[own[0]]}
        backend = BatchBackend(
            [models[t] for t in own], arrays, family.reward_terms, family.frame_skip, self._num_threads
        )
        return Group(np.array(worlds), family, self.encoding.columns(own[0]), backend)

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode in every world.

        Args:
            seed: one seed per world; an int is ``seed + index``; ``None`` goes on with a world's stream.
            options: ``task``: a task for all worlds, or ``tasks``: one for each. ``reset_mask``: the
                worlds to reset, ``(num_envs,)`` of bool, all of them the first time. ``elapsed_steps``:
                control steps that count as already taken, ``(num_envs,)``, so that learners can stagger
                first episodes.

        Raises:
            TypeError: for options that are no dictionary.
            ValueError: for a wrong number of seeds or tasks, an unknown option, or a first reset of some
                worlds only.
            gymnasium.error.ClosedEnvironmentError: after ``close()``.
        """
        ids, elapsed, _ = self._prepare(seed, options)
        observations = self._observations.copy()
        self._start(ids, observations)
        if elapsed is not None:
            self._elapsed[ids] = elapsed[ids]
        self._observations = observations
        self._started = True
        return observations.copy(), self._reset_info(ids)

    def _start(self, ids: np.ndarray, observations: np.ndarray) -> None:
        """Starts episodes in worlds ``ids`` and writes their observations."""
        starting = np.zeros(self.num_envs, bool)
        starting[ids] = True
        for group in self._groups:
            local = np.flatnonzero(starting[group.worlds])
            if not len(local):
                continue
            worlds = group.worlds[local]
            family = group.family
            qpos, qvel = family.start(group.backend.home[local], self._draws(family, worlds))
            group.backend.reset(local, qpos, qvel)
            body = family.observe(group.backend.state.rows(local))
            bad = group.backend.diverged()[local] | bad_numbers(body, {})
            if bad.any():  # they are shown as zeros, and their first step ends them as diverged
                group.backend.state.qpos[local[bad]] = math.nan
                body = np.where(bad[:, None], 0.0, body)
            observations[_at(worlds, group.columns.observation)] = body
        self._elapsed[ids] = 0
        self._ended[ids] = False

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Advances every world by one control step; see the class for what comes back.

        Args:
            actions: ``(num_envs, num_actions)``, clipped to [-1, 1].

        Raises:
            ValueError: for actions of another shape or with values that are not finite.
            gymnasium.error.ResetNeeded: before the first reset, or in mode ``DISABLED`` after an
                episode has ended.
            gymnasium.error.ClosedEnvironmentError: after ``close()``.
        """
        self._check_open()
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        actions = check_action(actions, (self.num_envs, self.num_actions))
        starting = None
        if self.autoreset_mode != AutoresetMode.SAME_STEP and self._ended.any():
            if self.autoreset_mode == AutoresetMode.DISABLED:
                raise gymnasium.error.ResetNeeded(
                    f"episodes of worlds {np.flatnonzero(self._ended).tolist()} have ended; reset "
                    "them with options={'reset_mask': ...}"
                )
            starting = self._ended.copy()

        observations = self._observations.copy()
        terminations = np.zeros(self.num_envs, bool)
        info: dict[str, Any] = {"task": self._numbers.copy(), "_task": np.ones(self.num_envs, bool)}
        info["success"] = np.zeros(self.num_envs, bool)
        info["physics_diverged"] = np.zeros(self.num_envs, bool)
        for name in self._term_names:
            info[name] = np.zeros(self.num_envs)
        rewards = np.zeros(self.num_envs)
        for group in self._groups:
            self._step_group(group, actions, starting, observations, rewards, terminations, info)

        self._elapsed += 1
        truncations = self._elapsed >= self.episode_limits
        stepped = np.ones(self.num_envs, bool)
        if starting is not None:
            stepped = ~starting
            truncations &= stepped
            self._start(np.flatnonzero(starting), observations)
        self.steps_taken += int(stepped.sum())
        self._ended = terminations | truncations
        info = self._masked(info, stepped)
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            info = self._finish(np.flatnonzero(self._ended), observations, info)
        self._observations = observations
        return observations.copy(), rewards, terminations, truncations, info

    def _step_group(
        self,
        group: Group,
        actions: np.ndarray,
        starting: np.ndarray | None,
        observations: np.ndarray,
        rewards: np.ndarray,
        terminations: np.ndarray,
        info: dict[str, Any],
    ) -> None:
        """Steps one topology and writes its rows; worlds in ``starting`` are left alone."""
        family, backend = group.family, group.backend
        # a whole array needs no index: the common case of one topology copies nothing twice
        worlds: Any = slice(None) if len(group.worlds) == self.num_envs else group.worlds
        idle = None if starting is None else starting[worlds]
        controls = actions[_at(worlds, group.columns.action)]
        backend.step(controls, None if idle is None else np.flatnonzero(~idle))
        body, terms = family.observe(backend.state), family.reward(backend.state)
        bad = backend.diverged() | bad_numbers(body, terms)
        if bad.any():
            terms = {name: np.where(bad, 0.0, term) for name, term in terms.items()}
        for term, total in backend.state.totals.items():
            total += terms[term]
        terminated, success = family.terminated(backend.state), family.success(backend.state)
        skip = bad if idle is None else bad | idle
        keep: Any = slice(None)
        if skip.any():
            ended = group.worlds[bad if idle is None else bad & ~idle]
            terminations[ended] = True
            info["physics_diverged"][ended] = True
            keep = np.flatnonzero(~skip)
            worlds = group.worlds[keep]
        # diverged worlds keep zero terms and their last valid observation
        observations[_at(worlds, group.columns.observation)] = body[keep]
        terminations[worlds] = terminated[keep]
        info["success"][worlds] = success[keep]
        for term in family.reward_terms:
            info[f"reward_{term}"][worlds] = terms[term][keep]
            rewards[worlds] += terms[term][keep]

    def _masked(self, info: dict[str, Any], mask: np.ndarray) -> dict[str, Any]:
        """Adds Gymnasium's ``_key`` masks: which worlds have the key."""
        for key in ("success", "physics_diverged", *self._term_names):
            # in a set of families, worlds do not have the terms of the others
            info[f"_{key}"] = mask & self._earning[key] if key in self._earning else mask.copy()
        return info

    def _finish(self, ids: np.ndarray, observations: np.ndarray, info: dict[str, Any]) -> dict[str, Any]:
        """Moves the last step of ended episodes to ``final_obs`` and ``final_info``, and starts anew."""
        mask = np.zeros(self.num_envs, bool)
        mask[ids] = True
        final_obs = np.full(self.num_envs, None, dtype=object)
        for i in ids:
            final_obs[i] = observations[i].copy()
        final_info: dict[str, Any] = {}
        for key in ("task", "success", "physics_diverged", *self._term_names):
            final_info[key] = np.zeros(self.num_envs, info[key].dtype)
            final_info[key][ids] = info[key][ids]
            final_info[f"_{key}"] = mask & self._earning[key] if key in self._earning else mask.copy()
            if key != "task":  # what remains is the new episode's, which has made no step
                info[key][ids] = 0
                info[f"_{key}"][ids] = False
        self._start(ids, observations)
        return info | {
            "final_obs": final_obs,
            "_final_obs": mask,
            "final_info": final_info,
            "_final_info": mask.copy(),
        }

    def get_state(self) -> dict[str, Any]:
        """All that the worlds' futures depend on, but for tasks and options: arrays and JSON types."""
        return {
            "physics": [group.backend.get_state() for group in self._groups],
            "totals": [
                {term: total.copy() for term, total in group.backend.state.totals.items()}
                for group in self._groups
            ],
            "observations": self._observations.copy(),
            "elapsed": self._elapsed.copy(),
            "ended": self._ended.copy(),
            **self._counted(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Restores what :meth:`get_state` returned, in worlds of the same tasks."""
        self._recount(state)
        groups = zip(self._groups, state["physics"], state["totals"], strict=True)
        for group, rows, sums in groups:
            group.backend.set_state(np.asarray(rows))
            for term, total in group.backend.state.totals.items():
                total[:] = np.asarray(sums[term])
        self._observations = np.asarray(state["observations"]).copy()
        self._elapsed = np.asarray(state["elapsed"]).copy()
        self._ended = np.asarray(state["ended"]).copy()

    def __getstate__(self) -> dict[str, Any]:
        # batches and OpenGL contexts do not pickle: the state rows travel, the rest is rebuilt
        state = {k: v for k, v in self.__dict__.items() if k not in ("_groups", "_cameras")}
        state["physics"] = [group.backend.get_state() for group in self._groups]
        state["totals"] = [dict(group.backend.state.totals) for group in self._groups]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        physics, totals = state.pop("physics"), state.pop("totals")
        observations = state["_observations"]
        self.__dict__.update(state, _cameras={})
        self._assign(self._tasks)
        self._observations = observations
        for group, rows, sums in zip(self._groups, physics, totals, strict=True):
            group.backend.set_state(rows)
            for term, total in group.backend.state.totals.items():
                total[:] = sums[term]


def _at(worlds: Any, columns: Any) -> Any:
    """Index of some columns of some worlds' rows."""
    if isinstance(worlds, np.ndarray) and isinstance(columns, np.ndarray):
        return worlds[:, None], columns
    return worlds, columns


def check_codes(codes: Any, shape: tuple[int, int]) -> np.ndarray:
    """Returns codes as float32 of our own.

    Raises:
        ValueError: for another shape, or values that are not finite.
    """
    try:
        with np.errstate(over="ignore"):  # to infinity, which is refused
            found = np.array(codes, np.float64).astype(np.float32)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"codes must be an array of numbers of shape {shape}: {error}") from None
    if found.shape != shape:
        raise ValueError(f"codes have shape {found.shape}, expected {shape}")
    if not np.isfinite(found).all():
        raise ValueError("codes must be finite numbers of float32's range")
    return found


def check_autoreset_mode(mode: AutoresetMode | str) -> AutoresetMode:
    """Returns ``mode`` as Gymnasium's enumeration."""
    valid = [m.value for m in AutoresetMode]
    if mode not in (*AutoresetMode, *valid):
        raise ValueError(f"unknown autoreset_mode {mode!r}; valid: {', '.join(valid)}")
    return AutoresetMode(mode)


def _as_list(tasks: Any) -> list[registry.TaskLike]:
    """Checks that ``tasks`` is a list of tasks, not one task."""
    if isinstance(tasks, (str, Task, dict)) or not hasattr(tasks, "__iter__"):
        raise ValueError(f"tasks must be a list of tasks, got {tasks!r}; for one task use [{tasks!r}]")
    tasks = list(tasks)
    if not tasks:
        raise ValueError("tasks is empty; give at least one, or leave it out for all published tasks")
    return tasks
