"""Many worlds as a Stable-Baselines3 ``VecEnv`` over one native batch, without worker processes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode

from mtenvs import registry
from mtenvs.spec import MissingPackageError, did_you_mean
from mtenvs.vector_env import TaskVectorEnv

try:
    from stable_baselines3.common.vec_env import VecEnv
except ModuleNotFoundError as error:
    raise MissingPackageError(
        f"mtenvs.adapters.sb3 needs the package {error.name}: pip install 'mtenvs[train]'", name=error.name
    ) from error

Indices = int | Iterable[int] | None
"""Worlds, as Stable-Baselines3 counts them: one, several, or ``None`` for all."""


OF_EACH_WORLD = {"task": "tasks", "np_random": "np_random", "np_random_seed": "np_random_seed"}
"""Attributes that worlds have of their own, and what holds them all in the vector environment."""
OPTIONS = ("task", "elapsed_steps")
"""What ``set_options()`` knows."""
SPACES = ("observation_space", "action_space")
"""Attributes that the vector environment has of the whole batch and, as ``single_...``, of a world."""


class TaskVecEnv(VecEnv):
    """Speaks Stable-Baselines3 for one of our vector environments.

    ``infos[i]`` is empty while an episode goes on, because filling a dictionary for every world would
    cost more than it tells; ``step_info`` has the same as arrays. In the step that ends an episode it holds

    - ``terminal_observation``: the last observation, float32; the one returned is the next episode's;
    - ``TimeLimit.truncated``: whether the time limit alone ended it, so that its value goes on;
    - ``task``: the published number, or -1;
    - ``success``, and again as ``is_success``, from which Stable-Baselines3 logs the success rate;
    - ``physics_diverged``, and every reward term of the last step as ``reward_<term>``.

    ``VecMonitor`` adds ``episode``, from which the mean return is logged. ``reset_infos[i]`` has ``task``.

    The worlds are rows of one batch, not environments of their own: ``get_attr`` gives each its ``task``,
    spaces, ``np_random`` and ``np_random_seed``, and for other names what all share. Tasks are chosen with
    ``set_options({"task": 3})``, or a list of one dictionary for each world, and come into force at the
    next ``reset()``; a world that is given none keeps its task. ``elapsed_steps``, control steps that count
    as already taken, staggers the first episodes.

    Args:
        envs: made by ``gymnasium.make_vec("mt/<Family>-v0", num_envs, ...)``, in its same-step mode.

    Raises:
        TypeError: for an environment that is not of mtenvs.
        ValueError: for another autoreset mode.
    """

    def __init__(self, envs: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        if not isinstance(envs, TaskVectorEnv):
            raise TypeError(f"TaskVecEnv needs a TaskVectorEnv of mtenvs, got {envs}")
        if envs.autoreset_mode != AutoresetMode.SAME_STEP:
            raise ValueError(
                f"autoreset_mode is {envs.autoreset_mode.value!r}, but Stable-Baselines3 needs "
                f"{AutoresetMode.SAME_STEP.value!r}: leave it out"
            )
        self._envs = envs
        self._actions: np.ndarray = np.empty(0)
        self._step_info: dict[str, Any] = {}
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    @property
    def vector_env(self) -> TaskVectorEnv:
        """The wrapped vector environment."""
        return self._envs

    @property
    def spec(self) -> gymnasium.envs.registration.EnvSpec | None:
        """What Gymnasium made it from; ``VecMonitor`` writes its id into the file's head."""
        return self._envs.spec

    @property
    def step_info(self) -> dict[str, Any]:
        """Gymnasium's ``infos`` of the last step: arrays ``(num_envs,)`` of all worlds, with masks."""
        return self._step_info

    def reset(self) -> np.ndarray:
        """Starts an episode in every world and returns observations ``(num_envs, size)``.

        Seeds of ``seed()`` and tasks of ``set_options()`` come into force; seeds are used once.
        """
        options: dict[str, Any] | None = None
        if any(self._options):
            current = zip(self._options, self._envs.tasks, strict=True)
            options = {"tasks": [option.get("task", task) for option, task in current]}
            if any("elapsed_steps" in option for option in self._options):
                elapsed = [option.get("elapsed_steps", 0) for option in self._options]
                options["elapsed_steps"] = np.array(elapsed)
        observations, info = self._envs.reset(seed=self._seeds, options=options)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = [{"task": number} for number in info["task"].tolist()]
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keeps the actions ``(num_envs, num_actions)`` for :meth:`step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Advances every world by one control step.

        Returns:
            Observations ``(num_envs, size)`` and rewards ``(num_envs,)`` of float32, ``dones``
            ``(num_envs,)`` of bool, and ``infos``, of which the class tells.

        Raises:
            ValueError: for actions of another shape or with values that are not finite.
        """
        observations, rewards, terminations, truncations, info = self._envs.step(self._actions)
        self._step_info = info
        dones = terminations | truncations
        # not one shared dictionary: a wrapper may write into them
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for i in np.flatnonzero(dones):
            infos[i] = _last_info(info, int(i), bool(truncations[i] and not terminations[i]))
        return observations, rewards.astype(np.float32), dones, infos

    def close(self) -> None:
        """Closes the image contexts."""
        self._envs.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """An image ``(height, width, 3)`` of uint8 of every world; ``None`` without a render mode."""
        return self._envs.render() or [None] * self.num_envs

    def set_options(self, options: list[dict] | dict | None = None) -> None:
        """Chooses the tasks, and the control steps that count as taken, of the next ``reset()``.

        Args:
            options: ``{"task": ..., "elapsed_steps": ...}``, or less of it, for all worlds, or a list of
                one such dictionary for each; ``None`` takes back what was chosen.

        Raises:
            ValueError: for an unknown task or option, or a list of another length.
        """
        given = list(options) if isinstance(options, list) else [options or {}] * self.num_envs
        if len(given) != self.num_envs:
            raise ValueError(f"{len(given)} options for {self.num_envs} worlds; give one each, or a dict")
        unknown = sorted({str(key) for option in given for key in option} - {*OPTIONS})
        if unknown:
            raise ValueError(f"unknown options {unknown}; valid: {', '.join(OPTIONS)}")
        family = self._envs.family
        self._options = [
            {k: registry.as_task(family, v) if k == "task" else v for k, v in option.items()}
            for option in given
        ]

    def get_attr(self, attr_name: str, indices: Indices = None) -> list[Any]:
        """The attribute of every chosen world; see the class.

        Raises:
            AttributeError: for an unknown name.
        """
        if attr_name in OF_EACH_WORLD:
            values = getattr(self._envs, OF_EACH_WORLD[attr_name])
        else:
            shared = f"single_{attr_name}" if attr_name in SPACES else attr_name
            values = [getattr(self._envs, shared)] * self.num_envs
        return [values[i] for i in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Indices = None) -> None:
        """Sets ``task``, from the next ``reset()`` on; worlds share everything else.

        Raises:
            AttributeError: for another name.
            ValueError: for an unknown task.
        """
        if attr_name != "task":
            raise AttributeError(
                f"cannot set {attr_name!r}: the worlds are rows of one batch and share it; valid: task"
            )
        task = registry.as_task(self._envs.family, value)
        for i in self._get_indices(indices):
            self._options[i] = {"task": task}

    def env_method(
        self, method_name: str, *method_args: Any, indices: Indices = None, **method_kwargs: Any
    ) -> list[Any]:
        """Calls ``render``, the one method that the chosen worlds have of their own.

        Raises:
            AttributeError: for another name.
        """
        if method_name != "render":
            raise AttributeError(
                f"cannot call {method_name!r} on single worlds, which are rows of one batch; valid: "
                "render. Methods of the whole batch are those of .vector_env"
            )
        images = self.get_images()
        return [images[i] for i in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: type[gymnasium.Wrapper], indices: Indices = None) -> list[bool]:
        """False for every chosen world: rows of a batch carry no wrappers."""
        return [False for _ in self._get_indices(indices)]


def _last_info(info: dict[str, Any], world: int, truncated: bool) -> dict[str, Any]:
    """Builds the info of the step that ended a world's episode."""
    final = info["final_info"]
    own = {
        key: values[world].item()
        for key, values in final.items()
        if not key.startswith("_") and final[f"_{key}"][world]
    }
    return own | {
        "is_success": own["success"],
        "terminal_observation": info["final_obs"][world],
        "TimeLimit.truncated": truncated,
    }


def make(
    env_id: str,
    num_envs: int = 1,
    tasks: Sequence[registry.TaskLike] | None = None,
    seed: int | None = None,
    **kwargs: Any,
) -> TaskVecEnv:
    """Makes a Stable-Baselines3 vector environment, for example ``PPO("MlpPolicy", make(...))``.

    Args:
        env_id: Gymnasium id, for example ``"mt/Biped-v0"``.
        num_envs: number of worlds.
        tasks: tasks dealt round robin to the worlds; ``None`` deals all the published ones.
        seed: of the first ``reset()``: world ``i`` gets ``seed + i``; ``None`` for new streams.
        kwargs: to ``gymnasium.make_vec``: ``conditioning``, ``render_mode``, ``max_episode_steps``, ...

    Raises:
        ValueError: for an id that is not of mtenvs, an unknown argument's value, no tasks, or more tasks
            than worlds.
    """
    valid = registry.ids()
    if env_id.removeprefix("mtenvs:") not in valid:
        raise ValueError(
            f"{env_id!r} is no id of mtenvs{did_you_mean(env_id, valid)}; valid: {', '.join(valid)}"
        )
    envs = TaskVecEnv(gymnasium.make_vec(env_id, num_envs=num_envs, tasks=tasks, **kwargs))
    if seed is not None:
        envs.seed(seed)
    return envs
