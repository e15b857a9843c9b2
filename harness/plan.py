"""The plan: the frozen list of runs, written before anything is trained (PROTOCOL §7).

A plan is JSON with a SHA-256 over its canonical form. It holds everything that decides a result:
tasks, folds, arms, seeds, budgets, checkpoints, hyperparameters and reference scores, copied in; and
the proof that no held-out task leaks into the training before it.

Three experiments share this form. *Leave-one-out* compares arms on held-out tasks; its arms may also be
doses (``sources=3``, ``steps=100000``). A *matrix* learns every task from the network of every other.
*Joint* trains one network on all tasks beside one network for each.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mtenvs
from harness import measures
from harness.family_code import family_code
from harness.joint import SEPARATE
from harness.measures import DOSES
from harness.reference_scores import load_reference
from harness.schema import CONTROLS, INTERPOLATED, MOST_WORLDS, OF_RUN, REPORTED, check_plan, parsed
from harness.statistics import EQUIVALENT
from harness.store import content_hash, differences, digest
from mtenvs.conditioning import check_conditioning, check_layout
from mtenvs.spec import Family, Task, did_you_mean

FORMAT = 2
PLAN = "plan.json"
ARMS = ("scratch", "transfer", "blind", "single_source", "normalizer", "shuffled", "ceiling")
"""The arms of PROTOCOL §5."""
SWITCHES = ("freeze_trunk", "fresh_heads", "fresh_critic", "keep_optimizer", "reset_log_std")
"""What of a network that is handed on starts otherwise than it was; fields of :class:`Preset`."""
JOINT_ARMS = (SEPARATE, *measures.JOINT_ARMS)
"""Arms of a joint plan: one network a task; one for all of the same width; one of as many parameters."""
_OF_ARMS = ("arms", "control_folds", "control_seeds", "finetunes", "finetune_folds")
_OF_TRANSFER = (
    "headline",
    "pretrain_budget",
    "new_code",
    "min_distance",
    "break_even_threshold",
    *SWITCHES,
)
UNUSED = {
    "loo": ("joint_arms",),
    "joint": (*_OF_ARMS, *_OF_TRANSFER),
    "matrix": (*_OF_ARMS, "joint_arms", "headline", "break_even_threshold"),
}
"""Fields of :class:`Preset` that say nothing to an experiment of a kind. Functions that make plans pass
most of them over, as presets are shared; the command line refuses all values that are not the preset's."""
THRESHOLDS = tuple(round(0.10 + 0.05 * i, 2) for i in range(15))  # 0.10 ... 0.80 (PROTOCOL §4.3)
NEW_CODES = {"descriptor": ("true", "mean"), "one_hot": ("unused", "mean"), "none": ()}
"""What can be told of a new task, by conditioning; the first if nothing is said."""
HEADLINES = ("all_folds", "not_yet_solved")
"""Sets of folds that a plan may name as its headline (PROTOCOL §4.3)."""
BEYOND_BUDGET = 2  # checkpoints that the three-checkpoint rule of arrival needs after the budget
TRAINING_SEEDS = 2**31
"""Seeds of training worlds are below, those of evaluation are not: they start from other states."""
NO_FOLD = -1
"""Fold of a run for which no task is held out."""
EXCLUSION = {
    "diverged": "a run that met a number which is not finite stays in, with Y = B where it had not arrived",
    "failed": "a run that was lost is trained again with its own seed, never dropped",
    "damaged": "a finished run whose rows are not at the plan's checkpoints is left out and the report "
    "incomplete, until 'mtenvs run' has trained it again",
    "changed": "a run whose rows are not those that it was finished with stays in, and the report is "
    "exploratory",
}
"""What happens to runs that are not as they should be; there are no other reasons to leave one out."""

COHORT_RUNS = 20
"""Runs that are trained as one batch where nothing else is said: more are hardly faster on two cores."""
MOST_RUNS = 20_000
"""Of a plan, fine-tunings and pretrainings included: with more it would take hours to write."""
MOST_EPISODES = 250_000
"""Of a run, over all its checkpoints."""
MOST = {
    **dict.fromkeys(("budget", "pretrain_budget", "tuning_steps"), 10**13),
    **dict.fromkeys(("worlds_per_run", "cohort_runs", "tuning_trials"), MOST_WORLDS),
    **dict.fromkeys(("seeds", "control_seeds", "finetunes"), MOST_RUNS),
    **dict.fromkeys(("episodes", "first_episodes", "checkpoints"), MOST_EPISODES),
    "root_seed": 2**64,
    "min_distance": 1e6,
}
"""Numbers of a preset that are too large to be meant."""
MOST_DIFFERENCES = 6
"""Entries in which two plans differ that a message names."""
_DECIDES_ALL = ("mtenvs", "version", "worlds_per_run", "episodes", "first_episodes", "layout")
_DECIDES_OF_LEARNER = ("name", "version", "rollout", "config")


class PlanError(ValueError):
    """A plan that cannot be made, read or trusted."""


