"""Sections 8 and 12: told or not, sensitivity and controls."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from harness import measures, plots, statistics
from harness.report import words
from harness.report.agent import departures
from harness.report.analysis import TREATMENT, Analysis, Comparison
from harness.report.page import Exhibit, Section, absent, details, heading, paragraph, table
from harness.report.variations import Variation, variations
from harness.statistics import Estimate

READ_OTHERWISE = {
    False: "Interpolated, an arrival is dated to where the score crosses θ on the line between the "
    "checkpoint before and its own.",
    True: "Dated to the checkpoint that shows it, an arrival is late by up to the gap before it, which "
    "mostly draws speed-ups towards 1.",
}
"""What the other reading of arrivals is, by whether the plan's is interpolated."""


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
    if "new_code=mean" in departures(analysis.plan):
        parts.append(
            paragraph(
                "While it learns the held-out task, transfer is told the mean of its sources' codes "
                "(new_code=mean): what telling it the task's own code would be worth is not seen here."
            )
        )
    scores = codes(analysis)
    return Section("Told or not", [*_told_figure(analysis, scores), *parts, *_codes(scores)], 8)


def _told_figure(analysis: Analysis, scores: pd.DataFrame) -> list[str | Exhibit]:
    arms = [c for c in analysis.against_scratch if c.arm in (TREATMENT, "blind")]
    speed_ups = [
        plots.Dot(f.measures.task, words.ratio_of(f.log_ratio), c.arm, limit=f.measures.limit)
        for c in arms
        for f in c.folds
        if len(arms) == 2
    ]
    scores = scores[scores["arm"] == TREATMENT]
    counts = {(f.measures.task, c.arm): f.n for c in arms for f in c.folds}
    told = scores.groupby(["task", "code"])["score"].size()
    counts |= {key: str(n) for key, n in told.items()}
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
    pretrainings = sorted({int(n) for n in told}) or [0]
    several = " to ".join(map(str, pretrainings[:1] + pretrainings[1:][-1:]))
    said = {
        "speed-up over scratch": "Speed-up with the task's code and without; an arrow: limited by the "
        f"first checkpoint; n = {analysis.main.n} independent runs of scratch + arm on each task.",
        "score at hand-over": "Score of the pretrained network on the held-out task by the code that it is "
        f"told; n = {several} pretrainings of each task.",
    }
    data = pd.DataFrame(
        [
            {
                "task": d.label,
                "panel": panel.title,
                "arm": d.arm,
                "value": d.estimate.value,
                "low": d.estimate.low,
                "high": d.estimate.high,
                "limit": d.limit,
                "no_interval": d.estimate.reason,
                "n": counts[d.label, d.arm],
            }
            for panel in drawn
            for d in panel.dots
        ]
    )
    return [
        Exhibit(
            "told_or_not",
            "Told or not",
            " ".join([*(said[panel.title] for panel in drawn), "95% t intervals."]),
            plots.told_or_not(drawn[0], drawn[1]) if len(drawn) == 2 else plots.levels(drawn),
            data,
        )
    ]


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
            words.p_cell(row.p_holm),
        ]
        for row in gaps.itertuples()
    ]
    return [
        heading("True, mean and wrong code at hand-over"),
        table(
            ["held-out task", "arm", "other code", "pretrainings", "g, true code", "g, other code",
             "true − other [95%]", "p"],
            rows,
            "scores by the code told",
        ),
        paragraph(
            "Score of the pretrained networks on the held-out task, before any training on it, told the "
            "task's own code, the mean of the source tasks' codes, or the code of the farthest source. "
            "Differences are within networks, with t intervals; p is of the t test, that of a task "
            "adjusted for all tasks and codes of its arm (Holm)."
        ),
    ]  # fmt: skip


def codes(analysis: Analysis) -> pd.DataFrame:
    """Scores at hand-over by the code told, of the arms that were told several."""
    scores = measures.code_scores(analysis.evaluations, analysis.runs, analysis.plan)
    several = scores.groupby("arm")["code"].transform("nunique") > 1
    return scores[several | (scores["arm"] == TREATMENT)]


# --- 12 sensitivity --------------------------------------------------------------------------------


def sensitivity(analysis: Analysis) -> Section:
    """Section 12: the headline under other ways of measuring it, and the other arms."""
    found = variations(analysis)
    rows = [
        [
            v.label,
            words.count_cell(v.estimable),
            words.ratio_cell(v.log_ratio, v.limit),
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
            f"also doubles the span that an arrival must hold. {READ_OTHERWISE[analysis.interpolated]} "
            "Half the evaluation episodes: noise is "
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
            v.label, words.ratio_of(v.log_ratio), (v.estimable,), words.short_ratio(v.log_ratio, v.limit),
            arm=main.arm, limit=v.limit,
        )
        for v in found
    ]  # fmt: skip
    for comparison in analysis.comparisons.values():
        suite = comparison.sets["all_folds"]
        if comparison is not main:
            rows.append(
                plots.ForestRow(
                    f"{comparison.arm} over {comparison.baseline}",
                    words.ratio_of(suite.log_ratio),
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
                "limit": row.limit,
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
            plots.sensitivity(rows, words.ratio_of(analysis.headline.log_ratio), note="n: tasks"),
            data,
        )
    ]
