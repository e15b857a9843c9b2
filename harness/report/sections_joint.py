"""Section 9, which of a joint plan is the main one: one network on all tasks against one for each."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from harness import joint, plots, statistics
from harness.joint import SEPARATE, SUITE, JointCurves
from harness.report import words
from harness.report.analysis import Analysis, rng
from harness.report.page import (
    Cell,
    Exhibit,
    Section,
    absent,
    bullets,
    escape,
    heading,
    paragraph,
    table,
)
from harness.report.sections_comparability import panel
from harness.report.sections_curves import NOTHING, band_rows
from harness.statistics import Estimate

TITLE, TITLE_ALONE = "Joint against separate", "One network on all tasks"


@dataclasses.dataclass(frozen=True, eq=False)
class JointResult:
    """What a joint plan shows."""

    separate: JointCurves | None
    """Sets of separate networks; None where none are planned."""
    arms: tuple[JointCurves, ...]
    """Joint networks, arm by arm, in the plan's order; the first is the headline's."""
    speed_ups: pd.DataFrame
    """:func:`harness.joint.speed_ups` of all arms; empty without separate networks."""

    @property
    def every(self) -> tuple[JointCurves, ...]:
        """All arms, separate networks first."""
        return self.arms if self.separate is None else (self.separate, *self.arms)

    @property
    def headline(self) -> Estimate:
        """log of the mean speed-up of the first joint arm over separate networks."""
        row = self._mean(self.arms[0].arm)
        return Estimate(row["log_ratio"], row["low"], row["high"], p=row["p"], reason=row["reason"])

    @property
    def limit(self) -> str:
        """How the first checkpoint limits the headline, see :func:`harness.measures.resolution_limit`."""
        return str(self._mean(self.arms[0].arm)["limit"])

    def over(self, arm: str) -> str:
        """Over which tasks an arm's mean is; what no run of it or of separate networks reaches is out."""
        tasks, rows = self.arms[0].tasks, self.speed_ups
        known = set(rows.loc[rows["arm"] == arm, "task"])
        out = [task for task in tasks if task not in known]
        without = f", without {', '.join(out)}" if out else ""
        return f"mean of {len(tasks) - len(out)} of {len(tasks)} tasks{without}"

    def _mean(self, arm: str) -> pd.Series:
        rows = self.speed_ups
        return rows[(rows["arm"] == arm) & (rows["task"] == SUITE)].iloc[0]


def analyse_joint(analysis: Analysis) -> JointResult:
    """Reads off every joint arm of the plan, and compares it with separate networks if there are any.

    Raises:
        ValueError: if the plan has no joint arm.
    """
    plan = analysis.plan
    names = [arm for arm in analysis.arms if arm != SEPARATE]
    if not names:
        raise ValueError(f"a joint plan needs a joint arm; it has {analysis.arms}")
    given = (analysis.evaluations, analysis.runs, plan)
    arms = tuple(joint.joint_curves(*given, arm, analysis.damaged) for arm in names)
    if SEPARATE not in analysis.arms:
        return JointResult(None, arms, pd.DataFrame())
    tables = [
        joint.speed_ups(
            joint.task_times(*given, curves, analysis.damaged), rng("joint permutation", curves.arm)
        )
        for curves in arms
    ]
    return JointResult(
        joint.joint_curves(*given, SEPARATE, analysis.damaged), arms, pd.concat(tables, ignore_index=True)
    )


def absent_joint(analysis: Analysis) -> Section:
    """What section 9 says of a plan of another kind."""
    line = f"<code>mtenvs joint {escape(analysis.plan['family'])}</code>"
    return Section(
        TITLE, [f'<p class="absent">Joint training was not planned here; {line} plans and runs it.</p>'], 9
    )


