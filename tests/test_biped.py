"""Biped against numbers worked out by hand. What holds for every family is tested elsewhere."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest

import mtenvs
from mtenvs.families import biped
from mtenvs.state import Layout, State

FAMILY = mtenvs.get_family("Biped")
ALL = [*FAMILY.tasks, *(mtenvs.sample_task("Biped", seed) for seed in range(4))]
LEG_PARTS = ("thigh", "shin", "foot")


def model_with(**parameters: float) -> mujoco.MjModel:
    return mtenvs.model("Biped", {"parameters": parameters})


def capsule(density: float, radius: float, length: float) -> tuple[float, float, float]:
    """Mass, and inertia about and across the axis, of a capsule whose cylinder has the given length.

    m = rho pi r^2 (L + 4r/3); the two half balls have their centres of mass 3r/8 beyond the cylinder.
    """
    cylinder = density * math.pi * radius**2 * length
    ball = density * 4.0 / 3.0 * math.pi * radius**3
    about = cylinder * radius**2 / 2 + ball * 2 / 5 * radius**2
    across = cylinder * (3 * radius**2 + length**2) / 12 + ball * (
        2 / 5 * radius**2 + length**2 / 4 + 3 / 8 * length * radius
    )
    return density * math.pi * radius**2 * (length + 4 * radius / 3), about, across


@pytest.mark.parametrize("task", ALL, ids=lambda t: t.name)
def test_masses_and_inertias_are_those_of_capsules(task: mtenvs.Task) -> None:
    p, model = task.parameters, mtenvs.model("Biped", task)
    expected = {"torso": capsule(p["torso_density"], 0.07, p["torso_length"])}
    for side, sign in (("left", 1), ("right", -1)):
        scale = 1 + sign * p["leg_asymmetry"] / 2
        expected[f"{side}_thigh"] = capsule(p["leg_density"], 0.05, scale * p["thigh_length"])
        expected[f"{side}_shin"] = capsule(p["leg_density"], 0.04, scale * p["shin_length"])
        expected[f"{side}_foot"] = capsule(p["leg_density"], 0.05, p["foot_length"])
    for name, (mass, about, across) in expected.items():
        body = model.body(name)
        assert body.mass[0] == pytest.approx(mass, rel=1e-9)
        np.testing.assert_allclose(sorted(body.inertia), sorted([about, across, across]), rtol=1e-6)
    assert model.body_mass.sum() == pytest.approx(sum(m for m, _, _ in expected.values()))


@pytest.mark.parametrize("task", ALL, ids=lambda t: t.name)
def test_lengths_by_forward_kinematics(task: mtenvs.Task) -> None:
    p, model = task.parameters, mtenvs.model("Biped", task)
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    soles = []
    for side, sign in (("left", 1), ("right", -1)):
        scale = 1 + sign * p["leg_asymmetry"] / 2
        hip, knee, ankle = (data.body(f"{side}_{part}").xpos[2] for part in LEG_PARTS)
        assert hip - knee == pytest.approx(scale * p["thigh_length"])
        assert knee - ankle == pytest.approx(scale * p["shin_length"])
        soles.append(ankle - biped.FOOT_RADIUS)
        # the capsules are as long as the gaps that they fill
        for part, length in (("thigh", scale * p["thigh_length"]), ("shin", scale * p["shin_length"])):
            assert 2 * model.geom(f"{side}_{part}").size[1] == pytest.approx(length)
        assert 2 * model.geom(f"{side}_foot").size[1] == pytest.approx(p["foot_length"])
    assert 2 * model.geom("torso").size[1] == pytest.approx(p["torso_length"])
    assert min(soles) == pytest.approx(0.0, abs=1e-12)  # stands on its longer leg


def test_each_parameter_changes_only_what_it_names() -> None:
    nominal = mtenvs.model("Biped", 0)

    def changed(**parameters: float) -> set[str]:
        other = model_with(**parameters)
        return {
            other.body(i).name for i in range(other.nbody) if other.body_mass[i] != nominal.body_mass[i]
        }

    both = {f"{side}_{part}" for side in ("left", "right") for part in LEG_PARTS}
    assert changed(torso_length=0.8) == changed(torso_density=500.0) == {"torso"}
    assert changed(thigh_length=0.5) == {"left_thigh", "right_thigh"}
    assert changed(shin_length=0.5) == {"left_shin", "right_shin"}
    assert changed(foot_length=0.2) == {"left_foot", "right_foot"}
    assert changed(leg_density=500.0) == both
    assert changed(leg_asymmetry=0.1) == both - {"left_foot", "right_foot"}
    assert changed(motor_strength=1.5) == set()


def test_density_scales_mass_and_inertia_alike() -> None:
    nominal, heavy = mtenvs.model("Biped", 0), model_with(torso_density=2000.0, leg_density=2000.0)
    np.testing.assert_allclose(heavy.body_mass, 2.0 * nominal.body_mass)
    np.testing.assert_allclose(heavy.body_inertia, 2.0 * nominal.body_inertia)


def test_motor_strength_scales_every_torque() -> None:
    nominal, strong = mtenvs.model("Biped", 0), model_with(motor_strength=1.5)
    assert nominal.actuator_gear[:, 0].tolist() == [100.0, 60.0, 30.0] * 2
    assert strong.actuator_gear[:, 0].tolist() == [150.0, 90.0, 45.0] * 2
    data = mujoco.MjData(strong)
    data.ctrl[:] = 1.0
    mujoco.mj_forward(strong, data)
    np.testing.assert_allclose(data.qfrc_actuator[3:], [150.0, 90.0, 45.0] * 2)


def test_asymmetry_is_relative_to_the_mean_leg() -> None:
    p = FAMILY.complete({"leg_asymmetry": 0.2})
    left, right = (s * (p["thigh_length"] + p["shin_length"]) for s in (1.1, 0.9))
    assert biped.leg_length(p, +1) == pytest.approx(left + 0.05)
    assert biped.leg_length(p, -1) == pytest.approx(right + 0.05)
    assert biped.leg_length(p) == pytest.approx((left + right) / 2 + 0.05)
    assert (left - right) / ((left + right) / 2) == pytest.approx(0.2)


def test_only_the_feet_touch_the_floor() -> None:
    model = mtenvs.model("Biped", 0)
    assert not model.geom_contype.any()
    assert not model.geom_conaffinity.any()
    assert [model.pair(i).name for i in range(model.npair)] == ["left_foot_floor", "right_foot_floor"]


def test_target_speed_follows_from_froude() -> None:
    # v = sqrt(Fr g L), Fr = 0.25, L = 0.45 + 0.45 + 0.05 = 0.95 m
    assert FAMILY.constants(FAMILY.complete({}))["target_speed"] == pytest.approx(
        math.sqrt(0.25 * 9.81 * 0.95)
    )
    for task in ALL:
        c = FAMILY.constants(task.parameters)
        length = task.parameters["thigh_length"] + task.parameters["shin_length"] + 0.05
        assert c["target_speed"] ** 2 / (9.81 * length) == pytest.approx(0.25)
        assert c["fallen_height"] == pytest.approx(0.6 * length)


# ---- reward, termination and success on states made by hand

TARGET, FALLEN = 2.0, 0.6


def state(n: int = 1, **values: Any) -> State:
    """Upright worlds at rest with target 2 m/s and fallen height 0.6 m, except for ``values``."""
    layout = Layout.of(mtenvs.model("Biped", 0))
    made = State(
        layout=layout,
        time=np.ones(n),
        qpos=np.zeros((n, 9)),
        qvel=np.zeros((n, 9)),
        ctrl=np.zeros((n, 6)),
        sensordata=np.zeros((n, 13)),
        constants={"target_speed": np.full(n, TARGET), "fallen_height": np.full(n, FALLEN)},
        totals={},
    )
    made.sensor("hip_position")[:, 2] = 0.95
    made.sensor("torso_up")[:, 2] = 1.0
    for name, value in values.items():
        if name in ("time", "qpos", "qvel", "ctrl"):
            getattr(made, name)[:] = value
        elif name == "root_x":
            made.qpos[:, layout.qpos["root_x"]] = value
        elif name == "speed":
            made.sensor("com_velocity")[:, 0] = value
        elif name == "up":
            made.sensor("torso_up")[:, 2] = value
        elif name == "height":
            made.sensor("hip_position")[:, 2] = value
        else:
            made.sensor(name)[:] = value
    return made


@pytest.mark.parametrize(
    ("speed", "expected"),
    # full within 1.8 to 2.2 m/s; below it linear to 0 at rest, above it to 0 at 4 m/s
    [
        (0.0, 0.0),
        (0.9, 0.5),
        (1.8, 1.0),
        (2.0, 1.0),
        (2.2, 1.0),
        (3.1, 0.5),
        (4.0, 0.0),
        (-1.0, 0.0),
        (9.0, 0.0),
    ],
)
def test_speed_term_by_hand(speed: float, expected: float) -> None:
    assert FAMILY.reward(state(speed=speed))["speed"][0] == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("up", "expected"), [(1.0, 1.0), (0.5, 0.5), (-0.5, 0.0)])
def test_speed_counts_as_far_as_the_torso_is_upright(up: float, expected: float) -> None:
    assert FAMILY.reward(state(speed=2.0, up=up))["speed"][0] == pytest.approx(expected)


def test_effort_term_by_hand() -> None:
    assert FAMILY.reward(state(ctrl=[1, -1, 0.5, 0, 0, 0]))["effort"][0] == pytest.approx(-0.05 * 2.25 / 6)
    assert FAMILY.reward(state(ctrl=-1.0))["effort"][0] == pytest.approx(-0.05)


def test_reward_is_at_most_one_and_nothing_at_rest() -> None:
    assert sum(t[0] for t in FAMILY.reward(state(speed=2.0)).values()) == pytest.approx(1.0)
    assert sum(t[0] for t in FAMILY.reward(state()).values()) == 0.0


@pytest.mark.parametrize(
    ("values", "fallen"),
    [
        ({}, False),
        ({"height": 0.61}, False),
        ({"height": 0.59}, True),
        ({"up": math.cos(math.radians(59))}, False),
        ({"up": math.cos(math.radians(61))}, True),
    ],
)
def test_termination_by_hand(values: dict[str, float], fallen: bool) -> None:
    assert FAMILY.terminated(state(**values)).tolist() == [fallen]


@pytest.mark.parametrize(
    ("values", "success"),
    # 2 m/s for 5 s are 10 m; within 20% of it
    [
        ({"time": 5.0, "root_x": 10.0}, True),
        ({"time": 5.0, "root_x": 8.1}, True),
        ({"time": 5.0, "root_x": 7.9}, False),
        ({"time": 5.0, "root_x": 11.9}, True),
        ({"time": 5.0, "root_x": 12.1}, False),
        ({"time": 5.0, "root_x": 10.0, "height": 0.3}, False),
        ({"time": 0.0, "root_x": 0.0}, False),
    ],
)
def test_success_by_hand(values: dict[str, float], success: bool) -> None:
    assert FAMILY.success(state(**values)).tolist() == [success]


def test_observation_by_hand() -> None:
    qpos, qvel = np.arange(9.0), 10 + np.arange(9.0)
    made = state(qpos=qpos, qvel=qvel, contact_right_foot=2.0)
    made.sensor("torso_up")[:] = [0.6, 0.0, 0.8]
    row = dict(zip(FAMILY.observation_names, FAMILY.observe(made)[0], strict=True))
    assert row["hip_height"] == 0.95
    assert (row["torso_up_x"], row["torso_up_z"]) == (0.6, 0.8)
    assert [row[name] for name in biped.JOINTS] == [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert (row["root_x_velocity"], row["root_z_velocity"], row["root_pitch_velocity"]) == (
        10.0,
        11.0,
        12.0,
    )
    assert [row[f"{name}_velocity"] for name in biped.JOINTS] == [13.0, 14.0, 15.0, 16.0, 17.0, 18.0]
    assert (row["left_foot_contact"], row["right_foot_contact"]) == (0.0, 1.0)


def test_worlds_do_not_mix() -> None:
    rows = FAMILY.reward(state(3, speed=[0.0, 0.9, 2.0]))["speed"]
    np.testing.assert_allclose(rows, [0.0, 0.5, 1.0], atol=1e-12)


def test_start_by_hand() -> None:
    home = np.zeros((2, 9))
    qpos, qvel = FAMILY.start(home, np.stack([np.full(16, 0.5), np.full(16, 1.0)]))
    np.testing.assert_allclose(qpos[0], [0, 0.02, 0, 0, 0, 0, 0, 0, 0], atol=1e-12)
    np.testing.assert_allclose(qpos[1], [0, 0.02, *[0.1] * 7])
    np.testing.assert_allclose(qvel, [[0.0] * 9, [0.1] * 9], atol=1e-12)


# ---- on the real bodies


def test_bodies_are_laid_out_near_middle_and_far() -> None:
    nearest = [min(FAMILY.distance(t, o) for o in FAMILY.tasks if o != t) for t in FAMILY.tasks]
    assert min(nearest) < 0.7
    assert max(nearest) > 1.2


@pytest.mark.parametrize("task", FAMILY.tasks, ids=lambda t: t.name)
def test_doing_nothing_earns_next_to_nothing(task: mtenvs.Task) -> None:
    """Standing earns 0 (above). A body without torque topples; half of them forward, for half a second."""
    env = gym.make_vec("mt/Biped-v0", num_envs=32, tasks=[task], autoreset_mode="NextStep")
    env.reset(seed=0)
    returns, alive = np.zeros(32), np.ones(32, bool)
    for _ in range(FAMILY.episode_steps):
        _, rewards, terminations, truncations, _ = env.step(np.zeros((32, 6)))
        returns += rewards * alive
        alive &= ~(terminations | truncations)
    assert not alive.any()
    assert (returns / FAMILY.episode_steps < 0.05).all()
    assert (returns / FAMILY.episode_steps).mean() < 0.01
