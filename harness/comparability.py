"""The comparability panel of PROTOCOL §6: other papers' aggregates of final scores, to set beside theirs.

Mean, median, interquartile mean, optimality gap, probability of improvement and performance profile as in
Agarwal et al. 2021 (arXiv:2108.13264), with percentile intervals from whole clusters drawn with
replacement. Such intervals cover too little with few seeds: they are for comparison with others, and no
conclusion of the report rests on them.

Scores come as one array ``(n,)`` for every task, one entry per cluster; where every network learned all
tasks, the n-th entries of all tasks belong to one network and are drawn together.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy

from harness import measures
from harness.measures import FoldMeasures
from harness.statistics import CONFIDENCE

RESAMPLES = 2000
"""Draws of an interval."""
TARGET = 1.0
"""Score that the optimality gap is measured to: the reference."""
PROFILE = tuple(round(0.05 * i, 2) for i in range(25))  # 0 ... 1.2
"""Scores at which performance profiles are read."""

Tasks = Sequence[np.ndarray]
"""Scores of every task, ``(..., n_k)``; leading axes are draws."""


def end_scores(folds: Sequence[FoldMeasures]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Final scores of both sides of a comparison, ``(n_k,)`` per fold with runs on both sides.

    Final is the mean of the last three checkpoints, unclipped; a diverged run counts as 0.
    """
    sides = [
        [
            measures.cluster_means(measures.asymptotes(c.scores), c.clusters)
            for c in (fold.curves[i] for fold in folds if fold.complete)
        ]
        for i in (0, 1)
    ]
    return sides[0], sides[1]


# --- aggregates ------------------------------------------------------------------------------------


def mean(tasks: Tasks) -> np.ndarray:
    """Mean over tasks of the mean over clusters."""
    return _task_means(tasks).mean(axis=-1)


def median(tasks: Tasks) -> np.ndarray:
    """Median over tasks of the mean over clusters."""
    return np.median(_task_means(tasks), axis=-1)


def interquartile_mean(tasks: Tasks) -> np.ndarray:
    """Mean of the middle half of all scores, of all tasks together."""
    return scipy.stats.trim_mean(np.concatenate(tasks, axis=-1), 0.25, axis=-1)


def optimality_gap(tasks: Tasks) -> np.ndarray:
    """By how much scores fall short of :data:`TARGET`, mean over tasks and clusters; lower is better."""
    return TARGET - _task_means([np.minimum(x, TARGET) for x in tasks]).mean(axis=-1)


def probability_of_improvement(baseline: Tasks, arm: Tasks) -> np.ndarray:
    """Chance that a run of the arm scores above one of the baseline on the same task, ties half."""
    chances = []
    for x, y in zip(arm, baseline, strict=True):
        # Mann and Whitney's U / (n m)
        both = x[..., :, None] - y[..., None, :]
        chances.append(((both > 0) + 0.5 * (both == 0)).mean(axis=(-2, -1)))
    return np.mean(chances, axis=0)


def performance_profile(tasks: Tasks, levels: Sequence[float] = PROFILE) -> np.ndarray:
    """Share of runs that score above each level, mean over tasks, ``(..., levels)``."""
    at = np.asarray(levels, float)
    return np.mean([(x[..., :, None] > at).mean(axis=-2) for x in tasks], axis=0)


AGGREGATES: Mapping[str, Callable[[Tasks], np.ndarray]] = {
    "mean": mean,
    "median": median,
    "IQM": interquartile_mean,
    "optimality gap": optimality_gap,
}
"""Aggregates of one side, by the name under which they are printed."""


def _task_means(tasks: Tasks) -> np.ndarray:
    return np.stack([x.mean(axis=-1) for x in tasks], axis=-1)


# --- tables with intervals -------------------------------------------------------------------------


