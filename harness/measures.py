"""The measures of PROTOCOL §4, as pure functions of arrays and tables.

Arrays are named by their axes: ``(runs, checkpoints)`` for learning curves, ``(runs, thresholds)`` for
what is read off them. Times are control steps summed over all worlds of a run. Scores are
``g = (J - R_random) / (R_reference - R_random)``: 0 is a random policy, 1 the reference.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness.store import COMPLETE

SOLVED = 0.5
"""A fold whose transfer arm scores at least this at step 0 is solved: generalisation (PROTOCOL §4.3)."""
COMPETENT = 0.7
"""Mean score on the source tasks below which a pretraining is flagged (PROTOCOL §4.12)."""
LOOK_AHEAD = 3
"""Checkpoints whose mean must hold the threshold, the arriving one included (PROTOCOL §4.1)."""
RESOLUTION = 0.1
"""Share of a mean time that arrivals at the first checkpoint may make up before it counts as resolved."""
_ROUNDING = 1e-9
"""Slack in comparisons of scores, so that a mean of three equal scores equals them."""


# --- from returns to scores ------------------------------------------------------------------------


def normalise(returns: np.ndarray, random: float, reference: float) -> np.ndarray:
    """Scores of mean undiscounted returns, unclipped, any shape (PROTOCOL §3).

    Raises:
        ValueError: if the reference is not above random.
    """
    if not reference > random:
        raise ValueError(f"the reference return {reference} must be above the random return {random}")
    # g = (J - R_random) / (R_reference - R_random)
    return (np.asarray(returns, float) - random) / (reference - random)


def add_scores(evaluations: pd.DataFrame, scores: Mapping[str, Mapping[str, float]]) -> pd.DataFrame:
    """Adds the column ``score`` to a table of evaluations.

    Args:
        evaluations: a table with columns ``task`` and ``return_mean``.
        scores: for every task its ``random`` and ``reference`` return.

    Raises:
        ValueError: for a task without reference scores, or whose reference is not above random.
    """
    table = evaluations.copy()
    table["score"] = np.nan
    for task in sorted(table["task"].unique()):
        if task not in scores:
            raise ValueError(
                f"no reference scores for task {task!r}; there are {', '.join(sorted(scores))}"
            )
        of_task = table["task"] == task
        try:
            table.loc[of_task, "score"] = normalise(
                table.loc[of_task, "return_mean"].to_numpy(),
                scores[task]["random"],
                scores[task]["reference"],
            )
        except ValueError as error:
            raise ValueError(f"task {task!r}: {error}") from None
    return table


# --- measures of curves ----------------------------------------------------------------------------


def arrival_levels(scores: np.ndarray) -> np.ndarray:
    """The highest threshold at which each checkpoint would count as arrived.

    Args:
        scores: ``(runs, checkpoints)``, NaN where a run diverged.

    Returns:
        ``min(g_i, mean(g_i, g_i+1, g_i+2))``, ``(runs, checkpoints)``; ``-inf`` where one of the three is
        NaN or lies beyond the last checkpoint.
    """
    scores = np.atleast_2d(np.asarray(scores, float))
    levels = np.full(scores.shape, -np.inf)
    if scores.shape[1] >= LOOK_AHEAD:
        windows = np.lib.stride_tricks.sliding_window_view(scores, LOOK_AHEAD, axis=1)
        both = np.minimum(scores[:, : 1 - LOOK_AHEAD], windows.mean(axis=-1))
        levels[:, : 1 - LOOK_AHEAD] = np.where(np.isnan(both), -np.inf, both)
    return levels


def arrivals(steps: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, budget: float) -> np.ndarray:
    """Arrival times T_θ: the first checkpoint with g_i >= θ and mean(g_i, g_i+1, g_i+2) >= θ.

    Args:
        steps: steps of the checkpoints, ``(checkpoints,)``, increasing from 0.
        scores: ``(runs, checkpoints)``, NaN where a run diverged.
        thresholds: ``(thresholds,)``.
        budget: B; an arrival after it is none.

    Returns:
        Steps, ``(runs, thresholds)``; ``inf`` where a run does not arrive by B (censored). An arrival
        at step 0 counts as the first positive checkpoint.

    Raises:
        ValueError: if ``steps`` does not start with 0 and increase, or does not fit ``scores``.
    """
    steps = np.asarray(steps, float)
    levels = arrival_levels(scores)
    if steps.ndim != 1 or len(steps) < 2 or steps[0] != 0 or np.any(np.diff(steps) <= 0):
        raise ValueError(f"checkpoints must start at 0 and increase, got {steps.tolist()}")
    if levels.shape[1] != len(steps):
        raise ValueError(f"{levels.shape[1]} scores per run do not fit {len(steps)} checkpoints")
    there = levels[:, :, None] >= np.asarray(thresholds, float) - _ROUNDING
    first = there.argmax(axis=1)
    times = np.where(there.any(axis=1), steps[first], np.inf)
    times = np.where(times == 0, steps[1], times)
    return np.where(times <= budget, times, np.inf)


def restricted_times(arrival: np.ndarray, budget: float) -> np.ndarray:
    """Y_θ = min(T_θ, B), any shape: a run that never arrives counts with the whole budget."""
    return np.minimum(np.asarray(arrival, float), budget)


def estimable(*arms: np.ndarray) -> np.ndarray:
    """Thresholds at which at least one run of one arm arrives, ``(thresholds,)`` of bool.

    Args:
        arms: arrival times of each arm, ``(runs, thresholds)``.
    """
    return np.logical_or.reduce([np.isfinite(arm).any(axis=0) for arm in arms])


def mean_times(times: np.ndarray, which: np.ndarray) -> np.ndarray:
    """A run's Ȳ: the mean of Y_θ over the thresholds in ``which``, ``(runs,)``; NaN if there is none.

    Args:
        times: Y_θ, ``(runs, thresholds)``.
        which: thresholds to average over, ``(thresholds,)`` of bool.
    """
    if not which.any():
        return np.full(len(times), np.nan)
    return times[:, which].mean(axis=1)


def cluster_means(values: np.ndarray, clusters: Sequence[Any]) -> np.ndarray:
    """Averages the runs of each cluster (one pretraining with its fine-tunings; PROTOCOL §6).

    Args:
        values: ``(runs, ...)``.
        clusters: the cluster of each run, sortable labels.

    Returns:
        ``(clusters, ...)``, in the order of the sorted labels.
    """
    values = np.asarray(values, float)
    labels = sorted(set(clusters))
    if not labels:
        return values[:0]
    return np.array([values[[c == label for c in clusters]].mean(axis=0) for label in labels])


def speed_up(scratch: np.ndarray, transfer: np.ndarray) -> float:
    """ρ = mean(Y_scratch) / mean(Y_transfer), of ``(clusters,)`` each; above 1 transfer is faster."""
    return float(np.mean(scratch) / np.mean(transfer))


def first_checkpoint_share(times: np.ndarray, which: np.ndarray, first: float) -> float:
    """Which share of an arm's mean Ȳ is made up of arrivals at the first positive checkpoint.

    Such an arrival may have happened any time before, so this share of Ȳ is the grid of checkpoints
    and not the data.

    Args:
        times: Y_θ, ``(runs, thresholds)``.
        which: thresholds averaged over, ``(thresholds,)`` of bool.
        first: step of the first positive checkpoint.
    """
    chosen = times[:, which]
    return float((chosen * (chosen <= first)).sum() / chosen.sum()) if chosen.size else 0.0


def resolution_limit(scratch_share: float, transfer_share: float) -> str:
    """How the first checkpoint limits a speed-up: one of ``""``, ``at least``, ``at most``, ``unresolved``.

    Args:
        scratch_share: :func:`first_checkpoint_share` of the scratch arm.
        transfer_share: the same of the transfer arm.
    """
    scratch, transfer = scratch_share > RESOLUTION, transfer_share > RESOLUTION
    if scratch and transfer:
        return "unresolved"
    return "at least" if transfer else "at most" if scratch else ""


def asymptotes(scores: np.ndarray) -> np.ndarray:
    """Mean of the last three checkpoints, unclipped, ``(runs,)``; NaN for a diverged run."""
    return np.asarray(scores, float)[:, -LOOK_AHEAD:].mean(axis=1)


def monotone_curves(scores: np.ndarray) -> np.ndarray:
    """g*(t) = max{θ in [0, 1] : T_θ <= t} at the checkpoints, ``(runs, checkpoints)``."""
    return np.clip(np.maximum.accumulate(arrival_levels(scores), axis=1), 0.0, 1.0)


def areas(steps: np.ndarray, scores: np.ndarray, budget: float) -> np.ndarray:
    """A = (1/B) ∫ clip(g) dt over [0, B], as a left-constant step sum, ``(runs,)`` (PROTOCOL §4.6).

    Args:
        steps: steps of the checkpoints, ``(checkpoints,)``, increasing from 0.
        scores: ``(runs, checkpoints)``; NaN, after a divergence, counts as 0.
        budget: B.
    """
    # g_i holds from t_i to t_i+1, and nothing beyond B counts
    widths = np.diff(np.minimum(np.append(np.asarray(steps, float), np.inf), budget))
    return np.clip(np.nan_to_num(scores, nan=0.0), 0.0, 1.0) @ widths / budget


def forward_transfer(scratch: float, transfer: float) -> float:
    """(A_t - A_s) / (1 - A_s) of Continual World (Wolczyk et al. 2021, arXiv:2105.10919); NaN at 1.

    Areas of the transfer and the scratch arm, in [0, 1].
    """
    return (transfer - scratch) / (1.0 - scratch) if scratch < 1.0 else math.nan


def transfer_ratio(scratch: float, transfer: float) -> float:
    """(A_t - A_s) / A_s (Taylor and Stone 2009, JMLR 10, section 2); NaN at A_s = 0."""
    return (transfer - scratch) / scratch if scratch > 0.0 else math.nan


# --- from tables to folds --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class ArmCurves:
    """The learning curves of one arm on one fold's held-out task."""

    arm: str
    """Name of the arm."""
    runs: tuple[str, ...]
    """Ids of the runs, by seed."""
    clusters: tuple[tuple[int, str], ...]
    """The cluster of each run: lowest seed and id of what it started from, or its own."""
    steps: np.ndarray
    """Steps of the checkpoints, ``(checkpoints,)``."""
    scores: np.ndarray
    """``(runs, checkpoints)``, NaN from a divergence on."""
    diverged: np.ndarray
    """Runs that diverged, ``(runs,)`` of bool."""

    @property
    def count(self) -> int:
        """Number of clusters, the n of every interval."""
        return len(set(self.clusters))

    @property
    def cluster_scores(self) -> np.ndarray:
        """``(clusters, checkpoints)`` for mean curves; a diverged run counts as 0, a random policy."""
        return cluster_means(np.nan_to_num(self.scores, nan=0.0), self.clusters)


