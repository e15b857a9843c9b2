"""State: what observations and rewards may read, by name, for many worlds at once.

The arrays are MuJoCo's own (``qpos``, ``qvel``, ``ctrl``, ``sensordata``) with a leading world
axis, of whatever array library the backend uses. They are *fresh*: sensors belong to the same
instant as ``qpos`` (DESIGN, decision 3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import mujoco

Array = Any
LARGEST = 1e10
"""MuJoCo's mjMAXVAL: what is larger is called bad, as what is not a number is."""
FASTEST = 1e3
"""rad/s or m/s: a joint that is faster has come apart from what the time step can follow.

Violent actions take the bodies of all families to 114 (``results/reliability.md``), but for bipeds of
almost the lightest legs and the strongest motors: theirs are pumped up to millions, and MuJoCo does not
call that bad.
"""
_SCALAR_JOINTS = (mujoco.mjtJoint.mjJNT_SLIDE, mujoco.mjtJoint.mjJNT_HINGE)


@dataclasses.dataclass(frozen=True)
class Layout:
    """Where named things lie in the arrays: one for all models of a topology."""

    sensors: Mapping[str, slice]
    """Sensor name to its columns of ``sensordata``."""
    qpos: Mapping[str, int]
    """Name of a slide or hinge joint to its column of ``qpos``."""
    qvel: Mapping[str, int]
    """Name of a slide or hinge joint to its column of ``qvel``."""

    @classmethod
    def of(cls, model: mujoco.MjModel) -> Layout:
        """Reads the layout from a compiled model."""
        sensors, qpos, qvel = {}, {}, {}
        for i in range(model.nsensor):
            if mujoco.mjtStage(model.sensor_needstage[i]) == mujoco.mjtStage.mjSTAGE_ACC:
                raise ValueError(
                    f"sensor {model.sensor(i).name!r} belongs to the acceleration stage, which is stale "
                    "after a refresh and zero in MuJoCo Warp: use one of the position or velocity stage"
                )
            adr, dim = int(model.sensor_adr[i]), int(model.sensor_dim[i])
            sensors[model.sensor(i).name] = slice(adr, adr + dim)
        for j in range(model.njnt):
            if mujoco.mjtJoint(model.jnt_type[j]) in _SCALAR_JOINTS:
                qpos[model.joint(j).name] = int(model.jnt_qposadr[j])
                qvel[model.joint(j).name] = int(model.jnt_dofadr[j])
        return cls(sensors, qpos, qvel)


@dataclasses.dataclass(frozen=True)
class State:
    """The physics of ``num_envs`` worlds of one topology at one instant."""

    layout: Layout
    """Where named things lie."""
    time: Array
    """Simulated seconds since the episode began, ``(num_envs,)``."""
    qpos: Array
    """Generalised positions, ``(num_envs, nq)``."""
    qvel: Array
    """Generalised velocities, ``(num_envs, nv)``."""
    ctrl: Array
    """Controls of the last step, ``(num_envs, nu)``."""
    sensordata: Array
    """All sensors, ``(num_envs, nsensordata)``."""
    constants: Mapping[str, Array]
    """Per-task numbers by name, each ``(num_envs,)``."""
    totals: Mapping[str, Array]
    """Sum of every reward term since the episode began, each ``(num_envs,)``."""

    def rows(self, worlds: Array) -> State:
        """Returns a copy of the state of some worlds, by their indices ``(n,)``."""
        return State(
            self.layout,
            self.time[worlds],
            self.qpos[worlds],
            self.qvel[worlds],
            self.ctrl[worlds],
            self.sensordata[worlds],
            {name: value[worlds] for name, value in self.constants.items()},
            {name: value[worlds] for name, value in self.totals.items()},
        )

    def sensor(self, name: str) -> Array:
        """Returns a sensor's values, ``(num_envs, dim)``."""
        return self.sensordata[:, self.layout.sensors[name]]

    def position(self, joint: str) -> Array:
        """Returns a slide's or hinge's position in m or rad, ``(num_envs,)``."""
        return self.qpos[:, self.layout.qpos[joint]]

    def velocity(self, joint: str) -> Array:
        """Returns a slide's or hinge's velocity in m/s or rad/s, ``(num_envs,)``."""
        return self.qvel[:, self.layout.qvel[joint]]

    def constant(self, name: str) -> Array:
        """Returns a number that depends on the task alone, ``(num_envs,)``."""
        return self.constants[name]

    def total(self, term: str) -> Array:
        """Returns the sum of a reward term since the episode began, this step included, ``(num_envs,)``."""
        return self.totals[term]


def bad_numbers(observation: Array, terms: Mapping[str, Array]) -> Array:
    """Worlds of which a family's functions have computed a bad number, whatever the physics is like.

    Args:
        observation: the bodies' own, ``(num_envs, entries)``.
        terms: of the reward, each ``(num_envs,)``.

    Returns:
        ``(num_envs,)`` of bool.
    """
    # what is not a number is not less than anything
    good = (abs(observation) < LARGEST).all(1)
    for term in terms.values():
        good = good & (abs(term) < LARGEST)
    return ~good
