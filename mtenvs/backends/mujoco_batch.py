"""The CPU backend: ``mujoco.batch`` steps all variants of a topology on all cores, without the GIL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import mujoco
import mujoco.batch
import numpy as np

from mtenvs.state import FASTEST, Layout, State

Array = Any

# MuJoCo answers a bad number in these by resetting the world in mid-call and going on
_DIVERGENCE = slice(int(mujoco.mjtWarning.mjWARN_BADQPOS), int(mujoco.mjtWarning.mjWARN_BADQACC) + 1)
_VELOCITY_STAGE = int(mujoco.mjtStage.mjSTAGE_VEL)
_NO_STAGE = int(mujoco.mjtStage.mjSTAGE_NONE)


def silence_log_file() -> None:
    """Keeps MuJoCo from writing MUJOCO_LOG.TXT into the user's directory; divergence is in ``info``."""
    config = mujoco.MjLogConfig.get()
    if config.logto_file:
        config.logto_file = False
        config.set()


def topology(model: mujoco.MjModel) -> tuple[int, ...]:
    """The sizes that models must share to be stepped in one batch."""
    sizes = ("nq", "nv", "na", "nu", "nbody", "njnt", "ngeom", "nsite", "npair", "neq", "ntendon")
    return tuple(int(getattr(model, size)) for size in (*sizes, "nsensor", "nsensordata", "nkey"))


def diverged(data: mujoco.MjData) -> bool:
    """Whether MuJoCo has met a bad number in this world since its last reset, or a joint is too fast."""
    bad = any(data.warning[i].number for i in range(_DIVERGENCE.start, _DIVERGENCE.stop))
    return bad or bool(abs(data.qvel).max(initial=0.0) > FASTEST)


class BatchBackend:
    """The worlds of one topology, each on its own model.

    Args:
        models: one model per world; worlds of one task may share one.
        constants: per-task numbers by name, each ``(num_worlds,)``.
        reward_terms: names of the terms whose sums the State holds; the caller adds to them.
        frame_skip: physics steps in one control step.
        num_threads: threads to step on; 0 for all processors. Results do not depend on it.
    """

    def __init__(
        self,
        models: Sequence[mujoco.MjModel],
        constants: Mapping[str, np.ndarray],
        reward_terms: Sequence[str],
        frame_skip: int,
        num_threads: int = 0,
    ) -> None:
        silence_log_file()
        self.models = list(models)
        self.home = np.stack([m.key_qpos[0] for m in self.models])
        self._frame_skip = frame_skip
        self._batch = batch = mujoco.batch.Batch(
            self.models[0], len(self.models), nthread=num_threads, persistent=True
        )
        batch.set_models(self.models)
        batch.reset(stage=_NO_STAGE)
        self._blank = batch.state[0].copy()  # at time 0, without controls, forces or warm start
        self._ctrl = batch.bind("ctrl")
        self._qpos, self._qvel = batch.bind("qpos"), batch.bind("qvel")
        self.state = State(
            layout=Layout.of(self.models[0]),
            time=batch.bind("time"),
            qpos=self._qpos,
            qvel=self._qvel,
            ctrl=self._ctrl,
            sensordata=batch.bind("sensordata"),
            constants=constants,
            totals={term: np.zeros(len(self.models)) for term in reward_terms},
        )

    def step(self, ctrl: Array, ids: Array | None = None) -> None:
        """Advances worlds by one control step and leaves the State fresh.

        Args:
            ctrl: controls, ``(num_worlds, nu)``.
            ids: sorted indices of the worlds to step; ``None`` for all.
        """
        if ids is None:
            self._ctrl[:] = ctrl
        else:
            self._ctrl[ids] = ctrl[ids]
        # sensors lag qpos by one step after mj_step; this stage refreshes them for nothing
        self._batch.step(ids, nstep=self._frame_skip, stage=_VELOCITY_STAGE)

    def reset(self, ids: Array, qpos: Array, qvel: Array) -> None:
        """Starts episodes in some worlds.

        Args:
            ids: sorted indices of the worlds, ``(n,)``.
            qpos: start positions, ``(n, nq)``.
            qvel: start velocities, ``(n, nv)``.
        """
        # the state row is all that a world's future depends on: writing it is cheaper than mj_resetData
        self._batch.state[ids] = self._blank
        self._batch.warning[ids] = 0
        for total in self.state.totals.values():
            total[ids] = 0.0
        self._qpos[ids] = qpos
        self._qvel[ids] = qvel
        self._batch.forward(ids, stage=_VELOCITY_STAGE)

    def diverged(self) -> np.ndarray:
        """Worlds in which MuJoCo has met a bad number since their last reset, or a joint is too fast.

        ``(num_worlds,)`` of bool.
        """
        counts, speeds = self._batch.warning[:, _DIVERGENCE, 1], self._qvel
        # nearly always nothing has happened, and that is quick to see
        if not counts.any() and speeds.min(initial=0.0) >= -FASTEST and speeds.max(initial=0.0) <= FASTEST:
            return np.zeros(len(counts), bool)
        bad: np.ndarray = (counts > 0).any(axis=1) | (abs(speeds) > FASTEST).any(axis=1)
        return bad

    def get_state(self) -> np.ndarray:
        """Everything that the worlds' futures depend on, ``(num_worlds, nstate)``."""
        return self._batch.state.copy()

    def set_state(self, state: np.ndarray) -> None:
        """Restores what :meth:`get_state` returned."""
        self._batch.state[:] = state
        self._batch.warning[:] = 0  # of what was before
        self._batch.forward(stage=_VELOCITY_STAGE)

    def data(self, world: int) -> mujoco.MjData:
        """A copy of one world's data, for rendering."""
        return self._batch.get_data(world)
