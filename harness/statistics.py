"""Intervals, tests and bands of PROTOCOL §6, each a function of cluster means.

A cluster is one pretraining with its fine-tunings averaged, or one run from scratch; whatever is said to
be ``(n,)`` here has one entry per cluster. Where no interval can be given, the result says why.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
RESAMPLES = 9999
"""Random permutations of a test; where there are fewer distinct ones, all are used and p is exact."""


@dataclasses.dataclass(frozen=True)
class Estimate:
    """A number with its interval, or with the reason why it has none."""

    value: float
    """The estimate; NaN where there is none."""
    low: float = math.nan
    """Lower end of the interval."""
    high: float = math.nan
    """Upper end of the interval."""
    variance: float = math.nan
    """Estimated variance of ``value``."""
    df: float = math.nan
    """Degrees of freedom of the t interval."""
    p: float = math.nan
    """Two-sided p of the t test against 0 (a ratio of 1)."""
    parts: tuple[tuple[float, float], ...] = ()
    """``(variance, df)`` of the independent terms that ``variance`` sums, for sums of estimates."""
    reason: str = ""
    """Why there is no interval; empty if there is one."""

    def exp(self) -> Estimate:
        """The estimate and its ends as ratios; variance, df and p stay those of the logarithm."""
        return dataclasses.replace(
            self, value=math.exp(self.value), low=math.exp(self.low), high=math.exp(self.high)
        )


# --- t intervals -----------------------------------------------------------------------------------


def t_interval(
    value: float, parts: Sequence[tuple[float, float]], confidence: float = CONFIDENCE, reason: str = ""
) -> Estimate:
    """Estimate whose variance is a sum of independent estimated variances.

    Args:
        value: the estimate.
        parts: variance and degrees of freedom of each term; terms of variance 0 add nothing.
        confidence: level of the interval.
        reason: why no interval shall be given, if so.
    """
    variance = sum(v for v, _ in parts)
    if not reason and not variance > 0:
        reason = "zero variance"
    if reason:
        return Estimate(value, variance=variance, parts=tuple(parts), reason=reason)
    # Welch-Satterthwaite: df = (sum v)^2 / sum(v^2 / df)
    df = variance**2 / sum(v**2 / d for v, d in parts if v > 0)
    half = float(stats.t.ppf(0.5 + confidence / 2, df)) * math.sqrt(variance)
    p = float(2 * stats.t.sf(abs(value) / math.sqrt(variance), df))
    return Estimate(value, value - half, value + half, variance, df, p, tuple(parts))


def log_ratio(scratch: np.ndarray, transfer: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """L = log(mean(scratch) / mean(transfer)) with its Welch-Satterthwaite t interval.

    Args:
        scratch: positive times, ``(n,)``.
        transfer: positive times, ``(m,)``.
        confidence: level of the interval.

    Returns:
        The estimate on the log scale; :meth:`Estimate.exp` gives the speed-up.
    """
    arms = [np.asarray(scratch, float), np.asarray(transfer, float)]
    reason = _too_few(arms)
    if reason.startswith("no run") or any(np.isnan(a).any() for a in arms):
        return Estimate(math.nan, reason=reason or "not estimable: no run reaches any threshold")
    value = math.log(arms[0].mean() / arms[1].mean())
    # delta method: var(log mean) = s^2 / (n mean^2)
    parts = [(_variance(a) / (len(a) * a.mean() ** 2), len(a) - 1.0) for a in arms if len(a) > 1]
    return t_interval(value, parts, confidence, reason or _constant(arms))


def difference(scratch: np.ndarray, transfer: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """mean(transfer) - mean(scratch) with Welch's t interval; ``(n,)`` and ``(m,)``, any sign."""
    arms = [np.asarray(scratch, float), np.asarray(transfer, float)]
    reason = _too_few(arms)
    if reason.startswith("no run"):
        return Estimate(math.nan, reason=reason)
    parts = [(_variance(a) / len(a), len(a) - 1.0) for a in arms if len(a) > 1]
    return t_interval(float(arms[1].mean() - arms[0].mean()), parts, confidence, reason or _constant(arms))


