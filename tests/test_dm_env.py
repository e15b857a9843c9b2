from __future__ import annotations

import dataclasses
import sys
import unittest
from typing import Any

import dm_env
import gymnasium as gym
import numpy as np
import pytest
from dm_env import specs
from dm_env.test_utils import EnvironmentTestMixin

import mtenvs
from mtenvs.adapters.dm_env import DmEnv

CHECKS = [name for name in dir(EnvironmentTestMixin) if name.startswith("test_")]


class Conformance(EnvironmentTestMixin, unittest.TestCase):
    """dm_env's own checks; ``name`` and ``conditioning`` are set before they run."""

    __test__ = False  # pytest runs them through test_conforms, once for each family
    name: str
    conditioning: str

    def make_object_under_test(self) -> DmEnv:
        return mtenvs.dm_env(self.name, conditioning=self.conditioning, seed=0, max_episode_steps=6)

    def make_action_sequence(self) -> Any:
        shape = self.environment.action_spec().shape
        yield from np.random.default_rng(0).uniform(-1, 1, (20, *shape)).astype(np.float32)


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize("conditioning", ["descriptor", "one_hot", "none"])
@pytest.mark.parametrize("name", [*mtenvs.families(), "AllFamilies"])
def test_conforms(name: str, conditioning: str, check: str) -> None:
    case = Conformance(check)
    case.name, case.conditioning = name, conditioning
    case.debug()


def test_the_checks_were_found() -> None:
    assert {"test_reset", "test_longer_action_sequence"} <= set(CHECKS)


def actions(env: DmEnv, steps: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (steps, *env.action_spec().shape)).astype(np.float32)


def joined(step: dm_env.TimeStep) -> np.ndarray:
    return np.concatenate(list(step.observation.values()))


def still(env: DmEnv) -> np.ndarray:
    return np.zeros(env.action_spec().shape, np.float32)


def forever(family: mtenvs.Family) -> mtenvs.Family:
    """The family, but nothing ends its episodes for good."""
    return dataclasses.replace(family, terminated=lambda state: state.time < 0)


# ---- the same as Gymnasium's


@pytest.mark.parametrize("conditioning", ["descriptor", "none"])
def test_equals_the_gymnasium_environment(family: mtenvs.Family, conditioning: str) -> None:
    """A whole episode and more; what was given is compared afterwards, when nothing may have changed it."""
    ours = mtenvs.dm_env(family.name, task=3, conditioning=conditioning, seed=7)
    env = gym.make(family.id, task=3, conditioning=conditioning)
    given: list[tuple[dm_env.TimeStep, dict[str, Any]]] = []
    expected: list[tuple[Any, ...]] = []
    ended = True
    for action in actions(ours, family.episode_steps + 50):
        given.append((ours.step(action), ours.info))
        if ended:
            expected.append(env.reset(seed=None if expected else 7))
            ended = False
        else:
            expected.append(env.step(action))
            ended = expected[-1][2] or expected[-1][3]
    for (step, info), result in zip(given, expected, strict=True):
        np.testing.assert_array_equal(joined(step), result[0])
        assert info == result[-1]
        if len(result) == 2:
            assert (step.step_type, step.reward, step.discount) == (dm_env.StepType.FIRST, None, None)
            continue
        _, reward, terminated, truncated, _ = result
        assert step.reward == reward
        assert step.discount == (0.0 if terminated else 1.0)
        assert step.last() == (terminated or truncated)
    assert sum(step.last() for step, _ in given) >= 1


def test_the_time_limit_is_the_familys_and_keeps_the_discount(family: mtenvs.Family) -> None:
    env = mtenvs.dm_env(forever(family), task=0, seed=0)  # type: ignore[arg-type]
    env.reset()
    for _ in range(family.episode_steps - 1):
        assert env.step(still(env)).mid()
    step = env.step(still(env))
    assert step.last()
    assert step.discount == 1.0
    assert env.step(still(env)).first()


@pytest.mark.parametrize("limit", [1, 50])
def test_an_end_for_good_has_no_discount(family: mtenvs.Family, limit: int) -> None:
    """Even in the step in which the time limit falls."""
    env = mtenvs.dm_env(family.name, task=0, seed=0, max_episode_steps=limit)
    env.reset()
    env.gym_env.unwrapped.data.qvel[:] = 1e20  # type: ignore[attr-defined]
    step = env.step(still(env))
    assert step.last()
    assert (step.reward, step.discount) == (0.0, 0.0)
    assert env.info["physics_diverged"]
    assert env.step(still(env)).first()


