"""The report: one self-contained page from the store alone, the same bytes for the same store.

:func:`analyse` turns the store into numbers, the rest of the module into tables, figures and text. No
dates, no paths and no versions of this machine get in; every random draw has a fixed seed.
"""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import math
import os
import re
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from harness import measures, plots, statistics
from harness.measures import FoldMeasures
from harness.statistics import Estimate
from harness.store import Store

BASELINE, TREATMENT = "scratch", "transfer"
SETS = {
    "all_folds": "all folds",
    "not_yet_solved": "folds not yet solved at step 0 (acceleration)",
}
"""The sets of folds over which ρ̄ is reported; the plan's ``headline`` is one of them (PROTOCOL §4.3)."""
REBUILD = "mtenvs report ."


# --- numbers ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class FoldResult:
    """One fold's measures with their intervals and tests."""

    measures: FoldMeasures
    """The measures."""
    log_ratio: Estimate
    """log ρ̄ with its t interval."""
    p: float
    """Studentised permutation p of equal mean times."""
    p_holm: float
    """The same, Holm-adjusted over the folds."""
    jumpstart: Estimate
    """g_transfer(0) - g_scratch(0)."""
    asymptote: Estimate
    """Difference of the means of the last three checkpoints."""

    @property
    def negative(self) -> bool:
        """Negative transfer: Holm-adjusted p below .05 and log ρ̄ < 0 (PROTOCOL §4.10)."""
        return self.p_holm < 0.05 and self.log_ratio.value < 0

    @property
    def mark(self) -> str:
        """What sets the fold apart in a table; may be empty."""
        marks = ["solved at step 0"] * self.measures.solved + ["negative transfer"] * self.negative
        return ", ".join(marks)


@dataclasses.dataclass(frozen=True, eq=False)
class SetResult:
    """ρ̄ over a set of folds."""

    name: str
    """What the set is."""
    folds: tuple[FoldResult, ...]
    """All folds of the set, the not estimable ones too."""
    log_ratio: Estimate
    """Mean of L_k over the estimable folds."""
    p: float
    """Permutation p, labels permuted within each task."""

    @property
    def estimable(self) -> tuple[FoldResult, ...]:
        """The folds that the mean is over."""
        return tuple(f for f in self.folds if not math.isnan(f.log_ratio.value))

    @property
    def limit(self) -> str:
        """How the first checkpoint limits the mean, see :func:`harness.measures.resolution_limit`."""
        limits = {f.measures.limit for f in self.estimable} - {""}
        return limits.pop() if len(limits) == 1 else "unresolved" if limits else ""


@dataclasses.dataclass(frozen=True, eq=False)
class Analysis:
    """Everything that the report says, before it is put into words."""

    plan: Mapping[str, Any]
    """The plan."""
    runs: pd.DataFrame
    """:meth:`harness.store.Store.runs`."""
    folds: tuple[FoldResult, ...]
    """In the plan's order."""
    sets: Mapping[str, SetResult]
    """By the keys of :data:`SETS`."""
    competence: pd.DataFrame
    """:func:`harness.measures.competence`."""
    damaged: Mapping[str, str]
    """Runs left out because their rows are not what the plan asks for, with the reason."""
    unknown: Sequence[str]
    """Directories of the store that are no run of the plan."""

    @property
    def headline(self) -> SetResult:
        """The set that the plan named beforehand."""
        return self.sets[self.plan["headline"]]

    @property
    def incomplete(self) -> bool:
        """Whether a planned run has no usable result."""
        return bool(self.damaged) or not self.runs["status"].isin(("finished", "diverged")).all()

    @property
    def exploratory(self) -> bool:
        """Whether the plan says so, or the store holds runs that no plan asked for."""
        return bool(self.plan["exploratory"]) or bool(self.unknown)

    @property
    def marks(self) -> list[str]:
        """What the title says of the report's standing."""
        return ["exploratory"] * self.exploratory + ["incomplete"] * self.incomplete

    @property
    def shown(self) -> list[int]:
        """Indices of the thresholds at which success shares are printed: about the middle and the top."""
        grid = np.asarray(self.plan["thresholds"], float)
        return sorted({int(np.abs(grid - 0.5).argmin()), len(grid) - 1})


def analyse(directory: str | os.PathLike[str]) -> Analysis:
    """Computes every number of the report from the store.

    Args:
        directory: the experiment's directory.

    Raises:
        StoreError: if the directory holds no readable plan or rows.
        ValueError: if the plan lacks a task or a reference score that the rows need, or names an
            unknown headline.
    """
    store = Store(directory)
    plan = store.plan
    if plan["headline"] not in SETS:
        raise ValueError(f"unknown headline {plan['headline']!r} in the plan; valid: {', '.join(SETS)}")
    runs = store.runs()
    evaluations = measures.add_scores(store.evaluations(), plan["reference"]["scores"])
    damaged = measures.damaged_runs(evaluations, runs, plan)
    folds = []
    for number in plan["folds"]:
        scratch, transfer = (
            measures.arm_curves(evaluations, runs, plan, number, arm, damaged)
            for arm in (BASELINE, TREATMENT)
        )
        name = measures.task_name(plan, number)
        fold = measures.fold_measures(number, name, scratch, transfer, plan["thresholds"], plan["budget"])
        folds.append(
            FoldResult(
                fold,
                statistics.log_ratio(*fold.mean_times),
                statistics.permutation_p(*fold.mean_times, _rng("permutation", number)),
                math.nan,
                statistics.difference(*fold.at_start),
                statistics.difference(*fold.at_end),
            )
        )
    adjusted = statistics.holm([fold.p for fold in folds])
    folds = [dataclasses.replace(fold, p_holm=p) for fold, p in zip(folds, adjusted, strict=True)]
    # a fold whose transfer arm has no run yet is neither solved nor unsolved
    unsolved = [f for f in folds if len(f.measures.at_start[1]) and not f.measures.solved]
    return Analysis(
        plan,
        runs,
        tuple(folds),
        {"all_folds": _set("all_folds", folds), "not_yet_solved": _set("not_yet_solved", unsolved)},
        measures.competence(evaluations, runs, plan),
        damaged,
        store.unknown(),
    )


