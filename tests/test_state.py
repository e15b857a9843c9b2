from __future__ import annotations

import copy
import dataclasses

import gymnasium as gym
import mujoco
import numpy as np
import pytest
import torch
from helpers import actions

import mtenvs
from mtenvs.backends.mujoco_batch import topology
from mtenvs.state import Layout, State


def test_layout_points_at_what_mujoco_names(task: mtenvs.Task) -> None:
    model = mtenvs.model(task.family, task)
    data, layout = mujoco.MjData(model), Layout.of(model)
    data.sensordata[:] = np.arange(model.nsensordata)
    for name, where in layout.sensors.items():
        np.testing.assert_array_equal(data.sensor(name).data, data.sensordata[where])
    for name in layout.qpos:
        assert layout.qpos[name] == model.joint(name).qposadr[0]
        assert layout.qvel[name] == model.joint(name).dofadr[0]


def test_layout_is_one_for_the_whole_topology(family: mtenvs.Family) -> None:
    layouts: dict[tuple[int, ...], Layout] = {}
    for task in (*family.tasks, *(mtenvs.sample_task(family.name, seed) for seed in range(16))):
        model = mtenvs.model(family, task)
        assert layouts.setdefault(topology(model), Layout.of(model)) == Layout.of(model)
    assert len(layouts) == len(family.topologies)


def test_sensors_of_the_acceleration_stage_are_refused() -> None:
    xml = """<mujoco><worldbody><body><joint name="j" type="slide"/><geom size="1"/><site name="s"/></body>
    </worldbody>
    <sensor><touch name="sole" site="s"/></sensor></mujoco>"""
    with pytest.raises(ValueError, match="sensor 'sole' belongs to the acceleration stage"):
        Layout.of(mujoco.MjModel.from_xml_string(xml))


def test_the_state_is_fresh(task: mtenvs.Task, env_id: str) -> None:
    """Sensors belong to the same instant as qpos, after resets and after steps, in both kinds."""
    single, many = gym.make(env_id, task=task), gym.make_vec(env_id, num_envs=1, tasks=[task])
    single.reset(seed=3)
    many.reset(seed=3)
    rng = np.random.default_rng(0)
    for _ in range(6):
        data = copy.copy(single.unwrapped.data)
        mujoco.mj_forward(single.unwrapped.model, data)
        backend = many.unwrapped._groups[0].backend
        np.testing.assert_array_equal(single.unwrapped._state.sensordata[0], data.sensordata)
        np.testing.assert_array_equal(backend.state.sensordata[0], data.sensordata)
        np.testing.assert_array_equal(backend.state.qpos[0], data.qpos)
        assert backend.state.time[0] == single.unwrapped._state.time[0] == data.time
        action = rng.uniform(-1, 1, single.action_space.shape)
        single.step(action)
        many.step(action[None])


def test_totals_are_the_sums_of_an_episodes_terms(family: mtenvs.Family) -> None:
    """At every step, this one included; from zero again in every episode; in both kinds."""
    n, limit = len(family.tasks), 12
    many = gym.make_vec(family.id, num_envs=n, max_episode_steps=limit)
    singles = [gym.make(family.id, task=task, max_episode_steps=limit) for task in family.tasks]
    many.reset(seed=0)
    for i, single in enumerate(singles):
        single.reset(seed=i)
    sums = {term: np.zeros(n) for term in family.reward_terms}
    largest = 0.0
    for action in actions(many, 0, 2 * limit + 3):
        _, _, terminations, truncations, _ = many.step(action)
        ended = terminations | truncations
        for i, single in enumerate(singles):
            *_, terms = single.step(action[i])
            for term, total in sums.items():
                total[i] += terms[f"reward_{term}"]
                assert single.unwrapped._state.total(term)[0] == total[i]
            if ended[i]:
                single.reset()
                assert all(single.unwrapped._state.total(term)[0] == 0.0 for term in sums)
        for term, total in sums.items():
            largest = max(largest, float(np.abs(total).max()))
            # what is in the State belongs to the new episodes, which have made no step
            total[ended] = 0.0
            for group in many.unwrapped._groups:
                np.testing.assert_array_equal(group.backend.state.total(term), total[group.worlds])
    assert largest > 0.05


def test_rows_are_copies_of_some_worlds(family: mtenvs.Family) -> None:
    task = family.tasks[1]
    env = gym.make_vec(family.id, num_envs=4, tasks=[task])
    env.reset(seed=0)
    env.step(np.ones(env.action_space.shape))
    state = env.unwrapped._groups[0].backend.state
    rows = state.rows(np.array([3, 1]))
    for name in ("time", "qpos", "qvel", "ctrl", "sensordata"):
        np.testing.assert_array_equal(getattr(rows, name), getattr(state, name)[[3, 1]])
    for term in family.reward_terms:
        np.testing.assert_array_equal(rows.total(term), state.total(term)[[3, 1]])
        rows.totals[term][:] = 99.0
    for name, value in family.constants(task.parameters).items():
        assert rows.constant(name).tolist() == [value] * 2
    rows.qpos[:] = 99.0
    assert not (state.qpos == 99.0).any()
    assert not any((state.total(term) == 99.0).any() for term in family.reward_terms)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_torch_gives_what_numpy_gives(family: mtenvs.Family, dtype: str) -> None:
    env = gym.make_vec(family.id, num_envs=64, num_threads=1)
    env.reset(seed=0)
    for action in actions(env, 0, 25):  # many are moving, falling, on the ground by now
        env.step(action)
    rng = np.random.default_rng(0)
    for group in env.unwrapped._groups:
        state, home = group.backend.state, group.backend.home.astype(dtype)
        arrays = {f.name: getattr(state, f.name) for f in dataclasses.fields(State)}
        given = {k: v.astype(dtype) for k, v in arrays.items() if isinstance(v, np.ndarray)}
        named = {
            k: {name: value.astype(dtype) for name, value in arrays[k].items()}
            for k in ("constants", "totals")
        }
        ours = State(layout=state.layout, **given, **named)
        theirs = State(
            layout=state.layout,
            **{k: torch.from_numpy(v) for k, v in given.items()},
            **{k: {name: torch.from_numpy(x) for name, x in v.items()} for k, v in named.items()},
        )
        terms = family.reward(ours), family.reward(theirs)
        assert tuple(terms[0]) == tuple(terms[1]) == family.reward_terms
        draws = rng.random((len(home), family.start_draws)).astype(dtype)
        pairs = [
            (family.observe(ours), family.observe(theirs)),
            *((terms[0][term], terms[1][term]) for term in terms[0]),
            *zip(
                family.start(home, draws),
                family.start(torch.from_numpy(home), torch.from_numpy(draws)),
                strict=True,
            ),
        ]
        for expected, result in pairs:
            assert str(expected.dtype) == dtype  # float32 stays float32
            assert result.dtype == getattr(torch, dtype)
            np.testing.assert_allclose(result.numpy(), expected, atol=2e-6)
        for function in (family.terminated, family.success):
            assert function(theirs).dtype == torch.bool
            np.testing.assert_array_equal(function(theirs).numpy(), function(ours))
        for values in (*terms[0].values(), family.terminated(ours), family.success(ours)):
            assert values.shape == (len(home),)
