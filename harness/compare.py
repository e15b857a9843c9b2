"""Several finished plans side by side: paired by fold, or as lists by the primary measure and by score.

Two agents are compared on what they share: the tasks, the scores, the thresholds, the budget and how it
was measured. Whatever else differs is what is compared, or is said.
"""

from __future__ import annotations

import dataclasses
import html
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from harness import joint, markdown, measures, statistics
from harness.measures import FoldMeasures
from harness.report import Analysis, agent, analyse, words
from harness.report.analysis import rng
from harness.report.words import factor, p_is
from harness.statistics import Estimate
from harness.store import Store, differences

ARMS = ("scratch", "transfer")
KIND, JOINT = "leave_one_out", "joint"

MUST_AGREE: dict[str, Callable[[Mapping[str, Any]], Any]] = {
    "kind": lambda plan: plan.get("kind", KIND),
    "family": lambda plan: plan["family"],
    "version": lambda plan: plan["version"],
    "tasks": lambda plan: plan["tasks"],
    "reference scores": lambda plan: plan["reference"]["scores"],
    "primary measure": lambda plan: plan["primary"],
    "arrivals": measures.dating,
    "thresholds": lambda plan: plan["thresholds"],
    "worlds per run": lambda plan: plan["worlds_per_run"],
    "episodes": lambda plan: (plan["first_episodes"], plan["episodes"]),
}
"""What plans must have in common; the budget besides, but for its rounding up to whole rollouts."""

MAY_DIFFER = ("conditioning", "layout", "pretrain_budget", "checkpoints", "tuning", "seeds",
              "root_seed", "mtenvs")  # fmt: skip
"""Entries of the plan whose differences are what is compared; they are listed with the numbers, as are
those of the agent and of what it takes over from another network."""
OF_LEARNER = ("name", "version", "source", "rollout", "parameters", "config")
"""Entries of the plan's learner that are listed so; the others say what the agent could do."""

_SAME = "the same runs in both plans"
_SHARED = "some runs are the same in both plans"


# --- plans side by side ----------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
    """One plan on one task, or on the mean of tasks. Estimates are logarithms of ratios."""

    task: str
    """Name of the held-out task, or what the mean is over."""
    plan: str
    """Label of the plan."""
    speed_up: Estimate
    """log ρ̄, scratch against transfer within the plan."""
    limit: str
    """How the first checkpoint limits it, see :func:`harness.measures.resolution_limit`."""
    runs: tuple[int, int]
    """Complete runs of scratch and transfer."""
    arrived: tuple[int, int]
    """How many of them arrive at the highest θ by the budget."""
    against: Mapping[str, Estimate]
    """Against the first plan, above 0 where this one is faster: by arm the ratio of the first plan's mean
    time to this one's, and under ``speed_up`` the ratio of this plan's speed-up to the first one's. Empty
    for the first plan."""
    limits: Mapping[str, str]
    """How the first checkpoint limits these ratios."""
    p: Mapping[str, float]
    """Two-sided p that these ratios are 1: of the arms by permuting the plans' labels within each task, of
    ``speed_up``, whose four arms cannot be exchanged, by the t test; NaN with shared or too few runs."""