def _set(key: str, folds: Sequence[FoldResult]) -> SetResult:
    times = [f.measures.mean_times for f in folds if not math.isnan(f.log_ratio.value)]
    return SetResult(
        SETS[key],
        tuple(folds),
        statistics.suite_mean([f.log_ratio for f in folds]),
        statistics.suite_permutation_p(times, _rng("suite permutation", key)),
    )


def _rng(*key: Any) -> np.random.Generator:
    """A generator that depends on nothing but what it is used for."""
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


def flow(analysis: Analysis) -> pd.DataFrame:
    """The flow of runs: one row per phase and arm, and a total.

    Returns:
        Columns ``phase, arm, planned, started, finished, diverged, failed, unfinished, missing, excluded``;
        ``started`` counts every run that is not missing, ``excluded`` those left out as damaged.
    """
    rows = []
    keys = list(dict.fromkeys(zip(analysis.runs["phase"], analysis.runs["arm"], strict=True)))
    for phase, arm in [*keys, ("total", "")]:
        chosen = analysis.runs
        if phase != "total":
            chosen = chosen[(chosen["phase"] == phase) & (chosen["arm"] == arm)]
        count = chosen["status"].value_counts()
        rows.append(
            {
                "phase": phase,
                "arm": arm,
                "planned": len(chosen),
                "started": len(chosen) - int(count.get("missing", 0)),
                **{status: int(count.get(status, 0)) for status in ("finished", "diverged", "failed")},
                "unfinished": int(count.get("started", 0)),
                "missing": int(count.get("missing", 0)),
                "excluded": int(chosen["run"].isin(list(analysis.damaged)).sum()),
            }
        )
    return pd.DataFrame(rows)


def warnings(analysis: Analysis) -> list[str]:
    """What a reader must know before believing the numbers, as sentences."""
    found = []
    if analysis.plan["exploratory"]:
        found.append("The plan is exploratory: it shows what the method would say, and is no evidence.")
    if analysis.incomplete:
        found.append(
            "Not all planned runs have their result; “mtenvs run” trains what is missing. "
            "The numbers below are of the runs that are complete."
        )
    found += [f"Run {run} is left out: {reason}." for run, reason in sorted(analysis.damaged.items())]
    if analysis.unknown:
        found.append(
            f"The store holds what the plan does not know, ignored: {', '.join(analysis.unknown)}."
        )
    for result in analysis.folds:
        fold = result.measures
        for arm, theta in fold.mixed:
            found.append(
                f"{fold.task}: mixed outcomes. From θ = {theta:.2f} on some runs of {arm} arrive within "
                "the budget and others do not, so the t interval may be too narrow: read the permutation p "
                "and the success shares with it."
            )
        for curves in fold.curves:
            if curves.diverged.any():
                found.append(
                    f"{fold.task}: {int(curves.diverged.sum())} of {len(curves.runs)} runs of {curves.arm} "
                    "diverged. They count with the whole budget for what they had not reached, as 0 in "
                    "mean curves, and are left out of the asymptote."
                )
        if all(c.count for c in fold.curves) and not fold.estimable.all():
            out = fold.thresholds[~fold.estimable]
            found.append(
                f"{fold.task}: no run of either arm reaches θ = {_span(out)} within the budget. These "
                "thresholds are not estimable and left out of ρ̄ in both arms."
            )
        if fold.limit:
            found.append(f"{fold.task}: {_LIMITS[fold.limit]}")
        if result.log_ratio.reason == "zero variance in both arms":
            found.append(
                f"{fold.task}: within each arm all runs took equally long, so there is no interval, and "
                "the task adds no uncertainty to that of the suite."
            )
    for fold_number, pretrainings in analysis.competence.groupby("fold"):
        score = pretrainings["score"].mean()
        if not score >= measures.COMPETENT:
            name = measures.task_name(analysis.plan, fold_number)
            found.append(
                f"{name}: at hand-over the pretrained networks score {_number(score)} on their own tasks, "
                f"below {measures.COMPETENT}. What they transfer is not what a competent network would."
            )
    smallest = _smallest_p(analysis)
    if smallest > 0.05:
        found.append(
            f"With so few runs the permutation test of one task cannot give less than p = {smallest:.2g}."
        )
    return found


_LIMITS = {
    "at least": "many transfer runs arrive by the first checkpoint, so ρ̄ is limited by its resolution: "
    "read “at least”.",
    "at most": "many scratch runs arrive by the first checkpoint, so ρ̄ is limited by its resolution: "
    "read “at most”.",
    "unresolved": "many runs of both arms arrive by the first checkpoint, which does not resolve ρ̄.",
}


