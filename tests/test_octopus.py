"""Octopus against numbers worked out by hand. What holds for every family is tested elsewhere."""

from __future__ import annotations

import itertools
import math
from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
import pytest
from helpers import actions

import mtenvs
from mtenvs.families import octopus
from mtenvs.state import Layout, State

FAMILY = mtenvs.get_family("Octopus")
LINKS = range(2, 10)
ALL = [*FAMILY.tasks, *(mtenvs.sample_task("Octopus", seed) for seed in range(6))]
any_body = pytest.mark.parametrize("task", ALL, ids=lambda t: t.name)
any_links = pytest.mark.parametrize("links", LINKS)


def model_with(**parameters: float) -> mujoco.MjModel:
    return mtenvs.model("Octopus", {"parameters": parameters})


def posed(model: mujoco.MjModel, angles: Any) -> mujoco.MjData:
    """The arm at rest in a posture, at home with its target."""
    data = mujoco.MjData(model)
    mujoco.mj_resetDataKeyframe(model, data, 0)
    data.qpos[: model.nu] = angles
    mujoco.mj_forward(model, data)
    return data


# ---- layouts


@pytest.mark.parametrize(
    ("links", "index", "arc"),
    [
        (2, (0, 1), (0, 4)),
        (3, (0, 1, 2), (0, 3, 6)),
        (4, (0, 1, 2, 3), (0, 2, 4, 6)),
        (5, (0, 1, 2, 3, 4), (0, 1, 3, 5, 7)),
        (6, (0, 1, 2, 3, 4, 5), (0, 1, 3, 4, 6, 7)),
        (7, (0, 1, 2, 3, 4, 5, 6), (0, 1, 2, 3, 5, 6, 7)),
        (8, (0, 1, 2, 3, 4, 5, 6, 7), (0, 1, 2, 3, 4, 5, 6, 7)),
        (9, tuple(range(9)), tuple(range(9))),
    ],
)
def test_slots_by_hand(links: int, index: tuple[int, ...], arc: tuple[int, ...]) -> None:
    assert set(octopus.LAYOUTS) == {"arc", "index"}
    assert octopus.slots(links, "index") == index
    assert octopus.slots(links, "arc") == arc


@any_links
@pytest.mark.parametrize("layout", octopus.LAYOUTS)
def test_slots_rise_from_the_base_to_the_tip(links: int, layout: str) -> None:
    slots = octopus.slots(links, layout)
    assert slots[0] == 0
    assert all(a < b for a, b in itertools.pairwise(slots))
    assert slots[-1] < 9


@any_links
def test_a_slot_means_the_same_place_on_every_arm(links: int) -> None:
    """By arc length: joint i stands at i / N of the length, slot k covers from k / 9 to (k + 1) / 9."""
    for i, slot in enumerate(octopus.slots(links, "arc")):
        assert slot / 9 <= i / links < (slot + 1) / 9


@pytest.mark.parametrize("layout", octopus.LAYOUTS)
def test_observations_and_actions_lie_in_their_slots(layout: str) -> None:
    """Three links: joints 0, 1, 2 are slots 0, 3, 6 by arc length and 0, 1, 2 by index."""
    env = gym.make("mt/Octopus-v0", task="three-links", layout=layout)
    env.reset(seed=0)
    slots = (0, 3, 6) if layout == "arc" else (0, 1, 2)
    for joint, slot in enumerate(slots):
        action = np.full(9, 0.5)
        action[slot] = -1.0
        observation, *_ = env.step(action)
        ctrl = [0.5, 0.5, 0.5]
        ctrl[joint] = -1.0
        assert env.unwrapped.data.ctrl.tolist() == ctrl
        row = dict(zip(FAMILY.observation_names, observation, strict=False))
        for name, values in (
            ("curvature", env.unwrapped.data.qpos),
            ("curvature_rate", env.unwrapped.data.qvel),
        ):
            shown = {slot: row[f"{name}_{slot}"] for slot in range(9)}
            expected = dict.fromkeys(range(9), 0.0) | dict(zip(slots, 3.0 * values[:3], strict=True))
            assert shown == pytest.approx(expected, rel=1e-6)


# ---- bodies


