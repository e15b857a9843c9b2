"""Which tasks to train on: source selection on a stored source-by-target matrix of transfer.

Whoever can afford n sources picks them one after another, and sees how one transfers only after training
on it. The question of PROTOCOL's leave-one-out decides what a choice is worth: for every target in turn
the sources are chosen as if it did not exist, and then the best of them is looked up for it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import stats
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel

METHODS = {
    "model": "Gaussian process: greatest expected improvement",
    "spread": "spread out: farthest from those chosen",
    "random": "at random",
    "oracle": "best source of each target, known afterwards",
}
"""Ways of choosing, with their names for readers; the oracle bounds all others."""


def select_sources(
    matrix: pd.DataFrame,
    descriptors: Mapping[str, Sequence[float]],
    most: int | None = None,
    value: str = "log_ratio",
    draws: int = 1000,
    seed: int = 0,
) -> pd.DataFrame:
    """How well the methods of :data:`METHODS` choose n sources, for every n.

    Args:
        matrix: columns ``source``, ``target`` and ``value``, one row per ordered pair of different tasks;
            rows of a task with itself are ignored.
        descriptors: standardised descriptor ``(dimensions,)`` of every task.
        most: largest n; all tasks but the target if left out.
        value: column of what a source does for a target: log ρ̄ or a score, greater is better, 0 is none.
        draws: orders drawn for ``random``.
        seed: of those draws.

    Returns:
        Columns ``method, n, value, low, high``: mean over the targets of the greatest value among the
        chosen sources; 2.5% and 97.5% quantiles of it over the draws, equal to it where nothing is drawn.

    Raises:
        ValueError: for fewer than three tasks, a pair that is missing, not finite or there twice, a task
            without descriptor, descriptors of unequal length, or numbers out of range.
    """
    tasks, values, points = _checked(matrix, descriptors, value)
    most = len(tasks) - 1 if most is None else most
    if not 1 <= most < len(tasks):
        raise ValueError(f"most must be 1 to {len(tasks) - 1} for {len(tasks)} tasks, got {most}")
    if draws < 1:
        raise ValueError(f"draws must be positive, got {draws}")
    targets = range(len(tasks))
    rng = np.random.default_rng(seed)
    orders = {
        "model": [[_model_order(values, points, t, most) for t in targets]],
        "spread": [[_spread_order(points, t, most) for t in targets]],
        # a draw is one order of all tasks, from which each target's sources are the first others
        "random": [
            [[s for s in order if s != t][:most] for t in targets]
            for order in (rng.permutation(len(tasks)).tolist() for _ in range(draws))
        ],
        "oracle": [[[int(np.nanargmax(values[:, t]))] * most for t in targets]],
    }
    rows = []
    for method, drawn in orders.items():
        # the best of the first n for every draw, target and n, then the mean over targets
        chosen = np.array(drawn)
        best = np.maximum.accumulate(values[chosen, np.arange(len(tasks))[None, :, None]], axis=2)
        means = best.mean(axis=1)
        for n in range(1, most + 1):
            of_n = means[:, n - 1]
            low, high = np.quantile(of_n, [0.025, 0.975])
            rows.append({"method": method, "n": n, "value": of_n.mean(), "low": low, "high": high})
    return pd.DataFrame(rows)


def choose(
    matrix: pd.DataFrame,
    descriptors: Mapping[str, Sequence[float]],
    held_out: str,
    n: int,
    value: str = "log_ratio",
) -> list[str]:
    """The n sources that the model chooses when ``held_out`` is the task to come, in their order.

    Args:
        matrix: as in :func:`select_sources`; only rows of chosen sources are read, and of those no value
            for ``held_out``.
        descriptors: as there.
        held_out: name of the task that is neither a source nor looked at.
        n: number of sources.
        value: column of the values.

    Raises:
        ValueError: as :func:`select_sources`, or for an unknown task.
    """
    tasks, values, points = _checked(matrix, descriptors, value)
    if held_out not in tasks:
        raise ValueError(f"unknown task {held_out!r}; valid: {', '.join(tasks)}")
    if not 1 <= n < len(tasks):
        raise ValueError(f"n must be 1 to {len(tasks) - 1} for {len(tasks)} tasks, got {n}")
    return [tasks[s] for s in _model_order(values, points, tasks.index(held_out), n)]


# --- the model ---------------------------------------------------------------------------------------


def _model_order(values: np.ndarray, points: np.ndarray, held_out: int, most: int) -> list[int]:
    """Greedy choice by the expected improvement of the best transfer, averaged over the known targets.

    The idea of model-based transfer learning (Cho et al. 2024, arXiv:2408.04498): what a source is worth
    varies smoothly over contexts and falls with the distance to the target. There the fall is linear and
    its slope known; here one Gaussian process over source and distance learns both. The known targets
    stand for the one to come; so that the neighbourhood of a source counts too, a source's own task is a
    target at distance 0, whose value is only ever predicted.
    """
    known = [k for k in range(len(points)) if k != held_out]
    distances = _distances(points)
    # nothing is observed yet, and however fast transfer falls with distance, the most central loses least
    chosen = [_central(distances, known)]
    while len(chosen) < most:
        candidates = [s for s in known if s not in chosen]
        observed = [(s, t) for s in chosen for t in known if t != s]
        pairs = [(s, t) for s in candidates for t in known]
        mean, deviation = _predict(values, points, distances, observed, pairs + [(s, s) for s in chosen])
        best = np.fmax.reduce(values[chosen], axis=0)
        best[chosen] = np.fmax(best[chosen], mean[len(pairs) :])
        deviation = deviation[: len(pairs)]
        gain = mean[: len(pairs)] - best[[t for _, t in pairs]]
        # E max(f - b, 0) of a normal f = (m - b) Φ(z) + σ φ(z) with z = (m - b) / σ
        z = gain / deviation
        improvement = gain * stats.norm.cdf(z) + deviation * stats.norm.pdf(z)
        # every candidate has equally many targets, so that sums rank as means do
        total = improvement.reshape(len(candidates), len(known)).sum(axis=1)
        chosen.append(candidates[int(total.argmax())])
    return chosen


def _predict(
    values: np.ndarray,
    points: np.ndarray,
    distances: np.ndarray,
    observed: Sequence[tuple[int, int]],
    pairs: Sequence[tuple[int, int]],
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation, ``(pairs,)`` each, of what ``pairs`` would be measured at."""

    def features(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
        source, target = np.array(pairs).T
        return np.column_stack([points[source], distances[source, target]])

    source, target = np.array(observed).T
    kernel = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(1.0, (0.2, 20.0)) + WhiteKernel(0.1, (1e-4, 1e1))
    process = GaussianProcessRegressor(kernel, normalize_y=True)
    with warnings.catch_warnings():
        # with few observations a hyperparameter ends at its bound, where it is still good to predict with
        warnings.simplefilter("ignore", ConvergenceWarning)
        process.fit(features(observed), values[source, target])
    mean, deviation = process.predict(features(pairs), return_std=True)
    return mean, deviation


def _spread_order(points: np.ndarray, held_out: int, most: int) -> list[int]:
    """From the most central task on always the one farthest from those chosen (Gonzalez 1985)."""
    known = [k for k in range(len(points)) if k != held_out]
    distances = _distances(points)
    chosen = [_central(distances, known)]
    while len(chosen) < most:
        rest = [s for s in known if s not in chosen]
        chosen.append(max(rest, key=lambda s: (distances[s, chosen].min(), -s)))
    return chosen


def _central(distances: np.ndarray, known: Sequence[int]) -> int:
    """The task nearest to all others, the first of equals."""
    return known[int(distances[np.ix_(known, known)].sum(axis=1).argmin())]


def _distances(points: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - points[None, :], axis=-1)


def _checked(
    matrix: pd.DataFrame, descriptors: Mapping[str, Sequence[float]], value: str
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Names of the tasks, values ``(source, target)`` with a diagonal of NaN, and scaled descriptors."""
    columns = {"source", "target", value}
    if absent := columns - set(matrix):
        raise ValueError(f"the matrix has no column {', '.join(sorted(absent))}; it has {list(matrix)}")
    pairs = matrix[matrix["source"] != matrix["target"]]
    tasks = sorted({*pairs["source"], *pairs["target"]})
    if len(tasks) < 3:
        raise ValueError(f"a choice of sources needs at least 3 tasks, got {tasks}")
    if twice := pairs[pairs.duplicated(["source", "target"])][["source", "target"]].values.tolist():
        raise ValueError(f"the matrix has more than one row for {_arrows(twice)}; average them first")
    table = pairs.pivot(index="source", columns="target", values=value).reindex(index=tasks, columns=tasks)
    values = table.to_numpy(float, copy=True)
    np.fill_diagonal(values, 0.0)
    if not np.isfinite(values).all():
        bad = [(tasks[s], tasks[t]) for s, t in np.argwhere(~np.isfinite(values))]
        raise ValueError(
            f"the matrix has no finite {value} for {_arrows(bad)}; a pair of which neither arm arrives "
            "anywhere is worth 0, one that is not trained yet cannot be left out"
        )
    np.fill_diagonal(values, np.nan)
    if absent := set(tasks) - set(descriptors):
        raise ValueError(f"no descriptor of {', '.join(sorted(absent))}; there are {sorted(descriptors)}")
    lengths = {task: len(descriptors[task]) for task in tasks}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"descriptors must be equally long, got {lengths}")
    points = np.array([descriptors[task] for task in tasks], float)
    distances = _distances(points)[np.triu_indices(len(tasks), 1)]
    # the median distance is the unit of the kernel's length
    return tasks, values, points / (np.median(distances) or 1.0)


def _arrows(pairs: Sequence[Sequence[str]]) -> str:
    return ", ".join(f"{source} -> {target}" for source, target in pairs)
