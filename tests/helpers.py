"""What several test modules share: comparing what environments return, asking families what they are."""

from __future__ import annotations

import dataclasses
import functools
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import mtenvs
from baselines.checkpoint import FACTS, SEAL
from mtenvs.spec import Family, FamilySet

needs_gl = pytest.mark.usefixtures("gl")
"""Of tests that draw: skipped where nothing can; see :func:`why_nothing_draws`."""

SICK = 1
"""The task whose functions give bad numbers."""

TRY_TO_DRAW = """
import mtenvs
from mtenvs.rendering import RenderingError, picture
try:
    picture(mtenvs.model("Biped", 0), 30, 40)
except RenderingError as error:
    print(error)
"""


@functools.cache
def why_nothing_draws() -> str:
    """Why no picture can be drawn here, with the settings that there are; empty if one was.

    Asked in a process of its own, because what draws is decided once in a process.
    """
    done = subprocess.run([sys.executable, "-c", TRY_TO_DRAW], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def actions(env: gym.vector.VectorEnv, seed: int, steps: int) -> np.ndarray:
    """Random actions for every step, ``(steps, num_envs, num_actions)``."""
    return np.random.default_rng(seed).uniform(-1, 1, (steps, *env.action_space.shape)).astype(np.float32)


def rollout(env: gym.vector.VectorEnv, steps: int, seed: Any = 0, action_seed: int = 0) -> list[Any]:
    """Everything that reset and the steps return."""
    return [env.reset(seed=seed), *(env.step(a) for a in actions(env, action_seed, steps))]


def assert_same(a: Any, b: Any, path: str = "") -> None:
    """Equal to the last bit, types included; infos by key, masks included.

    A key that no world has, by its mask, may also be missing: Gymnasium's own vectors leave it out.
    """
    assert type(a) is type(b), path
    if isinstance(a, dict):
        a, b = _present(a), _present(b)
        assert set(a) == set(b), f"{path}: {set(a) ^ set(b)}"
        for key in a:
            assert_same(a[key], b[key], f"{path}[{key}]")
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_same(x, y, f"{path}[{i}]")
    elif isinstance(a, np.ndarray):
        assert (a.dtype, a.shape) == (b.dtype, b.shape), path
        if a.dtype == object:
            assert_same(list(a), list(b), path)
        else:
            np.testing.assert_array_equal(a, b, err_msg=path)
    else:
        assert a == b, path


def _present(info: dict[str, Any]) -> dict[str, Any]:
    absent = {key for key, mask in info.items() if key.startswith("_") and not np.any(mask)}
    return {key: value for key, value in info.items() if not {key, f"_{key}"} & absent}


def differing_fields(models: list[mujoco.MjModel], part: str | None = None) -> set[str]:
    """Names of the numeric fields in which compiled models (or their ``opt``) are not all equal."""
    parts = [m if part is None else getattr(m, part) for m in models]
    return {
        name
        for name in dir(parts[0])
        if not name.startswith("_")
        and isinstance(getattr(parts[0], name), (np.ndarray, int, float, bytes))
        and any(not np.array_equal(getattr(parts[0], name), getattr(p, name)) for p in parts[1:])
    }


@functools.cache
def may_fall(name: str) -> bool:
    """Whether bodies of a family, left alone, end their episodes early."""
    family = mtenvs.get_family(name)
    env = gym.make_vec(family.id, num_envs=len(family.tasks))
    env.reset(seed=0)
    still = np.zeros(env.action_space.shape)
    return any(env.step(still)[2].any() for _ in range(100))


def backend_of(env: gym.vector.VectorEnv, world: int) -> tuple[Any, int]:
    """The batch that steps a world, and the world's place in it."""
    for group in env.unwrapped._groups:
        if world in group.worlds:
            return group.backend, int(np.flatnonzero(group.worlds == world)[0])
    raise IndexError(world)


def present_entries(
    family: Family | FamilySet, task: mtenvs.Task, layout: str | None = None
) -> tuple[set[str], set[str]]:
    """Names of the entries of observation and action that a task's body has, by the family's own words."""
    own = family.of(task)
    if own.names is None:
        return set(own.observation_names), set(own.action_names)
    # a set is given the layout of whichever of its families knows it
    known = layout if layout in own.layouts else next(iter(own.layouts), "")
    observations, actions = own.names(task.parameters, known)
    return set(observations), set(actions)


def rewrite_facts(directory: Path, **changes: Any) -> None:
    """Changes what a checkpoint says of itself, as somebody would who takes its seal away."""
    facts = json.loads((directory / FACTS).read_text()) | changes
    facts = {name: value for name, value in facts.items() if name != SEAL}
    (directory / FACTS).write_text(json.dumps(facts))


def sick(family: Family, where: str, value: float, since: float) -> Family:
    """The family, of whose task ``SICK`` a function gives a bad number.

    Args:
        family: as it should be.
        where: ``"observe"`` or ``"reward"``.
        value: the bad number.
        since: seconds of an episode after which it comes; below 0 also where the episode starts.
    """
    own = family.tasks[SICK].parameters

    def constants(p: Mapping[str, float]) -> dict[str, float]:
        return {**family.constants(p), "sick": float(p == own)}

    def ill(state: Any) -> Any:
        return (state.constant("sick") > 0) & (state.time > since)

    def spoilt(array: Any, bad: Any) -> Any:
        array = array.clone() if hasattr(array, "clone") else array.copy()  # PyTorch's, or NumPy's
        array[bad] = value
        return array

    def observe(state: Any) -> Any:
        body, bad = family.observe(state), ill(state)
        body[:, -1] = spoilt(body[:, -1], bad)
        return body

    def reward(state: Any) -> Any:
        terms, bad, last = family.reward(state), ill(state), family.reward_terms[-1]
        return terms | {last: spoilt(terms[last], bad)}

    changes = {"observe": observe} if where == "observe" else {"reward": reward}
    return dataclasses.replace(family, constants=constants, **changes)  # type: ignore[arg-type]