def _smallest_p(analysis: Analysis) -> float:
    counts = [[c.count for c in f.measures.curves] for f in analysis.folds]
    # two-sided: twice the share of the most extreme arrangement
    attainable = [2 / math.comb(n + m, n) for n, m in counts if min(n, m) >= 2]
    return min(attainable, default=0.0)


# --- words -----------------------------------------------------------------------------------------


def _number(value: float, digits: int = 2) -> str:
    # adding 0 makes a rounded -0.0 positive
    return "–" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def _signed(value: float) -> str:
    text = _number(value)
    return text if text[0] in "−–" else f"+{text}"


def _ratio_number(value: float) -> str:
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def _ratio(log_ratio: Estimate, limit: str = "", reason: bool = True) -> str:
    """``2.31 [1.80, 2.97]``, or the reason why there is no interval."""
    if math.isnan(log_ratio.value):
        return log_ratio.reason if reason else "–"
    e = log_ratio.exp()
    text = {"at least": "≥ ", "at most": "≤ ", "unresolved": "≈ "}.get(limit, "") + _ratio_number(e.value)
    if not e.reason:
        return f"{text} [{_ratio_number(e.low)}, {_ratio_number(e.high)}]"
    return f"{text} (no interval: {e.reason})" if reason else text


def _difference(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return estimate.reason
    text = _signed(estimate.value)
    if estimate.reason:
        return f"{text} (no interval: {estimate.reason})"
    return f"{text} [{_number(estimate.low)}, {_number(estimate.high)}]"


def _p(value: float) -> str:
    return "–" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def _count(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:,.0f}"


def _span(thresholds: np.ndarray) -> str:
    low, high = float(thresholds.min()), float(thresholds.max())
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def _arrived(folds: Iterable[FoldResult], arm: int, threshold: int) -> tuple[str, int, int]:
    """Runs of an arm that arrive by B: in words with the Wilson interval, and as two counts."""
    arrived, runs, clusters, shares = 0, 0, 0, 0.0
    for result in folds:
        fold = result.measures
        arrived += int(np.isfinite(fold.arrivals[arm][:, threshold]).sum())
        runs += len(fold.curves[arm].runs)
        n = fold.curves[arm].count
        clusters += n
        shares += n * float(fold.success[arm][threshold]) if n else 0.0
    if not runs:
        return "–", 0, 0
    low, high = statistics.wilson(shares / clusters, clusters)
    return f"{arrived}/{runs} [{low:.2f}, {high:.2f}]", arrived, runs


def _verdict(headline: SetResult) -> str:
    """The headline in one sentence that claims no more than the interval."""
    estimate = headline.log_ratio
    if math.isnan(estimate.value):
        return f"No speed-up can be given: {estimate.reason}."
    if estimate.reason:
        return f"There is no interval ({estimate.reason}), so nothing can be concluded."
    about = {"": "", "unresolved": "about "}.get(headline.limit, f"{headline.limit} ")
    if estimate.low > 0:
        return (
            f"On these tasks learning from scratch takes {about}"
            f"{_ratio_number(math.exp(estimate.value))} times the steps that the pretrained network takes."
        )
    if estimate.high < 0:
        return (
            "On these tasks the pretrained network is slower: it takes "
            f"{_ratio_number(math.exp(-estimate.value))} times the steps of one that starts from nothing."
        )
    return "The interval holds 1: on these tasks neither arm is shown to be faster."


def summary_table(directory: str | os.PathLike[str]) -> str:
    """The headline and one row per fold as plain text, for the terminal.

    Args:
        directory: the experiment's directory.

    Raises:
        StoreError: if the directory holds no readable plan or rows.
    """
    analysis = analyse(directory)
    theta = analysis.shown[-1]
    top = f"{analysis.plan['thresholds'][theta]:.2f}"
    header = ("held-out task", "speed-up [95% interval]", "perm. p", "jumpstart",
              f"scratch θ={top}", f"transfer θ={top}", "")  # fmt: skip
    rows: list[tuple[str, ...]] = [header]
    for result in analysis.folds:
        counts = [_arrived([result], arm, theta)[1:] for arm in (0, 1)]
        rows.append(
            (
                result.measures.task,
                _ratio(result.log_ratio, result.measures.limit),
                _p(result.p),
                _signed(result.jumpstart.value),
                *(f"{a}/{n} arrive" for a, n in counts),
                result.mark,
            )
        )
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "─" * max(map(len, lines)))
    headline = analysis.headline
    marks = f" ({', '.join(analysis.marks)})" if analysis.marks else ""
    return "\n".join(
        [
            f"{analysis.plan['title']}{marks}",
            f"speed-up over {headline.name}: {_ratio(headline.log_ratio, headline.limit)}",
            _verdict(headline),
            "",
            *lines,
        ]
    )


# --- figures ---------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Exhibit:
    """A figure with the data that it shows."""

    name: str
    """Stem of its files."""
    title: str
    """Heading in the report."""
    caption: str
    """What it shows and how to read it."""
    figure: Figure
    """The figure."""
    data: pd.DataFrame
    """What it shows, tidy: one observation per row."""