@any_body
def test_bodies_by_hand(task: mtenvs.Task) -> None:
    """N cylinders of 1/N m, each as thick and its joint as strong as the cone is at its middle."""
    p, model = task.parameters, mtenvs.model("Octopus", task)
    n = int(p["links"])
    assert (model.nu, model.nv) == (n, n + 2)
    for i in range(n):
        middle = 0.05 * (1 - (1 - p["taper"]) * (i + 0.5) / n)
        flesh, joint = model.geom(f"flesh_{i}"), model.joint(f"bend_{i}")
        assert flesh.size[:2] == pytest.approx([middle, 1 / n / 2])
        assert model.body(f"link_{i}").mass[0] == pytest.approx(1050 * math.pi * middle**2 / n)
        # r^3: area times lever
        muscle = 6.0 * (middle / 0.05) ** 3
        assert model.actuator(f"bend_{i}").gear[0] == pytest.approx(muscle)
        bend = math.radians(270) / n
        assert joint.range == pytest.approx([-bend, bend])
        # at the largest bend, tissue pulls with this share of the muscle
        assert joint.stiffness[0] * bend == pytest.approx(p["stiffness"] * muscle)
        assert joint.damping[0] == pytest.approx(0.004 * n * muscle)
    assert model.opt.density == p["water_density"]
    assert not model.opt.gravity.any()
    assert not model.geom_contype.any()
    assert model.npair == 0


@any_links
@pytest.mark.parametrize("taper", [0.3, 0.6, 1.0])
def test_more_links_are_no_longer_and_no_heavier(links: int, taper: float) -> None:
    model = model_with(links=links, taper=taper)
    data = posed(model, np.zeros(links))
    np.testing.assert_allclose(data.body("tip").xpos, [0, 0, 1.3 + 1.0], atol=1e-12)
    # a truncated cone: pi L (R^2 + R r + r^2) / 3; mass is at the middles of the links, 2% off at most
    cone = 1050 * math.pi * 0.05**2 * (1 + taper + taper**2) / 3
    flesh = sum(model.body(f"link_{i}").mass[0] for i in range(links))
    assert flesh == pytest.approx(cone, rel=0.025)


@pytest.mark.parametrize("taper", [0.3, 0.6, 1.0])
def test_muscle_and_tissue_are_equal_at_equal_places(taper: float) -> None:
    """Moment M(s), stiffness EI(s), damping and largest curvature, whatever the number of joints."""
    moment, elastic, viscous = ({}, {}, {})
    for links in LINKS:
        model = model_with(links=links, taper=taper, stiffness=0.4)
        for i in range(links):
            place, joint = round((i + 0.5) / links, 9), model.joint(f"bend_{i}")
            for found, value in (
                (moment, model.actuator(i).gear[0]),
                # a joint of stiffness k stands for a piece of L / N: EI = k L / N, and likewise its damping
                (elastic, joint.stiffness[0] / links),
                (viscous, joint.damping[0] / links),
            ):
                found.setdefault(place, []).append(float(value))
            assert joint.range[1] * links == pytest.approx(math.radians(270))  # rad/m of a 1 m arm
    assert len(moment[0.5]) == 4  # met by 3, 5, 7 and 9 links
    for found in (moment, elastic, viscous):
        for values in found.values():
            assert values == pytest.approx([values[0]] * len(values))
        along = [found[place][0] for place in sorted(found)]
        assert all(a >= b * (1 - 1e-9) for a, b in itertools.pairwise(along))  # thinner is weaker


@any_body
def test_the_largest_safe_bend_can_be_held(task: mtenvs.Task) -> None:
    """What a target's posture needs at rest, the muscles can give; and given it, the arm stays."""
    stiffest = {**task.parameters, "stiffness": FAMILY.parameters[2].high}
    for parameters in (task.parameters, stiffest):
        model = model_with(**parameters)
        n = model.nu
        safe = 0.9 * math.radians(270) / n
        muscle = model.actuator_gear[:, 0]
        for posture in (np.full(n, safe), safe * np.where(np.arange(n) < n / 2, 1.0, -1.0)):
            data = posed(model, posture)
            data.qacc[:] = 0.0
            mujoco.mj_inverse(model, data)
            needed = data.qfrc_inverse[:n] / muscle
            np.testing.assert_allclose(np.abs(needed), 0.9 * parameters["stiffness"], rtol=1e-9)
            assert (np.abs(needed) < 1.0).all()
            data.ctrl[:] = needed
            for _ in range(400):
                mujoco.mj_step(model, data)
            np.testing.assert_allclose(data.qpos[:n], posture, atol=0.02)


# ---- water