def suite_mean(estimates: Sequence[Estimate], confidence: float = CONFIDENCE) -> Estimate:
    """Mean of independent estimates, for "these tasks": variances summed, Satterthwaite df.

    Args:
        estimates: one per task, for example of :func:`log_ratio`; those without a value are left out.
        confidence: level of the interval.
    """
    chosen = [e for e in estimates if not math.isnan(e.value)]
    if not chosen:
        return Estimate(math.nan, reason="no task is estimable" if estimates else "no task in this set")
    k = len(chosen)
    few = [e.reason for e in chosen if e.reason.startswith("one seed")]
    # var(mean L_k) = sum v_k / K^2
    parts = [(v / k**2, d) for e in chosen for v, d in e.parts]
    return t_interval(sum(e.value for e in chosen) / k, parts, confidence, few[0] if few else "")


def _too_few(arms: Sequence[np.ndarray]) -> str:
    for name, arm in zip(("scratch", "transfer"), arms, strict=True):
        if len(arm) == 0:
            return f"no run of {name} is complete"
    for name, arm in zip(("scratch", "transfer"), arms, strict=True):
        if len(arm) == 1:
            return f"one seed in {name}"
    return ""


def _variance(values: np.ndarray) -> float:
    # equal values have variance 0, which rounding in the mean would hide
    return 0.0 if np.ptp(values) == 0 else float(values.var(ddof=1))


def _constant(arms: Sequence[np.ndarray]) -> str:
    return "zero variance in both arms" if all(np.ptp(a) == 0 for a in arms) else ""


# --- p-values --------------------------------------------------------------------------------------


def permutation_p(scratch: np.ndarray, transfer: np.ndarray, rng: np.random.Generator) -> float:
    """Two-sided p of the studentised permutation test of equal means.

    Args:
        scratch: ``(n,)``.
        transfer: ``(m,)``.
        rng: draws the permutations where there are more than :data:`RESAMPLES`.

    Returns:
        p; 1 if all values are equal, NaN with fewer than two values in an arm.
    """
    # sorted, so that the draw does not depend on the order of seeds
    arms = [np.sort(np.asarray(a, float)) for a in (scratch, transfer)]
    if min(map(len, arms)) < 2 or any(np.isnan(a).any() for a in arms):
        return math.nan
    if np.ptp(np.concatenate(arms)) == 0:
        return 1.0
    if _constant(arms):
        # t = ±inf is reached by this arrangement and its mirror image only; scipy would say p = 0
        return min(1.0, 2 / math.comb(len(arms[0]) + len(arms[1]), len(arms[0])))
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        result = stats.ttest_ind(
            arms[1],
            arms[0],
            equal_var=False,
            method=stats.PermutationMethod(n_resamples=RESAMPLES, rng=rng),
        )
    return float(result.pvalue)


