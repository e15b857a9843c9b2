"""Sections 10 and 11: what transfer costs, and how small an effect could have been seen."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness import measures, plots, statistics
from harness.measures import BASELINE, FoldMeasures
from harness.report import words
from harness.report.analysis import Analysis
from harness.report.page import Cell, Exhibit, Section, absent, heading, paragraph, table
from harness.schema import CONTROLS
from harness.statistics import Estimate

SEEDS = (3, 5, 10, 20, 40)
"""Numbers of runs in each arm for which detectable effects are drawn, besides the planned one."""
"""Score at which a break-even is given where the plan names none."""


# --- 10 break-even ---------------------------------------------------------------------------------


def break_even(analysis: Analysis) -> Section:
    """Section 10: after how many tasks pretraining has paid for itself."""
    title, plan, main = "Break-even", analysis.plan, analysis.main
    theta = float(plan["break_even_threshold"])
    complete = [f.measures for f in main.folds if f.measures.complete]
    found = measures.break_even(complete, plan, theta)
    found = found[found["pretraining_steps"] > 0]
    if found.empty:
        return Section(title, [absent("No arm that is pretrained was planned, or none is complete.")], 10)
    rows = [
        [
            row.task,
            words.count_cell(row.pretraining_steps),
            Cell(
                words.count(row.saving)
                + (
                    f" [{words.count(row.saving_low)}, {words.count(row.saving_high)}]"
                    if row.saving_low == row.saving_low
                    else ""
                ),
                row.saving,
            ),
            Cell(uses(tasks), tasks.value),
        ]
        for row in found.itertuples()
        for tasks in [Estimate(row.uses, row.low, row.high, reason=row.reason)]
    ]
    return Section(
        title,
        [
            # where nothing is saved on any task there is nothing to draw
            *([_break_even_figure(found, complete, theta)] if np.isfinite(found["uses"]).any() else []),
            table(
                ["held-out task", "steps of one pretraining", f"steps saved at θ={theta:.2f} [95%]",
                 "tasks until break-even [95% Fieller]"],
                rows,
                "break-even",
            ),
            paragraph(
                "Steps of pretraining divided by the mean restricted steps that it saves on one new task "
                "at "
                f"θ = {theta:.2f}. “Unbounded”: the saving may be 0."
            ),
        ],
        10,
    )  # fmt: skip


def _break_even_figure(found: pd.DataFrame, folds: Sequence[FoldMeasures], theta: float) -> Exhibit:
    counts = {fold.fold: tuple(c.count for c in fold.curves) for fold in folds}
    rows = []
    for row in found.itertuples():
        tasks = Estimate(row.uses, row.low, row.high, reason=row.reason)
        rows.append(plots.BreakEvenRow(row.task, tasks, counts[row.fold], uses(tasks, short=True)))
    return Exhibit(
        "break_even",
        "Break-even",
        "Number of new tasks after which the steps of pretraining are saved again, with Fieller intervals.",
        plots.break_even(rows, f"θ = {theta:.2f}"),
        found,
    )


def uses(tasks: Estimate, short: bool = False) -> str:
    """A number of tasks with its interval; "unbounded" where there is no end.

    Args:
        tasks: of :func:`harness.statistics.fieller`.
        short: leaves out why there is no interval, for a figure.
    """
    if math.isnan(tasks.value):
        return "not estimable" if short else tasks.reason
    text = "never" if math.isinf(tasks.value) else words.factor(tasks.value)
    if tasks.reason:
        return text if short else f"{text} (no interval: {tasks.reason})"
    if math.isinf(tasks.low):
        return text
    high = "unbounded" if tasks.unbounded else words.factor(tasks.high)
    return f"{text} [{words.factor(tasks.low)}, {high}]"


# --- 11 variance -----------------------------------------------------------------------------------


def variance(analysis: Analysis) -> Section:
    """Section 11: how much runs vary, where from, and what could have been seen."""
    main = analysis.main
    rows = []
    named = [(f.measures.task, f.log_ratio, f) for f in main.folds]
    for task, estimate, result in named:
        seen = statistics.minimum_detectable(estimate)
        rows.append(
            [
                task,
                *(_spread(times) for times in result.measures.mean_times),
                *_seen(seen),
            ]
        )
    suite = statistics.minimum_detectable(main.sets["all_folds"].log_ratio)
    parts: list[str | Exhibit] = [
        *_variance_figure(analysis),
        table(
            ["held-out task", *(f"spread of Ȳ, {arm}" for arm in (main.baseline, main.arm)),
             "interval reaches ×/÷", "detectable ρ̄", "note"],
            rows,
            "variance and detectable effects",
            ["mean of tasks", "", "", *_seen(suite)],
        ),
        paragraph(
            "Spread: standard deviation over mean of the runs' restricted times. Detectable: the smallest "
            f"true speed-up that a test at the 5% level sees in {statistics.POWER:.0%} of such "
            "experiments, from "
            "the runs' own spread and not from the effect that was found."
        ),
        *_splits(analysis),
    ]  # fmt: skip
    return Section("Variance and detectable effects", parts, 11)


def variance_splits(analysis: Analysis) -> list[tuple[int, str, statistics.VarianceSplit]]:
    """Of log Ȳ, by fold and arm, where pretrainings were fine-tuned several times."""
    found = []
    for (fold, arm), curves in analysis.curves.items():
        if arm == BASELINE or curves.count == len(curves.runs):
            continue
        times = measures.restricted_times(analysis.arrivals[fold, arm], analysis.plan["budget"]).mean(
            axis=1
        )
        found.append((fold, arm, statistics.variance_split(list(np.log(times)), curves.clusters)))
    return found


def _variance_figure(analysis: Analysis) -> list[str | Exhibit]:
    bars = [
        plots.VarianceRow(
            f"{analysis.name(fold)}, {arm} (n = {s.clusters} × {s.runs / s.clusters:g})",
            {"pretraining": s.between, "fine-tuning": s.within},
            f"sd {math.sqrt(s.between + s.within):.2f} of log steps",
        )
        for fold, arm, s in variance_splits(analysis)
        if not s.reason
    ]
    main, planned = analysis.main, int(analysis.plan["seeds"])
    of_arm = analysis.plan.get("control_seeds", planned) if main.arm in CONTROLS else planned
    whole = f"{planned}+{of_arm}"
    named = [
        (f.measures.task, f.log_ratio, "+".join(str(c.count) for c in f.measures.curves))
        for f in main.folds
    ] + [("suite", main.sets["all_folds"].log_ratio, "")]
    counts = np.array([n for n in sorted({planned, *SEEDS}) if n > 1])
    lines, data = [], []
    for name, estimate, there in named:
        if estimate.reason:
            continue
        seen = [statistics.minimum_detectable(estimate, clusters=int(n)) for n in counts]
        # of an incomplete plan the spread is known from fewer runs than planned
        label = name if there in ("", whole) else f"{name} (from {there})"
        lines.append(plots.Line(label, counts, np.array([s.ratio for s in seen])))
        data += [
            {"task": name, "clusters_per_arm": n, "detectable_speed_up": s.ratio, "from_clusters": there}
            for n, s in zip(counts, seen, strict=True)
        ]
    if not bars and not lines:
        return []
    data += [
        {"task": analysis.name(fold), "arm": arm, "between": s.between, "within": s.within}
        for fold, arm, s in variance_splits(analysis)
    ]
    return [
        Exhibit(
            "variance",
            "Variance and detectable effects",
            "The smallest true speed-up that is seen with a power of 80%, if the runs scatter as these do, "
            "against the number of runs in each arm. A spread that is itself estimated from few runs "
            "promises too much: in simulation, new experiments of 5 runs saw such an effect in .70 of "
            "cases, of 10 in .75 (docs/coverage.md)."
            + (" Above: where the variance of log steps comes from." if bars else ""),
            plots.variance(bars, lines, planned),
            pd.DataFrame(data),
        )
    ]


def _spread(times: np.ndarray) -> Cell:
    if len(times) < 2 or np.isnan(times).any():
        return words.number_cell(math.nan)
    value = float(times.std(ddof=1) / times.mean())
    return Cell(f"{value:.0%}", value)


def _seen(seen: statistics.Detectable) -> list[Cell | str]:
    if seen.reason:
        return [words.number_cell(math.nan), words.number_cell(math.nan), seen.reason]
    return [
        Cell(words.factor(seen.width_ratio), seen.width_ratio),
        Cell(words.factor(seen.ratio), seen.ratio),
        "",
    ]


def _splits(analysis: Analysis) -> list[str | Exhibit]:
    """Between pretrainings and between the fine-tunings of one, where several were planned."""
    rows = []
    for fold, arm, split in variance_splits(analysis):
        rows.append(
            [
                analysis.name(fold),
                arm,
                words.count_cell(split.clusters),
                words.count_cell(split.runs),
                words.number_cell(math.sqrt(split.between), 3),
                words.number_cell(math.sqrt(split.within), 3),
                Cell("–" if math.isnan(split.share) else f"{split.share:.0%}", split.share),
                words.p_cell(split.p),
                split.reason,
            ]
        )
    if not rows:
        return [
            absent(
                "Every pretraining was fine-tuned once, so pretraining and fine-tuning cannot be told "
                "apart."
            )
        ]
    return [
        heading("Between pretrainings, and between fine-tunings of one"),
        table(
            ["held-out task", "arm", "pretrainings", "fine-tunings", "sd between", "sd within",
             "share between", "F-test p", "note"],
            rows,
            "variance split",
        ),
        paragraph("Of the logarithm of Ȳ, by one-way random-effects analysis of variance."),
    ]  # fmt: skip
