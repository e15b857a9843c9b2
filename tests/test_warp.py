"""Worlds of MuJoCo Warp on its CPU device, beside C MuJoCo's, which is their oracle."""

from __future__ import annotations

import dataclasses
import functools
import math
import pickle
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import mujoco
import mujoco_warp as mjw
import numpy as np
import pytest
import torch
import warp as wp
from gymnasium.vector import AutoresetMode
from helpers import SICK, actions, needs_gl, sick

import mtenvs
from benchmarks.warp_parity import Level, Parity, measure, topologies
from mtenvs import device_env
from mtenvs.backends import mujoco_warp
from mtenvs.backends.mujoco_batch import BatchBackend
from mtenvs.backends.mujoco_warp import Sizes, WarpBackend, bytes_per_world, probe_sizes, put_models
from mtenvs.device_env import DeviceVectorEnv
from mtenvs.spec import MissingDeviceError
from mtenvs.vector_env import TaskVectorEnv

CPU = torch.device("cpu")
FAMILIES = [mtenvs.get_family(name) for name in mtenvs.families()]
COMPILED = 2
"""Topologies of each family that are tested unmarked: kernels of every further one compile for seconds."""
CLOSE = 2e-3
"""Of observations and rewards within an episode of 6 control steps: what a step gets wrong, 1e-5 of a
velocity in most states, grows from step to step."""

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA card")


def make(family: str = "Biped", num_envs: int = 4, device: str = "cpu", **kwargs: Any) -> DeviceVectorEnv:
    env = gym.make_vec(f"mt/{family}-v0", num_envs=num_envs, backend="warp", device=device, **kwargs)
    assert isinstance(env.unwrapped, DeviceVectorEnv)
    return env.unwrapped


def play(env: DeviceVectorEnv, steps: int, seed: Any = 0, action_seed: int = 0) -> list[Any]:
    """Everything that reset and the steps return."""
    return [env.reset(seed=seed), *(env.step(a) for a in actions(env, action_seed, steps))]


def assert_equal(a: Any, b: Any, path: str = "") -> None:
    """Equal to the last bit, types included."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert set(a) == set(b), f"{path}: {set(a) ^ set(b)}"
        for key in a:
            assert_equal(a[key], b[key], f"{path}[{key}]")
    elif isinstance(a, tuple):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}[{i}]")
    else:
        assert a.dtype == b.dtype, path
        torch.testing.assert_close(a, b, rtol=0, atol=0, msg=path)


def tensors(value: Any) -> list[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [tensor for part in parts for tensor in tensors(part)]


def starts(env: DeviceVectorEnv, episodes: int) -> torch.Tensor:
    """Observations at the starts of episodes that begin by themselves, ``(episodes, n, size)``."""
    still = torch.zeros(env.action_space.shape)
    found = []
    while len(found) < episodes:
        observations, _, terminations, truncations, _ = env.step(still)
        if truncations.any():
            assert truncations.all()
            assert not terminations.any()
            found.append(observations)
    return torch.stack(found)


# ---- the same physics, observations and rewards as C MuJoCo's


def every_task() -> list[Any]:
    params = []
    for family in FAMILIES:
        for number, group in enumerate(topologies(family, family.tasks)):
            for task in group:
                name = f"{task.family}-{task.number}-{task.name}"
                marks = [] if number < COMPILED else [pytest.mark.slow]
                params.append(pytest.param(task, id=name, marks=marks))
    return params


@functools.cache
def parity(task: mtenvs.Task, device: str) -> dict[str, Parity]:
    """Of all tasks that share a batch with this one."""
    family = mtenvs.get_family(task.family)
    group = next(g for g in topologies(family, family.tasks) if task in g)
    return measure(family.name, group, device) if task == group[0] else parity(group[0], device)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=needs_cuda)])
@pytest.mark.parametrize("task", every_task())
def test_worlds_are_those_of_c_mujoco(task: mtenvs.Task, device: str) -> None:
    """Sensors, one control step, and observation, rewards and flags: tolerances are warp_parity's."""
    found = parity(task, device)[task.name]
    assert found.faults() == []
    assert found.states >= 500
    assert found.touching > found.states / 20  # limits and contacts are in


def heavier(backend: WarpBackend) -> None:
    masses = wp.to_torch(backend._m.body_mass)
    masses[:, -1] *= 1.01


def without_contacts(backend: WarpBackend) -> None:
    backend._m.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (heavier, "half of the states deviate"),
        (without_contacts, "step: deviates"),
    ],
)
def test_errors_of_physics_are_noticed(change: Callable[[WarpBackend], None], told: str) -> None:
    """A last body that is 1% heavier, and a floor that nothing touches."""
    tasks = mtenvs.get_family("Biped").tasks[:2]
    for found in measure("Biped", tasks, change=change).values():
        assert any(told in fault for fault in found.faults()), found.faults()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"forward": Level(math.nan, 0.0, 0)}, "forward: deviates by nan"),
        ({"forward": Level(1e-6, 0.0, 20)}, "20 of 1000 states are exempt from forward"),
        ({"step": Level(0.1, 0.0, 0)}, "step: deviates by 1.0e-01, tolerance 5e-03"),
        ({"step": Level(1e-3, 9e-4, 0)}, "half of the states deviate by 9.0e-04"),
        ({"functions": Level(1e-4, 0.0, 0)}, "functions: deviates by 1.0e-04"),
        ({"flags": 2}, "termination or success differ in 2 of 1000 states"),
        ({"lost": 1}, "1 of 1000 states diverged"),
    ],
)
def test_whatever_breaks_a_tolerance_is_told(wrong: dict[str, Any], told: str) -> None:
    good = Level(largest=1e-6, median=1e-7, exempt=3)
    parity = Parity("task", 1000, 500, forward=good, step=good, functions=good, flags=1, lost=0)
    assert parity.faults() == []
    (fault,) = dataclasses.replace(parity, **wrong).faults()
    assert fault.startswith(told)


