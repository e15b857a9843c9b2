"""The measures of PROTOCOL §4, as pure functions of arrays and tables.

Arrays are named by their axes: ``(runs, checkpoints)`` for learning curves, ``(runs, thresholds)`` for
what is read off them. Times are control steps summed over all worlds of a run. Scores are
``g = (J - R_random) / (R_reference - R_random)``: 0 is a random policy, 1 the reference.

An arm is compared with a baseline, which is ``scratch`` unless said otherwise; pairs of either are in the
order (baseline, arm).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness import statistics
from harness.schema import AT_CHECKPOINT, INTERPOLATED
from harness.statistics import Estimate
from harness.store import CODES, COMPLETE

BASELINE = "scratch"
"""What an arm is compared with, unless said otherwise."""
TRUE_CODE = CODES[0]
"""Column ``code`` of an evaluation in which the network was told its task; also of rows without it."""
JOINT_ARMS = ("joint", "joint-wide")
"""Arms whose runs learn all tasks at once and are evaluated at the plan's ``joint_checkpoints``."""
DOSES = {
    "sources": "number of source tasks",
    "steps": "steps of pretraining (control steps of all worlds of a run)",
}
"""What is dosed by arms called ``name=number``."""

SOLVED = 0.5
"""A fold whose arm scores at least this at step 0 is solved: generalisation (PROTOCOL §4.3)."""
COMPETENT = 0.7
"""Mean score on the source tasks below which a pretraining is flagged (PROTOCOL §4.12)."""
LOOK_AHEAD = 3
"""Checkpoints whose mean must hold the threshold, the arriving one included (PROTOCOL §4.1)."""
RESOLUTION = 0.1
"""Share of a mean time that arrivals at the first checkpoint may make up before it counts as resolved."""
SIGNIFICANT = 0.05
"""Holm-adjusted p below which a task shows positive or negative transfer (PROTOCOL §4.10)."""
READINGS = {
    INTERPOLATED: "arrival interpolated between checkpoints",
    AT_CHECKPOINT: "arrival dated to the checkpoint that shows it",
}
"""How arrivals may be dated, as settings of :func:`sensitivity`."""
WITHIN_GAP = 4
"""Parts of a gap between checkpoints at whose ends shares are shown, where arrivals are interpolated."""
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
    """Adds the column ``score`` to a table of evaluations, NaN where the row says that its run diverged.

    Args:
        evaluations: a table with columns ``task``, ``return_mean`` and maybe ``diverged``.
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
    if "diverged" in table:
        table.loc[table["diverged"].astype(bool), "score"] = np.nan
    return table


def mark_diverged(evaluations: pd.DataFrame, runs: pd.DataFrame) -> pd.DataFrame:
    """The runs, those of status ``finished`` with a NaN score among their rows called ``diverged``.

    So the flow of runs counts as diverged what the curves treat so (:func:`score_rows`), whoever wrote
    the store.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
    """
    lost = evaluations.loc[evaluations["score"].isna(), "run"]
    hit = (runs["status"] == "finished") & runs["run"].isin(lost)
    return runs.assign(status=runs["status"].mask(hit, "diverged"))


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


def arrivals(
    steps: np.ndarray,
    scores: np.ndarray,
    thresholds: np.ndarray,
    budget: float,
    interpolate: bool,
) -> np.ndarray:
    """Arrival times T_θ, seen at the first checkpoint with g_i >= θ and mean(g_i, g_i+1, g_i+2) >= θ.

    Args:
        steps: steps of the checkpoints, ``(checkpoints,)``, increasing from 0.
        scores: ``(runs, checkpoints)``, NaN where a run diverged.
        thresholds: ``(thresholds,)``.
        budget: B; an arrival that is seen after it is none.
        interpolate: whether to date an arrival to where the line from the checkpoint before to the
            arriving one crosses θ, as :func:`interpolates` says of a plan; else to the arriving one.

    Returns:
        Steps, ``(runs, thresholds)``; ``inf`` where a run does not arrive by B (censored), which is so in
        both readings or in neither. An arrival at step 0 counts as the first positive checkpoint. So does
        every arrival by then in the interpolated reading, or a run that is there at step 0 would take no
        time at all.

    Raises:
        ValueError: if ``steps`` does not start with 0 and increase, or does not fit ``scores``.
    """
    times = level_arrivals(steps, arrival_levels(scores), thresholds, budget)
    return crossings(steps, scores, thresholds, times) if interpolate else times


def crossings(
    steps: np.ndarray, scores: np.ndarray, thresholds: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Arrival times moved to where scores, joined by lines, cross θ; see :func:`arrivals`.

    Args:
        steps: steps of the checkpoints, ``(checkpoints,)``.
        scores: ``(runs, checkpoints)``.
        thresholds: ``(thresholds,)``.
        times: :func:`level_arrivals`, ``(runs, thresholds)``; ``inf`` stays.
    """
    steps, scores = np.asarray(steps, float), np.atleast_2d(np.asarray(scores, float))
    theta = np.broadcast_to(np.asarray(thresholds, float), times.shape)
    index = np.where(np.isfinite(times), np.searchsorted(steps, times), 1)
    index = np.minimum(index, len(steps) - 1)  # of what is censored nothing is read
    before, there = (np.take_along_axis(scores, i, axis=1) for i in (index - 1, index))
    with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
        # share of the gap that is over: (θ - g_i-1) / (g_i - g_i-1)
        share = np.clip((theta - before) / (there - before), 0.0, 1.0)
    # a score above θ that was not confirmed: as early as the gap allows
    share = np.where(before >= theta, 0.0, np.where(np.isnan(share), 1.0, share))
    crossed = steps[index - 1] + share * (steps[index] - steps[index - 1])
    return np.where(np.isfinite(times), np.maximum(crossed, steps[1]), np.inf)


