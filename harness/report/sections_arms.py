"""Sections 8, 10, 11, 12 and 15: what else was compared, what it costs, and how sure all of it is."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness import measures, plots, statistics
from harness.report import words
from harness.report.analysis import (
    BASELINE,
    CODES,
    TREATMENT,
    Analysis,
    Comparison,
    told,
)
from harness.report.page import Cell, Exhibit, Section, details, heading, paragraph, table
from harness.report.variations import Variation, variations
from harness.statistics import Estimate

SEEDS = (3, 5, 10, 20, 40)
"""Numbers of runs in each arm for which detectable effects are drawn, besides the planned one."""
DEFAULT_THETA = 0.5
"""Score at which a break-even is given where the plan names none."""


def absent(sentence: str) -> str:
    """What is said where the plan does not ask for what a section shows."""
    return f'<p class="absent">{sentence}</p>'


def comparison_table(comparison: Comparison) -> str:
    """A row per fold and one for their mean."""
    rows = [
        [
            f.measures.task,
            "+".join(str(c.count) for c in f.measures.curves),
            words.ratio_cell(f.log_ratio, f.measures.limit),
            words.p_cell(f.p),
            words.p_cell(f.p_holm),
            words.difference_cell(f.jumpstart),
            *(words.arrived_cell([f], arm, -1) for arm in (0, 1)),
        ]
        for f in comparison.folds
    ]
    suite = comparison.sets["all_folds"]
    top = f"{comparison.folds[0].measures.thresholds[-1]:.2f}"
    return table(
        ["held-out task", "n", "ρ̄ [95% t interval]", "permutation p", "Holm", "jumpstart [95%]",
         *(f"{arm}, arrived at θ={top}" for arm in (comparison.baseline, comparison.arm))],
        rows,
        f"{comparison.arm} against {comparison.baseline}",
        ["mean of tasks", f"{len(suite.estimable)} of {len(suite.folds)}",
         words.ratio_cell(suite.log_ratio, suite.limit), words.p_cell(suite.p), "", "",
         *(words.arrived_cell(suite.folds, arm, -1) for arm in (0, 1))],
    )  # fmt: skip


# --- 8 told or not ---------------------------------------------------------------------------------


def told_or_not(analysis: Analysis) -> Section:
    """Section 8: transfer against blind, and the true code against others."""
    parts: list[str | Exhibit] = []
    blind = analysis.comparisons.get(("blind", TREATMENT))
    if blind is not None:
        parts += [
            paragraph(
                "ρ̄ is steps of blind, which is never told its task, in pretraining neither, divided by "
                "steps of transfer: above 1, telling helps."
            ),
            comparison_table(blind),
        ]
    else:
        parts.append(absent("The arm blind, which is never told its task, was not planned."))
    parts += _codes(analysis)
    return Section("Told or not", [*_told_figure(analysis), *parts], 8)


def _told_figure(analysis: Analysis) -> list[str | Exhibit]:
    arms = [c for c in analysis.against_scratch if c.arm in (TREATMENT, "blind")]
    speed_ups = [
        plots.Dot(f.measures.task, ratio_of(f.log_ratio), c.arm)
        for c in arms
        for f in c.folds
        if len(arms) == 2
    ]
    scores = told(analysis)
    codes = [
        plots.Dot(analysis.name(fold), statistics.one_sample(of_fold[code].to_numpy()), code)
        for fold, of_fold in scores.groupby("fold", sort=False)
        for code in CODES
    ]
    panels = {
        "speed-up over scratch": (speed_ups, "speed-up ρ̄", 1.0),
        "score at hand-over": (codes, "score g at step 0", 0.0),
    }
    shown = {
        title: plots.DotPanel(title, label, dots, reference, ratio=reference == 1.0)
        for title, (dots, label, reference) in panels.items()
        if any(not math.isnan(d.estimate.value) for d in dots)
    }
    if not shown:
        return []
    drawn = list(shown.values())
    data = pd.DataFrame(
        [
            {
                "task": d.label,
                "panel": panel.title,
                "arm": d.arm,
                "value": d.estimate.value,
                "low": d.estimate.low,
                "high": d.estimate.high,
                "no_interval": d.estimate.reason,
            }
            for panel in drawn
            for d in panel.dots
        ]
    )
    return [
        Exhibit(
            "told_or_not",
            "Told or not",
            "Left: speed-up with the task's code and without. Right: score of the pretrained network on the "
            "held-out task by the code that it is told. 95% t intervals."
            if len(drawn) == 2
            else "With 95% t intervals.",
            plots.told_or_not(*drawn) if len(drawn) == 2 else plots.levels(drawn),
            data,
        )
    ]


def ratio_of(log_ratio: Estimate) -> Estimate:
    """A logarithm as a ratio; NaN stays."""
    return log_ratio if math.isnan(log_ratio.value) else log_ratio.exp()


def _codes(analysis: Analysis) -> list[str | Exhibit]:
    scores = told(analysis)
    if scores.empty:
        return [absent("No pretrained network was evaluated with the mean and a wrong code.")]
    rows = []
    for fold, of_fold in scores.groupby("fold", sort=False):
        gaps = [statistics.one_sample(of_fold["true"] - of_fold[code]) for code in ("mean", "wrong")]
        rows.append(
            [
                analysis.name(fold),
                words.count_cell(len(of_fold)),
                *(words.number_cell(of_fold[code].mean()) for code in CODES),
                *map(words.difference_cell, gaps),
            ]
        )
    return [
        heading("True, mean and wrong code at hand-over"),
        table(
            ["held-out task", "pretrainings", *(f"g, {code} code" for code in CODES),
             "true − mean [95%]", "true − wrong [95%]"],
            rows,
            "scores by the code told",
        ),
        paragraph(
            "Score of the pretrained networks on the held-out task, before any training on it, told the "
            "task's own code, the mean of the source tasks' codes, and the code of the farthest source. "
            "Differences are within networks, with t intervals."
        ),
    ]  # fmt: skip


# --- 10 break-even ---------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class BreakEven:
    """After how many new tasks one pretraining has paid for itself."""

    label: str
    """The held-out task, or the mean of all."""
    n: tuple[int, ...]
    """Clusters of both arms; of the mean, how many tasks."""
    cost: float
    """Steps of one pretraining."""
    saving: Estimate
    """Steps saved on the task."""
    tasks: Estimate
    """cost / saving with Fieller's interval."""


