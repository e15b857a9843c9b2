"""Tries to break the physics: thousands of sampled bodies of every family, shaken as hard as motors can.

``python -m benchmarks.soak_physics --tasks 10000 --out soak.json``. Half of the tasks are drawn as
``sample_task`` does; the others lie at the extremes of the ranges, every second of these with all its
parameters at an end, the rest with each at an end or within. Every task is stepped for a whole episode's
time in the vector environment, and all that comes out of it is looked at.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import sys
import tempfile
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import tyro

import mtenvs
from benchmarks.record import machine
from mtenvs import registry
from mtenvs.spec import ALL_FAMILIES, Family, FamilySet, Task
from mtenvs.vector_env import TaskVectorEnv

BATCH = 250
"""Tasks that are stepped together, a world each."""
KINDS = ("sampled", "corner", "sampled", "edge")
"""Where in the parameters' ranges tasks lie, in turn."""
POLICIES = (
    "random",
    "flickering",
    "in phase",
    "in antiphase",
    "at random times",
    "in phase, at random times",
    "pumping",
    "constant +1",
    "constant -1",
    "constant, mixed",
)
"""What actions do, in turn: uniform; each motor's full torque to a random side at every step; full torque
that changes sides at every step, all motors alike or every other against the rest; at random times, each
motor on its own or all together; along with the motion; and full torque that never changes."""
SWITCHING = 0.1
"""Chance that full torque changes sides in a step, where it does at random times."""
FAST = 1_000.0
"""What no joint's speed should reach, rad/s or m/s: not yet called bad by MuJoCo, but no motion either."""
KEPT = 20
"""Tasks whose divergence is told of in full, of every family."""


@dataclasses.dataclass
class Found:
    """What was seen of one family."""

    tasks: int = 0
    """Bodies, each with a task of its own."""
    control_steps: int = 0
    """Of all worlds together."""
    physics_steps: int = 0
    """Likewise."""
    episodes: int = 0
    """That ended, for whatever reason."""
    diverged: int = 0
    """Of these, the ones that bad numbers ended."""
    diverged_tasks: int = 0
    """Bodies that diverged at least once."""
    fast_tasks: int = 0
    """Bodies that at least once were faster than ``FAST``, diverged or not."""
    by_kind: Counter[str] = dataclasses.field(default_factory=Counter)
    """Divergences by where the task lies; see ``KINDS``."""
    by_policy: Counter[str] = dataclasses.field(default_factory=Counter)
    """Divergences by what the actions did."""
    examples: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """The first bodies that diverged, with kind and policy."""
    largest_observation: float = 0.0
    """Largest magnitude that left the environment, codes included."""
    largest_speed: float = 0.0
    """Largest magnitude in ``qvel`` of a world that goes on, rad/s or m/s."""
    faults: Counter[str] = dataclasses.field(default_factory=Counter)
    """What must not be, with how often it was; empty if all is well."""
    seconds: float = 0.0
    """That it took."""


def extreme_task(family: Family, seed: int, corner: bool) -> Task:
    """A task at the extremes of the ranges; the same seed gives the same task.

    Args:
        family: which has the parameters.
        seed: of the draw.
        corner: whether all parameters lie at an end, else each does with even chances, or is drawn.
    """
    rng = np.random.default_rng([zlib.crc32(family.name.encode()), seed, 1])
    values = {}
    for p in family.parameters:
        end, within, inner = rng.random() < 0.5, rng.random(), rng.random() < 0.5
        values[p.name] = p.draw(within) if inner and not corner else p.high if end else p.low
    return Task(family.name, f"extreme-{seed}", values)


def chosen(family: Family, number: int) -> Task:
    """The task of a number, of the kind that is its turn."""
    kind = KINDS[number % len(KINDS)]
    if kind == "sampled":
        return mtenvs.sample_task(family.name, number)
    return extreme_task(family, number, corner=kind == "corner")


def without_pictures(family: Family) -> Family:
    """The same family without its textures, which take most of the time and memory of a model."""

    def build(p: Any) -> mujoco.MjSpec:
        spec = family.build(p)
        for texture in spec.textures:
            texture.width = texture.height = 1
        return spec

    return dataclasses.replace(family, build=build)


