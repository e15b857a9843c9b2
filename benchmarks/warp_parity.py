"""How far MuJoCo Warp's worlds are from C MuJoCo's, the oracle: three levels, each from one state.

Needs no more than the packages of a GPU machine. Deviations are ``|warp - c| / max(1, |c|)``, the largest
of all entries of a state; Warp's worlds are those of a whole topology together, each on its own model, as
in an environment.

Beside the tolerances stands what is exempt: where C MuJoCo itself, from a state that differs by as little
as float32 can tell, goes another way by more than the tolerance, a contact or a limit is just being
touched, and nobody can say which side is right. Such states are counted, and there may be few.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import mujoco
import numpy as np
import torch

import mtenvs
from mtenvs.backends.mujoco_batch import BatchBackend, topology
from mtenvs.backends.mujoco_warp import WarpBackend
from mtenvs.spec import Family, Task
from mtenvs.state import State

FORWARD_TOLERANCE = 2e-5
"""Of sensors, from equal positions and velocities: a chain of a few dozen operations in float32, whose
numbers are 6e-8 apart; the largest that was seen is 7e-6."""
STEP_TOLERANCE = 5e-3
"""Of positions, velocities and sensors one control step later. Feet of 0.3 kg are held by contact forces of
2,000 N that nearly cancel, so that 1e-5 of a force is 1e-3 of a velocity; nothing about the solver's own
tolerance or iterations changes it. The largest that was seen is 2e-3, in a jumping biped. Such states are
rare: half of all must agree MEDIAN times better."""
MEDIAN = 50.0
FUNCTION_TOLERANCE = 2e-6
"""Of observations and reward terms from equal numbers: a dozen operations in float32; the largest that was
seen is 5e-7."""

MOST_EXEMPT = 0.01
"""Largest share of states that may be exempt."""
NUDGE = 2.0**-22
"""Relative size of the nudge that tells: two of float32's steps."""
NUDGES = 3
MOST_FLAGS = 1e-3
"""Largest share of states whose termination or success may differ, which lie within rounding of a
threshold."""

WORLDS, STEPS = 16, 40
"""What is recorded of each task: so many worlds, half of them with motors at full strength, for so many
control steps; fallen ones start anew."""
AT_ONCE = 64
"""States of each task that are compared at a time; divides ``WORLDS * STEPS``. C MuJoCo reserves several
megabytes for a world, and a process that reserves more than the machine has cannot be forked."""
HOLD = 8
"""Control steps for which motors keep their full strength."""


@dataclasses.dataclass(frozen=True)
class Level:
    """How far the states of one task are apart at one level."""

    largest: float
    """Largest deviation of a state that is not exempt."""
    median: float
    """Median deviation of all states."""
    exempt: int
    """States that are exempt."""


@dataclasses.dataclass(frozen=True)
class Parity:
    """What was found of one task."""

    task: str
    """Its name."""
    states: int
    """States that were compared."""
    touching: int
    """Of these, those in which, as Warp has it, something touched or a limit held."""
    forward: Level
    """Sensors, from equal positions and velocities."""
    step: Level
    """Positions, velocities, time and sensors after one control step."""
    functions: Level
    """Observation and reward terms, from equal numbers; nothing is exempt."""
    flags: int
    """States whose termination or success differ, from equal numbers."""
    lost: int
    """States that Warp called diverged."""

    def faults(self) -> list[str]:
        """What breaks its tolerance, in words; nothing if Warp and C MuJoCo agree."""
        found = []
        for name, level, tolerance in (
            ("forward", self.forward, FORWARD_TOLERANCE),
            ("step", self.step, STEP_TOLERANCE),
            ("functions", self.functions, FUNCTION_TOLERANCE),
        ):
            # what is no number is not at most anything
            if not level.largest <= tolerance:
                found.append(f"{name}: deviates by {level.largest:.1e}, tolerance {tolerance:.0e}")
            if level.exempt > MOST_EXEMPT * self.states:
                found.append(f"{level.exempt} of {self.states} states are exempt from {name}")
        if not self.step.median <= STEP_TOLERANCE / MEDIAN:
            found.append(f"half of the states deviate by {self.step.median:.1e} or more after a step")
        if self.flags > MOST_FLAGS * self.states:
            found.append(f"termination or success differ in {self.flags} of {self.states} states")
        if self.lost:
            found.append(f"{self.lost} of {self.states} states diverged")
        return found