def test_bodies_that_differ_are_stacked_by_world() -> None:
    """Every world steps its own model, wherever it is in the batch, whatever is beside it."""
    tasks = [6, 0, 3, 3]
    mixed, seeds = make(num_envs=4, tasks=tasks), [5, 6, 7, 8]
    masses = mixed._groups[0].backend._m.body_mass.numpy()
    for world, task in enumerate(tasks):
        model = mtenvs.model("Biped", task)
        np.testing.assert_allclose(masses[world], model.body_mass, rtol=1e-6)
    among = play(mixed, 12, seeds)
    for world in (0, 2):
        alone = make(num_envs=1, tasks=[tasks[world]])
        alone.reset(seed=[seeds[world]])
        for step, action in enumerate(actions(mixed, 0, 12), 1):
            observations, rewards, *_ = alone.step(action[[world]])
            torch.testing.assert_close(observations[0], among[step][0][world], rtol=0, atol=0)
            assert rewards[0] == among[step][1][world]
    assert not torch.equal(among[12][0][2], among[12][0][3])  # another start


# ---- what the environment returns


def test_arrays_are_tensors_of_the_same_shapes(family: mtenvs.Family) -> None:
    kwargs: dict[str, Any] = {"tasks": [0, 1], "conditioning": "one_hot"}
    env = make(family.name, 4, **kwargs)
    twin = TaskVectorEnv(family.name, 4, **kwargs)
    for name in ("observation_space", "action_space", "single_observation_space", "single_action_space"):
        assert getattr(env, name) == getattr(twin, name)
    assert env.metadata == twin.metadata
    assert env.device == CPU
    observations, info = env.reset(seed=0)
    assert observations.dtype == torch.float32
    assert observations.shape == env.observation_space.shape
    assert info["task"].tolist() == [0, 1, 0, 1]
    assert info["_task"].tolist() == [True] * 4
    for give in (lambda a: a, torch.from_numpy, lambda a: torch.from_numpy(a).requires_grad_()):
        observations, rewards, terminations, truncations, info = env.step(give(actions(env, 0, 1)[0]))
        assert observations.dtype == rewards.dtype == torch.float32
        assert terminations.dtype == truncations.dtype == torch.bool
        assert rewards.shape == terminations.shape == truncations.shape == (4,)
        assert observations.shape == env.observation_space.shape
        found = tensors((observations, rewards, terminations, truncations, info))
        assert all(t.device == CPU and not t.requires_grad for t in found)
    assert env.steps_taken == 12
    space = env.observation_space
    assert space.contains(observations.numpy())


def test_first_episodes_are_those_of_the_cpu(family: mtenvs.Family) -> None:
    """Observations, rewards, flags and infos with their masks, up to the end of the first episodes."""
    limit = 6
    kwargs: dict[str, Any] = {"num_envs": 4, "tasks": [0, 1], "max_episode_steps": limit}
    ours, theirs = make(family.name, **kwargs), TaskVectorEnv(family.name, **kwargs)
    seed = [3, 4, 5, 6]
    (observations, info), (expected, told) = ours.reset(seed=seed), theirs.reset(seed=seed)
    np.testing.assert_allclose(observations.numpy(), expected, rtol=1e-5, atol=1e-5)
    assert_close(info, told)
    assert ours.np_random_seed == theirs.np_random_seed
    for step, action in enumerate(actions(ours, 1, limit), 1):
        seen, wanted = ours.step(0.5 * action), theirs.step(0.5 * action)
        assert_close(seen[1], wanted[1])
        for flags, others in zip(seen[2:4], wanted[2:4], strict=True):
            np.testing.assert_array_equal(flags.numpy(), others)
        assert seen[3].all() == (step == limit)
        info, told = seen[4], wanted[4]
        last = seen[3].any()
        if not last:  # where nothing has ended, Gymnasium's own leave these out
            assert_close(seen[0], wanted[0])
            assert not info["_final_obs"].any()
            assert not info["_final_info"].any()
            # what the step led to is always there
            assert torch.equal(info["final_obs"], seen[0])
            told = told | {k: info[k] for k in ("final_obs", "_final_obs", "final_info", "_final_info")}
        else:
            told = told | {"final_obs": np.stack(list(told["final_obs"]))}
            assert not np.allclose(seen[0].numpy(), told["final_obs"], atol=0.01)  # the next episode's
        assert_close(info, told)


def assert_close(ours: Any, theirs: Any, path: str = "") -> None:
    if isinstance(ours, dict):
        assert set(ours) == set(theirs), f"{path}: {set(ours) ^ set(theirs)}"
        for key in ours:
            assert_close(ours[key], theirs[key], f"{path}[{key}]")
        return
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape, path
    if ours.dtype == np.float32:
        np.testing.assert_allclose(ours, theirs, rtol=CLOSE, atol=CLOSE, err_msg=path)
    else:
        assert ours.dtype == theirs.dtype, path
        np.testing.assert_array_equal(ours, theirs, err_msg=path)


def test_falls_end_episodes_in_the_same_step() -> None:
    """Over several episodes: what is returned is the next one's start, what it led to is final_obs."""
    env = make(num_envs=6)
    env.reset(seed=0)
    ended = 0
    for action in actions(env, 0, 80):
        observations, rewards, terminations, truncations, info = env.step(np.sign(action))
        final = info["final_info"]
        assert not truncations.any()
        assert torch.equal(info["_final_obs"], terminations)
        assert torch.equal(info["_success"], ~terminations)
        terms = sum(final[name] + info[name] for name in env.terms)
        torch.testing.assert_close(terms, rewards)
        for world in terminations.nonzero()[:, 0].tolist():
            ended += 1
            assert not torch.equal(info["final_obs"][world], observations[world])
            assert int(env._steps_in_episode[world]) == 0
            # upright again: no observation of a fallen body is that near home
            assert (
                abs(env._groups[0].backend.state.qpos[world] - env._groups[0].backend.home[world]).max()
                < 0.5
            )
    assert ended >= 6