def exhibits(analysis: Analysis) -> list[Exhibit]:
    """All figures of the report, in its order; without those for which no run is complete yet."""
    folds = [f for f in analysis.folds if any(c.count for c in f.measures.curves)]
    if not folds:
        return [_forest(analysis)]
    return [
        _forest(analysis),
        _learning_curves(analysis, folds),
        _speed_up_by_threshold(analysis, folds),
        _times_by_threshold(analysis, folds),
        _success_shares(analysis, folds),
    ]


def _forest(analysis: Analysis) -> Exhibit:
    rows = [
        plots.ForestRow(
            f.measures.task,
            f.log_ratio if math.isnan(f.log_ratio.value) else f.log_ratio.exp(),
            tuple(c.count for c in f.measures.curves),
            _short_ratio(f.log_ratio, f.measures.limit),
            f.mark,
        )
        for f in analysis.folds
    ]
    sets = [
        s for key, s in analysis.sets.items() if key == "all_folds" or len(s.folds) < len(analysis.folds)
    ]
    rows += [
        plots.ForestRow(
            {SETS["all_folds"]: "mean of all folds", SETS["not_yet_solved"]: "mean of not yet solved"}[
                s.name
            ],
            s.log_ratio if math.isnan(s.log_ratio.value) else s.log_ratio.exp(),
            (len(s.estimable),),
            _short_ratio(s.log_ratio, s.limit),
            suite=True,
        )
        for s in sets
    ]
    tested = [(f.measures.limit, f.p) for f in analysis.folds] + [(s.limit, s.p) for s in sets]
    data = pd.DataFrame(
        [
            {
                "row": row.label,
                "suite": row.suite,
                "speed_up": row.ratio.value,
                "low": row.ratio.low,
                "high": row.ratio.high,
                "df": row.ratio.df,
                "limit": limit,
                "no_interval": row.ratio.reason,
                "p_permutation": p,
                "n": "+".join(map(str, row.n)),
                "mark": row.mark,
            }
            for row, (limit, p) in zip(rows, tested, strict=True)
        ]
    )
    return Exhibit(
        "forest",
        "Speed-up per task",
        "Ratio of mean steps to a score, averaged over θ, with 95% t intervals; n is the number of "
        "independent runs from scratch + with transfer. Hollow: solved at step 0. "
        "≥: limited by the first checkpoint.",
        plots.forest(rows),
        data,
    )


def _short_ratio(log_ratio: Estimate, limit: str) -> str:
    if math.isnan(log_ratio.value):
        return "no data" if log_ratio.reason.startswith("no ") else "not estimable"
    return _ratio(log_ratio, limit, reason=False)


def _learning_curves(analysis: Analysis, folds: Sequence[FoldResult]) -> Exhibit:
    steps = np.asarray(analysis.plan["checkpoints"], float)
    panels, rows = [], []
    complete: list[dict[str, statistics.Band]] = []
    for result in folds:
        fold = result.measures
        bands, seeds = {}, {}
        for curves in fold.curves:
            if not curves.count:
                continue
            band = statistics.curve_band(curves.cluster_scores, _rng("band", fold.fold, curves.arm))
            bands[curves.arm], seeds[curves.arm] = band, curves.scores
            rows += _band_rows(fold.task, curves.arm, steps, band)
            rows += [
                {"task": fold.task, "arm": curves.arm, "run": run, "steps": s, "score": g}
                for run, scores in zip(curves.runs, curves.scores, strict=True)
                for s, g in zip(steps, scores, strict=True)
            ]
        panels.append(plots.CurvePanel(_panel_title(fold), bands, seeds))
        if len(bands) == len(fold.curves):
            complete.append(bands)
    if len(complete) > 1:  # over the same tasks in both arms, or the arms would differ by their tasks
        suite = {arm: statistics.mean_band([bands[arm] for bands in complete]) for arm in complete[0]}
        panels.append(plots.CurvePanel(f"mean of {len(complete)} tasks", suite, {}))
        for arm, band in suite.items():
            rows += _band_rows("mean of tasks", arm, steps, band)
    return Exhibit(
        "learning_curves",
        "Learning curves",
        "Score of the held-out task against control steps, logarithmic from the first checkpoint on, with "
        "step 0 at the left edge. Thin: single runs. Bands: 95% for the mean, pointwise (darker) and "
        "simultaneous for the whole curve (lighter); a diverged run counts as 0.",
        plots.learning_curves(panels, steps, analysis.plan["budget"], analysis.plan["thresholds"]),
        pd.DataFrame(rows),
    )


def _panel_title(fold: FoldMeasures) -> str:
    return f"{fold.task} (n = {'+'.join(str(c.count) for c in fold.curves)})"


def _band_rows(task: str, arm: str, steps: np.ndarray, band: statistics.Band) -> list[dict[str, Any]]:
    fields = {
        "low": band.low,
        "high": band.high,
        "low_simultaneous": band.low_simultaneous,
        "high_simultaneous": band.high_simultaneous,
    }
    return [
        {"task": task, "arm": arm, "run": "mean", "steps": s, "score": band.mean[i], "n": band.n}
        | {name: values[i] for name, values in fields.items()}
        for i, s in enumerate(steps)
    ]