def level_arrivals(
    steps: np.ndarray, levels: np.ndarray, thresholds: np.ndarray, budget: float
) -> np.ndarray:
    """Arrival times from the levels of :func:`arrival_levels`; see :func:`arrivals`."""
    steps = np.asarray(steps, float)
    if steps.ndim != 1 or len(steps) < 2 or steps[0] != 0 or np.any(np.diff(steps) <= 0):
        raise ValueError(f"checkpoints must start at 0 and increase, got {steps.tolist()}")
    if levels.shape[1] != len(steps):
        raise ValueError(f"{levels.shape[1]} scores per run do not fit {len(steps)} checkpoints")
    there = levels[:, :, None] >= np.asarray(thresholds, float) - _ROUNDING
    first = there.argmax(axis=1)
    times = np.where(there.any(axis=1), steps[first], np.inf)
    times = np.where(times == 0, steps[1], times)
    return np.where(times <= budget, times, np.inf)


def interpolates(plan: Mapping[str, Any]) -> bool:
    """Whether a plan's arrivals are interpolated between checkpoints; see :func:`arrivals`."""
    return dating(plan) == INTERPOLATED


def dating(plan: Mapping[str, Any]) -> str:
    """How a plan dates arrivals, one of :data:`READINGS`."""
    return str(plan.get("arrivals", AT_CHECKPOINT))


def shown_steps(steps: Sequence[float] | np.ndarray, interpolated: bool) -> np.ndarray:
    """Steps at which shares of runs that have arrived are shown.

    Args:
        steps: steps of the checkpoints, ``(checkpoints,)``.
        interpolated: whether arrivals may lie between them.

    Returns:
        The checkpoints and, if so, the ends of each of the :data:`WITHIN_GAP` parts of every gap but the
        first, in which no arrival lies; ``(shown,)``.
    """
    steps = np.asarray(steps, float)
    if not interpolated:
        return steps
    parts = np.arange(WITHIN_GAP) / WITHIN_GAP
    within = steps[1:-1, None] + np.diff(steps[1:])[:, None] * parts
    return np.concatenate([steps[:1], within.ravel(), steps[-1:]])


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


def speed_up(baseline: np.ndarray, arm: np.ndarray) -> float:
    """ρ = mean(Y_baseline) / mean(Y_arm), of ``(clusters,)`` each; above 1 the arm is faster."""
    return float(np.mean(baseline) / np.mean(arm))


def expected_running_times(arrival: np.ndarray, budget: float) -> np.ndarray:
    """Expected running time ΣY / number of arrivals (Hansen et al. 2021, arXiv:1603.08785; PROTOCOL §4.7).

    Args:
        arrival: T_θ, ``(runs, thresholds)``.
        budget: B.

    Returns:
        Steps, ``(thresholds,)``; infinite where no run arrives, NaN with no run.
    """
    arrived = np.isfinite(arrival).sum(axis=0)
    spent = restricted_times(arrival, budget).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(arrived > 0, spent / arrived, np.inf if len(arrival) else np.nan)


def reached_shares(steps: np.ndarray, arrival: np.ndarray) -> np.ndarray:
    """Share of the thresholds that each run has reached by each of some steps, ``(runs, steps)``.

    Args:
        steps: such as those of the checkpoints, ``(steps,)``.
        arrival: T_θ, ``(runs, thresholds)``.
    """
    return (np.asarray(arrival)[:, None, :] <= np.asarray(steps, float)[:, None]).mean(axis=-1)


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


def resolution_limit(baseline_share: float, arm_share: float) -> str:
    """How the first checkpoint limits a speed-up: one of ``""``, ``at least``, ``at most``, ``unresolved``.

    Args:
        baseline_share: :func:`first_checkpoint_share` of the baseline.
        arm_share: the same of the arm.
    """
    baseline, arm = baseline_share > RESOLUTION, arm_share > RESOLUTION
    if baseline and arm:
        return "unresolved"
    return "at least" if arm else "at most" if baseline else ""


def join_limits(limits: Iterable[str]) -> str:
    """How the limits of several speed-ups limit their mean; those that disagree leave it unresolved."""
    found = set(limits) - {""}
    return found.pop() if len(found) == 1 else "unresolved" if found else ""


def asymptotes(scores: np.ndarray) -> np.ndarray:
    """Mean of the last three checkpoints, unclipped, ``(runs,)``; NaN, after a divergence, counts as 0."""
    return np.nan_to_num(np.asarray(scores, float)[:, -LOOK_AHEAD:], nan=0.0).mean(axis=1)


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


def forward_transfer(baseline: float, arm: float) -> float:
    """(A_t - A_s) / (1 - A_s) of Continual World (Wolczyk et al. 2021, arXiv:2105.10919); NaN at A_s = 1.

    Args:
        baseline: A_s, area of the baseline, in [0, 1].
        arm: A_t, area of the arm.
    """
    return (arm - baseline) / (1.0 - baseline) if baseline < 1.0 else math.nan


