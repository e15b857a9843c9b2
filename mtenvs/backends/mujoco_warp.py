"""The GPU backend: MuJoCo Warp steps all worlds of a topology at once, on a CUDA card or, slowly, a CPU.

The arrays of its State are PyTorch tensors that view Warp's own memory, so that the functions of a family
run on them as they are. Nothing here asks the host for a number between two steps: what went wrong is a
tensor too, and everything can be captured in a CUDA graph.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import mujoco
import mujoco_warp as mjw
import numpy as np
import torch
import warp as wp
from torch import Tensor

from mtenvs.spec import MissingDeviceError
from mtenvs.state import FASTEST, LARGEST, Layout, State

UNREAD = frozenset({"dof_length", "geom_rgba", "key_qpos"})
"""Fields that no stage which a family uses reads, whatever they are: sleeping's, colours, and keyframes."""
UNREAD_PREFIXES = ("cam_", "light_")

PROBE_STEPS = 300
"""Control steps of every body that are probed for how many contacts and constraints there can be."""
THROWN = 2.0
"""How far, in rad and m, bodies are thrown from home while they are probed."""
MARGIN = 2.0
"""Contacts and iterations that are allowed over those that were seen: training finds more than a probe."""
MOST_PAIRS, CONTACTS_OF_PAIR = 64, 4
"""Pairs of geoms of which all contacts are allocated, whatever was seen; and contacts of a pair."""
OVERHEAD = 2.0
"""Memory in all over that of Warp's Data: for what a step allocates for a while, and for observations."""

_NOT_CONVERGED = mjw.OverflowType.ITERATIONS | mjw.OverflowType.LS_ITERATIONS
OUTGROWN = int(mjw.OverflowType.ALL & ~_NOT_CONVERGED)
"""Bits of Warp's ``overflow`` that tell of something left out. A solver that has used up its iterations, as
models that allow few of them mean it to, leaves out nothing, and C MuJoCo does not mention it either."""

NEEDED_DRIVER = (12, 4)
"""CUDA version of the driver that MuJoCo Warp asks for."""


@dataclasses.dataclass(frozen=True)
class Sizes:
    """What Warp allocates for every world."""

    nconmax: int
    """Contacts, on average over the worlds."""
    njmax: int
    """Rows of constraints, in any world."""
    iterations: int
    """Of the constraint solver, at most; no more than the model's own."""


def check_device(device: str | torch.device) -> torch.device:
    """Makes sure that worlds can live on a device.

    Raises:
        mtenvs.spec.MissingDeviceError: if there is none, or its driver is too old.
        ValueError: for a device of another kind.
    """
    _begin_warp()
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):  # of PyTorch, for what is no name of a device
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"no worlds on device {str(device)!r}; valid: cpu, cuda, cuda:N")
    if found.type == "cpu":
        return found
    driver = wp.get_cuda_driver_version()
    if driver is not None and tuple(driver) < NEEDED_DRIVER:
        raise MissingDeviceError(
            f"the NVIDIA driver is too old: it knows CUDA {'.'.join(map(str, driver))}, and "
            f"{'.'.join(map(str, NEEDED_DRIVER))} is needed"
        )
    if not (torch.cuda.is_available() and wp.is_cuda_available()):
        missing = "PyTorch" if wp.is_cuda_available() else "Warp"
        raise MissingDeviceError(
            f"no device {str(device)!r}: {missing} finds no CUDA card and driver on this machine; with "
            "device='cpu' the same worlds run without one, slowly"
        )
    count = torch.cuda.device_count()
    found = torch.device("cuda", torch.cuda.current_device() if found.index is None else found.index)
    if found.index >= count:
        raise MissingDeviceError(f"no device {str(device)!r}: this machine has {count}, from cuda:0 on")
    return found


def _begin_warp() -> None:
    """Starts Warp, without the lines that it would print on a user's terminal."""
    wp.config.log_level = max(wp.config.log_level, wp.LOG_WARNING)
    wp.init()