def test_drag_is_in_proportion_to_the_density_of_the_water() -> None:
    """The inertia-box model has pressure drag alone in water without viscosity."""
    found = []
    for density in (250.0, 1000.0, 4000.0):
        model = model_with(water_density=density)
        data = posed(model, np.zeros(5))
        data.qvel[:5] = 1.0
        mujoco.mj_forward(model, data)
        assert data.qfrc_fluid[:5].max() < 0.0  # against the motion
        found.append(data.qfrc_fluid[:5] / density)
    np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
    np.testing.assert_allclose(found[2], found[0], rtol=1e-9)


@any_links
def test_thick_water_slows_a_coasting_arm_more(links: int) -> None:
    def energy_left(density: float) -> float:
        model = model_with(links=links, water_density=density)
        model.opt.enableflags |= mujoco.mjtEnableBit.mjENBL_ENERGY
        data = posed(model, np.zeros(links))
        data.qvel[:links] = 3.0 / links
        mujoco.mj_forward(model, data)
        before = data.energy.sum()  # elastic and kinetic: only drag and damping take any away
        for _ in range(20):
            mujoco.mj_step(model, data)
        mujoco.mj_forward(model, data)
        return data.energy.sum() / before

    left = [energy_left(density) for density in (250.0, 500.0, 1000.0, 2000.0, 4000.0)]
    assert all(a > b + 0.01 for a, b in itertools.pairwise(left))
    assert 0.0 < left[-1] < left[0] < 1.0


# ---- reward and success on states made by hand


def state(n: int = 1, links: int = 5, **values: Any) -> State:
    """Arms at rest, with tip and target at (0.3, 0.4) of the base, except for ``values``."""
    layout = Layout.of(model_with(links=links))
    made = State(
        layout=layout,
        time=np.ones(n),
        qpos=np.zeros((n, links + 2)),
        qvel=np.zeros((n, links + 2)),
        ctrl=np.zeros((n, links)),
        sensordata=np.zeros((n, 9)),
        constants={},
        totals={},
    )
    made.sensor("tip_position")[:] = [0.3, 0.0, 0.4]
    made.sensor("tip_up")[:, 2] = 1.0
    made.qpos[:, -2:] = values.pop("target", [0.3, 0.4])
    for name, value in values.items():
        if name == "tip":
            made.sensor("tip_position")[:, ::2] = value
        elif name in ("qpos", "qvel"):
            getattr(made, name)[:, :links] = value
        elif name == "ctrl":
            made.ctrl[:] = value
        else:
            made.sensor(name)[:] = value
    return made


def at_distance(d: float, **values: Any) -> State:
    return state(tip=[0.3 + 0.6 * d, 0.4 - 0.8 * d], **values)


@pytest.mark.parametrize(
    ("distance", "approach", "reach"),
    # whole under 5 cm; then 0 at 2.05 m and at 0.25 m
    [
        (0.0, 0.5, 0.5),
        (0.05, 0.5, 0.5),
        (0.15, 0.475, 0.25),
        (0.25, 0.45, 0.0),
        (1.05, 0.25, 0.0),
        (2.05, 0.0, 0.0),
        (2.2, 0.0, 0.0),
    ],
)
def test_reward_terms_by_hand(distance: float, approach: float, reach: float) -> None:
    terms = FAMILY.reward(at_distance(distance))
    assert terms["approach"][0] == pytest.approx(approach, abs=1e-12)
    assert terms["reach"][0] == pytest.approx(reach, abs=1e-12)
    assert terms["effort"][0] == 0.0


def test_effort_term_by_hand() -> None:
    assert FAMILY.reward(state(ctrl=[1, -1, 0.5, 0, 0]))["effort"][0] == pytest.approx(-0.05 * 2.25 / 5)
    # of an arm's own muscles: padding is no rest
    for links in LINKS:
        made = state(links=links, ctrl=1.0)
        assert FAMILY.reward(made)["effort"][0] == pytest.approx(-0.05)


def test_reward_is_at_most_one() -> None:
    assert sum(t[0] for t in FAMILY.reward(state()).values()) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("distance", "success"), [(0.0, True), (0.0499, True), (0.0501, False), (1.0, False)]
)
def test_success_by_hand(distance: float, success: bool) -> None:
    assert FAMILY.success(at_distance(distance)).tolist() == [success]