def transfer_ratio(baseline: float, arm: float) -> float:
    """(A_t - A_s) / A_s (Taylor and Stone 2009, JMLR 10, section 2); NaN at A_s = 0."""
    return (arm - baseline) / baseline if baseline > 0.0 else math.nan


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
    def first_runs(self) -> list[int]:
        """Index of the first run of every cluster, in the runs' order."""
        return [self.clusters.index(cluster) for cluster in dict.fromkeys(self.clusters)]

    @property
    def cluster_scores(self) -> np.ndarray:
        """``(clusters, checkpoints)`` for mean curves; a diverged run counts as 0, a random policy."""
        return cluster_means(np.nan_to_num(self.scores, nan=0.0), self.clusters)


def true_rows(evaluations: pd.DataFrame) -> pd.DataFrame:
    """The evaluations in which the network was told its task truly, each (run, checkpoint, task) once.

    Rows without the column ``code`` are of before there was one, and true. Of a duplicated row the first
    counts, as in the store.
    """
    if "code" in evaluations:
        evaluations = evaluations[evaluations["code"] == TRUE_CODE]
    return evaluations.drop_duplicates(["run", "checkpoint", "task"], keep="first")


def checkpoints(plan: Mapping[str, Any], arm: str) -> np.ndarray:
    """Steps at which the learning runs of an arm are evaluated, ``(checkpoints,)``."""
    return np.asarray(plan["joint_checkpoints" if arm in JOINT_ARMS else "checkpoints"], float)


def damaged_runs(evaluations: pd.DataFrame, runs: pd.DataFrame, plan: Mapping[str, Any]) -> dict[str, str]:
    """Finished runs whose rows are not what the plan asks for, with the reason.

    They are left out of all measures and make the report incomplete.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations`.
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan.
    """
    damaged = {}
    by_run = dict(tuple(evaluations.groupby("run")))
    planned = {run["id"]: run for run in plan["runs"]}
    for run in runs[runs["status"].isin(COMPLETE)].itertuples():
        of_run = by_run.get(run.run, evaluations.iloc[:0])
        check = _curve_damage if run.phase == "learn" else _hand_over_damage
        reason = check(of_run, planned[run.run], run.status, plan)
        if reason:
            damaged[run.run] = reason
    return damaged


def _curve_damage(rows: pd.DataFrame, run: Mapping[str, Any], status: str, plan: Mapping[str, Any]) -> str:
    """What is wrong with the rows of a learning run; empty if nothing is."""
    steps, told = checkpoints(plan, run["arm"]), true_rows(rows)
    for number in run["tasks"]:
        of_task = told[told["task"] == task_name(plan, number)]
        index = of_task["checkpoint"].to_numpy()
        if np.any((index < 0) | (index >= len(steps))) or np.any(
            of_task["steps"].to_numpy() != steps[index]
        ):
            return "its rows are not at the plan's checkpoints"
        if status == "finished" and len(index) < len(steps):
            return f"{len(steps) - len(index)} of {len(steps)} checkpoints are not in the store"
    return ""


def _hand_over_damage(
    rows: pd.DataFrame, run: Mapping[str, Any], status: str, plan: Mapping[str, Any]
) -> str:
    """The same of a pretraining, which is evaluated when it ends."""
    if np.any(rows["steps"].to_numpy() != run["steps"]):
        return "its rows are not at the end of its pretraining"
    expected = {(task_name(plan, number), TRUE_CODE) for number in run["tasks"]}
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    # a source of a matrix has no held-out task, and a ceiling has learned it
    if run["fold"] in names and run["fold"] not in run["tasks"]:
        # a network that is told nothing has no other code; nor had plans of the first format
        told = run.get("conditioning", "none") != "none"
        codes = CODES if told else (TRUE_CODE,)
        expected |= {(names[run["fold"]], code) for code in codes}
    codes_of_rows = rows["code"] if "code" in rows else [TRUE_CODE] * len(rows)
    lacking = expected - set(zip(rows["task"], codes_of_rows, strict=True))
    if status == "diverged" or not lacking:
        return ""
    return f"{len(lacking)} of {len(expected)} evaluations at the end of pretraining are not in the store"


def score_rows(evaluations: pd.DataFrame, runs: Sequence[str], task: str, steps: np.ndarray) -> np.ndarray:
    """Learning curves of some runs on one task.

    Args:
        evaluations: :func:`true_rows` with the column ``score``.
        runs: ids, in the order wanted.
        task: name of the task.
        steps: steps of the checkpoints, ``(checkpoints,)``.

    Returns:
        ``(runs, checkpoints)``, NaN where a row or its score is missing and from there on: a run that
        diverged has not come back.
    """
    rows = evaluations[(evaluations["task"] == task) & evaluations["run"].isin(list(runs))]
    scores = np.full((len(runs), len(steps)), np.nan)
    position = {run: i for i, run in enumerate(runs)}
    scores[rows["run"].map(position).to_numpy(int), rows["checkpoint"].to_numpy(int)] = rows["score"]
    return np.where(np.logical_or.accumulate(np.isnan(scores), axis=1), np.nan, scores)


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
    steps = checkpoints(plan, arm)
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
    scores = score_rows(true_rows(evaluations), list(chosen["run"]), task_name(plan, fold), steps)
    return ArmCurves(
        arm,
        tuple(chosen["run"]),
        tuple((lowest[source], source) for source in sources),
        steps,
        scores,
        np.isnan(scores).any(axis=1),
    )