def damaged_runs(evaluations: pd.DataFrame, runs: pd.DataFrame, plan: Mapping[str, Any]) -> dict[str, str]:
    """Finished learning runs whose rows are not what the plan asks for, with the reason.

    They are left out of all measures and make the report incomplete.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations`.
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan.
    """
    planned = np.asarray(plan["checkpoints"])
    damaged = {}
    by_run = dict(tuple(evaluations.groupby("run")))
    for run in runs[(runs["phase"] == "learn") & runs["status"].isin(COMPLETE)].itertuples():
        rows = by_run.get(run.run, evaluations.iloc[:0])
        rows = rows[rows["task"] == task_name(plan, run.fold)]
        index = rows["checkpoint"].to_numpy()
        if np.any((index < 0) | (index >= len(planned))) or np.any(
            rows["steps"].to_numpy() != planned[index]
        ):
            damaged[run.run] = "its rows are not at the plan's checkpoints"
        elif run.status == "finished" and len(index) < len(planned):
            damaged[run.run] = (
                f"{len(planned) - len(index)} of {len(planned)} checkpoints are not in the store"
            )
    return damaged


def arm_curves(
    evaluations: pd.DataFrame,
    runs: pd.DataFrame,
    plan: Mapping[str, Any],
    fold: int,
    arm: str,
    exclude: Iterable[str] = (),
) -> ArmCurves:
    """Collects the complete runs of one fold and arm.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan.
        fold: number of the held-out task.
        arm: name of the arm.
        exclude: ids of runs to leave out, see :func:`damaged_runs`.

    Returns:
        The curves; with zero runs where none is complete.
    """
    steps = np.asarray(plan["checkpoints"], float)
    chosen = runs[
        (runs["phase"] == "learn")
        & (runs["fold"] == fold)
        & (runs["arm"] == arm)
        & runs["status"].isin(COMPLETE)
        & ~runs["run"].isin(list(exclude))
    ].sort_values(["seed", "run"])
    # a cluster is named by what its runs started from, and ordered by its lowest seed
    sources = [run.start if isinstance(run.start, str) else run.run for run in chosen.itertuples()]
    lowest: dict[str, int] = {}
    for source, seed in zip(sources, chosen["seed"], strict=True):
        lowest[source] = min(int(seed), lowest.get(source, int(seed)))
    rows = evaluations[evaluations["task"] == task_name(plan, fold)]
    rows = rows[rows["run"].isin(chosen["run"])]
    scores = np.full((len(chosen), len(steps)), np.nan)
    position = {run: i for i, run in enumerate(chosen["run"])}
    scores[rows["run"].map(position).to_numpy(int), rows["checkpoint"].to_numpy(int)] = rows["score"]
    return ArmCurves(
        arm,
        tuple(chosen["run"]),
        tuple((lowest[source], source) for source in sources),
        steps,
        scores,
        np.isnan(scores).any(axis=1),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FoldMeasures:
    """What PROTOCOL §4 reads off one fold: arrays by arm, in the order (scratch, transfer)."""

    fold: int
    """Number of the held-out task."""
    task: str
    """Its name."""
    curves: tuple[ArmCurves, ArmCurves]
    """Learning curves."""
    thresholds: np.ndarray
    """θ grid, ``(thresholds,)``."""
    arrivals: tuple[np.ndarray, np.ndarray]
    """T_θ, ``(runs, thresholds)``, ``inf`` where censored."""
    times: tuple[np.ndarray, np.ndarray]
    """Y_θ, cluster means, ``(clusters, thresholds)``."""
    estimable: np.ndarray
    """Thresholds that some run reaches, ``(thresholds,)`` of bool; the others are left out of Ȳ."""
    mean_times: tuple[np.ndarray, np.ndarray]
    """Ȳ, cluster means, ``(clusters,)``."""
    speed_up: float
    """ρ̄; NaN where an arm has no complete run or no θ is estimable."""
    limit: str
    """How the first checkpoint limits ρ̄, see :func:`resolution_limit`."""
    at_start: tuple[np.ndarray, np.ndarray]
    """g(0), cluster means, ``(clusters,)``."""
    at_end: tuple[np.ndarray, np.ndarray]
    """Mean of the last three checkpoints, ``(clusters,)``, clusters with a diverged run left out."""
    area: tuple[float, float]
    """A, mean over clusters."""
    success: tuple[np.ndarray, np.ndarray]
    """Share of runs that arrive by B, mean over clusters, ``(thresholds,)``."""

    @property
    def solved(self) -> bool:
        """Whether the transfer arm does the task before any training on it (generalisation)."""
        return bool(len(self.at_start[1])) and float(np.mean(self.at_start[1])) >= SOLVED

    @property
    def mixed(self) -> list[tuple[str, float]]:
        """Arms of which some runs arrive by B and others do not, each with the lowest such θ."""
        found = []
        for curves, share in zip(self.curves, self.success, strict=True):
            between = self.estimable & (share > 0) & (share < 1)
            if between.any():
                found.append((curves.arm, float(self.thresholds[between][0])))
        return found


def fold_measures(
    fold: int,
    task: str,
    scratch: ArmCurves,
    transfer: ArmCurves,
    thresholds: Sequence[float],
    budget: float,
) -> FoldMeasures:
    """Applies the measures to one fold.

    Args:
        fold: number of the held-out task.
        task: its name.
        scratch: curves of the baseline.
        transfer: curves of the arm that is compared with it.
        thresholds: θ grid.
        budget: B, in steps.
    """
    grid = np.asarray(thresholds, float)
    arms = (scratch, transfer)
    arrived = tuple(arrivals(a.steps, a.scores, grid, budget) for a in arms)
    which = estimable(*arrived)
    run_times = tuple(restricted_times(t, budget) for t in arrived)
    means = [cluster_means(mean_times(t, which), a.clusters) for t, a in zip(run_times, arms, strict=True)]
    shares = [first_checkpoint_share(t, which, scratch.steps[1]) for t in run_times]
    some = all(a.count for a in arms)
    ends = []
    for a in arms:
        end = cluster_means(asymptotes(a.scores), a.clusters)
        ends.append(end[~np.isnan(end)])
    return FoldMeasures(
        fold=fold,
        task=task,
        curves=arms,
        thresholds=grid,
        arrivals=(arrived[0], arrived[1]),
        times=(
            cluster_means(run_times[0], scratch.clusters),
            cluster_means(run_times[1], transfer.clusters),
        ),
        estimable=which,
        mean_times=(means[0], means[1]),
        speed_up=speed_up(*means) if some and which.any() else math.nan,
        limit=resolution_limit(*shares) if some and which.any() else "",
        at_start=(
            cluster_means(np.nan_to_num(scratch.scores[:, 0]), scratch.clusters),
            cluster_means(np.nan_to_num(transfer.scores[:, 0]), transfer.clusters),
        ),
        at_end=(ends[0], ends[1]),
        area=(_mean_area(scratch, budget), _mean_area(transfer, budget)),
        success=(_share(arrived[0], scratch), _share(arrived[1], transfer)),
    )


def competence(evaluations: pd.DataFrame, runs: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Competence at hand-over: mean score on the source tasks when pretraining ends (PROTOCOL §4.12).

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan.

    Returns:
        One row per complete pretraining: ``run, fold, arm, seed, score, held_out`` (score on the task that
        is held out), NaN for what was not evaluated; a diverged evaluation counts as 0, a random policy.
    """
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    planned = {run["id"]: run for run in plan["runs"]}
    rows = []
    for run in runs[(runs["phase"] == "pretrain") & runs["status"].isin(COMPLETE)].itertuples():
        of_run = evaluations[evaluations["run"] == run.run]
        last = of_run[of_run["checkpoint"] == of_run["checkpoint"].max()]
        score = last.set_index("task")["score"].fillna(0.0)
        sources = score.reindex([names[number] for number in planned[run.run]["tasks"]])
        rows.append(
            {
                "run": run.run,
                "fold": run.fold,
                "arm": run.arm,
                "seed": run.seed,
                "score": sources.mean(skipna=False),
                "held_out": score.get(names[run.fold], math.nan),
            }
        )
    return pd.DataFrame(rows, columns=["run", "fold", "arm", "seed", "score", "held_out"])


def task_name(plan: Mapping[str, Any], number: int) -> str:
    """Name of a published task of the plan.

    Raises:
        ValueError: for a number that the plan does not list.
    """
    for task in plan["tasks"]:
        if task["number"] == number:
            return str(task["name"])
    raise ValueError(f"the plan has no task {number}; it has {[t['number'] for t in plan['tasks']]}")


def _mean_area(arm: ArmCurves, budget: float) -> float:
    if not arm.count:
        return math.nan
    return float(cluster_means(areas(arm.steps, arm.scores, budget), arm.clusters).mean())


def _share(arrival: np.ndarray, arm: ArmCurves) -> np.ndarray:
    if not arm.count:
        return np.full(arrival.shape[1], np.nan)
    return cluster_means(np.isfinite(arrival), arm.clusters).mean(axis=0)
