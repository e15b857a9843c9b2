"""Biped: planar two-legged bodies of other proportions, asked to walk at a comfortable speed.

State: a torso that slides along x and z and pitches about y, and two legs of thigh, shin and foot
(hip, knee, ankle): 9 degrees of freedom. Actions: six motors, in [-1, 1] of a body's torque.

Reward per control step, at most 1:
    speed  = upright * tolerance(v, 0.9 v*, 1.1 v*)   v the centre of mass's forward speed, m/s
    effort = -0.05 * mean(ctrl^2)
There is no bonus for being alive: standing still earns nothing. Falling ends the episode.
Success: not fallen, and the mean speed since the start is within 20% of the target v*.

The target is the same *gait* for every body, not the same speed: equal Froude numbers
v^2 / (g L) make small and tall walkers dynamically similar (Alexander 1989, Physiol. Rev. 69).
Proportions, ranges of motion and torques start from dm_control's planar walker (Tassa et al. 2018).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import mujoco

from mtenvs import blocks
from mtenvs.rewards import namespace, tolerance
from mtenvs.spec import Array, Family, Parameter
from mtenvs.state import State

GRAVITY = 9.81  # m/s^2
FROUDE = 0.25  # people choose to walk at about 0.25 and start to run at 0.5 (Alexander 1989)
SPEED_BAND = 0.1  # relative: full reward within 10% of the target, as a gait's speed oscillates
SUCCESS_BAND = 0.2  # relative, on the mean speed of the whole episode
EFFORT_WEIGHT = 0.05  # small beside the speed term: it breaks ties between gaits
FALLEN_TILT = math.cos(math.radians(60.0))  # torso's z axis against the vertical
FALLEN_HEIGHT = 0.6  # hip height over leg length: lower is a kneeling body

# 10 s at 50 Hz. Physics of 2 x 10 ms: benchmarks/physics_study.py has the alternatives.
TIMESTEP = 0.01  # s
FRAME_SKIP = 2
EPISODE_STEPS = 500
SOLVER_ITERATIONS = 8

TORSO_RADIUS, THIGH_RADIUS, SHIN_RADIUS, FOOT_RADIUS = 0.07, 0.05, 0.04, 0.05  # m
HEEL = 0.25  # share of the foot that lies behind the ankle
FRICTION = 0.9  # rubber on a gym floor
HIP_SPACING = 0.1  # m between the legs, for the eye only: the motion is planar
HIP_RANGE = (math.radians(-30), math.radians(100))
KNEE_RANGE = (math.radians(-150), 0.0)
ANKLE_RANGE = (math.radians(-45), math.radians(45))
HIP_TORQUE, KNEE_TORQUE, ANKLE_TORQUE = 100.0, 60.0, 30.0  # N m, of the nominal body
ARMATURE = 0.01  # kg m^2, the rotors
DAMPING = 0.5  # N m s/rad, passive tissue; also keeps 10 ms steps stable
START_ANGLE = 0.1  # rad, half width of the uniform noise on pitch and joints
START_SPEED = 0.1  # rad/s or m/s, likewise on all velocities

_LENGTH = "a person of 1.7 m, from under half to almost twice"
PARAMETERS = (
    Parameter("torso_length", "m", 0.25, 1.15, 0.6, _LENGTH),
    Parameter("thigh_length", "m", 0.18, 0.80, 0.45, _LENGTH),
    Parameter("shin_length", "m", 0.18, 0.80, 0.45, _LENGTH),
    Parameter("foot_length", "m", 0.10, 0.45, 0.22, "shorter is a stilt, longer a ski"),
    Parameter("torso_density", "kg/m^3", 250.0, 4000.0, 1000.0, "four times water either way", log=True),
    Parameter("leg_density", "kg/m^3", 250.0, 4000.0, 1000.0, "four times water either way", log=True),
    Parameter("leg_asymmetry", "1", -0.35, 0.35, 0.0, "(left - right) / mean leg; more is a crutch"),
    Parameter("motor_strength", "1", 0.4, 2.8, 1.0, "torque over nominal, as bodies weigh", log=True),
)

PUBLISHED: dict[str, dict[str, float]] = {
    "nominal": {},
    "short-torso": {"torso_length": 0.40, "foot_length": 0.18, "leg_density": 1300.0},
    "top-heavy": {"torso_density": 2500.0, "leg_asymmetry": -0.08, "motor_strength": 1.4},
    "long-shins": {"thigh_length": 0.32, "shin_length": 0.66, "foot_length": 0.28},
    "light-legs": {
        "torso_density": 600.0,
        "leg_density": 350.0,
        "leg_asymmetry": 0.10,
        "motor_strength": 0.6,
    },
    "child": {
        "torso_length": 0.30,
        "thigh_length": 0.20,
        "shin_length": 0.20,
        "foot_length": 0.12,
        "motor_strength": 0.45,
    },
    "giant": {
        "torso_length": 1.05,
        "thigh_length": 0.75,
        "shin_length": 0.75,
        "foot_length": 0.40,
        "torso_density": 800.0,
        "motor_strength": 2.5,
    },
    "limping": {
        "thigh_length": 0.50,
        "foot_length": 0.15,
        "leg_density": 2800.0,
        "leg_asymmetry": 0.30,
        "motor_strength": 1.7,
    },
}

WHY = {
    "nominal": (
        "The middle of the list, a person's proportions: every parameter's range is laid around it, "
        "and near and far are told from here."
    ),
    "short-torso": (
        "With nominal the nearest pair of the list: three parameters changed by little, for a body "
        "that is almost known."
    ),
    "top-heavy": (
        "The heaviest torso, carried by stronger motors: near nominal in distance, but with its mass "
        "higher above the hip; the only body whose right leg is the longer one."
    ),
    "long-shins": (
        "Thigh and shin share nearly the same leg in another proportion, so that equal heights ask "
        "for other angles of hip and knee; of middle distance."
    ),
    "light-legs": (
        "The low end of both densities, with weak motors: the opposite of top-heavy in the torso and "
        "of limping in the legs; of middle distance."
    ),
    "child": (
        "The low end of all four lengths and of strength, far from every other: legs under half of "
        "nominal's, whose comfortable gait is slower and its strides quicker."
    ),
    "giant": (
        "The high end of all four lengths and of strength: with child the farthest pair of the list, "
        "and the body farthest from its nearest neighbour."
    ),
    "limping": (
        "The high end of asymmetry, the left leg a third longer than the right, and of the legs' "
        "density, on short feet: far from every other, and no gait of two equal steps."
    ),
}
DECIDED = """\
The ranges go from under half to almost twice a person's lengths and by a factor of four either way in
densities. The list has two bodies near nominal (under 0.8: short-torso, top-heavy), two of middle distance
(long-shins, light-legs) and three that are far (over 1.2) from every other and beyond the box that the
other seven span in lengths or asymmetry (child, giant, limping), so that one answer need not hold for all.