def test_nothing_that_was_returned_changes_later(family: mtenvs.Family) -> None:
    env, twin = (make(family.name, 2, tasks=[0], max_episode_steps=3) for _ in range(2))
    kept = [twin.reset(seed=0)]
    copies = [[t.clone() for t in tensors(kept[0])]]
    spoilt = [env.reset(seed=0)]
    for action in actions(env, 0, 8):
        given = torch.from_numpy(action.copy())
        spoilt.append(env.step(given))
        assert torch.equal(given, torch.from_numpy(action))  # nor is what was passed
        given.fill_(9.0)
        kept.append(twin.step(action))
        copies.append([t.clone() for t in tensors(kept[-1])])
        # spoiling what was returned spoils nothing that comes
        assert_equal(spoilt[-1], kept[-1])
        for tensor in tensors(spoilt[-1]):
            tensor.zero_()
    for result, copied in zip(kept, copies, strict=True):
        for tensor, before in zip(tensors(result), copied, strict=True):
            assert torch.equal(tensor, before)


def test_actions_are_clipped() -> None:
    a, b = make(num_envs=2), make(num_envs=2)
    a.reset(seed=0)
    b.reset(seed=0)
    assert_equal(a.step(np.full((2, 6), -7.0)), b.step(-torch.ones(2, 6)))


def test_worlds_may_be_told_another_code() -> None:
    codes = np.arange(6, dtype=np.float32).reshape(2, 3)
    env = make("Octopus", 2, tasks=[0], max_episode_steps=2, codes=np.hstack([codes, codes[:, :1]]))
    code = env.observation_slices.code
    for seen in play(env, 4):
        np.testing.assert_array_equal(seen[0][:, code][:, :3].numpy(), codes)


# ---- episodes and seeds


def test_same_seed_same_trajectory_other_seed_another(family: mtenvs.Family) -> None:
    env = make(family.name, 2, tasks=[0], max_episode_steps=3)
    first = play(env, 8)
    for a, b in (
        (first, play(env, 8)),
        (first, play(make(family.name, 2, tasks=[0], max_episode_steps=3), 8, [0, 1])),
    ):
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    assert not torch.equal(play(env, 1, seed=10)[0][0], first[0][0])
    assert not torch.equal(first[0][0][0], first[0][0][1])


def test_starts_are_functions_of_seed_and_episode_alone() -> None:
    """Whatever the number and the order of the worlds, and whatever was played before."""
    kwargs: dict[str, Any] = {"tasks": [0], "max_episode_steps": 2}
    many = make(num_envs=5, **kwargs)
    many.reset(seed=[11, 12, 13, 14, 15])
    whole = starts(many, 3)
    few = make(num_envs=2, **kwargs)
    few.reset(seed=99)
    starts(few, 2)
    few.reset(seed=[14, 12])
    torch.testing.assert_close(starts(few, 3), whole[:, [3, 1]], rtol=0, atol=0)
    # episodes of a world and worlds of an episode all begin elsewhere
    body = many.observation_slices.body
    flat = whole[..., body].flatten(0, 1)
    assert len(torch.unique(flat, dim=0)) == 15


def test_a_reset_without_a_seed_repeats_nothing() -> None:
    env = make(num_envs=2, tasks=[0], max_episode_steps=2)
    seen = []
    for seed in (7, None, None):
        seen += [env.reset(seed=seed)[0], *starts(env, 2)]
    flat = torch.cat(seen)[:, env.observation_slices.body]
    assert len(torch.unique(flat, dim=0)) == len(flat) == 18
    # a seed begins anew: the same episodes again
    again = [env.reset(seed=7)[0], *starts(env, 2)]
    torch.testing.assert_close(torch.stack(again), torch.stack(seen[:3]), rtol=0, atol=0)
    # of one world alone: the other goes on
    observations = env.reset(seed=[7, None])[0]
    torch.testing.assert_close(observations[0], seen[0][0], rtol=0, atol=0)
    later = starts(env, 1)[0]
    torch.testing.assert_close(later[0], seen[1][0], rtol=0, atol=0)
    torch.testing.assert_close(observations[1], seen[3][1], rtol=0, atol=0)
    torch.testing.assert_close(later[1], seen[4][1], rtol=0, atol=0)


def test_unseeded_worlds_start_anywhere() -> None:
    envs = [make("Octopus", 1, tasks=[0], max_episode_steps=2) for _ in range(2)]
    assert not torch.equal(*(env.reset()[0] for env in envs))
    assert not torch.equal(*(starts(env, 1) for env in envs))


def test_some_worlds_are_reset_and_the_others_go_on() -> None:
    env, twin = make(num_envs=3, tasks=[0]), make(num_envs=3, tasks=[0])
    for e in (env, twin):
        e.reset(seed=0)
        for action in actions(e, 0, 4):
            e.step(action)
    mask = np.array([False, True, False])
    before = env.observations.clone()
    observations, info = env.reset(options={"reset_mask": mask})
    assert info["_task"].tolist() == mask.tolist()
    assert torch.equal(observations[[0, 2]], before[[0, 2]])
    assert not torch.equal(observations[1], before[1])
    assert env._steps_in_episode.tolist() == [4, 0, 4]
    for action in actions(env, 1, 4):
        seen, expected = env.step(action), twin.step(action)
        for ours, theirs in zip(seen[:4], expected[:4], strict=True):
            assert torch.equal(ours[[0, 2]], theirs[[0, 2]])

    cpu = TaskVectorEnv("Biped", 3, tasks=[0])
    cpu.reset(seed=0)
    expected = cpu.reset(options={"reset_mask": mask})[0]
    np.testing.assert_allclose(observations[1].numpy(), expected[1], rtol=1e-5, atol=1e-5)


