"""Octopus: arms of N links in still water, of equal length, asked to bring the tip to a target.

State: N hinges, all about the same axis, so that the arm bends in a plane; and the target, two
slides that nothing moves (as in Gymnasium's Reacher). Actions: N motors in [-1, 1] of a joint's
muscle. Gravity is off, as for a body that floats.

Reward per control step, at most 1:
    approach = 0.5 * tolerance(d), falling linearly to 0 at 2.05 m     d the tip's distance, m;
    reach    = 0.5 * tolerance(d), falling linearly to 0 at 0.25 m     both are whole under 0.05 m
    effort   = -0.05 * mean(ctrl^2)
Success: d < 0.05 m. Nothing ends an episode early.

The length is fixed, and with it the muscle's bending moment M(s), the tissue's stiffness EI(s) and
the largest curvature at every place s of the arm; a joint stands for the arm's piece of length L/N.
So more links mean finer control, not a longer reach or a stronger arm (the limits are MuJoCo's soft
ones: thrown against them, an arm may for a moment bend further). Octopus arms bend by muscle
without a skeleton (Sumbre et al. 2001, Science 293); the task of steering a segmented model of one
to a target is that of Yekutieli et al. 2005, J. Neurophysiol. 94, and of Engel et al. 2005 (NIPS).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import mujoco

from mtenvs import blocks
from mtenvs.rewards import namespace, tolerance
from mtenvs.spec import Array, Family, Names, Parameter
from mtenvs.state import State

LENGTH = 1.0  # m, of every arm
BASE_RADIUS = 0.05  # m
DENSITY = 1050.0  # kg/m^3, soft tissue
BASE_HEIGHT = 1.3  # m above the sea floor, so that no posture touches it
LARGEST_BEND = math.radians(270)  # of the whole arm, shared equally by its joints
MUSCLE = 6.0  # N m at the base, at control 1
SAFE_BEND = 0.9  # targets are tips of arms bent by at most this share of the largest bend
LEAST_BEND = 0.45  # of SAFE_BEND: the least bend of one half of a target's posture
SUCCESS_RADIUS = 0.05  # m
APPROACH_MARGIN = 2.0  # m, beyond the radius, twice the length: points the way from everywhere
REACH_MARGIN = 0.2  # m, likewise: makes the last centimetres worth while
EFFORT_WEIGHT = 0.05  # small beside reaching
MOST_LINKS, FEWEST_LINKS = 9, 2

# 6 s at 25 Hz: a sweep across the reach takes about 2 s
TIMESTEP = 0.01  # s
FRAME_SKIP = 4
EPISODE_STEPS = 150
ARMATURE = 1e-3  # kg m^2
DAMPING = 0.004  # s/rad of the whole arm: tissue's damping moment over the muscle's
START_BEND = 0.15  # half width of the uniform noise on joints, share of their range
START_SPEED = 0.1  # rad/s, likewise
SOLVER_ITERATIONS = 8
SEA_RGB = {
    "sky": ((0.50, 0.72, 0.80), (0.80, 0.92, 0.95)),
    "grid": ((0.78, 0.73, 0.60), (0.84, 0.79, 0.67)),  # sand
}
ROCK_RGBA, TIP_RGBA, TARGET_RGBA = (0.45, 0.42, 0.40, 1), (0.20, 0.20, 0.25, 1), (0.90, 0.30, 0.25, 0.6)

PARAMETERS = (
    Parameter("links", "1", FEWEST_LINKS, MOST_LINKS, 5, "from one elbow to nearly smooth", integer=True),
    Parameter("taper", "1", 0.3, 1.0, 0.6, "radius at the tip over radius at the base"),
    Parameter(
        "stiffness", "1", 0.1, 0.8, 0.35, "elastic moment at the largest bend over the muscle's", log=True
    ),
    Parameter("water_density", "kg/m^3", 250.0, 4000.0, 1000.0, "four times water either way", log=True),
)

PUBLISHED: dict[str, dict[str, float]] = {
    "two-links": {"links": 2, "taper": 0.8},
    "three-links": {"links": 3, "stiffness": 0.2},
    "four-links": {"links": 4, "water_density": 400.0},
    "five-links": {},
    "six-links": {"links": 6, "taper": 0.4, "stiffness": 0.6},
    "seven-links": {"links": 7, "water_density": 2500.0},
    "eight-links": {"links": 8, "taper": 0.95, "stiffness": 0.5},
    "nine-links": {"links": 9, "taper": 0.5, "water_density": 600.0},
}

WHY = {
    "two-links": (
        "The low end of links: as many joints as a target has coordinates, and seven of nine slots of "
        "the padding empty."
    ),
    "three-links": (
        "The softest arm, of few links: tissue gives way to the muscle, and is little of a spring for "
        "the tip to come to rest by."
    ),
    "four-links": (
        "The thinnest water, whose drag damps least; otherwise nearly five-links, with which it is "
        "the nearest pair of the list."
    ),
    "five-links": (
        "The middle of the list, nominal in everything: the nearest neighbour of four others, which "
        "change one or two things each."
    ),
    "six-links": (
        "The stiffest tissue, which holds against most of a muscle at the largest bend, and the "
        "thinnest tip, whose joints have the weakest muscles."
    ),
    "seven-links": (
        "The thickest water, otherwise nominal but for two more links: sweeps are slow and damped, "
        "the opposite of four-links."
    ),
    "eight-links": (
        "The least taper, nearly a cylinder, whose tip is nearly as strong as its base, and as heavy; "
        "the arm farthest from its nearest neighbour."
    ),
    "nine-links": (
        "The high end of links, the one without padding; with two-links the farthest pair of the list."
    ),
}
DECIDED = """\
One arm of every number of links, each 0.7 to 1.3 from its nearest neighbour; all but five-links lie
beyond the box that the other seven span, in links, taper, stiffness or density of the water.