@dataclasses.dataclass(frozen=True)
class Preset:
    """What an experiment does, but for the family. Field names are command-line options."""

    title: str = "leave-one-out"
    """Title of the report."""
    exploratory: bool = False
    """Marks the report as exploratory: too small or too informal to conclude from."""
    folds: tuple[int, ...] | None = None
    """Numbers of the tasks to hold out, one after another, or to train jointly on; None for all."""
    arms: tuple[str, ...] = ("scratch", "transfer", "blind", "single_source")
    """What the held-out learner starts from: any of the protocol's seven, and doses such as sources=3
    or steps=100000."""
    control_folds: tuple[int, ...] | None = None
    """Folds on which normalizer, shuffled and ceiling are planned, at least one of those held out; None
    for all."""
    control_seeds: int | None = None
    """Seeds of normalizer, shuffled and ceiling, where fewer than of the other arms are enough; None for as
    many."""
    headline: str = "all_folds"
    """Set of folds of the headline: all_folds, or not_yet_solved."""
    arrivals: str = INTERPOLATED
    """When a run arrives at a score that it has at a checkpoint and had not at the one before:
    interpolated, where the line between the two crosses it; or checkpoint, at the one that shows it."""
    seeds: int = 10
    """Pretraining seeds per fold, and scratch seeds per fold; seeds of every joint or separate network."""
    finetunes: int = 1
    """Fine-tunings of every network of the arm transfer on the folds named below."""
    finetune_folds: tuple[int, ...] = ()
    """Folds with several fine-tunings, so that the report can split the variance."""
    budget: int = 400_000
    """B: control steps that learning the held-out task may take, rounded up to whole rollouts."""
    pretrain_budget: int | None = None
    """Control steps of training on the other tasks, all together. None for as many as learning takes, with
    its last checkpoints: then single_source starts from the networks of scratch, and none is trained for
    it."""
    worlds_per_run: int = 56
    """Worlds of every run, in pretraining dealt to the tasks; equal in all arms. Rounded down so that
    they can be dealt evenly."""
    checkpoints: int = 20
    """Evaluations from step 0 to the budget; two more follow beyond it."""
    episodes: int = 16
    """Evaluation episodes per checkpoint."""
    first_episodes: int = 112
    """Evaluation episodes at step 0, for the jumpstart; at least 100."""
    conditioning: str = "descriptor"
    """What networks are told of their task: descriptor, one_hot or none."""
    layout: str | None = None
    """How bodies of unequal size share the observation: index or arc in Octopus, None for the default."""
    new_code: str | None = None
    """What a network is told of a task that it was not pretrained on: true (its descriptor), unused (its
    own slot of a one_hot code) or mean (of the codes of its sources); None for true or unused, by the
    conditioning."""
    freeze_trunk: bool = False
    """Of a network that is handed on only the last layers learn, and what tells it of its task: FiLM's
    generators, the own first layers."""
    fresh_heads: bool = False
    """The last layers of a network that is handed on start afresh."""
    fresh_critic: bool = False
    """The critic of a network that is handed on starts afresh."""
    keep_optimizer: bool = False
    """The optimiser's state is handed on with the network."""
    reset_log_std: bool = False
    """The log standard deviation of actions starts afresh, whatever is handed on."""
    agent: str = "ppo"
    """Who learns: ppo, sb3:ppo, sb3:sac, sb3:td3, sb3:trpo, sb3:tqc, sb3:recurrentppo, or module:Class for
    one of your own (docs/agents.md)."""
    architecture: str | None = None
    """How networks use what they are told, where the agent has a choice: concatenation, film or own_layers
    in ppo. Hidden layers are made as wide as gives the parameters of the default. None for that."""
    hyperparameters: tuple[str, ...] = ()
    """Of the agent, where they are not to be its defaults: learning_rate=0.001 'hidden=[128, 128]'."""
    tuning_trials: int | None = None
    """Configurations that were tried, on sampled tasks, before this one was chosen; for the report. None
    for what the agent says of itself."""
    tuning_steps: int | None = None
    """Control steps of each of those trials."""
    min_distance: float = 0.1
    """No training task may lie closer to the held-out one, in descriptor units."""
    break_even_threshold: float = 0.5
    """θ at which the report counts what pretraining costs and saves; one of 0.10, 0.15 ... 0.80."""
    joint_arms: tuple[str, ...] = JOINT_ARMS
    """Arms of a joint experiment: joint, and beside it separate, joint-wide or both."""
    cohort_runs: int | None = None
    """At most so many runs are trained as one batch. None for 20, and on a GPU for as many as it holds."""
    root_seed: int = 0
    """Every seed of the plan derives from it."""


PRESETS: dict[str, Preset] = {
    "quick": Preset(
        title="quick leave-one-out",
        exploratory=True,
        folds=(3, 5),
        arms=("scratch", "transfer"),
        seeds=3,
        budget=200_000,
        pretrain_budget=400_000,
    ),
    "standard": Preset(title="standard leave-one-out", finetunes=3, finetune_folds=(3, 5)),
    "full": Preset(
        title="full leave-one-out",
        arms=ARMS,
        control_folds=(0, 2, 3, 5),
        seeds=20,
        finetunes=3,
        finetune_folds=(3, 5),
        pretrain_budget=1_500_000,
    ),
    "wide": Preset(title="wide leave-one-out", worlds_per_run=32 * 56, budget=32 * 400_000),
}
"""Experiments by name: ``quick`` shows the machinery in minutes, ``standard`` is to conclude from in at
most four hours a family on two cores, ``full`` has every arm and twice the seeds. ``wide``, for a GPU, is
another experiment: 32 times the worlds of ``standard`` for as many updates, of 32 times the data each."""


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
    """Writes out a leave-one-out experiment as the full list of runs.

    Args:
        family: name of the family.
        preset: what to do.
        learner: what is frozen of the agent, as of :class:`baselines.registry.LearnerDescription`.
        preset_name: for the records.

    Raises:
        PlanError: for folds, arms or numbers that make no experiment, missing reference scores, or a
            held-out task that leaks into the training before it.
        ValueError: for an unknown family or conditioning.
        FileNotFoundError: if the family has no reference scores.
    """
    definition = mtenvs.get_family(family)
    known = list(range(len(definition.tasks)))
    _check(preset, definition)
    _check_arms(preset, len(known) - 1)
    _check_starts(preset, preset.arms, learner)
    folds = known if preset.folds is None else sorted(preset.folds)
    controls = folds if preset.control_folds is None else sorted({*preset.control_folds} & {*folds})
    repeated = sorted({*preset.finetune_folds} & {*folds})
    # what is asked for and cannot be is said, not dropped
    if not controls and (of_none := [arm for arm in preset.arms if arm in CONTROLS]):
        raise PlanError(
            f"arms {', '.join(of_none)} have no fold: control_folds are "
            f"{list(preset.control_folds or ())}, folds {folds}"
        )
    if preset.finetunes > 1 and not repeated:
        raise PlanError(
            f"finetunes={preset.finetunes} has no fold: finetune_folds are {list(preset.finetune_folds)}, "
            f"folds {folds}; name one of these, or set finetunes to 1"
        )
    plan = _plan(definition, preset, learner, preset_name, "leave_one_out")
    if any("=" in arm for arm in preset.arms):
        plan["kind"] = "dose"
    plan |= {
        "folds": folds,
        "arms": list(preset.arms),
        "control_folds": controls,
        "control_seeds": preset.control_seeds or preset.seeds,
        "finetunes": preset.finetunes,
        "finetune_folds": repeated,
        "headline": preset.headline,
    }
    runs = _Runs(plan)
    for fold in folds:
        count = preset.finetunes if fold in plan["finetune_folds"] else 1
        for arm in preset.arms:
            if arm in CONTROLS and fold not in controls:
                continue
            for seed in range(plan["control_seeds"] if arm in CONTROLS else preset.seeds):
                runs.learn_held_out(definition, fold, arm, seed, count if arm == "transfer" else 1)
    return _frozen(plan, runs, definition)


