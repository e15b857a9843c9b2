"""Does a cell of a published plan come out the same again? Fresh seeds, or a stored run with its own.

A *cell* is a fold and an arm; networks that learn all tasks together have no fold. Fresh seeds are trained
by a plan of their own (:func:`harness.plan.make_cell_plan`), the stored run by the part of its plan that it
belongs to (:func:`harness.plan.make_part_plan`); both by :func:`harness.run.run_plan`, in a directory of
their own. The published plan is only read.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from baselines.checkpoint import STRIPPED, copy_checkpoint, read_facts
from harness import joint, measures, statistics
from harness.measures import SIGNIFICANT, ArmCurves
from harness.plan import (
    NO_FOLD,
    PlanError,
    cell_name,
    cell_runs,
    make_cell_plan,
    make_part_plan,
    write_plan,
)
from harness.report import words
from harness.report.analysis import rng
from harness.run import agent_to_run, check_suite, checkpoint_path
from harness.statistics import Estimate
from harness.store import COMPLETE, Store, StoreError, differences, made, owned
from mtenvs.spec import did_you_mean

AGREES, DIFFERS, CANNOT_TELL = 0, 1, 2
"""What the command ends with, as ``diff`` does; 2 also where something is wrong."""
TOLERANCE = 2.0
"""The ratio of mean times must be known to be within this factor, either way, to be called the same."""
EQUAL = 1e-9
"""Share of a mean time by which equal ones may differ, of sums in another order."""
CIRCUMSTANCES = ("device", "backend", "processor", "torch_threads", "versions")
"""Entries of a record on which last digits depend."""


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether what was trained again is what was stored."""

    code: int
    """:data:`AGREES`, :data:`DIFFERS` or :data:`CANNOT_TELL`."""
    text: str
    """Why, as lines for the terminal; the verdict is the last."""


# --- what is trained -------------------------------------------------------------------------------


def plan_fresh(
    directory: Path,
    out: Path,
    fold: int,
    arm: str,
    seeds: int = 3,
    first_seed: int | None = None,
    pretrain: bool = False,
    agent: str | None = None,
) -> Path:
    """Writes a plan of fresh seeds of a cell, with the published networks that they start from.

    Args:
        directory: of the plan, loose or packed.
        out: directory to write, new or of the same replication.
        fold: number of the cell's task, or :data:`harness.plan.NO_FOLD`.
        arm: of the cell.
        seeds: how many.
        first_seed: number of the first; ``None`` for the first that the plan does not have.
        pretrain: whether they start from networks that are trained anew, with fresh seeds too; else from
            the published ones, in turn.
        agent: whom the plan trains; needed where it is none of ours.

    Returns:
        ``out``.

    Raises:
        harness.plan.PlanError: if the plan cannot be trained here, has no such cell, has these seeds, or
            has published no network that they could start from.
        StoreError: if the plan was edited.
    """
    store = _trainable(directory, agent)
    models = cell_runs(store.plan, fold, arm)
    starts = None
    if not pretrain and models[0]["start"] is not None:
        starts = [run["start"] for run in models if not _lacks(store, run)]
        if not starts:
            raise PlanError(
                f"{_lacks(store, models[0])}, and that of no other seed is there: pretrain anew, with "
                "--pretrain"
            )
    plan = make_cell_plan(store.plan, fold, arm, seeds, first_seed, starts)
    write_plan(plan, out)
    there = {run["id"] for run in store.plan["runs"]}
    for run in plan["runs"]:
        if run["id"] in there:
            _copy(store, out, run["id"])
    return out