def all_curves(
    evaluations: pd.DataFrame, runs: pd.DataFrame, plan: Mapping[str, Any], exclude: Iterable[str] = ()
) -> dict[tuple[int, str], ArmCurves]:
    """:func:`arm_curves` of every fold and arm of which runs are planned; controls are on some folds only.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan.
        exclude: ids of runs to leave out, see :func:`damaged_runs`.
    """
    learning = runs[runs["phase"] == "learn"]
    planned = set(zip(learning["fold"], learning["arm"], strict=True))
    evaluations, exclude = true_rows(evaluations), list(exclude)
    return {
        (fold, arm): arm_curves(evaluations, runs, plan, fold, arm, exclude)
        for fold in plan["folds"]
        for arm in plan["arms"]
        if (fold, arm) in planned
    }


@dataclasses.dataclass(frozen=True, eq=False)
class FoldMeasures:
    """What PROTOCOL §4 reads off one fold: pairs of arrays, in the order (baseline, arm)."""

    fold: int
    """Number of the held-out task."""
    task: str
    """Its name."""
    budget: float
    """B, in steps."""
    curves: tuple[ArmCurves, ArmCurves]
    """Learning curves."""
    thresholds: np.ndarray
    """θ grid, ``(thresholds,)``."""
    interpolated: bool
    """Whether arrivals are interpolated between checkpoints, see :func:`arrivals`."""
    arrivals: tuple[np.ndarray, np.ndarray]
    """T_θ, ``(runs, thresholds)``, ``inf`` where censored."""
    times: tuple[np.ndarray, np.ndarray]
    """Y_θ, cluster means, ``(clusters, thresholds)``."""
    estimable: np.ndarray
    """Thresholds that some run reaches, ``(thresholds,)`` of bool; the others are left out of Ȳ."""
    run_mean_times: tuple[np.ndarray, np.ndarray]
    """Ȳ of every run, ``(runs,)``, whose cluster is in ``curves``."""
    mean_times: tuple[np.ndarray, np.ndarray]
    """Ȳ, cluster means, ``(clusters,)``."""
    speed_up: float
    """ρ̄; NaN where one side has no complete run or no θ is estimable."""
    limit: str
    """How the first checkpoint limits ρ̄, see :func:`resolution_limit`."""
    at_start: tuple[np.ndarray, np.ndarray]
    """g(0), cluster means, ``(clusters,)``."""
    at_end: tuple[np.ndarray, np.ndarray]
    """Mean of the last three checkpoints, ``(clusters,)``; a diverged run counts as 0 there."""
    area: tuple[float, float]
    """A, mean over clusters."""
    success: tuple[np.ndarray, np.ndarray]
    """Share of runs that arrive by B, mean over clusters, ``(thresholds,)``."""

    @property
    def names(self) -> tuple[str, str]:
        """Names of the baseline and the arm."""
        return self.curves[0].arm, self.curves[1].arm

    @property
    def complete(self) -> bool:
        """Whether both sides have a complete run."""
        return all(curves.count for curves in self.curves)

    @property
    def solved(self) -> bool:
        """Whether the arm does the task before any training on it (generalisation)."""
        return bool(len(self.at_start[1])) and float(np.mean(self.at_start[1])) >= SOLVED

    @property
    def mixed(self) -> list[tuple[str, float]]:
        """Sides of which some runs arrive by B and others do not, each with the lowest such θ."""
        found = []
        for curves, share in zip(self.curves, self.success, strict=True):
            between = self.estimable & (share > 0) & (share < 1)
            if between.any():
                found.append((curves.arm, float(self.thresholds[between][0])))
        return found

    def log_ratio(self, confidence: float = statistics.CONFIDENCE) -> Estimate:
        """log ρ̄ with its t interval, the sides called by their names in a reason."""
        return statistics.log_ratio(*self.mean_times, confidence=confidence, names=self.names)


def fold_measures(
    fold: int,
    task: str,
    baseline: ArmCurves,
    arm: ArmCurves,
    thresholds: Sequence[float] | np.ndarray,
    budget: float,
    interpolate: bool,
) -> FoldMeasures:
    """Applies the measures to one fold.

    Args:
        fold: number of the held-out task.
        task: its name.
        baseline: curves of the baseline.
        arm: curves of the arm that is compared with it.
        thresholds: θ grid.
        budget: B, in steps.
        interpolate: how arrivals are dated, see :func:`arrivals`.
    """
    grid = np.asarray(thresholds, float)
    arms = (baseline, arm)
    arrived = tuple(arrivals(a.steps, a.scores, grid, budget, interpolate) for a in arms)
    which = estimable(*arrived)
    times = tuple(restricted_times(t, budget) for t in arrived)
    run_means = tuple(mean_times(t, which) for t in times)
    means = [cluster_means(y, a.clusters) for y, a in zip(run_means, arms, strict=True)]
    shares = [first_checkpoint_share(t, which, a.steps[1]) for t, a in zip(times, arms, strict=True)]
    some = all(a.count for a in arms)
    ends = [cluster_means(asymptotes(a.scores), a.clusters) for a in arms]
    return FoldMeasures(
        fold=fold,
        task=task,
        budget=budget,
        curves=arms,
        thresholds=grid,
        interpolated=interpolate,
        arrivals=(arrived[0], arrived[1]),
        times=(cluster_means(times[0], baseline.clusters), cluster_means(times[1], arm.clusters)),
        estimable=which,
        run_mean_times=(run_means[0], run_means[1]),
        mean_times=(means[0], means[1]),
        speed_up=speed_up(*means) if some and which.any() else math.nan,
        limit=resolution_limit(*shares) if some and which.any() else "",
        at_start=(
            cluster_means(np.nan_to_num(baseline.scores[:, 0]), baseline.clusters),
            cluster_means(np.nan_to_num(arm.scores[:, 0]), arm.clusters),
        ),
        at_end=(ends[0], ends[1]),
        area=(_mean_area(baseline, budget), _mean_area(arm, budget)),
        success=(_share(arrived[0], baseline), _share(arrived[1], arm)),
    )