def make_matrix_plan(
    family: str, preset: Preset, learner: Mapping[str, Any], preset_name: str = "custom"
) -> dict[str, Any]:
    """Writes out a source-by-target experiment: every fold's task is learned from every other's network.

    Networks of single tasks are trained once, for ``pretrain_budget`` steps, and shared by all targets.
    Arguments and errors as those of :func:`make_plan`.
    """
    definition = mtenvs.get_family(family)
    _check(preset, definition)
    _check_starts(preset, (), learner)
    names = [t.name for t in definition.tasks]
    folds = list(range(len(names))) if preset.folds is None else sorted(preset.folds)
    plan = _plan(definition, preset, learner, preset_name, "matrix")
    plan |= {
        "title": _title(definition, preset, "source by target"),
        "folds": folds,
        "arms": ["scratch", *(f"from={name}" for name in names)],
        "control_folds": [],
        "finetunes": 1,
        "finetune_folds": [],
        "headline": "all_folds",
    }
    runs = _Runs(plan)
    for target in folds:
        for seed in range(preset.seeds):
            runs.add("learn", target, "scratch", seed, [target])
            for source, name in enumerate(names):
                if source != target:
                    trained = runs.add("pretrain", NO_FOLD, f"from={name}", seed, [source])
                    runs.add("learn", target, f"from={name}", seed, [target], trained)
    return _frozen(plan, runs, definition)


def make_joint_plan(
    family: str,
    preset: Preset,
    learner: Mapping[str, Any],
    wide: Mapping[str, Any] | None = None,
    preset_name: str = "custom",
) -> dict[str, Any]:
    """Writes out the joint experiment: one network on all K tasks beside K networks (PROTOCOL §4.8).

    Separate networks train for the budget B each; the joint ones for K B steps, summed over tasks.

    Args:
        family: name of the family.
        preset: what to do; folds name the tasks, ``joint_arms`` the arms.
        learner: as for :func:`make_plan`.
        wide: configuration of the learner with about K times as many parameters; only for joint-wide.
        preset_name: for the records.

    Raises:
        PlanError: as :func:`make_plan`, or for fewer than two tasks.
    """
    definition = mtenvs.get_family(family)
    _check(preset, definition)
    chosen = list(range(len(definition.tasks))) if preset.folds is None else sorted(preset.folds)
    if len(chosen) < 2:
        raise PlanError(f"joint training needs at least two tasks, got {chosen}")
    arms = [arm for arm in JOINT_ARMS if arm in preset.joint_arms]
    if "joint" not in arms or len(arms) != len(preset.joint_arms):
        close = "".join(did_you_mean(arm, JOINT_ARMS) for arm in preset.joint_arms if arm not in JOINT_ARMS)
        raise PlanError(
            f"unusable joint_arms {list(preset.joint_arms)}{close}; valid: joint and any of "
            f"{list(JOINT_ARMS)}, once each"
        )
    if given := [name for name in (*SWITCHES, "new_code") if getattr(preset, name)]:
        raise PlanError(f"nothing is handed on in joint training: leave out {', '.join(given)}")
    plan = _plan(definition, preset, learner, preset_name, "joint", together=len(chosen))
    rollout = learner["rollout"] * plan["worlds_per_run"]
    plan |= {
        "title": _title(
            definition,
            preset,
            "joint against separate" if SEPARATE in arms else "one network on all tasks",
        ),
        "folds": chosen,
        "arms": arms,
        "control_folds": [],
        "finetunes": 1,
        "finetune_folds": [],
        "headline": "all_folds",
        # finer than K times the separate ones would be: joint training may be the faster
        "joint_checkpoints": checkpoint_steps(
            len(chosen) * plan["budget"], preset.checkpoints + 10, rollout
        ),
    }
    runs = _Runs(plan)
    for seed in range(preset.seeds):
        for task in chosen if SEPARATE in arms else ():
            runs.add("learn", task, SEPARATE, seed, [task])
        runs.add("learn", NO_FOLD, "joint", seed, chosen)
        if "joint-wide" in arms:
            runs.add("learn", NO_FOLD, "joint-wide", seed, chosen, config=wide)
    return _frozen(plan, runs, definition)


def _title(family: Family, preset: Preset, usual: str) -> str:
    """The title that was asked for, or the usual one of such a plan, after the family's name."""
    given = preset.title not in {p.title for p in PRESETS.values()}
    title = preset.title if given else usual
    return title if title.startswith(f"{family.name}:") else f"{family.name}: {title}"


