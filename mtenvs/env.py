"""One world as a ``gymnasium.Env``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import mujoco
import numpy as np

from mtenvs import registry
from mtenvs.backends.mujoco_batch import diverged, silence_log_file
from mtenvs.conditioning import Encoded, Encoding
from mtenvs.rendering import Camera, Viewer, check_render_mode, frames_per_second
from mtenvs.spec import FamilySet, NotFiniteError, Task
from mtenvs.state import Layout, State, bad_numbers

NUMBERS = "biufO"
"""Kinds of dtype that actions may have; what is in an array of objects is asked itself."""


def check_action(action: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the action clipped to [-1, 1], as float64.

    Raises:
        ValueError: for another shape.
        NotFiniteError: which is a ValueError, for values that are not finite.
    """
    try:
        given = np.asarray(action)
        if given.dtype.kind not in NUMBERS:  # NumPy would read texts, count days, and halve complex numbers
            raise TypeError(f"of dtype {given.dtype} they are none")
        action = given.astype(np.float64)
    except (OverflowError, TypeError, ValueError) as error:
        raise ValueError(f"action must be an array of numbers of shape {shape}: {error}") from None
    if action.shape != shape:
        raise ValueError(f"action has shape {action.shape}, expected {shape}")
    if not np.isfinite(action).all():
        bad = np.argwhere(~np.isfinite(action))[0]
        raise NotFiniteError(
            f"action{bad.tolist()} is {action[tuple(bad)]}; actions must be finite numbers in [-1, 1]"
        )
    return np.clip(action, -1.0, 1.0)


MOST_WORLDS = 10**6
"""That are made at a time: more are a slip, and would fill the memory before anything is said."""
MOST_PIXELS = 2**14
"""Of the width and height of an image."""
MOST_THREADS = 2**12
"""That worlds are stepped on."""