def put_models(models: Sequence[mujoco.MjModel], names: Sequence[str], of_world: np.ndarray) -> Any:
    """One Warp model for all worlds, with the fields in which the compiled models differ stacked by world.

    What differs is read from the models after Warp has taken them in, so that what it derives from them
    counts too. To be called on the device that is meant (``warp.ScopedDevice``).

    Args:
        models: the distinct ones, of one topology.
        names: what to call them in messages.
        of_world: which of them every world has, ``(num_worlds,)``.

    Raises:
        ValueError: if two differ in what Warp cannot vary by world, naming field and models; or for
            something that Warp does not have at all.
    """
    try:
        taken = [mjw.put_model(model) for model in models]
    except (NotImplementedError, ValueError) as error:
        raise ValueError(f"MuJoCo Warp cannot step {', '.join(names)}: {error}") from error
    whole = taken[0]
    for part in ("", "opt"):
        owners = [getattr(model, part) if part else model for model in taken]
        for field in dataclasses.fields(owners[0]):
            if field.name in UNREAD or field.name.startswith(UNREAD_PREFIXES) or field.name == "opt":
                continue
            values = [getattr(owner, field.name) for owner in owners]
            other = next((i for i, value in enumerate(values) if not _same(values[0], value)), None)
            if other is None:
                continue
            shape = getattr(field.type, "shape", ())
            if not (isinstance(values[0], wp.array) and shape and shape[0] == "*"):
                raise ValueError(
                    f"{names[0]} and {names[other]} cannot share a batch of MuJoCo Warp: they differ in "
                    f"{f'{part}.' if part else ''}{field.name}, which is one for all worlds there"
                )
            rows = np.concatenate([value.numpy() for value in values])[of_world]
            stacked: Any = wp.array(rows, dtype=values[0].dtype)
            stacked._is_batched = True  # as mjw.put_model marks its own
            setattr(getattr(whole, part) if part else whole, field.name, stacked)
    whole.opt.warn_overflow = False  # it would print from the device; overflow is read from Data
    return whole


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, wp.array):
        return a.shape == b.shape and np.array_equal(a.numpy(), b.numpy())
    if isinstance(a, (tuple, list)):
        return len(a) == len(b) and all(map(_same, a, b))
    if dataclasses.is_dataclass(a):
        return all(_same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    return bool(a == b) or a is b


def probe_sizes(models: Iterable[mujoco.MjModel], frame_skip: int, steps: int = PROBE_STEPS) -> Sizes:
    """What the worlds of a topology need, by stepping each body in C MuJoCo.

    Every other step with motors at full strength to either side, the others at random; half of the time
    from home, half thrown down in any posture. Of rows only those of contacts are probed: all limits,
    frictions and equalities can be active at once, and may well be in no probe.

    Args:
        models: the distinct ones.
        frame_skip: physics steps in one control step.
        steps: control steps of each.
    """
    contacts = rows = iterations = most = 0
    for model in models:
        data, most = mujoco.MjData(model), max(most, int(model.opt.iterations))
        rng = np.random.default_rng(0)
        seen = 0
        for step in range(steps):
            if step % (steps // 4) == 0:
                mujoco.mj_resetDataKeyframe(model, data, 0)
                if step >= steps // 2:
                    data.qpos += rng.uniform(-THROWN, THROWN, model.nq)
            noise = rng.uniform(-1.0, 1.0, model.nu)
            data.ctrl = np.sign(noise) if step % 2 else noise
            for _ in range(frame_skip):
                mujoco.mj_step(model, data)
                seen = max(seen, data.ncon)
                iterations = max(iterations, int(data.solver_niter.max()))
        seen = math.ceil(MARGIN * seen)
        contacts, rows = max(contacts, seen), max(rows, _own_rows(model) + seen * _rows_each(model))
    needed = min(most, _rounded(MARGIN * iterations))
    return Sizes(_rounded(contacts), _rounded(rows), needed)


def _own_rows(model: mujoco.MjModel) -> int:
    """Most rows of constraints that a world can have without any contact."""
    limits = np.count_nonzero(model.jnt_limited) + np.count_nonzero(model.tendon_limited)
    frictions = np.count_nonzero(model.dof_frictionloss) + np.count_nonzero(model.tendon_frictionloss)
    return int(limits + frictions + 6 * model.neq)  # six of a weld, fewer of others


def _rows_each(model: mujoco.MjModel) -> int:
    """Most rows of constraints that one contact has."""
    dimensions = int(max(model.geom_condim.max(initial=1), model.pair_dim.max(initial=1)))
    elliptic = model.opt.cone == mujoco.mjtCone.mjCONE_ELLIPTIC
    # of a pyramid, two edges for every direction but the normal
    return dimensions if elliptic or dimensions == 1 else 2 * (dimensions - 1)


def _rounded(count: float) -> int:
    return 4 * math.ceil(max(count, 1.0) / 4.0)


def bytes_per_world(model: mujoco.MjModel, sizes: Sizes) -> int:
    """Memory that one more world takes, in all."""
    with wp.ScopedDevice("cpu"):
        one, two = (
            _size(mjw.make_data(model, nworld=n, nconmax=sizes.nconmax, njmax=sizes.njmax)) for n in (1, 2)
        )
    return int(OVERHEAD * (two - one))


def free_bytes(device: str | torch.device) -> int:
    """Free memory of a CUDA device; what PyTorch keeps for itself and does not use is free."""
    kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(torch.device(device))[0]) + int(kept)


def _size(owner: Any) -> int:
    """Bytes of all of a dataclass's arrays."""
    total = 0
    for field in dataclasses.fields(owner):
        value = getattr(owner, field.name, None)
        if isinstance(value, wp.array):
            total += int(value.capacity)
        elif dataclasses.is_dataclass(value):
            total += _size(value)
    return total


@functools.cache
def _stream_of(stream: torch.cuda.Stream) -> Any:
    """Warp's object of one of PyTorch's streams, the same at every call.

    Warp finds the capture that a launch belongs to by the object, not by the stream it stands for; and when
    any object of a stream is deleted, it forgets the stream, a capture on it too. PyTorch's streams live as
    long as the process, and so may these.
    """
    return wp.stream_from_torch(stream)


def capture_scope(stream: torch.cuda.Stream) -> Any:
    """What :func:`mtenvs.cuda_graphs.captured` has to enter, so that Warp's launches are captured too."""
    return wp.ScopedCapture(stream=_stream_of(stream), external=True, capture_mode=wp.CaptureMode.RELAXED)


class WarpBackend:
    """The worlds of one topology, each on its own variant of one model.

    A control step is the rest of a physics step whose first half the State is already fresh from
    (``step2``), whole steps, and the position and velocity stages again. So refreshing costs once what the
    first step saves.

    Args:
        models: one per world; worlds of one task may share one.
        names: of the world's tasks, for messages.
        constants: per-task numbers by name, each ``(num_worlds,)``.
        reward_terms: names of the terms whose sums the State holds; the caller adds to them.
        frame_skip: physics steps in one control step.
        device: where everything lives.
        sizes: what to allocate; ``None`` to find out.

    Raises:
        ValueError: if the models cannot share a batch.
        MemoryError: if so many worlds do not fit; it says how many do.
    """

    def __init__(
        self,
        models: Sequence[mujoco.MjModel],
        names: Sequence[str],
        constants: Mapping[str, np.ndarray],
        reward_terms: Sequence[str],
        frame_skip: int,
        device: torch.device,
        sizes: Sizes | None = None,
    ) -> None:
        self.models, self.device, self._frame_skip = list(models), check_device(device), frame_skip
        numbers: dict[int, int] = {}
        of_world = np.array([numbers.setdefault(id(model), len(numbers)) for model in models])
        _, firsts = np.unique(of_world, return_index=True)
        distinct = [models[i] for i in firsts]
        self.sizes = probe_sizes(distinct, frame_skip) if sizes is None else sizes
        self._check_memory(distinct[0], len(models))
        with self._scope():
            self._m = put_models(distinct, [names[i] for i in firsts], of_world)
            # A loop until all worlds have converged is a graph in the graph, for which Warp ends the
            # capture and begins it again: PyTorch does not know it any more, and forked streams are lost.
            # Worlds that are solved cost little, so as many iterations are captured as are needed.
            self._m.opt.iterations = self.sizes.iterations
            self._m.opt.graph_conditional = self.device.type != "cuda"
            # contacts share one memory: where all that there can be fit, no world takes another's
            pairs = min(int(self._m.nxn_geom_pair_filtered.shape[0]), MOST_PAIRS)
            self._d = mjw.make_data(
                distinct[0],
                nworld=len(models),
                nconmax=max(self.sizes.nconmax, CONTACTS_OF_PAIR * pairs),
                njmax=self.sizes.njmax,
            )
            self._place_still(distinct, of_world)
        self._integrates_apart = distinct[0].opt.integrator == mujoco.mjtIntegrator.mjINT_RK4
        self.home = self._tensor(np.stack([m.key_qpos[0] for m in distinct])[of_world])
        view = wp.to_torch
        self._warmstart, self._act = view(self._d.qacc_warmstart), view(self._d.act)
        # where Warp's solver gives up, qacc is that of the step before: what would be without constraints
        # is as large as C MuJoCo's then
        self._acc, self._smooth = view(self._d.qacc), view(self._d.qacc_smooth)
        self._overflow = view(self._d.overflow)
        self._largest = torch.zeros(len(models), device=device)
        self.state = State(
            layout=Layout.of(distinct[0]),
            time=view(self._d.time),
            qpos=view(self._d.qpos),
            qvel=view(self._d.qvel),
            ctrl=view(self._d.ctrl),
            sensordata=view(self._d.sensordata),
            constants={name: self._tensor(value) for name, value in constants.items()},
            totals={term: torch.zeros(len(models), device=device) for term in reward_terms},
        )
        self.state.qpos.copy_(self.home)
        self.refresh()

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, dtype=torch.float32).to(self.device)

    def _check_memory(self, model: mujoco.MjModel, worlds: int) -> None:
        if self.device.type != "cuda":
            return
        each, free = bytes_per_world(model, self.sizes), free_bytes(self.device)
        if worlds * each > free:
            raise MemoryError(
                f"{worlds:,} worlds need about {worlds * each / 2**30:.1f} GiB and {self.device} has "
                f"{free / 2**30:.1f} GiB free: about {free // each:,} worlds of this body fit"
            )

    def _place_still(self, distinct: Sequence[mujoco.MjModel], of_world: np.ndarray) -> None:
        """Puts geoms of the world body where each model has them: no stage of Warp moves these."""
        positions, frames = [], []
        for model in distinct:
            data = mujoco.MjData(model)
            mujoco.mj_kinematics(model, data)
            positions.append(data.geom_xpos.copy())
            frames.append(data.geom_xmat.copy())
        if len(distinct) > 1:
            self._d.geom_xpos.assign(np.stack(positions)[of_world])
            shape = (len(of_world), distinct[0].ngeom, 3, 3)
            self._d.geom_xmat.assign(np.stack(frames)[of_world].reshape(shape))

    @contextlib.contextmanager
    def _scope(self) -> Iterator[None]:
        """Warp's launches go where PyTorch's go: to the same device and the same stream."""
        with wp.ScopedDevice(wp.device_from_torch(self.device)):
            if self.device.type != "cuda":
                yield
                return
            stream = torch.cuda.current_stream(self.device)
            with wp.ScopedStream(_stream_of(stream), sync_enter=False):
                yield

    def refresh(self) -> None:
        """Brings what depends on positions and velocities to the same instant as these."""
        m, d = self._m, self._d
        with self._scope():
            mjw.fwd_position(m, d)
            d.sensordata.zero_()  # as every step does: some sensors only add
            mjw.sensor_pos(m, d)
            mjw.fwd_velocity(m, d)
            mjw.sensor_vel(m, d)

    def step(self, ctrl: Tensor) -> None:
        """Advances all worlds by one control step and leaves the State fresh.

        Args:
            ctrl: controls, ``(num_worlds, nu)``.
        """
        self.state.ctrl.copy_(ctrl)
        self._largest.zero_()
        for i in range(self._frame_skip):
            with self._scope():
                # the first half of the first is what refresh() did
                (mjw.step2 if i == 0 and not self._integrates_apart else mjw.step)(self._m, self._d)
            # both propagate what is not a number
            for accelerations in (self._acc, self._smooth):
                torch.maximum(self._largest, accelerations.abs().amax(dim=1), out=self._largest)
        self.refresh()

    def reset(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Starts episodes in some worlds.

        Args:
            mask: which, ``(num_worlds,)`` of bool.
            qpos: start positions of all worlds, those of the others unused, ``(num_worlds, nq)``.
            qvel: start velocities, likewise, ``(num_worlds, nv)``.
        """
        rows, state = mask.unsqueeze(1), self.state
        state.qpos.copy_(torch.where(rows, qpos, state.qpos))
        state.qvel.copy_(torch.where(rows, qvel, state.qvel))
        # bad numbers must go: a product with 0 would keep them
        for array in (state.ctrl, self._warmstart, self._acc, self._act):
            array.masked_fill_(rows, 0.0)
        state.time.masked_fill_(mask, 0.0)
        self._overflow.masked_fill_(mask, 0)
        for total in state.totals.values():
            total.masked_fill_(mask, 0.0)
        self.refresh()

    def diverged(self) -> Tensor:
        """Worlds whose last step met a bad number or a too fast joint, or outgrew its memory.

        ``(num_worlds,)`` of bool.
        """
        state = self.state
        # what is not a number is not less than anything
        good = self._largest < LARGEST
        for array, most in ((state.qpos, LARGEST), (state.qvel, FASTEST), (state.sensordata, LARGEST)):
            good &= (array.abs() <= most).all(dim=1)
        return ~good | self.overflown()

    def overflown(self) -> Tensor:
        """Worlds that had more contacts or constraints than :attr:`sizes`, ``(num_worlds,)`` of bool."""
        return (self._overflow & OUTGROWN) != 0

    def get_state(self) -> dict[str, Tensor]:
        """All that the worlds' futures depend on but for their models, each ``(num_worlds, ...)``."""
        return {name: tensor.clone() for name, tensor in self._carried().items()}

    def set_state(self, state: Mapping[str, Tensor]) -> None:
        """Restores what :meth:`get_state` returned."""
        for name, tensor in self._carried().items():
            tensor.copy_(state[name])
        self.refresh()

    def _carried(self) -> dict[str, Tensor]:
        state = self.state
        own = {"time": state.time, "qpos": state.qpos, "qvel": state.qvel, "ctrl": state.ctrl}
        more = {"qacc_warmstart": self._warmstart, "act": self._act, "overflow": self._overflow}
        return own | more | {f"total_{term}": total for term, total in state.totals.items()}

    def data(self, world: int) -> mujoco.MjData:
        """One world as C MuJoCo has it, for rendering."""
        model = self.models[world]
        data = mujoco.MjData(model)
        data.time = float(self.state.time[world])
        for name in ("qpos", "qvel", "ctrl"):
            getattr(data, name)[:] = getattr(self.state, name)[world].cpu().numpy()
        mujoco.mj_forward(model, data)
        return data