class Shaker:
    """Actions of every world by the policy that is its turn.

    Args:
        envs: the worlds.
        policies: of every world, the number in ``POLICIES``, ``(num_envs,)``.
        seed: of what is drawn.
    """

    def __init__(self, envs: TaskVectorEnv, policies: np.ndarray, seed: int) -> None:
        self._envs, self._policies = envs, policies
        self._shape = shape = (envs.num_envs, envs.num_actions)
        self._rng = rng = np.random.default_rng([seed, 2])
        self._sides = rng.choice([-1.0, 1.0], shape)  # of motors that switch each on its own
        self._side = rng.choice([-1.0, 1.0], (shape[0], 1))  # of those that switch together
        self._mixed = rng.choice([-1.0, 1.0], shape)
        self._flip, self._alternating = 1.0, np.where(np.arange(shape[1]) % 2, -1.0, 1.0)

    def __call__(self) -> np.ndarray:
        """The next step's actions, ``(num_envs, num_actions)``."""
        rng, shape = self._rng, self._shape
        self._flip = -self._flip
        self._sides = np.where(rng.random(shape) < SWITCHING, -self._sides, self._sides)
        self._side = np.where(rng.random((shape[0], 1)) < SWITCHING, -self._side, self._side)
        of = {
            "random": rng.uniform(-1.0, 1.0, shape),
            "flickering": rng.choice([-1.0, 1.0], shape),
            "in phase": np.full(shape, self._flip),
            "in antiphase": np.broadcast_to(self._flip * self._alternating, shape),
            "at random times": self._sides,
            "in phase, at random times": np.broadcast_to(self._side, shape),
            "pumping": self._along(),
            "constant +1": np.ones(shape),
            "constant -1": -np.ones(shape),
            "constant, mixed": self._mixed,
        }
        stacked = np.stack([of[policy] for policy in POLICIES])
        return stacked[self._policies, np.arange(shape[0])]

    def _along(self) -> np.ndarray:
        """Full torque in the direction in which every motor's joint moves."""
        actions = np.ones(self._shape)
        for group in self._envs._groups:  # not public: a benchmark may look
            model = group.backend.models[0]
            moved = model.jnt_dofadr[model.actuator_trnid[:, 0]]
            own = np.where(group.backend.state.qvel[:, moved] < 0.0, -1.0, 1.0)
            whole = np.ones((len(group.worlds), self._shape[1]))
            whole[:, group.columns.action] = own
            actions[group.worlds] = whole
        return actions


