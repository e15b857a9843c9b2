"""Sections 3 to 6: learning curves, and what is read off them at each threshold and over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness import measures, plots, statistics
from harness.measures import FoldMeasures
from harness.report import words
from harness.report.analysis import Analysis, Comparison, rng
from harness.report.page import Cell, Exhibit, Section, details, heading, paragraph, table
from harness.statistics import Band, Estimate

FIRST_FINE_TUNING = (
    "Of each pretraining the first fine-tuning only, here and in the log-rank tests: several of one "
    "pretraining are not independent."
)
SHOWN_COUNTS = 3
"""Numbers of runs that fit into the title of a panel."""
NOTHING = '<p class="absent">No run is complete yet.</p>'


def learning_curves(analysis: Analysis) -> Section:
    """Section 3: score against steps, per task and over the suite."""
    title = "Learning curves"
    return Section(title, [_learning_curves(analysis)] if analysis.begun else [NOTHING], 3)


def _learning_curves(analysis: Analysis) -> Exhibit:
    steps = np.asarray(analysis.plan["checkpoints"], float)
    panels, rows = [], []
    bands: dict[int, dict[str, Band]] = {}
    for fold in analysis.begun:
        name, seeds = analysis.name(fold), {}
        bands[fold] = {}
        for arm, curves in analysis.of_fold(fold).items():
            band = statistics.curve_band(curves.cluster_scores, rng("band", fold, arm))
            bands[fold][arm], seeds[arm] = band, curves.scores
            rows += band_rows(name, arm, steps, band)
            rows += [
                {"task": name, "arm": arm, "run": run, "steps": s, "score": g}
                for run, scores in zip(curves.runs, curves.scores, strict=True)
                for s, g in zip(steps, scores, strict=True)
            ]
        panels.append(plots.CurvePanel(panel_title(analysis, fold), bands[fold], seeds))
    suite, number = suite_bands(analysis)
    if suite:
        panels.append(plots.CurvePanel(f"mean of {number} tasks", suite, {}))
        for arm, band in suite.items():
            rows += band_rows("mean of tasks", arm, steps, band)
    return Exhibit(
        "learning_curves",
        "Learning curves",
        "Score of the task that is learned against control steps, logarithmic from the first checkpoint "
        "on, "
        "with step 0 at the left edge. Thin: single runs. Bands: 95% for the mean, pointwise (darker) and "
        "simultaneous for the whole curve (lighter); a diverged run counts as 0.",
        plots.learning_curves(panels, steps, analysis.plan["budget"], analysis.plan["thresholds"]),
        pd.DataFrame(rows),
    )


def suite_bands(analysis: Analysis) -> tuple[dict[str, Band], int]:
    """Mean over tasks of every arm that is planned on all folds, over the folds that have them all.

    Over the same tasks in every arm, or the arms would differ by their tasks. Empty with fewer than two
    tasks, or two arms.
    """
    arms, folds = common(analysis)
    if len(folds) < 2 or len(arms) < 2:
        return {}, len(folds)
    curves = {arm: [analysis.of_fold(fold)[arm].cluster_scores for fold in folds] for arm in arms}
    return {a: statistics.mean_band(c, rng("suite band", a)) for a, c in curves.items()}, len(folds)


def panel_title(analysis: Analysis, fold: int) -> str:
    """Name of a task with the n of its arms: one number where all have as many, else one for each.

    Of many arms the least and the largest number, for there is no room for more.
    """
    counts = [curves.count for curves in analysis.of_fold(fold).values()]
    if len(set(counts)) == 1:
        n = str(counts[0])
    else:
        n = "+".join(map(str, counts)) if len(counts) <= SHOWN_COUNTS else f"{min(counts)} to {max(counts)}"
    return f"{analysis.name(fold)} (n = {n})"


def band_rows(task: str, arm: str, steps: np.ndarray, band: Band) -> list[dict[str, Any]]:
    """A mean curve with its bands as rows of a CSV."""
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


# --- 4 against θ -----------------------------------------------------------------------------------


def by_threshold(analysis: Analysis) -> Section:
    """Section 4: speed-up, times and success at each threshold apart."""
    if not analysis.begun:
        return Section("Speed-up against θ", [NOTHING], 4)
    return Section("Speed-up against θ", [speed_up(analysis), times(analysis), success_shares(analysis)], 4)


def threshold_ratios(comparison: Comparison) -> list[list[Estimate]]:
    """log ρ_θ of every fold at every threshold, ``[fold][threshold]``."""
    names = (comparison.baseline, comparison.arm)
    return [
        [
            statistics.log_ratio(
                result.measures.times[0][:, i], result.measures.times[1][:, i], names=names
            )
            if result.measures.estimable[i]
            else Estimate(math.nan, reason="not estimable")
            for i in range(len(result.measures.thresholds))
        ]
        for result in comparison.folds
    ]


def speed_up(analysis: Analysis) -> Exhibit:
    """ρ_θ against θ, per task and over the suite."""
    main, grid = analysis.main, analysis.thresholds
    ratios = threshold_ratios(main)
    by_task, limited, rows = {}, {}, []
    for result, estimates in zip(main.folds, ratios, strict=True):
        task, limits = result.measures.task, threshold_limits(result.measures)
        shown = [_exp(e) for e in estimates]
        by_task[task] = np.array([e.value for e in shown])
        limited[task] = np.array([limit != "" for limit in limits])
        rows += [
            _ratio_row(task, t, e) | {"limit": limit, "n": result.n}
            for t, e, limit in zip(grid, shown, limits, strict=True)
        ]
    suite = [_exp(statistics.suite_mean(of_theta)) for of_theta in zip(*ratios, strict=True)]
    counts = [sum(not math.isnan(e.value) for e in of_theta) for of_theta in zip(*ratios, strict=True)]
    rows += [
        _ratio_row("mean over tasks", t, e) | {"n": f"{k} tasks"}
        for t, e, k in zip(grid, suite, counts, strict=True)
    ]
    return Exhibit(
        "speed_up_by_threshold",
        "Speed-up against θ",
        "The speed-up at each threshold apart. The left shows the start of learning, the right its end; "
        "a line stops where no run of either arm arrives. Hollow: limited by the first checkpoint, in the "
        f"direction that the CSV gives. n = {main.n} independent runs of {main.baseline} + {main.arm} on "
        "each task.",
        plots.speed_up_by_threshold(by_task, suite, grid, counts, arm=main.arm, limited=limited),
        pd.DataFrame(rows),
    )


def threshold_limits(fold: FoldMeasures) -> list[str]:
    """How the first checkpoint limits ρ_θ at each threshold (:func:`harness.measures.resolution_limit`)."""
    found = []
    for which in np.eye(len(fold.thresholds), dtype=bool):
        shares = [
            measures.first_checkpoint_share(times, which, curves.steps[1])
            for times, curves in zip(fold.times, fold.curves, strict=True)
        ]
        found.append(measures.resolution_limit(*shares) if (which & fold.estimable).any() else "")
    return found


def _exp(estimate: Estimate) -> Estimate:
    return estimate if math.isnan(estimate.value) else estimate.exp()


def _ratio_row(task: str, theta: float, ratio: Estimate) -> dict[str, Any]:
    return {
        "task": task,
        "theta": theta,
        "speed_up": ratio.value,
        "low": ratio.low,
        "high": ratio.high,
        "no_interval": ratio.reason,
    }


def cluster_times(analysis: Analysis, fold: int, arm: str) -> np.ndarray:
    """Y_θ of an arm, cluster means, ``(clusters, thresholds)``."""
    times = measures.restricted_times(analysis.arrivals[fold, arm], analysis.plan["budget"])
    return measures.cluster_means(times, analysis.curves[fold, arm].clusters)


def shares(analysis: Analysis, fold: int, arm: str) -> np.ndarray:
    """Share of an arm's runs that arrive by B, mean over clusters, ``(thresholds,)``."""
    arrived = np.isfinite(analysis.arrivals[fold, arm])
    return measures.cluster_means(arrived, analysis.curves[fold, arm].clusters).mean(axis=0)


