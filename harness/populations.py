"""Made-up experiments whose truth is known, for the coverage study (:mod:`harness.verify`).

Each :class:`Population` says in its docstring how its clusters are drawn and, as a formula, what is true of
them. Times are steps.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import numpy as np
import scipy

from harness import measures
from harness.plan import PRESETS, checkpoint_steps
from harness.plan import THRESHOLDS as GRID

THRESHOLDS = np.array(GRID)
"""θ of the primary measure."""
SCRATCH = 100_000.0
"""Mean time of the scratch arm, steps; nothing depends on this unit."""
BUDGET = 200_000.0
"""B of the scenarios with a budget, steps."""
RATIOS = (1.0, 1.5, 3.0, 0.7, 2.0, 5.0, 1.2, 0.9)
"""Speed-ups of the eight tasks of a suite."""
ROLLOUT = 32 * PRESETS["standard"].worlds_per_run
"""Control steps between updates of the learner that the standard preset has for most families."""
TAU_SIGMA = 0.2
"""Standard deviation of log τ, the time that a run of :class:`Discretised` takes to score 1."""
CURVED = 0.6
"""Share of τ after which a curved rise is at 1 - 1/e; it scores 0.99 at τ."""

Sample = tuple[np.ndarray, ...]
"""One trial's data, as the population draws it, without the axis of trials."""


class Population(Protocol):
    """Where clusters come from."""

    @property
    def name(self) -> str:
        """The population in words, for the table."""

    @property
    def truth(self) -> Any:
        """The number, or curve, that an interval should cover, or that a hypothesis says."""

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Data of ``n`` clusters per arm, arrays ``(trials, ...)``."""

    def estimate(self, sample: Sample) -> Any:
        """What one large sample says of the truth, by brute force."""


def times(
    rng: np.random.Generator, spread: str, mean: float, variation: float, shape: tuple[int, ...]
) -> np.ndarray:
    """Positive times of a given mean and coefficient of variation c (normal ones: for c up to .3).

    lognormal: σ² = log(1 + c²), μ = log(mean) - σ²/2; gamma: shape 1/c², scale mean c²; normal: sd mean c.
    Their expectation is ``mean`` exactly.

    Raises:
        ValueError: for an unknown spread.
    """
    if spread == "lognormal":
        sigma2 = math.log(1 + variation**2)
        return rng.lognormal(math.log(mean) - sigma2 / 2, math.sqrt(sigma2), shape)
    if spread == "gamma":
        return rng.gamma(1 / variation**2, mean * variation**2, shape)
    if spread == "normal":
        return rng.normal(mean, mean * variation, shape)
    raise ValueError(f"unknown spread {spread!r}; valid: lognormal, gamma, normal")


@dataclasses.dataclass(frozen=True)
class OneTask:
    """Times of both arms on one task, independent clusters.

    Truth: L = log(E Y_scratch / E Y_transfer) = log(ratio), as :func:`times` has the mean it is given.
    """

    spread: str
    """Distribution of the times."""
    variation: tuple[float, float]
    """Coefficients of variation, scratch and transfer."""
    ratio: float = 2.0
    """Speed-up."""
    shares: tuple[float, float] = (1.0, 1.0)
    """Clusters of each arm, as parts of n."""

    @property
    def name(self) -> str:
        """In words."""
        sizes = "" if self.shares == (1.0, 1.0) else f", {self.shares[0]:g}n and {self.shares[1]:g}n runs"
        spread = f"{self.spread}, cv {self.variation[0]:g} and {self.variation[1]:g}"
        return f"{spread}, speed-up {self.ratio:.3g}{sizes}"

    @property
    def truth(self) -> float:
        """L = log(ratio)."""
        return math.log(self.ratio)

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Scratch and transfer, ``(trials, n)`` each, or parts of n."""
        means = (SCRATCH, SCRATCH / self.ratio)
        scratch, transfer = (
            times(rng, self.spread, mean, variation, (trials, round(n * share)))
            for mean, variation, share in zip(means, self.variation, self.shares, strict=True)
        )
        return scratch, transfer

    def estimate(self, sample: Sample) -> float:
        """Log of the ratio of means."""
        return _log_ratio(sample)