def _plan(
    family: Family,
    preset: Preset,
    learner: Mapping[str, Any],
    preset_name: str,
    kind: str,
    together: int | None = None,
) -> dict[str, Any]:
    """What all kinds of plans have, but for the runs.

    Args:
        family: the family.
        preset: what to do.
        learner: what is frozen of it.
        preset_name: for the records.
        kind: of plan.
        together: tasks that a run is trained on, if not those that the preset's arms say.
    """
    # dealt evenly to however many tasks a run of some arm has
    sizes = {together} if together else {_num_sources(arm, len(family.tasks)) for arm in preset.arms}
    if kind == "matrix":
        sizes = {1}
    even = math.lcm(*sizes)
    if preset.worlds_per_run < even:
        raise PlanError(
            f"worlds_per_run={preset.worlds_per_run} cannot be dealt evenly to "
            f"{' and to '.join(map(str, sorted(sizes - {1})))} tasks; use {even} or more"
        )
    worlds_per_run = preset.worlds_per_run // even * even
    rollout = learner["rollout"] * worlds_per_run
    # whole rollouts, so that a checkpoint lies exactly at the budget and an arrival there still counts
    budget = math.ceil(preset.budget / rollout) * rollout
    steps = checkpoint_steps(budget, preset.checkpoints, rollout)
    plan: dict[str, Any] = {
        "format": FORMAT,
        "kind": kind,
        "title": _title(family, preset, preset.title),
        "preset": preset_name,
        "exploratory": preset.exploratory,
        "family": family.name,
        "version": family.version,
        "family_code": family_code(family),
        "mtenvs": mtenvs.__version__,
        "tasks": [task.to_dict() for task in family.tasks],
        "descriptors": {task.name: family.descriptor(task) for task in family.tasks},
        "seeds": preset.seeds,
        "budget": budget,
        "pretrain_budget": steps[-1]
        if preset.pretrain_budget is None
        else math.ceil(preset.pretrain_budget / rollout) * rollout,
        "worlds_per_run": worlds_per_run,
        "checkpoints": steps,
        "episodes": preset.episodes,
        "first_episodes": preset.first_episodes,
        "thresholds": list(THRESHOLDS),
        "primary": "speed_up",
        "arrivals": preset.arrivals,
        "break_even_threshold": preset.break_even_threshold,
        "equivalence": EQUIVALENT,
        "exclusion": EXCLUSION,
        "tuning": {**_tuning(preset, learner), "shared": True},
        "conditioning": preset.conditioning,
        **({} if kind == "joint" else {"new_code": _new_code(preset)}),
        "switches": [name for name in SWITCHES if getattr(preset, name)],
        **({"layout": check_layout(family, preset.layout)} if family.layouts else {}),
        "learner": dict(learner),
        "reference": load_reference(family.name, family.version),
        "min_distance": preset.min_distance,
        "cohort_runs": preset.cohort_runs or COHORT_RUNS,
        "root_seed": preset.root_seed,
    }
    unscored = [t.name for t in family.tasks if t.name not in plan["reference"]["scores"]]
    if unscored:
        raise PlanError(
            f"no reference scores for {', '.join(unscored)}: run 'mtenvs reference {family.name}'"
        )
    return plan


