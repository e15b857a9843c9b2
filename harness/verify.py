"""The coverage study: how often the intervals and tests of the report are right, by simulation.

Every procedure of PROTOCOL §6 is called, as the report calls it, on made-up data whose truth is known,
some thousand times with fixed seeds. Each :class:`Population` says its truth as a formula; a
:class:`Scenario` is a population, a number of clusters and a procedure; a :class:`Result` is the share of
trials in which an interval covered the truth or a test rejected it. What must hold is checked, and so is
what must *fail*: the naive bootstrap on clustered data is the negative control, without which all this
would prove nothing.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from harness import comparability, measures, statistics
from harness.populations import (
    BUDGET,
    RATIOS,
    SCRATCH,
    Curves,
    Discretised,
    Failing,
    FinalScores,
    FineTuned,
    Folds,
    FollowUp,
    Joint,
    OneTask,
    Population,
    Ramps,
    Sample,
    Scores,
    Shares,
    Suite,
    SuiteCurves,
    TwoShares,
    pairs,
)
from harness.statistics import CONFIDENCE, Estimate

LEVEL = 0.05
"""Type-I error that tests are asked to keep."""
QUICK_SHARE = 50
"""A quick study has so many times fewer trials than the full one, and at least :data:`FEWEST`."""
FEWEST = 10
"""Trials that every scenario of a quick study has at least."""
TOLERANCE = 0.02
"""Distance from the nominal share within which it counts as met."""
SLACK = 3.0
"""Standard errors by which a study with fewer trials than the full one may miss a bound."""
GRIDS = (
    *((gap, False, False) for gap in (1000, 2000, 5000, 10_000, 20_000, 40_000, None)),
    (5000, True, False),
    (None, True, False),
    (None, True, True),
)
"""What the table of discretised times compares: steps between checkpoints, None for the standard preset's,
whether arrivals are interpolated, and whether runs rise curved."""
PLANTED = (0.7, 1.0, 1.5, 3.0, 10.0)
"""Speed-ups that the table of discretised times plants."""
DISCRETISED_RUNS, QUICK_RUNS = 4000, 400
"""Runs of each arm in the table of discretised times, of the full study and a quick one."""
NAIVE_RESAMPLES = 499
"""Resamples of the naive bootstraps, which show what would happen without clusters."""


# --- what is claimed -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bounds:
    """Between which values the actual coverage or error must lie for a claim to hold."""

    text: str
    """The claim, for the table; empty where nothing is claimed."""
    low: float = 0.0
    """Lowest value."""
    high: float = 1.0
    """Highest value."""


COVERS = Bounds("must cover .93 to .97", 0.93, 0.97)
"""A well-behaved scenario."""
COVERS_AT_LEAST = Bounds("must cover .93 or more", 0.93, 1.0)
"""A procedure that is conservative by nature."""
KEEPS_LEVEL = Bounds("must reject .07 or less", 0.0, 0.07)
"""A test; that it rejects less than its level is no fault here."""
MUST_FAIL = Bounds("must fail: cover .90 or less", 0.0, 0.90)
"""The negative controls, and the failures that PROTOCOL §6 speaks of."""
MUST_EXCEED = Bounds("must fail: reject .10 or more", 0.10, 1.0)
"""The same, of a test."""
SHOWN = Bounds("")
"""Measured and printed, whatever it is."""


@dataclasses.dataclass(frozen=True)
class Claim:
    """What one procedure is asked to do in a scenario."""

    procedure: str
    """Name of the procedure."""
    bounds: Bounds
    """What must hold."""
    kind: str = "coverage"
    """What the share counts, a key of :data:`NOMINAL`."""

    @property
    def nominal(self) -> float:
        """The share that the procedure promises."""
        return NOMINAL[self.kind]


NOMINAL = {"coverage": CONFIDENCE, "error": LEVEL, "power": statistics.POWER}
"""Shares of intervals that hold the truth, of true hypotheses rejected, and of planned effects detected."""
VERBS = {"coverage": "covers", "error": "rejects", "power": "detects"}
"""What a procedure does in that share of trials."""

Procedure = Callable[[Sample, Any, np.random.Generator], Sequence[bool]]
"""Sample, truth and generator to one answer per claim: covered, or rejected."""


@dataclasses.dataclass(frozen=True)
class Scenario:
    """A population, a number of clusters, and what procedures must do there."""

    section: str
    """Heading under which the table shows it."""
    population: Population
    """Where the data come from."""
    n: int
    """Clusters per arm."""
    procedure: Procedure
    """What is done with a sample."""
    claims: tuple[Claim, ...]
    """What each answer of ``procedure`` is, in its order."""
    trials: int = 4000
    """Trials of the full study."""

    def results(self, trials: int) -> list[Result]:
        """Runs the scenario; the draw depends on nothing but the scenario and the number of trials."""
        # a scenario's draws do not change when others are added
        key = repr((self.section, self.population.name, self.n, [c.procedure for c in self.claims]))
        rng = np.random.default_rng(zlib.crc32(key.encode()))
        data = self.population.draw(rng, trials, self.n)
        truth = self.population.truth
        hits = np.array(
            [self.procedure(tuple(a[i] for a in data), truth, rng) for i in range(trials)], float
        )
        return [
            Result(self, claim, float(share), trials)
            for claim, share in zip(self.claims, hits.mean(axis=0), strict=True)
        ]


@dataclasses.dataclass(frozen=True)
class Result:
    """What one procedure did in one scenario."""

    scenario: Scenario
    """Where."""
    claim: Claim
    """What was asked."""
    actual: float
    """Share of trials in which the interval covered, or the test rejected."""
    trials: int
    """How many there were."""

    @property
    def error(self) -> float:
        """Monte-Carlo standard error of ``actual``."""
        # se = sqrt(p (1 - p) / trials)
        return math.sqrt(self.actual * (1 - self.actual) / self.trials)

    @property
    def is_control(self) -> bool:
        """Whether it must fail."""
        return self.claim.bounds in (MUST_FAIL, MUST_EXCEED)

    @property
    def holds(self) -> bool:
        """Whether the claim holds; with fewer trials than the full study has, chance is allowed for."""
        bounds = self.claim.bounds
        # standard error at the bound: at 0 of 40 trials that of the actual share would be 0
        slack = [
            0.0 if self.trials >= self.scenario.trials else SLACK * math.sqrt(b * (1 - b) / self.trials)
            for b in (bounds.low, bounds.high)
        ]
        if self.is_control:  # a control that fails only by chance shows nothing
            slack = [0.0, 0.0]
        return bounds.low - slack[0] <= self.actual <= bounds.high + slack[1]

    def __str__(self) -> str:
        """In one line of Markdown."""
        return _together([self])

    @property
    def verdict(self) -> str:
        """Whether the nominal share is met, in words."""
        margin = self.actual - self.claim.nominal
        if self.claim.kind == "error":
            margin = -margin
        # .93 to .97 of intervals cover, .03 to .07 of tests reject; rounding apart
        if margin < -TOLERANCE - 1e-9:
            return "NOT MET"
        return "met" if margin <= TOLERANCE + 1e-9 else "conservative"


# --- procedures ------------------------------------------------------------------------------------


def covers(estimate: Estimate, truth: float) -> bool:
    """Whether the interval holds the truth; where there is none it does not."""
    return estimate.low <= truth <= estimate.high


def one_task(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The t interval of the log ratio."""
    scratch, transfer = sample
    return (covers(statistics.log_ratio(scratch, transfer), truth),)