def headline(analysis: Analysis, result: JointResult) -> Section:
    """Section 1 of a joint plan: the speed-up over separate networks, or, without these, the score."""
    if result.separate is None:
        return _score_headline(analysis, result)
    estimate, arm = result.headline, result.arms[0].arm
    big, beside = "–", ""
    if not math.isnan(estimate.value):
        e = estimate.exp()
        prefix = {"": "", "unresolved": "about "}.get(result.limit, f"{result.limit} ")
        big = f"{prefix}{words.factor(e.value)}×"
        beside = (
            f"no interval: {e.reason}"
            if e.reason
            else f"95% t interval [{words.factor(e.low)}, {words.factor(e.high)}], whole networks as the "
            f"unit, t-test p {words.p_is(e.p)}"
        )
    lines = _all_learned(analysis, result)
    mean = result.speed_ups[(result.speed_ups["task"] == SUITE) & (result.speed_ups["arm"] == arm)]
    p = float(mean["p_permutation"].iloc[0])
    lines.append(
        "No permutation p: it needs two whole networks of either kind."
        if math.isnan(p)
        else f"Permutation p {words.p_is(p)}, labels of whole networks and sets exchanged; approximate "
        "where there are few, for networks and sets vary in other ways."
    )
    label = f"total steps of separate networks in lock-step, divided by those of {arm}, {result.over(arm)}"
    return Section(
        "Headline",
        [
            f'<p class="label">{escape(label)}</p><p class="big">{escape(big)}</p>',
            f"<p>{escape(beside)}</p>" if beside else "",
            f"<p><strong>{escape(verdict(result, analysis.marks))}</strong></p>",
            bullets(lines),
        ],
        1,
        "headline",
    )


def _all_learned(analysis: Analysis, result: JointResult) -> list[str]:
    """How many networks there are of each arm, and how many of them learn all tasks."""
    lines = []
    for curves in result.every:
        is_set = curves.arm == SEPARATE
        lines.append(
            f"{words.plural(curves.count, 'set')} of separate networks"
            if is_set
            else f"{words.plural(curves.count, 'network')} of {curves.arm}"
        )
    top = f"{analysis.thresholds[-1]:.2f}"
    for row in joint.completion_table(result.every).itertuples():
        if row.theta == analysis.thresholds[-1]:
            low, high = statistics.wilson(row.reached / row.n, row.n) if row.n else (math.nan, math.nan)
            interval = f" [{low:.2f}, {high:.2f}]" if row.n else ""
            lines.append(
                f"All tasks at θ = {top}, {row.arm}, {row.mode}: {row.reached} of {row.n}{interval}"
            )
    return lines


def _score_headline(analysis: Analysis, result: JointResult) -> Section:
    """The headline where nothing is compared: what the joint networks score."""
    first = result.arms[0]
    means = joint.score_table(result.arms)
    estimates = {
        row.arm: Estimate(row.score, row.low, row.high, reason=row.reason)
        for row in means[means["task"] == SUITE].itertuples()
    }
    estimate = estimates[first.arm]
    beside = ""
    if not math.isnan(estimate.value):
        beside = (
            f"no interval: {estimate.reason}"
            if estimate.reason
            else f"95% t interval [{words.number(estimate.low)}, {words.number(estimate.high)}], whole "
            "networks as the unit"
        )
    lines = _all_learned(analysis, result)
    for curves in result.arms:
        if curves.count:
            share = statistics.one_sample(curves.reached).value
            lines.append(f"(task, θ) pairs reached by {curves.arm} within the budget: {share:.0%}")
    lines += [f"Final score of {arm}: {words.score(e)}" for arm, e in estimates.items() if arm != first.arm]
    tasks = words.plural(len(first.tasks), "task")
    label = f"final score g of one network on {tasks} ({first.arm}), mean of tasks"
    return Section(
        "Headline",
        [
            f'<p class="label">{escape(label)}</p>'
            f'<p class="big">{escape(words.number(estimate.value))}</p>',
            f"<p>{escape(beside)}</p>" if beside else "",
            f"<p><strong>{escape(score_verdict(estimate, first, analysis.marks))}</strong></p>",
            bullets(lines),
        ],
        1,
        "headline",
    )


def score_verdict(score: Estimate, curves: JointCurves, marks: Sequence[str] = ()) -> str:
    """The headline of a plan of joint networks alone in one sentence.

    Args:
        score: mean over the tasks of the final score.
        curves: of the arm.
        marks: how the report stands.
    """
    if math.isnan(score.value):
        return f"No score can be given: no run of {curves.arm} is complete."
    tasks = words.plural(len(curves.tasks), "task")
    claim = (
        f"After {words.count(curves.steps[-1])} total steps one network scores {words.score(score)} on "
        f"average over {tasks}, where 0 is a random policy and 1 the reference."
    )
    return words.marked(claim, marks)