def resample(
    tasks: Tasks, rng: np.random.Generator, resamples: int = RESAMPLES, whole_rows: bool = False
) -> list[np.ndarray]:
    """Draws clusters with replacement, within each task, or whole networks with all their tasks.

    Args:
        tasks: ``(n_k,)`` each.
        rng: draws.
        resamples: how many.
        whole_rows: whether the n-th entries of all tasks are one network's.

    Returns:
        ``(resamples, n_k)`` for each task.

    Raises:
        ValueError: for whole rows of unequal length.
    """
    # sorted, so that the draw does not depend on the order of seeds
    if not whole_rows:
        return [np.sort(x)[rng.integers(len(x), size=(resamples, len(x)))] for x in tasks]
    if len({len(x) for x in tasks}) != 1:
        raise ValueError(f"whole rows need equally many runs of every task, got {[len(x) for x in tasks]}")
    rows = np.stack(tasks, axis=-1)
    rows = rows[np.lexsort(rows.T[::-1])]
    drawn = rows[rng.integers(len(rows), size=(resamples, len(rows)))]
    return [drawn[..., k] for k in range(len(tasks))]


def panel(
    sides: Mapping[str, Tasks],
    rng: np.random.Generator,
    whole_rows: Sequence[str] = (),
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """The aggregates of every side, and the probability that each later one improves on the first.

    Args:
        sides: scores by the side's name, the baseline first, the same tasks in the same order.
        rng: draws the resamples.
        whole_rows: names of the sides whose networks each learned all tasks.
        confidence: level of the percentile intervals.

    Returns:
        One row per aggregate and side: ``measure, arm, value, low, high, reason``.

    Raises:
        ValueError: if there is no task, a score is NaN or the sides differ in their number of tasks.
    """
    sides, draws = _prepare(sides, rng, whole_rows)
    names = list(sides)
    rows = []
    for measure, aggregate in AGGREGATES.items():
        for name in names:
            drawn = aggregate(draws[name])
            rows.append(
                [measure, name, float(aggregate(sides[name])), *_ends([sides[name]], drawn, confidence)]
            )
    for name in names[1:]:
        pair = [sides[names[0]], sides[name]]
        drawn = probability_of_improvement(draws[names[0]], draws[name])
        chance = float(probability_of_improvement(*pair))
        rows.append(["probability of improvement", name, chance, *_ends(pair, drawn, confidence)])
    return pd.DataFrame(rows, columns=["measure", "arm", "value", "low", "high", "reason"])


def profiles(
    sides: Mapping[str, Tasks],
    rng: np.random.Generator,
    levels: Sequence[float] = PROFILE,
    whole_rows: Sequence[str] = (),
    confidence: float = CONFIDENCE,
) -> pd.DataFrame:
    """The performance profile of every side with pointwise intervals.

    Args:
        sides: scores by the side's name, see :func:`panel`.
        rng: draws the resamples.
        levels: scores at which to read.
        whole_rows: names of the sides whose networks each learned all tasks.
        confidence: level of the percentile intervals.

    Returns:
        One row per side and level: ``arm, level, share, low, high, reason``.
    """
    sides, draws = _prepare(sides, rng, whole_rows)
    rows = []
    for name, tasks in sides.items():
        drawn = performance_profile(draws[name], levels)
        for i, share in enumerate(performance_profile(tasks, levels)):
            rows.append([name, levels[i], float(share), *_ends([tasks], drawn[:, i], confidence)])
    return pd.DataFrame(rows, columns=["arm", "level", "share", "low", "high", "reason"])


def _prepare(
    sides: Mapping[str, Tasks], rng: np.random.Generator, whole_rows: Sequence[str]
) -> tuple[dict[str, list[np.ndarray]], dict[str, list[np.ndarray]]]:
    clean = {name: [np.asarray(x, float) for x in tasks] for name, tasks in sides.items()}
    counts = {name: len(tasks) for name, tasks in clean.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"every side needs the same tasks, at least one; got {counts}")
    unknown = sorted(set(whole_rows) - set(clean))
    if unknown:
        raise ValueError(f"unknown sides {unknown} in whole_rows; there are {list(clean)}")
    for name, tasks in clean.items():
        if any(not len(x) or np.isnan(x).any() for x in tasks):
            raise ValueError(f"side {name!r} has a task without scores, or a score that is NaN")
    return clean, {name: resample(x, rng, whole_rows=name in whole_rows) for name, x in clean.items()}


def _ends(sides: Sequence[Tasks], drawn: np.ndarray, confidence: float) -> tuple[float, float, str]:
    if min(len(x) for tasks in sides for x in tasks) < 2:
        return np.nan, np.nan, "one seed"
    low, high = np.quantile(drawn, [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high), ""