def _speed_up_by_threshold(analysis: Analysis, folds: Sequence[FoldResult]) -> Exhibit:
    grid = np.asarray(analysis.plan["thresholds"], float)
    by_task: dict[str, np.ndarray] = {}
    suite, counts, rows = [], [], []
    for i, theta in enumerate(grid):
        here = []
        for result in folds:
            fold = result.measures
            if not fold.estimable[i]:
                estimate = Estimate(math.nan, reason="not estimable")
            else:
                estimate = statistics.log_ratio(fold.times[0][:, i], fold.times[1][:, i])
            here.append(estimate)
            ratio = estimate if math.isnan(estimate.value) else estimate.exp()
            by_task.setdefault(fold.task, np.full(len(grid), np.nan))[i] = ratio.value
            rows.append(_ratio_row(fold.task, theta, ratio))
        mean = statistics.suite_mean(here)
        suite.append(mean if math.isnan(mean.value) else mean.exp())
        counts.append(sum(not math.isnan(e.value) for e in here))
        rows.append(_ratio_row("mean over tasks", theta, suite[-1]))
    return Exhibit(
        "speed_up_by_threshold",
        "Speed-up against θ",
        "The speed-up at each threshold apart. The left shows the start of learning, the right its end; "
        "a line stops where no run of either arm arrives.",
        plots.speed_up_by_threshold(by_task, suite, grid, counts),
        pd.DataFrame(rows),
    )


def _ratio_row(task: str, theta: float, ratio: Estimate) -> dict[str, Any]:
    return {
        "task": task,
        "theta": theta,
        "speed_up": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "no_interval": ratio.reason,
    }


def _times_by_threshold(analysis: Analysis, folds: Sequence[FoldResult]) -> Exhibit:
    grid = np.asarray(analysis.plan["thresholds"], float)
    budget, first = analysis.plan["budget"], analysis.plan["checkpoints"][1]
    panels, rows = [], []
    for result in folds:
        fold = result.measures
        values, lows, highs, censored = {}, {}, {}, {}
        for curves, times, share in zip(fold.curves, fold.times, fold.success, strict=True):
            if not curves.count:
                continue
            estimates = [
                statistics.t_interval(
                    float(column.mean()),
                    [(float(column.var(ddof=1)) / len(column), len(column) - 1.0)]
                    if len(column) > 1
                    else [],
                )
                for column in times.T
            ]
            values[curves.arm] = np.array([e.value for e in estimates])
            # a mean of times lies between the first checkpoint and the budget, and so does what is drawn
            lows[curves.arm] = np.clip([e.low for e in estimates], first, budget)
            highs[curves.arm] = np.clip([e.high for e in estimates], first, budget)
            censored[curves.arm] = share < 1
            rows += [
                {"task": fold.task, "arm": curves.arm, "theta": t, "steps": e.value, "low": e.low}
                | {"high": e.high, "arrived": s, "n": curves.count}
                for t, e, s in zip(grid, estimates, share, strict=True)
            ]
        panels.append(plots.ThresholdPanel(_panel_title(fold), values, lows, highs, censored))
    return Exhibit(
        "times_by_threshold",
        "Steps to each score",
        "Mean restricted time: control steps until a run holds the score θ for three checkpoints, at most "
        "the budget B. The speed-up at θ is the ratio of the two lines.",
        plots.times_by_threshold(panels, grid, first, budget),
        pd.DataFrame(rows),
    )


def _success_shares(analysis: Analysis, folds: Sequence[FoldResult]) -> Exhibit:
    grid = np.asarray(analysis.plan["thresholds"], float)
    panels, rows = [], []
    for result in folds:
        fold = result.measures
        values, lows, highs = {}, {}, {}
        for curves, share in zip(fold.curves, fold.success, strict=True):
            if not curves.count:
                continue
            ends = np.array([statistics.wilson(float(s), curves.count) for s in share])
            values[curves.arm], lows[curves.arm], highs[curves.arm] = share, ends[:, 0], ends[:, 1]
            rows += [
                {"task": fold.task, "arm": curves.arm, "theta": t, "share": s, "low": e[0], "high": e[1]}
                | {"n": curves.count}
                for t, s, e in zip(grid, share, ends, strict=True)
            ]
        panels.append(plots.ThresholdPanel(_panel_title(fold), values, lows, highs))
    return Exhibit(
        "success_shares",
        "Success within the budget",
        "Share of runs that arrive at θ within the budget B. Where runs fail, speed alone misleads.",
        plots.success_shares(panels, grid),
        pd.DataFrame(rows),
    )


