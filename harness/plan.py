"""The plan: the frozen list of runs, written before anything is trained (PROTOCOL §7).

A plan is JSON with a SHA-256 over its canonical form. It holds everything that decides a result:
tasks, folds, arms, seeds, budgets, checkpoints, hyperparameters and reference scores, copied in.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import mtenvs
from harness.reference_scores import load_reference
from mtenvs.conditioning import check_conditioning, check_layout
from mtenvs.spec import Family

FORMAT = 1
PLAN = "plan.json"
ARMS = ("scratch", "transfer")
THRESHOLDS = tuple(round(0.10 + 0.05 * i, 2) for i in range(15))  # 0.10 ... 0.80 (PROTOCOL §4.3)
BEYOND_BUDGET = 2  # checkpoints that the three-checkpoint rule of arrival needs after the budget


_DECIDES_ALL = ("mtenvs", "version", "worlds_per_run", "episodes", "conditioning", "layout", "learner")
_DECIDES_LEARNING = ("checkpoints", "first_episodes")


class PlanError(ValueError):
    """A plan that cannot be made, read or trusted."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """What a leave-one-out experiment does, but for the family. Field names are command-line options."""

    title: str = "leave-one-out"
    """Title of the report."""
    exploratory: bool = False
    """Marks the report as exploratory: too small or too informal to conclude from."""
    folds: tuple[int, ...] | None = None
    """Numbers of the tasks to hold out, one after another; None for all."""
    arms: tuple[str, ...] = ARMS
    """What the held-out learner starts from."""
    seeds: int = 10
    """Pretraining seeds per fold, and scratch seeds per fold."""
    budget: int = 400_000
    """B: control steps that learning the held-out task may take, rounded up to whole rollouts."""
    pretrain_budget: int = 1_500_000
    """Control steps of training on the other tasks, all together."""
    worlds_per_run: int = 56
    """Worlds of every run, in pretraining dealt to the tasks; equal in all arms. Rounded down to
    a multiple of the number of source tasks."""
    checkpoints: int = 20
    """Evaluations from step 0 to the budget; two more follow beyond it."""
    episodes: int = 16
    """Evaluation episodes per checkpoint."""
    first_episodes: int = 112
    """Evaluation episodes at step 0, for the jumpstart; at least 100."""
    conditioning: str = "descriptor"
    """What networks are told of their task."""
    layout: str | None = None
    """How bodies of unequal size share the observation; None for the family's default."""
    learner: str = "ppo"
    """Name of the learner."""
    cohort_runs: int = 20
    """At most so many runs are trained as one batch."""
    root_seed: int = 0
    """Every seed of the plan derives from it."""


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        title="quick leave-one-out",
        exploratory=True,
        folds=(3, 5),
        seeds=3,
        budget=200_000,
        pretrain_budget=400_000,
    ),
    "standard": Preset(title="standard leave-one-out"),
}
"""Experiments by name: ``quick`` shows the machinery in minutes, ``standard`` is to conclude from."""


def checkpoint_steps(budget: int, count: int, rollout: int) -> list[int]:
    """Steps of the evaluations: 0, then doubling from 1,000 until linear steps to the budget are finer.

    Args:
        budget: B, control steps.
        count: evaluations from 0 to the budget.
        rollout: control steps between updates; every checkpoint is rounded up to whole rollouts.

    Returns:
        ``count + 2`` steps, the last two beyond the budget; fewer where rounding makes some equal.

    Raises:
        PlanError: if fewer than four different checkpoints would remain.
    """
    doubling = [0]
    while True:
        # linear: size of a step if the rest were linear from here on; gap: of the next doubling one
        linear = (budget - doubling[-1]) / (count - len(doubling))
        gap = doubling[-1] or 1000
        if linear <= gap or len(doubling) == count - 1:
            break
        doubling.append(doubling[-1] + gap)
    rest = count - len(doubling)
    steps = doubling + [doubling[-1] + linear * (i + 1) for i in range(rest + BEYOND_BUDGET)]
    rounded = sorted({math.ceil(s / rollout - 1e-9) * rollout for s in steps})
    if len(rounded) < 4:
        raise PlanError(
            f"budget {budget} is too small for rollouts of {rollout} steps: only checkpoints {rounded}"
        )
    return rounded


