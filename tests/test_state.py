from __future__ import annotations

import copy

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import mtenvs
from mtenvs.state import Layout


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
    layouts = [Layout.of(mtenvs.model(family, task)) for task in family.tasks]
    assert all(layout == layouts[0] for layout in layouts)


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