def verdict(result: JointResult, marks: Sequence[str] = ()) -> str:
    """The headline of a joint plan in one sentence.

    Args:
        result: what the plan shows.
        marks: how the report stands.
    """
    estimate, arm = result.headline, result.arms[0].arm
    if math.isnan(estimate.value):
        return f"No speed-up can be given: {estimate.reason}."
    if estimate.reason:
        return f"There is no interval ({estimate.reason}), so nothing can be concluded."
    tasks = f"Over these tasks ({result.over(arm)})"
    if estimate.low <= 0 <= estimate.high:
        claim = "The interval holds 1: on these tasks neither is shown to need fewer total steps."
    else:
        about, within = words.times(estimate, result.limit)
        claim = (
            f"{tasks} separate networks take {about} the total steps of one network ({arm}){within}."
            if estimate.low > 0
            else f"{tasks} one network ({arm}) takes {about} the total steps of separate ones{within}."
        )
    return words.marked(claim, marks)


def learning_curves(analysis: Analysis, result: JointResult) -> Section:
    """Score against total steps, per task and over the tasks."""
    title = "Learning curves"
    arms = [c for c in result.every if c.count]
    if not arms:
        return Section(title, [NOTHING])
    steps = {curves.arm: curves.steps for curves in arms}
    n = ", ".join(f"{c.count} {'sets of separate' if c.arm == SEPARATE else c.arm}" for c in arms)
    panels, rows = [], []
    for k, task in enumerate(arms[0].tasks):
        bands, seeds = {}, {}
        for curves in arms:
            scores = curves.scores[:, k]
            # a diverged run counts as 0, a random policy
            band = statistics.curve_band(np.nan_to_num(scores, nan=0.0), rng("band", task, curves.arm))
            bands[curves.arm], seeds[curves.arm] = band, scores
            rows += band_rows(task, curves.arm, curves.steps, band)
            for i, run_scores in enumerate(scores):
                run = curves.runs[i][k if len(curves.runs[i]) > 1 else 0]
                rows += [
                    {"task": task, "arm": curves.arm, "run": run, "steps": s, "score": g}
                    for s, g in zip(curves.steps, run_scores, strict=True)
                ]
        panels.append(plots.CurvePanel(task, bands, seeds, steps))
    if len(panels) > 1:
        bands = {}
        for curves in arms:
            # the tasks of a network are not independent: the mean of each, then the band over those
            means = np.nan_to_num(curves.scores, nan=0.0).mean(axis=1)
            bands[curves.arm] = statistics.curve_band(means, rng("band", SUITE, curves.arm))
            rows += band_rows(SUITE, curves.arm, curves.steps, bands[curves.arm])
        panels.append(plots.CurvePanel(f"mean of {len(panels)} tasks", bands, {}, steps))
    figure = plots.learning_curves(
        panels,
        np.unique(np.concatenate(list(steps.values()))),
        arms[0].budget,
        analysis.plan["thresholds"],
        note=f"n = {n}",
        focus=(SEPARATE, result.arms[0].arm),
        x_label="total steps, summed over all tasks",
    )
    exhibit = Exhibit(
        "learning_curves",
        title,
        "Score of each task against total steps, summed over all tasks"
        + "; of a separate network its own steps times the number of tasks, as in lock-step"
        * (result.separate is not None)
        + ". Thin: single networks. Bands: 95% for the mean, "
        "pointwise (darker) and simultaneous for the whole curve (lighter), that of the mean of tasks over "
        "whole networks or sets; a diverged network counts as 0.",
        figure,
        pd.DataFrame(rows),
    )
    return Section(title, [exhibit])


