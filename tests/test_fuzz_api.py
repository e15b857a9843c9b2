"""The public API, asked for all sorts of things: it does what was asked, or says what is wrong."""

from __future__ import annotations

import copy
import math
import random

import gymnasium as gym
import numpy as np
import pytest
from fuzzing import cases, json_values, odd, seeds, spoil_json, tally, text
from hypothesis import given
from hypothesis import strategies as st

import mtenvs
from mtenvs.conditioning import CONDITIONINGS
from mtenvs.env import TaskEnv
from mtenvs.make import make_vector_env
from mtenvs.registry import as_task, get_families
from mtenvs.vector_env import TaskVectorEnv

NAMES = [*mtenvs.families(), "AllFamilies"]


def often(good, strange=odd):
    """Mostly what is meant, so that several arguments are seldom all wrong."""
    return st.integers(0, 9).flatmap(lambda n: strange if n == 9 else good)


families = often(
    st.sampled_from(NAMES) | st.lists(st.sampled_from(NAMES[:-1]), min_size=1, max_size=3, unique=True),
    odd | text | st.just("biped") | st.lists(st.sampled_from(NAMES)) | st.lists(odd, max_size=2),
)
tasks = often(
    st.integers(0, 7)
    | st.sampled_from(["nominal", "Biped/nominal", "child", "3", "Octopus/2"])
    | st.sampled_from([t for name in mtenvs.families() for t in mtenvs.tasks(name)])
    | st.sampled_from([t.to_dict() for name in mtenvs.families() for t in mtenvs.tasks(name)]),
    odd | json_values | text,
)
common = {
    "conditioning": often(st.sampled_from(CONDITIONINGS)),
    "layout": often(st.sampled_from([None, "index", "arc"])),
    "render_mode": often(st.sampled_from([None, "rgb_array"])),
    "width": often(st.integers(1, 64)),
    "height": often(st.integers(1, 64)),
}
actions = st.one_of(
    odd,
    json_values,
    st.tuples(st.integers(0, 3), st.integers(0, 12), seeds, st.sampled_from("fdiOSmc?")).map(
        lambda t: np.zeros((t[0], t[1]), t[3]) if t[2] % 2 else np.full(t[1], t[2] % 3, t[3])
    ),
    st.sampled_from([np.nan, np.inf, 1e300, -2.0]),
)
resets = {
    "seed": often(
        st.none() | st.integers(0, 2**70), odd | st.integers() | st.lists(st.integers(), max_size=4)
    ),
    "options": often(
        st.none() | st.fixed_dictionaries({}, optional={"task": tasks}),
        odd | json_values
        | st.fixed_dictionaries(
            {},
            optional={
                "task": tasks,
                "tasks": st.lists(tasks, max_size=4) | odd,
                "reset_mask": odd | st.lists(st.booleans(), max_size=4) | st.just(np.ones(2, bool)),
                "elapsed_steps": odd | st.lists(st.integers(-1, 9), max_size=4),
            },
        ),
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def counted():
    with tally("api") as found:
        yield found


@pytest.fixture(scope="module")
def counted_tasks():
    with tally("tasks") as found:
        yield found


def kwargs_of(strategies):
    """Some of the arguments, each as it may be given."""
    return st.fixed_dictionaries({}, optional=strategies)


@given(families, kwargs_of({**common, "task": tasks, "tasks": odd, "no": odd}), kwargs_of(resets), actions)
@cases(60)
def test_a_single_environment(counted, family, kwargs, reset, action):
    made, env = counted.tried(lambda: TaskEnv(family, **copy.deepcopy(kwargs)))
    if not made:
        return
    assert env.family.name == get_families(family).name
    if kwargs.get("task") is not None:
        assert env.task == as_task(env.family, kwargs["task"])
    began, result = counted.tried(lambda: env.reset(**copy.deepcopy(reset)))
    if not began:
        # what was refused has changed nothing
        result = env.reset(seed=0)
    observation, _ = result
    assert env.observation_space.contains(observation)
    right = np.zeros(env.action_space.shape, np.float32)
    for act in (action, right):
        stepped, result = counted.tried(lambda act=act: env.step(act))
        if stepped:
            observation, reward, terminated, truncated, _ = result
            assert env.observation_space.contains(observation)
            assert math.isfinite(reward)
            assert (type(terminated), type(truncated)) == (bool, bool)
            given_action = np.asarray(act, float)
            assert given_action.shape == env.action_space.shape
            assert np.isfinite(given_action).all()
    env.close()


@given(
    families,
    often(st.integers(1, 5)),
    kwargs_of(
        {
            **common,
            "tasks": often(st.lists(tasks, min_size=1, max_size=3) | st.none()),
            "autoreset_mode": often(st.sampled_from(["SameStep", "NextStep", "Disabled"])),
            "max_episode_steps": often(st.integers(1, 9)),
            "num_threads": often(st.integers(0, 2)),
            "codes": odd | json_values,
            "task": odd,
            "backend": st.sampled_from(["batch", "Batch", "", None, 3]),
            "device": odd,
        }
    ),
    kwargs_of(resets),
    actions,
)
@cases(60)
def test_a_vector_of_environments(counted, family, num_envs, kwargs, reset, action):
    if "backend" not in kwargs:
        kwargs.pop("device", None)
    make = make_vector_env if "backend" in kwargs else TaskVectorEnv
    made, env = counted.tried(lambda: make(family, num_envs, **copy.deepcopy(kwargs)))
    if not made:
        return
    assert env.num_envs == num_envs
    began, result = counted.tried(lambda: env.reset(**copy.deepcopy(reset)))
    if not began:
        result = env.reset(seed=0)
    assert env.observation_space.contains(result[0])
    right = np.zeros(env.action_space.shape, np.float32)
    for act in (action, right):
        stepped, result = counted.tried(lambda act=act: env.step(act))
        if stepped:
            observations, rewards, *_ = result
            assert env.observation_space.contains(observations)
            assert np.isfinite(rewards).all()
    env.close()


@given(
    st.sampled_from([mtenvs.get_family(name).id for name in mtenvs.families()] + ["mt/AllFamilies-v0"]),
    kwargs_of({"task": tasks, "conditioning": common["conditioning"], "layout": common["layout"],
               "family": families}),
    st.booleans(),
)  # fmt: skip
@cases(30)
def test_what_gymnasium_makes(counted, name, kwargs, many):
    two = {"num_envs": 2} if many else {}
    made, env = counted.tried(lambda: (gym.make_vec if many else gym.make)(name, **kwargs, **two))
    if made:
        assert env.unwrapped.family.id == name
        observation, _ = env.reset(seed=1)
        assert env.observation_space.contains(observation)
        reward = mtenvs.vector_reward(env)
        reward.reset(seed=1)
        _, terms, *_ = reward.step(np.zeros(env.action_space.shape, np.float32))
        assert np.shape(terms)[-1] == len(reward.reward_names)
        env.close()


CALLS = {
    "tasks": lambda family, other: mtenvs.tasks(family),
    "get_family": lambda family, other: mtenvs.get_family(family),
    "sample_task": lambda family, other: mtenvs.sample_task(family, other),
    "leave_one_out": lambda family, other: mtenvs.leave_one_out(family),
    "model": lambda family, other: mtenvs.model(family, other),
    "mjcf": lambda family, other: mtenvs.mjcf(family, other),
    "vector_reward": lambda family, other: mtenvs.vector_reward(other),
    "dm_env": lambda family, other: mtenvs.dm_env(family, task=other, seed=0),
    "dm_env_seed": lambda family, other: mtenvs.dm_env(family, seed=other),
}


@given(st.sampled_from(sorted(CALLS)), families, tasks | st.integers(-3, 10**30))
@cases(120)
def test_the_functions_of_the_package(counted, name, family, other):
    accepted, value = counted.tried(lambda: CALLS[name](family, copy.deepcopy(other)))
    if not accepted:
        return
    if name == "sample_task":
        assert value == mtenvs.sample_task(family, other)
        assert as_task(family, value) == value
    elif name == "tasks":
        assert value
        assert all(as_task(get_families(family), t) == t for t in value)
    elif name == "model":
        assert value.nq > 0
    elif name == "leave_one_out":
        assert all(fold.held_out not in fold.sources for fold in value)


PUBLISHED = [t for name in mtenvs.families() for t in mtenvs.tasks(name)]


@given(st.sampled_from(PUBLISHED), seeds, odd | json_values | st.floats(-2, 2))
@cases(200)
def test_tasks_as_dictionaries(counted_tasks, task, seed, replacement):
    rng = random.Random(seed)
    whole = task.to_dict()
    if rng.random() < 0.5:  # a task of one's own, which may differ
        whole |= {"name": "own", "number": None}
    asked = spoil_json(whole, rng, replacement)
    family = mtenvs.get_family(task.family)
    accepted, found = counted_tasks.tried(lambda: as_task(family, copy.deepcopy(asked)))
    if not accepted:
        return
    given_values = asked["parameters"]
    for p in family.parameters:
        expected = given_values.get(p.name, p.nominal)
        assert found.parameters[p.name] == expected
        assert p.low <= expected <= p.high
    assert set(given_values) <= {p.name for p in family.parameters}
    assert (found.family, found.name) == (family.name, asked.get("name", "custom"))
    assert as_task(family, found.to_dict()) == found
    assert mtenvs.model(family, found).nq > 0
    # by value, whatever else was said
    same = {"parameters": given_values, "name": "another"}
    assert as_task(family, same).parameters == found.parameters