def test_nothing_ends_an_episode_early() -> None:
    wild = state(3, qpos=9.0, qvel=1e3, tip=[100.0, -100.0], ctrl=1.0)
    assert FAMILY.terminated(wild).tolist() == [False] * 3


def test_worlds_do_not_mix() -> None:
    made = state(3, tip=[[0.3, 0.4], [0.3, 1.45], [0.3, 2.45]])
    np.testing.assert_allclose(FAMILY.reward(made)["approach"], [0.5, 0.25, 0.0], atol=1e-12)
    assert FAMILY.success(made).tolist() == [True, False, False]


def test_observation_by_hand() -> None:
    angles, rates = np.arange(1.0, 6.0), 10.0 + np.arange(5.0)
    made = state(
        qpos=angles, qvel=rates, target=[-0.2, 0.7], tip_up=[0.6, 0.0, 0.8], tip_velocity=[1.0, 2.0, 3.0]
    )
    names, _ = octopus.names({"links": 5}, "index")
    row = dict(zip(names, FAMILY.observe(made)[0], strict=True))
    assert (row["target_x"], row["target_z"]) == (-0.2, 0.7)
    assert (row["tip_to_target_x"], row["tip_to_target_z"]) == pytest.approx((-0.5, 0.3))
    assert (row["tip_up_x"], row["tip_up_z"]) == (0.6, 0.8)
    assert (row["tip_velocity_x"], row["tip_velocity_z"]) == (1.0, 3.0)
    # five links of 0.2 m: five radians a metre for a bend of one
    assert [row[f"curvature_{i}"] for i in range(5)] == pytest.approx(list(5.0 * angles))
    assert [row[f"curvature_rate_{i}"] for i in range(5)] == pytest.approx(list(5.0 * rates))


def test_observation_of_a_real_arm_is_seen_from_its_base() -> None:
    model = model_with(links=2)
    data = posed(model, [0.5, -0.2])  # 0.5 m each; about -y, so that a positive angle leans to -x
    tip = [-0.5 * (math.sin(0.5) + math.sin(0.3)), 0.5 * (math.cos(0.5) + math.cos(0.3))]
    made = state(links=2, qpos=[0.5, -0.2], target=data.qpos[2:])
    made.sensordata[:] = data.sensordata
    names, _ = octopus.names({"links": 2}, "index")
    row = dict(zip(names, FAMILY.observe(made)[0], strict=True))
    assert (row["target_x"], row["target_z"]) == tuple(data.qpos[2:])
    to_target = data.qpos[2:] - tip
    assert (row["tip_to_target_x"], row["tip_to_target_z"]) == pytest.approx(tuple(to_target))
    assert (row["tip_up_x"], row["tip_up_z"]) == pytest.approx((-math.sin(0.3), math.cos(0.3)))
    shown = data.body("target").xpos - data.body("rock").xpos  # what one sees is what counts
    assert (shown[0], shown[2]) == pytest.approx(tuple(data.qpos[2:]))


# ---- starts and targets