@dataclasses.dataclass(frozen=True, eq=False)
class Comparison:
    """Several plans side by side; ratios are against the first."""

    plans: tuple[str, ...]
    """Labels: names of the agents, or of directories where agents have one name."""
    notes: tuple[str, ...]
    """In what the plans differ and how they stand, as sentences."""
    budget: float
    """Common budget."""
    threshold: float
    """The highest θ, at which arrivals are counted."""
    rows: tuple[Row, ...]
    """By task, the mean over tasks last, and by plan."""

    def table(self) -> pd.DataFrame:
        """The numbers, tidy: one row per task and plan, ratios with interval or the reason for none."""
        rows = []
        for row in self.rows:
            cells: dict[str, Any] = {"task": row.task, "plan": row.plan}
            for arm, runs, arrived in zip(ARMS, row.runs, row.arrived, strict=True):
                cells |= {f"{arm}_runs": runs, f"{arm}_arrived": arrived}
            estimates = {"speed_up": (row.speed_up, row.limit)}
            for name, estimate in row.against.items():
                cells["against"] = self.plans[0]
                estimates[f"{name}_ratio"] = (estimate, row.limits[name])
            for name, (estimate, limit) in estimates.items():
                ratio = estimate.exp()
                cells |= {
                    name: ratio.value,
                    f"{name}_low": ratio.low,
                    f"{name}_high": ratio.high,
                    f"{name}_limit": limit,
                    f"{name}_no_interval": ratio.reason,
                }
            cells |= {f"{name}_ratio_p": p for name, p in row.p.items()}
            rows.append(cells)
        return pd.DataFrame(rows)

    def text(self) -> str:
        """The same as a table for the terminal."""
        first = self.plans[0]
        header = ["held-out task", "plan", "speed-up [95% interval]",
                  *(f"{arm} θ={self.threshold:.2f}" for arm in ARMS),
                  *(f"{name}, × {first}" for name in (*ARMS, "speed-up"))]  # fmt: skip
        rows = []
        for i, row in enumerate(self.rows):
            repeated = i > 0 and self.rows[i - 1].task == row.task
            # one test for all tasks; those of single tasks would have to be adjusted for their number
            shown = row.p if i >= len(self.rows) - len(self.plans) else {}
            tests = {name: f", p {p_is(p)}" for name, p in shown.items() if not math.isnan(p)}
            rows.append(
                [
                    "" if repeated else row.task,
                    row.plan,
                    ratio_text(row.speed_up, row.limit),
                    *(f"{a}/{n} arrive" for a, n in zip(row.arrived, row.runs, strict=True)),
                    *(
                        ratio_text(e, row.limits[name]) + tests.get(name, "")
                        for name, e in row.against.items()
                    ),
                ]
            )
        return "\n".join(
            [
                f"{' and '.join(self.plans)}, budget {self.budget:,.0f} steps",
                *self.notes,
                f"× {first}: how many times faster than {first}, in steps, from scratch and with transfer, "
                "and the ratio of the speed-ups; 95% t intervals, of single tasks not adjusted for their "
                "number.",
                "p of the mean: of the arms by permuting the plans' labels within each task, of the ratio "
                "of speed-ups by the t test.",
                "",
                *_aligned(header, rows),
            ]
        )


def compare(directories: Sequence[str | os.PathLike[str]]) -> Comparison:
    """Sets finished leave-one-out plans side by side, paired by fold.

    Every number is computed up to the smallest of the budgets, over the folds that all plans have. Plans
    are independent of one another: equal seed numbers are no pairs. Where runs are the same ones, that is
    said instead of an interval.

    Args:
        directories: of two or more experiments; ratios are against the first.

    Raises:
        StoreError: if a directory holds no readable plan or rows.
        ValueError: for fewer than two plans, one named twice, or plans that cannot be compared, by what
            they differ in.
    """
    paths = [Path(directory) for directory in directories]
    if len(paths) < 2:
        raise ValueError(f"a comparison needs at least two plans, got {len(paths)}")
    stores = [Store(path) for path in paths]
    for store in stores:
        store.check_reported("version")
    plans = [store.plan for store in stores]
    names = labels(plans, paths)
    _check(plans, paths)
    analyses = [analyse(path) for path in paths]
    budget = min(plan["budget"] for plan in plans)
    folds = [k for k in plans[0]["folds"] if all(k in plan["folds"] for plan in plans)]
    measured = [[_fold(a, k, budget) for k in folds] for a in analyses]
    rows = [
        _row(name, of_plan[i], measured[0][i], first=name == names[0])
        for i in range(len(folds))
        for name, of_plan in zip(names, measured, strict=True)
    ]
    return Comparison(
        names,
        (*_notes(names, analyses, folds), *_mixed(names, measured)),
        budget,
        float(plans[0]["thresholds"][-1]),
        (*rows, *_means(names, rows, measured)),
    )