def times(analysis: Analysis) -> Exhibit:
    """Mean restricted time of every arm against θ."""
    grid = analysis.thresholds
    budget, first = analysis.plan["budget"], analysis.plan["checkpoints"][1]
    panels, rows = [], []
    for fold in analysis.begun:
        values, lows, highs, censored = {}, {}, {}, {}
        for arm, curves in analysis.of_fold(fold).items():
            estimates = [statistics.one_sample(column) for column in cluster_times(analysis, fold, arm).T]
            share = shares(analysis, fold, arm)
            values[arm] = np.array([e.value for e in estimates])
            # a mean of times lies between the first checkpoint and the budget, and so does what is drawn
            lows[arm] = np.clip([e.low for e in estimates], first, budget)
            highs[arm] = np.clip([e.high for e in estimates], first, budget)
            censored[arm] = share < 1
            rows += [
                {"task": analysis.name(fold), "arm": arm, "theta": t, "steps": e.value, "low": e.low}
                | {"high": e.high, "arrived": s, "n": curves.count}
                for t, e, s in zip(grid, estimates, share, strict=True)
            ]
        panels.append(plots.ThresholdPanel(panel_title(analysis, fold), values, lows, highs, censored))
    return Exhibit(
        "times_by_threshold",
        "Steps to each score",
        "Mean restricted time: control steps until a run holds the score θ for three checkpoints, at most "
        "the budget B. The speed-up at θ is the ratio of two lines.",
        plots.times_by_threshold(panels, grid, first, budget),
        pd.DataFrame(rows),
    )