def test_episodes_can_begin_late() -> None:
    env = make("Octopus", 3, tasks=[0], max_episode_steps=5)
    env.reset(seed=0, options={"elapsed_steps": np.array([0, 2, 4])})
    still = np.zeros(env.action_space.shape)
    ends = torch.stack([env.step(still)[3] for _ in range(10)])
    assert [ends[:, i].nonzero()[:, 0].tolist() for i in range(3)] == [[4, 9], [2, 7], [0, 5]]
    # of some worlds: what counts as taken elsewhere stays what it was
    mask = np.array([True, False, False])
    env.reset(options={"reset_mask": mask, "elapsed_steps": np.array([3, 0, 0])})
    assert env._steps_in_episode.tolist() == [3, 2, 4]


@pytest.mark.parametrize("options", [{"tasks": [2, 1, 2]}, {"task": 2}])
def test_worlds_can_be_given_other_tasks(options: dict[str, Any]) -> None:
    env = make(num_envs=3, tasks=[0], max_episode_steps=4)
    play(env, 2)
    first = env.reset(seed=5, options=options)
    tasks = options.get("tasks", [2, 2, 2])
    assert first[1]["task"].tolist() == tasks
    fresh = make(num_envs=3, tasks=tasks, max_episode_steps=4)
    assert_equal(first, fresh.reset(seed=5))
    for action in actions(env, 0, 6):
        assert_equal(env.step(action), fresh.step(action))


def test_a_state_that_was_kept_goes_on_identically() -> None:
    """Through ends of episodes, in this environment and in another of the same tasks."""
    kwargs: dict[str, Any] = {"num_envs": 4, "tasks": [0, 3], "max_episode_steps": 7}
    env = make(**kwargs)
    play(env, 5)
    kept = env.get_state()
    expected = [env.step(a) for a in actions(env, 2, 12)]
    assert any(seen[3].any() for seen in expected)
    again, other = env, make(**kwargs)
    for e in (again, other):
        e.set_state(kept)
        for action, wanted in zip(actions(e, 2, 12), expected, strict=True):
            assert_equal(e.step(action), wanted)


# ---- several topologies


def test_arms_of_unequal_length_share_an_environment() -> None:
    """Whatever the layout, entries of the body are those of the arm alone, the rest is padding."""
    for layout in mtenvs.get_family("Octopus").layouts:
        kwargs: dict[str, Any] = {"num_envs": 4, "tasks": [0, 1], "layout": layout, "max_episode_steps": 5}
        ours, theirs = make("Octopus", **kwargs), TaskVectorEnv("Octopus", **kwargs)
        assert [group.worlds.tolist() for group in ours._groups] == [[0, 2], [1, 3]]
        seen, expected = ours.reset(seed=0)[0], theirs.reset(seed=0)[0]
        for action in actions(ours, 0, 4):
            np.testing.assert_allclose(seen.numpy(), expected, rtol=CLOSE, atol=CLOSE)
            seen, rewards, *_ = ours.step(action)
            expected, others, *_ = theirs.step(action)
            np.testing.assert_allclose(rewards.numpy(), others, rtol=CLOSE, atol=CLOSE)
        padding = (expected == 0.0).all(axis=0)
        assert (seen[:, torch.from_numpy(padding)] == 0.0).all()


@pytest.mark.slow
def test_all_families_share_an_environment() -> None:
    """Every topology, stepped side by side, as on the CPU; each with its own terms and limits."""
    first = [family.tasks[0] for family in FAMILIES]
    tasks = [*first, mtenvs.get_family("Octopus").tasks[5]]
    kwargs: dict[str, Any] = {"num_envs": 2 * len(tasks), "tasks": tasks}
    ours, theirs = make("AllFamilies", **kwargs), TaskVectorEnv("AllFamilies", **kwargs)
    assert ours.episode_limits.tolist() == theirs.episode_limits.tolist()
    seen, expected = ours.reset(seed=0), theirs.reset(seed=0)
    np.testing.assert_allclose(seen[0].numpy(), expected[0], rtol=1e-5, atol=1e-5)
    for action in actions(ours, 0, 5):
        seen, expected = ours.step(0.3 * action), theirs.step(0.3 * action)
        assert_close(seen[0], expected[0])
        for key, value in expected[4].items():
            assert_close(seen[4][key], value, key)


# ---- what goes wrong