def joint_against_separate(analysis: Analysis, result: JointResult) -> Section:
    """Section 9: shares reached, speed-ups, scores, times until all are learned, and what it costs."""
    arms = [c for c in result.every if c.count]
    title = TITLE if result.separate is not None else TITLE_ALONE
    parts: list[str | Exhibit] = []
    if arms:
        parts.append(_profile(arms, title))
    parts += [heading("Speed-up over separate networks, per task"), *_speed_ups(result)]
    parts += [heading("Final score, per task"), *_scores(analysis, result)]
    parts += _completion(analysis, result)
    # of joint networks alone, a run is a network, and section 13 says what it costs
    if arms and result.separate is not None:
        parts += [heading("What it costs"), _costs(analysis, arms)]
    return Section(title, parts, 9)


def _profile(arms: Sequence[JointCurves], title: str) -> Exhibit:
    shares = joint.share_table(arms)
    names = shares["mode"].where(shares["mode"] != "", shares["arm"])
    lines = []
    for name, of_line in shares.groupby(names, sort=False):
        of_line = of_line[of_line["steps"] > 0]
        single = of_line["low"].isna().all()
        # where all networks agree there is no spread, and the interval is the point
        ends = [
            None if single else of_line[e].fillna(of_line["share"]).clip(0, 1).to_numpy()
            for e in ("low", "high")
        ]
        n = int(of_line["n"].iloc[0])
        what = "set" if of_line["arm"].iloc[0] == SEPARATE else "network"
        steps, share = of_line["steps"].to_numpy(float), of_line["share"].to_numpy()
        lines.append(plots.Line(str(name), steps, share, ends[0], ends[1], words.plural(n, what)))
    return Exhibit(
        "joint_profile",
        title,
        "Share of (task, θ) pairs reached against total steps, summed over all tasks, with pointwise 95% t "
        "intervals over networks"
        + " or sets. Separate networks stand in lock-step, or are trained one after another, each until it "
        "is done" * (title == TITLE) + ".",
        plots.joint_profile(lines, float(arms[0].budget)),
        shares,
    )


def _speed_ups(result: JointResult) -> list[str]:
    if result.separate is None:
        return [
            absent(
                "No separate networks were planned, so nothing says whether one network needs fewer steps "
                "than one for each task; the arm <code>separate</code> among <code>--joint-arms</code> "
                "plans them."
            )
        ]

    def row(of: pd.Series) -> list[str | Cell]:
        e = Estimate(of["log_ratio"], of["low"], of["high"], p=of["p"], reason=of["reason"])
        task = result.over(of["arm"]) if of["task"] == SUITE else of["task"]
        cells = (words.ratio_cell(e, of["limit"]), words.p_cell(e.p), words.p_cell(of["p_permutation"]))
        return [task, of["arm"], *cells]

    # the means last, whichever arm they are of
    ordered = result.speed_ups.sort_values("task", key=lambda tasks: tasks == SUITE, kind="stable")
    given = [row(of) for _, of in ordered.iterrows()]
    headers = ["task", "arm", "ρ̄ [95% t interval]", "t-test p", "permutation p"]
    note = (
        "Total steps in which a score is reached, averaged over θ, separate networks divided by joint "
        "ones; separate networks count in lock-step. The intervals of single tasks are not independent of "
        "each other; that of the mean takes whole networks, and so does its permutation test, against "
        "separate networks of one seed of every task (none where tasks have unequal numbers of these)."
    )
    return [table(headers, given, "speed-up of joint networks"), paragraph(note)]


def _scores(analysis: Analysis, result: JointResult) -> list[str]:
    thresholds = analysis.thresholds[analysis.shown]
    reach = joint.reach_table(result.every).set_index(["arm", "task", "theta"])

    def reached(arm: str, task: str, theta: float) -> list[Cell]:
        if task == SUITE:
            return [Cell("")] * 2
        found = reach.loc[(arm, task, theta)]
        # the mean time of all is that of min(time, K B)
        least = "≥ " if found["reached"] < found["n"] else ""
        return [
            Cell(f"{found['reached']:.0f} of {found['n']:.0f}", found["reached"]),
            Cell(f"{least}{words.count(found['steps'])}", found["steps"]),
        ]

    scores = joint.score_table(result.every)
    # the means last, whichever arm they are of
    rows = [
        [
            row.task,
            row.arm,
            Cell(words.score(Estimate(row.score, row.low, row.high, reason=row.reason)), row.score),
            words.number_cell(row.lowest),
            *(cell for theta in thresholds for cell in reached(row.arm, row.task, theta)),
        ]
        for row in scores.sort_values("task", key=lambda t: t == SUITE, kind="stable").itertuples()
    ]
    names = [text for theta in thresholds for text in (f"get to θ={theta:.2f}", "in total steps")]
    headers = ["task", "arm", "final score g [95% t interval]", "lowest", *names]
    note = (
        "Mean of the last three checkpoints, 0 for a network that has diverged; the interval of the mean "
        "of tasks is over whole networks. Total steps are means, with K·B for who does not get there: ≥."
    )
    return [table(headers, rows, "final score per task"), paragraph(note)]