# ---- specs


@pytest.mark.parametrize("conditioning", ["descriptor", "none"])
@pytest.mark.parametrize("name", [*mtenvs.families(), "AllFamilies"])
def test_specs_say_what_there_is(name: str, conditioning: str) -> None:
    env = mtenvs.dm_env(name, conditioning=conditioning)
    inner: Any = env.gym_env.unwrapped
    where = inner.observation_slices
    sizes = {"body": where.body, "mask": where.mask, "code": where.code}
    expected = {
        name: specs.Array((part.stop - part.start,), np.float32, name)
        for name, part in sizes.items()
        if part.stop > part.start
    }
    assert dict(env.observation_spec()) == expected
    assert all(spec.name == name for name, spec in env.observation_spec().items())
    assert "body" in expected
    assert ("code" in expected) == (conditioning != "none")
    step = env.reset()
    assert list(step.observation) == list(expected)
    if "mask" in expected:
        assert set(np.unique(step.observation["mask"])) <= {0.0, 1.0}

    action = env.action_spec()
    assert action == specs.BoundedArray(inner.action_space.shape, np.float32, -1.0, 1.0)
    assert len(set(action.name.split("\t"))) == inner.action_space.shape[0]
    assert env.reward_spec().shape == ()
    assert (env.discount_spec().minimum, env.discount_spec().maximum) == (0.0, 1.0)


def test_the_code_tells_which_task_was_drawn(family: mtenvs.Family) -> None:
    env = mtenvs.dm_env(family.name, seed=0)
    drawn = set()
    for _ in range(20):
        code = env.reset().observation["code"]
        drawn.add(env.info["task"])
        np.testing.assert_array_equal(
            code, np.array(family.descriptor(family.tasks[env.info["task"]]), np.float32)
        )
    assert len(drawn) > 3


# ---- seeds


def test_a_seed_gives_a_stream_of_episodes(family: mtenvs.Family) -> None:
    def starts(seed: int | None) -> list[np.ndarray]:
        env = mtenvs.dm_env(family.name, task=0, seed=seed)
        return [joined(env.reset()) for _ in range(3)]

    first = starts(0)
    np.testing.assert_array_equal(first, starts(0))
    assert len(np.unique(first, axis=0)) == 3
    assert not np.array_equal(first[0], starts(1)[0])
    assert not np.array_equal(starts(None)[0], starts(None)[0])


@pytest.mark.parametrize("seed", [-1, 0.5, True, "0"])
def test_bad_seeds_are_named(seed: Any) -> None:
    with pytest.raises(ValueError, match=f"seed must be a non-negative integer or None, got {seed!r}"):
        mtenvs.dm_env("Biped", seed=seed)


# ---- errors, ends


def test_unknown_names_are_named() -> None:
    with pytest.raises(ValueError, match=r"unknown family 'Bipde' \(did you mean 'Biped'"):
        mtenvs.dm_env("Bipde")
    with pytest.raises(TypeError, match=r"keyword argument 'tsk' \(did you mean 'task'"):
        mtenvs.dm_env("Biped", tsk=1)
    with pytest.raises(ValueError, match="unknown task number 99; valid tasks of 'Biped'"):
        mtenvs.dm_env("Biped", task=99)
    with pytest.raises(TypeError, match=r"DmEnv needs an environment of mtenvs, got .*CartPole"):
        DmEnv(gym.make("CartPole-v1"))


def test_a_refused_action_changes_nothing(family: mtenvs.Family) -> None:
    env, twin = (mtenvs.dm_env(family.name, task=0, seed=0) for _ in range(2))
    env.reset()
    twin.reset()
    with pytest.raises(ValueError, match="actions must be finite"):
        env.step(still(env) * np.nan)
    np.testing.assert_array_equal(joined(env.step(still(env))), joined(twin.step(still(twin))))


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "dm_env", None)
    monkeypatch.delitem(sys.modules, "mtenvs.adapters.dm_env")
    with pytest.raises(ModuleNotFoundError, match=r"package dm_env: pip install 'mtenvs\[dm-control\]'"):
        mtenvs.dm_env("Biped")


def test_close_closes_the_environment() -> None:
    closed = []
    with mtenvs.dm_env("Biped", task=0) as env:
        inner = env.gym_env.unwrapped
        inner.close = lambda: closed.append(True)
    assert closed == [True]
