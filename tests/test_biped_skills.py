"""BipedSkills against numbers worked out by hand. What holds for every family is tested elsewhere."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from helpers import differing_fields

import mtenvs
from mtenvs.families import biped, biped_skills
from mtenvs.state import Layout, State

FAMILY = mtenvs.get_family("BipedSkills")
SKILLS = {task.name: task for task in FAMILY.tasks}
ALL = [*FAMILY.tasks, *(mtenvs.sample_task("BipedSkills", seed) for seed in range(8))]
LEG = 0.45 + 0.45 + 0.05  # m
STRIDE = 0.8  # s
STEP = 0.02  # s, of control
GAIT, SPEED = 0.15, 0.85  # what the terms are worth
SUCCESS = 0.6  # of what the gait term can be

any_skill = pytest.mark.parametrize("task", ALL, ids=lambda t: t.name)


@functools.cache
def layout() -> Layout:
    return Layout.of(mtenvs.model("BipedSkills", 0))


def state(task: mtenvs.Task | str | dict[str, float], phase: Any = 0.0, **values: Any) -> State:
    """The skill's own height and speed, upright, both feet on the ground, except for ``values``.

    Args:
        task: the skill, or its parameters.
        phase: amid the control step that has just ended, in strides since the episode began,
            ``(num_envs,)`` or a number.
        values: ``speed``, ``up``, ``height`` of the hip over the lower sole in m, ``x`` travelled in m,
            ``ctrl``, ``left`` and ``right``: height of a foot over the ground in m, at 0 it touches;
            ``gait``: the sum of that term so far.
    """
    if isinstance(task, str):
        task = SKILLS[task]
    p = FAMILY.complete(task if isinstance(task, dict) else task.parameters)
    time = np.atleast_1d(np.asarray(phase, float)) * STRIDE + STEP / 2
    n = len(time)
    made = State(
        layout=layout(),
        time=time,
        qpos=np.zeros((n, 9)),
        qvel=np.zeros((n, 9)),
        ctrl=np.zeros((n, 6)),
        sensordata=np.zeros((n, 19)),
        constants={name: np.full(n, value) for name, value in FAMILY.constants(p).items()},
        totals={"gait": np.full(n, values.get("gait", 0.0))},
    )
    for side in ("left", "right"):
        lift = np.broadcast_to(values.get(side, 0.0), n)
        made.sensor(f"{side}_foot_position")[:, 2] = 0.05 + lift  # of the ankle, in the sole's middle
        made.sensor(f"contact_{side}_foot")[:, 0] = lift <= 0.0
    lower = np.minimum(values.get("left", 0.0), values.get("right", 0.0))
    made.sensor("hip_position")[:, 2] = values.get("height", p["height"] * LEG) + lower
    made.sensor("com_velocity")[:, 0] = values.get("speed", p["speed"])
    made.sensor("torso_up")[:, 2] = values.get("up", 1.0)
    made.qpos[:, layout().qpos["root_x"]] = values.get("x", 0.0)
    made.ctrl[:] = values.get("ctrl", 0.0)
    return made


def term(name: str, *args: Any, **values: Any) -> float:
    return float(FAMILY.reward(state(*args, **values))[name][0])


def due(p: dict[str, float], phase: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """When each foot should swing: the left one in the last ``swing`` of a stride, the right one apart."""
    left = phase % 1.0 >= 1.0 - p["swing"]
    right = (phase + p["offset"]) % 1.0 >= 1.0 - p["swing"]
    return left, right


# ---- the clock


def test_share_of_a_stride_that_counts_is_its_integral() -> None:
    """Over the control steps of a stride, of which there are 40; and so nearly over the time itself."""
    fine, steps = (np.arange(20_000) + 0.5) / 20_000, (np.arange(40) + 0.5) / 40
    for swing in np.linspace(0.0, 0.6, 25):
        for offset in np.linspace(0.0, 0.5, 21) + 1e-6:  # off the edges, where rounding decides
            p = FAMILY.complete({"swing": float(swing), "offset": min(float(offset), 0.5)})
            constants = FAMILY.constants(p)
            share, counted = ((left | right).mean() for left, right in (due(p, fine), due(p, steps)))
            assert constants["scored"] == pytest.approx(counted if counted else 1.0), (swing, offset)
            assert constants["stepping"] == (counted > 0)
            assert counted == pytest.approx(share, abs=2 / 40)


@pytest.mark.parametrize(
    ("skill", "scored"),
    [("stand", 1.0), ("walk", 0.8), ("run", 1.0), ("jump", 0.5), ("hop", 0.45), ("step", 0.7)],
)
def test_share_that_counts_of_published_skills(skill: str, scored: float) -> None:
    assert FAMILY.constants(SKILLS[skill].parameters)["scored"] == pytest.approx(scored)


@pytest.mark.parametrize(
    ("phase", "left", "right", "feet"),
    # swing 0.4, offset 0.5: the left foot from 0.6 to 1.0, the right one from 0.1 to 0.5
    [
        (0.05, 0.0, 0.0, 0.0),  # nobody's turn: nothing to earn
        (0.05, 0.1, 0.0, 0.0),
        (0.11, 0.0, 0.1, 1.0),
        (0.11, 0.1, 0.0, -1.0),  # the wrong one instead
        (0.30, 0.0, 0.1, 1.0),
        (0.30, 0.0, 0.025, 0.5),  # half as high as should be
        (0.30, 0.025, 0.0, -0.5),
        (0.30, 0.1, 0.1, 0.0),  # in the air, where one should stand
        (0.30, 0.0, 0.0, 0.0),  # stands
        (0.49, 0.0, 0.1, 1.0),
        (0.51, 0.0, 0.1, 0.0),
        (0.59, 0.1, 0.0, 0.0),
        (0.61, 0.1, 0.0, 1.0),
        (0.61, 0.0, 0.1, -1.0),
        (0.99, 0.1, 0.0, 1.0),
        (1.05, 0.0, 0.0, 0.0),
        (7.30, 0.0, 0.1, 1.0),  # strides later
    ],
)
def test_walking_feet_by_hand(phase: float, left: float, right: float, feet: float) -> None:
    found = FAMILY.reward(state("walk", phase, left=left, right=right))
    assert found["gait"][0] == pytest.approx(GAIT * max(feet, 0.0) / 0.8, abs=1e-12)
    # what is wrong costs of this term what standing still would earn: of 1.4 m/s, nothing
    assert found["speed"][0] == pytest.approx(SPEED * max(feet, 0.0) / 0.8, abs=1e-12)
    stepping = FAMILY.reward(
        state({**SKILLS["walk"].parameters, "speed": 0.0}, phase, left=left, right=right)
    )
    assert stepping["speed"][0] == pytest.approx(SPEED * feet / 0.8, abs=1e-12)


@pytest.mark.parametrize(
    ("phase", "left", "right", "feet"),
    # swing 0.5, offset 0: both from 0.5 to 1.0
    [
        (0.25, 0.0, 0.0, 0.0),
        (0.25, 0.1, 0.1, 0.0),
        (0.75, 0.1, 0.1, 1.0),
        (0.75, 0.05, 0.05, 1.0),
        (0.75, 0.1, 0.0, 1 / 16),  # one foot up is hardly a jump
        (0.75, 0.025, 0.025, 1 / 16),  # both half as high as should be
        (0.75, 0.1, 0.025, 0.75**4),
        (0.25, 0.1, 0.0, 0.0),
        (0.75, 0.0, 0.0, 0.0),
    ],
)
def test_jumping_feet_by_hand(phase: float, left: float, right: float, feet: float) -> None:
    assert term("gait", "jump", phase, left=left, right=right) == pytest.approx(
        GAIT * feet / 0.5, abs=1e-12
    )


@pytest.mark.parametrize(
    ("phase", "left", "right", "feet"),
    # swing 0.58, offset 0.5: left from 0.42 to 1, right from 0.92 over 1 to 0.5; so both in 0.42 to 0.5
    [
        (0.45, 0.1, 0.1, 1.0),
        (0.45, 0.0, 0.1, 1 / 16),
        (0.60, 0.1, 0.0, 1.0),
        (0.60, 0.1, 0.1, 0.0),
        (0.60, 0.0, 0.1, -1.0),
        (0.95, 0.1, 0.1, 1.0),
        (0.20, 0.0, 0.1, 1.0),
    ],
)
def test_running_feet_by_hand(phase: float, left: float, right: float, feet: float) -> None:
    found = term("gait", "run", phase, left=left, right=right)
    assert found == pytest.approx(GAIT * max(feet, 0.0), abs=1e-9)
    in_place = {**SKILLS["run"].parameters, "speed": 0.0}
    assert term("speed", in_place, phase, left=left, right=right) == pytest.approx(SPEED * feet, abs=1e-9)


@pytest.mark.parametrize(("left", "right", "feet"), [(0, 0, 1), (0.1, 0, 0), (0, 0.1, 0), (0.1, 0.1, 0)])
def test_standing_feet_by_hand(left: float, right: float, feet: float) -> None:
    for phase in (0.0, 0.3, 0.75, 5.5):
        assert term("gait", "stand", phase, left=left, right=right) == pytest.approx(GAIT * feet)


def test_a_foot_that_touches_is_not_lifted_however_high_its_ankle_is() -> None:
    made = state("jump", 0.75, left=0.1, right=0.1)
    for side in ("left", "right"):
        made.sensor(f"contact_{side}_foot")[:] = 2.0  # on tiptoe
    assert FAMILY.reward(made)["gait"][0] == 0.0


# ---- form and speed


@pytest.mark.parametrize(
    ("hip", "form"),
    # of leg length; full within 0.06 of the target of 1, and 0.1 another 0.25 away, a bell in between
    [(1.0, 1.0), (0.945, 1.0), (1.055, 1.0), (0.69, 0.1), (1.31, 0.1), (0.815, 0.1**0.25)],
)
def test_height_by_hand(hip: float, form: float) -> None:
    assert term("gait", "stand", height=hip * LEG) == pytest.approx(GAIT * form, rel=1e-6)
    crouched = {"height": 0.7}
    assert term("gait", crouched, height=(hip - 0.3) * LEG) == pytest.approx(GAIT * form, rel=1e-6)


def test_height_is_measured_from_the_lower_foot() -> None:
    """Flying higher is no longer leg: the hip counts over whichever sole is lower."""
    jumping = state("jump", 0.75, left=0.3, right=0.2)
    jumping.sensor("hip_position")[:, 2] = LEG + 0.2
    assert FAMILY.reward(jumping)["gait"][0] == pytest.approx(GAIT / 0.5)
    tucked = state("jump", 0.75, left=0.3, right=0.3)
    tucked.sensor("hip_position")[:, 2] = LEG  # legs drawn in, hip as if standing
    low = (LEG - 0.3) / LEG
    bell = 0.1 ** (((1 - 0.06 - low) / 0.25) ** 2)
    assert FAMILY.reward(tucked)["gait"][0] == pytest.approx(GAIT / 0.5 * bell)


@pytest.mark.parametrize(("up", "form"), [(1.0, 1.0), (0.5, 0.5), (-0.5, 0.0)])
def test_only_an_upright_torso_counts(up: float, form: float) -> None:
    assert term("gait", "stand", up=up) == pytest.approx(GAIT * form)
    assert term("speed", "stand", up=up) == pytest.approx(SPEED * form)


@pytest.mark.parametrize(
    ("skill", "phase", "speed", "expected"),
    [
        # at rest: full within 0.1 m/s, nothing 0.75 m/s beyond
        ("stand", 0.0, 0.0, 1.0),
        ("stand", 0.0, -0.1, 1.0),
        ("stand", 0.0, 0.475, 0.5),
        ("stand", 0.0, -0.85, 0.0),
        # 1.4 m/s: within 0.1 + 0.14 m/s, nothing at rest, 1.16 m/s lower, nor as far above
        ("walk", 0.3, 1.4, 1.0),
        ("walk", 0.3, 1.16, 1.0),
        ("walk", 0.3, 1.64, 1.0),
        ("walk", 0.3, 0.58, 0.5),
        ("walk", 0.3, 0.0, 0.0),
        ("walk", 0.3, -1.4, 0.0),
        ("walk", 0.3, 2.8, 0.0),
        # -1 m/s: within 0.2 m/s, nothing at rest
        ("back", 0.3, -1.0, 1.0),
        ("back", 0.3, -0.4, 0.5),
        ("back", 0.3, 0.0, 0.0),
        ("back", 0.3, 1.0, 0.0),
    ],
)
def test_speed_by_hand(skill: str, phase: float, speed: float, expected: float) -> None:
    scored = FAMILY.constants(SKILLS[skill].parameters)["scored"]
    lift = 0.0 if skill == "stand" else 0.1
    found = FAMILY.reward(state(skill, phase, right=lift, speed=speed))
    assert found["speed"][0] == pytest.approx(SPEED * expected / scored, abs=1e-12)
    assert found["gait"][0] == pytest.approx(GAIT / scored)  # the speed is the other term's matter


def test_effort_by_hand() -> None:
    assert term("effort", "walk", ctrl=[1, -1, 0.5, 0, 0, 0]) == pytest.approx(-0.05 * 2.25 / 6)
    assert term("effort", "stand", ctrl=-1.0) == pytest.approx(-0.05)


# ---- what a whole stride earns


def strides(task: mtenvs.Task, count: int = 3) -> tuple[dict[str, float], np.ndarray]:
    """Parameters, and phases of the control steps of whole strides."""
    return dict(task.parameters), (np.arange(count * 40) + 0.5) / 40


@any_skill
def test_doing_as_asked_earns_one_on_the_mean_of_a_stride(task: mtenvs.Task) -> None:
    p, phase = strides(task)
    left, right = due(p, phase)
    made = state(task, phase, left=0.1 * left, right=0.1 * right)
    terms = FAMILY.reward(made)
    assert terms["gait"].mean() == pytest.approx(GAIT)
    assert terms["speed"].mean() == pytest.approx(SPEED)


@any_skill
@pytest.mark.parametrize("gliding", [False, True])
def test_standing_still_is_worth_nothing_but_where_it_is_the_skill(
    task: mtenvs.Task, gliding: bool
) -> None:
    """At the height asked for, both feet on the ground, at rest or even gliding at the speed asked for."""
    p, phase = strides(task)
    made = state(task, phase, speed=p["speed"] if gliding else 0.0)
    mean = float(sum(FAMILY.reward(made).values()).mean())
    assert mean == (pytest.approx(1.0) if task.name == "stand" else 0.0)


def at_rest(speed: float) -> float:
    """Of the speed term, standing still: full within 0.1 m/s + 0.1 |v*|, nothing 0.75 m/s beyond."""
    excess = abs(speed) - 0.1 - 0.1 * abs(speed)
    return 1.0 - max(excess, 0.0) / max(excess, 0.75)


@any_skill
@pytest.mark.parametrize("how", ["hanging", "against"])
def test_feet_that_are_up_out_of_turn(task: mtenvs.Task, how: str) -> None:
    """Hanging in the air pays where both feet should; the one foot up in place of the other costs."""
    p, phase = strides(task)
    left, right = due(p, phase)
    lifts = (np.ones_like(left), np.ones_like(right)) if how == "hanging" else (~left, ~right)
    terms = FAMILY.reward(state(task, phase, left=0.1 * lifts[0], right=0.1 * lifts[1]))
    some = (left | right).mean() or 1.0
    good = (left & right).mean() / some if how == "hanging" else 0.0
    bad = (left ^ right).mean() / some if how == "against" else 0.0
    assert terms["gait"].mean() == pytest.approx(GAIT * good, abs=1e-9)
    assert terms["speed"].mean() == pytest.approx(SPEED * (good - bad * at_rest(p["speed"])), abs=1e-9)


@pytest.mark.parametrize("side", ["left", "right"])
@any_skill
def test_standing_on_one_leg_is_worth_next_to_nothing(task: mtenvs.Task, side: str) -> None:
    """Half of the time the foot that is up should be, and half of the time it is the wrong one."""
    p, phase = strides(task)
    terms = FAMILY.reward(state(task, phase, **{side: 0.1}, speed=0.0))
    feet = dict(zip(("left", "right"), due(p, phase), strict=True))
    own, other = feet.pop(side), next(iter(feet.values()))
    some = (own | other).mean() or 1.0
    turns = [(own & ~other).mean() / some, (other & ~own).mean() / some]
    assert turns[0] == pytest.approx(turns[1], abs=1 / 40 / some)  # but for a control step, by rounding
    jumping = (own & other).mean() / some / 16  # one foot up is hardly a jump
    assert terms["gait"].mean() == pytest.approx(GAIT * (turns[0] + jumping), abs=1e-9)
    assert terms["speed"].mean() == pytest.approx(
        SPEED * at_rest(p["speed"]) * (turns[0] - turns[1] + jumping), abs=1e-9
    )
    assert float(sum(terms.values()).mean()) < 0.1


@pytest.mark.parametrize("side", ["left", "right"])
def test_stepping_with_one_foot_alone_is_half_of_it(side: str) -> None:
    for task in FAMILY.tasks:
        p, phase = strides(task)
        if p["offset"] == 0.5 and p["swing"] < 0.5:
            feet = dict(zip(("left", "right"), due(p, phase), strict=True))
            terms = FAMILY.reward(state(task, phase, **{side: 0.1 * feet[side]}))
            assert float(sum(terms.values()).mean()) == pytest.approx(0.5)


def test_every_skill_is_another() -> None:
    """Doing what one skill asks for earns less than 0.6 of any other's reward."""
    for own in FAMILY.tasks:
        for other in FAMILY.tasks:
            p, phase = strides(own)
            left, right = due(p, phase)
            done = {
                "left": 0.1 * left,
                "right": 0.1 * right,
                "speed": p["speed"],
                "height": p["height"] * LEG,
            }
            mean = float(sum(FAMILY.reward(state(other, phase, **done)).values()).mean())
            right = mean > 0.99 if own.name == other.name else mean < 0.6
            assert right, (own.name, other.name, mean)


