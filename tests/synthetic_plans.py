"""Whole experiments of every kind with planted speed-ups: all arms, doses, a matrix, joint training.

Plans are of the second format. Rows are written as the store keeps them, file by file, which is faster than
through it where runs are many.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import BUDGET, RANDOM, REFERENCE, TASKS, make_plan

from harness.store import digest

GRID = sorted(
    {0, 1000, 2000, 4000, 8000, 16_000, *range(28_672, 188_001, 13_184), BUDGET, 212_000, 224_000}
)
"""22 checkpoints, the last two beyond the budget."""
SPEED_UPS = {
    "scratch": 1.0, "transfer": 3.0, "blind": 2.0, "single_source": 1.5, "normalizer": 1.1, "shuffled": 0.7,
    "ceiling": 6.0, "separate": 1.0, "joint": 1.8, "joint-wide": 2.2,
}  # fmt: skip
DESCRIPTORS = {name: [0.3 * i + 0.07 * i**2, 0.1 * (i % 3), -0.2 * i] for i, name in enumerate(TASKS)}

SAC = {
    "name": "sb3:sac", "version": "2", "rollout": 8, "many_runs": False, "starts": [], "parameters": 12_345,
    "config": {"gamma": 0.99, "architecture": "film", "hidden": [64, 64]}, "source": "a zoo of <agents>",
    "tuning": {"trials": 0, "steps": 0},
}  # fmt: skip
"""What a plan freezes of an agent that trains one run at a time."""

Score = Callable[[Mapping[str, Any], int, np.ndarray, np.random.Generator], np.ndarray]
"""A run, the number of a task and steps ``(checkpoints,)`` to scores ``(checkpoints,)``."""


def planted(speed_ups: Mapping[str, float] = SPEED_UPS, scratch_steps: float = 120_000) -> Score:
    """A straight rise to 1, as many times faster than scratch as the run's arm says."""

    def score(run: Mapping[str, Any], task: int, steps: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        rate = speed_ups[run["arm"]] * np.exp(0.15 * rng.standard_normal())
        return np.minimum(steps * rate / scratch_steps, 1.0) + 0.02 * rng.standard_normal(len(steps))

    return score


def leave_one_out(
    folds: Sequence[int] = range(8),
    seeds: int = 3,
    arms: Sequence[str] = tuple(SPEED_UPS)[:7],
    control_folds: Sequence[int] = (0,),
    finetunes: int = 1,
    finetune_folds: Sequence[int] = (),
    **changes: Any,
) -> dict[str, Any]:
    """A plan of all arms."""
    runs = []
    everything = list(range(len(TASKS)))
    for fold in folds:
        for arm in arms:
            if arm in ("normalizer", "shuffled", "ceiling") and fold not in control_folds:
                continue
            for seed in range(seeds):
                start = None
                sources = {
                    "scratch": [], "single_source": [(fold + 1) % len(TASKS)], "ceiling": everything,
                }.get(arm, [k for k in everything if k != fold])  # fmt: skip
                if sources:
                    # controls start from the networks of transfer
                    owner = "transfer" if arm in ("normalizer", "shuffled") else arm
                    start = f"pretrain-{fold}-{owner}-{seed}"
                    if owner == arm:
                        runs.append(_run(start, "pretrain", fold, arm, seed, sources, 400_000))
                several = range(finetunes if arm == "transfer" and fold in finetune_folds else 1)
                runs += [
                    _run(
                        f"learn-{fold}-{arm}-{seed}-{f}",
                        "learn",
                        fold,
                        arm,
                        seed,
                        [fold],
                        GRID[-1],
                        start,
                        f,
                    )
                    for f in several
                ]
    named = {"finetune_folds": list(finetune_folds), "control_folds": list(control_folds)}
    return _plan("leave_one_out", folds, arms, runs, seeds, finetunes=finetunes, **named, **changes)


def dose(
    doses: Sequence[str], folds: Sequence[int] = (0, 1), seeds: int = 3, **changes: Any
) -> dict[str, Any]:
    """A plan of doses, such as ``sources=1`` or ``steps=100000``."""
    runs = []
    for fold in folds:
        for arm in ("scratch", *doses):
            for seed in range(seeds):
                start = None if arm == "scratch" else f"pretrain-{fold}-{arm}-{seed}"
                if start:
                    number = int(arm.split("=")[1]) if arm.startswith("sources") else 7
                    sources = [k for k in range(len(TASKS)) if k != fold][:number]
                    runs.append(_run(start, "pretrain", fold, arm, seed, sources, 400_000))
                name = f"learn-{fold}-{arm}-{seed}"
                runs.append(_run(name, "learn", fold, arm, seed, [fold], GRID[-1], start))
    return _plan("dose", folds, ("scratch", *doses), runs, seeds, **changes)


def matrix(tasks: Sequence[int] = range(4), seeds: int = 2) -> dict[str, Any]:
    """A plan of every task as the only source of every other."""
    runs = [
        _run(f"pretrain-{source}-{seed}", "pretrain", -1, f"from={TASKS[source]}", seed, [source], 400_000)
        for source in tasks
        for seed in range(seeds)
    ]
    for target in tasks:
        for source in (None, *tasks):
            if source == target:
                continue
            arm = "scratch" if source is None else f"from={TASKS[source]}"
            for seed in range(seeds):
                start = None if source is None else f"pretrain-{source}-{seed}"
                name = f"learn-{target}-{'scratch' if source is None else source}-{seed}"
                runs.append(_run(name, "learn", target, arm, seed, [target], GRID[-1], start))
    arms = ("scratch", *(f"from={TASKS[source]}" for source in tasks))
    return _plan("matrix", tasks, arms, runs, seeds)


def joint(
    tasks: Sequence[int] = range(3),
    seeds: int = 3,
    arms: Sequence[str] = ("separate", "joint", "joint-wide"),
    **changes: Any,
) -> dict[str, Any]:
    """A plan of joint networks of two sizes and of separate ones, or of some of these."""
    total = [step * len(tasks) for step in GRID]
    runs = []
    for seed in range(seeds):
        for task in tasks if "separate" in arms else ():
            runs.append(_run(f"separate-{task}-{seed}", "learn", task, "separate", seed, [task], GRID[-1]))
        for arm in (arm for arm in arms if arm != "separate"):
            runs.append(_run(f"{arm}-{seed}", "learn", -1, arm, seed, list(tasks), total[-1]))
    return _plan("joint", [], arms, runs, seeds, joint_checkpoints=total, **changes)


def write_plan_and_rows(
    directory: Path,
    plan: Mapping[str, Any],
    score: Score | None = None,
    competence: float | Mapping[str, float] = 0.9,
    skip: Sequence[str] = (),
    failed: Mapping[str, str] | None = None,
) -> Path:
    """Writes a plan and the rows of all its runs but those in ``skip``.

    ``competence`` is that of all pretrained networks, or by arm; ``failed`` are runs with their error.
    """
    score = score or planted()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "plan.json").write_text(json.dumps(plan | {"sha256": digest(plan)}))
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    for number, run in enumerate(plan["runs"]):
        if run["id"] in skip:
            continue
        rng = np.random.default_rng(number)
        able = (
            competence[run["arm"]]
            if isinstance(competence, Mapping) and run["phase"] == "pretrain"
            else competence
        )
        rows = []
        if run["phase"] == "pretrain":
            held_out = [] if run["fold"] < 0 else [run["fold"]]
            for task in dict.fromkeys([*run["tasks"], *held_out]):
                rows.append(_row(run, 0, run["steps"], names[task], able, "true"))
            # a network that is told nothing, or has learned the task, is not told otherwise
            if run["conditioning"] != "none" and not {*held_out} <= {*run["tasks"]}:
                for code, g in (("mean", 0.3), ("wrong", 0.1)):
                    noisy = g + 0.05 * rng.standard_normal()
                    rows.append(_row(run, 0, run["steps"], names[run["fold"]], noisy, code))
        else:
            steps = plan["joint_checkpoints" if run["arm"].startswith("joint") else "checkpoints"]
            for task in run["tasks"]:
                # a joint network's steps are shared out evenly
                own = np.array(steps, float) / len(run["tasks"])
                scores = score(run, task, own, rng)
                rows += [
                    _row(run, c, s, names[task], g, "true")
                    for c, (s, g) in enumerate(zip(steps, scores, strict=True))
                ]
        folder = directory / "runs" / run["id"]
        folder.mkdir(parents=True)
        (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        done = {"run": run["id"], "status": "finished", "steps": run["steps"], "wall_seconds": 61.5}
        done |= {"updates": run["steps"] // 1000, "parameters": 9000, "cohort_runs": 20}
        if failed and run["id"] in failed:
            done |= {"status": "failed", "error": failed[run["id"]]}
        (folder / "done.json").write_text(json.dumps(done))
    return directory


def _plan(
    kind: str,
    folds: Sequence[int],
    arms: Sequence[str],
    runs: list[dict[str, Any]],
    seeds: int,
    **changes: Any,
) -> dict[str, Any]:
    hashes = {name: hashlib.sha256(name.encode()).hexdigest() for name in TASKS}
    distances = {
        one: {
            two: float(np.linalg.norm(np.subtract(DESCRIPTORS[one], DESCRIPTORS[two])))
            for two in TASKS
            if two != one
        }
        for one in TASKS
    }
    return make_plan([], 1) | {
        "format": 2,
        "kind": kind,
        "folds": list(folds),
        "arms": list(arms),
        "seeds": seeds,
        "checkpoints": GRID,
        "break_even_threshold": 0.5,
        "equivalence": 1.1,
        "exclusion": {"damaged": "Rows that are not at the plan's checkpoints are left out."},
        "leaks": {
            "models": hashes,
            "goals": dict.fromkeys(TASKS, "0" * 64),
            "min_distance": 0.1,
            "distances": distances,
            "seeds": {
                "runs": len(runs),
                "evaluation": 22 * len(TASKS),
                "training_below": 2**31,
                "evaluation_from": 2**31 + 5,
            },
        },
        "descriptors": DESCRIPTORS,
        "tuning": {"trials": 12, "steps": 200_000, "shared": True},
        "runs": runs,
        "cohorts": [[run["id"] for run in runs]],
    } | changes  # fmt: skip


def _run(
    name: str,
    phase: str,
    fold: int,
    arm: str,
    seed: int,
    tasks: Sequence[int],
    steps: int,
    start: str | None = None,
    finetune: int = 0,
) -> dict[str, Any]:
    run = {"id": name, "phase": phase, "fold": fold, "arm": arm, "seed": seed, "finetune": finetune}
    init = {"normalizer": "normalizer", "shuffled": "shuffled"}.get(arm, "all") if start else None
    conditioning = "none" if arm == "blind" else "descriptor"
    return run | {
        "tasks": list(tasks),
        "steps": steps,
        "start": start,
        "init": init,
        "conditioning": conditioning,
    }


def _row(
    run: Mapping[str, Any], checkpoint: int, steps: int, task: str, score: float, code: str
) -> dict[str, Any]:
    return {
        "run": run["id"],
        "checkpoint": checkpoint,
        "steps": steps,
        "task": task,
        "code": code,
        # as the store keeps what is not finite
        "return_mean": None if np.isnan(score) else RANDOM + (REFERENCE - RANDOM) * float(score),
        "return_std": 40.0,
        "length_mean": 400.0,
        "success": float(score > 0.5),
        "episodes": 112 if checkpoint == 0 else 16,
        "diverged": False,
    }