def suite_permutation_p(
    tasks: Sequence[tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> float:
    """Two-sided p of the mean log ratio over tasks, the labels of the arms permuted within each task.

    Args:
        tasks: times of both arms, ``(n_k,)`` and ``(m_k,)``, of each task.
        rng: draws the permutations.
        resamples: how many.

    Returns:
        p of the studentised statistic mean(L_k) / se; NaN with no task or fewer than two values in an arm.
    """
    if not tasks or min(min(len(s), len(t)) for s, t in tasks) < 2:
        return math.nan
    logs, variances = np.zeros(resamples + 1), np.zeros(resamples + 1)
    for scratch, transfer in tasks:
        pooled = np.concatenate([np.sort(scratch), np.sort(transfer)]).astype(float)
        draws = rng.permuted(np.tile(pooled, (resamples, 1)), axis=1)
        # the first row is what was observed
        both = np.vstack([pooled, draws])
        for sign, arm in ((1.0, both[:, : len(scratch)]), (-1.0, both[:, len(scratch) :])):
            mean = arm.mean(axis=1)
            logs += sign * np.log(mean)
            spread = np.where(np.ptp(arm, axis=1) == 0, 0.0, arm.var(axis=1, ddof=1))
            variances += spread / (arm.shape[1] * mean**2)
    # equal logarithms may differ by rounding, and 0 / 0 is no evidence
    logs = np.where(np.abs(logs) < 1e-12, 0.0, np.abs(logs))
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(logs / np.sqrt(variances), nan=0.0, posinf=np.inf)
    return float(np.mean(t >= t[0] * (1 - 1e-12)))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjusted p-values (Holm 1979, Scand. J. Stat. 6); NaN stays and is not counted."""
    known = sorted((p, i) for i, p in enumerate(p_values) if not math.isnan(p))
    adjusted = [math.nan] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(known):
        # p_(j) (m - j + 1), made monotone
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        adjusted[i] = largest
    return adjusted


def wilson(share: float, n: int, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Wilson's score interval of a share (Wilson 1927, JASA 22); ``(nan, nan)`` with n = 0.

    Args:
        share: observed share; with several runs to a cluster the mean of the clusters' shares, for which
            the interval is conservative.
        n: number of clusters.
        confidence: level of the interval.
    """
    if n == 0 or math.isnan(share):
        return math.nan, math.nan
    z2 = float(stats.norm.ppf(0.5 + confidence / 2)) ** 2
    # (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    centre = share + z2 / (2 * n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    # the ends are exact at 0 and 1, where rounding would leave 1e-17
    return (0.0 if share == 0 else max(low, 0.0)), (1.0 if share == 1 else min(high, 1.0))


# --- bands of mean curves --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Band:
    """A mean curve with bands, ``(checkpoints,)`` each; NaN bands with one cluster."""

    mean: np.ndarray
    """Mean over clusters."""
    low: np.ndarray
    """Pointwise t interval, lower end."""
    high: np.ndarray
    """Pointwise t interval, upper end."""
    low_simultaneous: np.ndarray
    """Simultaneous band, lower end."""
    high_simultaneous: np.ndarray
    """Simultaneous band, upper end."""
    variance: np.ndarray
    """Estimated variance of ``mean``."""
    n: int
    """Number of clusters."""


def curve_band(
    curves: np.ndarray, rng: np.random.Generator, confidence: float = CONFIDENCE, resamples: int = 1000
) -> Band:
    """Mean of curves with a pointwise and a simultaneous band, clusters resampled whole.

    The pointwise band is a t interval at each checkpoint. The simultaneous one (sup-t; Montiel Olea and
    Plagborg-Møller 2019, J. Appl. Econometrics 34) takes its critical value from the distribution of the
    largest |t| over the checkpoints, in resamples of n whole curves from the normal distribution with the
    clusters' own covariance, each studentised by itself. Drawing the clusters with replacement instead
    has no finite critical value for n < 5, and with the variances held fixed it covers too little.

    Args:
        curves: ``(n, checkpoints)``.
        rng: draws the resamples.
        confidence: level of the bands.
        resamples: number of resamples.
    """
    curves = np.asarray(curves, float)
    n, points = curves.shape
    nothing = np.full(points, np.nan)
    if n < 2:
        mean = curves[0] if n else nothing
        return Band(mean, nothing, nothing, nothing, nothing, nothing, n)
    # sorted, so that the draw does not depend on the order of seeds
    curves = curves[np.lexsort(curves.T[::-1])]
    mean, variance = curves.mean(axis=0), curves.var(axis=0, ddof=1) / n
    se = np.sqrt(variance)
    t = float(stats.t.ppf(0.5 + confidence / 2, n - 1))
    critical = t
    moving = se > 1e-12
    if moving.any():
        # sums of the clusters' deviations with normal weights have their covariance
        weights = rng.standard_normal((resamples, n, n)) / math.sqrt(n - 1)
        resampled = weights @ (curves - mean)[:, moving]
        deviation = np.abs(resampled.mean(axis=1)) / (resampled.std(axis=1, ddof=1) / math.sqrt(n))
        critical = max(t, float(np.quantile(deviation.max(axis=1), confidence)))
    return Band(mean, mean - t * se, mean + t * se, mean - critical * se, mean + critical * se, variance, n)


def mean_band(bands: Sequence[Band], confidence: float = CONFIDENCE) -> Band:
    """Mean over tasks of their mean curves, with a pointwise t interval from the summed variances.

    Args:
        bands: one per task, over the same checkpoints; those without clusters are left out.
        confidence: level of the interval.

    Raises:
        ValueError: if there is no band with a cluster.
    """
    bands = [band for band in bands if band.n]
    if not bands:
        raise ValueError("no task has a curve")
    k = len(bands)
    mean = np.mean([band.mean for band in bands], axis=0)
    nothing = np.full(len(mean), np.nan)
    n = min(band.n for band in bands)
    if n < 2:
        return Band(mean, nothing, nothing, nothing, nothing, nothing, n)
    low, high, variance = np.empty_like(mean), np.empty_like(mean), np.empty_like(mean)
    for i in range(len(mean)):
        estimate = t_interval(
            float(mean[i]), [(float(b.variance[i]) / k**2, b.n - 1.0) for b in bands], confidence
        )
        # curves that do not vary here leave no interval but a point
        low[i], high[i] = (mean[i], mean[i]) if estimate.reason else (estimate.low, estimate.high)
        variance[i] = estimate.variance
    return Band(mean, low, high, nothing, nothing, variance, n)
