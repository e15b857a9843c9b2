"""Intervals, tests and bands of PROTOCOL §6, each a function of cluster means.

A cluster is one pretraining with its fine-tunings averaged, or one run from scratch; whatever is said to
be ``(n,)`` here has one entry per cluster. Where no interval can be given, the result says why.
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Hashable, Sequence

import numpy as np
import scipy  # its parts are loaded by their first use: they take a second, which most commands do not need

CONFIDENCE = 0.95
RESAMPLES = 9999
"""Random permutations of a test; where there are fewer distinct ones, all are used and p is exact."""
EQUIVALENT = 1.1
"""Factor within which speed-ups count as none (PROTOCOL §4.10)."""
EQUIVALENCE = math.log(EQUIVALENT)
"""The same on the log scale."""
POWER = 0.8
"""Chance with which a detectable effect is to be detected."""
FLIPPED = 20
"""Most tasks whose signs are flipped in every way; 2^20 sums take a few megabytes."""
ARMS = ("scratch", "transfer")
"""What the two sides of a comparison are called in reasons, unless said otherwise."""


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

    @property
    def unbounded(self) -> bool:
        """Whether the interval has no upper end (:func:`fieller`)."""
        return math.isinf(self.high)

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
    half = float(scipy.stats.t.ppf(0.5 + confidence / 2, df)) * math.sqrt(variance)
    p = float(2 * scipy.stats.t.sf(abs(value) / math.sqrt(variance), df))
    return Estimate(value, value - half, value + half, variance, df, p, tuple(parts))


def bonferroni(count: int, confidence: float = CONFIDENCE) -> float:
    """Level of each of ``count`` intervals that hold together with at least ``confidence``.

    Raises:
        ValueError: for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, got {count}")
    return 1 - (1 - confidence) / count


