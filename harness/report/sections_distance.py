"""Section 15: transfer against the distance between tasks."""

from __future__ import annotations

import math

import pandas as pd

from harness import measures, plots
from harness.report import words
from harness.report.analysis import Analysis, Comparison
from harness.report.page import Exhibit, Section, absent, paragraph, table

# --- 15 distance -----------------------------------------------------------------------------------


def distance_points(main: Comparison, nearest: pd.DataFrame) -> list[plots.DistancePoint]:
    """Every held-out task of a comparison over its distance to the nearest training task.

    Args:
        main: the comparison.
        nearest: as :func:`harness.measures.nearest_sources` gives it.
    """
    distances = nearest.set_index("fold")["distance"]
    return [
        plots.DistancePoint(
            f.measures.task,
            float(distances.loc[f.measures.fold]),
            words.ratio_of(f.log_ratio),
            f.jumpstart,
            f.mark,
            f.measures.limit,
        )
        for f in main.folds
    ]


def distance(analysis: Analysis) -> Section:
    """Section 15: speed-up and jumpstart against the distance to the nearest training task."""
    title, plan, main = "Speed-up against distance", analysis.plan, analysis.main
    if not ("leaks" in plan or "descriptors" in plan):
        return Section(title, [absent("The plan holds no distances between tasks.")], 15)
    nearest = measures.nearest_sources(plan, main.arm)
    points = distance_points(main, nearest)
    names = nearest.set_index("fold").loc[[f.measures.fold for f in main.folds], "nearest"]
    rows = [
        [
            f.measures.task,
            words.number_cell(p.distance, 3),
            name,
            words.ratio_cell(f.log_ratio, f.measures.limit),
            words.difference_cell(f.jumpstart),
        ]
        for p, f, name in zip(points, main.folds, names, strict=True)
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
                "limit": p.limit,
                "n": f.n,
                "mark": p.mark,
            }
            for p, f, name in zip(points, main.folds, names, strict=True)
        ]
    )
    figure = Exhibit(
        "distance",
        title,
        "Each held-out task over its distance to the nearest training task, with 95% t intervals. "
        "Hollow: solved at step 0; an arrow: limited by the first checkpoint. "
        f"n = {main.n} independent runs of {main.baseline} + {main.arm} on each task.",
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