**Disclosed:** the ranges and the far bodies are wider than in a first draft, in which a pretrained
network walked *sampled* bodies, none of them published, before it had trained on them. So the distance
of the far bodies was chosen after one look at transfer, though at none of a published task.
"""

SIDES = (("left", +1.0), ("right", -1.0))
JOINTS = tuple(f"{side}_{joint}" for side, _ in SIDES for joint in ("hip", "knee", "ankle"))
FEET = tuple(f"{side}_foot" for side, _ in SIDES)


def side_scale(p: Mapping[str, float], sign: float) -> float:
    """Factor on the thigh's and shin's length of the left (+1) or right (-1) leg."""
    return 1.0 + sign * p["leg_asymmetry"] / 2.0


def leg_length(p: Mapping[str, float], sign: float = 0.0) -> float:
    """Hip to sole in m, of one side (+1, -1) or of their mean (0)."""
    return side_scale(p, sign) * (p["thigh_length"] + p["shin_length"]) + FOOT_RADIUS


def build(p: Mapping[str, float]) -> mujoco.MjSpec:
    """Parameters to the body, standing upright on its longer leg."""
    spec = blocks.scene(TIMESTEP, mujoco.mjtIntegrator.mjINT_IMPLICITFAST, SOLVER_ITERATIONS)
    spec.modelname = "biped"
    changed = {q.name for q in PARAMETERS if p[q.name] != q.nominal}
    heavy, asymmetric = "leg_density" in changed, "leg_asymmetry" in changed

    hip_height = max(leg_length(p, sign) for _, sign in SIDES)
    torso = spec.worldbody.add_body(name="torso", pos=[0, 0, hip_height])
    torso.add_camera(
        name="side",
        mode=mujoco.mjtCamLight.mjCAMLIGHT_TRACKCOM,
        pos=[0.0, -4.0, 0.3],  # far enough for the tallest body, so that pictures share a scale
        xyaxes=[1, 0, 0, 0, 0.12, 1],
    )
    blocks.planar_root(torso)
    blocks.limb(
        torso,
        "torso",
        (0, 0, 0),
        (0, 0, p["torso_length"]),
        TORSO_RADIUS,
        p["torso_density"],
        bool(changed & {"torso_length", "torso_density"}),
    )
    for side, sign in SIDES:
        scale = side_scale(p, sign)
        thigh_end, shin_end = -scale * p["thigh_length"], -scale * p["shin_length"]
        thigh = torso.add_body(name=f"{side}_thigh", pos=[0, sign * HIP_SPACING / 2, 0])
        blocks.hinge(thigh, f"{side}_hip", HIP_RANGE, ARMATURE, DAMPING)
        blocks.limb(
            thigh,
            f"{side}_thigh",
            (0, 0, 0),
            (0, 0, thigh_end),
            THIGH_RADIUS,
            p["leg_density"],
            heavy or asymmetric or "thigh_length" in changed,
        )
        shin = thigh.add_body(name=f"{side}_shin", pos=[0, 0, thigh_end])
        blocks.hinge(shin, f"{side}_knee", KNEE_RANGE, ARMATURE, DAMPING)
        blocks.limb(
            shin,
            f"{side}_shin",
            (0, 0, 0),
            (0, 0, shin_end),
            SHIN_RADIUS,
            p["leg_density"],
            heavy or asymmetric or "shin_length" in changed,
        )
        foot = shin.add_body(name=f"{side}_foot", pos=[0, 0, shin_end])
        blocks.hinge(foot, f"{side}_ankle", ANKLE_RANGE, ARMATURE, DAMPING)
        blocks.limb(
            foot,
            f"{side}_foot",
            (-HEEL * p["foot_length"], 0, 0),
            ((1 - HEEL) * p["foot_length"], 0, 0),
            FOOT_RADIUS,
            p["leg_density"],
            heavy or "foot_length" in changed,
        )
    for side, _ in SIDES:
        for joint, torque in (("hip", HIP_TORQUE), ("knee", KNEE_TORQUE), ("ankle", ANKLE_TORQUE)):
            blocks.motor(spec, f"{side}_{joint}", torque * p["motor_strength"])
    blocks.frame_sensor(spec, "hip_position", mujoco.mjtSensor.mjSENS_FRAMEPOS, "torso")
    blocks.frame_sensor(spec, "torso_up", mujoco.mjtSensor.mjSENS_FRAMEZAXIS, "torso")
    blocks.subtree_sensor(spec, "com_velocity", mujoco.mjtSensor.mjSENS_SUBTREELINVEL, "torso")
    for foot in FEET:
        blocks.ground_contact(spec, foot, FRICTION)
    spec.add_key(name="home", qpos=[0.0] * (3 + len(JOINTS)))
    spec.add_key(name="picture", qpos=standing(p, STRIDE_POSE))
    return spec


STRIDE_POSE = {"left": (0.45, -0.25), "right": (-0.30, -0.20)}  # rad, hip and knee


def standing(p: Mapping[str, float], pose: Mapping[str, tuple[float, float]]) -> list[float]:
    """``qpos`` with these angles of hip and knee, level feet, the lower one on the ground.

    For pictures: at home one leg hides the other.
    """
    heights, joints = [], []
    for side, sign in SIDES:
        hip, knee = pose[side]
        leg = p["thigh_length"] * math.cos(hip) + p["shin_length"] * math.cos(hip + knee)
        heights.append(side_scale(p, sign) * leg + FOOT_RADIUS)
        joints += [hip, knee, -(hip + knee)]
    home = max(leg_length(p, sign) for _, sign in SIDES)
    return [0.0, max(heights) - home, 0.0, *joints]


def constants(p: Mapping[str, float]) -> dict[str, float]:
    """Target speed in m/s from Fr = v^2 / (g L), and the hip height in m below which a body has fallen."""
    length = leg_length(p)
    return {
        "target_speed": math.sqrt(FROUDE * GRAVITY * length),
        "fallen_height": FALLEN_HEIGHT * length,
    }


OBSERVATION_NAMES = (
    "hip_height",  # m
    "torso_up_x",  # sine of the pitch
    "torso_up_z",  # its cosine
    *JOINTS,  # rad
    "root_x_velocity",  # m/s
    "root_z_velocity",  # m/s
    "root_pitch_velocity",  # rad/s
    *(f"{joint}_velocity" for joint in JOINTS),  # rad/s
    *(f"{foot}_contact" for foot in FEET),  # 1 on the ground, else 0
)


def observe(state: State) -> Array:
    """Body observation in the order of ``OBSERVATION_NAMES``, ``(num_envs, 20)``; x itself is hidden."""
    xp = namespace(state.qpos)
    contacts = [state.sensor(f"contact_{foot}") for foot in FEET]
    return xp.concat(
        [
            state.sensor("hip_position")[:, 2:],
            state.sensor("torso_up")[:, ::2],
            state.qpos[:, 3:],
            state.qvel,
            *(xp.astype(contact > 0, state.qpos.dtype) for contact in contacts),
        ],
        axis=1,
    )


def reward(state: State) -> dict[str, Array]:
    """Named terms whose sum is the reward, each ``(num_envs,)``."""
    xp = namespace(state.qpos)
    target = state.constant("target_speed")
    band = SPEED_BAND * target
    # the margin reaches down to v = 0, so that standing still earns exactly nothing
    speed = tolerance(
        state.sensor("com_velocity")[:, 0],
        target - band,
        target + band,
        margin=target - band,
        sigmoid="linear",
        value_at_margin=0.0,
    )
    upright = state.sensor("torso_up")[:, 2]  # at most 1
    return {
        "speed": speed * xp.maximum(upright, xp.zeros_like(upright)),
        "effort": -EFFORT_WEIGHT * xp.mean(state.ctrl * state.ctrl, axis=1),
    }


def terminated(state: State) -> Array:
    """Fallen: hip too low or torso tilted beyond 60 degrees, ``(num_envs,)`` of bool."""
    low = state.sensor("hip_position")[:, 2] < state.constant("fallen_height")
    return low | (state.sensor("torso_up")[:, 2] < FALLEN_TILT)


def success(state: State) -> Array:
    """Mean speed since the start within 20% of the target and not fallen, ``(num_envs,)`` of bool."""
    goal = state.constant("target_speed") * state.time
    xp = namespace(state.qpos)
    close = xp.abs(state.position("root_x") - goal) < SUCCESS_BAND * goal
    return close & ~terminated(state)


def start(home: Array, draws: Array) -> tuple[Array, Array]:
    """Near home: pitch, joints and all velocities uniformly disturbed, at the ground."""
    xp = namespace(home)
    centred = 2.0 * draws - 1.0
    nq = home.shape[1]
    pose = xp.concat(
        [xp.zeros_like(home[:, :1]), xp.full_like(home[:, :1], 0.02), START_ANGLE * centred[:, : nq - 2]],
        axis=1,
    )
    return home + pose, START_SPEED * centred[:, nq - 2 :]


FAMILY = Family(
    name="Biped",
    summary="planar bipeds of other limb lengths, masses and strengths, asked to walk",
    parameters=PARAMETERS,
    published=PUBLISHED,
    why=WHY,
    decided=DECIDED,
    build=build,
    constants=constants,
    observation_names=OBSERVATION_NAMES,
    action_names=JOINTS,
    observe=observe,
    reward_terms=("speed", "effort"),
    reward=reward,
    terminated=terminated,
    success=success,
    start=start,
    start_draws=7 + 9,
    frame_skip=FRAME_SKIP,
    episode_steps=EPISODE_STEPS,
)
