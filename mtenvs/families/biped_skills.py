"""BipedSkills: one body, the nominal biped, asked to stand, walk, run, jump, and so on.

State and actions: as Biped's. A skill is a goal: a speed, a height of the hip, and when each foot is to
be in the air. For the latter a stride clock runs, of 0.8 s, which the observation shows: the left foot
is to swing in the last `swing` of every stride, the right foot `offset` of a stride apart. Legs half a
stride apart walk (swing under a half) or run (over it: then both feet are in the air in between); legs in
step hop. A jump so asked for flies for T = swing * 0.8 s, which is an apex of g T^2 / 8 above take-off.
Rewards by such a clock are in the manner of Siekmann et al. 2021 (ICRA, arXiv:2011.01387).

Reward per control step, its mean over a stride at most 1:
    form  = upright * tolerance(hip above the lower foot, h* -+ 0.06 of the leg, margin 0.25)
    lift  = of each foot off the ground, min(1, height of its ankle / clearance); 0 of one that touches
    right = where one foot should swing: its lift, if the other stands on the ground;
            where both should: their mean lift to the power of 4, so that one is a sixteenth of a jump
    wrong = where one foot should swing: the lift of the other, if it stands itself
            Both are over the share of the stride where some foot should swing.
            A skill without swing: right is 1 with both feet on the ground, wrong is 0.
    fast(v) = tolerance(v, v* -+ (0.1 m/s + 0.1 |v*|))
    gait  = 0.15 * form * right
    speed = 0.85 * form * (right * fast(v) - wrong * fast(0))
    effort = -0.05 * mean(ctrl^2)
Standing still on both legs so earns nothing, and on one, over a stride, under 0.1: but where
standing is the skill. Falling ends the episode.
Success: not fallen, mean speed within 0.15 m/s + 15% of v*, and form * right over 0.6 on average.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import mujoco
import numpy as np

from mtenvs import blocks
from mtenvs.families import biped
from mtenvs.rewards import namespace, tolerance
from mtenvs.spec import Array, Family, Parameter
from mtenvs.state import State

CONTROL_STEP = biped.TIMESTEP * biped.FRAME_SKIP  # s
STRIDE = 0.8  # s, a whole number of control steps; people walk and run at 0.9 to 1.5 strides a second
GAIT_WEIGHT, SPEED_WEIGHT = 0.15, 0.85
EFFORT_WEIGHT = 0.05
SPEED_BAND, RELATIVE_SPEED_BAND = 0.1, 0.1  # m/s, and share of the target
LEAST_SPEED_MARGIN = 0.75  # m/s beyond the band; at a target of more, what remains down to standing
CLEARANCE = 0.05  # m; people's toes clear less, but a step should be seen
FULL_SWING = 0.25  # of a stride: shorter swings need to clear as much less
HEIGHT_BAND, HEIGHT_MARGIN = 0.06, 0.25  # share of the leg's length
SUCCESS_SPEED, RELATIVE_SUCCESS_SPEED = 0.15, 0.15  # m/s, and share of the target
SUCCESS_FEET = 0.6  # holding one foot up is right for half of the time where both are to step
FALLEN_HEIGHT = 0.4  # hip height over leg length: below every height that can be asked for

PARAMETERS = (
    Parameter("speed", "m/s", -1.5, 3.5, 0.0, "backward walk to a run; Froude numbers up to 1.3"),
    Parameter("height", "1", 0.6, 1.0, 1.0, "hip height over leg length; less is a squat"),
    Parameter("swing", "1", 0.0, 0.6, 0.0, "of a stride, each foot in the air; more is acrobatics"),
    Parameter("offset", "1", 0.0, 0.5, 0.0, "of a stride, from the left foot to the right: all there is"),
)

PUBLISHED: dict[str, dict[str, float]] = {
    "stand": {},
    "walk": {"speed": 1.4, "height": 0.95, "swing": 0.4, "offset": 0.5},
    "run": {"speed": 2.8, "height": 0.92, "swing": 0.58, "offset": 0.5},
    "back": {"speed": -1.0, "height": 0.95, "swing": 0.4, "offset": 0.5},
    "jump": {"swing": 0.5},
    "hop": {"speed": 1.2, "swing": 0.45},
    "crouch-walk": {"speed": 0.8, "height": 0.7, "swing": 0.35, "offset": 0.5},
    "step": {"swing": 0.35, "offset": 0.5},
}

WHY = {
    "stand": (
        "The low end of swing, far from every other: the one skill in which no foot is to leave the "
        "ground, which all others ask for."
    ),
    "walk": (
        "The middle of the list: legs half a stride apart, one foot always down; back and step differ "
        "from it mostly in speed, run in speed and swing."
    ),
    "run": (
        "The high end of speed and of swing: the only one of the stepping skills in which both feet "
        "are in the air in between."
    ),
    "back": (
        "The low end of speed, and the only one that goes backward; with step, its pair on the spot, "
        "the nearest pair of the list."
    ),
    "jump": (
        "Legs in step, on the spot: a pair with hop. What is hard is that one foot in the air earns "
        "next to nothing, so that there is little to learn from on the way to both."
    ),
    "hop": (
        "Legs in step like jump's, at nearly the speed of walk: the only skill that has both, so that "
        "either half can be known without the whole."
    ),
    "crouch-walk": (
        "The low end of height, far from every other: a slow walk in which the body is carried on "
        "bent knees all along."
    ),
    "step": "A walk on the spot: in speed between back and walk, and the nearest neighbour of both.",
}
DECIDED = """\
The list has pairs (jump and hop, back and step), two skills that are far (over 1.2) from every other
(stand, crouch-walk) and four beyond the box that the other seven span (run and back in speed,
crouch-walk in height, stand in swing).