@dataclasses.dataclass(frozen=True)
class FineTuned:
    """Pretrainings of F fine-tunings each, whose times share the pretraining's luck; scratch runs single.

    Y_pf = (SCRATCH / ratio) U_p V_pf with U and V independent lognormal of mean 1.
    Truth: L = log(ratio), as E[U V] = 1.
    """

    between: float = 0.4
    """Coefficient of variation of U, between pretrainings."""
    within: float = 0.2
    """Coefficient of variation of V, between fine-tunings of one."""
    finetunes: int = 3
    """F."""
    scratch: float = 0.2
    """Coefficient of variation of the scratch arm."""
    ratio: float = 2.0
    """Speed-up."""

    @property
    def name(self) -> str:
        """In words."""
        spread = f"cv {self.between:g} between, {self.within:g} within"
        return f"{self.finetunes} fine-tunings to a pretraining, {spread}"

    @property
    def truth(self) -> float:
        """L = log(ratio)."""
        return math.log(self.ratio)

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Scratch ``(trials, n)`` and transfer ``(trials, n, F)``."""
        luck = times(rng, "lognormal", 1.0, self.between, (trials, n, 1))
        runs = times(rng, "lognormal", SCRATCH / self.ratio, self.within, (trials, n, self.finetunes))
        return times(rng, "lognormal", SCRATCH, self.scratch, (trials, n)), luck * runs

    def estimate(self, sample: Sample) -> float:
        """Log of the ratio of means."""
        return _log_ratio(sample)


@dataclasses.dataclass(frozen=True)
class Failing:
    """A share of the transfer runs never arrives, and counts with the whole budget B.

    Y_transfer is B with probability q and otherwise lognormal of mean m; Y_scratch is lognormal.
    Truth: L = log(SCRATCH / (q B + (1 - q) m)). Under the null both arms are drawn alike: L = 0.
    """

    share: float = 0.1
    """q."""
    mean: float = 10_000.0
    """m, steps."""
    variation: float = 0.2
    """Coefficient of variation of the runs that arrive."""
    null: bool = False
    """Whether the scratch arm has the same mixture."""

    @property
    def name(self) -> str:
        """In words."""
        who = "runs of both arms alike" if self.null else "transfer runs"
        return f"{self.share:.0%} of {who} at Y = B, the others at B/{BUDGET / self.mean:.0f}"

    @property
    def truth(self) -> float:
        """L of the mixture."""
        return (
            0.0 if self.null else math.log(SCRATCH / (self.share * BUDGET + (1 - self.share) * self.mean))
        )

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Scratch and transfer, ``(trials, n)`` each."""
        if self.null:
            return self._mixture(rng, (trials, n)), self._mixture(rng, (trials, n))
        return times(rng, "lognormal", SCRATCH, self.variation, (trials, n)), self._mixture(
            rng, (trials, n)
        )

    def estimate(self, sample: Sample) -> float:
        """Log of the ratio of means."""
        return _log_ratio(sample)

    def _mixture(self, rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
        arrived = times(rng, "lognormal", self.mean, self.variation, shape)
        return np.where(rng.random(shape) < self.share, BUDGET, arrived)


@dataclasses.dataclass(frozen=True)
class Suite:
    """Independent tasks, each a population with two arms.

    Truth: the mean of the tasks' L_k.
    """

    tasks: tuple[OneTask | Failing, ...]
    """Populations of the tasks."""
    label: str
    """The suite in words."""

    @property
    def name(self) -> str:
        """In words."""
        return f"{len(self.tasks)} tasks: {self.label}"

    @property
    def truth(self) -> float:
        """Mean of L_k."""
        return float(np.mean([task.truth for task in self.tasks]))

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Scratch and transfer of the first task, of the second, ..., ``(trials, n)`` each."""
        return tuple(arm for task in self.tasks for arm in task.draw(rng, trials, n))

    def estimate(self, sample: Sample) -> float:
        """Mean of the logs of the ratios of means."""
        return float(np.mean([_log_ratio(pair) for pair in pairs(sample)]))


@dataclasses.dataclass(frozen=True)
class Joint:
    """Joint networks that learn K tasks at once, whose times share the network's luck; and K single ones.

    Y_rk = (SCRATCH / ratio_k) U_r V_rk with U and V independent lognormal of mean 1; the separate networks
    are lognormal of mean SCRATCH, independent over runs and tasks.
    Truth: mean over k of L_k = log(ratio_k), as E[U V] = 1.
    """

    network: float = 0.4
    """Coefficient of variation of U, between networks."""
    task: float = 0.2
    """Coefficient of variation of V, between tasks of one network."""
    separate: float = 0.2
    """Coefficient of variation of the separate networks."""
    ratios: tuple[float, ...] = RATIOS
    """Speed-ups of the tasks."""

    @property
    def name(self) -> str:
        """In words."""
        return (
            f"{len(self.ratios)} tasks to a network, cv {self.network:g} between networks, "
            f"{self.task:g} between tasks of one"
        )

    @property
    def truth(self) -> float:
        """Mean of L_k."""
        return float(np.mean(np.log(self.ratios)))

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Separate and joint, ``(trials, n, tasks)`` each."""
        shape = (trials, n, len(self.ratios))
        separate = times(rng, "lognormal", SCRATCH, self.separate, shape)
        luck = times(rng, "lognormal", 1.0, self.network, (trials, n, 1))
        return separate, luck * times(rng, "lognormal", SCRATCH, self.task, shape) / np.array(self.ratios)

    def estimate(self, sample: Sample) -> float:
        """Mean of the logs of the ratios of means."""
        return float(np.mean(np.log(sample[0].mean(axis=0) / sample[1].mean(axis=0))))


@dataclasses.dataclass(frozen=True)
class Folds:
    """Log ratios L_k of tasks that are themselves drawn from many, as "tasks like these" takes them.

    L_k = 0.3 (sqrt(r) c + sqrt(1 - r) e_k) with c and e_k of mean 0 and variance 1: c is what folds have in
    common that share training tasks. They are normal, or e_k is a centred exponential (skewed).
    Truth: 0.
    """

    correlation: float = 0.0
    """r, between any two folds."""
    skewed: bool = False
    """Whether the e_k are exponential."""

    @property
    def name(self) -> str:
        """In words."""
        shape = "skewed" if self.skewed else "symmetric"
        return (
            f"folds {f'correlated by {self.correlation:g}' if self.correlation else 'independent'}, {shape}"
        )

    @property
    def truth(self) -> float:
        """0, no speed-up."""
        return 0.0

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """L_k of n tasks, ``(trials, n)``."""
        shape = (trials, n)
        own = rng.exponential(1.0, shape) - 1 if self.skewed else rng.standard_normal(shape)
        common = rng.standard_normal((trials, 1))
        return (0.3 * (math.sqrt(self.correlation) * common + math.sqrt(1 - self.correlation) * own),)

    def estimate(self, sample: Sample) -> float:
        """Mean of L_k."""
        return float(sample[0].mean())


@dataclasses.dataclass(frozen=True)
class FollowUp:
    """Arrivals of two arms that are alike, watched for different times.

    T is lognormal of mean SCRATCH; scratch runs are watched until 2 SCRATCH, transfer runs until SCRATCH.
    Truth: the share not arrived at SCRATCH, 1 - Φ(σ / 2) with σ² = log(1 + cv²); the arms are equal.
    """

    variation: float = 0.5
    """Coefficient of variation."""

    @property
    def name(self) -> str:
        """In words."""
        return f"arms alike, watched for 1 and 2 mean times, cv {self.variation:g}"

    @property
    def truth(self) -> float:
        """P(T > SCRATCH)."""
        # log SCRATCH - μ = σ² / 2
        return float(scipy.stats.norm.sf(math.sqrt(math.log(1 + self.variation**2)) / 2))

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Arrivals of scratch and transfer, ``(trials, n)`` each, ``inf`` if not seen."""
        t = times(rng, "lognormal", SCRATCH, self.variation, (2, trials, n))
        return np.where(t[0] <= 2 * SCRATCH, t[0], np.inf), np.where(t[1] <= SCRATCH, t[1], np.inf)

    def estimate(self, sample: Sample) -> float:
        """Share not arrived at SCRATCH."""
        return float(np.mean(np.concatenate(sample) > SCRATCH))


@dataclasses.dataclass(frozen=True)
class Shares:
    """Arrivals of n runs, each with the same probability; or a fresh probability in every trial.

    Truth: the probability p; with ``share`` None it is uniform in [0, 1], one per trial, with mean 1/2.
    """

    share: float | None
    """p."""

    @property
    def name(self) -> str:
        """In words."""
        return "share uniform in [0, 1]" if self.share is None else f"share {self.share:g}"

    @property
    def truth(self) -> float:
        """p, or its mean."""
        return 0.5 if self.share is None else self.share

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Share that arrived, n, and p, ``(trials,)`` each."""
        p = rng.random(trials) if self.share is None else np.full(trials, self.share)
        return rng.binomial(n, p) / n, np.full(trials, n), p

    def estimate(self, sample: Sample) -> float:
        """Share that arrived."""
        return float(sample[0])


@dataclasses.dataclass(frozen=True)
class TwoShares:
    """Arrivals of n runs of each of two arms.

    Truth: the difference of the probabilities q - p; with None both are uniform in [0, 1], fresh in every
    trial, with mean difference 0.
    """

    shares: tuple[float, float] | None
    """p and q."""

    @property
    def name(self) -> str:
        """In words."""
        if self.shares is None:
            return "two shares uniform in [0, 1]"
        return f"shares {self.shares[0]:g} and {self.shares[1]:g}"

    @property
    def truth(self) -> float:
        """q - p, or its mean."""
        return 0.0 if self.shares is None else self.shares[1] - self.shares[0]

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Shares that arrived ``(trials, 2)``, n ``(trials,)``, and q - p ``(trials,)``."""
        p = rng.random((trials, 2)) if self.shares is None else np.tile(self.shares, (trials, 1))
        return rng.binomial(n, p) / n, np.full(trials, n), p[:, 1] - p[:, 0]

    def estimate(self, sample: Sample) -> float:
        """Difference of the shares that arrived."""
        return float(sample[0][1] - sample[0][0])


@dataclasses.dataclass(frozen=True)
class Curves:
    """Learning curves around a true one, with noise that is correlated along the curve.

    g_i = 1 - exp(-i / 5) + s_i e_i at checkpoints i = 0, 1, ...; e is a stationary AR(1) of unit variance,
    e_i = φ e_(i-1) + sqrt(1 - φ²) z_i, and s_i = 0.05 + 0.15 i / (checkpoints - 1).
    Truth: the curve 1 - exp(-i / 5).
    """

    correlation: float
    """φ."""
    checkpoints: int = 22
    """Of a curve."""

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.checkpoints} checkpoints, AR(1) with φ = {self.correlation:g}"

    @property
    def truth(self) -> np.ndarray:
        """The true curve, ``(checkpoints,)``."""
        return -np.expm1(-np.arange(self.checkpoints) / 5)

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Curves ``(trials, n, checkpoints)``."""
        noise = rng.standard_normal((trials, n, self.checkpoints))
        for i in range(1, self.checkpoints):
            noise[..., i] *= math.sqrt(1 - self.correlation**2)
            noise[..., i] += self.correlation * noise[..., i - 1]
        return (self.truth + np.linspace(0.05, 0.2, self.checkpoints) * noise,)

    def estimate(self, sample: Sample) -> np.ndarray:
        """Mean curve."""
        return sample[0].mean(axis=0)


@dataclasses.dataclass(frozen=True)
class SuiteCurves:
    """Learning curves of several independent tasks.

    Truth: the mean of the tasks' true curves.
    """

    tasks: tuple[Curves, ...]
    """Populations of the tasks."""

    @property
    def name(self) -> str:
        """In words."""
        return f"mean of {len(self.tasks)} tasks of {self.tasks[0].name}"

    @property
    def truth(self) -> np.ndarray:
        """The mean true curve, ``(checkpoints,)``."""
        return np.mean([task.truth for task in self.tasks], axis=0)

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Curves ``(trials, n, checkpoints)`` of each task."""
        return tuple(curves for task in self.tasks for curves in task.draw(rng, trials, n))

    def estimate(self, sample: Sample) -> np.ndarray:
        """Mean of the tasks' mean curves."""
        return np.mean([curves.mean(axis=0) for curves in sample], axis=0)


@dataclasses.dataclass(frozen=True)
class Ramps:
    """Learning curves that rise straight to 1 within a random time: bounded, skewed, smooth in each run.

    g(t) = min(t / τ, 1) + 0.02 z, log τ normal with mean μ = log(100,000) and standard deviation σ.
    Truth: E min(t / τ, 1) = Φ((log t - μ) / σ) + t exp(σ²/2 - μ) Φ((μ - σ² - log t) / σ).
    """

    sigma: float = 0.4
    """σ."""
    end: float = BUDGET
    """Step of the last checkpoint; at B nearly all runs are done."""
    checkpoints: int = 22
    """Of a curve, evenly spaced from 0 to the end."""

    @property
    def name(self) -> str:
        """In words."""
        spread = math.sqrt(math.expm1(self.sigma**2))
        when = "until nearly all are done" if self.end == BUDGET else "while nearly all still rise"
        return f"{self.checkpoints} checkpoints, straight rises, cv {spread:.1f}, {when}"

    @property
    def steps(self) -> np.ndarray:
        """Of the checkpoints, ``(checkpoints,)``."""
        return np.linspace(0, self.end, self.checkpoints)

    @property
    def truth(self) -> np.ndarray:
        """The mean curve, ``(checkpoints,)``."""
        mu, t = math.log(SCRATCH), self.steps[1:]
        arrived = scipy.stats.norm.cdf((np.log(t) - mu) / self.sigma)
        rising = np.exp(self.sigma**2 / 2 - mu) * t
        rising = rising * scipy.stats.norm.cdf((mu - self.sigma**2 - np.log(t)) / self.sigma)
        return np.concatenate([[0.0], arrived + rising])

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Curves ``(trials, n, checkpoints)``."""
        tau = SCRATCH * rng.lognormal(0, self.sigma, (trials, n, 1))
        noise = 0.02 * rng.standard_normal((trials, n, self.checkpoints))
        return (np.minimum(self.steps / tau, 1.0) + noise,)

    def estimate(self, sample: Sample) -> np.ndarray:
        """Mean curve."""
        return sample[0].mean(axis=0)


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores of both arms at one checkpoint, as for the jumpstart: scratch near 0, transfer anywhere.

    g_scratch is normal with mean 0 and sd 0.02; g_transfer is Beta(a, b).
    Truth: the difference of means, a / (a + b).
    """

    a: float = 2.0
    """Shape of the Beta distribution."""
    b: float = 3.0
    """The other shape."""

    @property
    def name(self) -> str:
        """In words."""
        return f"scores: scratch about 0, transfer Beta({self.a:g}, {self.b:g})"

    @property
    def truth(self) -> float:
        """a / (a + b)."""
        return self.a / (self.a + self.b)

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Scratch and transfer, ``(trials, n)`` each."""
        return rng.normal(0.0, 0.02, (trials, n)), rng.beta(self.a, self.b, (trials, n))

    def estimate(self, sample: Sample) -> float:
        """Difference of means."""
        return float(sample[1].mean() - sample[0].mean())


@dataclasses.dataclass(frozen=True)
class FinalScores:
    """Final scores of two arms on K tasks that are alike, for the comparability panel.

    Every score of the baseline is Beta(2, 3), every score of the arm Beta(3, 2).
    Truths of the arm: the mean 3/5; the interquartile mean 6/5 (I(u; 4, 2) - I(l; 4, 2)) with l and u the
    quartiles of Beta(3, 2) and I the distribution function of Beta(4, 2), as x Beta(x; 3, 2) is
    3/5 Beta(x; 4, 2); and the chance of a better score ∫ F(x; 2, 3) Beta(x; 3, 2) dx.
    """

    tasks: int = 8
    """K."""

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.tasks} tasks, final scores Beta(2, 3) and Beta(3, 2)"

    @property
    def truth(self) -> np.ndarray:
        """Mean, interquartile mean and chance of a better score, ``(3,)``."""
        low, high = scipy.stats.beta.ppf([0.25, 0.75], 3, 2)
        middle = 6 / 5 * np.diff(scipy.stats.beta.cdf([low, high], 4, 2))[0]
        return np.array(
            [0.6, middle, scipy.stats.beta.expect(lambda x: scipy.stats.beta.cdf(x, 2, 3), (3, 2))]
        )

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Scores of the baseline and the arm, ``(trials, tasks, n)`` each."""
        return rng.beta(2, 3, (trials, self.tasks, n)), rng.beta(3, 2, (trials, self.tasks, n))

    def estimate(self, sample: Sample) -> np.ndarray:
        """The three aggregates of the arm."""
        baseline, arm = sample
        # n runs of every task make as many pairs as are needed here
        return np.array([arm.mean(), scipy.stats.trim_mean(arm.ravel(), 0.25), np.mean(arm > baseline)])


@dataclasses.dataclass(frozen=True)
class Discretised:
    """Learning curves seen at checkpoints only: curves to arrivals to Ȳ, by :mod:`harness.measures`.

    g(t) = h(t / τ) + 0.005 z. h(u) = min(u, 1) rises straight; 1 - exp(-(u / CURVED)³) begins slowly, rises
    steeply and flattens out, as scores of reinforcement learning do. log τ is normal with standard
    deviation 0.2; E τ is SCRATCH in the scratch arm and SCRATCH / ratio in the transfer arm, so that hardly
    a run misses 0.8 by B.
    Truth: T_θ = h⁻¹(θ) τ in continuous time, so that E Ȳ = mean(h⁻¹(θ)) E τ and L = log(ratio). What is
    read off is later, the next checkpoint, which draws the ratio of means to 1, unless it is interpolated:
    see :attr:`expected`.
    """

    gap: float | None
    """Steps between checkpoints; None for those of the standard preset, with its budget scaled to B."""
    ratio: float
    """Speed-up."""
    interpolate: bool = False
    """Whether arrivals are interpolated between checkpoints, or dated to the one that shows them."""
    curved: bool = False
    """Whether runs rise as learning does, or straight, which is what interpolation takes them to do."""

    @property
    def name(self) -> str:
        """In words."""
        grid = (
            f"a checkpoint every {self.gap:,.0f} steps" if self.gap else "the standard preset's checkpoints"
        )
        return (
            f"speed-up {self.ratio:g}{', curved rises' * self.curved}, {grid}"
            f"{', interpolated' * self.interpolate}"
        )

    @property
    def truth(self) -> float:
        """L = log(ratio)."""
        return math.log(self.ratio)

    @property
    def steps(self) -> np.ndarray:
        """Of the checkpoints, with two beyond B for the rule of three, ``(checkpoints,)``."""
        if self.gap is None:
            preset = PRESETS["standard"]
            budget = math.ceil(preset.budget / ROLLOUT) * ROLLOUT
            return np.array(checkpoint_steps(budget, preset.checkpoints, ROLLOUT)) * (BUDGET / budget)
        return np.arange(0.0, BUDGET + 2.5 * self.gap, self.gap)

    @property
    def expected(self) -> float:
        """The ratio of means that these checkpoints should show.

        E of the next checkpoint is the sum of t_(i+1) (F(t_(i+1)) - F(t_i)), F the distribution of
        h⁻¹(θ) τ. Interpolated on straight rises, what is left is what happens in the first gap and after B:
        E clip(θ τ, t_1, B). Interpolated on curved ones it is a mean over quantiles of τ.
        """
        if self.curved and self.interpolate:
            return self._over_quantiles()
        steps = self.steps[self.steps <= BUDGET]
        means = []
        for mean in (SCRATCH, SCRATCH / self.ratio):
            scale = self._inverse(THRESHOLDS)[:, None] * mean * math.exp(-(TAU_SIGMA**2) / 2)
            reached = scipy.stats.lognorm.cdf(steps, TAU_SIGMA, scale=scale)
            # those that come after B count with B
            late = (1 - reached[:, -1]) * BUDGET
            if self.interpolate:
                # E[X; X < b] = E X F(b exp(-σ²)) of a lognormal X
                below = scipy.stats.lognorm.cdf(steps * math.exp(-(TAU_SIGMA**2)), TAU_SIGMA, scale=scale)
                inside = THRESHOLDS * mean * (below[:, -1] - below[:, 1])
                arrived = steps[1] * reached[:, 1] + inside + late
            else:
                arrived = np.diff(reached, axis=1) @ steps[1:] + late
            means.append(float(arrived.mean()))
        return means[0] / means[1]

    def _over_quantiles(self, count: int = 2000) -> float:
        """:attr:`expected` by the midpoint rule, of curves without noise."""
        middles = (np.arange(count) + 0.5) / count
        tau = scipy.stats.lognorm.ppf(middles, TAU_SIGMA, scale=math.exp(-(TAU_SIGMA**2) / 2))
        means = []
        for mean in (SCRATCH, SCRATCH / self.ratio):
            shown = self._rise(self.steps / (mean * tau[:, None]))
            arrived = measures.arrivals(self.steps, shown, THRESHOLDS, BUDGET, interpolate=True)
            means.append(measures.restricted_times(arrived, BUDGET).mean())
        return float(means[0] / means[1])

    def _rise(self, u: np.ndarray) -> np.ndarray:
        """h."""
        return -np.expm1(-((u / CURVED) ** 3)) if self.curved else np.minimum(u, 1.0)

    def _inverse(self, score: np.ndarray) -> np.ndarray:
        """h⁻¹."""
        return CURVED * np.cbrt(-np.log1p(-score)) if self.curved else score

    def draw(self, rng: np.random.Generator, trials: int, n: int) -> Sample:
        """Ȳ of scratch and transfer, ``(trials, n)`` each."""
        steps, which = self.steps, np.ones(len(THRESHOLDS), bool)
        # drawn before the noise, so that other checkpoints see the same runs
        tau = rng.lognormal(-(TAU_SIGMA**2) / 2, TAU_SIGMA, (2, trials, n, 1))
        arms = np.empty((2, trials, n))
        for arm, mean in enumerate((SCRATCH, SCRATCH / self.ratio)):
            for i in range(trials):  # not all at once: the curves of a fine grid are many
                scores = self._rise(steps / (mean * tau[arm, i]))
                scores = scores + 0.005 * rng.standard_normal(scores.shape)
                arrived = measures.arrivals(steps, scores, THRESHOLDS, BUDGET, self.interpolate)
                arms[arm, i] = measures.mean_times(measures.restricted_times(arrived, BUDGET), which)
        return arms[0], arms[1]

    def estimate(self, sample: Sample) -> float:
        """Log of the ratio of means."""
        return _log_ratio(sample)


def _log_ratio(sample: Sample) -> float:
    return math.log(sample[0].mean() / sample[1].mean())


def pairs(sample: Sample) -> list[tuple[np.ndarray, np.ndarray]]:
    """The two arms of each task of a suite's sample."""
    return list(zip(sample[::2], sample[1::2], strict=True))