@any_links
def test_a_target_is_the_tip_of_a_posture_of_this_arm(links: int) -> None:
    """Base half and tip half bent by 0.9 (0.45 + 0.55 |u|) of the largest bend, to either side."""
    model, n = model_with(links=links), 12
    rng = np.random.default_rng(links)
    draws = rng.random((n, FAMILY.start_draws))
    qpos, qvel = FAMILY.start(np.repeat(model.key_qpos[:1], n, axis=0), draws)
    largest = math.radians(270) / links
    for row, drawn in zip(qpos, draws, strict=True):
        halves = 2.0 * drawn[-2:] - 1.0
        bends = np.sign(halves) * 0.9 * (0.45 + 0.55 * np.abs(halves)) * largest
        posture = [bends[0] if i + 1 <= links / 2 else bends[1] for i in range(links)]
        if links % 2:  # the middle piece lies in both halves
            posture[links // 2] = bends.mean()
        assert (np.abs(posture) <= 0.9 * model.jnt_range[:links, 1] + 1e-12).all()
        tip = posed(model, posture).body("tip").xpos
        np.testing.assert_allclose(row[links:], [tip[0], tip[2] - 1.3], atol=1e-12)
    # the arm itself starts nearly straight, and the target at rest
    assert (np.abs(qpos[:, :links]) <= 0.15 * largest).all()
    assert (np.abs(qvel[:, :links]) <= 0.1).all()
    assert not qvel[:, links:].any()
    centre = np.full((1, FAMILY.start_draws), 0.5)
    centre[:, -2:] = 0.6
    middle = FAMILY.start(model.key_qpos[:1], centre)
    assert not middle[0][:, :links].any()
    assert not middle[1].any()


@any_links
def test_targets_are_reachable_apart_and_not_reached_by_standing_still(links: int) -> None:
    model, n = model_with(links=links), 2000
    draws = np.random.default_rng(0).random((n, FAMILY.start_draws))
    qpos, _ = FAMILY.start(np.repeat(model.key_qpos[:1], n, axis=0), draws)
    target, angle = qpos[:, links:], np.cumsum(qpos[:, :links], axis=1)
    tip = np.stack([-np.sin(angle).sum(1), np.cos(angle).sum(1)], axis=1) / links
    away = np.linalg.norm(target - tip, axis=1)
    assert away.min() > octopus.SUCCESS_RADIUS
    assert np.median(away) > 0.9
    reach = np.linalg.norm(target, axis=1)
    assert 0.35 < reach.min() < reach.max() < 1.0
    assert (target[:, 1] > -1.2).all()  # above the sea floor
    assert (target[:, 0] > 0).mean() == pytest.approx(0.5, abs=0.05)
    for axis in range(2):
        assert np.ptp(target[:, axis]) > 1.0


def test_a_target_stays_where_it_is_until_the_next_episode() -> None:
    env = gym.make_vec("mt/Octopus-v0", num_envs=8, max_episode_steps=20)
    where = [FAMILY.observation_names.index(name) for name in ("target_x", "target_z")]
    first = env.reset(seed=0)[0][:, where]
    for step, action in enumerate(actions(env, 0, 30)):
        shown = env.step(action)[0][:, where]
        if step < 19:
            np.testing.assert_array_equal(shown, first)
        else:
            assert (shown != first).all()
    assert len(np.unique(first, axis=0)) == 8


# ---- stability


@pytest.mark.parametrize("policy", ["random", "bang-bang", "pumping"])
def test_sampled_arms_never_diverge(policy: str) -> None:
    """300 arms from the corners of the ranges to their middles; pumping pushes along with the motion."""
    extremes = [
        {"links": n, "taper": taper, "stiffness": stiffness, "water_density": density}
        for n in (2, 9)
        for taper in (0.3, 1.0)
        for stiffness in (0.1, 0.8)
        for density in (250.0, 4000.0)
    ]
    tasks: list[Any] = [{"parameters": p} for p in extremes]
    tasks += [mtenvs.sample_task("Octopus", seed) for seed in range(300 - len(tasks))]
    env = gym.make_vec("mt/Octopus-v0", num_envs=len(tasks), tasks=tasks, autoreset_mode="NextStep")
    observations, _ = env.reset(seed=0)
    rng = np.random.default_rng(0)
    where = [i for i, name in enumerate(FAMILY.observation_names) if name.startswith("curvature_rate")]
    turns = [i for i, name in enumerate(FAMILY.observation_names) if name.startswith("curvature_")][:9]
    action = np.zeros(env.action_space.shape)
    for step in range(FAMILY.episode_steps):
        if policy == "random":
            action = rng.uniform(-1, 1, action.shape)
        elif policy == "pumping":
            action = np.sign(observations[:, where])
        elif step % 5 == 0:
            action = rng.choice([-1.0, 1.0], action.shape)
        observations, rewards, terminations, truncations, info = env.step(action)
        assert not info["physics_diverged"].any()
        assert np.isfinite(observations).all()
        assert np.isfinite(rewards).all()
        assert not terminations.any()
        # the arm's largest curvature is 270 degrees a metre, but joints' limits are soft
        assert np.abs(observations[:, turns]).max() < 3 * math.radians(270)
    assert truncations.all()


def test_standing_still_earns_little_and_never_succeeds() -> None:
    env = gym.make_vec("mt/Octopus-v0", num_envs=160, autoreset_mode="NextStep")
    env.reset(seed=0)
    returns = np.zeros(160)
    still = np.zeros(env.action_space.shape)
    for _ in range(FAMILY.episode_steps):
        _, rewards, _, truncations, info = env.step(still)
        returns += rewards
    assert truncations.all()
    assert not info["success"].any()
    by_task = (returns / FAMILY.episode_steps).reshape(-1, len(FAMILY.tasks)).mean(axis=0)
    assert by_task.max() < 0.35