def make_plan(
    family: str, preset: Preset, learner: Mapping[str, Any], preset_name: str = "custom"
) -> dict[str, Any]:
    """Writes out a preset for a family as the full list of runs.

    Args:
        family: name of the family.
        preset: what to do.
        learner: what is frozen of the learner: ``name``, ``rollout`` (control steps of a world between
            updates) and ``config`` (JSON).
        preset_name: for the records.

    Raises:
        PlanError: for folds, arms or numbers that make no experiment, or missing reference scores.
        ValueError: for an unknown family or conditioning.
        FileNotFoundError: if the family has no reference scores.
    """
    definition = mtenvs.get_family(family)
    _check(preset, definition)
    # dealt evenly to the sources in pretraining
    num_sources = len(definition.tasks) - 1
    worlds_per_run = preset.worlds_per_run // num_sources * num_sources
    rollout = learner["rollout"] * worlds_per_run
    # whole rollouts, so that a checkpoint lies exactly at the budget and an arrival there still counts
    budget = math.ceil(preset.budget / rollout) * rollout
    folds = [f for f in mtenvs.leave_one_out(family) if preset.folds is None or f.number in preset.folds]
    plan: dict[str, Any] = {
        "format": FORMAT,
        "title": f"{definition.name}: {preset.title}",
        "preset": preset_name,
        "exploratory": preset.exploratory,
        "family": definition.name,
        "version": definition.version,
        "mtenvs": mtenvs.__version__,
        "tasks": [task.to_dict() for task in definition.tasks],
        "folds": [fold.number for fold in folds],
        "arms": list(preset.arms),
        "seeds": preset.seeds,
        "budget": budget,
        "pretrain_budget": preset.pretrain_budget,
        "worlds_per_run": worlds_per_run,
        "checkpoints": checkpoint_steps(budget, preset.checkpoints, rollout),
        "episodes": preset.episodes,
        "first_episodes": preset.first_episodes,
        "thresholds": list(THRESHOLDS),
        "primary": "speed_up",
        "headline": "all_folds",
        "conditioning": preset.conditioning,
        **({"layout": check_layout(definition, preset.layout)} if definition.layouts else {}),
        "learner": dict(learner),
        "reference": load_reference(definition.name, definition.version),
        "cohort_runs": preset.cohort_runs,
        "root_seed": preset.root_seed,
    }
    unscored = [t.name for t in definition.tasks if t.name not in plan["reference"]["scores"]]
    if unscored:
        raise PlanError(f"no reference scores for {', '.join(unscored)}: run 'mtenvs reference {family}'")
    runs: list[dict[str, Any]] = []
    cohorts: list[list[str]] = []
    # cohorts hold whole folds where they fit, and never mix pretraining with what starts from it
    step = max(1, preset.cohort_runs // (preset.seeds * len(preset.arms)))
    for i in range(0, len(folds), step):
        chunk = folds[i : i + step]
        before: list[dict[str, Any]] = []
        after: list[dict[str, Any]] = []
        for fold in chunk:
            for arm in preset.arms:
                for seed in range(preset.seeds):
                    start = None
                    if arm == "transfer":
                        sources = [t.number for t in fold.sources if t.number is not None]
                        pretraining = _run(plan, "pretrain", fold.number, arm, seed, sources, None)
                        before.append(pretraining)
                        start = pretraining["id"]
                    after.append(_run(plan, "learn", fold.number, arm, seed, [fold.number], start))
        for group in (before, after):
            runs += group
            ids = [run["id"] for run in group]
            cohorts += [ids[j : j + preset.cohort_runs] for j in range(0, len(ids), preset.cohort_runs)]
    plan |= {"runs": runs, "cohorts": cohorts}
    plan["sha256"] = digest(plan)
    return plan


def _check(preset: Preset, family: Family) -> None:
    known = [t.number for t in family.tasks]
    check_conditioning(preset.conditioning)
    check_layout(family, preset.layout)
    unknown = [f for f in preset.folds or () if f not in known]
    if unknown or preset.folds == ():
        raise PlanError(f"unknown folds {list(preset.folds or ())}; valid: {known}")
    if len(set(preset.folds or ())) != len(preset.folds or ()):
        raise PlanError(f"folds {list(preset.folds or ())} name a task twice; use each at most once")
    arms = [a for a in preset.arms if a not in ARMS]
    if arms or "scratch" not in preset.arms or len(set(preset.arms)) != len(preset.arms):
        raise PlanError(
            f"unusable arms {list(preset.arms)}; valid: scratch and any of {list(ARMS)}, once each"
        )
    for name in ("seeds", "budget", "pretrain_budget", "worlds_per_run", "episodes", "cohort_runs"):
        if getattr(preset, name) < 1:
            raise PlanError(f"{name} must be positive, got {getattr(preset, name)}")
    if preset.root_seed < 0:
        raise PlanError(f"root_seed must not be negative, got {preset.root_seed}")
    if preset.first_episodes < 100:
        raise PlanError(f"first_episodes must be at least 100, got {preset.first_episodes}")
    if preset.checkpoints < 4:
        raise PlanError(f"checkpoints must be at least 4, got {preset.checkpoints}")
    sources = len(known) - 1
    if preset.worlds_per_run < sources:
        raise PlanError(
            f"worlds_per_run={preset.worlds_per_run} is too few for {sources} source tasks; "
            f"use at least {sources}"
        )


def _run(
    plan: Mapping[str, Any],
    phase: str,
    fold: int,
    arm: str,
    seed: int,
    tasks: Sequence[int],
    start: str | None,
) -> dict[str, Any]:
    """One run, keyed by the hash of all that decides its result."""
    key = [plan["root_seed"], plan["family"], fold, phase, arm, seed]
    run: dict[str, Any] = {
        "phase": phase,
        "fold": fold,
        "arm": arm,
        "seed": seed,
        "tasks": list(tasks),
        "steps": plan["pretrain_budget"] if phase == "pretrain" else plan["checkpoints"][-1],
        "start": start,
        # streams are keyed by name, so that folds and arms do not share initial weights
        "entropy": int(_sha256(key)[:15], 16),
    }
    decides = {
        "run": run,
        "tasks": [plan["tasks"][k] for k in tasks],
        "held_out": plan["tasks"][fold],
        **{name: plan[name] for name in _DECIDES_ALL if name in plan},
        # when a pretraining is evaluated is no matter of its own: it is, once, at its end
        **({} if phase == "pretrain" else {name: plan[name] for name in _DECIDES_LEARNING}),
    }
    return {"id": f"{phase}-{fold}-{arm}-{seed}-{_sha256(decides)[:10]}", **run}


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def digest(plan: Mapping[str, Any]) -> str:
    """SHA-256 of a plan's canonical form, without its own field."""
    return _sha256({key: value for key, value in plan.items() if key != "sha256"})


def write_plan(plan: Mapping[str, Any], directory: Path) -> Path:
    """Writes ``plan.json`` into a new or empty directory, or leaves an equal one as it is.

    Raises:
        PlanError: if the directory holds something else; nothing is touched.
    """
    path = directory / PLAN
    if path.exists():
        if load_plan(directory)["sha256"] != plan["sha256"]:
            raise PlanError(
                f"{path} is another plan than the one asked for; a plan never changes once written. "
                "Choose another --out, or continue that one with 'mtenvs run'"
            )
        return path
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise PlanError(f"{directory} is not empty and holds no {PLAN}; choose a new directory for --out")
    directory.mkdir(parents=True, exist_ok=True)
    part = directory / f".{PLAN}.part"
    part.write_text(json.dumps(plan, indent=1, ensure_ascii=True) + "\n")
    os.replace(part, path)
    return path


def load_plan(directory: Path) -> dict[str, Any]:
    """Reads a plan and checks its hash.

    Raises:
        PlanError: if there is none, it cannot be read, or it was edited after it was frozen.
    """
    path = directory / PLAN
    if not path.is_file():
        raise PlanError(
            f"{directory} holds no {PLAN}; make one with 'mtenvs plan FAMILY --out {directory}'"
        )
    try:
        plan = json.loads(path.read_text())
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise PlanError(f"{path} is not JSON: {error}") from None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise PlanError(f"{path} is no plan of format {FORMAT}")
    if plan.get("sha256") != digest(plan):
        raise PlanError(
            f"{path} was edited after it was frozen: its sha256 is {plan.get('sha256')}, its content's "
            f"{digest(plan)}. Restore the file, or make a new plan in a new directory"
        )
    return plan