# ---- ends


@pytest.mark.parametrize(
    ("values", "fallen"),
    # the hip under 0.4 of 0.95 m, or a tilt beyond 60 degrees
    [
        ({}, False),
        ({"height": 0.39}, False),
        ({"height": 0.37}, True),
        ({"up": math.cos(math.radians(59))}, False),
        ({"up": math.cos(math.radians(61))}, True),
    ],
)
def test_termination_by_hand(values: dict[str, float], fallen: bool) -> None:
    for skill in SKILLS:
        assert FAMILY.terminated(state(skill, **values)).tolist() == [fallen]


def test_no_height_that_can_be_asked_for_is_a_fall() -> None:
    lowest = min(p.low for p in FAMILY.parameters if p.name == "height")
    assert not FAMILY.terminated(state({"height": lowest}))[0]
    assert not FAMILY.terminated(state({"height": lowest}, height=(lowest - 0.06) * LEG))[0]


@pytest.mark.parametrize(
    ("skill", "values", "success"),
    # 8 s are 10 strides and 400 steps; ``gait`` here is its mean, of what it can be; over 0.6 is needed
    [
        # walk: 1.4 m/s within 0.15 + 0.21 m/s: 8.32 to 14.08 m
        ("walk", {"x": 11.2, "gait": 0.9}, True),
        ("walk", {"x": 8.4, "gait": 0.9}, True),
        ("walk", {"x": 8.2, "gait": 0.9}, False),
        ("walk", {"x": 14.0, "gait": 0.9}, True),
        ("walk", {"x": 14.2, "gait": 0.9}, False),
        ("walk", {"x": 11.2, "gait": 0.61}, True),
        ("walk", {"x": 11.2, "gait": 0.59}, False),
        ("walk", {"x": 11.2, "gait": 0.9, "up": 0.0}, False),
        ("walk", {"x": 11.2, "gait": 0.9, "height": 0.2}, False),
        # back: -1 m/s within 0.3 m/s: -10.4 to -5.6 m
        ("back", {"x": -8.0, "gait": 0.9}, True),
        ("back", {"x": -5.7, "gait": 0.9}, True),
        ("back", {"x": -5.5, "gait": 0.9}, False),
        ("back", {"x": 8.0, "gait": 0.9}, False),
        # in place, within 0.15 m/s: 1.2 m
        ("jump", {"x": 1.1, "gait": 0.61}, True),
        ("jump", {"x": -1.3, "gait": 0.61}, False),
        ("stand", {"x": 0.0, "gait": 1.0}, True),
        ("stand", {"x": 0.0, "gait": 0.0}, False),
    ],
)
def test_success_by_hand(skill: str, values: dict[str, float], success: bool) -> None:
    total = {"gait": values["gait"] * GAIT * 400}
    made = state(skill, 10.0 - 0.5 / 40, **{**values, **total})
    assert made.time[0] == pytest.approx(8.0)
    assert FAMILY.success(made).tolist() == [success]


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("task", FAMILY.tasks, ids=lambda t: t.name)
def test_what_one_foot_alone_does_is_no_success(task: mtenvs.Task, side: str) -> None:
    """In place over a whole episode of control steps: held up all the time, or stepping by the clock."""
    phase = (np.arange(FAMILY.episode_steps) + 0.5) * STEP / STRIDE
    by_clock = dict(zip(("left", "right"), due(dict(task.parameters), phase), strict=True))[side]
    for lift in (0.1, 0.1 * by_clock):
        if task.name == "stand" and not np.any(lift):
            continue  # that is what it asks for
        gait = FAMILY.reward(state(task, phase, **{side: lift}, speed=0.0))["gait"].sum()
        assert not FAMILY.success(state(task, phase[-1:], gait=gait))[0], gait / GAIT / 500