def compare(
    curves: Mapping[tuple[int, str], ArmCurves],
    plan: Mapping[str, Any],
    arm: str,
    baseline: str = BASELINE,
) -> tuple[FoldMeasures, ...]:
    """Compares an arm with a baseline on every fold on which both are planned, in the plan's order.

    Args:
        curves: :func:`all_curves`.
        plan: the plan.
        arm: name of the arm.
        baseline: name of the baseline, any other arm.

    Raises:
        ValueError: for an arm that is planned nowhere.
    """
    there = sorted({name for _, name in curves})
    for name in (baseline, arm):
        if name not in there:
            raise ValueError(f"no run of arm {name!r} is planned; there are {there}")
    return tuple(
        fold_measures(
            fold,
            task_name(plan, fold),
            curves[fold, baseline],
            curves[fold, arm],
            plan["thresholds"],
            plan["budget"],
            interpolates(plan),
        )
        for fold in plan["folds"]
        if (fold, baseline) in curves and (fold, arm) in curves
    )


def speed_up_bounds(fold: FoldMeasures) -> tuple[float, float]:
    """Between which values ρ̄ lies, wherever between its checkpoints each run arrived.

    An arrival that t_i shows came after t_i-1: the lower end has all of the baseline's as early and all of
    the arm's as late as can be, the upper end the reverse. That is so however the fold's are dated.

    Returns:
        Lower and upper end, the upper one infinite where every run of the arm may have been there at
        once; NaN where ρ̄ is.
    """
    if math.isnan(fold.speed_up):
        return math.nan, math.nan
    early: list[float] = []
    late: list[float] = []
    for curves in fold.curves:
        shown = arrivals(curves.steps, curves.scores, fold.thresholds, fold.budget, interpolate=False)
        index = np.where(np.isfinite(shown), np.searchsorted(curves.steps, shown), 1)
        before = np.where(np.isfinite(shown), curves.steps[index - 1], fold.budget)
        for ends, times in ((early, before), (late, restricted_times(shown, fold.budget))):
            ends.append(cluster_means(mean_times(times, fold.estimable), curves.clusters).mean())
    high = late[0] / early[1] if early[1] > 0 else math.inf
    return float(early[0] / late[1]), float(high)


# --- what is evaluated when pretraining ends -------------------------------------------------------