def shake(
    family: Family | FamilySet,
    numbers: Sequence[int],
    seed: int,
    mode: str,
    threads: int,
    steps: int,
    found: Found,
) -> None:
    """Steps the tasks of some numbers, and adds what was seen.

    Args:
        family: or a set, whose families take turns.
        numbers: of the tasks, consecutive.
        seed: of start states and actions.
        mode: how worlds start again, ``"SameStep"`` or ``"NextStep"``.
        threads: to step on; 0 for all processors.
        steps: that every world is stepped.
        found: is added to.
    """
    members = family.families
    # families take turns first, then kinds, then policies: each meets each
    turns = [i // len(members) for i in numbers]
    tasks = [chosen(members[i % len(members)], turn) for i, turn in zip(numbers, turns, strict=True)]
    kinds = [KINDS[turn % len(KINDS)] for turn in turns]
    policies = np.array([turn // len(KINDS) % len(POLICIES) for turn in turns])
    envs = TaskVectorEnv(family, len(tasks), tasks, autoreset_mode=mode, num_threads=threads)
    shaker = Shaker(envs, policies, seed + numbers[0])
    lost, fast = np.zeros(len(tasks), bool), np.zeros(len(tasks), bool)
    skips = np.array([family.of(task).frame_skip for task in tasks])
    observations, _ = envs.reset(seed=seed + numbers[0])
    _look(found, envs, observations)
    for _ in range(steps):
        observations, rewards, terminations, truncations, info = envs.step(shaker())
        _look(found, envs, observations)
        ended = terminations | truncations
        final = info.get("final_info", info)
        bad = final["physics_diverged"] & final["_physics_diverged"] & ended
        if "final_obs" in info:
            _look(found, envs, np.stack(info["final_obs"][ended]))
        terms = [told[f"reward_{name}"] for told in (info, final) for name in family.reward_terms]
        if not (np.isfinite(rewards).all() and all(np.isfinite(term).all() for term in terms)):
            found.faults["a reward that is not finite"] += 1
        if (rewards[bad] != 0.0).any() or not terminations[bad].all():
            found.faults["a divergence that is rewarded, or ends nothing"] += 1
        for group in envs._groups:
            going = group.worlds[~ended[group.worlds]]
            speeds = np.abs(group.backend.state.qvel[~ended[group.worlds]]).max(axis=1)
            found.largest_speed = max(found.largest_speed, float(speeds.max(initial=0.0)))
            fast[going] |= speeds > FAST
        found.episodes += int(ended.sum())
        # of worlds that started in this step, if starting takes one, nothing is told
        found.physics_steps += int(skips[info["_physics_diverged"] | ended].sum())
        for world in np.flatnonzero(bad):
            policy = POLICIES[policies[world]]
            found.diverged += 1
            found.by_kind[kinds[world]] += 1
            found.by_policy[policy] += 1
            if not lost[world] and len(found.examples) < KEPT:
                found.examples.append({"policy": policy, "kind": kinds[world], **tasks[world].to_dict()})
            lost[world] = True
    found.tasks += len(tasks)
    found.diverged_tasks += int(lost.sum())
    found.fast_tasks += int(fast.sum())
    found.control_steps += envs.steps_taken
    envs.close()


def _look(found: Found, envs: TaskVectorEnv, observations: np.ndarray) -> None:
    """Makes sure that observations ``(n, size)`` are numbers of the space."""
    space = envs.single_observation_space
    if not np.isfinite(observations).all():
        found.faults["an observation that is not finite"] += 1
    elif observations.dtype != space.dtype or observations.shape[1:] != space.shape:
        found.faults["an observation that is not in the space"] += 1
    else:
        found.largest_observation = max(found.largest_observation, float(np.abs(observations).max()))


@contextlib.contextmanager
def watched(found: Found) -> Iterator[None]:
    """Counts warnings as faults, and files that are written into the working directory."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as empty, warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        os.chdir(empty)
        try:
            yield
        finally:
            os.chdir(here)
        found.faults.update(f"a file {path.name}" for path in Path(empty).iterdir())
    found.faults.update(f"{w.category.__name__}: {w.message}" for w in caught)


def measure(
    tasks: int,
    seed: int = 0,
    names: Sequence[str] | None = None,
    threads: int = 1,
    most_steps: int | None = None,
) -> dict[str, Any]:
    """Shakes the bodies of every family, and of all of them together.

    Args:
        tasks: of every family; of their set, so many in all.
        seed: of the tasks, start states and actions.
        names: of families, or ``"AllFamilies"``; ``None`` for all of these.
        threads: to step on; 0 for all processors.
        most_steps: of every task; ``None`` for a whole episode's.

    Returns:
        ``seed``, ``tasks``, ``policies`` and ``families``: by name, the fields of :class:`Found`.
    """
    results = {}
    for name in (*mtenvs.families(), ALL_FAMILIES) if names is None else names:
        whole = registry.get_families(name)
        bare = tuple(without_pictures(family) for family in whole.families)
        family = FamilySet(name, bare) if isinstance(whole, FamilySet) else bare[0]
        found, began = Found(), time.perf_counter()
        steps = min(family.episode_steps, most_steps or family.episode_steps)
        with watched(found):
            for first in range(0, tasks, BATCH):
                numbers = range(seed * tasks + first, seed * tasks + min(first + BATCH, tasks))
                mode = ("SameStep", "NextStep")[first // BATCH % 2]
                shake(family, numbers, seed, mode, threads, steps, found)
        found.seconds = round(time.perf_counter() - began, 1)
        results[name] = vars(found)  # asdict() does not take counters apart as it should
    return {"seed": seed, "tasks": tasks, "policies": list(POLICIES), "families": results}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Steps sampled bodies with violent actions and says what came of it; fails if bad numbers come out."""

    names: tyro.conf.Positional[tuple[str, ...]] = ()
    """Families, or AllFamilies; all of these if none is named."""
    tasks: int = 10_000
    """Of every family."""
    seed: int = 0
    """Of tasks, start states and actions."""
    threads: int = 1
    """To step on; 0 for all processors."""
    out: Path | None = None
    """JSON file to write; printed if there is none."""


def main() -> None:
    """Measures, writes, and exits with 1 if there was any fault."""
    arguments = tyro.cli(Arguments)
    found = measure(arguments.tasks, arguments.seed, arguments.names or None, arguments.threads)
    text = json.dumps({"machine": machine(), **found}, indent=1) + "\n"
    if arguments.out is None:
        print(text, end="")
    else:
        arguments.out.write_text(text)
    sys.exit(any(family["faults"] for family in found["families"].values()))


if __name__ == "__main__":
    main()