def plan_again(
    directory: Path, out: Path, run: Mapping[str, Any], pretrain: bool = False, agent: str | None = None
) -> Path:
    """Writes the part of a plan that a stored run belongs to, with all that is stored of it but that run.

    Args:
        directory: of the plan, loose or packed.
        out: directory to write, new or of the same replication.
        run: the plan's entry of the run.
        pretrain: whether the network that it starts from is trained again too.
        agent: whom the plan trains; needed where it is none of ours.

    Returns:
        ``out``.

    Raises:
        harness.plan.PlanError: if the plan cannot be trained here, the run is not stored, or its network is
            not.
        StoreError: if the plan was edited.
    """
    store = _trainable(directory, agent)
    if (status := store.status([run["id"]])[run["id"]]) not in COMPLETE:
        raise PlanError(f"run {run['id']} is {status} in {directory}: there is nothing to compare with")
    if run["start"] is not None and not pretrain and (lacking := _lacks(store, run)):
        raise PlanError(f"{lacking}: train it again too, with --pretrain, or choose another seed")
    again, by_id = {run["id"]}, {entry["id"]: entry for entry in store.plan["runs"]}
    start = run["start"] if pretrain else None
    while start is not None:
        again.add(start)
        start = by_id[start]["start"]
    plan = make_part_plan(store.plan, run["id"])
    write_plan(plan, out)
    for other in plan["runs"]:
        if other["id"] not in again and store.status([other["id"]])[other["id"]] in COMPLETE:
            _copy(store, out, other["id"])
    return out


def fold_number(plan: Mapping[str, Any], fold: int | str | None) -> int:
    """Number of a fold, or :data:`harness.plan.NO_FOLD`.

    Args:
        plan: that has it.
        fold: its number, the name of its task, or None for networks of all tasks.

    Raises:
        PlanError: if no task of the plan has that name.
    """
    if not isinstance(fold, str):
        return NO_FOLD if fold is None else fold
    numbers = {task["name"]: int(task["number"]) for task in plan["tasks"]}
    if fold not in numbers:
        raise PlanError(f"no task is named {fold!r}{did_you_mean(fold, numbers)}; there are {[*numbers]}")
    return numbers[fold]


def run_of(plan: Mapping[str, Any], fold: int, arm: str, seed: int) -> dict[str, Any]:
    """The plan's entry of the run of a cell that has a seed.

    Raises:
        harness.plan.PlanError: if there is none.
    """
    found = {run["seed"]: run for run in cell_runs(plan, fold, arm)}
    if seed not in found:
        raise PlanError(
            f"no run of {cell_name(plan, fold)} and arm {arm} has seed {seed}; there are {sorted(found)}"
        )
    return found[seed]


def _trainable(directory: Path, agent: str | None) -> Store:
    """A store whose plan can be trained with what is installed."""
    store = Store(directory)
    store.check_frozen()
    check_suite(store.plan, agent_to_run(store.plan, directory, agent))
    return store


def _lacks(store: Store, run: Mapping[str, Any]) -> str:
    """Why a run cannot start from the network that is stored for it; empty if it can."""
    path = checkpoint_path(store.directory, run["start"])
    if path.is_dir() and (status := store.status([run["start"]])[run["start"]]) not in COMPLETE:
        return f"{run['start']} is {status} in {store.directory}, so that its network is not the plan's yet"
    try:
        facts = read_facts(path)
    except FileNotFoundError:
        return f"the network of {run['start']} is not kept in {store.directory}"
    except ValueError as error:
        return str(error)
    if STRIPPED in facts and "keep_optimizer" in run["switches"]:
        return f"the network of {run['start']} is kept without its optimiser's state, which is handed on"
    return ""


def _copy(store: Store, out: Path, run_id: str) -> None:
    """Puts a stored run, with its network if that is kept, into another directory, loose."""
    directory = owned(out, out / "runs" / run_id)
    if not (directory / "done.json").is_file():
        made(directory)
        lines = "".join(f"{line}\n" for line in store.lines(run_id))
        owned(out, directory / "rows.jsonl").write_text(lines, encoding="utf-8")
        record = json.dumps(store.record(run_id), indent=1) + "\n"
        owned(out, directory / "done.json").write_text(record, encoding="utf-8")
    network, copy = checkpoint_path(store.directory, run_id), owned(out, checkpoint_path(out, run_id))
    if network.is_dir() and not copy.is_dir():
        part = owned(out, copy.with_name(f"{copy.name}.part"))
        shutil.rmtree(part, ignore_errors=True)
        copy_checkpoint(network, part)
        part.rename(copy)


