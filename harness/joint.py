"""Joint against separate (PROTOCOL §4.8): does one network on all K tasks need fewer total steps than K?

Time is total steps N, summed over all tasks and networks. K separate networks form a *set*, the runs of
one seed of every task; separate runs are independent, so any pairing into sets is as good. In *lock-step*
all K networks of a set are at N / K steps each, so a set has the same axes as a joint network,
``(tasks, checkpoints)``. *One after another* the networks are trained in turn, each until it is done.
The budget is K B in every mode.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from harness import measures, statistics
from harness.measures import ArmCurves, FoldMeasures
from harness.statistics import Estimate
from harness.store import COMPLETE

SEPARATE = "separate"
"""The arm whose networks learn one task each."""
SUITE = "mean of tasks"
"""Name of the row over all tasks in the tables below."""
AT_ONCE, SOMETIME = "all at one checkpoint", "each at some time"
LOCK_STEP, IN_TURN = "lock-step", "one after another"
"""What "all tasks are at θ" can mean: the first two of a joint network, the others of a separate set."""


@dataclasses.dataclass(frozen=True, eq=False)
class JointCurves:
    """The learning curves of the joint networks of one arm, or of sets of separate networks."""

    arm: str
    """Name of the arm."""
    tasks: tuple[str, ...]
    """Names of the K tasks, in the plan's order."""
    runs: tuple[tuple[str, ...], ...]
    """Ids of the runs: one of each joint network, K of each separate set."""
    steps: np.ndarray
    """Total steps N of the checkpoints, ``(checkpoints,)``; of separate sets in lock-step."""
    scores: np.ndarray
    """``(networks or sets, tasks, checkpoints)``, NaN from a divergence on."""
    thresholds: np.ndarray
    """θ grid, ``(thresholds,)``."""
    budget: float
    """K B, in total steps."""
    interpolated: bool
    """Whether arrivals are interpolated between checkpoints, see :func:`harness.measures.arrivals`."""

    @property
    def pairs(self) -> int:
        """Number of (task, θ) pairs."""
        return len(self.tasks) * len(self.thresholds)

    @property
    def count(self) -> int:
        """Number of joint networks or separate sets."""
        return len(self.scores)

    @property
    def arrivals(self) -> np.ndarray:
        """T of every task in total steps, ``(networks, tasks, thresholds)``; ``inf`` where censored."""
        flat = self.scores.reshape(-1, len(self.steps))
        times = measures.arrivals(self.steps, flat, self.thresholds, self.budget, self.interpolated)
        return times.reshape(*self.scores.shape[:2], len(self.thresholds))

    @property
    def final_scores(self) -> np.ndarray:
        """Mean of the last three checkpoints, ``(networks or sets, tasks)``; 0 after a divergence."""
        flat = self.scores.reshape(-1, len(self.steps))
        return measures.asymptotes(flat).reshape(self.scores.shape[:2])

    @property
    def reached(self) -> np.ndarray:
        """Share of (task, θ) pairs reached by the budget, ``(networks or sets,)``."""
        return np.isfinite(self.arrivals).mean(axis=(1, 2))

    @property
    def at_once(self) -> np.ndarray:
        """First checkpoint at which all tasks have arrived at θ together, ``(networks, thresholds)``.

        Interpolated, it is where the last of their scores crosses θ in the gap before it.
        """
        flat = self.scores.reshape(-1, len(self.steps))
        levels = measures.arrival_levels(flat).reshape(self.scores.shape)
        times = measures.level_arrivals(self.steps, levels.min(axis=1), self.thresholds, self.budget)
        if not self.interpolated:
            return times
        of_tasks = self.scores.swapaxes(0, 1)
        crossed = [measures.crossings(self.steps, scores, self.thresholds, times) for scores in of_tasks]
        return np.max(crossed, axis=0)

    @property
    def sometime(self) -> np.ndarray:
        """When the last task arrives: max T_k in total steps; of a separate set in lock-step, K max T_k."""
        return self.arrivals.max(axis=1)

    @property
    def in_turn(self) -> np.ndarray:
        """Σ T_k of the networks of a separate set, one after another; ``inf`` if one never arrives."""
        # in lock-step a network has made N / K steps of its own
        return self.arrivals.sum(axis=1) / len(self.tasks)

    @property
    def shown(self) -> np.ndarray:
        """Steps at which shares are shown, ``(shown,)``, see :func:`harness.measures.shown_steps`."""
        return measures.shown_steps(self.steps, self.interpolated)

    @property
    def shares(self) -> np.ndarray:
        """Share of (task, θ) pairs reached by each of the steps shown, ``(networks or sets, shown)``."""
        return measures.reached_shares(self.shown, self.arrivals.reshape(self.count, self.pairs))

    @property
    def shares_in_turn(self) -> np.ndarray:
        """The same for a separate set one after another, in the plan's order of tasks.

        A network is trained until it reaches the highest θ or has spent its budget B.
        """
        own = self.arrivals / len(self.tasks)
        spent = np.minimum(own[:, :, -1], self.budget / len(self.tasks))
        before = np.cumsum(spent, axis=1) - spent
        times = own + before[:, :, None]
        return measures.reached_shares(self.shown, times.reshape(self.count, self.pairs))