def labels(plans: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> tuple[str, ...]:
    """What to call each plan: its agent, else its directory's name, else its path: what tells all apart.

    Raises:
        ValueError: if a plan is there twice.
    """
    for i, plan in enumerate(plans):
        for j in range(i):
            if plan["sha256"] == plans[j]["sha256"] or paths[i] == paths[j]:
                raise ValueError(f"{paths[j]} and {paths[i]} hold the same plan; name others")
    for found in (
        [plan["learner"]["name"] for plan in plans],
        [path.resolve().name for path in paths],
    ):
        if len(set(found)) == len(found):
            return tuple(found)
    return tuple(map(str, paths))


def incomparable(first: Mapping[str, Any], plan: Mapping[str, Any], but: Sequence[str] = ()) -> str:
    """In what two plans differ that must agree, as the end of a sentence; empty where there is nothing.

    Args:
        first: a plan.
        plan: another one.
        but: what need not agree after all, of :data:`MUST_AGREE`.
    """
    for name, read in MUST_AGREE.items():
        if name not in but and read(first) != read(plan):
            values = [str(read(p)) for p in (first, plan)]
            which = f": {values[0]} and {values[1]}" if max(map(len, values)) <= 60 else ""
            return f"{name}{which}; plans can be compared that agree in {', '.join(MUST_AGREE)} and budget"
    budgets = [p["budget"] for p in (first, plan)]
    # a budget is rounded up to whole rollouts of its learner, and no further apart is no difference
    if budgets[0] != budgets[1] and abs(budgets[0] - budgets[1]) >= max(map(_rollout, (first, plan))):
        return (
            f"budget: {budgets[0]} and {budgets[1]} steps, by more than its rounding to whole rollouts; a "
            "longer budget gives other times to runs that do not arrive"
        )
    return ""


def _check(plans: Sequence[Mapping[str, Any]], paths: Sequence[Path]) -> None:
    first = plans[0]
    for plan, path in zip(plans[1:], paths[1:], strict=True):
        if difference := incomparable(first, plan):
            raise ValueError(f"{paths[0]} and {path} differ in {difference}")
    if first.get("kind", KIND) != KIND:
        raise ValueError(
            f"{paths[0]} is a plan of kind {first['kind']!r}; valid: {KIND}. What the "
            "networks of several joint plans reach is listed by 'mtenvs leaderboard'"
        )
    for plan, path in zip(plans, paths, strict=True):
        if absent := [arm for arm in ARMS if arm not in plan["arms"]]:
            raise ValueError(f"{path} has no arm {', '.join(absent)}; it has {', '.join(plan['arms'])}")
    if not set(first["folds"]).intersection(*(plan["folds"] for plan in plans[1:])):
        raise ValueError(f"no fold is in all plans: {' and '.join(str(plan['folds']) for plan in plans)}")


def _rollout(plan: Mapping[str, Any]) -> int:
    """Control steps of one rollout of all worlds of a run."""
    return int(plan["learner"]["rollout"] * plan["worlds_per_run"])


def _fold(analysis: Analysis, number: int, budget: float) -> FoldMeasures:
    """The measures of a fold, up to the common budget."""
    (fold,) = [f.measures for f in analysis.folds if f.measures.fold == number]
    if budget == analysis.plan["budget"]:
        return fold
    given = (fold.fold, fold.task, *fold.curves, fold.thresholds)
    return measures.fold_measures(*given, budget, fold.interpolated)


def _row(name: str, fold: FoldMeasures, base: FoldMeasures, first: bool) -> Row:
    against: dict[str, Estimate] = {}
    limits: dict[str, str] = {}
    p: dict[str, float] = {}
    speed_up = statistics.log_ratio(*fold.mean_times)
    if not first:
        same = []
        for arm, name_of_arm in enumerate(ARMS):
            estimate, limits[name_of_arm] = _against(base, fold, arm)
            against[name_of_arm] = estimate
            p[name_of_arm] = _permutation_p([(base, fold)], arm) if _tested(estimate) else math.nan
            same.append(estimate.reason in (_SAME, _SHARED))
        of_base = statistics.log_ratio(*base.mean_times)
        reasons = [_SHARED] * any(same) + [
            e.reason for e in (speed_up, of_base) if e.reason and not e.reason.startswith("zero variance")
        ]
        # log(ρ / ρ_first) has the variances of four independent arms
        ratio = statistics.t_interval(
            speed_up.value - of_base.value,
            (*speed_up.parts, *of_base.parts),
            reason=reasons[0] if reasons else "",
        )
        against["speed_up"], limits["speed_up"] = ratio, _ratio_limit(fold.limit, base.limit)
        p["speed_up"] = ratio.p
    return Row(
        fold.task,
        name,
        speed_up,
        fold.limit,
        (len(fold.curves[0].runs), len(fold.curves[1].runs)),
        (_arrived(fold, 0), _arrived(fold, 1)),
        against,
        limits,
        p,
    )


def _tested(estimate: Estimate) -> bool:
    """Whether two plans may be told apart by permutation: not where they share runs."""
    return not math.isnan(estimate.value) and estimate.reason not in (_SAME, _SHARED)


def _permutation_p(pairs: Sequence[tuple[FoldMeasures, FoldMeasures]], arm: int) -> float:
    """p that an arm takes as long in two plans, labels of the plans permuted within each task."""
    draws = rng("compare", arm, *(base.task for base, _ in pairs))
    return statistics.suite_permutation_p([_mean_times(*pair, arm) for pair in pairs], draws)


def _mean_times(base: FoldMeasures, fold: FoldMeasures, arm: int) -> tuple[np.ndarray, np.ndarray]:
    """Ȳ of one arm in two plans, ``(clusters,)`` each, over θ that a run of either reaches."""
    which = measures.estimable(base.arrivals[arm], fold.arrivals[arm])
    return measures.mean_times(base.times[arm], which), measures.mean_times(fold.times[arm], which)


def _mixed(names: Sequence[str], measured: Sequence[Sequence[FoldMeasures]]) -> Iterable[str]:
    for name, folds in zip(names, measured, strict=True):
        mixed = [f"{arm} on {fold.task}" for fold in folds for arm, _ in fold.mixed]
        if mixed:
            yield (
                f"{name} has mixed outcomes, {', '.join(mixed)}: some runs arrive within the budget and "
                "others do not, so t intervals may be too narrow; read p and the arrivals with them."
            )


def _arrived(fold: FoldMeasures, arm: int) -> int:
    return int(np.isfinite(fold.arrivals[arm][:, -1]).sum())


def _against(base: FoldMeasures, fold: FoldMeasures, arm: int) -> tuple[Estimate, str]:
    """log of the ratio of mean times of one arm in two plans, over θ that a run of either reaches."""
    pair = (base, fold)
    for one in pair:
        if not one.curves[arm].count:
            return Estimate(math.nan, reason=f"no run of {ARMS[arm]} is complete"), ""
    which = measures.estimable(*(one.arrivals[arm] for one in pair))
    of_base, own = _mean_times(base, fold, arm)
    estimate = statistics.log_ratio(of_base, own)
    if math.isnan(estimate.value):
        return estimate, ""
    first, second = (
        dict(zip(one.curves[arm].runs, one.curves[arm].scores.tolist(), strict=True)) for one in pair
    )
    shared = [run for run in first if run in second and str(first[run]) == str(second[run])]
    if shared:
        reason = _SAME if len(shared) == len(first) == len(second) else _SHARED
        return Estimate(estimate.value, reason=reason), ""
    shares = [
        measures.first_checkpoint_share(one.times[arm], which, one.curves[arm].steps[1]) for one in pair
    ]
    if estimate.reason.startswith("one seed"):
        estimate = dataclasses.replace(estimate, reason=f"one seed in {ARMS[arm]}")
    elif estimate.reason:
        estimate = dataclasses.replace(estimate, reason="zero variance in both plans")
    return estimate, measures.resolution_limit(*shares)


def _ratio_limit(numerator: str, denominator: str) -> str:
    """How the limits of two numbers limit their ratio."""
    turned = {"at least": "at most", "at most": "at least"}.get(denominator, denominator)
    return measures.join_limits([numerator, turned])


def _means(
    names: Sequence[str], rows: Sequence[Row], measured: Sequence[Sequence[FoldMeasures]]
) -> list[Row]:
    """The mean over the tasks on which every number of every plan can be estimated."""
    by_task: dict[str, list[Row]] = {}
    for row in rows:
        by_task.setdefault(row.task, []).append(row)
    tasks = [
        of_task
        for of_task in by_task.values()
        if not any(math.isnan(e.value) for row in of_task for e in (row.speed_up, *row.against.values()))
    ]
    title = f"mean of {len(tasks)} task{'s' * (len(tasks) != 1)}"
    means = []
    for i, name in enumerate(names):
        chosen = [of_task[i] for of_task in tasks]
        keys = list(rows[i].against)
        against = {key: _mean([row.against[key] for row in chosen]) for key in keys}
        known = {row.task for row in chosen}
        pairs = [pair for pair in zip(measured[0], measured[i], strict=True) if pair[0].task in known]
        p = {
            key: (against[key].p if key == "speed_up" else _permutation_p(pairs, ARMS.index(key)))
            if _tested(against[key])
            else math.nan
            for key in keys
        }
        means.append(
            Row(
                title,
                name,
                _mean([row.speed_up for row in chosen]),
                measures.join_limits(row.limit for row in chosen),
                (sum(row.runs[0] for row in chosen), sum(row.runs[1] for row in chosen)),
                (sum(row.arrived[0] for row in chosen), sum(row.arrived[1] for row in chosen)),
                against,
                {key: measures.join_limits(row.limits[key] for row in chosen) for key in keys},
                p,
            )
        )
    return means


def _mean(estimates: Sequence[Estimate]) -> Estimate:
    mean = statistics.suite_mean(estimates)
    reasons = [e.reason for e in estimates if e.reason in (_SAME, _SHARED)]
    return Estimate(mean.value, reason=reasons[0]) if reasons else mean


def _notes(names: Sequence[str], analyses: Sequence[Analysis], folds: Sequence[int]) -> Iterable[str]:
    plans = [analysis.plan for analysis in analyses]
    circumstances = [_circumstances(plan) for plan in plans]
    of_each = ""
    if len({plan["learner"]["name"] for plan in plans}) > 1:
        # of another algorithm they stand for other things
        for of_plan in circumstances:
            del of_plan["learner"]["config"], of_plan["learner"]["source"]
        of_each = " Each has its agent's hyperparameters, which are in its report."
    if found := differences(circumstances):
        yield f"They differ in {'; '.join(found)}.{of_each}"
    for name, plan in zip(names, plans, strict=True):
        if clauses := agent.unusual(plan):
            yield f"{name} is not the usual experiment: {clauses}."
    if len({plan["budget"] for plan in plans}) > 1:
        budgets = ", ".join(f"{plan['budget']:,}" for plan in plans)
        yield f"Budgets of {budgets} steps differ by their rounding to whole rollouts; the smallest holds."
    for name, analysis in zip(names, analyses, strict=True):
        left = [measures.task_name(analysis.plan, k) for k in analysis.plan["folds"] if k not in folds]
        if left:
            yield f"Not all plans have {', '.join(left)}, which {name} has: left out."
        if analysis.marks:
            yield f"{name} is {' and '.join(analysis.marks)}."
        if analysis.physics:
            yield f"{name}: {analysis.physics}"


def _circumstances(plan: Mapping[str, Any]) -> dict[str, Any]:
    """What of a plan may differ from those that it is compared with."""
    learner = {key: plan["learner"].get(key) for key in OF_LEARNER}
    handed_on = ", ".join(agent.departures(plan)) or "as usual"
    return {"learner": learner, **{key: plan.get(key) for key in MAY_DIFFER}, "handed on": handed_on}


# --- all plans of a directory ----------------------------------------------------------------------

JOINT_COLUMNS = [
    "group", "plan", "family", "agent", "architecture", "variant", "arm", "tasks", "total_steps", "seeds",
    "networks", "score", "low", "high", "no_interval", "reached", "updates", "parameters", "minutes",
    "worlds", "marks",
]  # fmt: skip
"""Columns of the table of joint networks."""


@dataclasses.dataclass(frozen=True, eq=False)
class Leaderboard:
    """Finished plans by the primary measure, and those of joint networks by their score."""

    table: pd.DataFrame
    """One row per plan: ``rank`` (within its group; 0 for none), ``group`` (a number; plans of one group
    can be compared), ``plan`` (its directory), ``family``, ``agent``,
    ``architecture`` (of an agent that has a choice), ``variant`` (what sets the plan apart from its
    agent's usual one), ``speed_up``, ``low``, ``high``, ``limit``, ``no_interval`` (why), ``over`` (the
    set of folds that the plan named as its headline), ``folds``, ``tasks``, ``seeds``, ``budget``,
    ``marks``."""
    joint: pd.DataFrame
    """One row per joint arm of a joint plan: ``group``, ``plan``, ``family``, ``agent``, ``architecture``,
    ``variant``, ``arm``, ``tasks`` (that the network learns), ``total_steps`` (K·B), ``seeds`` (planned)
    and ``networks`` (complete); ``score, low, high`` (mean over the tasks of the final score) and
    ``no_interval`` (why); ``reached`` (mean share of (task, θ) pairs by K·B); and means per network of
    ``updates`` (of the gradient), ``parameters, minutes``; ``worlds`` (of a run), ``marks``."""
    left_out: tuple[str, ...]
    """Plans that have no place in them, with the reason."""

    def text(self) -> str:
        """For the terminal."""
        return "\n\n".join(
            "\n".join([*filter(None, [title]), *_aligned(header, rows), "", *remarks])
            for title, header, rows, remarks in self._tables()
        )

    def markdown(self) -> str:
        """As Markdown tables."""
        return "\n\n".join(
            "\n".join(
                [
                    *([f"{title}:", ""] if title else []),
                    *_piped(header, rows),
                    *([""] if remarks else []),
                    *(f"- {remark}" for remark in remarks),
                ]
            )
            for title, header, rows, remarks in self._tables()
        )

    def numbers(self) -> pd.DataFrame:
        """Both tables as one, tidy: ``kind`` says which; columns that neither fills are left out."""
        tables = {KIND: self.table, JOINT: self.joint}
        rows = [{"kind": kind, **row} for kind, of in tables.items() for row in of.to_dict("records")]
        names = dict.fromkeys(["kind", *self.table.columns, *self.joint.columns])
        return pd.DataFrame(rows, columns=[*names]).dropna(axis="columns", how="all")

    def _tables(self) -> list[tuple[str, list[str], list[list[str]], list[str]]]:
        """Title, header, rows and remarks of each table that has rows, and what is left out of both."""
        left = [f"left out: {line}" for line in self.left_out]
        found = []
        if len(self.table) or not len(self.joint):
            found.append(("", *_marked(*self._cells()), self._remarks()))
        if len(self.joint):
            cells = _marked(*self._joint_cells())
            found.append(("One network on all tasks", *cells, self._joint_remarks()))
        found[-1][-1].extend(left)
        return found

    def _cells(self) -> tuple[list[str], list[list[str]]]:
        header = ["", "group", "plan", "family", "agent", "speed-up [95% interval]", "over", "folds",
                  "seeds", "budget", "marks"]  # fmt: skip
        rows = []
        for row in self.table.itertuples():
            estimate = Estimate(row.speed_up, row.low, row.high, reason=row.no_interval)
            rows.append(
                [
                    str(row.rank) if row.rank else "–",
                    str(row.group),
                    row.plan,
                    row.family,
                    _agent(row.agent, row.architecture, row.variant),
                    _ratio_text(estimate, row.limit),
                    row.over.replace("_", " "),
                    f"{row.folds}/{row.tasks}",
                    str(row.seeds),
                    f"{row.budget:,}",
                    row.marks,
                ]
            )
        return header, rows

    def _remarks(self) -> list[str]:
        ranked = "Exploratory and incomplete plans, and those without an interval, are not ranked; they "
        ranked = f"{ranked}stand below. " * bool((self.table["rank"] == 0).any())
        return [
            f"{ranked}Ranks count within a group: plans of one family, version, budget, number of worlds, "
            "set of folds, dating of arrivals and way of measuring. Intervals that overlap are no order: "
            "“mtenvs compare” sets plans of one group side by side.",
        ]

    def _joint_cells(self) -> tuple[list[str], list[list[str]]]:
        header = ["group", "plan", "family", "agent", "architecture", "arm", "total steps", "seeds",
                  "score [95% interval]", "θ reached", "updates", "parameters", "min per run",
                  "marks"]  # fmt: skip
        rows = [
            [
                str(row.group),
                row.plan,
                row.family,
                _agent(row.agent, row.variant),
                row.architecture or "–",
                row.arm,
                f"{row.total_steps:,}",
                str(row.seeds) if row.networks == row.seeds else f"{row.networks} of {row.seeds}",
                words.score(Estimate(row.score, row.low, row.high, reason=row.no_interval)),
                "–" if math.isnan(row.reached) else f"{row.reached:.0%}",
                words.count(row.updates),
                words.count(row.parameters),
                words.number(row.minutes, 1),
                row.marks,
            ]
            for row in self.joint.itertuples()
        ]
        return header, rows

    def _joint_remarks(self) -> list[str]:
        return [
            "Score: mean over tasks of the last three checkpoints' g, 0 a random policy and 1 the "
            "reference, with 95% t intervals over networks. θ reached: share of (task, θ) pairs by the "
            "total steps. Scores may be compared within a group: plans of one family, version, tasks, "
            "budget and way of measuring, whatever their number of worlds. They stand in the order of "
            "their scores, which is no ranking where intervals overlap. Minutes of a run are its share of "
            "the batch that it trained in."
        ]


def _marked(header: list[str], rows: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """A table without its last column, the marks, where no row has any."""
    if any(row[-1] for row in rows):
        return header, rows
    return header[:-1], [row[:-1] for row in rows]


def leaderboard(directory: str | os.PathLike[str], check: Callable[[Path], object] = Store) -> Leaderboard:
    """Lists all leave-one-out plans below a directory by the primary measure, and joint ones by score.

    Plans are ranked within groups that can be compared (:func:`incomparable`) and have the same folds and
    headline. Those that are exploratory, incomplete or without an interval have no rank and stand below
    those that have one; plans without an estimate stand last. Networks that learned all tasks together
    have a table of their own.

    Args:
        directory: searched for ``plan.json`` at any depth.
        check: called with every plan's directory; a ValueError leaves it out with that reason.

    Raises:
        ValueError: if there is no plan at all.
    """
    root = Path(directory)
    found = sorted(path.parent for path in root.rglob("plan.json"))
    if not found:
        raise ValueError(f"no plan.json in {root} or below it; name a directory of finished experiments")
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    groups: list[Mapping[str, Any]] = []
    together: list[dict[str, Any]] = []
    joint_groups: list[Mapping[str, Any]] = []
    for path in found:
        name = str(path.relative_to(root)) if path != root else root.resolve().name
        try:
            check(path)
            store = Store(path)
            store.check_reported("version")
            plan = store.plan
            if (kind := plan.get("kind", KIND)) not in (KIND, JOINT):
                left_out.append(f"{name} is a plan of kind {kind}, which has no speed-up over folds")
                continue
            analysis = analyse(path)
            if kind == JOINT:
                together += _joint_rows(name, analysis, _joint_group(joint_groups, plan))
                continue
        except ValueError as error:
            left_out.append(f"{name}: {error}")
            continue
        headline = analysis.headline
        ratio = headline.log_ratio.exp()
        marks = [*analysis.marks, *_physics(analysis)]
        marks += ["arrivals at checkpoints"] * (not analysis.interpolated)
        if len(headline.estimable) < len(plan["folds"]):
            # the mean is not over all that its group is about
            marks.append(f"{len(headline.estimable)} of {len(plan['folds'])} folds")
        rows.append(
            {
                "group": _group(groups, plan),
                "ranked": not analysis.marks and not ratio.reason,
                "plan": name,
                "family": f"{plan['family']}-v{plan['version']}",
                **_learner(plan),
                "speed_up": ratio.value,
                "low": ratio.low,
                "high": ratio.high,
                "limit": headline.limit,
                "no_interval": ratio.reason,
                "over": plan["headline"],
                "folds": len(headline.estimable),
                "tasks": len(plan["tasks"]),
                "seeds": plan["seeds"],
                "budget": plan["budget"],
                "marks": ", ".join(marks),
            }
        )
    rows.sort(
        key=lambda r: (
            math.isnan(r["speed_up"]),
            not r["ranked"],
            r["group"],
            -np.nan_to_num(r["speed_up"]),
            r["plan"],
        )
    )
    ranks = [0] * len(groups)
    for row in rows:
        ranks[row["group"] - 1] += row["ranked"]
        row["rank"] = ranks[row["group"] - 1] * row["ranked"]
    together.sort(key=lambda r: (r["group"], math.isnan(r["score"]), -np.nan_to_num(r["score"]), r["plan"]))
    names = ["rank", "group", "plan", "family", "agent", "architecture", "variant", "speed_up", "low",
             "high", "limit", "no_interval", "over", "folds", "tasks", "seeds", "budget",
             "marks"]  # fmt: skip
    return Leaderboard(
        pd.DataFrame(rows, columns=names),
        pd.DataFrame(together, columns=JOINT_COLUMNS),
        tuple(left_out),
    )


def _learner(plan: Mapping[str, Any]) -> dict[str, str]:
    """Who learned, in a row of either table."""
    return {
        "agent": str(plan["learner"]["name"]),
        "architecture": agent.architecture(plan),
        "variant": agent.variant(plan),
    }


def _physics(analysis: Analysis) -> list[str]:
    """What stepped the worlds, as a mark."""
    return [f"physics {' and '.join(analysis.backends)}"] * bool(analysis.physics)


def _joint_rows(name: str, analysis: Analysis, group: int) -> list[dict[str, Any]]:
    """The joint arms of a plan, a row each."""
    plan = analysis.plan
    rows = []
    for arm in analysis.arms:
        if arm == joint.SEPARATE:
            continue
        given = (analysis.evaluations, analysis.runs, plan)
        curves = joint.joint_curves(*given, arm, analysis.damaged)
        scores = joint.score_table([curves]).set_index("task").loc[joint.SUITE]
        costs = joint.cost_table([curves], analysis.runs).iloc[0]
        rows.append(
            {
                "group": group,
                "plan": name,
                "family": f"{plan['family']}-v{plan['version']}",
                **_learner(plan),
                "arm": arm,
                "tasks": len(curves.tasks),
                "total_steps": int(curves.budget),
                "seeds": plan["seeds"],
                "networks": curves.count,
                "score": scores["score"],
                "low": scores["low"],
                "high": scores["high"],
                "no_interval": scores["reason"],
                "reached": statistics.one_sample(curves.reached).value,
                "updates": costs["updates"],
                "parameters": costs["parameters"],
                "minutes": costs["wall_seconds"] / 60,
                "worlds": plan["worlds_per_run"],
                "marks": ", ".join([*analysis.marks, *_physics(analysis)]),
            }
        )
    return rows


def _joint_group(groups: list[Mapping[str, Any]], plan: Mapping[str, Any]) -> int:
    """As :func:`_group`, of joint plans, whose number of worlds is the agent's own matter."""
    for number, first in enumerate(groups, 1):
        # what counts there is what is reached, whenever it was
        if first["folds"] == plan["folds"] and not incomparable(
            first, plan, ["worlds per run", "arrivals"]
        ):
            return number
    groups.append(plan)
    return len(groups)


def _group(groups: list[Mapping[str, Any]], plan: Mapping[str, Any]) -> int:
    """Number of the group that a plan belongs to, by its first member; a new one if it fits none."""
    for number, first in enumerate(groups, 1):
        same = all(first[name] == plan[name] for name in ("headline", "folds"))
        if same and not incomparable(first, plan):
            return number
    groups.append(plan)
    return len(groups)


# --- words -----------------------------------------------------------------------------------------


def ratio_text(log_ratio: Estimate, limit: str = "") -> str:
    """``2.31 [1.80, 2.97]`` of a logarithm, or the ratio and the reason why there is no interval."""
    return _ratio_text(log_ratio.exp(), limit)


def _ratio_text(ratio: Estimate, limit: str) -> str:
    if math.isnan(ratio.value):
        return ratio.reason
    sign = {"at least": "≥ ", "at most": "≤ ", "unresolved": "≈ "}.get(limit, "")
    value, low, high = map(factor, (ratio.value, ratio.low, ratio.high))
    return f"{sign}{value} ({ratio.reason})" if ratio.reason else f"{sign}{value} [{low}, {high}]"


def _agent(name: str, *apart: str) -> str:
    """An agent's name, and in brackets what sets it apart."""
    known = ", ".join(filter(None, apart))
    return f"{name} ({known})" if known else name


def _piped(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table; what plans name things is neither HTML nor a link there."""
    escaped = [
        [html.escape(cell, quote=False).replace("|", "\\|").replace("](", "]\\(") for cell in row]
        for row in rows
    ]
    return markdown.table(header, escaped).splitlines()


def _aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table whose columns line up."""
    full = [[*row, *[""] * (len(header) - len(row))] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in full) for i in range(len(header))]
    lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in full]
    return [lines[0], "─" * max(map(len, lines)), *lines[1:]]