The default layout of unequal arms was settled by a pilot on *sampled* arms, which measured transfer and
saw no difference between the two.
"""

# The first is the default. A pilot on sampled arms shows no difference that its folds could tell from 0:
# results/benchmarks/README.md, "Layouts of the octopus' arms".
LAYOUTS = ("index", "arc")


def slots(links: int, layout: str) -> tuple[int, ...]:
    """The slot of each joint, base first: its own number, or its place along the arm in ninths."""
    return tuple(i if layout == "index" else i * MOST_LINKS // links for i in range(links))


def radius(p: Mapping[str, float], place: float) -> float:
    """Radius in m at a place of the arm, 0 the base and 1 the tip."""
    return BASE_RADIUS * (1.0 - (1.0 - p["taper"]) * place)


def build(p: Mapping[str, float]) -> mujoco.MjSpec:
    """Parameters to the arm, straight up on its rock, and its target."""
    spec = blocks.scene(TIMESTEP, mujoco.mjtIntegrator.mjINT_IMPLICITFAST, SOLVER_ITERATIONS)
    spec.modelname = "octopus"
    spec.option.gravity = [0, 0, 0]
    spec.option.density = p["water_density"]
    for name, colours in SEA_RGB.items():
        spec.texture(name).rgb1, spec.texture(name).rgb2 = colours
    links = int(p["links"])
    rock = spec.worldbody.add_body(name="rock", pos=[0, 0, BASE_HEIGHT])
    rock.add_camera(name="side", pos=[0, -3.2, 0.1], xyaxes=[1, 0, 0, 0, 0.05, 1])
    blocks.marker(rock, "rock", 1.8 * BASE_RADIUS, ROCK_RGBA)
    parent, offset = rock, 0.0
    for i in range(links):
        link = parent.add_body(name=f"link_{i}", pos=[0, 0, offset])
        _joint(spec, link, p, i)
        _flesh(link, p, i)
        parent, offset = link, LENGTH / links
    tip = parent.add_body(name="tip", pos=[0, 0, offset])
    blocks.marker(tip, "tip", 1.2 * radius(p, 1.0), TIP_RGBA)
    target = spec.worldbody.add_body(name="target", pos=[0, 0, BASE_HEIGHT])
    for axis, direction in (("x", [1, 0, 0]), ("z", [0, 0, 1])):
        target.add_joint(name=f"target_{axis}", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=direction)
    blocks.marker(target, "target", SUCCESS_RADIUS, TARGET_RGBA, density=DENSITY)
    blocks.frame_sensor(spec, "tip_position", mujoco.mjtSensor.mjSENS_FRAMEPOS, "tip", "rock")
    blocks.frame_sensor(spec, "tip_up", mujoco.mjtSensor.mjSENS_FRAMEZAXIS, "tip")
    blocks.frame_sensor(spec, "tip_velocity", mujoco.mjtSensor.mjSENS_FRAMELINVEL, "tip")
    spec.add_key(name="home", qpos=[0.0] * links + [0.55, 0.45])
    spec.add_key(name="picture", qpos=[-0.3 * LARGEST_BEND / links] * links + [0.85, 0.1])
    return spec


def _joint(spec: mujoco.MjSpec, link: mujoco.MjsBody, p: Mapping[str, float], i: int) -> None:
    """The hinge at the base of link ``i``, its tissue and its muscle."""
    links = int(p["links"])
    bend = LARGEST_BEND / links
    # muscle pulls with its area, r^2, on a lever of r; taken amid the piece that the joint stands for
    moment = MUSCLE * (radius(p, (i + 0.5) / links) / BASE_RADIUS) ** 3
    blocks.hinge(link, f"bend_{i}", (-bend, bend), ARMATURE, DAMPING * moment * links)
    link.joints[0].stiffness = [p["stiffness"] * moment / bend, 0, 0]
    blocks.motor(spec, f"bend_{i}", moment)


def _flesh(link: mujoco.MjsBody, p: Mapping[str, float], i: int) -> None:
    """Link ``i``: a cylinder that has mass and drag, and the capsule that one sees."""
    links = int(p["links"])
    length, middle = LENGTH / links, radius(p, (i + 0.5) / links)
    # rounded ends would overlap, so that arms of more links would weigh and drag more
    link.add_geom(
        name=f"flesh_{i}",
        type=mujoco.mjtGeom.mjGEOM_CYLINDER,
        fromto=[0, 0, 0, 0, 0, length],
        size=[middle, 0, 0],
        density=DENSITY,
        contype=0,
        conaffinity=0,
        group=3,
    )
    tinted = any(p[q.name] != q.nominal for q in PARAMETERS if q.name in ("taper", "stiffness"))
    blocks.limb(link, f"skin_{i}", (0, 0, 0), (0, 0, length), middle, 0.0, tinted)


def constants(p: Mapping[str, float]) -> dict[str, float]:
    """None: what an arm is asked is the same for all."""
    return {}


def names(p: Mapping[str, float], layout: str) -> Names:
    """Of the entries of an arm's own observation and action, in a layout."""
    own = slots(int(p["links"]), layout)
    return observation_names(own), tuple(f"bend_{slot}" for slot in own)