def budget(plan: Mapping[str, Any]) -> float:
    """K B: most control steps of a network that learns all K tasks, and of a set of separate ones."""
    return float(plan["budget"]) * len(_tasks(plan))


def joint_curves(
    evaluations: pd.DataFrame,
    runs: pd.DataFrame,
    plan: Mapping[str, Any],
    arm: str,
    exclude: Iterable[str] = (),
) -> JointCurves:
    """Collects the complete joint networks of an arm, or the complete sets of separate networks.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: a plan of kind ``joint``.
        arm: name of the arm.
        exclude: ids of runs to leave out, see :func:`harness.measures.damaged_runs`.

    Returns:
        The curves; with no network where none is complete. A set that lacks a network is left out here,
        but :func:`task_times` uses what there is of it.

    Raises:
        ValueError: for an arm that is planned nowhere.
    """
    tasks = _tasks(plan)
    names = tuple(measures.task_name(plan, number) for number in tasks)
    by_seed = _networks(runs, plan, arm, exclude)
    # an arm's runs cover all tasks, one network or K of them
    complete = [members for members in by_seed if set(members) == set(tasks)]
    ids = [[members[number] for number in tasks] for members in complete]
    rows = measures.true_rows(evaluations)
    scores = np.stack(
        [
            measures.score_rows(rows, [of_set[k] for of_set in ids], name, measures.checkpoints(plan, arm))
            for k, name in enumerate(names)
        ],
        axis=1,
    )
    return JointCurves(
        arm,
        names,
        tuple(tuple(dict.fromkeys(of_set)) for of_set in ids),
        measures.checkpoints(plan, arm) * (len(tasks) if arm == SEPARATE else 1),
        scores,
        np.asarray(plan["thresholds"], float),
        budget(plan),
        measures.interpolates(plan),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class TaskTimes:
    """Ȳ of every task that is estimable, in total steps, of separate and of joint networks.

    A run's Ȳ is the mean of Y_θ over the θ that some run of either side reaches on that task. A separate
    run counts K steps for each of its own, as in lock-step.
    """

    arm: str
    """Name of the joint arm."""
    tasks: tuple[str, ...]
    """Names of the estimable tasks."""
    separate: tuple[np.ndarray, ...]
    """Of the separate runs of each of these tasks, ``(n_k,)``, those of incomplete sets too."""
    joint: np.ndarray
    """Of the joint networks, ``(networks, tasks)``."""
    limits: tuple[str, ...]
    """How the first checkpoint limits each speed-up, see :func:`harness.measures.resolution_limit`."""


def task_times(
    evaluations: pd.DataFrame,
    runs: pd.DataFrame,
    plan: Mapping[str, Any],
    joint: JointCurves,
    exclude: Iterable[str] = (),
) -> TaskTimes:
    """Ȳ of all separate runs and of the networks of a joint arm.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: a plan of kind ``joint``.
        joint: curves of the joint arm.
        exclude: ids of runs to leave out.
    """
    of_tasks = task_measures(evaluations, runs, plan, joint, exclude)
    found = [of_task for of_task in of_tasks if of_task.estimable.any()]
    times = [of_task.mean_times[1] for of_task in found]
    return TaskTimes(
        joint.arm,
        tuple(of_task.task for of_task in found),
        tuple(of_task.mean_times[0] for of_task in found),
        np.stack(times, axis=1) if found else np.zeros((joint.count, 0)),
        tuple(of_task.limit for of_task in found),
    )


def task_measures(
    evaluations: pd.DataFrame,
    runs: pd.DataFrame,
    plan: Mapping[str, Any],
    joint: JointCurves,
    exclude: Iterable[str] = (),
) -> tuple[FoldMeasures, ...]:
    """What is read off every task, in total steps: separate runs against the networks of a joint arm.

    Args:
        evaluations: :meth:`harness.store.Store.evaluations` with the column ``score``.
        runs: :meth:`harness.store.Store.runs`.
        plan: a plan of kind ``joint``.
        joint: curves of the joint arm.
        exclude: ids of runs to leave out.

    Returns:
        One entry per task, in the plan's order, those that are not estimable too.
    """
    tasks = _tasks(plan)
    rows = measures.true_rows(evaluations)
    members = _networks(runs, plan, SEPARATE, exclude)
    own_steps = measures.checkpoints(plan, SEPARATE)
    found = []
    for k, (number, name) in enumerate(zip(tasks, joint.tasks, strict=True)):
        ids = [of_seed[number] for of_seed in members if number in of_seed]
        scores = measures.score_rows(rows, ids, name, own_steps)
        # in lock-step K networks are at N / K steps each
        separate = _arm_curves(SEPARATE, ids, own_steps * len(tasks), scores)
        networks = [of_network[0] for of_network in joint.runs]
        together = _arm_curves(joint.arm, networks, joint.steps, joint.scores[:, k])
        sides = (number, name, separate, together)
        found.append(measures.fold_measures(*sides, joint.thresholds, joint.budget, joint.interpolated))
    return tuple(found)


def _arm_curves(arm: str, runs: Sequence[str], steps: np.ndarray, scores: np.ndarray) -> ArmCurves:
    """Curves of one task, of runs of which each is a cluster of its own."""
    return ArmCurves(arm, tuple(runs), tuple(enumerate(runs)), steps, scores, np.isnan(scores).any(axis=1))


def speed_ups(times: TaskTimes, rng: np.random.Generator) -> pd.DataFrame:
    """Speed-up of a joint arm over separate networks in lock-step, per task and for the suite.

    The suite's interval and its permutations take whole joint networks
    (:func:`harness.statistics.joint_log_ratio`, :func:`harness.statistics.joint_permutation_p`); those of
    a single task may be read alone, but those of several are not independent.

    Args:
        times: of one joint arm.
        rng: draws the permutations.

    Returns:
        One row per task and one for :data:`SUITE`: ``arm, task, tasks`` (how many it is over),
        ``log_ratio, low, high, p`` (of the t test), ``p_permutation, limit, reason``.
    """
    names = (SEPARATE, times.arm)
    rows = []
    for k, (task, separate) in enumerate(zip(times.tasks, times.separate, strict=True)):
        e = statistics.log_ratio(separate, times.joint[:, k], names=names)
        permuted = statistics.permutation_p(separate, times.joint[:, k], rng)
        rows.append([times.arm, task, 1, e.value, e.low, e.high, e.p, permuted, times.limits[k], e.reason])
    if times.tasks:
        e = statistics.joint_log_ratio(times.separate, times.joint, names=names)
    else:
        e = Estimate(math.nan, reason="no task is estimable")
    permuted = statistics.joint_permutation_p(times.separate, times.joint, rng)
    limit, count = measures.join_limits(times.limits), len(times.tasks)
    rows.append([times.arm, SUITE, count, e.value, e.low, e.high, e.p, permuted, limit, e.reason])
    columns = ["arm", "task", "tasks", "log_ratio", "low", "high", "p", "p_permutation", "limit", "reason"]
    return pd.DataFrame(rows, columns=columns)


def score_table(arms: Sequence[JointCurves]) -> pd.DataFrame:
    """What the networks of each arm score in the end, per task and on average over the tasks.

    Args:
        arms: curves of the arms.

    Returns:
        One row per arm and task, and one for :data:`SUITE`: ``arm, task, n`` (networks or sets), ``score,
        low, high`` (t interval; that of the mean takes a network's mean over tasks as one value),
        ``lowest`` (of a network, or of its mean), ``reason``.
    """
    rows = []
    for curves in arms:
        final = curves.final_scores
        for task, scores in [*zip(curves.tasks, final.T, strict=True), (SUITE, final.mean(axis=1))]:
            e = statistics.one_sample(scores)
            lowest = float(scores.min()) if len(scores) else math.nan
            rows.append([curves.arm, task, len(scores), e.value, e.low, e.high, lowest, e.reason])
    columns = ["arm", "task", "n", "score", "low", "high", "lowest", "reason"]
    return pd.DataFrame(rows, columns=columns)


def reach_table(arms: Sequence[JointCurves]) -> pd.DataFrame:
    """How many networks of each arm bring each task to θ, and in how many total steps.

    Args:
        arms: curves of the arms; separate sets in lock-step.

    Returns:
        One row per arm, task and θ: ``arm, task, theta, n, reached`` (how many got there), ``steps`` (mean
        of their times, restricted to K B for those that did not).
    """
    rows = [
        [curves.arm, task, theta, curves.count, int(np.isfinite(times).sum()), mean]
        for curves in arms
        for task, of_task in zip(curves.tasks, curves.arrivals.swapaxes(0, 1), strict=True)
        for theta, times in zip(curves.thresholds, of_task.T, strict=True)
        for mean in [statistics.one_sample(measures.restricted_times(times, curves.budget)).value]
    ]
    return pd.DataFrame(rows, columns=["arm", "task", "theta", "n", "reached", "steps"])


def completion_times(curves: JointCurves) -> dict[str, np.ndarray]:
    """Total steps until all tasks are at θ, by what that means, ``(networks or sets, thresholds)`` each.

    Returns:
        :data:`LOCK_STEP` and :data:`IN_TURN` of separate sets, :data:`AT_ONCE` and :data:`SOMETIME` of
        joint networks; ``inf`` where censored.
    """
    if curves.arm == SEPARATE:
        return {LOCK_STEP: curves.sometime, IN_TURN: curves.in_turn}
    return {AT_ONCE: curves.at_once, SOMETIME: curves.sometime}


def completion_table(arms: Sequence[JointCurves]) -> pd.DataFrame:
    """How long until all tasks are at θ, restricted to K B.

    Returns:
        One row per arm, meaning and θ: ``arm, mode, theta, n, reached`` (how many got there), ``steps``
        (mean restricted time), ``low, high`` (t interval), ``reason``.
    """
    rows = []
    for curves in arms:
        for mode, times in completion_times(curves).items():
            for theta, column in zip(curves.thresholds, times.T, strict=True):
                e = statistics.one_sample(np.minimum(column, curves.budget))
                reached = int(np.isfinite(column).sum())
                rows.append(
                    [curves.arm, mode, theta, len(column), reached, e.value, e.low, e.high, e.reason]
                )
    columns = ["arm", "mode", "theta", "n", "reached", "steps", "low", "high", "reason"]
    return pd.DataFrame(rows, columns=columns)


def completion_ratios(
    separate: JointCurves, joint: JointCurves, theta: float, rng: np.random.Generator
) -> pd.DataFrame:
    """How many times fewer total steps a joint network needs until all tasks are at one θ.

    Args:
        separate: curves of the separate sets.
        joint: curves of a joint arm.
        theta: one of the thresholds.
        rng: draws the permutations.

    Returns:
        One row per meaning of either side: ``arm, joint_mode, separate_mode, theta, log_ratio, low, high,
        p_permutation, reason``.

    Raises:
        ValueError: for a θ that is not in the grid.
    """
    i = measures.threshold_index(joint.thresholds, theta)
    rows = []
    for mode, times in completion_times(joint).items():
        for other, baseline in completion_times(separate).items():
            before, after = (
                np.minimum(times_of_side[:, i], separate.budget) for times_of_side in (baseline, times)
            )
            if np.isfinite(baseline[:, i]).any() or np.isfinite(times[:, i]).any():
                e = statistics.log_ratio(before, after, names=(separate.arm, joint.arm))
            else:
                e = Estimate(math.nan, reason=f"not estimable: no run reaches θ = {theta:.2f} on all tasks")
            permuted = math.nan if math.isnan(e.value) else statistics.permutation_p(before, after, rng)
            rows.append([joint.arm, mode, other, theta, e.value, e.low, e.high, permuted, e.reason])
    columns = ["arm", "joint_mode", "separate_mode", "theta"]
    return pd.DataFrame(rows, columns=[*columns, "log_ratio", "low", "high", "p_permutation", "reason"])


def share_table(arms: Sequence[JointCurves]) -> pd.DataFrame:
    """Share of (task, θ) pairs reached against total steps up to K B.

    Returns:
        One row per arm, mode and step shown: ``arm, mode`` (empty for joint networks), ``steps, share, low,
        high`` (pointwise t interval over networks or sets), ``n``.
    """
    rows = []
    for curves in arms:
        modes = {"": curves.shares}
        if curves.arm == SEPARATE:
            modes = {LOCK_STEP: curves.shares, IN_TURN: curves.shares_in_turn}
        kept = np.flatnonzero(curves.shown <= curves.budget)
        for mode, shares in modes.items():
            for i in kept:
                e = statistics.one_sample(shares[:, i])
                rows.append([curves.arm, mode, curves.shown[i], e.value, e.low, e.high, curves.count])
    return pd.DataFrame(rows, columns=["arm", "mode", "steps", "share", "low", "high", "n"])


def cost_table(arms: Sequence[JointCurves], runs: pd.DataFrame) -> pd.DataFrame:
    """What a joint network, or a separate set as a whole, spends over the full length of training.

    Args:
        arms: curves of the arms.
        runs: :meth:`harness.store.Store.runs`.

    Returns:
        One row per arm: ``arm, n, networks`` (to a set), and means over networks or sets of ``steps,
        updates`` (of the gradient), ``parameters, wall_seconds``, each summed over the networks of a set.
    """
    recorded = runs.set_index("run")
    names = ["steps", "updates", "parameters", "wall_seconds"]
    rows = []
    for curves in arms:
        sums = [recorded.loc[list(ids), names].sum(skipna=False) for ids in curves.runs]
        spent = pd.DataFrame(sums, columns=names).mean()
        networks = len(curves.tasks) if curves.arm == SEPARATE else 1
        rows.append([curves.arm, curves.count, networks, *spent])
    return pd.DataFrame(rows, columns=["arm", "n", "networks", *names])


def _tasks(plan: Mapping[str, Any]) -> list[int]:
    """Numbers of the tasks that the plan's learning runs learn, sorted."""
    return sorted({number for run in plan["runs"] if run["phase"] == "learn" for number in run["tasks"]})


def _networks(
    runs: pd.DataFrame, plan: Mapping[str, Any], arm: str, exclude: Iterable[str]
) -> list[dict[int, str]]:
    """For each seed of an arm, the run that learned each task; a joint run stands for all of them."""
    learned = {run["id"]: run["tasks"] for run in plan["runs"] if run["phase"] == "learn"}
    of_arm = runs[(runs["phase"] == "learn") & (runs["arm"] == arm)]
    if of_arm.empty:
        raise ValueError(f"no run of arm {arm!r} is planned; there are {sorted(set(runs['arm']))}")
    done = of_arm[of_arm["status"].isin(COMPLETE) & ~of_arm["run"].isin(list(exclude))]
    found: dict[int, dict[int, str]] = {}
    for run in done.sort_values(["seed", "run"]).itertuples():
        for number in learned[run.run]:
            found.setdefault(int(run.seed), {})[number] = run.run
    return [found[seed] for seed in sorted(found)]