@dataclasses.dataclass(frozen=True)
class Recorded:
    """States of a trajectory of C MuJoCo, rounded to float32, and what was done in each; n in all."""

    rows: np.ndarray
    """All that C MuJoCo goes on from, ``(n, nstate)``."""
    totals: Mapping[str, np.ndarray]
    """Sums of the reward terms, ``(n,)`` each."""
    actions: np.ndarray
    """``(n, nu)``."""

    def part(self, chosen: slice) -> Recorded:
        """Some of the states."""
        totals = {term: values[chosen] for term, values in self.totals.items()}
        return Recorded(self.rows[chosen], totals, self.actions[chosen])


def topologies(family: Family, tasks: Sequence[Task]) -> list[list[Task]]:
    """The tasks in groups that share a batch."""
    groups: dict[tuple[int, ...], list[Task]] = {}
    for task in tasks:
        groups.setdefault(topology(mtenvs.model(family.name, task)), []).append(task)
    return list(groups.values())


def record(family: Family, task: Task, worlds: int = WORLDS, steps: int = STEPS, seed: int = 0) -> Recorded:
    """Plays a task in C MuJoCo with actions that are random in half of the worlds, else at full strength.

    Args:
        family: of the task.
        task: the task.
        worlds: number of worlds.
        steps: control steps of each.
        seed: of starts and actions.

    Returns:
        ``worlds * steps`` states, episodes' starts among them.
    """
    rng = np.random.default_rng(seed)
    backend = _oracle(family, [task], worlds)
    state, everyone = backend.state, np.arange(worlds)

    def start(ids: np.ndarray) -> None:
        backend.reset(ids, *family.start(backend.home[ids], rng.random((len(ids), family.start_draws))))

    start(everyone)
    rows, actions = [], []
    totals: dict[str, list[np.ndarray]] = {term: [] for term in family.reward_terms}
    for step in range(steps):
        noise = rng.uniform(-1.0, 1.0, state.ctrl.shape)
        if step % HOLD == 0:
            held = np.sign(noise)
        action = np.where((everyone < worlds // 2)[:, None], noise, held).astype(np.float32)
        rows.append(backend.get_state())
        actions.append(action)
        for term, total in state.totals.items():
            totals[term].append(total.copy())
        backend.step(action)
        for term, value in family.reward(state).items():
            state.totals[term] += value
        fallen = np.flatnonzero(family.terminated(state) | backend.diverged())
        if len(fallen):
            start(fallen)
    return Recorded(
        _rounded(np.concatenate(rows)),
        {term: _rounded(np.concatenate(values)) for term, values in totals.items()},
        np.concatenate(actions),
    )


def measure(
    name: str,
    tasks: Sequence[Task] | None = None,
    device: str | torch.device = "cpu",
    change: Callable[[WarpBackend], None] = lambda backend: None,
) -> dict[str, Parity]:
    """Compares Warp's worlds of some tasks with C MuJoCo's.

    Args:
        name: of a registered family.
        tasks: of it; the published ones if left out.
        device: where Warp's worlds live.
        change: what to do to Warp's worlds of each topology before; to see whether an error is noticed.

    Returns:
        What was found, by the task's name.
    """
    family = mtenvs.get_family(name)
    found: dict[str, Parity] = {}
    for group in topologies(family, family.tasks if tasks is None else tasks):
        found |= _measure(family, group, torch.device(device), change)
    return found


def _measure(
    family: Family, tasks: Sequence[Task], device: torch.device, change: Callable[[WarpBackend], None]
) -> dict[str, Parity]:
    recorded = [record(family, task, seed=number) for number, task in enumerate(tasks)]
    oracle, warp = _oracle(family, tasks, AT_ONCE), _warp(family, tasks, AT_ONCE, device)
    change(warp)
    parts = []
    for first in range(0, WORLDS * STEPS, AT_ONCE):
        part = _compare(family, [r.part(slice(first, first + AT_ONCE)) for r in recorded], oracle, warp)
        parts.append({name: values.reshape(len(tasks), AT_ONCE) for name, values in part.items()})
    columns = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}

    found = {}
    for i, task in enumerate(tasks):
        own = {name: values[i] for name, values in columns.items()}
        found[task.name] = Parity(
            task=task.name,
            states=len(own["lost"]),
            touching=int(own["touching"].sum()),
            forward=_level(own["forward"], own["moved_forward"] > FORWARD_TOLERANCE),
            step=_level(own["step"], own["moved_step"] > STEP_TOLERANCE),
            functions=_level(own["functions"], np.zeros(len(own["functions"]), bool)),
            flags=int(own["flags"].sum()),
            lost=int(own["lost"].sum()),
        )
    return found


def _compare(
    family: Family, recorded: Sequence[Recorded], oracle: BatchBackend, warp: WarpBackend
) -> dict[str, np.ndarray]:
    """Deviations and flags of one state for every world, ``(n,)`` each."""
    rows = np.concatenate([r.rows for r in recorded])
    actions = np.concatenate([r.actions for r in recorded])

    # level 1: the same positions and velocities
    oracle.set_state(rows)
    for term, total in oracle.state.totals.items():
        total[:] = np.concatenate([r.totals[term] for r in recorded])
    _place(warp, oracle)
    moved_forward = _moved(oracle, rows, lambda: None, ("sensordata",))
    oracle.set_state(rows)
    touching = warp._d.nefc.numpy() > 0  # rows of constraints
    forward = _deviation(warp.state, oracle.state, ("sensordata",))

    # level 3: the same numbers, whatever level 1 says of them
    functions, flags = _compare_functions(family, oracle.state, warp.device)

    # level 2: one step
    after = ("qpos", "qvel", "time", "sensordata")
    moved_step = _moved(oracle, rows, lambda: oracle.step(actions), after)
    oracle.set_state(rows)
    oracle.step(actions)
    warp.step(torch.from_numpy(actions).to(warp.device))
    return {
        "touching": touching,
        "forward": forward,
        "moved_forward": moved_forward,
        "functions": functions,
        "flags": flags,
        "step": _deviation(warp.state, oracle.state, after),
        "moved_step": moved_step,
        "lost": warp.diverged().cpu().numpy(),
    }


def _oracle(family: Family, tasks: Sequence[Task], each: int) -> BatchBackend:
    models, constants = _worlds(family, tasks, each)
    return BatchBackend(models, constants, family.reward_terms, family.frame_skip)


def _warp(family: Family, tasks: Sequence[Task], each: int, device: torch.device) -> WarpBackend:
    models, constants = _worlds(family, tasks, each)
    names = [task.name for task in tasks for _ in range(each)]
    return WarpBackend(models, names, constants, family.reward_terms, family.frame_skip, device)


def _worlds(
    family: Family, tasks: Sequence[Task], each: int
) -> tuple[list[mujoco.MjModel], dict[str, np.ndarray]]:
    """Models and constants of worlds laid out ``[task, state]``."""
    models = [model for task in tasks for model in [mtenvs.model(family.name, task)] * each]
    constants = [family.constants(task.parameters) for task in tasks]
    # as float32 has them, for both
    arrays = {name: np.array([c[name] for c in constants]) for name in constants[0]}
    arrays = {name: np.repeat(_rounded(values), each) for name, values in arrays.items()}
    return models, arrays


def _rounded(values: np.ndarray) -> np.ndarray:
    """The nearest numbers that float32 has, in float64."""
    return values.astype(np.float32).astype(float)


def _place(warp: WarpBackend, oracle: BatchBackend) -> None:
    """Puts Warp's worlds where C MuJoCo's are."""
    state, there = warp.get_state(), oracle.state
    own = {"time": there.time, "qpos": there.qpos, "qvel": there.qvel, "ctrl": there.ctrl}
    own |= {f"total_{term}": total for term, total in there.totals.items()}
    own["qacc_warmstart"] = oracle._batch.bind("qacc_warmstart")  # where the solver begins
    for name, values in own.items():
        state[name] = torch.tensor(values, dtype=torch.float32, device=warp.device)
    warp.set_state(state)


def _deviation(warp: State, oracle: State, arrays: Sequence[str]) -> np.ndarray:
    """Largest deviation in every world, ``(n,)``."""
    return _largest([(getattr(warp, a).cpu().numpy(), getattr(oracle, a)) for a in arrays])


def _largest(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    each = [
        (np.abs(ours - theirs) / np.maximum(1.0, np.abs(theirs))).reshape(len(theirs), -1)
        for ours, theirs in pairs
    ]
    return np.concatenate(each, axis=1).max(axis=1, initial=0.0)


def _moved(
    oracle: BatchBackend, rows: np.ndarray, go_on: Callable[[], None], arrays: Sequence[str]
) -> np.ndarray:
    """How far what comes of a state moves, at most, if positions and velocities are nudged, ``(n,)``."""
    rng = np.random.default_rng(0)

    def outcome(by: float) -> list[np.ndarray]:
        oracle.set_state(rows)
        for array in (oracle.state.qpos, oracle.state.qvel):
            array += by * rng.choice([-1.0, 1.0], array.shape) * np.maximum(1.0, np.abs(array))
        oracle.set_state(oracle.get_state())  # which brings the sensors up to date
        go_on()
        return [getattr(oracle.state, a).copy() for a in arrays]

    plain = outcome(0.0)
    moved = [_largest(list(zip(outcome(NUDGE), plain, strict=True))) for _ in range(NUDGES)]
    return np.max(moved, axis=0)


def _compare_functions(family: Family, state: State, device: torch.device) -> tuple[np.ndarray, np.ndarray]:
    """Deviations of observation and terms, and where flags differ, of equal numbers, ``(n,)`` each."""

    def rounded(values: Any) -> Any:
        return {k: _rounded(v) for k, v in values.items()} if isinstance(values, dict) else _rounded(values)

    def there(values: Any) -> Any:
        if isinstance(values, dict):
            return {k: there(v) for k, v in values.items()}
        return torch.tensor(values, dtype=torch.float32, device=device)

    arrays = {f.name: getattr(state, f.name) for f in dataclasses.fields(State) if f.name != "layout"}
    arrays = {name: rounded(value) for name, value in arrays.items()}
    theirs = State(state.layout, **arrays)
    ours = State(state.layout, **{name: there(value) for name, value in arrays.items()})
    terms, here = family.reward(theirs), family.reward(ours)
    pairs = [(family.observe(ours).cpu().numpy(), family.observe(theirs))]
    pairs += [(here[term].cpu().numpy(), terms[term]) for term in family.reward_terms]
    flags = [
        ask(ours).cpu().numpy() != np.asarray(ask(theirs)) for ask in (family.terminated, family.success)
    ]
    return _largest(pairs), flags[0] | flags[1]


def _level(deviations: np.ndarray, exempt: np.ndarray) -> Level:
    return Level(
        largest=float(deviations[~exempt].max(initial=0.0)),
        median=float(np.median(deviations)),
        exempt=int(exempt.sum()),
    )