def one_sample(values: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of independent values with its t interval, ``(n,)``; also of differences within a run."""
    values = np.asarray(values, float)
    if len(values) == 0:
        return Estimate(math.nan, reason="no value")
    parts = [(_variance(values) / len(values), len(values) - 1.0)] if len(values) > 1 else []
    return t_interval(float(values.mean()), parts, confidence, "" if parts else "one seed")


def log_ratio(
    baseline: np.ndarray,
    arm: np.ndarray,
    confidence: float = CONFIDENCE,
    names: tuple[str, str] = ARMS,
) -> Estimate:
    """L = log(mean(baseline) / mean(arm)) with its Welch-Satterthwaite t interval.

    Args:
        baseline: positive times, ``(n,)``.
        arm: positive times, ``(m,)``; above 0 this arm is faster.
        confidence: level of the interval.
        names: what the two are called in a reason.

    Returns:
        The estimate on the log scale; :meth:`Estimate.exp` gives the speed-up.
    """
    arms = [np.asarray(baseline, float), np.asarray(arm, float)]
    reason = _too_few(arms, names)
    if reason.startswith("no run") or any(np.isnan(a).any() for a in arms):
        return Estimate(math.nan, reason=reason or "not estimable: no run reaches any threshold")
    value = math.log(arms[0].mean() / arms[1].mean())
    # delta method: var(log mean) = s^2 / (n mean^2)
    parts = [(_variance(a) / (len(a) * a.mean() ** 2), len(a) - 1.0) for a in arms if len(a) > 1]
    return t_interval(value, parts, confidence, reason or _constant(arms))


def difference(
    baseline: np.ndarray,
    arm: np.ndarray,
    confidence: float = CONFIDENCE,
    names: tuple[str, str] = ARMS,
) -> Estimate:
    """mean(arm) - mean(baseline) with Welch's t interval.

    Args:
        baseline: ``(n,)``, any sign.
        arm: ``(m,)``, any sign.
        confidence: level of the interval.
        names: what the two are called in a reason.
    """
    arms = [np.asarray(baseline, float), np.asarray(arm, float)]
    reason = _too_few(arms, names)
    lost = [name for name, a in zip(names, arms, strict=True) if np.isnan(a).any()]
    if reason.startswith("no run") or lost:
        return Estimate(math.nan, reason=reason or f"not estimable: a value of {lost[0]} is not a number")
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


def suite_of_runs(rows: np.ndarray, confidence: float = CONFIDENCE) -> Estimate:
    """Mean over the tasks of joint runs: the mean of each run's row, then t over runs.

    The tasks of one network are not independent, so their variances may not be summed as
    :func:`suite_mean` sums them; the run is the unit.

    Args:
        rows: ``(runs, tasks)``, one whole row per network.
        confidence: level of the interval.
    """
    rows = np.asarray(rows, float)
    if rows.ndim != 2 or rows.shape[1] == 0:
        raise ValueError(f"rows must be (runs, tasks) with at least one task, got shape {rows.shape}")
    return one_sample(rows.mean(axis=1), confidence)


def joint_log_ratio(
    separate: Sequence[np.ndarray],
    joint: np.ndarray,
    confidence: float = CONFIDENCE,
    names: tuple[str, str] = ("separate", "joint"),
) -> Estimate:
    """mean over tasks of L_k = log(mean(separate_k) / mean(joint_k)), the joint networks' rows kept whole.

    The variance of the joint side is that of the per-run suite statistic (1/K) Σ_k Y_rk / Ȳ_k, to which
    the mean of log Ȳ_k is equal to first order (the delta method of :func:`log_ratio`, covariances
    between the tasks of one network included). With one task the two functions agree.

    Args:
        separate: positive times of the networks that learned one task each, ``(n_k,)`` for each task.
        joint: positive times of the joint networks, ``(runs, tasks)``, tasks in the same order.
        confidence: level of the interval.
        names: what the two are called in a reason.

    Raises:
        ValueError: if the two do not have the same tasks.
    """
    joint = np.asarray(joint, float)
    if joint.ndim != 2 or joint.shape[1] != len(separate) or not len(separate):
        raise ValueError(f"{len(separate)} separate tasks do not fit joint rows of shape {joint.shape}")
    of_task = [log_ratio(s, joint[:, k], confidence, names) for k, s in enumerate(separate)]
    missing = [e.reason for e in of_task if math.isnan(e.value)]
    if missing:
        return Estimate(math.nan, reason=missing[0])
    few = [e.reason for e in of_task if e.reason.startswith("one seed")]
    k = len(separate)
    parts = []
    for times in (np.asarray(s, float) for s in separate):
        if len(times) > 1:
            # var(log mean) / K^2, independent over tasks
            parts.append((_variance(times) / (len(times) * times.mean() ** 2) / k**2, len(times) - 1.0))
    parts += suite_of_runs(joint / joint.mean(axis=0)).parts
    return t_interval(sum(e.value for e in of_task) / k, parts, confidence, few[0] if few else "")


def fieller(cost: float, saving: Estimate) -> Estimate:
    """Break-even cost / saving with Fieller's interval (Fieller 1954, JRSS B 16), the cost being known.

    With a known numerator Fieller's set is what the t interval of the saving becomes under division.

    Args:
        cost: what is spent once, above 0.
        saving: what each use saves, in the same unit, with its interval (:func:`difference`).

    Returns:
        Number of uses after which the cost is earned back. ``high`` is infinite where the saving may be 0
        or less (:attr:`Estimate.unbounded`); ``value`` is infinite where it is estimated so, and ``low``
        where even the largest plausible saving is. ``variance``, ``df`` and ``p`` are those of the saving.

    Raises:
        ValueError: for a cost that is not above 0.
    """
    if not cost > 0:
        raise ValueError(f"cost must be above 0, got {cost}")

    def uses(gain: float) -> float:
        return math.nan if math.isnan(gain) else cost / gain if gain > 0 else math.inf

    if saving.reason:
        return dataclasses.replace(saving, value=uses(saving.value))
    return dataclasses.replace(
        saving, value=uses(saving.value), low=uses(saving.high), high=uses(saving.low)
    )


def tost(estimates: Sequence[Estimate], margin: float = EQUIVALENCE, level: float = 0.05) -> Estimate:
    """Two one-sided t tests that the suite mean lies within ±margin (Schuirmann 1987, J. Pharmacokin. 15).

    Args:
        estimates: one per task, see :func:`suite_mean`.
        margin: half-width of what counts as equal, above 0, on the estimates' scale.
        level: level of each of the two tests.

    Returns:
        The suite mean with its interval at 1 - 2 level, which lies within ±margin exactly where p < level;
        ``p`` is the larger of the two one-sided p: small is evidence of *absence*.

    Raises:
        ValueError: for a margin that is not above 0.
    """
    if not margin > 0:
        raise ValueError(f"margin must be above 0, got {margin}")
    suite = suite_mean(estimates, 1 - 2 * level)
    if suite.reason:
        return suite
    se = math.sqrt(suite.variance)
    # H01: L <= -margin, H02: L >= margin
    one_sided = [scipy.stats.t.sf((margin + sign * suite.value) / se, suite.df) for sign in (1, -1)]
    return dataclasses.replace(suite, p=float(max(one_sided)))


def _too_few(arms: Sequence[np.ndarray], names: tuple[str, str]) -> str:
    for name, arm in zip(names, arms, strict=True):
        if len(arm) == 0:
            return f"no run of {name} is complete"
    for name, arm in zip(names, arms, strict=True):
        if len(arm) == 1:
            return f"one seed in {name}"
    return ""


def _variance(values: np.ndarray) -> float:
    # equal values have variance 0, which rounding in the mean would hide
    return 0.0 if np.ptp(values) == 0 else float(values.var(ddof=1))


def _constant(arms: Sequence[np.ndarray]) -> str:
    return "zero variance in both arms" if all(np.ptp(a) == 0 for a in arms) else ""


# --- p-values --------------------------------------------------------------------------------------
#
# Two-sided is everywhere twice the smaller one-sided p, as in scipy: with arms of unequal size the most
# extreme arrangement need not have a mirror image.


def permutation_p(baseline: np.ndarray, arm: np.ndarray, rng: np.random.Generator) -> float:
    """Two-sided p of the studentised permutation test of equal means.

    Args:
        baseline: ``(n,)``.
        arm: ``(m,)``.
        rng: draws the permutations where there are more than :data:`RESAMPLES`.

    Returns:
        p; 1 if all values are equal, NaN with fewer than two values in an arm.
    """
    # sorted, so that the draw does not depend on the order of seeds
    arms = [np.sort(np.asarray(a, float)) for a in (baseline, arm)]
    if min(map(len, arms)) < 2 or any(np.isnan(a).any() for a in arms):
        return math.nan
    if np.ptp(np.concatenate(arms)) == 0:
        return 1.0
    if _constant(arms):
        # t = ±inf is reached by this arrangement only; scipy would say p = 0
        return min(1.0, 2 / math.comb(len(arms[0]) + len(arms[1]), len(arms[0])))
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)
        result = scipy.stats.ttest_ind(
            arms[1],
            arms[0],
            equal_var=False,
            method=scipy.stats.PermutationMethod(n_resamples=RESAMPLES, rng=rng),
        )
    return float(result.pvalue)


def smallest_permutation_p(n: int, m: int) -> float:
    """Smallest p that :func:`permutation_p` can give with ``n`` and ``m`` values; NaN if either is 1."""
    if min(n, m) < 2:
        return math.nan
    # two-sided: twice the share of the most extreme arrangement; where they are drawn, the observed one is
    # counted besides
    arrangements = math.comb(n + m, n)
    return min(1.0, 2 / (arrangements if arrangements <= RESAMPLES else RESAMPLES + 1))


def runs_for_a_verdict(tests: int, level: float = 0.05) -> int | None:
    """Fewest runs in each arm with which one of ``tests`` Holm-adjusted permutation p can be below a level.

    Returns:
        The number; None where so many tests are adjusted that no number of runs is enough.
    """
    # from the first n on whose arrangements are drawn, the smallest p stays as it is
    enough = (n for n in range(2, 9) if smallest_permutation_p(n, n) * tests < level)
    return next(enough, None)


def suite_permutation_p(
    tasks: Sequence[tuple[np.ndarray, np.ndarray]],
    rng: np.random.Generator,
    resamples: int = RESAMPLES,
) -> float:
    """Two-sided p of the mean log ratio over tasks, the labels of the arms permuted within each task.

    Args:
        tasks: times of both arms, ``(n_k,)`` and ``(m_k,)``, of each task, the baseline first.
        rng: draws the permutations.
        resamples: how many.

    Returns:
        p of the studentised statistic mean(L_k) / se; NaN with no task or fewer than two values in an arm.
    """
    if not tasks or min(min(len(b), len(a)) for b, a in tasks) < 2:
        return math.nan
    logs, variances = np.zeros(resamples + 1), np.zeros(resamples + 1)
    for baseline, compared in tasks:
        pooled = np.concatenate([np.sort(baseline), np.sort(compared)]).astype(float)
        draws = rng.permuted(np.tile(pooled, (resamples, 1)), axis=1)
        # the first row is what was observed
        both = np.vstack([pooled, draws])
        for sign, arm in ((1.0, both[:, : len(baseline)]), (-1.0, both[:, len(baseline) :])):
            mean = arm.mean(axis=1)
            logs += sign * np.log(mean)
            spread = np.where(np.ptp(arm, axis=1) == 0, 0.0, arm.var(axis=1, ddof=1))
            variances += spread / (arm.shape[1] * mean**2)
    return _permuted_p(logs, variances)


def joint_permutation_p(
    separate: Sequence[np.ndarray], joint: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES
) -> float:
    """Two-sided p of :func:`joint_log_ratio` of 0, the labels of whole rows of tasks permuted.

    Separate networks are independent, so that those of any one seed of every task make a row as good as
    any other. A joint network's tasks are not, so that the two kinds of rows are exchangeable in their
    means only; that the statistic is studentised makes the test hold for many rows.

    Args:
        separate: positive times of the networks that learned one task each, ``(n_k,)`` for each task.
        joint: positive times of the joint networks, ``(runs, tasks)``, tasks in the same order.
        rng: draws the permutations.
        resamples: how many.

    Returns:
        p; NaN with no task, fewer than two rows of a kind, or tasks of unequal numbers of separate
        networks, which make no rows.
    """
    joint = np.asarray(joint, float)
    counts = {len(times) for times in separate}
    if len(counts) != 1 or min(counts) < 2 or len(joint) < 2:
        return math.nan
    (n,) = counts
    rows = np.concatenate([np.stack([np.asarray(s, float) for s in separate], axis=1), joint])
    order = rng.permuted(np.tile(np.arange(len(rows)), (resamples, 1)), axis=1)
    # the first arrangement is what was observed
    order = np.vstack([np.arange(len(rows)), order])
    logs, variances = np.zeros(resamples + 1), np.zeros(resamples + 1)
    for sign, chosen in ((1.0, order[:, :n]), (-1.0, order[:, n:])):
        times = rows[chosen]
        means = times.mean(axis=1, keepdims=True)
        logs += sign * np.log(means[:, 0]).mean(axis=1)
        # var of the per-row suite statistic (1/K) Σ_k Y_rk / Ȳ_k
        statistic = (times / means).mean(axis=2)
        spread = np.where(np.ptp(statistic, axis=1) < 1e-12, 0.0, statistic.var(axis=1, ddof=1))
        variances += spread / chosen.shape[1]
    return _permuted_p(logs, variances)


def _permuted_p(values: np.ndarray, variances: np.ndarray) -> float:
    """Two-sided p of the first of some studentised values among all of them."""
    # equal values may differ by rounding, and 0 / 0 is no evidence
    values = np.where(np.abs(values) < 1e-12, 0.0, values)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(values / np.sqrt(variances), nan=0.0, posinf=np.inf, neginf=-np.inf)
    slack = 1e-12 * abs(t[0]) if np.isfinite(t[0]) else 0.0
    one_sided = min(np.mean(t >= t[0] - slack), np.mean(t <= t[0] + slack))
    return float(min(1.0, 2 * one_sided))


def sign_flip(values: Sequence[float], confidence: float = CONFIDENCE) -> Estimate:
    """Exact sign-flip test of a mean of 0, and its interval, for "tasks like these".

    The test takes the values as independent and symmetric about their mean. Those of folds that share
    training tasks are not quite independent: say "approximate".

    Args:
        values: L_k of each task; NaN, not estimable, are left out.
        confidence: level of the interval.

    Returns:
        Mean, two-sided ``p`` and the interval of all means that the test does not reject, whose ends are
        means of subsets of the tasks (Hartigan 1969, JASA 64). It covers at least ``confidence``; with
        fewer than 6 tasks for .95 there is none, but p is given.
    """
    x = np.array([v for v in values if not math.isnan(v)])
    k = len(x)
    if not 0 < k <= FLIPPED:
        reason = f"more than {FLIPPED} tasks" if k else "no task is estimable"
        return Estimate(float(x.mean()) if k else math.nan, reason=reason)
    sums, counts = np.zeros(1), np.zeros(1)
    for value in np.sort(x):
        sums, counts = np.concatenate([sums, sums + value]), np.concatenate([counts, counts + 1])
    # flipping a subset makes the sum at least as extreme if the subset's sum is not on the mean's side
    slack = 1e-12 * np.abs(x).sum()
    towards = sums if x.sum() >= 0 else -sums
    p = min(1.0, 2 * float(np.mean(towards <= slack)))
    rejected = math.floor((1 - confidence) * 2 ** (k - 1) + 1e-9)
    if rejected < 1:
        return Estimate(float(x.mean()), p=p, reason=f"{k} tasks are too few to flip signs")
    ends = np.sort(sums[1:] / counts[1:])
    return Estimate(float(x.mean()), float(ends[rejected - 1]), float(ends[-rejected]), p=p)


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
    z2 = float(scipy.stats.norm.ppf(0.5 + confidence / 2)) ** 2
    # (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    centre = share + z2 / (2 * n)
    half = math.sqrt(z2 * (share * (1 - share) / n + z2 / (4 * n * n)))
    low, high = (centre - half) / (1 + z2 / n), (centre + half) / (1 + z2 / n)
    # the ends are exact at 0 and 1, where rounding would leave 1e-17
    return (0.0 if share == 0 else max(low, 0.0)), (1.0 if share == 1 else min(high, 1.0))


def newcombe(
    baseline: float, baseline_count: int, arm: float, arm_count: int, confidence: float = CONFIDENCE
) -> Estimate:
    """Difference of two shares, arm - baseline, with Newcombe's interval (1998, Stat. in Medicine 17).

    Args:
        baseline: share of the baseline, see :func:`wilson`.
        baseline_count: number of its clusters.
        arm: share of the other arm.
        arm_count: number of its clusters.
        confidence: level of the interval.
    """
    # here, as it takes a second to import what few need
    from statsmodels.stats.proportion import confint_proportions_2indep

    if baseline_count == 0 or arm_count == 0 or math.isnan(baseline) or math.isnan(arm):
        return Estimate(math.nan, reason="an arm has no run")
    low, high = confint_proportions_2indep(
        arm * arm_count,
        arm_count,
        baseline * baseline_count,
        baseline_count,
        method="newcomb",
        compare="diff",
        alpha=1 - confidence,
    )
    return Estimate(float(arm - baseline), float(low), float(high))


# --- times with censoring --------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Survival:
    """A Kaplan-Meier curve: a step function from 1 at time 0, ``(events + 1,)`` each."""

    times: np.ndarray
    """0 and the times of arrival, increasing."""
    share: np.ndarray
    """Share of runs that have not arrived by then."""
    low: np.ndarray
    """Pointwise log-log interval, lower end; NaN where the share is 0 or 1."""
    high: np.ndarray
    """Upper end."""
    n: int
    """Number of runs."""


def kaplan_meier(
    arrival: np.ndarray, follow_up: float | np.ndarray, confidence: float = CONFIDENCE
) -> Survival:
    """Share of runs that have not arrived yet, with censoring (`scipy.stats.ecdf`).

    Args:
        arrival: ``(n,)``, ``inf`` for a run that did not arrive.
        follow_up: until when runs were watched, one number or ``(n,)``; arrivals after it are censored.
        confidence: level of the pointwise interval.

    Raises:
        ValueError: with no run.
    """
    curve = scipy.stats.ecdf(_censored(arrival, follow_up)).sf
    # the logarithm of a share of 0 or 1 has no interval
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        interval = curve.confidence_interval(confidence, method="log-log")
    # scipy's steps include times of censoring, at which nothing happens
    steps = np.flatnonzero(np.diff(curve.probabilities, prepend=1.0) < 0)
    return Survival(
        np.concatenate([[0.0], curve.quantiles[steps]]),
        np.concatenate([[1.0], curve.probabilities[steps]]),
        np.concatenate([[np.nan], interval.low.probabilities[steps]]),
        np.concatenate([[np.nan], interval.high.probabilities[steps]]),
        len(arrival),
    )


def at_risk(arrival: np.ndarray, follow_up: float | np.ndarray, times: Sequence[float]) -> np.ndarray:
    """Number of runs that are watched and have not arrived just before each time, ``(times,)`` of int.

    Args:
        arrival: ``(n,)``, ``inf`` for a run that did not arrive.
        follow_up: until when runs were watched, one number or ``(n,)``.
        times: at which to count.
    """
    watched = np.minimum(np.asarray(arrival, float), follow_up)
    return (watched[:, None] >= np.asarray(times, float)).sum(axis=0)


def logrank(
    baseline: np.ndarray,
    arm: np.ndarray,
    baseline_follow_up: float | np.ndarray,
    arm_follow_up: float | np.ndarray,
) -> float:
    """Two-sided p of the log-rank test of equal arrival, for arms of different follow-up; supportive only.

    Args:
        baseline: arrival times, ``(n,)``, ``inf`` for a run that did not arrive.
        arm: the same of the other arm, ``(m,)``.
        baseline_follow_up: until when runs were watched, one number or ``(n,)``.
        arm_follow_up: the same of the other arm.

    Returns:
        p; NaN where an arm has no run, or nobody arrives while both arms are watched.
    """
    if not len(baseline) or not len(arm):
        return math.nan
    x, y = _censored(baseline, baseline_follow_up), _censored(arm, arm_follow_up)
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return float(scipy.stats.logrank(x, y).pvalue)


def _censored(arrival: np.ndarray, follow_up: float | np.ndarray) -> scipy.stats.CensoredData:
    arrival = np.asarray(arrival, float)
    if not len(arrival):
        raise ValueError("no run to follow")
    until = np.broadcast_to(np.asarray(follow_up, float), arrival.shape)
    arrived = arrival <= until
    return scipy.stats.CensoredData(uncensored=np.sort(arrival[arrived]), right=np.sort(until[~arrived]))


# --- what could be seen ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Detectable:
    """How small an effect runs of this spread can show."""

    effect: float
    """Smallest true value, on the estimate's scale, that is detected with the asked power; NaN if none."""
    half_width: float
    """Half the width of the interval, on the same scale."""
    df: float
    """Degrees of freedom of the t test."""
    reason: str = ""
    """Why nothing can be said; empty if something can."""

    @property
    def ratio(self) -> float:
        """``exp(effect)``: of a log ratio, the minimum detectable ρ̄."""
        return math.exp(self.effect)

    @property
    def width_ratio(self) -> float:
        """``exp(half_width)``: by which factor the interval of ρ̄ reaches up and down."""
        return math.exp(self.half_width)


def minimum_detectable(
    estimate: Estimate,
    power: float = POWER,
    confidence: float = CONFIDENCE,
    clusters: int | None = None,
) -> Detectable:
    """Smallest effect that a two-sided t test with the estimate's standard error detects.

    It uses the runs' own spread and never the estimated effect: it is no post-hoc power.

    Args:
        estimate: of :func:`log_ratio`, :func:`suite_mean` or another that has ``parts``.
        power: chance of detection, in (1 - confidence, 1).
        confidence: 1 - level of the test.
        clusters: how many every arm of every task shall have, for planning; None for those that there are.

    Raises:
        ValueError: for a power or a number of clusters that makes no sense.
    """
    if clusters is not None and clusters < 2:
        raise ValueError(f"clusters must be at least 2, got {clusters}")
    if not 1 - confidence < power < 1:
        raise ValueError(f"power must lie between {1 - confidence:.3g} and 1, got {power}")
    if estimate.reason:
        return Detectable(math.nan, math.nan, math.nan, estimate.reason)
    parts = list(estimate.parts)
    if clusters is not None:
        # s^2 / n has n - 1 degrees of freedom, and becomes s^2 / m with m - 1
        parts = [(v * (d + 1) / clusters, clusters - 1.0) for v, d in parts]
    again = t_interval(0.0, parts, confidence)
    critical = float(scipy.stats.t.ppf(0.5 + confidence / 2, again.df))

    def excess(shift: float) -> float:
        # power = P(|T| > t), T noncentral with shift = effect / se; scipy's far tail is NaN below 1e-16
        near, far = (
            scipy.stats.nct.sf(critical, again.df, shift),
            scipy.stats.nct.cdf(-critical, again.df, shift),
        )
        return float(near + np.nan_to_num(far)) - power

    # at a shift of t the power is a little over a half; from there the bracket grows
    upper = critical
    while excess(upper) < 0:
        upper *= 1.2
    shift = scipy.optimize.brentq(excess, 0.0, upper)
    return Detectable(shift * math.sqrt(again.variance), again.high, again.df)


@dataclasses.dataclass(frozen=True)
class VarianceSplit:
    """Where the variance of runs comes from."""

    between: float
    """Variance between clusters (pretrainings), truncated at 0; NaN where it cannot be told."""
    within: float
    """Variance between the runs of one cluster (fine-tunings)."""
    p: float
    """p of the F test of no variance between clusters."""
    clusters: int
    """Number of clusters."""
    runs: int
    """Number of runs."""
    reason: str = ""
    """Why there is no split; empty if there is one."""

    @property
    def share(self) -> float:
        """between / (between + within), the intraclass correlation; NaN where both are 0."""
        total = self.between + self.within
        return self.between / total if total > 0 else math.nan


def variance_split(values: Sequence[float], clusters: Sequence[Hashable]) -> VarianceSplit:
    """Variance between and within clusters by one-way random-effects analysis of variance.

    Args:
        values: one per run, ``(n,)``, for example Ȳ or its logarithm; NaN are left out.
        clusters: the cluster of each run, ``(n,)``.
    """
    groups: dict[Hashable, list[float]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if not math.isnan(value):
            groups.setdefault(cluster, []).append(float(value))
    # sorted, so that rounding does not depend on the order of runs
    data = sorted(sorted(group) for group in groups.values())
    a, n = len(data), sum(map(len, data))
    if n == a:
        reason = "one run per cluster: between and within cannot be told apart" if n else "no run"
        return VarianceSplit(math.nan, math.nan, math.nan, a, n, reason)
    within = sum(_variance(np.array(g)) * (len(g) - 1) for g in data if len(g) > 1) / (n - a)
    if a < 2:
        return VarianceSplit(math.nan, within, math.nan, a, n, "one cluster")
    grand = sum(map(sum, data)) / n
    mean_square = sum(len(g) * (sum(g) / len(g) - grand) ** 2 for g in data) / (a - 1)
    # E[MS_between] = within + n0 between, n0 = (n - sum n_i^2 / n) / (a - 1)
    n0 = (n - sum(len(g) ** 2 for g in data) / n) / (a - 1)
    f = mean_square / within if within > 0 else math.inf if mean_square > 0 else math.nan
    return VarianceSplit(
        max(0.0, (mean_square - within) / n0), within, float(scipy.stats.f.sf(f, a - 1, n - a)), a, n
    )


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
    """Mean of curves with a pointwise and a simultaneous band: :func:`mean_band` of one task.

    Args:
        curves: ``(n, checkpoints)``.
        rng: draws the resamples.
        confidence: level of the bands.
        resamples: number of resamples.
    """
    curves = np.asarray(curves, float)
    if not len(curves):
        nothing = np.full(curves.shape[1], np.nan)
        return Band(nothing, nothing, nothing, nothing, nothing, nothing, 0)
    return mean_band([curves], rng, confidence, resamples)


def mean_band(
    tasks: Sequence[np.ndarray],
    rng: np.random.Generator,
    confidence: float = CONFIDENCE,
    resamples: int = 1000,
) -> Band:
    """Mean over tasks of their mean curves with a pointwise and a simultaneous band.

    Clusters are resampled whole, those of one task independently of another's. The pointwise band is a t
    interval at each checkpoint, from the tasks' summed variances. The simultaneous one (sup-t; Montiel
    Olea and Plagborg-Møller 2019, J. Appl. Econometrics 34) takes its critical value from the
    distribution of the largest |t| over the checkpoints, in resamples of n whole curves of every task
    from the normal distribution with the clusters' own covariance, each studentised by itself. Drawing
    the clusters with replacement instead has no finite critical value for n < 5, and with the variances
    held fixed it covers too little.

    Args:
        tasks: curves ``(n_k, checkpoints)`` of every task, over the same checkpoints; those without
            clusters are left out.
        rng: draws the resamples.
        confidence: level of the bands.
        resamples: number of resamples.

    Returns:
        The bands; ``n`` is the smallest number of clusters of a task, and with one cluster there are none.

    Raises:
        ValueError: if no task has a cluster.
    """
    given = [np.asarray(curves, float) for curves in tasks if len(curves)]
    if not given:
        raise ValueError("no task has a curve")
    # sorted, so that neither the draw nor rounding depends on the order of seeds
    given = [curves[np.lexsort(curves.T[::-1])] for curves in given]
    k, n = len(given), min(map(len, given))
    mean = np.mean([curves.mean(axis=0) for curves in given], axis=0)
    nothing = np.full(len(mean), np.nan)
    if n < 2:
        return Band(mean, nothing, nothing, nothing, nothing, nothing, n)
    # var of the mean over tasks: sum of s_k^2 / n_k, over K^2
    of_tasks = np.array([curves.var(axis=0, ddof=1) / len(curves) / k**2 for curves in given])
    variance = of_tasks.sum(axis=0)
    se = np.sqrt(variance)
    moving = se > 1e-12
    half = np.zeros(len(mean))  # curves that do not vary leave no interval but a point
    for i in np.flatnonzero(moving):
        parts = [(float(v), len(curves) - 1.0) for v, curves in zip(of_tasks[:, i], given, strict=True)]
        half[i] = t_interval(0.0, parts, confidence).high
    wide = half
    if moving.any():
        sums = squares = np.zeros((resamples, int(moving.sum())))
        for curves in given:
            m = len(curves)
            deviations = curves - curves.mean(axis=0)
            # sums of the clusters' deviations with normal weights have their covariance
            weights = rng.standard_normal((resamples, m, m)) / math.sqrt(m - 1)
            resampled = weights @ deviations[:, moving]
            sums = sums + resampled.mean(axis=1)
            squares = squares + resampled.var(axis=1, ddof=1) / m
        with np.errstate(divide="ignore", invalid="ignore"):
            deviation = np.nan_to_num(np.abs(sums) / np.sqrt(squares)).max(axis=1)
        wide = np.maximum(half, float(np.quantile(deviation, confidence)) * se)
    return Band(mean, mean - half, mean + half, mean - wide, mean + wide, variance, n)