def success_shares(analysis: Analysis) -> Exhibit:
    """Share of every arm's runs that arrive, against θ."""
    grid = analysis.thresholds
    panels, rows = [], []
    for fold in analysis.begun:
        values, lows, highs = {}, {}, {}
        for arm, curves in analysis.of_fold(fold).items():
            share = shares(analysis, fold, arm)
            ends = np.array([statistics.wilson(float(s), curves.count) for s in share])
            values[arm], lows[arm], highs[arm] = share, ends[:, 0], ends[:, 1]
            rows += [
                {"task": analysis.name(fold), "arm": arm, "theta": t, "share": s, "low": e[0], "high": e[1]}
                | {"n": curves.count}
                for t, s, e in zip(grid, share, ends, strict=True)
            ]
        panels.append(plots.ThresholdPanel(panel_title(analysis, fold), values, lows, highs))
    return Exhibit(
        "success_shares",
        "Success within the budget",
        "Share of runs that arrive at θ within the budget B. Where runs fail, speed alone misleads.",
        plots.success_shares(panels, grid),
        pd.DataFrame(rows),
    )


# --- 5 runtime profile -----------------------------------------------------------------------------


def profile(analysis: Analysis) -> Section:
    """Section 5: share of (task, θ) pairs reached over time, and expected running times."""
    if not analysis.begun:
        return Section("Runtime profile", [NOTHING], 5)
    arms, folds = common(analysis)
    drawn = [_profile(analysis, arms, folds)] if folds else []
    headers = [f"{arm}, θ={analysis.thresholds[i]:.2f}" for i in analysis.shown for arm in analysis.arms]
    rows = [
        [
            analysis.name(fold),
            *(_ert(analysis, fold, arm, i) for i in analysis.shown for arm in analysis.arms),
        ]
        for fold in analysis.begun
    ]
    return Section(
        "Runtime profile",
        [
            *drawn,
            heading("Expected running time, steps"),
            table(["task", *headers], rows, "expected running time"),
            paragraph(
                "Steps of all runs up to arrival or the budget, divided by the number that arrive: what "
                "one "
                "success costs if failures are started anew. ∞: no run arrives. Secondary."
            ),
        ],
        5,
    )


def common(analysis: Analysis) -> tuple[list[str], list[int]]:
    """The arms that are planned on all folds, and the folds on which a run of each of them is complete."""
    arms = [a for a in analysis.arms if all((f, a) in analysis.curves for f in analysis.plan["folds"])]
    return arms, [f for f in analysis.begun if all(arm in analysis.of_fold(f) for arm in arms)]


def _profile(analysis: Analysis, arms: Sequence[str], folds: Sequence[int]) -> Exhibit:
    steps = measures.shown_steps(analysis.plan["checkpoints"], analysis.interpolated)
    steps = steps[(steps > 0) & (steps <= analysis.plan["budget"])]
    lines, rows = [], []
    for arm in arms:
        estimates = []
        for step in steps:
            of_folds = []
            for fold in folds:
                reached = (analysis.arrivals[fold, arm] <= step).mean(axis=1)
                clusters = measures.cluster_means(reached, analysis.curves[fold, arm].clusters)
                of_folds.append(statistics.one_sample(clusters))
            estimates.append(statistics.suite_mean(of_folds))
        y, low, high = (np.array([getattr(e, end) for e in estimates]) for end in ("value", "low", "high"))
        # where all agree there is no spread, and the interval is the point; one seed has no interval
        reasons = np.array([e.reason for e in estimates])
        exact = reasons == "zero variance"
        lows, highs = np.where(exact, y, np.clip(low, 0, 1)), np.where(exact, y, np.clip(high, 0, 1))
        runs = sum(len(analysis.curves[fold, arm].runs) for fold in folds)
        lines.append(plots.Line(arm, steps, y, lows, highs, f"{runs} runs"))
        rows += [
            {"arm": arm, "steps": s, "share": v, "low": a, "high": b, "no_interval": r}
            | {"runs": runs, "tasks": len(folds)}
            for s, v, a, b, r in zip(steps, y, lows, highs, reasons, strict=True)
        ]
    return Exhibit(
        "runtime_profile",
        "Runtime profile",
        f"Share of all pairs of one of {len(folds)} tasks and a threshold θ that are reached by so many "
        "steps, "
        "with 95% t intervals for these tasks. At the right what is never reached within the budget, "
        "which is "
        "censored. Arms that are planned on some tasks only are left out.",
        plots.runtime_profile(lines, analysis.plan["budget"]),
        pd.DataFrame(rows),
    )


