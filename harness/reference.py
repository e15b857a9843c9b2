"""Makes a family's reference scores: random, zero and well-trained returns of every published task.

Nothing here is shared with the runs that are compared: the seeds come from a root of their own. A record
says what its returns follow from: settings, learner, every task's parameters, and the family's code.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mtenvs
from baselines.learner import play_episodes
from baselines.registry import describe_learner, make_learner
from harness.family_code import family_code
from harness.plan import checkpoint_steps
from harness.run import check_device, make_worlds
from harness.workers import use_one_torch_thread
from mtenvs.registry import as_task
from mtenvs.spec import Family, Task

VERSION = "1"
ROOT_SEED = 20_261_120
"""Apart from every plan's seeds, which are hashes."""
CURVE = 20
"""Checkpoints of the learning curves, spaced as a plan's, the last of which, the end, has an evaluation of
its own; budgets are chosen by them."""
CURVE_EPISODES = 16
"""Of each checkpoint."""


@dataclasses.dataclass(frozen=True)
class ReferenceConfig:
    """How reference scores are made. Field names are command-line options."""

    steps: int = 1_000_000
    """Control steps of single-task training, well past any plan's budget."""
    seeds: int = 3
    """Trainings per task."""
    episodes: int = 100
    """Evaluation episodes per training, and of the random and the zero policy."""
    worlds_per_run: int = 56
    """Worlds of every training."""
    learner: str = "ppo"
    """Name of the learner."""


def make_reference(
    family: str,
    config: ReferenceConfig,
    tasks: Sequence[str] | None = None,
    device: str = "cpu",
    progress: Callable[[int], object] | None = None,
) -> dict[str, Any]:
    """Measures reference scores; what :func:`write_reference` writes.

    A task's numbers depend on its name alone, not on which other tasks are measured beside it.

    Args:
        family: name of the family.
        config: how.
        tasks: names of the published tasks to measure; ``None`` for all.
        device: where networks live.
        progress: called with control steps just trained.

    Raises:
        ValueError: for an unknown family, task, learner or device.
    """
    check_device(device)
    for name in ("steps", "seeds", "episodes", "worlds_per_run"):
        if getattr(config, name) < 1:
            raise ValueError(f"{name} must be positive, got {getattr(config, name)}")
    use_one_torch_thread()
    definition = mtenvs.get_family(family)
    chosen = [as_task(definition, t) for t in (tasks or [t.name for t in definition.tasks])]
    head = origin(definition, config)
    learner = describe_learner(config.learner, definition.name)
    if not learner.many_runs:
        raise ValueError(
            f"agent {config.learner!r} trains one run at a time; scores are measured with one that trains "
            "all tasks at once, as ppo does"
        )
    runs = [[task] for task in chosen]
    starts = [
        int(s) for t in chosen for s in _stream(t, "starts").generate_state(config.episodes, np.uint32)
    ]

    def per_task(values: np.ndarray) -> np.ndarray:  # (num_envs,) to (tasks, episodes)
        return values.reshape(len(chosen), -1)

    worlds = make_worlds(definition.name, runs, config.episodes, "none")
    rngs = [np.random.default_rng(_stream(t, "random")) for t in chosen]
    size = (config.episodes, worlds.num_actions)

    def act_randomly(_: np.ndarray) -> np.ndarray:
        return np.concatenate([rng.uniform(-1.0, 1.0, size) for rng in rngs])

    random = per_task(play_episodes(act_randomly, worlds, starts).returns)
    nothing = np.zeros((worlds.num_envs, worlds.num_actions))
    zero = per_task(play_episodes(lambda _: nothing, worlds, starts).returns)

    # one cohort per seed: every task is one run of it
    per_rollout = learner.rollout * config.worlds_per_run
    # too short a training has no curve
    spaced = (
        checkpoint_steps(config.steps, CURVE, per_rollout) if config.steps > CURVE * per_rollout else []
    )
    checkpoints = [steps for steps in spaced if steps < config.steps]
    returns, success, curves = [], [], []
    for seed in range(config.seeds):
        worlds = make_worlds(definition.name, runs, config.worlds_per_run, "descriptor")
        entropies = [int(_stream(t, f"train {seed}").generate_state(1, np.uint64)[0]) for t in chosen]
        agent = make_learner(learner.name, learner.config, worlds, entropies, device)
        curve = []
        watched = make_worlds(definition.name, runs, CURVE_EPISODES, "descriptor")
        for number, steps in enumerate(checkpoints):
            agent.train(worlds, steps, progress)
            first = [
                _stream(t, f"curve {number}").generate_state(CURVE_EPISODES, np.uint32) for t in chosen
            ]
            curve.append(
                per_task(agent.evaluate(watched, np.concatenate(first).tolist()).returns).mean(axis=1)
            )
        curves.append(curve)
        agent.train(worlds, config.steps, progress)
        if agent.diverged().any():
            lost = [t.name for t, bad in zip(chosen, agent.diverged(), strict=True) if bad]
            raise RuntimeError(f"reference training diverged on {', '.join(lost)}")
        test = make_worlds(definition.name, runs, config.episodes, "descriptor")
        played = agent.evaluate(test, starts)
        returns.append(per_task(played.returns).mean(axis=1))
        success.append(per_task(played.success).mean(axis=1))
    records = {}
    for k, task in enumerate(chosen):
        trained = np.array([row[k] for row in returns])
        records[task.name] = {
            "parameters": dict(task.parameters),
            "random": _spread(random[k]),
            "zero": _spread(zero[k]),
            "reference": {
                **_spread(trained),
                "seeds": [round(float(value), 3) for value in trained],
                "success": round(float(np.mean([row[k] for row in success])), 4),
            },
            "curve": {
                "steps": checkpoints,
                "returns": [[round(float(at[k]), 2) for at in curve] for curve in curves],
            },
        }
    return {**head, "tasks": records}


