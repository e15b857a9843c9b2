"""Sections 8, 10, 11, 12 and 15: what else was compared, what it costs, and how sure all of it is."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness import measures, plots, statistics
from harness.measures import BASELINE, FoldMeasures
from harness.report import words
from harness.report.analysis import TREATMENT, Analysis, Comparison
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
    scores = codes(analysis)
    return Section("Told or not", [*_told_figure(analysis, scores), *parts, *_codes(scores)], 8)


def _told_figure(analysis: Analysis, scores: pd.DataFrame) -> list[str | Exhibit]:
    arms = [c for c in analysis.against_scratch if c.arm in (TREATMENT, "blind")]
    speed_ups = [
        plots.Dot(f.measures.task, ratio_of(f.log_ratio), c.arm)
        for c in arms
        for f in c.folds
        if len(arms) == 2
    ]
    scores = scores[scores["arm"] == TREATMENT]
    by_code = [
        plots.Dot(task, statistics.one_sample(of_code["score"].to_numpy()), code)
        for (task, code), of_code in scores.groupby(["task", "code"], sort=False)
        if scores["code"].nunique() > 1
    ]
    panels = {
        "speed-up over scratch": (speed_ups, "speed-up ρ̄", 1.0),
        "score at hand-over": (by_code, "score g at step 0", 0.0),
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
            "Left: speed-up with the task's code and without. Right: score of the pretrained network on "
            "the "
            "held-out task by the code that it is told. 95% t intervals."
            if len(drawn) == 2
            else "With 95% t intervals.",
            plots.told_or_not(drawn[0], drawn[1]) if len(drawn) == 2 else plots.levels(drawn),
            data,
        )
    ]


def ratio_of(log_ratio: Estimate) -> Estimate:
    """A logarithm as a ratio; NaN stays."""
    return log_ratio if math.isnan(log_ratio.value) else log_ratio.exp()


def _codes(scores: pd.DataFrame) -> list[str | Exhibit]:
    if scores["code"].nunique() < 2:
        return [absent("No pretrained network was evaluated with another code than the task's own.")]
    gaps = measures.code_differences(scores)
    means = scores.groupby(["arm", "fold", "code"])["score"].mean()
    rows = [
        [
            row.task,
            row.arm,
            row.code,
            words.count_cell(row.n),
            words.number_cell(float(means.get((row.arm, row.fold, "true"), math.nan))),
            words.number_cell(float(means.get((row.arm, row.fold, row.code), math.nan))),
            words.difference_cell(Estimate(row.difference, row.low, row.high, reason=row.reason)),
        ]
        for row in gaps.itertuples()
    ]
    return [
        heading("True, mean and wrong code at hand-over"),
        table(
            ["held-out task", "arm", "other code", "pretrainings", "g, true code", "g, other code",
             "true − other [95%]"],
            rows,
            "scores by the code told",
        ),
        paragraph(
            "Score of the pretrained networks on the held-out task, before any training on it, told the "
            "task's own code, the mean of the source tasks' codes, or the code of the farthest source. "
            "Differences are within networks, with t intervals."
        ),
    ]  # fmt: skip


def codes(analysis: Analysis) -> pd.DataFrame:
    """Scores at hand-over by the code told, of the arms that were told several."""
    scores = measures.code_scores(analysis.evaluations, analysis.runs, analysis.plan)
    several = scores.groupby("arm")["code"].transform("nunique") > 1
    return scores[several | (scores["arm"] == TREATMENT)]


# --- 10 break-even ---------------------------------------------------------------------------------


def break_even(analysis: Analysis) -> Section:
    """Section 10: after how many tasks pretraining has paid for itself."""
    title, plan, main = "Break-even", analysis.plan, analysis.main
    wanted = float(plan.get("theta", DEFAULT_THETA))
    theta = float(analysis.thresholds[np.abs(analysis.thresholds - wanted).argmin()])
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
    named = [(f.measures.task, f.log_ratio) for f in main.folds] + [
        ("suite", main.sets["all_folds"].log_ratio)
    ]
    lines = []
    for name, estimate in named:
        if estimate.reason:
            continue
        counts = sorted({planned, *SEEDS})
        seen = [statistics.minimum_detectable(estimate, runs=n / planned) for n in counts if n > 1]
        lines.append(
            plots.Line(name, np.array([n for n in counts if n > 1]), np.array([s.ratio for s in seen]))
        )
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


# --- 12 sensitivity --------------------------------------------------------------------------------


def sensitivity(analysis: Analysis) -> Section:
    """Section 12: the headline under other ways of measuring it, and the other arms."""
    found = variations(analysis)
    rows = [
        [
            v.label,
            words.count_cell(v.estimable),
            words.ratio_cell(v.log_ratio),
            words.p_cell(v.log_ratio.p),
        ]
        for v in found
    ]
    parts: list[str | Exhibit] = [
        *_sensitivity_figure(analysis, found),
        table(
            ["variation", "tasks", "ρ̄ [95% t interval]", "t-test p"], rows, "sensitivity of the headline"
        ),
        paragraph(
            "Each row changes one thing and leaves all others as the plan has them. Every second "
            "checkpoint "
            "also doubles the span that an arrival must hold. Half the evaluation episodes: noise is "
            "added to "
            "every evaluation, so much that it scatters as half as many episodes would."
        ),
        heading("Other arms"),
    ]
    others = [
        c for pair, c in analysis.comparisons.items() if c is not analysis.main and pair[0] != "blind"
    ]
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
            v.label, ratio_of(v.log_ratio), (v.estimable,), words.short_ratio(v.log_ratio, ""),
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
            "The mean speed-up with one thing changed at a time, over its interval as planned, and that "
            "of the "
            "other arms.",
            plots.sensitivity(rows, ratio_of(analysis.headline.log_ratio), note="n: tasks"),
            data,
        )
    ]


# --- 15 distance -----------------------------------------------------------------------------------


def distance(analysis: Analysis) -> Section:
    """Section 15: speed-up and jumpstart against the distance to the nearest training task."""
    title, plan, main = "Speed-up against distance", analysis.plan, analysis.main
    if not ("leaks" in plan or "descriptors" in plan):
        return Section(title, [absent("The plan holds no distances between tasks.")], 15)
    nearest = measures.nearest_sources(plan, main.arm).set_index("fold")
    nearest = nearest.loc[[f.measures.fold for f in main.folds]]
    points = [
        plots.DistancePoint(f.measures.task, d, ratio_of(f.log_ratio), f.jumpstart, f.mark)
        for f, d in zip(main.folds, nearest["distance"], strict=True)
    ]
    rows = [
        [
            f.measures.task,
            words.number_cell(d, 3),
            name,
            words.ratio_cell(f.log_ratio, f.measures.limit),
            words.difference_cell(f.jumpstart),
        ]
        for f, d, name in zip(main.folds, nearest["distance"], nearest["nearest"], strict=True)
    ]
    data = pd.DataFrame(
        [
            {
                "task": p.label,
                "nearest": name,
                "distance": p.distance,
                "speed_up": p.speed_up.value,
                "speed_up_low": p.speed_up.low,
                "speed_up_high": p.speed_up.high,
                "jumpstart": p.jumpstart.value,
                "jumpstart_low": p.jumpstart.low,
                "jumpstart_high": p.jumpstart.high,
                "mark": p.mark,
            }
            for p, name in zip(points, nearest["nearest"], strict=True)
        ]
    )
    figure = Exhibit(
        "distance",
        title,
        "Each held-out task over its distance to the nearest training task, with 95% t intervals. "
        "Hollow: solved at step 0.",
        plots.distance(points),
        data,
    )
    return Section(
        title,
        [
            *([] if all(math.isnan(p.jumpstart.value) for p in points) else [figure]),
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