@pytest.mark.parametrize(
    "bad", [math.nan, *(pytest.param(bad, marks=pytest.mark.slow) for bad in (math.inf, 1e20))]
)
@pytest.mark.parametrize("array", ["qpos", "qvel"])
@pytest.mark.parametrize("name", ["Biped", "Octopus"])
def test_diverging_physics_ends_the_episode_of_its_world(name: str, array: str, bad: float) -> None:
    env, twin = (make(name, 3, tasks=[0]) for _ in range(2))
    family = mtenvs.get_family(name)
    env.reset(seed=0)
    twin.reset(seed=0)
    still = np.zeros(env.action_space.shape)
    last = env.step(still)[0]
    twin.step(still)
    getattr(env._groups[0].backend.state, array)[1] = bad
    observations, rewards, terminations, truncations, info = env.step(still)
    expected = twin.step(still)
    final = info["final_info"]
    assert (rewards[1].item(), terminations[1].item(), truncations[1].item()) == (0.0, True, False)
    assert final["physics_diverged"].tolist() == [False, True, False]
    assert not final["success"][1]
    assert all(final[f"reward_{term}"][1] == 0.0 for term in family.reward_terms)
    assert torch.equal(info["final_obs"][1], last[1])
    assert torch.isfinite(observations).all()
    others = [0, 2]
    assert torch.equal(observations[others], expected[0][others])
    assert torch.equal(rewards[others], expected[1][others])
    # the next episode begins as any does, and nothing bad is left behind
    fresh = make(name, 1, tasks=[0], max_episode_steps=1)
    fresh.reset(seed=1)
    assert torch.equal(fresh.step(still[:1])[0][0], observations[1])
    alone = make(name, 1, tasks=[0])
    alone.set_state(
        {
            **env.get_state(),
            "physics": [{k: v[1:2] for k, v in env.get_state()["physics"][0].items()}],
            **{k: v[1:2] for k, v in env.get_state().items() if k not in ("physics", "steps_taken")},
        }
    )
    for action in actions(env, 0, 10):
        seen, expected = env.step(action), twin.step(action)
        assert not seen[4]["final_info"]["physics_diverged"].any()
        for ours, theirs in zip(seen[:4], expected[:4], strict=True):
            assert torch.equal(ours[others], theirs[others])
        assert torch.equal(alone.step(action[1:2])[0][0], seen[0][1])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env.check()  # a body that diverges is no fault of the learner's


@pytest.mark.parametrize(
    ("where", "value"), [("observe", math.nan), ("observe", 1e30), ("reward", math.inf)]
)
def test_bad_numbers_of_a_family_end_the_episode_of_their_world(where: str, value: float) -> None:
    """As diverged physics does, the physics being well."""
    bad = sick(mtenvs.get_family("Biped"), where, value, 0.05)
    env = DeviceVectorEnv(bad, 3, "cpu", tasks=[0, SICK, 2])  # type: ignore[arg-type]
    twin = make(num_envs=3, tasks=[0, SICK, 2])
    still = torch.zeros(env.action_space.shape)
    seen, expected = ([e.reset(seed=0), *(e.step(still) for _ in range(4))] for e in (env, twin))
    assert all(torch.isfinite(tensor).all() for tensor in tensors(seen))
    _, rewards, terminations, _, info = seen[3]
    assert (rewards[1].item(), terminations.tolist()) == (0.0, [False, True, False])
    assert info["final_info"]["physics_diverged"].tolist() == [False, True, False]
    assert torch.equal(info["final_obs"][1], seen[2][0][1])
    for ours, theirs in zip(seen[1:], expected[1:], strict=True):
        for mine, other in zip(ours[:4], theirs[:4], strict=True):
            assert torch.equal(mine[[0, 2]], other[[0, 2]])


def test_a_start_with_bad_numbers_is_shown_as_zeros_and_ends_at_once() -> None:
    bad = sick(mtenvs.get_family("Biped"), "observe", math.nan, -1.0)
    env = DeviceVectorEnv(bad, 3, "cpu", tasks=[0, SICK, 2])  # type: ignore[arg-type]
    twin = make(num_envs=3, tasks=[0, SICK, 2])
    still, (shown, _), (others, _) = torch.zeros(3, 6), env.reset(seed=0), twin.reset(seed=0)
    body = env.observation_slices.body
    for _ in range(3):
        assert not shown[1, body].any()
        assert torch.equal(shown[1, body.stop :], others[1, body.stop :])
        assert torch.equal(shown[[0, 2]], others[[0, 2]])
        shown, rewards, terminations, _, info = env.step(still)
        others = twin.step(still)[0]
        assert (rewards[1].item(), terminations.tolist()) == (0.0, [False, True, False])
        assert info["final_info"]["physics_diverged"].tolist() == [False, True, False]
        assert not info["final_obs"][1, body].any()


def test_actions_that_float32_does_not_hold_are_clipped_too() -> None:
    env, twin = (make(num_envs=2, tasks=[0]) for _ in range(2))
    env.reset(seed=0)
    twin.reset(seed=0)
    for large in (np.full((2, 6), 1e300), torch.full((2, 6), 1e300, dtype=torch.float64), [[9] * 6] * 2):
        assert_equal(env.step(large), twin.step(np.ones((2, 6))))
    for wrong in (np.full((2, 6), "0.5"), np.full((2, 6), 1j)):
        with pytest.raises(ValueError, match="action must be an array of numbers"):
            env.step(wrong)


def test_what_was_earned_before_does_not_pass_to_the_next_episode() -> None:
    env = make("DMWalker", 1, tasks=[0])
    env.reset(seed=0)
    still = np.zeros((1, 6))
    for _ in range(3):
        env.step(still)
    state = env._groups[0].backend.state
    assert state.total("stand")[0] > 0.0
    state.qvel[0] = math.nan
    env.step(still)
    assert state.total("stand")[0] == 0.0
    assert state.time[0] == 0.0


def sized(model: mujoco.MjModel, nconmax: int, njmax: int) -> Sizes:
    return dataclasses.replace(probe_sizes([model], 1), nconmax=nconmax, njmax=njmax)