def _completion(analysis: Analysis, result: JointResult) -> list[str | Exhibit]:
    rows = []
    for row in joint.completion_table(result.every).itertuples():
        if row.theta not in analysis.thresholds[analysis.shown]:
            continue
        # some censored: the mean time is one of min(time, K B)
        least = "≥ " * (row.reached < row.n)
        interval = (
            f" (no interval: {row.reason})"
            if row.reason
            else f" [{words.count(row.low)}, {words.count(row.high)}]"
        )
        rows.append(
            [
                f"{row.arm}, {row.mode}",
                Cell(f"{row.theta:.2f}", row.theta),
                Cell(f"{row.reached} of {row.n}", row.reached),
                Cell(f"{least}{words.count(row.steps)}{interval}", row.steps),
            ]
        )
    return [
        heading("Until all tasks are at θ"),
        table(
            ["what", "θ", "get there", "total steps, at most K·B [95%]"],
            rows,
            "time until all tasks are learned",
        ),
        paragraph(
            "Who does not get there counts with K·B, so that the true mean is greater: ≥. The interval is "
            "of these restricted times; where only some get there it can be far too narrow, and the "
            "permutation p of a ratio still tells whether there is a difference."
        ),
        *([] if result.separate is None else [_completion_ratios(analysis, result.separate, result.arms)]),
    ]


def completion_ratios(separate: JointCurves, curves: JointCurves, theta: float) -> pd.DataFrame:
    """:func:`harness.joint.completion_ratios`, with the same permutations wherever they are shown."""
    return joint.completion_ratios(separate, curves, theta, rng("completion", curves.arm, round(theta, 2)))


def _completion_ratios(analysis: Analysis, separate: JointCurves, arms: Sequence[JointCurves]) -> str:
    rows = []
    for curves, i in itertools.product(arms, analysis.shown):
        for row in completion_ratios(separate, curves, float(analysis.thresholds[i])).itertuples():
            e = Estimate(row.log_ratio, row.low, row.high, reason=row.reason)
            rows.append(
                [
                    f"{row.arm}, {row.joint_mode}",
                    row.separate_mode,
                    Cell(f"{row.theta:.2f}", row.theta),
                    words.ratio_cell(e),
                    words.p_cell(row.p_permutation),
                ]
            )
    return table(
        ["joint", "separate", "θ", "separate / joint [95%]", "permutation p"],
        rows,
        "time until all tasks are learned, separate divided by joint",
    )


def _costs(analysis: Analysis, arms: Sequence[JointCurves]) -> str:
    rows = [
        [
            row.arm,
            words.count_cell(row.n),
            words.count_cell(row.networks),
            *map(words.count_cell, (row.steps, row.updates, row.parameters)),
            words.number_cell(row.wall_seconds / 60, 1),
        ]
        for row in joint.cost_table(arms, analysis.runs).itertuples()
    ]
    return table(
        ["arm", "sets or networks", "networks in one", "total steps", "gradient updates", "parameters",
         "wall-clock, min"],
        rows,
        "what joint and separate training cost",
    )  # fmt: skip


def joint_comparability(analysis: Analysis, result: JointResult) -> Section:
    """Section 14 of a joint plan: networks that learned all tasks are drawn whole."""
    sides = {}
    for curves in result.every:
        sides[curves.arm] = list(curves.final_scores.T)
    if any(not len(column) for columns in sides.values() for column in columns):
        return panel({}, rng("comparability"))
    return panel(sides, rng("comparability"), [curves.arm for curves in result.arms])