def break_even(analysis: Analysis) -> Section:
    """Section 10: after how many tasks pretraining has paid for itself."""
    theta = float(analysis.plan.get("theta", DEFAULT_THETA))
    found = break_evens(analysis, theta)
    title = "Break-even"
    if not found:
        return Section(title, [absent("No arm that is pretrained was planned, or none is complete.")], 10)
    rows = [
        [b.label, words.count_cell(b.cost), Cell(_steps(b.saving), b.saving.value), Cell(uses(b.tasks), b.tasks.value)]
        for b in found
    ]
    return Section(
        title,
        [
            *_break_even_figures(found, theta),
            table(
                ["held-out task", "steps of one pretraining", f"steps saved at θ={theta:.2f} [95%]",
                 "tasks until break-even [95% Fieller]"],
                rows if len(rows) == 1 else rows[:-1],
                "break-even",
                () if len(rows) == 1 else rows[-1],
            ),
            paragraph(
                "Steps of pretraining divided by the mean restricted steps that it saves on one new task at "
                f"θ = {theta:.2f}. “Unbounded”: the saving may be 0."
            ),
        ],
        10,
    )  # fmt: skip


def break_evens(analysis: Analysis, theta: float) -> list[BreakEven]:
    """Break-even of every fold with complete runs, and of their mean where there are several."""
    main = analysis.main
    pretrained = analysis.runs[
        (analysis.runs["phase"] == "pretrain") & analysis.runs["run"].isin(analysis.runs["start"].dropna())
    ]
    found = []
    for result in main.folds:
        fold = result.measures.fold
        curves = [analysis.curves[fold, arm] for arm in (main.baseline, main.arm)]
        cost = pretrained[(pretrained["fold"] == fold) & (pretrained["arm"] == main.arm)]["steps"].mean()
        if math.isnan(cost) or not all(c.count for c in curves):
            continue
        times = []
        for c in curves:
            arrival = measures.arrivals(c.steps, c.scores, np.array([theta]), analysis.plan["budget"])[:, 0]
            times.append(
                measures.cluster_means(
                    measures.restricted_times(arrival, analysis.plan["budget"]), c.clusters
                )
            )
        saving = statistics.difference(times[1], times[0], names=(main.arm, main.baseline))
        found.append(
            BreakEven(
                result.measures.task,
                (curves[0].count, curves[1].count),
                cost,
                saving,
                statistics.fieller(cost, saving),
            )
        )
    if len(found) > 1:
        saving = statistics.suite_mean([b.saving for b in found])
        cost = float(np.mean([b.cost for b in found]))
        mean = BreakEven("mean of tasks", (len(found),), cost, saving, statistics.fieller(cost, saving))
        found.append(mean)
    return found