def check_count(name: str, value: Any, least: int = 1, most: int | None = None) -> int:
    """Returns a whole number that an argument gives, for example of worlds.

    Raises:
        ValueError: if it is none, less than ``least``, 0 or 1, or more than ``most``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        kind = "positive" if least else "non-negative"
        raise ValueError(f"{name} must be a {kind} integer, got {value!r}")
    if most is not None and value > most:
        raise ValueError(f"{name} must be at most {most:,}, got {value}")
    return int(value)


def check_size(height: Any, width: Any) -> tuple[int, int]:
    """Returns height and width of an image, in pixels.

    Raises:
        ValueError: if one is no positive integer, or too large.
    """
    pixels = {"height": height, "width": width}
    found = [check_count(name, value, most=MOST_PIXELS) for name, value in pixels.items()]
    return found[0], found[1]


def check_options(options: Any, valid: Sequence[str]) -> dict[str, Any]:
    """Returns the options of a ``reset`` as a dictionary of our own.

    Raises:
        TypeError: if they are no dictionary.
        ValueError: for an unknown one.
    """
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise TypeError(
            f"reset options are a dictionary or None, got {options!r}; valid keys: {', '.join(valid)}"
        )
    if unknown := sorted(str(key) for key in options if key not in valid):
        raise ValueError(f"unknown reset options {unknown}; valid: {', '.join(valid)}")
    return dict(options)


class TaskEnv(Encoded, gymnasium.Env[np.ndarray, np.ndarray]):
    """One task of a family, or a task drawn anew at every reset.

    Observation: float32 ``[body, mask, code]``; see ``observation_slices`` and ``encoding``. Action:
    float32 in [-1, 1], clipped; entries that a body lacks do nothing. ``info`` holds ``task`` (the
    published number, in a set of families its place in the set's list, or -1), and after a step
    ``success``, ``physics_diverged`` and every reward term as ``reward_<term>``.

    Made by ``gymnasium.make("mt/<Family>-v0", ...)``, which also truncates episodes. A set of families
    truncates its episodes itself, each at its family's own limit.

    Args:
        family: name of the family, or ``"AllFamilies"``, or the names of several.
        task: number, name, :class:`mtenvs.Task` or its dictionary; ``None`` draws a published task
            at every reset. ``reset(options={"task": ...})`` chooses one from then on.
        conditioning: what the observation tells of the task: ``"descriptor"``, ``"one_hot"``, ``"none"``.
        layout: how bodies of unequal size share the observation, in families that have ``layouts``.
        render_mode: ``"human"``, ``"rgb_array"`` or ``None``.
        width: of rendered images, in pixels; the window of mode ``"human"`` has a size of its own.
        height: of rendered images, in pixels; likewise.
        tasks: refused: it is for the vector environment.
        made_as: the id it is made under, given by Gymnasium's registry; a family of another id is refused.
        unknown: refused, by name.

    Raises:
        TypeError: for an unknown argument.
        ValueError: for an unknown family, task, conditioning, layout or render mode, a family of another
            id, or an image without pixels.
    """

    metadata: dict[str, Any] = {"render_modes": ["human", "rgb_array"]}

    def __init__(
        self,
        family: str | Sequence[str],
        task: registry.TaskLike | None = None,
        conditioning: str = "descriptor",
        layout: str | None = None,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 480,
        tasks: Sequence[registry.TaskLike] | None = None,
        made_as: str | None = None,
        **unknown: Any,
    ) -> None:
        registry.check_keywords(unknown, TaskEnv.__init__, refused="tasks")
        if tasks is not None:
            raise ValueError(
                "tasks= is for the native vector environment: gymnasium.make_vec(id, num_envs=..., "
                "tasks=[...]) without vectorization_mode. A single environment takes task=...; for "
                "Gymnasium's own vectors give each its task: SyncVectorEnv([lambda: make(id, task=0), ...])"
            )
        self.family = registry.get_families(family)
        registry.check_id(made_as, self.family)
        self.encoding = Encoding(self.family, conditioning, layout)
        self.render_mode = check_render_mode(render_mode, self.metadata["render_modes"])
        self._size = check_size(height, width)
        self._models: dict[Task, mujoco.MjModel] = {}
        self._viewer: Camera | Viewer | None = None
        self._started = False
        silence_log_file()

        self._fixed = None if task is None else registry.as_task(self.family, task)
        self._choices = self.family.tasks
        self._set_task(self._fixed or self._choices[0])
        self.observation_space = gymnasium.spaces.Box(
            -np.inf, np.inf, (self.observation_slices.size,), np.float32
        )
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (self.num_actions,), np.float32)

    def _set_task(self, task: Task) -> None:
        template = self.encoding.template(task)  # raises before anything has changed
        self._body_family = self.family.of(task)
        if task not in self._models:
            self._models[task] = registry.model(self._body_family, task)
        self.task, self._template, self._number = task, template, self.encoding.number(task)
        self._columns = self.encoding.columns(task)
        self.model = self._models[task]
        fps = frames_per_second(self.model, self._body_family.frame_skip)
        self.metadata = {**type(self).metadata, "render_fps": fps}
        self._bind(mujoco.MjData(self.model))

    def _bind(self, data: mujoco.MjData) -> None:
        """Makes ``data`` the world, and the State views of it with a leading world axis of one."""
        self.data = data
        constants = self._body_family.constants(self.task.parameters)
        self._state = State(
            layout=Layout.of(self.model),
            time=np.array([data.time]),  # MjData gives a copy: step() refreshes it
            qpos=self.data.qpos[None],
            qvel=self.data.qvel[None],
            ctrl=self.data.ctrl[None],
            sensordata=self.data.sensordata[None],
            constants={name: np.array([value]) for name, value in constants.items()},
            totals={term: np.zeros(1) for term in self._body_family.reward_terms},
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Starts an episode.

        Args:
            seed: of the environment's random stream; ``None`` goes on with the present one.
            options: ``{"task": ...}`` chooses the task, for this and later episodes.

        Raises:
            TypeError: for options that are no dictionary.
            ValueError: for an unknown task or option.
        """
        options = check_options(options, ("task",))
        chosen = registry.as_task(self.family, options["task"]) if "task" in options else None
        if chosen is not None:
            self.encoding.code(chosen)  # raises before anything has changed
        super().reset(seed=seed)
        if chosen is not None:
            self._fixed = chosen
        task = self._fixed or self._choices[int(self.np_random.integers(len(self._choices)))]
        if task != self.task:
            self._set_task(task)
        family = self._body_family
        draws = self.np_random.random(family.start_draws)
        qpos, qvel = family.start(self.model.key_qpos[:1], draws[None])
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.qvel[:] = qpos[0], qvel[0]
        for total in self._state.totals.values():
            total[:] = 0.0
        self._elapsed = 0
        self._refresh()
        self._started = True
        self._observation = self._template.copy()
        body = family.observe(self._state)
        # it is shown as zeros, and its first step ends it as diverged
        if diverged(self.data) or bad_numbers(body, {})[0]:
            self.data.qpos[:] = math.nan
        else:
            self._see(body)
        if self.render_mode == "human":
            self.render()
        return self._observation.copy(), {"task": self._number}

    def _refresh(self) -> None:
        mujoco.mj_step1(self.model, self.data)  # without it, sensors lag qpos by one step
        self._state.time[0] = self.data.time

    def _see(self, body: np.ndarray) -> None:
        # the body's part comes first, so that its columns are the observation's
        self._observation[self._columns.observation] = body[0]

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Advances by one control step; ``truncated`` is False here, ``TimeLimit`` sets it, except in sets.

        Args:
            action: ``(num_actions,)``, clipped to [-1, 1].

        Raises:
            ValueError: for an action of another shape or with values that are not finite.
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if not self._started:
            raise gymnasium.error.ResetNeeded("call reset() before step()")
        family = self._body_family
        action = check_action(action, (self.num_actions,))
        self.data.ctrl[:] = action[self._columns.action]
        mujoco.mj_step(self.model, self.data, nstep=family.frame_skip)
        self._refresh()
        self._elapsed += 1
        body, earned = family.observe(self._state), family.reward(self._state)
        bad = diverged(self.data) or bool(bad_numbers(body, earned)[0])
        if bad:  # MuJoCo may have put the world into its default pose: nothing of it means anything
            terms = dict.fromkeys(family.reward_terms, 0.0)
            terminated, success = True, False
        else:
            terms = {k: float(v[0]) for k, v in earned.items()}
            for name, value in terms.items():
                self._state.totals[name][0] += value
            terminated = bool(family.terminated(self._state)[0])
            success = bool(family.success(self._state)[0])
            self._see(body)
        info: dict[str, Any] = {"task": self._number, "success": success, "physics_diverged": bad}
        info |= {f"reward_{name}": value for name, value in terms.items()}
        if self.render_mode == "human":
            self.render()
        truncated = isinstance(self.family, FamilySet) and self._elapsed >= family.episode_steps
        return self._observation.copy(), sum(terms.values()), terminated, truncated, info

    def render(self) -> np.ndarray | None:
        """Returns an image ``(height, width, 3)`` of uint8, or shows the window in mode ``human``."""
        if self.render_mode is None:
            gymnasium.logger.warn("render() needs gym.make(..., render_mode='rgb_array' or 'human')")
            return None
        if self._viewer is not None and self._viewer.model is not self.model:
            self._viewer.close()
            self._viewer = None
        if self._viewer is None:
            human = self.render_mode == "human"
            self._viewer = Viewer(self.model) if human else Camera(self.model, *self._size)
        return self._viewer.show(self.data)

    def close(self) -> None:
        """Closes the window or image context; the world goes on, as in Gymnasium's MujocoEnv."""
        if self._viewer is not None:
            self._viewer.close()
            self._viewer = None

    def __getstate__(self) -> dict[str, Any]:
        # an OpenGL context cannot travel, and a view of an array would travel as a copy
        state = {k: v for k, v in self.__dict__.items() if k not in ("_viewer", "_state")}
        return state | {"totals": {k: v.copy() for k, v in self._state.totals.items()}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        totals = state.pop("totals")
        self.__dict__.update(state, _viewer=None)
        self._bind(self.data)
        for name, total in totals.items():
            self._state.totals[name][:] = total
