"""Section 14: the comparability panel, other papers' aggregates to be set beside theirs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from harness import comparability, plots
from harness.comparability import Tasks
from harness.report import words
from harness.report.analysis import Analysis, rng
from harness.report.page import Cell, Exhibit, Section, paragraph, table
from harness.report.sections_curves import common
from harness.statistics import Estimate

TITLE = "Comparability panel"
IMPROVEMENT = "probability of improvement"


def comparability_panel(analysis: Analysis) -> Section:
    """Section 14 of a plan with folds, of the arms that are planned on all of them."""
    arms, folds = common(analysis)
    sides: dict[str, Tasks] = {}
    for comparison in analysis.against_scratch:
        if comparison.arm in arms and folds:
            chosen = [f.measures for f in comparison.folds if f.measures.fold in folds]
            sides[comparison.baseline], sides[comparison.arm] = comparability.end_scores(chosen)
    return panel(sides, rng("comparability"))


def panel(
    sides: Mapping[str, Tasks], generator: np.random.Generator, whole_rows: Sequence[str] = ()
) -> Section:
    """The panel of some arms.

    Args:
        sides: final scores by arm, the baseline first, the same tasks in the same order; may be empty.
        generator: draws the resamples.
        whole_rows: arms whose networks each learned all tasks.
    """
    if not sides:
        return Section(TITLE, ['<p class="absent">No task has complete runs of all arms.</p>'], 14)
    found = comparability.panel(sides, generator, whole_rows)
    profiles = comparability.profiles(sides, generator, whole_rows=whole_rows)
    names = list(dict.fromkeys(found["measure"]))
    rows = []
    for arm in sides:
        of_arm = found[found["arm"] == arm].set_index("measure")
        rows.append([arm, *(_cell(of_arm.loc[m] if m in of_arm.index else None) for m in names)])
    return Section(
        TITLE,
        [
            _figure(found, profiles, sides),
            table(["arm", *names], rows, "aggregates of final scores"),
            paragraph(
                "Of the mean of the last three checkpoints, with percentile intervals from whole runs "
                "drawn with "
                "replacement (Agarwal et al. 2021). These cover too little with few seeds: they are for "
                "comparison with other papers, and no conclusion here rests on them."
                + " With one arm there is nothing to improve on."
                * (len(sides) == 1)
            ),
        ],
        14,
    )


def _cell(row: pd.Series | None) -> Cell:
    if row is None:
        return Cell("–")
    interval = "" if row["reason"] else f" [{words.number(row['low'])}, {words.number(row['high'])}]"
    return Cell(f"{words.number(row['value'])}{interval}", row["value"])


def _figure(found: pd.DataFrame, profiles: pd.DataFrame, sides: Mapping[str, Tasks]) -> Exhibit:
    baseline, tasks = next(iter(sides)), len(next(iter(sides.values())))
    counts = {arm: sorted({len(scores) for scores in of_arm}) for arm, of_arm in sides.items()}
    n = {arm: " to ".join(map(str, of[:1] + of[1:][-1:])) for arm, of in counts.items()}
    each = ", ".join(f"{count} of {arm}" for arm, count in n.items())

    def dots(measure: str) -> list[plots.Dot]:
        return [
            plots.Dot(row.arm, Estimate(row.value, row.low, row.high, reason=row.reason), row.arm)
            for row in found[found["measure"] == measure].itertuples()
        ]

    aggregates = [
        plots.DotPanel(measure, "score", dots(measure), reference=None)
        for measure in comparability.AGGREGATES
    ]
    improvement, shown = None, " and performance profile"
    if len(sides) > 1:
        shown = ", performance profile and probability of improvement"
        improvement = plots.DotPanel(
            IMPROVEMENT, f"chance to score above {baseline}", dots(IMPROVEMENT), 0.5
        )
    lines = []
    for arm, of_arm in profiles.groupby("arm", sort=False):
        known = not of_arm["reason"].any()
        ends = [of_arm[end].to_numpy() if known else None for end in ("low", "high")]
        lines.append(
            plots.Line(str(arm), of_arm["level"].to_numpy(), of_arm["share"].to_numpy(), ends[0], ends[1])
        )
    data = pd.concat(
        [found, profiles.rename(columns={"share": "value"}).assign(measure="performance profile")],
        ignore_index=True,
    )
    data["n"] = data["arm"].map(n)
    return Exhibit(
        "comparability",
        TITLE,
        f"Aggregates of final scores over {tasks} tasks{shown}, with 95% percentile intervals. n, "
        f"independent runs on each task: {each}.",
        plots.comparability(aggregates, lines, improvement),
        data,
    )