def _ert(analysis: Analysis, fold: int, arm: str, threshold: int) -> Cell:
    arrival = analysis.arrivals.get((fold, arm))
    if arrival is None or not len(arrival):
        return Cell("–", math.nan)
    return words.count_cell(
        float(measures.expected_running_times(arrival, analysis.plan["budget"])[threshold])
    )


# --- 6 Kaplan-Meier --------------------------------------------------------------------------------


def survival(analysis: Analysis) -> Section:
    """Section 6: share of runs that have not arrived yet, with the numbers at risk."""
    title = "Kaplan-Meier panels"
    if not analysis.begun:
        return Section(title, [NOTHING], 6)
    several = any(curves.count < len(curves.runs) for curves in analysis.curves.values())
    return Section(
        title,
        [
            _survival(analysis, analysis.shown[0]),
            *([paragraph(FIRST_FINE_TUNING)] if several else []),
            *_logrank(analysis),
        ],
        6,
    )


def _survival(analysis: Analysis, threshold: int) -> Exhibit:
    budget = float(analysis.plan["budget"])
    steps = measures.shown_steps(analysis.plan["checkpoints"], analysis.interpolated)
    theta = f"θ = {analysis.thresholds[threshold]:.2f}"
    panels, rows = [], []
    for fold in analysis.begun:
        arms = {}
        for arm, curves in analysis.of_fold(fold).items():
            arrival = analysis.arrivals[fold, arm][curves.first_runs, threshold]
            curve = statistics.kaplan_meier(arrival, budget)
            # the step function at the steps shown, of which those after B are not watched
            at = np.searchsorted(curve.times, steps, side="right") - 1
            share, low, high = (
                np.where(steps <= budget, values[at], np.nan)
                for values in (curve.share, curve.low, curve.high)
            )
            risk = np.where(steps <= budget, statistics.at_risk(arrival, budget, list(steps)), 0)
            arms[arm] = plots.Survival(share, risk, low, high)
            rows += [
                {
                    "task": analysis.name(fold),
                    "arm": arm,
                    "theta": analysis.thresholds[threshold],
                    "steps": s,
                }
                | {"share": v, "low": a, "high": b, "at_risk": r, "n": curves.count}
                for s, v, a, b, r in zip(steps, share, low, high, risk, strict=True)
                if s <= budget
            ]
        panels.append(plots.SurvivalPanel(panel_title(analysis, fold), arms))
    return Exhibit(
        "kaplan_meier",
        "Kaplan-Meier panels",
        f"Share of runs that have not arrived at {theta} yet, with the number at risk just before each "
        "step "
        "below, and at B. Runs that are left there are censored. Intervals are pointwise and take runs as "
        "independent; where they are of some arms only, the others' are in the CSV.",
        plots.kaplan_meier(panels, steps, budget, note=theta),
        pd.DataFrame(rows),
    )


def _logrank(analysis: Analysis) -> list[str]:
    budget = float(analysis.plan["budget"])
    rows = []
    for comparison in analysis.against_scratch:
        for result in comparison.folds:
            both = [
                arrivals[curves.first_runs]
                for arrivals, curves in zip(result.measures.arrivals, result.measures.curves, strict=True)
            ]
            tests = [
                statistics.logrank(both[0][:, i], both[1][:, i], budget, budget) for i in analysis.shown
            ]
            rows.append([result.measures.task, comparison.arm, *map(words.p_cell, tests)])
    if not rows:
        return []
    return [
        details(
            "Log-rank tests against scratch, supportive only",
            table(
                ["task", "arm", *(f"p at θ={analysis.thresholds[i]:.2f}" for i in analysis.shown)],
                rows,
                "log-rank tests",
            ),
        )
    ]
