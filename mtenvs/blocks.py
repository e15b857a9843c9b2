"""Building blocks over ``mujoco.MjSpec`` that the families share: scene, limb, motor, sensors.

Lengths in m, angles in rad, densities in kg/m^3, torques in N m. Bodies are planar: x forward,
z up, rotation about y.
"""

from __future__ import annotations

from collections.abc import Sequence

import mujoco

FLOOR = "floor"
HORIZON_RGBA = (0.96, 0.97, 0.98, 1.0)
"""Colour of the sky where it meets the floor, close to that of paper: most pictures end on some."""
PLAIN_RGBA = (0.93, 0.62, 0.32, 1.0)
"""Colour of a limb that is as nominal."""
TINTED_RGBA = (0.12, 0.56, 0.66, 1.0)
"""Colour of a limb that differs from nominal, so that one sees what a task changed."""


def scene(timestep: float, integrator: mujoco.mjtIntegrator, iterations: int) -> mujoco.MjSpec:
    """An empty world with floor, light and skybox, whose only contacts are explicit pairs.

    Args:
        timestep: physics step in s.
        integrator: MuJoCo's integrator.
        iterations: at most so many Newton iterations of the constraint solver.
    """
    spec = mujoco.MjSpec()
    spec.compiler.degree = False
    spec.option.timestep = timestep
    spec.option.integrator = integrator
    spec.option.solver = mujoco.mjtSolver.mjSOL_NEWTON
    spec.option.iterations = iterations
    spec.visual.global_.offwidth, spec.visual.global_.offheight = 1280, 960
    spec.stat.extent = 4.0  # m; fixes the scale of shadows, which an infinite floor would blur
    spec.stat.center = [0, 0, 1]
    spec.visual.quality.shadowsize = 4096
    spec.visual.map.shadowclip = 2.0  # by extent; at 1 the floor near the camera shadows itself in dots
    spec.visual.headlight.ambient = [0.42, 0.42, 0.42]
    spec.visual.headlight.diffuse = [0.30, 0.30, 0.30]
    spec.visual.rgba.haze = HORIZON_RGBA
    spec.add_texture(
        name="sky",
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.66, 0.78, 0.90],
        rgb2=HORIZON_RGBA[:3],
        width=64,
        height=384,
    )
    spec.add_texture(
        name="grid",
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        rgb1=[0.82, 0.84, 0.86],
        rgb2=[0.90, 0.91, 0.92],
        width=256,
        height=256,
    )
    material = spec.add_material(name="grid", texrepeat=[1, 1], texuniform=True, reflectance=0.0)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "grid"
    # an infinite plane, so that nobody walks off its edge; drawn 60 m long
    spec.worldbody.add_geom(
        name=FLOOR,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[0, 0, 1],
        material="grid",
        contype=0,
        conaffinity=0,
    )
    spec.worldbody.add_light(
        name="sun",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[0, -2, 6],
        dir=[0.3, 0.5, -1.0],
        diffuse=[0.55, 0.55, 0.55],
    )
    return spec


def planar_root(body: mujoco.MjsBody) -> None:
    """Lets a body move in the x-z plane: joints ``root_x``, ``root_z`` (m) and ``root_pitch`` (rad)."""
    for name, kind, axis in (
        ("root_x", mujoco.mjtJoint.mjJNT_SLIDE, [1, 0, 0]),
        ("root_z", mujoco.mjtJoint.mjJNT_SLIDE, [0, 0, 1]),
        ("root_pitch", mujoco.mjtJoint.mjJNT_HINGE, [0, 1, 0]),
    ):
        body.add_joint(name=name, type=kind, axis=axis, armature=0.0, damping=0.0)


