"""The headline under other ways of measuring it: one thing changed at a time (PROTOCOL §8, section 12)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness import measures, statistics
from harness.measures import ArmCurves
from harness.report.analysis import Analysis, rng
from harness.statistics import Estimate

MIDDLE = 0.45
"""θ between the lower and the upper half of the grid of 0.10 to 0.80."""


@dataclasses.dataclass(frozen=True)
class Variation:
    """The mean speed-up with one thing changed."""

    label: str
    """What is changed."""
    log_ratio: Estimate
    """Mean of L_k with its t interval."""
    estimable: int
    """Over how many folds."""
    folds: int
    """Of how many."""


def variations(analysis: Analysis) -> list[Variation]:
    """The headline as planned, and with one thing changed at a time."""
    plan, grid = analysis.plan, analysis.thresholds
    main, chosen = analysis.main, [f.measures.fold for f in analysis.headline.folds]
    everything = [f.measures.fold for f in main.folds]
    curves = {(f, a): analysis.curves[f, a] for f in everything for a in (main.baseline, main.arm)}
    noisy = halved_episodes(analysis, curves)

    def vary(
        label: str,
        folds: Sequence[int] = chosen,
        thresholds: np.ndarray = grid,
        budget: float = plan["budget"],
        given: Mapping[tuple[int, str], ArmCurves] = curves,
    ) -> Variation:
        ratios = []
        for fold in folds:
            arms = [given[fold, arm] for arm in (main.baseline, main.arm)]
            fold_measures = measures.fold_measures(
                fold, analysis.name(fold), *arms, [float(t) for t in thresholds], budget
            )
            ratios.append(
                statistics.log_ratio(*fold_measures.mean_times, names=(main.baseline, main.arm))
            )
        known = sum(not math.isnan(e.value) for e in ratios)
        return Variation(label, statistics.suite_mean(ratios), known, len(folds))

    not_solved = [f.measures.fold for f in analysis.sets["not_yet_solved"].folds]
    low, high = grid[grid <= MIDDLE], grid[grid > MIDDLE]
    half = plan["budget"] / 2
    found = [
        vary("as planned (headline)"),
        vary("all folds", everything),
        vary("folds not yet solved at step 0", not_solved),
    ]
    found += [
        vary(f"θ {part[0]:.2f} to {part[-1]:.2f}", thresholds=part) for part in (low, high) if len(part)
    ]
    found += [
        vary(f"θ {grid[i]:.2f} alone", thresholds=grid[i : i + 1]) for i in analysis.shown
    ]
    if half > plan["checkpoints"][1]:
        found.append(vary("half the budget", budget=half))
    if noisy is not None:
        found.append(vary("half the evaluation episodes", given=noisy))
    return found


def halved_episodes(
    analysis: Analysis, curves: Mapping[tuple[int, str], ArmCurves]
) -> dict[tuple[int, str], ArmCurves] | None:
    """The curves as half as many evaluation episodes would have given them, or None without their spread.

    The mean of M episodes has variance s²/M, that of M/2 twice as much: noise of variance s²/M is added.
    """
    plan = analysis.plan
    scores = plan["reference"]["scores"]
    table = analysis.evaluations
    width = table["task"].map({name: s["reference"] - s["random"] for name, s in scores.items()})
    noise = table["return_std"] / np.sqrt(table["episodes"]) / width
    if noise.isna().all():
        return None
    spread = table.assign(score=noise.fillna(0.0))
    found = {}
    for (fold, arm), given in curves.items():
        sd = measures.arm_curves(spread, analysis.runs, plan, fold, arm, analysis.damaged).scores
        draws = rng("half the episodes", fold, arm).standard_normal(sd.shape)
        found[fold, arm] = dataclasses.replace(given, scores=given.scores + np.nan_to_num(sd) * draws)
    return found