def shares(tasks: Iterable[mtenvs.Task]) -> dict[str, float]:
    """What doing as asked earns over an episode of control steps, of what a whole clock would give."""
    phase = (np.arange(FAMILY.episode_steps) + 0.5) * STEP / STRIDE
    found = {}
    for task in tasks:
        left, right = due(dict(task.parameters), phase)
        gait = FAMILY.reward(state(task, phase, left=0.1 * left, right=0.1 * right))["gait"]
        found[task.name] = float(gait.mean()) / GAIT
    return found


def test_control_steps_are_fine_enough_for_published_skills() -> None:
    found = shares(FAMILY.tasks)
    assert all(share == pytest.approx(1.0, abs=0.1) for share in found.values()), found


def test_every_sampled_skill_can_be_done_and_pays_what_it_says() -> None:
    """At most 1 on the mean of a stride, and enough for a success, however short the swing."""
    found = shares(mtenvs.sample_task("BipedSkills", seed) for seed in range(60))
    wrong = {name: share for name, share in found.items() if not 0.65 < share < 1.1}
    assert not wrong


def test_nothing_is_a_success_at_once() -> None:
    for skill in SKILLS:
        begun = state(skill)
        begun.time[:] = 0.0
        assert not FAMILY.success(begun)[0]


# ---- observation and body