def limb(
    body: mujoco.MjsBody,
    name: str,
    start: Sequence[float],
    end: Sequence[float],
    radius: float,
    density: float,
    tinted: bool,
) -> None:
    """Adds a capsule from ``start`` to ``end`` (m, in the body's frame) that collides only in pairs."""
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_CAPSULE,
        fromto=[*start, *end],
        size=[radius, 0, 0],
        density=density,
        contype=0,
        conaffinity=0,
        rgba=TINTED_RGBA if tinted else PLAIN_RGBA,
    )


def marker(
    body: mujoco.MjsBody, name: str, radius: float, rgba: Sequence[float], density: float = 0.0
) -> None:
    """Adds a sphere at a body's origin that one sees and that touches nothing."""
    body.add_geom(
        name=name,
        type=mujoco.mjtGeom.mjGEOM_SPHERE,
        size=[radius, 0, 0],
        density=density,
        contype=0,
        conaffinity=0,
        rgba=rgba,
    )


def hinge(
    body: mujoco.MjsBody,
    name: str,
    limits: tuple[float, float],
    armature: float,
    damping: float,
) -> None:
    """Adds a hinge about -y, so that a positive angle swings a hanging limb forward.

    Args:
        body: the body that turns.
        name: name of the joint.
        limits: smallest and largest angle in rad.
        armature: rotor inertia in kg m^2.
        damping: in N m s/rad.
    """
    body.add_joint(
        name=name,
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, -1, 0],
        limited=mujoco.mjtLimited.mjLIMITED_TRUE,
        range=limits,
        armature=armature,
        damping=damping,
    )


def motor(spec: mujoco.MjSpec, joint: str, torque: float) -> None:
    """Adds a motor named as its joint, control in [-1, 1], ``torque`` N m at control 1."""
    actuator = spec.add_actuator(
        name=joint,
        target=joint,
        trntype=mujoco.mjtTrn.mjTRN_JOINT,
        gear=[torque, 0, 0, 0, 0, 0],
        ctrllimited=mujoco.mjtLimited.mjLIMITED_TRUE,
        ctrlrange=[-1, 1],
    )
    actuator.set_to_motor()


def ground_contact(spec: mujoco.MjSpec, geom: str, friction: float) -> None:
    """Lets a geom collide with the floor, with sliding ``friction``, and senses how many contacts it has.

    The sensor is ``contact_<geom>``. It counts contact points (``found``), which belongs to the
    position stage; force and touch sensors belong to the acceleration stage (DESIGN, decision 2).
    """
    spec.add_pair(
        name=f"{geom}_{FLOOR}",
        geomname1=geom,
        geomname2=FLOOR,
        condim=3,
        friction=[friction, friction, 0.005, 0.0001, 0.0001],
    )
    spec.add_sensor(
        name=f"contact_{geom}",
        type=mujoco.mjtSensor.mjSENS_CONTACT,
        objtype=mujoco.mjtObj.mjOBJ_GEOM,
        objname=geom,
        reftype=mujoco.mjtObj.mjOBJ_GEOM,
        refname=FLOOR,
        intprm=[1, 0, 1],  # data = found, no reduction, one slot
    )


def frame_sensor(
    spec: mujoco.MjSpec, name: str, kind: mujoco.mjtSensor, body: str, reference: str | None = None
) -> None:
    """Adds a sensor of a body's own frame (BODY would be its inertial frame).

    Args:
        spec: the scene.
        name: of the sensor.
        kind: of the sensor.
        body: whose frame.
        reference: body in whose own frame it is given; ``None`` for the world's.
    """
    frame = mujoco.mjtObj.mjOBJ_XBODY
    sensor = spec.add_sensor(name=name, type=kind, objtype=frame, objname=body)
    if reference is not None:
        sensor.reftype, sensor.refname = frame, reference


def subtree_sensor(spec: mujoco.MjSpec, name: str, kind: mujoco.mjtSensor, body: str) -> None:
    """Adds a sensor of a body with all that hangs on it, in world coordinates."""
    spec.add_sensor(name=name, type=kind, objtype=mujoco.mjtObj.mjOBJ_BODY, objname=body)