def jumpstart(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Welch's t interval of a difference."""
    scratch, transfer = sample
    return (covers(statistics.difference(scratch, transfer), truth),)


def clusters(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Cluster means, and then the two ways to forget the clusters."""
    scratch, transfer = sample
    runs = transfer.ravel()
    pretrainings = np.repeat(np.arange(len(transfer)), transfer.shape[1]).tolist()
    averaged = statistics.log_ratio(scratch, measures.cluster_means(runs, pretrainings))
    low, high = naive_bootstrap(scratch, runs, rng)
    return covers(averaged, truth), covers(statistics.log_ratio(scratch, runs), truth), low <= truth <= high


def naive_bootstrap(
    scratch: np.ndarray, transfer: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of the log ratio, every run resampled as if it were independent of the others.

    What the report does *not* use; here it is the negative control.
    """
    means = [arm[rng.integers(len(arm), size=(NAIVE_RESAMPLES, len(arm)))].mean(axis=1)
             for arm in (scratch, transfer)]  # fmt: skip
    low, high = np.quantile(np.log(means[0] / means[1]), [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def tests_of_one_task(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The permutation test and the t test, of equal means."""
    scratch, transfer = sample
    permuted = statistics.permutation_p(scratch, transfer, rng)
    return permuted <= LEVEL, statistics.log_ratio(scratch, transfer).p <= LEVEL


def suite(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The t interval of the mean over tasks."""
    return (covers(statistics.suite_mean([statistics.log_ratio(s, t) for s, t in pairs(sample)]), truth),)


def suite_test(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The permutation test of the mean over tasks, with fewer resamples than the report's."""
    return (statistics.suite_permutation_p(pairs(sample), rng, 499) <= LEVEL,)


def joint(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Whole rows of a network's tasks, and then the two ways to take its tasks for independent."""
    separate, rows = sample
    columns = list(separate.T)
    summed = statistics.suite_mean(
        [statistics.log_ratio(s, t) for s, t in zip(columns, rows.T, strict=True)]
    )
    low, high = column_bootstrap(separate, rows, rng)
    return (
        covers(statistics.joint_log_ratio(columns, rows), truth),
        covers(summed, truth),
        low <= truth <= high,
    )


def column_bootstrap(
    separate: np.ndarray, rows: np.ndarray, rng: np.random.Generator
) -> tuple[float, float]:
    """Percentile interval of the mean log ratio, the runs resampled anew for every task.

    What the report does *not* use: it takes the tasks of one network for independent.
    """
    n, tasks = rows.shape
    logs = np.zeros(NAIVE_RESAMPLES)
    for k in range(tasks):
        for sign, arm in ((1, separate[:, k]), (-1, rows[:, k])):
            logs += sign * np.log(arm[rng.integers(n, size=(NAIVE_RESAMPLES, n))].mean(axis=1)) / tasks
    low, high = np.quantile(logs, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high)


def joint_tests(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The permutation test of whole rows, with fewer resamples than the report's, and the t test."""
    separate, rows = sample
    # each task's speed-up taken out, so that there is no effect
    columns, rows = list(separate.T), rows * np.array(RATIOS)
    permuted = statistics.joint_permutation_p(columns, rows, rng, 499)
    return permuted <= LEVEL, statistics.joint_log_ratio(columns, rows).p <= LEVEL


def rows_of_runs(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The mean over a network's tasks, then t over networks; truth is the mean of the joint rows."""
    # E[Y_rk ratio_k / SCRATCH] = 1, the statistic of each run before its mean over tasks
    return (covers(statistics.suite_of_runs(sample[1] * np.array(RATIOS) / SCRATCH), 1.0),)


def tasks_like_these(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The sign-flip interval, and its test."""
    estimate = statistics.sign_flip(sample[0].tolist())
    return covers(estimate, truth), estimate.p <= LEVEL


def break_even(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Fieller's interval of C / (Y_scratch - Y_transfer); the truth is SCRATCH (1 - 1 / ratio) below C."""
    cost = 10 * SCRATCH
    saving = SCRATCH * -math.expm1(-truth)
    uses = cost / saving if saving > 0 else math.inf
    return (covers(statistics.fieller(cost, statistics.difference(sample[1], sample[0])), uses),)


def absence(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Whether the suite's mean is claimed to lie within the margin."""
    return (statistics.tost([statistics.log_ratio(s, t) for s, t in pairs(sample)]).p < LEVEL,)


def detected(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Whether the t test sees the effect."""
    scratch, transfer = sample
    return (statistics.log_ratio(scratch, transfer).p <= LEVEL,)


def detected_as_printed(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Whether the t test sees, in new runs, the effect that the first task's runs say is detectable."""
    first, (scratch, transfer) = pairs(sample)
    seen = statistics.minimum_detectable(statistics.log_ratio(*first))
    return (statistics.log_ratio(scratch, transfer / seen.ratio).p <= LEVEL,)


def at_once(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Whether the Bonferroni intervals of all tasks, whose truth is one, hold it together."""
    tasks = pairs(sample)
    level = statistics.bonferroni(len(tasks))
    return (all(covers(statistics.log_ratio(s, t, level), truth) for s, t in tasks),)


def spread_of_clusters(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The F test of no variance between pretrainings."""
    runs = np.log(sample[1])
    labels = np.repeat(np.arange(len(runs)), runs.shape[1]).tolist()
    return (statistics.variance_split(runs.ravel().tolist(), labels).p <= LEVEL,)


def follow_up(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """The log-rank test of equal arms, and the Kaplan-Meier interval at the mean time."""
    scratch, transfer = sample
    test = statistics.logrank(scratch, transfer, 2 * SCRATCH, SCRATCH) <= LEVEL
    curve = statistics.kaplan_meier(scratch, 2 * SCRATCH)
    at = int(np.searchsorted(curve.times, SCRATCH, side="right")) - 1
    return test, bool(curve.low[at] <= truth <= curve.high[at])


def any_of_family(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Whether any task is called different, by Holm-adjusted and by raw permutation p."""
    p = [statistics.permutation_p(s, t, rng) for s, t in pairs(sample)]
    return min(statistics.holm(p)) <= LEVEL, min(p) <= LEVEL


def bands(sample: Sample, truth: np.ndarray, rng: np.random.Generator) -> Sequence[bool]:
    """Whether the whole curve lies within the band, for the simultaneous and the pointwise one."""
    band = statistics.curve_band(sample[0], rng)
    return (
        bool(np.all((band.low_simultaneous <= truth) & (truth <= band.high_simultaneous))),
        bool(np.all((band.low <= truth) & (truth <= band.high))),
    )


def bands_of_suite(sample: Sample, truth: np.ndarray, rng: np.random.Generator) -> Sequence[bool]:
    """The same of the mean over tasks."""
    band = statistics.mean_band(sample, rng)
    return (
        bool(np.all((band.low_simultaneous <= truth) & (truth <= band.high_simultaneous))),
        bool(np.all((band.low <= truth) & (truth <= band.high))),
    )


def comparability_panel(sample: Sample, truth: np.ndarray, rng: np.random.Generator) -> Sequence[bool]:
    """Percentile intervals of the arm's mean and interquartile mean, and of its chance to be better."""
    table = comparability.panel({"baseline": list(sample[0]), "arm": list(sample[1])}, rng)
    arm = table[table["arm"] == "arm"].set_index("measure")
    chosen = arm.loc[["mean", "IQM", "probability of improvement"]]
    return ((chosen["low"] <= truth) & (truth <= chosen["high"])).tolist()


def wilson(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Wilson's interval; the truth is the trial's own."""
    share, n, p = (a.item() for a in sample)
    low, high = _wilson(share, n)
    return (low <= p <= high,)


def newcombe(sample: Sample, truth: float, rng: np.random.Generator) -> Sequence[bool]:
    """Newcombe's interval; the truth is the trial's own."""
    (one, other), n, p = (a.tolist() for a in sample)
    return (covers(_newcombe(one, n, other, n), p),)


# there are only n + 1 shares
_wilson = functools.cache(statistics.wilson)
_newcombe = functools.cache(statistics.newcombe)


# --- the study -------------------------------------------------------------------------------------

SIZES = (3, 5, 10, 20)
FEW, FEW_CURVES, FEW_NETWORKS = 5, 10, 10
"""Clusters from which on skewed scores, and whole curves, are asked to be covered, and the permutation test
of joint networks to keep its level; fewer are shown."""
SMALL_SPREAD, MIDDLE_SPREAD, LARGE_SPREAD = (0.1, 0.2), (0.2, 0.4), (0.3, 0.6)


def scenarios() -> list[Scenario]:
    """All scenarios, in the order of the table."""
    return [
        s for group in (_tasks, _suites, _costs, _curves, _shares, _panel, _discretised) for s in group()
    ]


def _tasks() -> Iterator[Scenario]:
    section = "One task: t interval of the log ratio"
    for spread, variations in (
        ("normal", (SMALL_SPREAD, (0.15, 0.3))),
        ("gamma", (SMALL_SPREAD, MIDDLE_SPREAD, LARGE_SPREAD)),
        ("lognormal", (SMALL_SPREAD, MIDDLE_SPREAD, LARGE_SPREAD)),
    ):
        for variation in variations:
            for n in SIZES:
                claim = Claim("log_ratio", COVERS)
                yield Scenario(section, OneTask(spread, variation), n, one_task, (claim,), 10_000)
    section = "Several fine-tunings to a pretraining"
    for n in (5, 10, 20):
        yield Scenario(
            section,
            FineTuned(),
            n,
            clusters,
            (
                Claim("log_ratio of cluster means", COVERS),
                Claim("log_ratio of runs as if independent", MUST_FAIL),
                Claim("naive bootstrap of runs (negative control)", MUST_FAIL),
            ),
            10_000,
        )
    section = "Runs that fail outright"
    yield Scenario(section, Failing(), 10, one_task, (Claim("log_ratio", MUST_FAIL),))
    yield Scenario(section, Failing(), 20, one_task, (Claim("log_ratio", SHOWN),))
    yield Scenario(section, Failing(0.5), 10, one_task, (Claim("log_ratio", SHOWN),))
    section = "Jumpstart and asymptote: t interval of a difference"
    for n in SIZES:
        claim = Claim("difference", COVERS if n >= FEW else SHOWN)
        yield Scenario(section, Scores(), n, jumpstart, (claim,))
    section = "Tests of one task"
    exact, t = Claim("permutation_p", KEEPS_LEVEL, "error"), Claim("log_ratio, p", SHOWN, "error")
    shown = Claim("permutation_p", SHOWN, "error")
    for population, n, permutation in (
        (OneTask("lognormal", (0.3, 0.3), 1.0), 5, exact),
        (Failing(null=True), 10, exact),
        (OneTask("lognormal", MIDDLE_SPREAD, 1.0), 10, shown),
        (OneTask("lognormal", LARGE_SPREAD, 1.0), 10, shown),
        (OneTask("normal", (0.1, 0.3), 1.0, (1.0, 0.5)), 10, shown),
        (OneTask("normal", (0.1, 0.3), 1.0, (0.5, 1.0)), 10, shown),
    ):
        yield Scenario(section, population, n, tests_of_one_task, (permutation, t), 1000)


def _suites() -> Iterator[Scenario]:
    section = "The suite, these tasks"
    spreads = (SMALL_SPREAD, MIDDLE_SPREAD, SMALL_SPREAD, LARGE_SPREAD)
    mixed = Suite(
        tuple(OneTask("lognormal", spreads[k % 4], ratio) for k, ratio in enumerate(RATIOS)),
        "lognormal, cv 0.1 to 0.6, speed-ups 0.7 to 5",
    )
    for n in SIZES:
        yield Scenario(section, mixed, n, suite, (Claim("suite_mean", COVERS),), 2000)
    failing = Suite((Failing(),) * 8, Failing().name)
    yield Scenario(section, failing, 10, suite, (Claim("suite_mean", SHOWN),), 2000)
    equal = Suite((OneTask("lognormal", MIDDLE_SPREAD[:1] * 2, 1.0),) * 8, "lognormal, cv 0.2, no effect")
    unequal = Suite(
        tuple(OneTask("lognormal", spreads[k % 4], 1.0) for k in range(8)),
        "lognormal, cv 0.1 to 0.6, no effect",
    )
    for tasks, bounds in ((equal, KEEPS_LEVEL), (unequal, SHOWN)):
        for n in (5, 10):
            claim = Claim("suite_permutation_p", bounds, "error")
            yield Scenario(section, tasks, n, suite_test, (claim,), 2000)
    section = "Tasks like these"
    claims = (Claim("sign_flip", COVERS_AT_LEAST), Claim("sign_flip, p", KEEPS_LEVEL, "error"))
    for k in (6, 8):
        yield Scenario(section, Folds(), k, tasks_like_these, claims)
    shown = (Claim("sign_flip", SHOWN), Claim("sign_flip, p", SHOWN, "error"))
    for folds in (Folds(0.1), Folds(0.3), Folds(skewed=True)):
        yield Scenario(section, folds, 8, tasks_like_these, shown)
    section = "One network on all tasks"
    for networks, bounds in ((Joint(network=0.2), COVERS), (Joint(), SHOWN)):
        three = (
            Claim("joint_log_ratio", bounds),
            Claim("suite_mean, tasks as if independent", MUST_FAIL),
            Claim("bootstrap of each task's column", MUST_FAIL),
        )
        for n in (5, 10, 20):
            yield Scenario(section, networks, n, joint, three, 2000)
        for n in (5, 10, 20):
            yield Scenario(section, networks, n, rows_of_runs, (Claim("suite_of_runs", bounds),))
        t = Claim("joint_log_ratio, p, no effect", SHOWN, "error")
        for n in (5, 10, 20):
            asked = KEEPS_LEVEL if bounds is COVERS and n >= FEW_NETWORKS else SHOWN
            permuted = Claim("joint_permutation_p, no effect", asked, "error")
            yield Scenario(section, networks, n, joint_tests, (permuted, t), 2000)
    section = "Absence of transfer"
    for ratio in (1.1, 1 / 1.1):
        margin = Suite(
            (OneTask("lognormal", SMALL_SPREAD, ratio),) * 8,
            f"lognormal, cv 0.1 and 0.2, all at {ratio:.3f}",
        )
        claim = Claim("tost at the margin", KEEPS_LEVEL, "error")
        yield Scenario(section, margin, 10, absence, (claim,), 2000)
    section = "Families of tests"
    exact = Suite((OneTask("lognormal", (0.4, 0.4), 1.0),) * 8, "lognormal, cv 0.4 in both arms, no effect")
    claims = (
        Claim("holm of permutation_p, any of 8", KEEPS_LEVEL, "error"),
        Claim("permutation_p unadjusted, any of 8", MUST_EXCEED, "error"),
    )
    yield Scenario(section, exact, 6, any_of_family, claims, 800)
    for variation in (SMALL_SPREAD, MIDDLE_SPREAD):
        label = f"lognormal, cv {variation[0]:g} and {variation[1]:g}, all at 2"
        eight = Suite((OneTask("lognormal", variation),) * 8, label)
        for n in (5, 10, 20):
            bounds = COVERS if variation is SMALL_SPREAD else SHOWN
            claim = Claim("log_ratio at the Bonferroni level, all 8", bounds)
            yield Scenario(section, eight, n, at_once, (claim,), 2000)


def _costs() -> Iterator[Scenario]:
    section = "Break-even"
    for ratio, n in ((3.0, 5), (3.0, 10), (1.1, 10), (0.9, 10)):
        # where nothing is saved it can err on one side only
        claim = Claim("fieller", COVERS if ratio > 1 else COVERS_AT_LEAST)
        yield Scenario(section, OneTask("lognormal", MIDDLE_SPREAD, ratio), n, break_even, (claim,))
    section = "What could be seen, and where it comes from"
    for n in (5, 10):
        # var L = (cv_s² + cv_t²) / n
        parts = [(variation**2 / n, n - 1.0) for variation in SMALL_SPREAD]
        seen = statistics.minimum_detectable(statistics.t_interval(0.0, parts))
        claim = Claim("minimum_detectable, true spread", SHOWN, "power")
        yield Scenario(section, OneTask("lognormal", SMALL_SPREAD, seen.ratio), n, detected, (claim,))
        # the same as the report has it, of a spread that is itself estimated from n runs
        two = Suite((OneTask("lognormal", SMALL_SPREAD, 1.0),) * 2, "lognormal, cv 0.1 and 0.2, no effect")
        claim = Claim("minimum_detectable, estimated spread, in new runs", SHOWN, "power")
        yield Scenario(section, two, n, detected_as_printed, (claim,), 2000)
    claim = Claim("variance_split, p", KEEPS_LEVEL, "error")
    yield Scenario(section, FineTuned(between=0.0), 10, spread_of_clusters, (claim,))
    section = "Different follow-up"
    claims = (Claim("logrank", KEEPS_LEVEL, "error"), Claim("kaplan_meier, at one time", SHOWN))
    for n in (10, 20):
        yield Scenario(section, FollowUp(), n, follow_up, claims, 2000)


def _curves() -> Iterator[Scenario]:
    section = "Mean curves: does the band hold the whole true curve?"
    pointwise = Claim("curve_band, pointwise", MUST_FAIL)
    for correlation in (0.5, 0.9):
        for n in SIZES:
            claim = Claim("curve_band, simultaneous", COVERS if n >= FEW_CURVES else SHOWN)
            yield Scenario(section, Curves(correlation), n, bands, (claim, pointwise), 2000)
    simultaneous = Claim("mean_band, simultaneous", COVERS)
    for n in (5, 10):
        tasks = SuiteCurves((Curves(0.5),) * 4)
        both = (simultaneous, Claim("mean_band, pointwise", MUST_FAIL))
        yield Scenario(section, tasks, n, bands_of_suite, both, 1000)
    claims = (Claim("curve_band, simultaneous", SHOWN), pointwise)
    for population in (Ramps(end=SCRATCH / 2), Ramps()):
        for n in SIZES:
            yield Scenario(section, population, n, bands, claims, 1000)


def _shares() -> Iterator[Scenario]:
    section = "Shares of runs that arrive"
    for n in (5, 10, 20):
        yield Scenario(section, Shares(None), n, wilson, (Claim("wilson", COVERS),), 20_000)
        for share in (0.5, 0.8, 0.9, 0.95):
            yield Scenario(section, Shares(share), n, wilson, (Claim("wilson", SHOWN),), 20_000)
    for n in (5, 10, 20):
        yield Scenario(section, TwoShares(None), n, newcombe, (Claim("newcombe", COVERS),), 20_000)
        for two in ((0.5, 0.5), (0.9, 0.9), (0.5, 0.9)):
            yield Scenario(section, TwoShares(two), n, newcombe, (Claim("newcombe", SHOWN),), 20_000)


def _panel() -> Iterator[Scenario]:
    section = "Comparability panel"
    names = ("mean", "IQM", "probability of improvement")
    claims = tuple(Claim(f"panel, {name}", SHOWN) for name in names)
    for n in (5, 10, 20):
        yield Scenario(section, FinalScores(), n, comparability_panel, claims, 1000)


def _discretised() -> Iterator[Scenario]:
    section = "Curves seen at checkpoints"
    for gap, bounds in ((1000, COVERS), (5000, SHOWN), (20_000, SHOWN)):
        claim = Claim("arrivals, log_ratio", bounds)
        yield Scenario(section, Discretised(gap, 3.0), 10, one_task, (claim,), 2000)
    for ratio in (0.7, 3.0, 10.0):
        for interpolate, bounds in ((False, SHOWN), (True, COVERS)):
            claim = Claim("arrivals, log_ratio", bounds)
            population = Discretised(None, ratio, interpolate)
            yield Scenario(section, population, 10, one_task, (claim,), 2000)
        curved = Discretised(None, ratio, interpolate=True, curved=True)
        yield Scenario(section, curved, 10, one_task, (Claim("arrivals, log_ratio", SHOWN),), 2000)


def study(
    trials: int | None = None, quick: bool = False, advance: Callable[[int], object] = lambda done: None
) -> list[Result]:
    """Runs all scenarios.

    Args:
        trials: of every scenario; the scenario's own if left out.
        quick: with few trials, to see that all works.
        advance: called after each scenario with 1.

    Raises:
        ValueError: for less than one trial.
    """
    if trials is not None and trials < 1:
        raise ValueError(f"trials must be positive, got {trials}")
    results = []
    for scenario in scenarios():
        own = max(FEWEST, scenario.trials // QUICK_SHARE) if quick else scenario.trials
        results += scenario.results(own if trials is None else trials)
        advance(1)
    return results


def broken(results: Iterable[Result]) -> list[Result]:
    """Results whose claim does not hold; with none the study has passed."""
    return [result for result in results if not result.holds]


# --- discretised times -----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Bias:
    """What is read of a planted speed-up at checkpoints of one spacing."""

    population: Discretised
    """Spacing and speed-up."""
    found: float
    """Speed-up of many runs."""
    error: float
    """Its Monte-Carlo standard error."""
    runs: int
    """Runs of each arm that it was read of."""


def biases(runs: int = DISCRETISED_RUNS) -> list[Bias]:
    """The bias of every grid of :data:`GRIDS` at every speed-up of :data:`PLANTED`.

    Args:
        runs: runs of each arm, so many that chance is small beside the bias.
    """
    found = []
    for ratio in PLANTED:
        for grid in GRIDS:
            population = Discretised(grid[0], ratio, *grid[1:])
            # the same runs at every spacing, so that a row differs by its checkpoints alone
            scratch, transfer = population.draw(np.random.default_rng(0), 1, runs)
            estimate = statistics.log_ratio(scratch[0], transfer[0])
            ratio_found = math.exp(estimate.value)
            # delta method: se(ρ) = ρ se(log ρ)
            found.append(Bias(population, ratio_found, ratio_found * math.sqrt(estimate.variance), runs))
    return found


# --- the page --------------------------------------------------------------------------------------

ABOUT = {
    "One task: t interval of the log ratio": (
        "Times of independent clusters; cv is the coefficient of variation, of scratch and of "
        "transfer runs; the true speed-up is 2."
    ),
    "Several fine-tunings to a pretraining": (
        "Three fine-tunings share the luck of their pretraining. The report averages them first. "
        "Taking them for independent runs must fail, and does: the naive bootstrap is the study's "
        "negative control."
    ),
    "Runs that fail outright": (
        "One transfer run in ten never arrives. With ten runs, a third of all samples hold no failure "
        "at all, and nothing in them says that there are any: no interval could know. The report "
        "therefore prints the success share beside every speed-up, warns where outcomes are mixed, "
        "and gives a permutation p."
    ),
    "Jumpstart and asymptote: t interval of a difference": (
        "Bounded, skewed scores against an arm that hardly varies."
    ),
    "Tests of one task": (
        "How often two equal means are called different at .05. Where the two arms are alike in all, the "
        "permutation test is exact, failing runs or not; with unequal spreads it is approximate, and too "
        "eager where the smaller arm has the larger spread."
    ),
    "The suite, these tasks": ("Independent tasks of unequal spread and unequal speed-up."),
    "Tasks like these": (
        "n is the number of tasks. Exact for independent tasks whose effects are symmetric about "
        "their mean. Folds share training tasks; if that correlates them, the test rejects too often, "
        "which is why the report says “approximate”."
    ),
    "One network on all tasks": (
        "The tasks of one network share its luck. A row of tasks is kept whole; resampling each "
        "task's column by itself, or summing the tasks' variances, takes them for independent."
    ),
    "Absence of transfer": (
        "How often a mean that lies exactly at the margin is claimed to lie within it."
    ),
    "Families of tests": (
        "How often any of eight tasks without an effect is called different, and how often the intervals "
        "at the Bonferroni level hold the truth of all eight."
    ),
    "Break-even": (
        "The interval is allowed to be unbounded, and then holds every number above its lower end."
    ),
    "What could be seen, and where it comes from": (
        "An effect as large as the minimum detectable one is to be detected in .80 of experiments, if the "
        "spread is known; the report estimates it from the runs at hand, and new runs see what it prints a "
        "little less often; "
        "and the test of spread between pretrainings, of which there is none."
    ),
    "Different follow-up": (
        "The log-rank test of equal arms, and the Kaplan-Meier interval at the mean time."
    ),
    "Mean curves: does the band hold the whole true curve?": (
        "The simultaneous band is made to; the pointwise one, drawn darker, is not. With fewer than ten "
        "curves it is a little narrow. Near the ceiling it fails: where all runs at hand are done, nothing "
        "in them says that one in many is not, and the band is as narrow as the noise."
    ),
    "Comparability panel": (
        "Percentile bootstrap over whole runs, as other papers use it; no conclusion of the report rests "
        "on it."
    ),
    "Shares of runs that arrive": (
        "Averaged over all true shares these intervals cover what they say; at a single one they "
        "jump, as only n + 1 shares can be seen."
    ),
    "Curves seen at checkpoints": (
        "From learning curves through arrivals to the interval, with ten runs and a true speed-up of "
        "3 where not said otherwise. What coarse checkpoints cost in coverage is bias, of which the last "
        "table speaks. Plans interpolate arrivals between checkpoints unless they are asked to date them "
        "to the checkpoint that shows them, or are of before there was a choice; the report says beside "
        "its headline what the other reading would make of it. Interpolated, the standard preset's "
        "checkpoints cover what was planted. Curved rises begin slowly, are steep and flatten out, as "
        "learning curves do, where interpolation takes them to be straight between checkpoints."
    ),
}
"""What is to be known of each section."""


def page(results: Sequence[Result], found: Sequence[Bias]) -> str:
    """The study as Markdown: the same bytes for the same results."""
    failed = broken(results)
    asked = [r for r in results if r.claim.bounds.text]
    lines = [
        "# How often the intervals and tests are right",
        "",
        "Written by `mtenvs verify`; do not edit. Every procedure of the report is called on made-up "
        "data with a known truth, with fixed seeds. *actual* is the share of trials in which an interval "
        "held the truth (or, for tests, in which a true hypothesis was rejected), ± its Monte-Carlo "
        f"standard error. *met* means within {_share(TOLERANCE)} of nominal, *conservative* beyond that on "
        "the safe side, **NOT MET** on the other. What is *asked* is checked by the command, which fails "
        "if any of it does not hold; where nothing is asked, the number is for you to know. What is asked "
        f"of skewed scores begins at {FEW} clusters, of whole curves at {FEW_CURVES}, of joint networks it "
        f"is a spread of 0.2 between them (and {FEW_NETWORKS} networks where they are permuted), of "
        "Bonferroni intervals the smallest spread, and of permutation tests that the arms are alike: these "
        "lines were drawn after a first run of the study had shown where nominal ceases to be met. "
        "The populations and their truths are defined in `harness/populations.py`.",
        "",
        f"**{len(asked) - len(failed)} of {len(asked)} claims hold.**",
        "",
        "## Where nominal is not met",
        "",
    ]
    missed = [r for r in results if r.verdict == "NOT MET"]
    ours = [r for r in missed if not (r.is_control and r.holds)]
    lines += _list(ours) or ["- nowhere"]
    lines += ["", "As they must, so that the study is known to see failure:", ""]
    lines += _list([r for r in results if r.is_control and r.holds]) or ["- nowhere"]
    for section in dict.fromkeys(r.scenario.section for r in results):
        lines += ["", f"## {section}", "", ABOUT[section], ""]
        lines += [
            "| population | n | procedure | nominal | actual | | asked |",
            "|---|--:|---|--:|--:|---|---|",
        ]
        for r in (r for r in results if r.scenario.section == section):
            verdict = "**NOT MET**" if r.verdict == "NOT MET" else r.verdict
            asked_text = r.claim.bounds.text if r.holds else f"**BROKEN: {r.claim.bounds.text}**"
            cells = (
                r.scenario.population.name,
                str(r.scenario.n),
                f"`{r.claim.procedure}` {VERBS[r.claim.kind]}",
                _share(r.claim.nominal),
                f"{_share(r.actual, 3)} ± {_share(r.error, 3)}",
                verdict,
                asked_text,
            )
            lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        "## What coarse checkpoints do to a speed-up",
        "",
        f"Runs rise to a score of 1, straight but in the last column, from scratch within {SCRATCH:,.0f} "
        f"steps on average; the budget is {BUDGET:,.0f}. They are seen at checkpoints only. Dated to the "
        "next one, an arrival is half a gap late on average in both arms, which draws every speed-up "
        "towards 1, the more the faster transfer is; interpolated between fine checkpoints, as plans have "
        "it, it comes back. In brackets what this should give by calculation. "
        f"{found[0].runs:,} runs to an arm; largest "
        f"Monte-Carlo standard error {max(b.error / b.found for b in found):.1%} of the number.",
        "",
        "| planted | " + " | ".join(_grid(*grid) for grid in GRIDS) + " |",
        "|--:|" + "--:|" * len(GRIDS),
    ]
    for ratio in PLANTED:
        row = [f"{b.found:.2f} ({b.population.expected:.2f})" for b in found if b.population.ratio == ratio]
        lines.append(f"| {ratio:g} | " + " | ".join(row) + " |")
    return "\n".join(lines) + "\n"


def _list(results: Sequence[Result]) -> list[str]:
    """One line for all sizes of a procedure's results in a population."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for r in results:
        groups.setdefault((r.claim.procedure, r.scenario.population.name), []).append(r)
    return [f"- {_together(group)}" for group in groups.values()]


def _together(group: Sequence[Result]) -> str:
    scenario, claim = group[0].scenario, group[0].claim
    ends = dict.fromkeys(_share(find(r.actual for r in group), 3) for find in (min, max))
    share = f"**{' to '.join(ends)}** instead of {_share(claim.nominal)}"
    sizes = ", ".join(str(r.scenario.n) for r in group)
    where = f"{scenario.population.name}, n = {sizes} ({scenario.section.partition(':')[0].lower()})"
    return f"`{claim.procedure}` {VERBS[claim.kind]} {share}: {where}"


def _share(value: float, digits: int = 2) -> str:
    """``.95``, as shares are printed."""
    text = f"{value:.{digits}f}"
    return text.removeprefix("0") if text.startswith("0.") else text


def _grid(gap: float | None, interpolate: bool, curved: bool) -> str:
    name = f"every {gap:,.0f}" if gap else "the standard preset's"
    return name + ", interpolated" * interpolate + ", curved rises" * curved