def _break_even_figures(found: Sequence[BreakEven], theta: float) -> list[str | Exhibit]:
    rows = [
        plots.BreakEvenRow(b.label, b.tasks, b.n, uses(b.tasks), suite=b.label == "mean of tasks") for b in found
    ]
    data = pd.DataFrame(
        [
            {
                "task": b.label,
                "pretraining_steps": b.cost,
                "saved_steps": b.saving.value,
                "saved_low": b.saving.low,
                "saved_high": b.saving.high,
                "tasks": b.tasks.value,
                "low": b.tasks.low,
                "high": b.tasks.high,
                "no_interval": b.tasks.reason,
            }
            for b in found
        ]
    )
    return [
        Exhibit(
            "break_even",
            "Break-even",
            "Number of new tasks after which the steps of pretraining are saved again, with Fieller intervals.",
            plots.break_even(rows, f"θ = {theta:.2f}"),
            data,
        )
    ]


def _steps(saving: Estimate) -> str:
    text = words.count(saving.value)
    return f"{text} ({saving.reason})" if saving.reason else (
        f"{text} [{words.count(saving.low)}, {words.count(saving.high)}]"
    )  # fmt: skip


def uses(tasks: Estimate) -> str:
    """A number of tasks with its interval; "unbounded" where there is no end."""
    if math.isinf(tasks.value):
        text = "never, by the estimate"
    else:
        text = words.factor(tasks.value)
    if tasks.reason:
        return f"{text} (no interval: {tasks.reason})"
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
            f"true speed-up that a test at the 5% level sees in {statistics.POWER:.0%} of such experiments, from "
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
        times = measures.restricted_times(analysis.arrivals[fold, arm], analysis.plan["budget"]).mean(axis=1)
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
    named = [(f.measures.task, f.log_ratio) for f in main.folds] + [("suite", main.sets["all_folds"].log_ratio)]
    lines = []
    for name, estimate in named:
        if estimate.reason:
            continue
        counts = sorted({planned, *SEEDS})
        seen = [statistics.minimum_detectable(estimate, runs=n / planned) for n in counts if n > 1]
        lines.append(plots.Line(name, np.array([n for n in counts if n > 1]), np.array([s.ratio for s in seen])))
    if not bars and not lines:
        return []
    data = [
        {"task": line.name, "clusters_per_arm": n, "detectable_speed_up": y}
        for line in lines
        for n, y in zip(line.x, line.y, strict=True)
    ]
    data += [
        {"task": analysis.name(fold), "arm": arm, "between": s.between, "within": s.within}
        for fold, arm, s in variance_splits(analysis)
    ]
    return [
        Exhibit(
            "variance",
            "Variance and detectable effects",
            "The smallest true speed-up that is seen with a power of 80%, if the runs scatter as these do, "
            "against the number of runs in each arm."
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
    return [Cell(words.factor(seen.width_ratio), seen.width_ratio), Cell(words.factor(seen.ratio), seen.ratio), ""]


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
        return [absent("Every pretraining was fine-tuned once, so pretraining and fine-tuning cannot be told apart.")]
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


# --- 12 sensitivity --------------------------------------------------------------------------------


def sensitivity(analysis: Analysis) -> Section:
    """Section 12: the headline under other ways of measuring it, and the other arms."""
    found = variations(analysis)
    rows = [
        [
            v.label,
            f"{v.estimable} of {v.folds}",
            words.ratio_cell(v.log_ratio),
            words.p_cell(v.log_ratio.p),
        ]
        for v in found
    ]
    parts: list[str | Exhibit] = [
        *_sensitivity_figure(analysis, found),
        table(["variation", "tasks", "ρ̄ [95% t interval]", "t-test p"], rows, "sensitivity of the headline"),
        paragraph(
            "Each row changes one thing and leaves all others as the plan has them. Half the evaluation "
            "episodes: noise is added to every evaluation, as large as half as many episodes would have."
        ),
        heading("Other arms"),
    ]
    others = [c for pair, c in analysis.comparisons.items() if c is not analysis.main and pair[0] != "blind"]
    if not others:
        parts.append(absent("No control arm was planned."))
    for comparison in others:
        parts.append(
            details(f"{comparison.arm} against {comparison.baseline}", comparison_table(comparison))
        )
    return Section("Sensitivity and controls", parts, 12)


def _sensitivity_figure(analysis: Analysis, found: Sequence[Variation]) -> list[str | Exhibit]:
    main = analysis.main
    rows = [
        plots.ForestRow(
            v.label, ratio_of(v.log_ratio), (v.estimable,), words.short_ratio(v.log_ratio, ""), suite=True,
            arm=main.arm,
        )
        for v in found
    ]  # fmt: skip
    for comparison in analysis.comparisons.values():
        suite = comparison.sets["all_folds"]
        if comparison is not main:
            rows.append(
                plots.ForestRow(
                    f"{comparison.arm} over {comparison.baseline}",
                    ratio_of(suite.log_ratio),
                    (len(suite.estimable),),
                    words.short_ratio(suite.log_ratio, suite.limit),
                    suite=True,
                    arm=main.arm,
                    limit=suite.limit,
                )
            )
    if all(math.isnan(row.ratio.value) for row in rows):
        return []
    data = pd.DataFrame(
        [
            {
                "variation": row.label,
                "speed_up": row.ratio.value,
                "low": row.ratio.low,
                "high": row.ratio.high,
                "no_interval": row.ratio.reason,
                "tasks": row.n[0],
            }
            for row in rows
        ]
    )
    return [
        Exhibit(
            "sensitivity",
            "Sensitivity and controls",
            "The mean speed-up with one thing changed at a time, over its interval as planned, and that of the "
            "other arms.",
            plots.sensitivity(rows, ratio_of(analysis.headline.log_ratio)),
            data,
        )
    ]


# --- 15 distance -----------------------------------------------------------------------------------


def distance(analysis: Analysis) -> Section:
    """Section 15: speed-up and jumpstart against the distance to the nearest training task."""
    title = "Speed-up against distance"
    distances = nearest_distances(analysis)
    if not distances:
        return Section(title, [absent("The plan holds no distances between tasks.")], 15)
    rows = [
        [
            f.measures.task,
            words.number_cell(distances[f.measures.fold][1], 3),
            distances[f.measures.fold][0],
            words.ratio_cell(f.log_ratio, f.measures.limit),
            words.difference_cell(f.jumpstart),
        ]
        for f in analysis.main.folds
        if f.measures.fold in distances
    ]
    return Section(
        title,
        [
            *_distance_figure(analysis, distances),
            table(
                ["held-out task", "distance to the nearest", "nearest training task", "ρ̄ [95% t interval]",
                 "jumpstart [95%]"],
                rows,
                "speed-up against distance",
            ),
            paragraph(
                "Euclidean distance of standardised descriptors to the nearest task of the pretraining. So "
                "few tasks show a tendency at most."
            ),
        ],
        15,
    )  # fmt: skip


def _distance_figure(analysis: Analysis, distances: Mapping[int, tuple[str, float]]) -> list[str | Exhibit]:
    points = [
        plots.DistancePoint(
            f.measures.task, distances[f.measures.fold][1], ratio_of(f.log_ratio), f.jumpstart, f.mark
        )
        for f in analysis.main.folds
        if f.measures.fold in distances
    ]
    if all(math.isnan(p.jumpstart.value) for p in points):
        return []
    data = pd.DataFrame(
        [
            {
                "task": p.label,
                "distance": p.distance,
                "nearest": distances[f][0],
                "speed_up": p.speed_up.value,
                "speed_up_low": p.speed_up.low,
                "speed_up_high": p.speed_up.high,
                "jumpstart": p.jumpstart.value,
                "jumpstart_low": p.jumpstart.low,
                "jumpstart_high": p.jumpstart.high,
                "mark": p.mark,
            }
            for f, p in zip(distances, points, strict=True)
        ]
    )
    return [
        Exhibit(
            "distance",
            "Speed-up against distance",
            "Each held-out task over its distance to the nearest training task, with 95% t intervals. "
            "Hollow: solved at step 0.",
            plots.distance(points),
            data,
        )
    ]


def nearest_distances(analysis: Analysis) -> dict[int, tuple[str, float]]:
    """By fold the nearest training task of the compared arm and its distance, in descriptor units."""
    plan = analysis.plan
    known = plan.get("leaks", {}).get("distances", {})
    found = {}
    for fold in plan["folds"]:
        of_fold = known.get(analysis.name(fold))
        sources = {
            analysis.name(number)
            for run in plan["runs"]
            if run["phase"] == "pretrain" and run["fold"] == fold and run["arm"] == analysis.main.arm
            for number in run["tasks"]
        }
        if of_fold and sources <= set(of_fold) and sources:
            nearest = min(sources, key=lambda name: (of_fold[name], name))
            found[fold] = (nearest, float(of_fold[nearest]))
    return found