# --- what comes of it ------------------------------------------------------------------------------


def compare_fresh(directory: Path, out: Path, fold: int, arm: str) -> Verdict:
    """Compares the fresh runs of a cell with the stored ones by their mean times Ȳ (PROTOCOL §4).

    The clusters are the protocol's: runs from one network count once. With two clusters or more on either
    side, log(Ȳ stored / Ȳ fresh) has Welch's t interval, and p is of a studentised permutation test. A
    single fresh cluster is compared with what the stored ones let expect of one more, by a t prediction
    interval. A network that learns all tasks is a cluster with the mean of its tasks' Ȳ.

    If no run of either side arrives anywhere, or all of both take equally long, nothing varies, and they
    *agree* as far as can be seen.

    They *differ* if the interval leaves out a ratio of 1, and p, where there is one, is below .05. They
    *agree* if the interval holds 1 and nothing beyond a factor of :data:`TOLERANCE`. Else nobody can tell.

    Args:
        directory: of the plan.
        out: where its fresh runs were trained.
        fold: number of the cell's task, or :data:`harness.plan.NO_FOLD`.
        arm: of the cell.

    Raises:
        StoreError: if there is nothing to compare, or what there is cannot be read.
    """
    plan = Store(directory).plan
    stored = dataclasses.replace(_curves(directory, fold, arm), arm="stored")
    fresh = dataclasses.replace(_curves(out, fold, arm), arm="fresh")
    for place, curves in ((directory, stored), (out, fresh)):
        if not curves.count:
            raise StoreError(f"no run of {cell_name(plan, fold)} and arm {arm} in {place} has its result")
    found = measures.fold_measures(
        fold,
        cell_name(plan, fold),
        stored,
        fresh,
        plan["thresholds"],
        _budget(plan, fold),
        measures.interpolates(plan),
    )
    times = found.mean_times
    one = fresh.count == 1 and stored.count > 1 and found.estimable.any()
    log_ratio = _prediction(times[0], float(times[1][0])) if one else found.log_ratio()
    p = statistics.permutation_p(*times, rng("replicate", plan["sha256"], fold, arm))
    kind = "t prediction interval for one more network" if one else "Welch's t interval of the log"
    seeds = sorted({run["seed"] for run in cell_runs(Store(out).plan, fold, arm)})
    # about the middle and the top, as in the report
    shown = sorted({int(np.abs(found.thresholds - 0.5).argmin()), len(found.thresholds) - 1})
    at = [f"arrived at θ={found.thresholds[i]:.2f}" for i in shown]
    rows: list[Sequence[str]] = [("", "runs", "clusters", "mean time Ȳ, steps", *at)]
    for curves, mean, share in zip((stored, fresh), times, found.success, strict=True):
        arrived = (words.share(float(share[i]), curves.count) for i in shown)
        rows.append((curves.arm, str(len({*curves.runs})), str(curves.count), _steps(mean), *arrived))
    ratio = words.ratio(log_ratio)
    tested = "" if math.isnan(p) else f"; permutation p {words.p_is(p)}"
    starts = {source for _, source in fresh.clusters} & {run["id"] for run in plan["runs"]}
    advice = "train more seeds, with --pretrain" if starts else "train more seeds"
    if alike := _alike(found):
        code, verdict = AGREES, alike
    else:
        code, verdict = _verdict(log_ratio, p, float(times[0].mean()), float(times[1].mean()), advice)
    lines = [
        f"{plan['title']}: {found.task}, arm {arm}: fresh seeds "
        f"{', '.join(map(str, seeds))} against those stored in {directory}",
        *words.columns(rows),
        f"steps of the stored runs over those of the fresh: {ratio} ({kind}{tested})",
        *_notes(found, len(starts)),
        *_absent(directory, stored, fold, arm),
        *_absent(out, fresh, fold, arm),
        verdict,
    ]
    return Verdict(code, "\n".join(lines))


