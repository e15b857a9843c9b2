from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from helpers import present_entries

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


def test_nothing_is_named_twice(family: mtenvs.Family) -> None:
    for layout in family.layouts or (None,):
        encoding = Encoding(family, layout=layout)
        for names, own in (
            (encoding.observation_names, family.observation_names),
            (encoding.action_names, family.action_names),
        ):
            assert names == own
            assert len(set(names)) == len(names)


def test_topologies_are_all_there_are(family: mtenvs.Family) -> None:
    """Every published and sampled body is padded as one of the listed ones; they are pairwise unlike."""

    def layouts(parameters: Mapping[str, float]) -> tuple[Any, ...]:
        task = mtenvs.Task(family.name, "own", family.complete(parameters))
        return tuple(present_entries(family, task, layout) for layout in family.layouts or (None,))

    listed = [layouts(p) for p in family.topologies]
    assert all(a != b for a, b in itertools.combinations(listed, 2))
    found = [layouts(t.parameters) for t in family.tasks]
    found += [layouts(mtenvs.sample_task(family.name, seed).parameters) for seed in range(50)]
    assert all(one in listed for one in found)


def test_the_mask_says_which_entries_a_body_has(task: mtenvs.Task) -> None:
    family = mtenvs.get_family(task.family)
    for layout in family.layouts or (None,):
        encoding = Encoding(family, layout=layout)
        mask = encoding.mask(task)
        observed, acting = present_entries(family, task, layout)
        for names, entries, own in (
            (encoding.observation_names, encoding.observation_mask, observed),
            (encoding.action_names, encoding.action_mask, acting),
        ):
            for name, entry in zip(names, entries, strict=True):
                assert (name in own) == (entry == -1 or mask[entry] == 1.0), name
        assert set(mask) <= {0.0, 1.0}


def test_what_is_there_is_read_from_observations(task: mtenvs.Task) -> None:
    family = mtenvs.get_family(task.family)
    encoding = Encoding(family)
    observation = encoding.template(task)
    observation[encoding.slices.body] = np.nan  # of which nothing is to be read
    observations = np.stack([[observation], [observation]])
    names = (encoding.observation_names, encoding.action_names)
    entries = (encoding.observation_mask, encoding.action_mask)
    for known, own, among in zip(names, present_entries(family, task), entries, strict=True):
        expected = np.broadcast_to([name in own for name in known], (2, 1, len(known)))
        found = encoding.present(observations, among)
        np.testing.assert_array_equal(found, expected.astype(np.float32))
        of_torch = encoding.present(torch.from_numpy(observations), torch.from_numpy(among))
        assert torch.equal(of_torch, torch.from_numpy(found))
    assert np.isnan(observations[..., encoding.slices.body]).all()


def test_the_mask_says_nothing_twice_and_nothing_that_is_always_so(family: mtenvs.Family) -> None:
    for layout in family.layouts or (None,):
        encoding = Encoding(family, layout=layout)
        tasks = [mtenvs.Task(family.name, "t", family.complete(p)) for p in family.topologies]
        columns = np.stack([encoding.mask(t) for t in tasks], axis=1)
        assert len(np.unique(columns, axis=0)) == len(columns)
        assert not columns.all(axis=1).any()
        assert columns.any(axis=1).all()
        used = {*encoding.observation_mask.tolist(), *encoding.action_mask.tolist()} - {-1}
        assert used == set(range(len(columns)))


def test_columns_lead_from_a_body_to_the_layout(task: mtenvs.Task) -> None:
    family = mtenvs.get_family(task.family)
    for layout in family.layouts or (None,):
        encoding = Encoding(family, layout=layout)
        observed, acting = present_entries(family, task, layout)
        columns = encoding.columns(task)
        assert set(np.array(encoding.observation_names)[columns.observation].tolist()) == observed
        assert set(np.array(encoding.action_names)[columns.action].tolist()) == acting


def test_unknown_layouts_are_named_with_the_valid_ones(family: mtenvs.Family) -> None:
    told = f"valid: {', '.join(family.layouts)}" if family.layouts else "its bodies are alike, leave it out"
    message = f"unknown layout 'spiral' of '{family.name}'; {told}"
    for make in (gym.make, gym.make_vec):
        with pytest.raises(ValueError, match=message):
            make(family.id, layout="spiral")
    for layout in family.layouts:
        env, many = gym.make(family.id, layout=layout), gym.make_vec(family.id, layout=layout)
        assert env.unwrapped.layout == many.unwrapped.layout == layout
    default = gym.make(family.id).unwrapped.layout
    assert default == (family.layouts[0] if family.layouts else None)


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
    message = "unknown conditioning 'onehot' .*did you mean 'one_hot'.*; valid: descriptor, one_hot, none"
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