def test_too_many_constraints_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The world's episode ends as diverged, the others' go on, and check() tells of it once."""
    sizes = sized(mtenvs.model("Biped", 0), nconmax=16, njmax=4)
    with monkeypatch.context() as patch:
        # the seventh argument is what to allocate
        patch.setattr(device_env, "WarpBackend", lambda *args, **_: WarpBackend(*args[:6], sizes))
        env = make(num_envs=3, tasks=[0])
    roomy = make(num_envs=3, tasks=[0])
    env.reset(seed=0)
    roomy.reset(seed=0)
    flying = 1.0  # m above the floor
    for e in (env, roomy):
        e._groups[0].backend.state.qpos[:2, 1] += flying
        e._groups[0].backend.refresh()
    still = np.zeros((3, 6))
    diverged = torch.zeros(3, dtype=torch.int64)
    for _ in range(6):
        seen, expected = env.step(still), roomy.step(still)
        diverged += seen[4]["final_info"]["physics_diverged"]
        assert torch.equal(seen[0][:2], expected[0][:2])
        assert torch.isfinite(seen[0]).all()
        assert seen[1][seen[2]].eq(0.0).all()
    assert diverged[:2].tolist() == [0, 0]
    assert diverged[2] > 0
    with pytest.warns(RuntimeWarning, match=r"of Biped had more contacts.*njmax=4.*ended as diverged"):
        env.check()
    env.check()  # only once: the suite turns such warnings into errors
    roomy.check()


def test_probed_sizes_hold_in_play(family: mtenvs.Family) -> None:
    """No world that is thrown about outgrows what was allocated for its own body alone.

    Not even if all its limits hold at once while as much is touched as ever.
    """
    for task in family.tasks:
        model = mtenvs.model(family.name, task)
        sizes = probe_sizes([model], family.frame_skip)
        rng, data = np.random.default_rng(1), mujoco.MjData(model)
        contacts = rows = 0
        for _ in range(16):
            qpos, qvel = family.start(model.key_qpos[:1], rng.random((1, family.start_draws)))
            mujoco.mj_resetData(model, data)
            data.qpos, data.qvel = qpos[0], qvel[0]
            for step in range(60):
                if step % 6 == 0:
                    data.ctrl = np.sign(rng.uniform(-1, 1, model.nu))
                mujoco.mj_step(model, data, family.frame_skip)
                contacts, rows = max(contacts, data.ncon), max(rows, data.nefc)
        assert contacts <= sizes.nconmax
        edges = 4 * contacts  # of a friction pyramid
        assert max(rows, np.count_nonzero(model.jnt_limited) + edges) <= sizes.njmax
        assert sizes.njmax <= 4 * rows + 8  # nor is memory wasted


def test_a_solver_that_gives_up_hides_no_divergence() -> None:
    """Its qacc is then that of the step before, however large velocities are; C MuJoCo stops there."""
    model = mtenvs.model("Biped", 0)
    worlds = 64
    velocities = np.random.default_rng(0).normal(size=(worlds, model.nv))
    for size, bad in ((1.0, False), (1e5, True), (1e6, True), (1e7, True)):  # MuJoCo itself minds the last
        both = [
            WarpBackend([model] * worlds, ["nominal"] * worlds, {}, (), 2, CPU),
            BatchBackend([model] * worlds, {}, (), 2),
        ]
        warp, batch = both
        home = torch.from_numpy(batch.home).float()
        warp.reset(torch.ones(worlds, dtype=torch.bool), home, torch.from_numpy(size * velocities).float())
        batch.reset(np.arange(worlds), batch.home, size * velocities)
        for backend, ctrl in ((warp, torch.zeros(worlds, model.nu)), (batch, np.zeros((worlds, model.nu)))):
            backend.step(ctrl)
            assert (np.asarray(backend.diverged()) == bad).all(), (size, backend)


def test_a_solver_that_stops_early_is_no_divergence() -> None:
    """As in C MuJoCo, a model's few iterations are what it asks for."""
    model = mtenvs.model("Biped", 0).__copy__()
    model.opt.iterations = 1
    backend = WarpBackend([model] * 8, ["hasty"] * 8, {}, (), 2, CPU)
    backend.state.qpos[:, 1] -= 0.002 * torch.arange(8)  # into the floor
    backend.refresh()
    for _ in range(5):
        backend.step(torch.zeros(8, model.nu))
    assert (backend._overflow != 0).any()
    assert not backend.overflown().any()
    assert not backend.diverged().any()
    backend._overflow.fill_(int(mjw.OverflowType.NEFC))
    assert backend.diverged().all()


BALL = """<mujoco><worldbody>{floor}
<body pos="0 0 0.09"><freejoint/><geom type="{kind}" size="0.1 0.1 0.1" {more}/></body>
</worldbody><keyframe><key qpos="0 0 0.09 1 0 0 0"/></keyframe></mujoco>"""
FLOOR = '<geom name="floor" type="plane" size="1 1 1"/>'


def ball(kind: str = "sphere", floor: str = FLOOR, more: str = "") -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(BALL.format(kind=kind, floor=floor, more=more))


@pytest.mark.parametrize(
    ("condim", "cone", "rows"),
    [(1, "pyramidal", 1), (3, "pyramidal", 4), (3, "elliptic", 3), (6, "pyramidal", 10)],
)
def test_rows_of_a_contact(condim: int, cone: str, rows: int) -> None:
    """A ball on the floor has one contact, of which twice is allocated, rounded up to fours."""
    model = ball(more=f'condim="{condim}"')
    model.geom_condim[:] = condim
    model.opt.cone = getattr(mujoco.mjtCone, f"mjCONE_{cone.upper()}")
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    mujoco.mj_forward(model, data)
    assert (data.ncon, data.nefc) == (1, rows)
    sizes = probe_sizes([model], 1)
    assert (sizes.nconmax, sizes.njmax) == (4, 4 * math.ceil(2 * rows / 4))


def test_probed_sizes_are_those_of_the_greediest_body() -> None:
    plain, rough = ball(), ball()
    plain.geom_condim[:], rough.geom_condim[:] = 1, 6
    each = [probe_sizes([model], 1) for model in (plain, rough)]
    assert each[0].njmax < each[1].njmax
    assert probe_sizes([rough, plain], 1) == probe_sizes([plain, rough], 1)
    assert probe_sizes([plain, rough], 1).njmax == each[1].njmax