def _curves(directory: Path, fold: int, arm: str) -> ArmCurves:
    """The learning curves of a cell, of runs that are complete and whole.

    A network that learns all tasks is there once for each, and is their cluster.
    """
    store = Store(directory)
    store.check_reported()
    ids = [run["id"] for run in store.plan["runs"] if (run["fold"], run["arm"]) == (fold, arm)]
    evaluations = measures.add_scores(store.evaluations(ids), store.plan["reference"]["scores"])
    runs = measures.mark_diverged(evaluations, store.runs(ids))
    damaged = measures.damaged_runs(evaluations, runs, store.plan)
    if fold != NO_FOLD:
        return measures.arm_curves(evaluations, runs, store.plan, fold, arm, damaged)
    found = joint.joint_curves(evaluations, runs, store.plan, arm, damaged)
    networks = [run for (run,) in found.runs for _ in found.tasks]
    seeds = {run["id"]: run["seed"] for run in store.plan["runs"]}
    scores = found.scores.reshape(-1, len(found.steps))
    clusters = tuple((seeds[run], run) for run in networks)
    return ArmCurves(arm, tuple(networks), clusters, found.steps, scores, np.isnan(scores).any(axis=1))


def _budget(plan: Mapping[str, Any], fold: int) -> float:
    """Most steps of a cell's runs; those on all tasks have the budgets of all."""
    return joint.budget(plan) if fold == NO_FOLD else float(plan["budget"])


def _prediction(stored: np.ndarray, fresh: float) -> Estimate:
    """log(mean of stored / fresh), with the interval that one more of the stored ones would have."""
    mean = float(stored.mean())
    # the mean's own variance, and that of the one: s²(1 + 1/n), by the delta method on the log
    variance = float(stored.var(ddof=1)) * (1 + 1 / len(stored)) / mean**2
    return statistics.t_interval(math.log(mean / fresh), [(variance, len(stored) - 1.0)])


def _alike(found: measures.FoldMeasures) -> str:
    """Why both sides agree though nothing varies, of which an interval could be made; empty if it does."""
    if found.curves[0].count < 2:  # of which nobody knows whether it would vary
        return ""
    if not found.estimable.any():
        return (
            f"agrees: no run, stored or fresh, arrives at θ={found.thresholds[0]:.2f} or above by "
            f"{found.budget:,.0f} steps; what happens below is not seen"
        )
    every = np.concatenate(found.mean_times)
    if float(np.ptp(every)) > EQUAL * float(every.mean()):
        return ""
    return (
        f"agrees: all runs, stored and fresh, take {every.mean():,.0f} steps; what differs by less than "
        f"the checkpoints resolve, of which the first is at {found.curves[0].steps[1]:,.0f}, is not seen"
    )


def _verdict(log_ratio: Estimate, p: float, stored: float, fresh: float, advice: str) -> tuple[int, str]:
    """What the numbers say, with what to do where they say too little."""
    means = f"the stored mean of {stored:,.0f} steps"
    if log_ratio.reason:
        return CANNOT_TELL, f"cannot tell: there is no interval ({log_ratio.reason})"
    # of the stored mean, given the fresh one: the interval is symmetric on the log
    half = log_ratio.high - log_ratio.value
    low, high = fresh * math.exp(-half), fresh * math.exp(half)
    around = f"[{low:,.0f}, {high:,.0f}], where the fresh runs expect it"
    if not log_ratio.low <= 0 <= log_ratio.high:
        faster = "slower" if log_ratio.value < 0 else "faster"
        if p >= SIGNIFICANT:
            return CANNOT_TELL, (
                f"cannot tell: by the interval fresh runs are {faster}, but the permutation p "
                f"{words.p_is(p)}: {advice}"
            )
        return DIFFERS, f"differs: fresh runs are {faster} than {means}, beyond chance"
    if max(-log_ratio.low, log_ratio.high) > math.log(TOLERANCE):
        return CANNOT_TELL, (
            f"cannot tell: {means} is compatible with the fresh runs, but so is one that differs by more "
            f"than a factor of {TOLERANCE:g}: {advice}"
        )
    return AGREES, f"agrees: {means} lies within {around}"