def make_cell_plan(
    plan: Mapping[str, Any],
    fold: int,
    arm: str,
    seeds: int,
    first_seed: int | None = None,
    starts: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Writes out fresh seeds of one cell of a plan, a fold and an arm, as a plan of their own.

    Everything else is the plan's: its budgets, its hyperparameters, its evaluations, which start from the
    same states. Fresh runs are numbered from the first seed that the plan does not have, and every stream
    derives from that number as in the plan, so that none is one of the plan's.

    Args:
        plan: of which the cell is.
        fold: number of its task; :data:`NO_FOLD` of networks that learn all tasks together.
        arm: its arm.
        seeds: how many.
        first_seed: number of the first of them; ``None`` for the first that the plan does not have.
        starts: runs of the plan whose networks they start from, in turn; ``None`` to train these anew too,
            with fresh seeds of their own.

    Raises:
        PlanError: if the plan has no such cell, or has one of the seeds.
    """
    definition = mtenvs.get_family(plan["family"])
    by_id = {run["id"]: run for run in plan["runs"]}
    models = cell_runs(plan, fold, arm)
    after = 1 + max(run["seed"] for run in plan["runs"])
    first = after if first_seed is None else first_seed
    if first < after or seeds < 1:
        raise PlanError(
            f"seeds {first} to {first + seeds - 1} are not fresh: the plan has 0 to {after - 1}; there "
            f"must be at least one, from {after} on"
        )
    if starts is not None:
        models = [run for start in starts for run in models if run["start"] == start]
        if not models:
            raise PlanError(f"no run of fold {fold} and arm {arm} starts from any of {list(starts)}")
    own = ("runs", "cohorts", "leaks", "sha256")
    fresh = {name: value for name, value in plan.items() if name not in own}
    # in order to be what the plan's own would be, runs are made with all that it says
    runs = _Runs(fresh)

    def add(model: Mapping[str, Any], seed: int) -> str:
        start = model["start"]
        if start is not None and starts is not None:
            start = str(runs.by_id.setdefault(start, by_id[start])["id"])
        elif start is not None:
            start = add(by_id[start], seed)
        places = (model["phase"], model["fold"], model["arm"], seed, model["tasks"])
        told = {"conditioning": model["conditioning"], "config": model.get("config")}
        return runs.add(*places, start, model["init"] or "all", steps=model["steps"], **told)

    for k in range(seeds):
        add(models[k % len(models)], first + k)
    taken = {name for run in runs.by_id.values() for name in run["switches"]}
    fresh |= {
        "title": f"{plan['title']}: fresh seeds of {arm} on "
        + ("all tasks" if fold == NO_FOLD else definition.tasks[fold].name),
        "folds": plan["folds"] if fold == NO_FOLD else [fold],
        "arms": [arm],
        "seeds": seeds,
        "control_folds": [],
        "finetunes": 1,
        "finetune_folds": [],
        # of which a matrix has none
        **({"control_seeds": seeds} if "control_seeds" in plan else {}),
        "switches": [name for name in plan["switches"] if name in taken],
    }
    made = _closed(fresh, runs, definition)
    there = {run["entropy"] for run in plan["runs"]}
    if shared := [run["id"] for run in made["runs"] if run["id"] not in by_id and run["entropy"] in there]:
        raise PlanError(f"run {shared[0]} shares its random stream with one of the plan: name another seed")
    return made


def cell_runs(plan: Mapping[str, Any], fold: int, arm: str) -> list[dict[str, Any]]:
    """The runs that learn the task of a fold in an arm, one of each seed.

    Args:
        plan: the plan.
        fold: number of the task; :data:`NO_FOLD` for networks that learn all tasks together.
        arm: name of the arm.

    Raises:
        PlanError: if there are none.
    """
    cells: dict[tuple[int, str], list[dict[str, Any]]] = {}
    for run in plan["runs"]:
        if run["phase"] == "learn" and not run.get("finetune"):
            cells.setdefault((run["fold"], run["arm"]), []).append(run)
    if (fold, arm) not in cells:
        names = "; ".join(
            f"{cell_name(plan, k)}: {', '.join(a for f, a in cells if f == k)}"
            for k in sorted({f for f, _ in cells})
        )
        asked = "all tasks" if fold == NO_FOLD else f"fold {fold}"
        raise PlanError(f"no run of the plan learns {asked} in arm {arm!r}; there are {names or 'none'}")
    return cells[fold, arm]


def cell_name(plan: Mapping[str, Any], fold: int) -> str:
    """What the runs of a fold learn, in words; of :data:`NO_FOLD`, all tasks."""
    return "all tasks" if fold == NO_FOLD else f"fold {fold} ({plan['tasks'][fold]['name']})"


def make_part_plan(plan: Mapping[str, Any], run_id: str) -> dict[str, Any]:
    """Writes out the cohort of a run, with all that its runs start from, as a plan of their own.

    Runs, seeds and cohorts are the plan's: what is trained of it is trained as there.

    Raises:
        PlanError: if the plan has no such run.
    """
    of = {i: cohort for cohort in plan["cohorts"] for i in cohort}
    if run_id not in of:
        raise PlanError(f"the plan has no run {run_id!r}")
    starts = {run["id"]: run["start"] for run in plan["runs"]}
    kept: set[str] = set()
    waiting = [run_id]
    while waiting:
        if (found := waiting.pop()) not in kept:
            kept |= {*of[found]}
            waiting += [starts[i] for i in of[found] if starts[i] is not None]
    part = {**plan, "title": f"{plan['title']}: the cohort of {run_id}"}
    part["runs"] = [run for run in plan["runs"] if run["id"] in kept]
    part["cohorts"] = [cohort for cohort in plan["cohorts"] if cohort[0] in kept]
    return {**part, "sha256": digest(part)}


def _frozen(plan: dict[str, Any], runs: _Runs, family: Family) -> dict[str, Any]:
    """Refuses settings that change no run, and closes the plan."""
    planned = runs.by_id.values()
    # what is asked for and changes no run is said, not dropped
    taken = {name for run in planned for name in run["switches"]}
    if idle := [name for name in plan["switches"] if name not in taken]:
        raise PlanError(f"{', '.join(idle)} would change no run: no arm hands such a network on")
    if plan.get("new_code") == "mean" and all(run["told"] == "own" for run in planned):
        raise PlanError("new_code mean would change no run: no arm tells a network of a task new to it")
    return _closed(plan, runs, family)


def _closed(plan: dict[str, Any], runs: _Runs, family: Family) -> dict[str, Any]:
    """Adds the runs, their cohorts, the proof that nothing leaks, and the hash."""
    plan["runs"] = list(runs.by_id.values())
    # one that trains a run at a time is given one
    plan["cohorts"] = _cohorts(plan["runs"], plan["cohort_runs"] if plan["learner"]["many_runs"] else 1)
    plan["leaks"] = _leaks(plan, family)
    plan["sha256"] = digest(plan)
    # as it will be read
    if wrong := check_plan(json.loads(json.dumps(plan)), (*REPORTED, "kind", "cohorts"), OF_RUN):
        raise PlanError(wrong)
    return plan


def _num_sources(arm: str, num_tasks: int) -> int:
    """How many tasks a network of an arm is pretrained on; 1 where there is no pretraining."""
    if arm in ("scratch", "single_source"):
        return 1
    if arm == "ceiling":
        return num_tasks
    name, _, value = arm.partition("=")
    return int(value) if name == "sources" else num_tasks - 1


class _Runs:
    """Collects the runs of a plan, each once."""

    def __init__(self, plan: Mapping[str, Any]) -> None:
        self.by_id: dict[str, dict[str, Any]] = {}
        self._plan = plan

    def learn_held_out(self, family: Family, fold: int, arm: str, seed: int, finetunes: int) -> None:
        """Adds an arm's learning of a held-out task, and whatever it starts from."""
        others = [t.number for t in family.tasks if t.number != fold and t.number is not None]
        told = "none" if arm == "blind" else self._plan["conditioning"]
        start, init = None, "all"
        if arm == "blind" or arm == "transfer":
            start = self.add("pretrain", fold, arm, seed, others, conditioning=told)
        elif arm in ("normalizer", "shuffled"):
            # of the very networks that transfer starts from
            start, init = self.add("pretrain", fold, "transfer", seed, others), arm
        elif arm == "ceiling":
            start = self.add("pretrain", fold, arm, seed, sorted([*others, fold]))
        elif arm == "single_source":
            held_out = family.tasks[fold]
            nearest = min(others, key=lambda k: (family.distance(family.tasks[k], held_out), k))
            plan = self._plan
            if plan["pretrain_budget"] == plan["checkpoints"][-1] and nearest in plan["folds"]:
                # equal steps: the network that learned this task from scratch is the one wanted
                start = self.add("learn", nearest, "scratch", seed, [nearest])
            else:
                start = self.add("pretrain", fold, arm, seed, [nearest])
        elif arm != "scratch":
            name, _, value = arm.partition("=")
            sources, steps = others, self._plan["pretrain_budget"]
            if name == "sources":
                # other sources for every seed, and those of a dose among those of a larger one, so that
                # the number is what is compared
                key = content_hash(self._key("dose", fold, name, seed))
                rng = np.random.default_rng([int(key[:15], 16)])
                sources = sorted(int(k) for k in rng.permutation(others)[: int(value)])
            else:
                rollout = self._plan["learner"]["rollout"] * self._plan["worlds_per_run"]
                steps = math.ceil(int(value) / rollout) * rollout
            start = self.add("pretrain", fold, arm, seed, sources, steps=steps)
        for finetune in range(finetunes):
            self.add("learn", fold, arm, seed, [fold], start, init, finetune, conditioning=told)

    def _key(self, phase: str, fold: int, arm: str, seed: int) -> list[Any]:
        return [self._plan["root_seed"], self._plan["family"], fold, phase, arm, seed]

    def _is_new(self, start: str, fold: int, conditioning: str) -> bool:
        """Whether the task is new to the network, which is to be told the mean of its sources' codes."""
        wanted = conditioning != "none" and self._plan["new_code"] == "mean"
        return wanted and fold not in self.by_id[start]["tasks"]

    def add(
        self,
        phase: str,
        fold: int,
        arm: str,
        seed: int,
        tasks: Sequence[int],
        start: str | None = None,
        init: str = "all",
        finetune: int = 0,
        *,
        steps: int | None = None,
        conditioning: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> str:
        """Adds one run, keyed by the hash of all that decides its result, and returns its id."""
        plan = self._plan
        checkpoints = checkpoints_of(plan, arm)
        told = conditioning or plan["conditioning"]
        if steps is None:
            steps = plan["pretrain_budget"] if phase == "pretrain" else checkpoints[-1]
        key = self._key(phase, fold, arm, seed)
        run: dict[str, Any] = {
            "phase": phase,
            "fold": fold,
            "arm": arm,
            "seed": seed,
            "finetune": finetune,
            "tasks": list(tasks),
            "steps": steps,
            "start": start,
            "init": init if start else None,
            "switches": [name for name in plan["switches"] if start and _applies(name, init)],
            "told": "mean" if start and init != "normalizer" and self._is_new(start, fold, told) else "own",
            "conditioning": told,
            # streams are keyed by name, so that folds and arms do not share initial weights
            "entropy": int(content_hash([*key, finetune] if finetune else key)[:15], 16),
        }
        if config is not None:
            run["config"] = dict(config)
        decides = {
            "run": run,
            "tasks": [plan["tasks"][k] for k in tasks],
            "held_out": None if fold == NO_FOLD else plan["tasks"][fold],
            **{name: plan[name] for name in _DECIDES_ALL if name in plan},
            "learner": {name: plan["learner"][name] for name in _DECIDES_OF_LEARNER},
            # when a pretraining is evaluated is no matter of its own: it is, once, at its end
            **({} if phase == "pretrain" else {"checkpoints": checkpoints}),
        }
        which = f"{seed}.{finetune}" if finetune else str(seed)
        place = "all" if fold == NO_FOLD else str(fold)
        run = {"id": f"{phase}-{place}-{arm}-{which}-{content_hash(decides)[:10]}", **run}
        return str(self.by_id.setdefault(run["id"], run)["id"])


def _applies(switch: str, init: str) -> bool:
    """Whether a switch means anything for what a run takes over of a network."""
    if init == "normalizer":  # its weights are fresh
        return False
    return not (init == "shuffled" and switch == "keep_optimizer")  # moments of other weights


def summarise(plan: Mapping[str, Any]) -> list[tuple[str, str, str, int, int, float]]:
    """The runs of a plan by phase and arm.

    Returns:
        ``(phase, arm, what it starts from, runs, folds, million steps)``, and a last row of sums.
    """
    by_id = {run["id"]: run for run in plan["runs"]}
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for run in plan["runs"]:
        groups.setdefault((run["phase"], run["arm"]), []).append(run)
    rows = []
    for (phase, arm), runs in groups.items():
        start = by_id.get(runs[0]["start"])
        origin = "nothing" if start is None else f"{start['phase']} {start['arm']}"
        if runs[0]["init"] not in (None, "all"):
            origin += f", {runs[0]['init']}"
        steps = sum(run["steps"] for run in runs) / 1e6
        rows.append((phase, arm, origin, len(runs), len({run["fold"] for run in runs}), round(steps, 1)))
    steps = sum(run["steps"] for run in plan["runs"]) / 1e6
    return [*rows, ("total", "", "", len(by_id), len(plan["folds"]), round(steps, 1))]


def checkpoints_of(plan: Mapping[str, Any], arm: str) -> list[int]:
    """Steps at which the learning runs of an arm are evaluated."""
    return [int(step) for step in measures.checkpoints(plan, arm)]


def _cohorts(runs: Sequence[Mapping[str, Any]], limit: int) -> list[list[str]]:
    """Groups runs that can be trained as one batch, each group after what its runs start from.

    A function of the plan alone. Folds come one after another where they fill a batch, so that the
    first results are whole.
    """
    by_id = {run["id"]: run for run in runs}

    def shape(run: Mapping[str, Any]) -> tuple[Any, ...]:
        config = json.dumps(run.get("config"), sort_keys=True)
        return run["phase"], len(run["tasks"]), run["steps"], run["conditioning"], config

    cohorts: list[list[str]] = []
    trained: set[str] = set()
    waiting = list(by_id)
    while waiting:
        ready = [i for i in waiting if by_id[i]["start"] is None or by_id[i]["start"] in trained]
        # what unlocks others first; then whatever is ready, in the order of the folds
        needed = {by_id[i]["start"] for i in waiting} - trained
        first = next((i for i in ready if i in needed), ready[0])
        if first in needed and (begun := [i for i in ready if by_id[i]["start"]]):
            first = begun[0]  # finish what has begun
        like = [i for i in ready if shape(by_id[i]) == shape(by_id[first])]
        like.sort(key=lambda i: (i != first and i not in needed, waiting.index(i)))
        cohort = like[: max(1, limit)]
        cohorts.append(cohort)
        trained |= set(cohort)
        waiting = [i for i in waiting if i not in trained]
    return cohorts


def _leaks(plan: Mapping[str, Any], family: Family) -> dict[str, Any]:
    """The proof that held-out tasks are absent from the training before them (PROTOCOL §7).

    Raises:
        PlanError: if a training task equals a held-out one in body and goal, lies closer to it than the
            plan's ``min_distance``, or two runs share a random stream.
    """
    models = {t.name: model_hash(family, t) for t in family.tasks}
    goals = {t.name: content_hash(family.constants(t.parameters)) for t in family.tasks}
    by_id = {run["id"]: run for run in plan["runs"]}
    distances: dict[str, dict[str, float]] = {}
    for run in plan["runs"]:
        start = by_id.get(run["start"])
        if start is None or run["phase"] != "learn" or run["arm"] == "ceiling":
            continue  # the ceiling has seen the task: that is what it is for
        held_out = family.tasks[run["fold"]]
        of_task = distances.setdefault(held_out.name, {})
        for source in (family.tasks[k] for k in start["tasks"]):
            of_task[source.name] = round(family.distance(source, held_out), 6)
            if (models[source.name], goals[source.name]) == (models[held_out.name], goals[held_out.name]):
                raise PlanError(f"{held_out.name!r} leaks: {source.name!r} has the same body and goal")
    for name, of_task in distances.items():
        near, distance = min(of_task.items(), key=lambda item: item[1])
        if distance < plan["min_distance"]:
            raise PlanError(
                f"{name!r} leaks: its training task {near!r} is only {distance:.3f} descriptor units away, "
                f"and min_distance is {plan['min_distance']}"
            )
    entropies = [run["entropy"] for run in plan["runs"]]
    if len(set(entropies)) != len(entropies):
        raise PlanError("two runs share a random stream: choose another root_seed")
    played = {k for run in plan["runs"] for k in (*run["tasks"], run["fold"])} - {NO_FOLD}
    evaluations = {
        seed
        for task in played
        for index in range(max(len(checkpoints_of(plan, arm)) for arm in plan["arms"]))
        for seed in evaluation_seeds(
            plan["root_seed"], task, index, plan["episodes"] if index else plan["first_episodes"]
        )
    }
    return {
        "models": models,
        "goals": goals,
        "min_distance": plan["min_distance"],
        "distances": distances,
        "seeds": {
            "runs": len(entropies),
            "evaluation": len(evaluations),
            "training_below": TRAINING_SEEDS,
            "evaluation_from": min(evaluations),
        },
    }


def model_hash(family: Family, task: Task) -> str:
    """SHA-256 of a body: of its MJCF, as MuJoCo writes it."""
    # without keyframes: the pose of a picture is no difference between bodies
    text = re.sub(r"<keyframe>.*?</keyframe>", "", mtenvs.mjcf(family, task), flags=re.DOTALL)
    return hashlib.sha256(text.encode()).hexdigest()


def evaluation_seeds(root_seed: int, task: int, checkpoint: int, episodes: int) -> list[int]:
    """Seeds of the start states of one task at one checkpoint, apart from those of all training worlds."""
    sequence = np.random.SeedSequence([root_seed, task, checkpoint], spawn_key=(0xE,))
    drawn = sequence.generate_state(episodes, np.uint32) % TRAINING_SEEDS
    return [TRAINING_SEEDS + int(seed) for seed in drawn]


def _check(preset: Preset, family: Family) -> None:
    known = [t.number for t in family.tasks]
    check_conditioning(preset.conditioning)
    check_layout(family, preset.layout)
    for name in ("folds", "control_folds", "finetune_folds"):
        folds = getattr(preset, name)
        unknown = [f for f in folds or () if f not in known]
        if unknown or (name == "folds" and folds == ()):
            raise PlanError(f"unknown {name} {list(folds or ())}; valid: {known}")
        if len(set(folds or ())) != len(folds or ()):
            raise PlanError(f"{name} {list(folds or ())} name a task twice; use each at most once")
    if preset.headline not in HEADLINES:
        raise PlanError(f"unknown headline {preset.headline!r}; valid: {', '.join(HEADLINES)}")
    if preset.control_seeds is not None and preset.control_seeds > preset.seeds:
        raise PlanError(
            f"control_seeds must be at most seeds, {preset.seeds}, got {preset.control_seeds}: normalizer "
            "and shuffled start from the networks of transfer"
        )
    if preset.arrivals not in measures.READINGS:
        raise PlanError(f"unknown arrivals {preset.arrivals!r}; valid: {', '.join(measures.READINGS)}")
    counts = (
        "seeds",
        "control_seeds",
        "finetunes",
        "budget",
        "pretrain_budget",
        "worlds_per_run",
        "episodes",
        "cohort_runs",
    )
    for name in counts:
        if (value := getattr(preset, name)) is not None and value < 1:
            raise PlanError(f"{name} must be positive, got {value}")
    for name, most in MOST.items():
        if (value := getattr(preset, name)) is not None and value > most:
            raise PlanError(f"{name} must be at most {most:,}, got {value}")
    planned = preset.seeds * len(preset.folds or known) * (len(preset.arms) + preset.finetunes) * 2
    if planned > MOST_RUNS:
        raise PlanError(
            f"{preset.seeds} seeds of {len(preset.arms)} arms with {preset.finetunes} fine-tunings are "
            f"about {planned:,} runs, more than the {MOST_RUNS:,} of a plan: make several plans"
        )
    if (played := preset.checkpoints * preset.episodes + preset.first_episodes) > MOST_EPISODES:
        raise PlanError(
            f"{preset.checkpoints} checkpoints of {preset.episodes} episodes are {played:,} a run, "
            f"more than {MOST_EPISODES:,}"
        )
    for name in ("root_seed", "tuning_trials", "tuning_steps", "min_distance"):
        if (value := getattr(preset, name)) is not None and not value >= 0:
            raise PlanError(f"{name} must not be negative, got {value}")
    if preset.new_code is not None and preset.new_code not in (valid := NEW_CODES[preset.conditioning]):
        raise PlanError(
            f"new_code {preset.new_code!r} does not go with conditioning {preset.conditioning!r}; valid: "
            f"{', '.join(valid) or 'leave it out, for nothing is told'}"
        )
    if preset.break_even_threshold not in THRESHOLDS:
        raise PlanError(
            f"break_even_threshold must be one of {', '.join(f'{t:.2f}' for t in THRESHOLDS)}, "
            f"got {preset.break_even_threshold}"
        )
    if preset.first_episodes < 100:
        raise PlanError(f"first_episodes must be at least 100, got {preset.first_episodes}")
    if preset.checkpoints < 4:
        raise PlanError(f"checkpoints must be at least 4, got {preset.checkpoints}")


def _check_arms(preset: Preset, num_sources: int) -> None:
    unknown = []
    for arm in preset.arms:
        name, equals, value = arm.partition("=")
        if equals and name in DOSES and value.isdecimal() and value[0] != "0":
            if name == "sources" and int(value) > num_sources:
                raise PlanError(f"arm {arm!r} asks for more than the {num_sources} other tasks")
        elif arm not in ARMS:
            unknown.append(arm)
    if preset.arms == ("scratch",):
        raise PlanError("arms scratch alone compare nothing; give another one beside it")
    doses_of = [arm for arm in preset.arms if arm.partition("=")[0] in DOSES and "=" in arm]
    if not unknown and doses_of and (others := {*preset.arms} - {"scratch", *doses_of}):
        raise PlanError(
            f"doses ({', '.join(doses_of)}) are compared with scratch alone: plan "
            f"{', '.join(sorted(others))} in an experiment of its own"
        )
    if unknown or "scratch" not in preset.arms or len(set(preset.arms)) != len(preset.arms):
        doses = ", ".join(f"{name}=N" for name in DOSES)
        close = "".join(did_you_mean(arm, ARMS) for arm in unknown)
        raise PlanError(
            f"unusable arms {list(preset.arms)}{close}; valid: scratch and any of {list(ARMS)}, {doses}, "
            "once each"
        )


def _check_starts(preset: Preset, arms: Sequence[str], learner: Mapping[str, Any]) -> None:
    """Refuses arms and switches that the agent does not offer, before anything is trained."""
    if preset.joint_arms != JOINT_ARMS:
        raise PlanError("joint_arms are for joint experiments ('mtenvs joint'); leave them out")
    wanted = {name for name in SWITCHES if getattr(preset, name)}
    wanted |= {arm for arm in arms if arm in CONTROLS and arm != "ceiling"}
    if refused := sorted(wanted - {*learner["starts"]}):
        raise PlanError(
            f"agent {learner['name']} cannot start learners with {', '.join(refused)}; leave that out of "
            f"arms and options. It offers: {', '.join(learner['starts']) or 'none of these'}"
        )


def _new_code(preset: Preset) -> str:
    """What a network is told of a task that is new to it."""
    return preset.new_code or next(iter(NEW_CODES[preset.conditioning]), "nothing")


def _tuning(preset: Preset, learner: Mapping[str, Any]) -> dict[str, int]:
    """What was spent on choosing hyperparameters: as the user says, or else as the agent does."""
    given = {"trials": preset.tuning_trials, "steps": preset.tuning_steps}
    if None not in given.values():
        return {name: int(value or 0) for name, value in given.items()}
    if {*given.values()} != {None}:
        raise PlanError(f"give tuning_trials and tuning_steps, or neither; got {given}")
    return dict(learner["tuning"])


def write_plan(plan: Mapping[str, Any], directory: Path) -> Path:
    """Writes ``plan.json`` into a new or empty directory, or leaves an equal one as it is.

    Raises:
        PlanError: if the directory holds something else; nothing is touched.
    """
    path = directory / PLAN
    if path.exists():
        there = load_plan(directory)
        if there["sha256"] != plan["sha256"]:
            asked = json.loads(json.dumps(plan))  # as the one there was read
            what = [w for w in differences([there, asked]) if not w.startswith("sha256")]
            shown = "; ".join(what[:MOST_DIFFERENCES]) + "; ..." * (len(what) > MOST_DIFFERENCES)
            raise PlanError(
                f"{path} is another plan than the one asked for. They differ in {shown}. A plan never "
                "changes once written: choose another --out, or continue that one with 'mtenvs run'"
            )
        return path
    part = directory / f".{PLAN}.part"  # may be left of a killed command
    if directory.exists() and (not directory.is_dir() or any(p != part for p in directory.iterdir())):
        raise PlanError(f"{directory} is not empty and holds no {PLAN}; choose a new directory for --out")
    directory.mkdir(parents=True, exist_ok=True)
    part.unlink(missing_ok=True)
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
        plan = parsed(path.read_bytes())
    except ValueError as error:
        raise PlanError(f"{path} is not JSON: {error}") from None
    if not isinstance(plan, dict) or plan.get("format") != FORMAT:
        raise PlanError(f"{path} is no plan of format {FORMAT}")
    if not (content := digest(plan)) or plan.get("sha256") != content:
        raise PlanError(
            f"{path} was edited after it was frozen: its sha256 is {str(plan.get('sha256'))[:64]}, its "
            f"content's {content or 'none'}. Restore the file, or make a new plan in a new directory"
        )
    if wrong := check_plan(plan, (*REPORTED, "kind", "cohorts"), OF_RUN):
        raise PlanError(f"{path} is not a plan: {wrong}")
    return plan