def origin(family: Family, config: ReferenceConfig) -> dict[str, Any]:
    """What a record says of how all its tasks were measured.

    Raises:
        ValueError: for an unknown learner.
    """
    learner = describe_learner(config.learner, family.name)
    return {
        "version": VERSION,
        "family": family.id,
        "mtenvs": mtenvs.__version__,
        "root_seed": ROOT_SEED,
        "config": dataclasses.asdict(config),
        "learner": {key: getattr(learner, key) for key in ("name", "rollout", "config")},
        "family_code": family_code(family),
    }


def _stream(task: Task, purpose: str) -> np.random.SeedSequence:
    """A random stream of one task and purpose, keyed by name."""
    return np.random.SeedSequence([ROOT_SEED, *f"{task.family} {task.name} {purpose}".encode()])


def _spread(values: np.ndarray) -> dict[str, float]:
    deviation = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return {"mean": round(float(values.mean()), 3), "std": round(deviation, 3)}


def merge(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Adds newly measured tasks to a record made in the same way.

    Raises:
        ValueError: if the two were made differently, naming what differs.
    """
    check_alike(old, {k: v for k, v in new.items() if k != "tasks"})
    return {**old, "tasks": {**old["tasks"], **new["tasks"]}}


def check_alike(old: dict[str, Any], new: dict[str, Any]) -> None:
    """Checks that a record was made as another is, or is about to be.

    Args:
        old: the record.
        new: the other's :func:`origin`.

    Raises:
        ValueError: if they differ, naming in what.
    """
    differ, hint = [], ""
    for key, value in new.items():
        before = old.get(key)
        if key == "family_code" and before != value:
            differ.append("other code of the family")
            hint = "; if the change of code leaves returns as they were, say so with --restamp"
        elif isinstance(value, dict) and isinstance(before, dict):
            changed = [(name, before.get(name), v) for name, v in value.items() if before.get(name) != v]
            differ += [f"{name} = {b!r}, not {v!r}" for name, b, v in changed]
        elif before != value:
            differ.append(f"{key} = {before!r}, not {value!r}")
    if differ:
        raise ValueError(
            f"the existing reference scores were made with {'; '.join(differ)}. Leave out settings that "
            f"differ, or measure all tasks anew with --fresh{hint}"
        )


def unmeasured(family: Family, record: dict[str, Any]) -> list[str]:
    """Names of the published tasks that a record has no scores of, or of another task by that name."""
    known = record["tasks"]
    return [
        task.name
        for task in family.tasks
        if task.name not in known or known[task.name].get("parameters", task.parameters) != task.parameters
    ]


def restamped(family: Family, record: dict[str, Any]) -> dict[str, Any]:
    """The record, said to hold of the present code: for changes that leave returns as they are.

    Raises:
        ValueError: if a hyperparameter that it was made with has another value now.
    """
    present = origin(family, ReferenceConfig(**record["config"]))
    was, now = record["learner"]["config"], present["learner"]["config"]
    # hyperparameters that were not there then have defaults that change nothing
    other = sorted(key for key in was if was[key] != now.get(key))
    other += ["rollout"] * (record["learner"]["rollout"] != present["learner"]["rollout"])
    if other:
        raise ValueError(
            f"the scores were made with other hyperparameters ({', '.join(other)}): measure all tasks anew "
            "with --fresh"
        )
    tasks = {
        name: {"parameters": dict(as_task(family, name).parameters), **scores}
        for name, scores in record["tasks"].items()
    }
    head = {key: value for key, value in record.items() if key not in ("family_code", "tasks")}
    return {
        **head,
        "learner": present["learner"],
        "family_code": present["family_code"],
        "tasks": tasks,
    }


def shortcomings(record: dict[str, Any]) -> list[str]:
    """What speaks against publishing the tasks, in words: empty if every task is shown learnable."""
    found = []
    for name, task in record["tasks"].items():
        low, high = task["random"]["mean"], task["reference"]["mean"]
        # every training has to learn, the worst too; how well they do may differ
        worst = min(task["reference"]["seeds"])
        if worst - low <= 3.0 * task["random"]["std"]:
            found.append(f"{name}: a training that reached {worst} is not clearly above random {low}")
        elif (idle := (task["zero"]["mean"] - low) / (high - low)) >= 0.1:
            found.append(f"{name}: doing nothing scores {idle:.2f}")
    return found


def write_reference(record: dict[str, Any], path: Path) -> None:
    """Writes reference scores, whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(part, path)