@pytest.mark.parametrize(
    ("other", "field"),
    [
        (lambda: ball("box"), "geom_type"),
        (lambda: ball(more='contype="2"'), "body_contype"),
    ],
)
def test_models_that_cannot_share_a_batch_are_named(other: Any, field: str) -> None:
    names = ["round", "edgy"]
    with pytest.raises(ValueError, match=rf"round and edgy cannot share a batch.* differ in ({field})\b"):
        put_models([ball(), other()], names, np.array([0, 1]))


def test_options_that_cannot_differ_are_named() -> None:
    other = ball()
    other.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    with pytest.raises(
        ValueError, match=r"round and other cannot share.* differ in opt\.integrator, which"
    ):
        put_models([ball(), other], ["round", "other"], np.array([0, 1, 0]))


def test_what_warp_lacks_is_named() -> None:
    model = ball()
    model.opt.solver = mujoco.mjtSolver.mjSOL_PGS
    with pytest.raises(ValueError, match=r"MuJoCo Warp cannot step round: .*PGS"):
        put_models([model], ["round"], np.array([0]))


def test_still_geoms_may_differ_in_place() -> None:
    """The floor of every world is where its own model has it, though nothing moves it."""
    low = ball(floor='<geom name="floor" type="plane" size="1 1 1" pos="0 0 -1"/>')
    high = ball()
    backend = WarpBackend([low, high], ["low", "high"], {}, (), 1, CPU, sized(low, 4, 8))
    for _ in range(60):
        backend.step(torch.zeros(2, 0))
    for world, model in enumerate((low, high)):
        data = mujoco.MjData(model)
        mujoco.mj_resetDataKeyframe(model, data, 0)
        mujoco.mj_step(model, data, 60)
        assert backend.state.qpos[world, 2].item() == pytest.approx(data.qpos[2], abs=1e-4)
    assert backend.state.qpos[0, 2] < 0.05 < backend.state.qpos[1, 2]


