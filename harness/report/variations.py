"""The headline under other ways of measuring it: one thing changed at a time (PROTOCOL §8, section 12)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from harness import measures, statistics
from harness.measures import ArmCurves
from harness.report.analysis import SETS, Analysis, FoldResult, rng
from harness.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Variation:
    """The mean speed-up with one thing changed."""

    label: str
    """What is changed."""
    log_ratio: Estimate
    """Mean of L_k with its t interval."""
    estimable: int
    """Over how many folds."""
    limit: str
    """How the first checkpoint limits it, see :func:`harness.measures.resolution_limit`."""


def variations(analysis: Analysis) -> list[Variation]:
    """The headline as planned, over the other set of folds, and with one thing changed at a time."""
    table = measures.sensitivity([f.measures for f in analysis.folds])
    chosen = analysis.plan["headline"]
    found = [
        Variation(
            row.setting if row.set == chosen else SETS[row.set],
            Estimate(row.log_ratio, row.low, row.high, p=row.p, reason=row.reason),
            row.tasks,
            row.limit,
        )
        for row in table.itertuples()
        if row.set == chosen or row.setting == "as planned"
    ]
    halved = half_the_episodes(analysis)
    return [*found, *([] if halved is None else [halved])]


@dataclasses.dataclass(frozen=True)
class Resolution:
    """What the gaps between checkpoints leave open of a mean speed-up, which no interval contains."""

    planned: float
    """The mean ρ̄ with arrivals dated as planned."""
    other: float
    """The same with the other reading, see :data:`harness.measures.READINGS`."""
    low: float
    """What it is at least, wherever in its gap each run arrived."""
    high: float
    """What it is at most; may be infinite."""

    @property
    def shift(self) -> float:
        """By which factor, at least 1, the other reading changes the mean."""
        return math.exp(abs(math.log(self.other / self.planned)))


def resolution(folds: Sequence[FoldResult]) -> Resolution | None:
    """What the checkpoints leave open of the mean over some folds; None where none is estimable."""
    known = [f.measures for f in folds if not math.isnan(f.log_ratio.value)]
    if not known:
        return None
    other = [
        measures.fold_measures(
            f.fold, f.task, *f.curves, f.thresholds, f.budget, interpolate=not f.interpolated
        ).speed_up
        for f in known
    ]
    low, high = zip(*(measures.speed_up_bounds(f) for f in known), strict=True)
    with np.errstate(divide="ignore"):  # a lower end may be 0
        logs = [np.log(values).mean() for values in ([f.speed_up for f in known], other, low, high)]
    return Resolution(*(math.exp(value) for value in logs))


def half_the_episodes(analysis: Analysis) -> Variation | None:
    """The headline as half as many evaluation episodes might have given it; None without their spread.

    The mean of M episodes has variance s²/M, that of M/2 twice as much: noise of variance s²/M is added.
    """
    plan, main = analysis.plan, analysis.main
    scores, table = plan["reference"]["scores"], analysis.evaluations
    width = (
        table["task"].map({name: s["reference"] - s["random"] for name, s in scores.items()}).astype(float)
    )
    noise = table["return_std"] / np.sqrt(table["episodes"]) / width
    if noise.isna().all():
        return None
    spread = table.assign(score=noise.fillna(0.0))

    def noisy(fold: int, arm: str) -> ArmCurves:
        given = analysis.curves[fold, arm]
        sd = measures.arm_curves(spread, analysis.runs, plan, fold, arm, analysis.damaged).scores
        draws = rng("half the episodes", fold, arm).standard_normal(sd.shape)
        return dataclasses.replace(given, scores=given.scores + np.nan_to_num(sd) * draws)

    changed = []
    for result in analysis.headline.folds:
        f = result.measures
        arms = (noisy(f.fold, main.baseline), noisy(f.fold, main.arm))
        changed.append(
            measures.fold_measures(f.fold, f.task, *arms, f.thresholds, f.budget, f.interpolated)
        )
    estimates = [fold.log_ratio() for fold in changed]
    return Variation(
        "half the evaluation episodes",
        statistics.suite_mean(estimates),
        sum(not math.isnan(e.value) for e in estimates),
        measures.join_limits(fold.limit for fold in changed),
    )
