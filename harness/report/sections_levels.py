"""Section 7: jumpstart, asymptote and areas."""

from __future__ import annotations

import numpy as np

from harness import measures
from harness.report import words
from harness.report.analysis import Analysis, Comparison
from harness.report.page import Cell, Section, heading, table


def levels(analysis: Analysis) -> Section:
    """Section 7: where learning starts and ends, and the areas of others' measures."""
    first = analysis.plan["first_episodes"]
    parts = []
    for comparison in analysis.against_scratch:
        parts += [
            heading(f"{comparison.arm} against {comparison.baseline}")
            if len(analysis.against_scratch) > 1
            else "",
            _table(comparison),
        ]
    return Section(
        "Jumpstart, asymptote and areas",
        [
            *parts,
            f"<p>Jumpstart from {first} episodes per run at step 0; the asymptote is the mean of the last "
            "three checkpoints, unclipped. Forward transfer (A<sub>t</sub> − A<sub>s</sub>) / "
            "(1 − A<sub>s</sub>) and transfer ratio (A<sub>t</sub> − A<sub>s</sub>) / A<sub>s</sub> of the "
            "areas under the curves are for comparison with others, not for conclusions.</p>",
        ],
        7,
    )


def _table(comparison: Comparison) -> str:
    rows = []
    for f in comparison.folds:
        area = f.measures.area
        starts = [float(a.mean()) if len(a) else np.nan for a in f.measures.at_start]
        rows.append(
            [
                f.measures.task,
                *map(words.number_cell, starts),
                words.difference_cell(f.jumpstart),
                *(
                    _end(a, c.count)
                    for a, c in zip(f.measures.at_end, f.measures.curves, strict=True)
                ),
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


def _end(ends: np.ndarray, count: int) -> Cell:
    """Mean over the clusters that did not diverge, with how many those are where some did."""
    if not len(ends):
        return words.number_cell(np.nan)
    mean = float(ends.mean())
    return Cell(words.number(mean) + ("" if len(ends) == count else f" ({len(ends)} of {count})"), mean)