def test_observation_is_the_bipeds_and_a_clock() -> None:
    for phase, sine, cosine in ((0.0, 0, 1), (0.25, 1, 0), (0.5, 0, -1), (1.75, -1, 0)):
        made = state("run", left=0.1)
        made.time[:] = phase * STRIDE  # of what is observed now, not of the step that has ended
        row = dict(zip(FAMILY.observation_names, FAMILY.observe(made)[0], strict=True))
        assert (row["stride_sin"], row["stride_cos"]) == pytest.approx((sine, cosine), abs=1e-9)
        assert (row["left_foot_contact"], row["right_foot_contact"]) == (0.0, 1.0)
    assert FAMILY.observation_names[:20] == biped.OBSERVATION_NAMES


def test_every_skill_has_the_nominal_bipeds_body() -> None:
    ours, theirs = mtenvs.model("BipedSkills", "walk"), mtenvs.model("Biped", "nominal")
    fields = {f for f in differing_fields([ours, theirs]) if "sensor" not in f}
    # names, and how much memory they need, know of the two sensors more
    assert not {f for f in fields if f.startswith(("body_", "jnt_", "dof_", "geom_", "actuator_", "pair_"))}
    assert differing_fields([ours, theirs], "opt") == set()
    models = [mtenvs.model("BipedSkills", t) for t in ALL]
    assert differing_fields(models) <= {"key_qpos"}  # a pose for pictures
    assert all(np.array_equal(m.key("home").qpos, theirs.key("home").qpos) for m in models)


