from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

import mtenvs
from mtenvs.conditioning import CONDITIONINGS, Encoding


def test_slices_cover_the_observation_in_order(family: mtenvs.Family) -> None:
    body = len(family.observation_names)
    codes = {"descriptor": len(family.parameters), "one_hot": len(family.published), "none": 0}
    assert set(codes) == set(CONDITIONINGS)
    for conditioning, size in codes.items():
        slices = Encoding(family, conditioning).slices
        stop = slices.mask.stop
        assert (slices.body, slices.code) == (slice(0, body), slice(stop, stop + size))
        assert slices.mask.start == body
        assert (stop > body) == (len(family.topologies) > 1)
        assert slices.size == stop + size


def test_codes_are_what_they_say(task: mtenvs.Task) -> None:
    family = mtenvs.get_family(task.family)
    assert task.number is not None
    np.testing.assert_array_equal(
        Encoding(family, "descriptor").code(task), np.array(family.descriptor(task), np.float32)
    )
    np.testing.assert_array_equal(
        Encoding(family, "one_hot").code(task), np.eye(len(family.published), dtype=np.float32)[task.number]
    )
    assert Encoding(family, "none").code(task).shape == (0,)


@pytest.mark.parametrize("conditioning", CONDITIONINGS)
def test_codes_stand_in_the_observations_and_stay(
    task: mtenvs.Task, env_id: str, conditioning: str
) -> None:
    family = mtenvs.get_family(task.family)
    code = Encoding(family, conditioning).code(task)
    single = gym.make(env_id, task=task, conditioning=conditioning)
    many = gym.make_vec(env_id, num_envs=2, tasks=[task], conditioning=conditioning, max_episode_steps=3)
    where = single.unwrapped.observation_slices.code
    assert where == many.unwrapped.observation_slices.code
    assert single.observation_space.shape == many.single_observation_space.shape
    np.testing.assert_array_equal(single.reset(seed=0)[0][where], code)
    many.reset(seed=0)
    for _ in range(5):  # over a truncation
        observations = many.step(many.action_space.sample())[0]
        np.testing.assert_array_equal(observations[:, where], np.stack([code, code]))
    np.testing.assert_array_equal(single.step(single.action_space.sample())[0][where], code)


def test_conditioning_leaves_the_body_alone(task: mtenvs.Task, env_id: str) -> None:
    envs = [gym.make(env_id, task=task, conditioning=c) for c in CONDITIONINGS]
    bodies = [e.reset(seed=0)[0][e.unwrapped.observation_slices.body] for e in envs]
    np.testing.assert_array_equal(bodies[0], bodies[1])
    np.testing.assert_array_equal(bodies[0], bodies[2])


def test_unknown_conditioning_is_named_with_the_valid_ones(family: mtenvs.Family) -> None:
    message = "unknown conditioning 'onehot'; valid: descriptor, one_hot, none"
    with pytest.raises(ValueError, match=message):
        gym.make(family.id, task=0, conditioning="onehot")
    with pytest.raises(ValueError, match=message):
        gym.make_vec(family.id, num_envs=1, conditioning="onehot")


def test_one_hot_has_no_slot_for_a_task_that_is_not_published(family: mtenvs.Family) -> None:
    task = mtenvs.sample_task(family.name, 7)
    message = (
        "'sampled-7' is not published, so it has no one-hot slot; use conditioning='descriptor' or 'none'"
    )
    with pytest.raises(ValueError, match=message):
        gym.make(family.id, task=task, conditioning="one_hot")
    with pytest.raises(ValueError, match=message):
        gym.make_vec(family.id, num_envs=1, tasks=[task], conditioning="one_hot")
    env = gym.make(family.id, task=0, conditioning="one_hot")
    first, _ = env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.reset(options={"task": task})
    np.testing.assert_array_equal(env.reset(seed=0)[0], first)  # still the task of before