def observation_names(joints: Sequence[int]) -> tuple[str, ...]:
    """Names of an observation of joints in these slots; positions are from the arm's base."""
    return (
        *("target_x", "target_z"),  # m
        *("tip_to_target_x", "tip_to_target_z"),  # m
        *("tip_up_x", "tip_up_z"),  # direction of the last link
        *("tip_velocity_x", "tip_velocity_z"),  # m/s
        *(f"curvature_{slot}" for slot in joints),  # rad/m: a joint's angle over its piece of the arm
        *(f"curvature_rate_{slot}" for slot in joints),  # rad/(m s)
    )


def observe(state: State) -> Array:
    """The arm's own observation in the order of ``observation_names``, ``(num_envs, 8 + 2 N)``."""
    xp = namespace(state.qpos)
    links = state.ctrl.shape[1]
    per_metre = links / LENGTH
    return xp.concat(
        [
            state.qpos[:, links:],
            _to_target(state),
            state.sensor("tip_up")[:, ::2],
            state.sensor("tip_velocity")[:, ::2],
            state.qpos[:, :links] * per_metre,
            state.qvel[:, :links] * per_metre,
        ],
        axis=1,
    )


def _to_target(state: State) -> Array:
    """From tip to target, x and z in m, ``(num_envs, 2)``."""
    return state.qpos[:, state.ctrl.shape[1] :] - state.sensor("tip_position")[:, ::2]