def competence(evaluations: pd.DataFrame, runs: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Competence at hand-over: mean score on the source tasks when pretraining ends (PROTOCOL §4.12).

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan.

    Returns:
        One row per complete pretraining: ``run, fold, arm, seed, score, held_out`` (score on the task that
        is held out), NaN for what was not evaluated. A diverged pretraining counts as 0, a random policy,
        on every task of which it has no score.
    """
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    planned = {run["id"]: run for run in plan["runs"]}
    rows = []
    for run, last in _hand_over(true_rows(evaluations), runs):
        score = last.set_index("task")["score"].fillna(0.0)
        # a diverged network is not evaluated, and is a random policy; what else is absent is not known
        absent = 0.0 if run.status == "diverged" else math.nan
        sources = score.reindex([names[number] for number in planned[run.run]["tasks"]], fill_value=absent)
        rows.append(
            {
                "run": run.run,
                "fold": run.fold,
                "arm": run.arm,
                "seed": run.seed,
                "score": sources.mean(skipna=False),
                # a pretraining of no fold, as the sources of a matrix, holds nothing out
                "held_out": score.get(names[run.fold], absent) if run.fold in names else math.nan,
            }
        )
    return pd.DataFrame(rows, columns=["run", "fold", "arm", "seed", "score", "held_out"])


def code_scores(evaluations: pd.DataFrame, runs: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """Scores on the held-out task when pretraining ends, by the code that the network was told.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan.

    Returns:
        One row per complete pretraining and code: ``run, fold, task, arm, seed, code, score``; a diverged
        evaluation counts as 0. Of a network that learned a single task the mean of its sources' codes is
        the farthest one too, and there once.
    """
    if "code" not in evaluations:
        evaluations = evaluations.assign(code=TRUE_CODE)
    evaluations = evaluations.drop_duplicates(["run", "checkpoint", "task", "code"], keep="first")
    names = {task["number"]: task["name"] for task in plan["tasks"]}
    alone = {run["id"] for run in plan["runs"] if len(run["tasks"]) == 1}
    rows = []
    for run, last in _hand_over(evaluations, runs):
        held_out = last[last["task"] == names.get(run.fold, "")]
        if run.run in alone:
            held_out = held_out[held_out["code"] != "wrong"]
        for code, score in zip(held_out["code"], held_out["score"].fillna(0.0), strict=True):
            of_run = {"run": run.run, "fold": run.fold, "task": names[run.fold], "arm": run.arm}
            rows.append(of_run | {"seed": run.seed, "code": code, "score": score})
    return pd.DataFrame(rows, columns=["run", "fold", "task", "arm", "seed", "code", "score"])


def code_differences(scores: pd.DataFrame) -> pd.DataFrame:
    """What the true code is worth at hand-over: true - other, within the same network.

    Args:
        scores: :func:`code_scores`.

    Returns:
        One row per arm, fold and other code: ``arm, fold, task, code, n, difference, low, high, reason, p``
        (of the t test), and one per arm and code for the mean over folds, of ``fold`` -1 and task ``mean of
        tasks``; ``p_holm`` of a fold is adjusted for all folds and codes of the arm, that of a mean for
        nothing.
    """
    columns = ["arm", "fold", "task", "code", "n", "difference", "low", "high", "reason", "p"]
    rows = []
    wide = scores.pivot_table("score", ["arm", "fold", "task", "run"], "code")
    for code in [c for c in wide.columns if c != TRUE_CODE]:
        worth = (wide[TRUE_CODE] - wide[code]).dropna()
        for arm, of_arm in worth.groupby("arm"):
            estimates = []
            for (fold, task), values in of_arm.groupby(["fold", "task"]):
                estimates.append(statistics.one_sample(values.to_numpy()))
                rows.append([arm, fold, task, code, len(values), *_tested(estimates[-1])])
            mean = statistics.suite_mean(estimates)
            rows.append([arm, -1, "mean of tasks", code, len(of_arm), *_tested(mean)])
    found = pd.DataFrame(rows, columns=columns)
    found["p_holm"] = found["p"]
    for _, of_arm in found[found["fold"] != -1].groupby("arm"):
        found.loc[of_arm.index, "p_holm"] = statistics.holm(of_arm["p"].tolist())
    return found


def _hand_over(evaluations: pd.DataFrame, runs: pd.DataFrame) -> Iterator[tuple[Any, pd.DataFrame]]:
    """Complete networks that others start from, each with the rows of its last checkpoint.

    A network from scratch that is the single source of other folds comes once for each, as if it had been
    pretrained for it.
    """
    by_run = dict(tuple(evaluations.groupby("run")))
    complete = runs[runs["status"].isin(COMPLETE)]
    handed = [*complete[complete["phase"] == "pretrain"].itertuples()]
    learned = complete[complete["phase"] == "learn"].set_index("run", drop=False)
    started = runs[runs["start"].isin(learned.index)].drop_duplicates(["start", "fold", "arm"])
    for run in started.itertuples():
        handed += learned.loc[[run.start]].assign(fold=run.fold, arm=run.arm).itertuples()
    for run in handed:
        of_run = by_run.get(run.run, evaluations.iloc[:0])
        yield run, of_run[of_run["checkpoint"] == of_run["checkpoint"].max()]


# --- tables over folds -----------------------------------------------------------------------------


def success_differences(folds: Sequence[FoldMeasures], theta: float) -> list[Estimate]:
    """Difference of the shares that arrive by B at one θ, arm - baseline, with Newcombe's interval.

    Args:
        folds: of one comparison.
        theta: one of the thresholds.

    Returns:
        One estimate per fold.
    """
    found = []
    for fold in folds:
        i = threshold_index(fold.thresholds, theta)
        (baseline, arm), (n, m) = (f[i] for f in fold.success), (c.count for c in fold.curves)
        found.append(statistics.newcombe(float(baseline), n, float(arm), m))
    return found


def pretraining_steps(plan: Mapping[str, Any], curves: ArmCurves) -> float:
    """C_pretrain: steps of what the arm's runs started from, mean over clusters; 0 for a fresh start."""
    planned = {run["id"]: run for run in plan["runs"]}
    spent = []
    for _, source in sorted(set(curves.clusters)):
        # a cluster of its own name started from nothing
        run = None if source in curves.runs else source
        steps = 0
        while run is not None:
            steps += planned[run]["steps"]
            run = planned[run]["start"]
        spent.append(steps)
    return float(np.mean(spent)) if spent else math.nan


def break_even(folds: Sequence[FoldMeasures], plan: Mapping[str, Any], theta: float) -> pd.DataFrame:
    """After how many held-out tasks like this one pretraining has paid for itself (PROTOCOL §4.9).

    C_pretrain / (mean Y_baseline - mean Y_arm) at one θ, with Fieller's interval.

    Args:
        folds: of one comparison.
        plan: the plan.
        theta: one of the thresholds; the plan's ``break_even_threshold``.

    Returns:
        One row per fold: ``fold, task, theta, pretraining_steps, saving, saving_low, saving_high`` (steps),
        ``uses, low, high`` (infinite: unbounded, the saving may be 0) and ``reason``.
    """
    rows = []
    for fold in folds:
        i = threshold_index(fold.thresholds, theta)
        cost = pretraining_steps(plan, fold.curves[1])
        if not fold.estimable[i]:
            saving = Estimate(math.nan, reason=f"not estimable: no run reaches θ = {theta:.2f}")
        else:
            baseline, arm = fold.times[0][:, i], fold.times[1][:, i]
            saving = statistics.difference(arm, baseline, names=(fold.names[1], fold.names[0]))
        if cost > 0:
            uses = statistics.fieller(cost, saving)
        else:
            uses = Estimate(math.nan, reason=saving.reason or "nothing was spent beforehand")
        rows.append(
            [fold.fold, fold.task, theta, cost, saving.value, saving.low, saving.high, *_interval(uses)]
        )
    columns = ["fold", "task", "theta", "pretraining_steps", "saving", "saving_low", "saving_high"]
    return pd.DataFrame(rows, columns=[*columns, "uses", "low", "high", "reason"])


def nearest_sources(plan: Mapping[str, Any], arm: str = "transfer") -> pd.DataFrame:
    """Distance of every fold's held-out task to the nearest task that the arm was pretrained on (§4.11).

    Args:
        plan: the plan, with ``leaks`` or, in its place, ``descriptors``.
        arm: name of the arm; if it has no pretraining on a fold, all other tasks are its sources.

    Returns:
        One row per fold: ``fold, task, nearest`` (name of the source), ``distance`` (Euclidean, in
        standardised descriptor units).

    Raises:
        ValueError: if the plan holds neither distances nor descriptors of a task.
    """
    rows = []
    for fold in plan["folds"]:
        task = task_name(plan, fold)
        sources = {
            number
            for run in plan["runs"]
            if (run["phase"], run["fold"], run["arm"]) == ("pretrain", fold, arm)
            for number in run["tasks"]
        } or {other["number"] for other in plan["tasks"]}
        names = [task_name(plan, number) for number in sorted(sources - {fold})]
        distances = [(_distance(plan, task, name), name) for name in names]
        nearest = min(distances, default=(math.nan, ""))
        rows.append([fold, task, nearest[1], nearest[0]])
    return pd.DataFrame(rows, columns=["fold", "task", "nearest", "distance"])


def _distance(plan: Mapping[str, Any], task: str, source: str) -> float:
    known = plan.get("leaks", {}).get("distances", {}).get(task, {})
    if source in known:
        return float(known[source])
    descriptors = plan.get("descriptors", {})
    absent = [name for name in (task, source) if name not in descriptors]
    if absent:
        raise ValueError(
            f"the plan has no distance between {task!r} and {source!r}, and no descriptor of {absent[0]!r}"
        )
    return float(np.linalg.norm(np.subtract(descriptors[task], descriptors[source])))


def fairness(runs: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """What the complete runs of each phase and arm spent, so that a reader sees whether arms are equal.

    Args:
        runs: :meth:`harness.store.Store.runs`.
        plan: the plan; its ``tuning`` counts for every arm alike.

    Returns:
        One row per phase and arm, in the plan's order: ``phase, arm, runs`` and means per run of ``steps,
        updates`` (of the gradient), ``parameters, wall_seconds`` (a run's share of its batch), then
        ``tuning_trials, tuning_steps, shared`` (whether arms share one configuration); NaN and None where
        the plan does not say.
    """
    tuning = plan.get("tuning", {})
    rows = []
    for (phase, arm), chosen in runs.groupby(["phase", "arm"], sort=False):
        done = chosen[chosen["status"].isin(COMPLETE)]
        spent = [done[name].mean() for name in ("steps", "updates", "parameters", "wall_seconds")]
        tuned = [tuning.get("trials", math.nan), tuning.get("steps", math.nan), tuning.get("shared")]
        rows.append([phase, arm, len(done), *spent, *tuned])
    columns = ["phase", "arm", "runs", "steps", "updates", "parameters", "wall_seconds"]
    return pd.DataFrame(rows, columns=[*columns, "tuning_trials", "tuning_steps", "shared"])


# --- many comparisons ------------------------------------------------------------------------------


def sensitivity(folds: Sequence[FoldMeasures]) -> pd.DataFrame:
    """The suite's speed-up with one choice changed at a time (PROTOCOL §8.12).

    Changed are the range of θ, the budget (half), the grid of checkpoints (every second one, which
    also doubles the span of the three-checkpoint rule), and when in the gap between two checkpoints a run
    is taken to arrive (by the other of the :data:`READINGS`). Dated to checkpoints, arrivals mostly pull ρ̄
    towards 1, the more the coarser these are, but the first positive one is kept, so not where the arm
    arrives by it. Half the episodes cannot be had from means over episodes; the store keeps no single ones.

    Args:
        folds: of one comparison.

    Returns:
        One row per setting and set of folds: ``setting, set, tasks`` (estimable), ``log_ratio, low, high,
        p, limit, reason``. The sets are ``all_folds`` and ``not_yet_solved`` (at step 0).
    """
    columns = ["setting", "set", "tasks", "log_ratio", "low", "high", "p", "limit", "reason"]
    if not folds:
        return pd.DataFrame(columns=columns)
    grid, budget = folds[0].thresholds, folds[0].budget
    other = READINGS[AT_CHECKPOINT if folds[0].interpolated else INTERPOLATED]
    settings: list[tuple[str, np.ndarray, float, int]] = [
        ("as planned", grid, budget, 1),
        (other, grid, budget, 1),
        ("θ from 0.1 to 0.5", np.round(np.arange(0.10, 0.501, 0.05), 2), budget, 1),
        ("θ from 0.1 to 0.9", np.round(np.arange(0.10, 0.901, 0.05), 2), budget, 1),
        ("half the budget", grid, budget / 2, 1),
        ("every second checkpoint", grid, budget, 2),
    ]
    rows: list[list[Any]] = []
    for name, thresholds, until, stride in settings:
        changed = []
        for f in folds:
            baseline, arm = (_every(curves, stride) for curves in f.curves)
            interpolate = f.interpolated if name != other else not f.interpolated
            changed.append(fold_measures(f.fold, f.task, baseline, arm, thresholds, until, interpolate))
        # a fold without runs of the arm is neither solved nor unsolved
        unsolved = [c for c, f in zip(changed, folds, strict=True) if f.curves[1].count and not f.solved]
        for key, chosen in (("all_folds", changed), ("not_yet_solved", unsolved)):
            estimates = [fold.log_ratio() for fold in chosen]
            e = statistics.suite_mean(estimates)
            tasks = sum(not math.isnan(estimate.value) for estimate in estimates)
            # what is not estimable has no limit
            limit = join_limits(fold.limit for fold in chosen)
            rows.append([name, key, tasks, e.value, e.low, e.high, e.p, limit, e.reason])
    return pd.DataFrame(rows, columns=columns)


def _every(curves: ArmCurves, stride: int) -> ArmCurves:
    """The curves at step 0 and at every ``stride``-th checkpoint, counted from the last."""
    kept = np.unique([0, *range(len(curves.steps) - 1, 0, -stride)])
    return dataclasses.replace(curves, steps=curves.steps[kept], scores=curves.scores[:, kept])


def dose_table(comparisons: Mapping[str, Sequence[FoldMeasures]]) -> pd.DataFrame:
    """Speed-up against the dose: number of source tasks, or pretraining steps.

    Args:
        comparisons: folds by arm; arms are called ``sources=3`` or ``steps=100000``.

    Returns:
        One row per dose and task, sorted, and one for the mean over tasks (``fold`` -1): ``kind, dose, arm,
        fold, task, log_ratio, low, high, p`` (of the t test), ``limit, reason``.

    Raises:
        ValueError: for an arm whose name is no dose.
    """
    rows = []
    for arm, folds in comparisons.items():
        kind, _, dose = arm.partition("=")
        if kind not in DOSES or not dose.isdecimal():
            raise ValueError(f"arm {arm!r} is no dose; doses are called like sources=3 or steps=100000")
        estimates = [fold.log_ratio() for fold in folds]
        for fold, e in zip(folds, estimates, strict=True):
            of_fold = [kind, int(dose), arm, fold.fold, fold.task]
            rows.append([*of_fold, e.value, e.low, e.high, e.p, fold.limit, e.reason])
        mean = statistics.suite_mean(estimates)
        of_suite = [kind, int(dose), arm, -1, "mean of tasks"]
        # what is not estimable has no limit
        limit = join_limits(fold.limit for fold in folds)
        rows.append([*of_suite, mean.value, mean.low, mean.high, mean.p, limit, mean.reason])
    columns = ["kind", "dose", "arm", "fold", "task", "log_ratio", "low", "high", "p", "limit", "reason"]
    table = pd.DataFrame(rows, columns=columns)
    return table.sort_values(["kind", "dose"], kind="stable", ignore_index=True)


def transfer_matrix(
    comparisons: Mapping[str, Sequence[FoldMeasures]], rng: np.random.Generator
) -> pd.DataFrame:
    """Speed-up of every target from every single source, with negative transfer marked.

    Args:
        comparisons: folds, the targets, by arm; arms are called ``from=<task name>``.
        rng: draws the permutations of the tests, cell by cell.

    Returns:
        One row per cell: ``source, target, log_ratio, low, high, p`` (permutation), ``p_holm`` (over all
        cells), ``negative, limit, reason``. A task as its own source is no transfer and left out.

    Raises:
        ValueError: for an arm whose name is no source.
    """
    cells = []
    for arm, folds in comparisons.items():
        if not arm.startswith("from="):
            raise ValueError(f"arm {arm!r} is no source; sources are called like from=nominal")
        source = arm.removeprefix("from=")
        for fold in folds:
            if fold.task != source:
                p = statistics.permutation_p(*fold.mean_times, rng) if fold.complete else math.nan
                cells.append((source, fold, p))
    adjusted = statistics.holm([p for _, _, p in cells])
    rows = []
    for (source, fold, p), p_holm in zip(cells, adjusted, strict=True):
        e = fold.log_ratio()
        negative = p_holm < SIGNIFICANT and e.value < 0
        rows.append([source, fold.task, e.value, e.low, e.high, p, p_holm, negative, fold.limit, e.reason])
    columns = ["source", "target", "log_ratio", "low", "high", "p", "p_holm", "negative", "limit", "reason"]
    return pd.DataFrame(rows, columns=columns)


# --- small things ----------------------------------------------------------------------------------


def threshold_index(thresholds: np.ndarray, theta: float) -> int:
    """Position of θ in the grid.

    Raises:
        ValueError: for a θ that is not in it.
    """
    near = np.flatnonzero(np.abs(np.asarray(thresholds, float) - theta) < _ROUNDING)
    if not len(near):
        raise ValueError(f"θ = {theta} is not in the grid {np.asarray(thresholds).tolist()}")
    return int(near[0])


def _interval(e: Estimate) -> list[Any]:
    return [e.value, e.low, e.high, e.reason]


def _tested(e: Estimate) -> list[Any]:
    return [*_interval(e), e.p]


def plan_title(plan: Mapping[str, Any]) -> str:
    """The plan's title, the family's name at its beginning once: some frozen plans have it twice."""
    family, title = f"{plan['family']}: ", str(plan["title"])
    return title.removeprefix(family) if title.startswith(2 * family) else title


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
