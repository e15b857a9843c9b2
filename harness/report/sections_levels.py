"""Section 7: jumpstart, asymptote and areas."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from harness import measures, plots, statistics
from harness.report import words
from harness.report.analysis import Analysis, Comparison, FoldResult
from harness.report.page import Exhibit, Section, details, table
from harness.statistics import Estimate


def levels(analysis: Analysis) -> Section:
    """Section 7: where learning starts and ends, and the areas of others' measures."""
    first = analysis.plan["first_episodes"]
    parts: list[str | Exhibit] = _figure(analysis)
    for comparison in analysis.against_scratch:
        of_arm = _table(comparison)
        folded = details(f"{comparison.arm} against {comparison.baseline}", of_arm)
        parts.append(of_arm if comparison is analysis.main else folded)
    return Section(
        "Jumpstart, asymptote and areas",
        [
            *parts,
            f"<p>Jumpstart from {first} episodes per run at step 0; the asymptote is the mean of the last "
            "three checkpoints, unclipped, a diverged run counting as 0. Forward transfer "
            "(A<sub>t</sub> − A<sub>s</sub>) / "
            "(1 − A<sub>s</sub>) and transfer ratio (A<sub>t</sub> − A<sub>s</sub>) / A<sub>s</sub> of the "
            "areas under the curves are for comparison with others, not for conclusions.</p>",
        ],
        7,
    )


def area_difference(analysis: Analysis, comparison: Comparison, result: FoldResult) -> Estimate:
    """A_arm - A_baseline of one fold, with Welch's t interval."""
    budget = analysis.plan["budget"]
    areas = [
        measures.cluster_means(measures.areas(c.steps, c.scores, budget), c.clusters)
        for c in result.measures.curves
    ]
    return statistics.difference(areas[0], areas[1], names=(comparison.baseline, comparison.arm))


def _figure(analysis: Analysis) -> list[str | Exhibit]:
    found: dict[str, list[plots.Dot]] = {"jumpstart": [], "asymptote difference": [], "area difference": []}
    counts: dict[tuple[str, str], str] = {}
    for comparison in analysis.against_scratch:
        estimates = {
            "jumpstart": [f.jumpstart for f in comparison.folds],
            "asymptote difference": [f.asymptote for f in comparison.folds],
            "area difference": [area_difference(analysis, comparison, f) for f in comparison.folds],
        }
        for measure, of_folds in estimates.items():
            found[measure] += [
                plots.Dot(f.measures.task, e, comparison.arm)
                for f, e in zip(comparison.folds, of_folds, strict=True)
            ]
            counts |= {(f.measures.task, comparison.arm): f.n for f in comparison.folds}
            # the mean is over the same tasks in every arm
            if len(of_folds) > 1 and len(of_folds) == len(analysis.plan["folds"]):
                mean = statistics.suite_mean(of_folds)
                found[measure].append(plots.Dot("mean of tasks", mean, comparison.arm, suite=True))
                counts["mean of tasks", comparison.arm] = f"{len(of_folds)} tasks"
    # rows of single tasks first, whichever arm brings them
    dots = {measure: sorted(given, key=lambda d: d.suite) for measure, given in found.items()}
    if all(math.isnan(d.estimate.value) for given in dots.values() for d in given):
        return []
    panels = [plots.DotPanel(measure, "score", given) for measure, given in dots.items()]
    data = pd.DataFrame(
        [
            {
                "task": d.label,
                "arm": d.arm,
                "measure": measure,
                "difference": d.estimate.value,
                "low": d.estimate.low,
                "high": d.estimate.high,
                "no_interval": d.estimate.reason,
                "n": counts[d.label, d.arm],
            }
            for measure, given in dots.items()
            for d in given
        ]
    )
    return [
        Exhibit(
            "levels",
            "Jumpstart, asymptote and areas",
            "Differences to scratch with 95% t intervals: of the scores at step 0, of the means of the "
            "last three checkpoints, and of the areas under the curves clipped to [0, 1]. "
            f"{analysis.n}.",
            plots.levels(panels),
            data,
        )
    ]


def _table(comparison: Comparison) -> str:
    rows = []
    for f in comparison.folds:
        area = f.measures.area
        starts, ends = (
            [float(a.mean()) if len(a) else np.nan for a in of_arms]
            for of_arms in (f.measures.at_start, f.measures.at_end)
        )
        rows.append(
            [
                f.measures.task,
                *map(words.number_cell, starts),
                words.difference_cell(f.jumpstart),
                *map(words.number_cell, ends),
                words.difference_cell(f.asymptote),
                *map(words.number_cell, area),
                words.number_cell(measures.forward_transfer(*area)),
                words.number_cell(measures.transfer_ratio(*area)),
            ]
        )
    both = (comparison.baseline, comparison.arm)
    return table(
        ["held-out task", *(f"g {arm}(0)" for arm in both), "jumpstart [95%]",
         *(f"g {arm}(end)" for arm in both), "asymptote difference [95%]",
         *(f"A {arm}" for arm in both), "forward transfer", "transfer ratio"],
        rows,
        f"jumpstart, asymptote and areas of {comparison.arm}",
    )  # fmt: skip