def test_constants_hold_whole_skills() -> None:
    for task in ALL:
        found = FAMILY.constants(task.parameters)
        assert {name: found[name] for name in task.parameters} == dict(task.parameters)


def test_worlds_of_different_skills_step_in_one_batch_as_alone() -> None:
    tasks = [*ALL, FAMILY.tasks[1], FAMILY.tasks[1]]
    env = gym.make_vec("mt/BipedSkills-v0", num_envs=len(tasks), tasks=tasks).unwrapped
    assert len(env._groups) == 1
    singles = [gym.make("mt/BipedSkills-v0", task=task) for task in tasks]
    seen = env.reset(seed=0)[0]
    alone = np.stack([single.reset(seed=i)[0] for i, single in enumerate(singles)])
    np.testing.assert_array_equal(seen, alone)
    rng = np.random.default_rng(0)
    running = np.ones(len(tasks), bool)
    for _ in range(60):
        action = 0.5 * rng.uniform(-1, 1, env.action_space.shape)
        seen, rewards, terminations, _, info = env.step(action)
        for i in np.flatnonzero(running):
            observation, reward, terminated, _, own = singles[i].step(action[i])
            last = info["final_info"] if terminations[i] else info
            assert (reward, terminated) == (rewards[i], terminations[i])
            assert {k: last[k][i] for k in own} == own
            if not terminated:
                np.testing.assert_array_equal(observation, seen[i])
        running &= ~terminations
    assert not running.all()


def test_doing_nothing_topples() -> None:
    """A body that nobody holds falls before it has earned a tenth, and stands no longer where it should."""
    n = 8 * len(FAMILY.tasks)
    env = gym.make_vec("mt/BipedSkills-v0", num_envs=n, autoreset_mode="NextStep")
    env.reset(seed=0)
    returns, alive = np.zeros(n), np.ones(n, bool)
    for _ in range(FAMILY.episode_steps):
        _, rewards, terminations, truncations, info = env.step(np.zeros((n, 6)))
        returns += rewards * alive
        assert not (info["success"] & terminations).any()
        alive &= ~(terminations | truncations)
        if not alive.any():
            break
    assert not alive.any()
    assert (returns / FAMILY.episode_steps < 0.1).all()


def test_what_this_file_knows_by_heart() -> None:
    assert pytest.approx(LEG) == biped_skills.LEG
    assert biped_skills.STRIDE == STRIDE
    assert (biped_skills.GAIT_WEIGHT, biped_skills.SPEED_WEIGHT) == (GAIT, SPEED)
    assert biped_skills.SUCCESS_FEET == SUCCESS
    assert FAMILY.frame_skip * mtenvs.model(FAMILY, 0).opt.timestep == pytest.approx(STEP)