The reward was changed several times while skills were drafted, by what single networks made of it from
scratch: until standing on one leg earned under a tenth, a run was learned, and a jump was found.
"""

BODY = {q.name: q.nominal for q in biped.PARAMETERS}
LEG = biped.leg_length(BODY)  # m


def build(p: Mapping[str, float]) -> mujoco.MjSpec:
    """The nominal biped, whatever the skill, with sensors of where its feet are."""
    spec = biped.build(BODY)
    for foot in biped.FEET:
        blocks.frame_sensor(spec, f"{foot}_position", mujoco.mjtSensor.mjSENS_FRAMEPOS, foot)
    spec.key("picture").qpos = _pictured(p)
    return spec


def _pictured(p: Mapping[str, float]) -> list[float]:
    """``qpos`` that shows what is asked for: height, a stride as long as the speed, feet off the ground."""
    # equal thigh and shin, each turned by `bend`, carry the hip at the height asked for
    bend = math.acos((p["height"] * LEG - biped.FOOT_RADIUS) / (LEG - biped.FOOT_RADIUS))
    apart, swing = 2.0 * p["offset"], min(2.0 * p["swing"], 1.0)
    bend += 0.5 * swing * (1.0 - apart)
    stride = 0.25 * p["speed"] * apart
    lean = -0.12 * p["speed"] * (1.0 - apart)  # legs in step push backward
    pose = {
        "left": (bend + lean + stride + 0.9 * swing * apart, -2.0 * bend - 1.3 * swing * apart),
        "right": (bend + lean - stride, -2.0 * bend - 0.2 * abs(stride)),
    }
    qpos = biped.standing(BODY, pose)
    qpos[1] += 0.5 * p["swing"] * (1.0 - apart)
    return qpos


def constants(p: Mapping[str, float]) -> dict[str, float]:
    """The goal, and what follows from it.

    ``scored``: share of a stride's control steps in which some foot should swing, 1 if in none;
    ``stepping``: whether in any; ``clearance`` in m; ``at_rest``: fast(0).
    """
    steps = round(STRIDE / CONTROL_STEP)
    phases = [(k + 0.5) / steps for k in range(steps)]
    due = sum(any((x + lag) % 1.0 >= 1.0 - p["swing"] for lag in (0.0, p["offset"])) for x in phases)
    at_rest = _fast(np.zeros(1), np.full(1, p["speed"]))
    return {
        **p,
        "scored": due / steps if due else 1.0,
        "stepping": float(due > 0),
        "clearance": CLEARANCE * max(min(p["swing"] / FULL_SWING, 1.0), 0.01),
        "at_rest": float(at_rest[0]),
    }


OBSERVATION_NAMES = (
    *biped.OBSERVATION_NAMES,
    *("stride_sin", "stride_cos"),  # of the clock: 0 at the start of a left swing's stride
)


def observe(state: State) -> Array:
    """The biped's observation and the clock, ``(num_envs, 22)``."""
    xp = namespace(state.qpos)
    phase = state.time * (2.0 * math.pi / STRIDE)
    clock = xp.stack([xp.sin(phase), xp.cos(phase)], axis=1)
    return xp.concat([biped.observe(state), clock], axis=1)