def _notes(found: measures.FoldMeasures, starts: int) -> list[str]:
    """What is to be known of the numbers, with how many published networks fresh runs start from."""
    notes = []
    if starts:
        networks = words.plural(starts, "network")
        notes.append(
            f"fresh runs start from {networks} of the plan's, whose chance is that of the stored runs"
        )
    for side, theta in found.mixed:
        notes.append(f"some {side} runs never reach θ={theta:.2f} and others do: the interval covers badly")
    return notes


def _absent(directory: Path, curves: ArmCurves, fold: int, arm: str) -> list[str]:
    """What is to be known of a side of which runs are missing, left out or changed."""
    store = Store(directory)
    cell = ("learn", fold, arm)
    planned = {run["id"] for run in store.plan["runs"] if (run["phase"], run["fold"], run["arm"]) == cell}
    notes = []
    if (there := len({*curves.runs})) < len(planned):
        notes.append(f"{there} of {len(planned)} {curves.arm} runs have a result that counts")
    if changed := planned & {*store.changed()}:
        notes.append(f"{words.plural(len(changed), f'{curves.arm} run')} changed since finished")
    return notes


def _steps(times: np.ndarray) -> str:
    spread = f" ± {words.count(float(times.std(ddof=1)))}" if len(times) > 1 else ""
    return f"{words.count(float(times.mean()))}{spread}"


def compare_again(directory: Path, out: Path, run: Mapping[str, Any]) -> Verdict:
    """Compares a run that was trained again, with its own seed, with the stored one: bit for bit.

    Args:
        directory: of the plan.
        out: where it was trained again.
        run: the plan's entry of the run.

    Raises:
        StoreError: if it was not, or what there is cannot be read.
    """
    stored, again = Store(directory), Store(out)
    run_id = run["id"]
    records = [store.record(run_id) for store in (stored, again)]
    if records[0] is None or records[1] is None:
        raise StoreError(f"run {run_id} has no result in {out if records[0] else directory}")
    lines = [store.lines(run_id) for store in (stored, again)]
    where = [{key: record[key] for key in CIRCUMSTANCES if key in record} for record in records if record]
    other = differences(where)
    heading = f"{stored.plan['title']}: {run_id}, trained again with its own seed"
    if lines[0] == lines[1]:
        return Verdict(AGREES, f"{heading}\nidentical: all {len(lines[0])} rows, bit for bit")
    shared = [{(r["checkpoint"], r["task"], r["code"]): r for r in map(json.loads, own)} for own in lines]
    equal = len({*lines[0]} & {*lines[1]})
    both = [(shared[0][key], shared[1][key]) for key in shared[0] if key in shared[1]]
    apart = [
        abs(a["return_mean"] - b["return_mean"])
        for a, b in both
        if None not in (a["return_mean"], b["return_mean"])
    ]
    first = min((a["steps"] for a, b in both if a != b), default=0)
    told = [
        heading,
        f"{equal} of {len(lines[0])} rows are identical; the others begin at step {first:,}, with "
        f"mean returns up to {max(apart, default=math.nan):.4g} apart",
        *_own_times(directory, out, run),
    ]
    if other:
        return Verdict(
            CANNOT_TELL,
            "\n".join(
                [*told, f"cannot tell: bits are equal under equal circumstances, and {'; '.join(other)}"]
            ),
        )
    return Verdict(DIFFERS, "\n".join([*told, "differs: under the same recorded circumstances"]))


def _own_times(directory: Path, out: Path, run: Mapping[str, Any]) -> Sequence[str]:
    """The mean time of the run in both places, in a line."""
    plan = Store(directory).plan
    budget = _budget(plan, run["fold"])
    measured = np.asarray(plan["thresholds"], float), budget, measures.interpolates(plan)
    found = []
    for place in (directory, out):
        curves = _curves(place, run["fold"], run["arm"])
        if run["id"] not in curves.runs:
            return []
        scores = curves.scores[[i == run["id"] for i in curves.runs]]
        arrived = measures.arrivals(curves.steps, scores, *measured)
        found.append(float(measures.restricted_times(arrived, budget).mean()))
    return [f"mean time Ȳ over all θ: stored {found[0]:,.0f} steps, again {found[1]:,.0f}"]