def _distance(state: State) -> Array:
    """From tip to target in m, ``(num_envs,)``."""
    offset = _to_target(state)
    return namespace(offset).sqrt(offset[:, 0] * offset[:, 0] + offset[:, 1] * offset[:, 1])


def reward(state: State) -> dict[str, Array]:
    """Named terms whose sum is the reward, each ``(num_envs,)``."""
    xp = namespace(state.qpos)
    approach, reach = (
        tolerance(_distance(state), 0.0, SUCCESS_RADIUS, margin, sigmoid="linear", value_at_margin=0.0)
        for margin in (APPROACH_MARGIN, REACH_MARGIN)
    )
    return {
        "approach": 0.5 * approach,
        "reach": 0.5 * reach,
        "effort": -EFFORT_WEIGHT * xp.mean(state.ctrl * state.ctrl, axis=1),
    }


def terminated(state: State) -> Array:
    """Never, ``(num_envs,)`` of bool."""
    xp = namespace(state.qpos)
    return xp.zeros_like(state.qpos[:, 0], dtype=xp.bool)


def success(state: State) -> Array:
    """The tip is within 5 cm of the target, ``(num_envs,)`` of bool."""
    return _distance(state) < SUCCESS_RADIUS


def start(home: Array, draws: Array) -> tuple[Array, Array]:
    """Nearly straight; the target is where the tip would be in a random posture of this arm."""
    xp = namespace(home)
    links = home.shape[1] - 2
    centred = 2.0 * draws - 1.0
    noise, speed = centred[:, :links], centred[:, MOST_LINKS : MOST_LINKS + links]
    halves = centred[:, 2 * MOST_LINKS :]
    # both halves of the arm are bent, by no less than a share of what is safe, and evenly
    strength = LEAST_BEND + (1.0 - LEAST_BEND) * xp.abs(halves)
    bends = SAFE_BEND * xp.sign(halves) * strength
    largest = LARGEST_BEND / links
    angle = xp.zeros_like(draws[:, 0])
    x, z = xp.zeros_like(angle), xp.zeros_like(angle)
    for i in range(links):
        first = min(max(links / 2 - i, 0.0), 1.0)  # share of the joint's piece in the arm's first half
        angle = angle + largest * (first * bends[:, 0] + (1.0 - first) * bends[:, 1])
        # a hinge about -y turns what points up, by a positive angle, towards -x
        x = x - LENGTH / links * xp.sin(angle)
        z = z + LENGTH / links * xp.cos(angle)
    qpos = xp.concat([START_BEND * largest * noise, xp.stack([x, z], axis=1)], axis=1)
    qvel = xp.concat([START_SPEED * speed, xp.zeros_like(home[:, :2])], axis=1)
    return qpos, qvel


FAMILY = Family(
    name="Octopus",
    summary="arms of 2 to 9 links in water, asked to bring the tip to a target",
    parameters=PARAMETERS,
    published=PUBLISHED,
    why=WHY,
    decided=DECIDED,
    build=build,
    constants=constants,
    observation_names=observation_names(range(MOST_LINKS)),
    action_names=tuple(f"bend_{slot}" for slot in range(MOST_LINKS)),
    names=names,
    layouts=LAYOUTS,
    topologies=tuple({"links": n} for n in range(FEWEST_LINKS, MOST_LINKS + 1)),
    observe=observe,
    reward_terms=("approach", "reach", "effort"),
    reward=reward,
    terminated=terminated,
    success=success,
    start=start,
    start_draws=2 * MOST_LINKS + 2,
    frame_skip=FRAME_SKIP,
    episode_steps=EPISODE_STEPS,
)