def test_memory_is_told_in_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is allocated on the card."""
    model = mtenvs.model("Biped", 0)
    sizes = sized(model, 8, 32)
    each = bytes_per_world(model, sizes)
    assert 5_000 < each < 200_000
    assert (
        bytes_per_world(model, sized(model, 8, 256)) > each + 2 * 4 * 224 * model.nv
    )  # rows of the Jacobian
    monkeypatch.setattr(mujoco_warp, "check_device", lambda device: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000 * each + 5, 2**40))
    message = (
        r"1,001 worlds need about .* GiB and cuda:0 has .* GiB free: about 1,000 worlds of this body fit"
    )
    with pytest.raises(MemoryError, match=message):
        WarpBackend([model] * 1001, ["nominal"] * 1001, {}, (), 2, torch.device("cuda:0"), sizes)


def test_estimated_memory_is_what_data_takes() -> None:
    """Many worlds take what the difference of two says, doubled for what a step needs for a while."""
    model = mtenvs.model("Biped", 0)
    sizes = sized(model, 8, 32)
    with wp.ScopedDevice("cpu"):
        many = mujoco_warp._size(mjw.make_data(model, nworld=1024, nconmax=8, njmax=32))
    assert 2.0 * many / 1024 == pytest.approx(bytes_per_world(model, sizes), rel=0.05)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA card")
@pytest.mark.parametrize("device", [None, "cuda", "cuda:3"])
def test_a_missing_card_is_told_of(device: str | None) -> None:
    with pytest.raises(
        MissingDeviceError, match=r"no device 'cuda(:3)?': \w+ finds no CUDA card.*device='cpu'"
    ):
        gym.make_vec("mt/Biped-v0", num_envs=2, backend="warp", device=device)


def test_cards_and_drivers_are_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a machine with two cards would answer."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(wp, "is_cuda_available", lambda: True)
    monkeypatch.setattr(wp, "get_cuda_driver_version", lambda: (12, 8))
    assert mujoco_warp.check_device("cuda") == torch.device("cuda:1")
    assert mujoco_warp.check_device("cuda:0") == torch.device("cuda:0")
    with pytest.raises(MissingDeviceError, match="no device 'cuda:2': this machine has 2, from cuda:0 on"):
        mujoco_warp.check_device("cuda:2")
    monkeypatch.setattr(wp, "get_cuda_driver_version", lambda: (12, 2))
    with pytest.raises(MissingDeviceError, match=r"driver is too old: it knows CUDA 12\.2, and 12\.4"):
        mujoco_warp.check_device("cuda")


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"backend": "wrap"}, r"unknown backend 'wrap' \(did you mean 'warp'\?\); valid: batch, warp"),
        ({"backend": "batch"}, "device='cpu' is for backend='warp'; backend='batch' runs on the CPU"),
        ({"device": "gpu"}, "no worlds on device 'gpu'; valid: cpu, cuda, cuda:N"),
        ({"device": "meta"}, "no worlds on device 'meta'; valid: cpu, cuda, cuda:N"),
        ({"num_threads": 2}, "num_threads is for backend='batch': a device has its own"),
        (
            {"autoreset_mode": "NextStep"},
            "autoreset_mode 'NextStep' is for backend='batch'; valid: 'SameStep'",
        ),
        ({"autoreset_mode": AutoresetMode.DISABLED}, "autoreset_mode 'Disabled' is for backend='batch'"),
        (
            {"autoreset_mode": "never"},
            r"autoreset_mode 'never'.*; valid: .*SameStep",
        ),
        ({"num_envs": 0}, "num_envs must be a positive integer, got 0"),
        ({"tasks": [0, 99]}, "unknown task number 99"),
        ({"task": 3}, r"a vector environment takes tasks=\[...\], a list, instead of task="),
        ({"max_episode_steps": 0}, "max_episode_steps must be a positive integer, got 0"),
    ],
)
def test_bad_arguments_are_named(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gym.make_vec("mt/Biped-v0", **{"num_envs": 2, "backend": "warp", "device": "cpu", **kwargs})


def test_unknown_arguments_are_named() -> None:
    with pytest.raises(TypeError, match=r"keyword argument 'max_steps'"):
        make(max_steps=3)


@pytest.mark.parametrize(
    ("give", "message"),
    [
        (lambda: np.zeros((2, 7)), r"action has shape \(2, 7\), expected \(2, 6\)"),
        (lambda: torch.zeros(6), r"action has shape \(6,\), expected \(2, 6\)"),
        (lambda: torch.full((2, 6), math.nan), r"action\[0, 0\] is nan; actions must be finite"),
        (lambda: np.full((2, 6), -np.inf), r"action\[0, 0\] is -inf; actions must be finite"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(give: Callable[[], Any], message: str) -> None:
    env, twin = make(num_envs=2), make(num_envs=2)
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(give())
    assert_equal(env.step(np.zeros((2, 6))), twin.step(np.zeros((2, 6))))


def test_bad_actions_on_the_device_are_told_of_by_check() -> None:
    """As on a card, where the host does not look: they count as 0, and no state is spoilt."""
    env, twin = make(num_envs=3), make(num_envs=3)
    env.reset(seed=0)
    twin.reset(seed=0)
    bad = torch.full((3, 6), 0.5)
    good = bad.clone()
    bad[1, 2], bad[2, 0] = math.nan, math.inf
    good[1, 2] = good[2, 0] = 0.0
    env.advance(bad)
    twin.advance(good)
    assert torch.equal(env.observations, twin.observations)
    with pytest.raises(ValueError, match="actions of 2 steps of single worlds were not finite"):
        env.check()
    env.check()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seed": [1, 2, 3]}, "3 seeds for 2 worlds; give one each, or an int"),
        ({"options": {"speed": 1}}, r"unknown reset options \['speed'\]; valid: task, tasks, reset_mask"),
        ({"options": {"task": 99}}, "unknown task number 99; valid tasks of"),
        ({"options": {"reset_mask": np.array([0, 1])}}, r"reset_mask must be \(2,\) of bool"),
        ({"options": {"elapsed_steps": np.array([0, 500])}}, r"elapsed_steps must be \(2,\) in \[0, 500\)"),
    ],
)
def test_bad_resets_are_named_and_change_nothing(arguments: dict[str, Any], message: str) -> None:
    env, twin = make(num_envs=2), make(num_envs=2)
    env.reset(seed=0)
    twin.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(**arguments)
    assert_equal(env.step(np.zeros((2, 6))), twin.step(np.zeros((2, 6))))
    assert_equal(env.reset(), twin.reset())


def test_step_needs_a_reset_and_an_open_environment() -> None:
    env = make(num_envs=2)
    still = np.zeros((2, 6))
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(still)
    with pytest.raises(ValueError, match=r"the first reset is of all worlds.*leaves out \[1\]"):
        env.reset(options={"reset_mask": np.array([True, False])})
    env.reset(seed=0)
    env.close()
    for use in (env.reset, env.render, lambda: env.step(still)):
        with pytest.raises(gym.error.ClosedEnvironmentError, match="was closed"):
            use()


@needs_gl
def test_worlds_are_drawn_as_on_the_cpu() -> None:
    kwargs: dict[str, Any] = {
        "num_envs": 2,
        "tasks": [0, 6],
        "render_mode": "rgb_array",
        "width": 64,
        "height": 48,
    }
    ours, theirs = make(**kwargs), TaskVectorEnv("Biped", **kwargs)
    for env in (ours, theirs):
        env.reset(seed=0)
        env.step(np.zeros((2, 6)))
    pictures, expected = ours.render(), theirs.render()
    assert pictures is not None
    assert expected is not None
    for picture, other in zip(pictures, expected, strict=True):
        assert picture.shape == (48, 64, 3)
        assert picture.dtype == np.uint8
        assert np.abs(picture.astype(int) - other).mean() < 1.0
    assert np.abs(pictures[0].astype(int) - pictures[1]).mean() > 1.0


# ---- CUDA


@needs_cuda
def test_a_card_does_what_the_cpu_does() -> None:
    """Over so many steps that most are replayed from a graph; starts of later episodes included."""
    kwargs: dict[str, Any] = {"num_envs": 4, "tasks": [0, 1], "max_episode_steps": 5}
    for name in ("Biped", "Octopus"):
        card, cpu = make(name, device="cuda", **kwargs), make(name, **kwargs)
        np.testing.assert_allclose(card.reset(seed=0)[0].cpu(), cpu.reset(seed=0)[0], rtol=1e-5, atol=1e-5)
        for action in 0.3 * actions(cpu, 0, 14):
            seen, expected = card.step(action), cpu.step(action)
            for ours, theirs in zip(seen[:4], expected[:4], strict=True):
                np.testing.assert_allclose(ours.cpu(), theirs, rtol=CLOSE, atol=CLOSE)
        card.check()


def test_a_step_needs_a_reset_and_actions_that_fit() -> None:
    worlds = DeviceVectorEnv("Biped", 2, "cpu", tasks=[0])
    step = worlds.stepper(lambda: torch.zeros(2, worlds.num_actions))
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        step()
    worlds.reset(seed=0)
    step()
    wrong = {r"\(2, 5\)": torch.zeros(2, 5), "NoneType": None, "ndarray": np.zeros((2, 6))}
    for found, given in wrong.items():
        with pytest.raises(ValueError, match=rf"actions are {found}, expected a tensor \(2, 6\)"):
            worlds.stepper(lambda given=given: given)()
    with pytest.raises(TypeError, match=r"cannot be pickled or copied.*get_state"):
        pickle.dumps(worlds)
    with pytest.raises(TypeError, match=r"for backend='batch'.*`terms`"):
        mtenvs.vector_reward(worlds)
    worlds.close()
    with pytest.raises(gym.error.ClosedEnvironmentError):
        step()