def _feet(state: State) -> tuple[Array, Array]:
    """``right`` and ``wrong`` as in the file's head, each ``(num_envs,)``."""
    xp = namespace(state.qpos)
    zero = xp.zeros_like(state.time)
    one = zero + 1.0
    ups: list[Array] = []
    lifts: list[Array] = []
    contacts: list[Array] = []
    for foot, lag in zip(biped.FEET, (zero, state.constant("offset")), strict=True):
        # amid the control step: at its end, rounding could put the time on either side of an edge
        strides = (state.time - 0.5 * CONTROL_STEP) / STRIDE + lag
        ups.append(strides - xp.floor(strides) >= 1.0 - state.constant("swing"))
        contacts.append(state.sensor(f"contact_{foot}")[:, 0] > 0)
        height = state.sensor(f"{foot}_position")[:, 2] - biped.FOOT_RADIUS
        lift = xp.minimum(xp.maximum(height / state.constant("clearance"), zero), one)
        lifts.append(xp.where(contacts[-1], zero, lift))
    mean = 0.5 * (lifts[0] + lifts[1])
    right, wrong = xp.where(ups[0] & ups[1], mean**4, zero), zero
    for due, other in ((0, 1), (1, 0)):
        alone = ups[due] & ~ups[other]
        right = right + xp.where(alone & contacts[other], lifts[due], zero)
        wrong = wrong + xp.where(alone & contacts[due], lifts[other], zero)
    still = xp.where(contacts[0] & contacts[1], one, zero)
    stepping, scored = state.constant("stepping") > 0, state.constant("scored")
    return xp.where(stepping, right / scored, still), xp.where(stepping, wrong / scored, zero)


def _form(state: State) -> Array:
    """Upright, with the hip as high above the lower foot as asked for, ``(num_envs,)`` in [0, 1]."""
    xp = namespace(state.qpos)
    feet = [state.sensor(f"{foot}_position")[:, 2] for foot in biped.FEET]
    hip = state.sensor("hip_position")[:, 2] - xp.minimum(*feet) + biped.FOOT_RADIUS
    target = state.constant("height")
    height = tolerance(hip / LEG, target - HEIGHT_BAND, target + HEIGHT_BAND, HEIGHT_MARGIN)
    upright = state.sensor("torso_up")[:, 2]
    return height * xp.maximum(upright, xp.zeros_like(upright))


def _fast(speed: Array, target: Array) -> Array:
    """``fast(v)`` as in the file's head, of speeds in m/s, ``(num_envs,)`` in [0, 1]."""
    xp = namespace(target)
    band = SPEED_BAND + RELATIVE_SPEED_BAND * xp.abs(target)
    # the margin reaches down to v = 0, so that staying put earns nothing of a fast target
    margin = xp.maximum(xp.abs(target) - band, xp.full_like(target, LEAST_SPEED_MARGIN))
    return tolerance(speed, target - band, target + band, margin, sigmoid="linear", value_at_margin=0.0)


def reward(state: State) -> dict[str, Array]:
    """Named terms whose sum is the reward, each ``(num_envs,)``."""
    xp = namespace(state.qpos)
    fast = _fast(state.sensor("com_velocity")[:, 0], state.constant("speed"))
    form, (right, wrong) = _form(state), _feet(state)
    return {
        "gait": GAIT_WEIGHT * form * right,
        "speed": SPEED_WEIGHT * form * (right * fast - wrong * state.constant("at_rest")),
        "effort": -EFFORT_WEIGHT * xp.mean(state.ctrl * state.ctrl, axis=1),
    }


def terminated(state: State) -> Array:
    """Fallen: hip too low or torso tilted beyond 60 degrees, ``(num_envs,)`` of bool."""
    low = state.sensor("hip_position")[:, 2] < FALLEN_HEIGHT * LEG
    return low | (state.sensor("torso_up")[:, 2] < biped.FALLEN_TILT)


def success(state: State) -> Array:
    """Not fallen, mean speed and feet as asked for, since the start, ``(num_envs,)`` of bool."""
    xp = namespace(state.qpos)
    target = state.constant("speed")
    allowed = SUCCESS_SPEED + RELATIVE_SUCCESS_SPEED * xp.abs(target)
    fast = xp.abs(state.position("root_x") - target * state.time) < allowed * state.time
    steps = state.time / CONTROL_STEP
    right = state.total("gait") > GAIT_WEIGHT * SUCCESS_FEET * steps
    return fast & right & ~terminated(state)


FAMILY = Family(
    name="BipedSkills",
    summary="one biped, asked to stand, walk, run, walk backward, jump, hop, crouch-walk, step in place",
    parameters=PARAMETERS,
    published=PUBLISHED,
    why=WHY,
    decided=DECIDED,
    build=build,
    constants=constants,
    observation_names=OBSERVATION_NAMES,
    action_names=biped.JOINTS,
    observe=observe,
    reward_terms=("gait", "speed", "effort"),
    reward=reward,
    terminated=terminated,
    success=success,
    start=biped.start,
    start_draws=biped.FAMILY.start_draws,
    frame_skip=biped.FRAME_SKIP,
    episode_steps=biped.EPISODE_STEPS,
)
