"""Synthetic learners with a planted speed-up, written through the store as a trainer would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from harness.plan import write_plan
from harness.store import CODES, ROW_COLUMNS, Store, digest

CHECKPOINTS = [0, *(1000 * 2**i for i in range(5)), *range(24_000, 217_000, 8_000)]
FINE = list(range(0, 203_000, 1000))
BUDGET = 200_000
RANDOM, REFERENCE = 20.0, 420.0
TASKS = ["nominal", "long-shins", "short-torso", "heavy-legs", "big-feet", "lopsided", "weak", "giant <b>&"]


def make_plan(folds: Sequence[int], seeds: int = 5, **changes: Any) -> dict[str, Any]:
    runs = []
    for fold in folds:
        sources = [k for k in range(len(TASKS)) if k != fold]
        for seed in range(seeds):
            pretraining = f"pretrain-{fold}-{seed}"
            for name, phase, arm, tasks, steps, start in (
                (pretraining, "pretrain", "transfer", sources, 400_000, None),
                (f"transfer-{fold}-{seed}", "learn", "transfer", [fold], CHECKPOINTS[-1], pretraining),
                (f"scratch-{fold}-{seed}", "learn", "scratch", [fold], CHECKPOINTS[-1], None),
            ):
                run = {"id": name, "phase": phase, "fold": fold, "arm": arm, "seed": seed}
                runs.append(run | {"tasks": tasks, "steps": steps, "start": start})
    return {
        "title": "Biped: synthetic <learners>",
        "family": "Biped",
        "preset": "synthetic",
        "exploratory": False,
        "tasks": [
            {
                "family": "Biped",
                "name": name,
                "number": i,
                "parameters": {"shin": 0.4 + 0.01 * i, "torso": 0.5},
            }
            for i, name in enumerate(TASKS)
        ],
        "folds": list(folds),
        "arms": ["scratch", "transfer"],
        "seeds": seeds,
        "budget": BUDGET,
        "pretrain_budget": 400_000,
        "worlds_per_run": 56,
        "checkpoints": CHECKPOINTS,
        "episodes": 16,
        "first_episodes": 112,
        "thresholds": [round(0.1 + 0.05 * i, 2) for i in range(15)],
        "break_even_threshold": 0.5,
        "primary": "speed_up",
        "headline": "all_folds",
        "learner": {"name": "ppo", "config": {"gamma": 0.99, "hidden": [64, 64]}},
        "reference": {
            "version": "1",
            "scores": {name: {"random": RANDOM, "zero": 5.0, "reference": REFERENCE} for name in TASKS},
        },
        "runs": runs,
        "cohorts": [[run["id"] for run in runs]],
    } | changes


Curve = Callable[[np.ndarray, str, int], np.ndarray]
"""Steps ``(checkpoints,)``, arm and seed to scores ``(checkpoints,)``."""


def ramp(speed_up: float, seed: int = 0, start: float = 0.0, plateau: float = 1.0, spread: float = 0.15,
         noise: float = 0.02, scratch_steps: float = 150_000) -> Curve:  # fmt: skip
    """A straight rise from ``start`` (transfer only), ``speed_up`` times faster with transfer.

    Give every fold another ``seed``: folds with equal ones have equal runs from scratch.
    """

    def curve(steps: np.ndarray, arm: str, run_seed: int) -> np.ndarray:
        rng = np.random.default_rng([seed, run_seed, arm == "transfer"])
        tau = scratch_steps * np.exp(spread * rng.standard_normal())
        first = 0.0
        if arm == "transfer":
            tau, first = tau / speed_up, start
        g = np.minimum(first + steps / tau, plateau)
        return g + noise * rng.standard_normal(len(steps))

    return curve


def write(
    directory: Path,
    curves: Mapping[int, Curve],
    seeds: int = 5,
    skip: Sequence[str] = (),
    diverge: Mapping[str, int] | None = None,
    competence: Mapping[int, float] | None = None,
    order: int = 0,
    **changes: Any,
) -> Path:
    """Writes a plan and the rows of all its runs.

    Args:
        directory: where to.
        curves: for every fold its learners.
        seeds: per fold and arm.
        skip: ids of runs that are not trained.
        diverge: ids of runs that diverge, with the first checkpoint that is lost.
        competence: score of the pretrained networks on their sources, by fold; 0.9 otherwise.
        order: seed of the order in which runs are trained and lines written.
        changes: other entries of the plan.
    """
    directory.mkdir(parents=True, exist_ok=True)
    plan = make_plan(list(curves), seeds, **changes)
    plan = plan | {"sha256": digest(plan)} | changes
    (directory / "plan.json").write_text(json.dumps(plan))
    store = Store(directory)
    rng = np.random.default_rng(order)
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    for i in rng.permutation(len(plan["runs"])):
        run = plan["runs"][i]
        if run["id"] in skip:
            continue
        store.begin(run["id"])
        if run["phase"] == "pretrain":
            g = (competence or {}).get(run["fold"], 0.9)
            rows = [_row(run, 0, run["steps"], names[k], g) for k in [*run["tasks"], run["fold"]]]
            cut = len(rows)
        else:
            scores = curves[run["fold"]](np.array(plan["checkpoints"], float), run["arm"], run["seed"])
            rows = [
                _row(run, c, s, names[run["fold"]], g)
                for c, (s, g) in enumerate(zip(plan["checkpoints"], scores, strict=True))
            ]
            cut = (diverge or {}).get(run["id"], len(rows))
        rows = rows[:cut]
        store.append([rows[j] for j in rng.permutation(len(rows))])
        status = "diverged" if run["id"] in (diverge or {}) else "finished"
        store.finish(
            run["id"],
            {
                "status": status,
                "steps": run["steps"],
                "wall_seconds": 2.5,
                "updates": 100,
                "parameters": 9000,
            },
        )
    return directory


def write_planned(directory: Path, plan: Mapping[str, Any], curves: Mapping[int, Curve]) -> Path:
    """Writes a plan of :func:`harness.plan.make_plan` and the rows of all its runs, all finished.

    Args:
        directory: where to.
        plan: the plan.
        curves: for every fold its learners.
    """
    write_plan(plan, directory)
    store = Store(directory)
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    for run in plan["runs"]:
        store.begin(run["id"])
        if run["phase"] == "pretrain":
            points = [(0, run["steps"], names[k], 0.9) for k in [*run["tasks"], run["fold"]]]
            told = [(0, run["steps"], names[run["fold"]], 0.5)] * 2
        else:
            scores = curves[run["fold"]](np.array(plan["checkpoints"], float), run["arm"], run["seed"])
            points = [
                (c, steps, names[run["fold"]], g)
                for c, (steps, g) in enumerate(zip(plan["checkpoints"], scores, strict=True))
            ]
            told = []
        store.append([_row(run, *point, plan["reference"]["scores"]) for point in points])
        store.append(
            [
                _row(run, *point, plan["reference"]["scores"]) | {"code": code}
                for point, code in zip(told, CODES[1:], strict=False)
            ]
        )
        record = {"steps": run["steps"], "wall_seconds": 2.5, "updates": 100, "parameters": 9000}
        store.finish(run["id"], {"status": "finished", **record})
    return directory


def stalls(curve: Curve, arm: str, plateau: float) -> Curve:
    """The same learners, but that those of one arm never score more than ``plateau``."""

    def stalled(steps: np.ndarray, of_arm: str, seed: int) -> np.ndarray:
        g = curve(steps, of_arm, seed)
        return np.minimum(g, plateau) if of_arm == arm else g

    return stalled


def fails(curve: Curve, arm: str, seeds: Sequence[int]) -> Curve:
    """The same learners, but that those of some seeds of one arm learn nothing."""

    def failing(steps: np.ndarray, of_arm: str, seed: int) -> np.ndarray:
        return np.zeros(len(steps)) if of_arm == arm and seed in seeds else curve(steps, of_arm, seed)

    return failing


def _row(
    run: Mapping[str, Any],
    checkpoint: int,
    steps: int,
    task: str,
    score: float,
    scores: Mapping[str, Mapping[str, float]] | None = None,
) -> dict[str, Any]:
    of_task = {"random": RANDOM, "reference": REFERENCE} if scores is None else scores[task]
    row = {
        "run": run["id"],
        "checkpoint": checkpoint,
        "steps": steps,
        "task": task,
        "code": "true",
        "return_mean": of_task["random"] + (of_task["reference"] - of_task["random"]) * float(score),
        "return_std": 10.0,
        "length_mean": 400.0,
        "success": float(score > 0.5),
        "episodes": 112 if checkpoint == 0 else 16,
        "diverged": False,
    }
    return {key: row[key] for key in ROW_COLUMNS}