# --- page ------------------------------------------------------------------------------------------


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Writes ``DIR/report/index.html`` and, in ``DIR/report/figures/``, each figure with its data.

    Args:
        directory: the experiment's directory; only its plan and rows are read.

    Returns:
        Path of the page.

    Raises:
        StoreError: if the directory holds no readable plan or rows.
        ValueError: if the plan lacks a task or a reference score that the rows need.
    """
    analysis = analyse(directory)
    figures = Path(directory) / "report" / "figures"
    figures.mkdir(parents=True, exist_ok=True)
    parts = []
    for exhibit in exhibits(analysis):
        image = plots.png(exhibit.figure)
        _write(figures / f"{exhibit.name}.png", image)
        table = exhibit.data.to_csv(index=False, float_format="%.10g", lineterminator="\n")
        _write(figures / f"{exhibit.name}.csv", table.encode())
        parts.append(_figure(exhibit, image))
    page = figures.parent / "index.html"
    _write(page, _page(analysis, parts).encode())
    return page


def _write(path: Path, content: bytes) -> None:
    # a reader never sees half a file
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content)
    os.replace(part, path)


def _page(analysis: Analysis, figures: Sequence[str]) -> str:
    title = _escape(analysis.plan["title"])
    marks = "".join(f" <em>{mark}</em>" for mark in analysis.marks)
    plain = title + (f" ({', '.join(analysis.marks)})" if analysis.marks else "")
    body = [
        f"<h1>{title}{marks}</h1>",
        f'<p class="flow">{_escape(_flow_line(analysis))}</p>',
        _headline(analysis),
        _warnings(analysis),
        _section("Flow of runs", _flow(analysis)),
        _section("Speed-up", _sets(analysis) + _folds(analysis) + figures[0]),
        _section("Jumpstart, asymptote and areas", _levels(analysis)),
        _section("Competence at hand-over", _competence(analysis)),
        *figures[1:],
        _section("What is counted", _counted(analysis)),
        _section("Reference scores", _reference(analysis)),
        _section("Tasks", _tasks(analysis)),
        _section("Rebuild this page", _rebuild(analysis)),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{plain}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _headline(analysis: Analysis) -> str:
    headline = analysis.headline
    estimate = headline.log_ratio
    if math.isnan(estimate.value):
        big, beside = "–", ""
    else:
        e = estimate.exp()
        prefix = {"at least": "at least ", "at most": "at most ", "unresolved": "about "}.get(
            headline.limit, ""
        )
        big = f"{prefix}{_ratio_number(e.value)}×"
        if e.reason:
            beside = f"no interval: {e.reason}"
        else:
            beside = (
                f"95% t interval [{_ratio_number(e.low)}, {_ratio_number(e.high)}], {e.df:.1f} degrees of "
                f"freedom, t-test p {_p_is(e.p)}, permutation p {_p_is(headline.p)}"
            )
    shares = []
    for i in analysis.shown:
        both = [_arrived(headline.folds, arm, i)[0] for arm in (0, 1)]
        shares.append(
            f"Runs that hold θ = {analysis.plan['thresholds'][i]:.2f} within the budget: "
            f"{BASELINE} {both[0]}, {TREATMENT} {both[1]}"
        )
    share_lines = "".join(f"<li>{_escape(line)}</li>" for line in shares)
    return (
        f'<section class="headline"><p class="label">speed-up ρ̄ over {_escape(headline.name)}, mean of '
        f'{len(headline.estimable)} of {len(headline.folds)} tasks</p><p class="big">{_escape(big)}</p>'
        f"<p>{_escape(beside)}</p><p><strong>{_escape(_verdict(headline))}</strong></p>"
        f"<ul>{share_lines}</ul></section>"
    )


def _p_is(p: float) -> str:
    text = _p(p)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def _flow_line(analysis: Analysis) -> str:
    total = flow(analysis).iloc[-1]
    names = ("planned", "started", "finished", "diverged", "failed", "missing", "excluded")
    return "Runs: " + ", ".join(f"{total[name]} {name}" for name in names) + "."


def _flow(analysis: Analysis) -> str:
    table = flow(analysis)
    note = (
        "<p>A diverged run is a result and stays in. Excluded are complete runs whose rows are not what "
        "the plan asks for.</p>"
    )
    return _table(table.columns, table.to_numpy().tolist()) + note


def _warnings(analysis: Analysis) -> str:
    found = warnings(analysis)
    if not found:
        return ""
    items = "".join(f"<li>{_escape(text)}</li>" for text in found)
    return f'<section class="warnings"><h2>Read this first</h2><ul>{items}</ul></section>'


def _sets(analysis: Analysis) -> str:
    rows = []
    for key, result in analysis.sets.items():
        name = result.name + (" (headline)" if key == analysis.plan["headline"] else "")
        df = "–" if result.log_ratio.reason else f"{result.log_ratio.df:.1f}"
        rows.append(
            [
                name,
                f"{len(result.estimable)} of {len(result.folds)}",
                _ratio(result.log_ratio, result.limit),
                df,
                _p(result.log_ratio.p),
                _p(result.p),
                *(_arrived(result.folds, arm, analysis.shown[-1])[0] for arm in (0, 1)),
            ]
        )
    top = f"{analysis.plan['thresholds'][-1]:.2f}"
    solved = [f.measures.task for f in analysis.folds if f.measures.solved]
    listed = ", ".join(solved) if solved else "none"
    return (
        _table(
            ["set", "tasks", "ρ̄ [95% t interval]", "df", "t-test p", "permutation p",
             f"scratch, arrived at θ={top}", f"transfer, arrived at θ={top}"],
            rows,
        )
        + f"<p>Solved at step 0, g<sub>transfer</sub>(0) ≥ {measures.SOLVED} (generalisation): "
        f"<strong>{_escape(listed)}</strong>.</p>"
    )  # fmt: skip


def _folds(analysis: Analysis) -> str:
    names = [f"{arm}, arrived at θ={analysis.plan['thresholds'][i]:.2f}" for i in analysis.shown
             for arm in (BASELINE, TREATMENT)]  # fmt: skip
    rows = [
        [
            f.measures.task,
            "+".join(str(c.count) for c in f.measures.curves),
            _ratio(f.log_ratio, f.measures.limit),
            _p(f.p),
            _p(f.p_holm),
            *(_arrived([f], arm, i)[0] for i in analysis.shown for arm in (0, 1)),
            f.mark,
        ]
        for f in analysis.folds
    ]
    return _table(
        ["held-out task", "n", "ρ̄ [95% t interval]", "permutation p", "Holm", *names, ""], rows
    ) + ("<p>Shares are runs arrived of runs trained, with 95% Wilson intervals.</p>")


def _levels(analysis: Analysis) -> str:
    rows = []
    for f in analysis.folds:
        starts = [_number(float(a.mean())) if len(a) else "–" for a in f.measures.at_start]
        ends = [
            f"{_number(float(a.mean()))}{'' if len(a) == c.count else f' ({len(a)} of {c.count})'}"
            if len(a)
            else "–"
            for a, c in zip(f.measures.at_end, f.measures.curves, strict=True)
        ]
        area = f.measures.area
        rows.append(
            [
                f.measures.task,
                *starts,
                _difference(f.jumpstart),
                *ends,
                _difference(f.asymptote),
                _number(measures.forward_transfer(*area)),
                _number(measures.transfer_ratio(*area)),
            ]
        )
    first = analysis.plan["first_episodes"]
    return _table(
        ["held-out task", "g scratch(0)", "g transfer(0)", "jumpstart [95%]", "g scratch(end)",
         "g transfer(end)", "asymptote difference [95%]", "forward transfer", "transfer ratio"],
        rows,
    ) + (
        f"<p>Jumpstart from {first} episodes per run at step 0; the asymptote is the mean of the last "
        "three checkpoints, unclipped. Forward transfer (A<sub>t</sub> − A<sub>s</sub>) / "
        "(1 − A<sub>s</sub>) and transfer ratio (A<sub>t</sub> − A<sub>s</sub>) / A<sub>s</sub> of the "
        "areas under the curves are for comparison with others, not for conclusions.</p>"
    )  # fmt: skip


def _competence(analysis: Analysis) -> str:
    if analysis.competence.empty:
        return "<p>No pretraining is complete.</p>"
    rows = []
    for fold, of_fold in analysis.competence.groupby("fold", sort=False):
        score = of_fold["score"].mean()
        rows.append(
            [
                measures.task_name(analysis.plan, fold),
                str(len(of_fold)),
                _number(score),
                _number(of_fold["score"].min()),
                _number(of_fold["held_out"].mean()),
                "" if score >= measures.COMPETENT else f"below {measures.COMPETENT}",
            ]
        )
    note = (
        "<p>Mean score on the source tasks when pretraining ends, and on the task that is held out, which "
        "the network has not trained on.</p>"
    )
    return (
        _table(["held-out task", "pretrainings", "mean g on sources", "lowest", "g on held out", ""], rows)
        + note
    )


def _counted(analysis: Analysis) -> str:
    plan = analysis.plan
    steps = plan["checkpoints"]
    facts = [
        (
            "step",
            "one control step of one world, summed over all worlds of a run; evaluation is not counted",
        ),
        ("worlds per run", f"{plan['worlds_per_run']:,}, in every arm"),
        ("budget B", f"{plan['budget']:,} steps on the held-out task"),
        (
            "pretraining",
            f"{plan['pretrain_budget']:,} steps over all source tasks, not part of the speed-up",
        ),
        ("seeds", f"{plan['seeds']} per fold and arm"),
        ("checkpoints", f"{len(steps)}, at {', '.join(f'{s:,}' for s in steps)} steps"),
        ("evaluation", f"{plan['episodes']} episodes per checkpoint, {plan['first_episodes']} at step 0"),
        ("thresholds θ", ", ".join(f"{t:.2f}" for t in plan["thresholds"])),
        ("arrival at θ", "the first checkpoint with score ≥ θ whose mean with the next two is ≥ θ too"),
        ("ρ̄", "mean over runs of the mean over θ of min(arrival, B), scratch divided by transfer"),
        ("learner", str(plan["learner"]["name"])),
    ]
    facts += [("conditioning", str(plan["conditioning"]))] if "conditioning" in plan else []
    config = [[key, json.dumps(value)] for key, value in sorted(plan["learner"]["config"].items())]
    rows = []
    for (phase, arm), chosen in analysis.runs.groupby(["phase", "arm"], sort=False):
        done = chosen[chosen["status"].isin(("finished", "diverged"))]
        rows.append(
            [
                phase,
                arm,
                str(len(done)),
                _count(done["steps"].sum()),
                _count(done["updates"].sum()),
                _count(done["parameters"].max()),
                _number(done["wall_seconds"].sum() / 60, 1),
            ]
        )
    return (
        _table(["", ""], [list(fact) for fact in facts], header=False)
        + "<h3>Spent by the complete runs</h3>"
        + _table(
            ["phase", "arm", "runs", "steps", "updates", "parameters per network", "wall-clock, min (sum)"],
            rows,
        )
        + "<p>The wall-clock of a run is its share of the batch that it trained in.</p>"
        + "<details><summary>Hyperparameters, the same in all arms</summary>"
        + _table(["name", "value"], config)
        + "</details>"
    )


def _reference(analysis: Analysis) -> str:
    reference = analysis.plan["reference"]
    rows = [
        [name, *(_number(float(scores.get(key, math.nan)), 1) for key in ("random", "zero", "reference"))]
        for name, scores in reference["scores"].items()
    ]
    return (
        f"<p>Version {_escape(reference.get('version', '–'))}. "
        "g = (J − R<sub>random</sub>)/(R<sub>reference</sub> − R<sub>random</sub>), J the mean "
        "undiscounted return of an episode.</p>"
        + _table(["task", "random actions", "zero actions", "reference"], rows)
    )


def _tasks(analysis: Analysis) -> str:
    tasks = analysis.plan["tasks"]
    names = list(dict.fromkeys(name for task in tasks for name in task["parameters"]))
    rows = [
        [str(t["number"]), t["name"], "held out" if t["number"] in analysis.plan["folds"] else ""]
        + [f"{t['parameters'][n]:.4g}" if n in t["parameters"] else "–" for n in names]
        for t in tasks
    ]
    return (
        f"<details><summary>{len(tasks)} published tasks of {_escape(analysis.plan['family'])}</summary>"
        + _table(["number", "name", "fold", *names], rows)
        + "</details>"
    )


def _rebuild(analysis: Analysis) -> str:
    return (
        "<p>In the directory that holds <code>plan.json</code>:</p>"
        f"<pre><code>{_escape(REBUILD)}</code></pre>"
        "<p>It reads the plan and the rows and gives this page again, byte for byte. Each figure is in "
        "<code>report/figures/</code> as PNG with its data as CSV. "
        f"Plan SHA-256: <code>{_escape(analysis.plan.get('sha256', '–'))}</code>.</p>"
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{_escape(title)}</h2>{content}</section>"


def _figure(exhibit: Exhibit, image: bytes) -> str:
    data = base64.b64encode(image).decode()
    heading = "" if exhibit.name == "forest" else f"<h2>{_escape(exhibit.title)}</h2>"
    # the page's width in pixels of the figure's own resolution: sharp, and never blown up
    width = round(exhibit.figure.get_figwidth() * 96)
    return (
        f'{heading}<figure><img src="data:image/png;base64,{data}" width="{width}" '
        f'alt="{_escape(exhibit.title)}"><figcaption>{_escape(exhibit.caption)} '
        f"<span>figures/{exhibit.name}.png, figures/{exhibit.name}.csv</span></figcaption></figure>"
    )


def _table(headers: Iterable[Any], rows: Iterable[Sequence[Any]], header: bool = True) -> str:
    head = "".join(f"<th>{_escape(h)}</th>" for h in headers)
    body = "".join("<tr>" + "".join(f"<td>{_cell(c)}</td>" for c in row) + "</tr>" for row in rows)
    top = f"<thead><tr>{head}</tr></thead>" if header else ""
    return f'<div class="table"><table>{top}<tbody>{body}</tbody></table></div>'


def _cell(text: Any) -> str:
    # an interval is never broken over two lines
    return re.sub(r"\[[^\]]*\]", r'<span class="whole">\g<0></span>', _escape(text))


def _escape(text: Any) -> str:
    return html.escape(str(text))


_CSS = """
:root { color-scheme: light dark; --ink: #1d1f21; --paper: #ffffff; --soft: #5b6168; --line: #d9dde1;
  --card: #f5f7f9; --accent: #0063a3; --warn: #fff6e3; --warn-line: #e0a526; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8ea; --paper: #15181b; --soft: #a2a9b0; --line: #363c42; --card: #1e2327;
    --accent: #6cb8ee; --warn: #2b2413; --warn-line: #b98a26; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem; }
h1 em { font-size: 1rem; font-style: italic; font-weight: 600; color: var(--ink); background: var(--warn);
  border: 1px solid var(--warn-line); border-radius: 1rem; padding: 0.1rem 0.7rem; vertical-align: middle; }
h2 { font-size: 1.2rem; margin: 2.2rem 0 0.6rem; }
h3 { font-size: 1rem; margin: 1.4rem 0 0.4rem; }
p { margin: 0.5rem 0; max-width: 50rem; }
.headline { background: var(--card); border-left: 4px solid var(--accent); border-radius: 0 8px 8px 0;
  padding: 1rem 1.25rem; }
.flow { color: var(--soft); margin: 0 0 0.8rem; }
.headline .label { color: var(--soft); margin: 0; }
.headline .big { font-size: 2.6rem; font-weight: 700; line-height: 1.2; margin: 0; color: var(--accent); }
.headline ul { margin: 0.5rem 0 0; padding-left: 1.2rem; color: var(--soft); }
.warnings { background: var(--warn); border: 1px solid var(--warn-line); border-radius: 8px;
  padding: 0.2rem 1.25rem 0.6rem; margin-top: 1.5rem; }
.warnings h2 { margin-top: 0.7rem; }
.warnings ul { padding-left: 1.2rem; margin: 0; }
.table { overflow-x: auto; margin: 0.6rem 0; }
table { border-collapse: collapse; font-size: 0.86rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: 0.3rem 0.8rem 0.3rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; }
.whole { white-space: nowrap; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
figure { margin: 1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 8px; }
@media (prefers-color-scheme: dark) { figure img { padding: 0.5rem; } }
figcaption { color: var(--soft); font-size: 0.86rem; margin-top: 0.4rem; max-width: 50rem; }
figcaption span { font-family: ui-monospace, monospace; font-size: 0.78rem; display: block; }
code { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 0.88em;
  overflow-wrap: anywhere; }
pre { background: var(--card); border-radius: 6px; padding: 0.7rem 1rem; overflow-x: auto; }
summary { cursor: pointer; margin: 0.6rem 0; }
"""
