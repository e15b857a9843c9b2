"""Section 9, which of a joint plan is the main one: one network on all tasks against one for each."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import pandas as pd

from harness import joint, measures, plots
from harness.joint import SEPARATE, JointCurves
from harness.report import words
from harness.report.analysis import Analysis, rng
from harness.report.page import Cell, Exhibit, Section, bullets, escape, heading, paragraph, table
from harness.report.sections_comparability import panel
from harness.statistics import Estimate

TITLE = "Joint against separate"
SUITE = "mean of tasks"
"""What :func:`harness.joint.speed_ups` calls the row over all tasks."""


@dataclasses.dataclass(frozen=True, eq=False)
class JointResult:
    """What a joint plan shows."""

    separate: JointCurves
    """Sets of separate networks."""
    arms: tuple[JointCurves, ...]
    """Joint networks, arm by arm, in the plan's order; the first is the headline's."""
    speed_ups: pd.DataFrame
    """:func:`harness.joint.speed_ups` of all arms."""
    solved: tuple[str, ...]
    """Names of the tasks that some run reaches."""

    @property
    def headline(self) -> Estimate:
        """log of the mean speed-up of the first joint arm over separate networks."""
        rows = self.speed_ups
        row = rows[(rows["arm"] == self.arms[0].arm) & (rows["task"] == SUITE)].iloc[0]
        return Estimate(row["log_ratio"], row["low"], row["high"], p=row["p"], reason=row["reason"])


def analyse_joint(analysis: Analysis) -> JointResult:
    """Compares every joint arm of the plan with separate networks.

    Raises:
        ValueError: if the plan has no separate or no joint arm.
    """
    plan = analysis.plan
    names = [arm for arm in analysis.arms if arm != SEPARATE]
    if len(names) == len(analysis.arms) or not names:
        raise ValueError(f"a joint plan needs the arm {SEPARATE} and a joint one; it has {analysis.arms}")
    given = (analysis.evaluations, analysis.runs, plan)
    arms = tuple(joint.joint_curves(*given, arm, analysis.damaged) for arm in names)
    tables, reached = [], []
    for curves in arms:
        times = joint.task_times(*given, curves, analysis.damaged)
        tables.append(joint.speed_ups(times, rng("joint permutation", curves.arm)))
        reached.append(times.tasks)
    return JointResult(
        joint.joint_curves(*given, SEPARATE, analysis.damaged),
        arms,
        pd.concat(tables, ignore_index=True),
        reached[0],
    )


def absent_joint(analysis: Analysis) -> Section:
    """What section 9 says of a plan of another kind."""
    line = f"<code>mtenvs joint {escape(analysis.plan['family'])}</code>"
    return Section(
        TITLE, [f'<p class="absent">Joint training was not planned here; {line} plans and runs it.</p>'], 9
    )


def headline(analysis: Analysis, result: JointResult) -> Section:
    """Section 1 of a joint plan."""
    estimate, arm = result.headline, result.arms[0].arm
    big, beside = "–", ""
    if not math.isnan(estimate.value):
        e = estimate.exp()
        big = f"{words.factor(e.value)}×"
        beside = (
            f"no interval: {e.reason}"
            if e.reason
            else f"95% t interval [{words.factor(e.low)}, {words.factor(e.high)}], whole networks as the "
            f"unit, t-test p {words.p_is(e.p)}"
        )
    lines = []
    for curves in (result.separate, *result.arms):
        what = "sets of separate networks" if curves.arm == SEPARATE else f"networks of {curves.arm}"
        lines.append(f"{curves.count} {what}")
    top = f"{analysis.thresholds[-1]:.2f}"
    for row in joint.completion_table([result.separate, *result.arms]).itertuples():
        if row.theta == analysis.thresholds[-1]:
            lines.append(f"All tasks at θ = {top}, {row.arm}, {row.mode}: {row.reached} of {row.n}")
    label = (
        f"total steps of separate networks in lock-step, divided by those of {arm}, mean of "
        f"{len(result.solved)} of {len(result.arms[0].tasks)} tasks"
    )
    return Section(
        "Headline",
        [
            f'<p class="label">{escape(label)}</p><p class="big">{escape(big)}</p>',
            f"<p>{escape(beside)}</p>" if beside else "",
            f"<p><strong>{escape(verdict(estimate, arm))}</strong></p>",
            bullets(lines),
        ],
        1,
        "headline",
    )


def verdict(estimate: Estimate, arm: str) -> str:
    """The headline of a joint plan in one sentence."""
    if math.isnan(estimate.value):
        return f"No speed-up can be given: {estimate.reason}."
    if estimate.reason:
        return f"There is no interval ({estimate.reason}), so nothing can be concluded."
    if estimate.low > 0:
        times = words.factor(math.exp(estimate.value))
        return (
            f"On these tasks separate networks take {times} times the total steps of one network ({arm})."
        )
    if estimate.high < 0:
        times = words.factor(math.exp(-estimate.value))
        return f"On these tasks one network ({arm}) takes {times} times the total steps of separate ones."
    return "The interval holds 1: on these tasks neither is shown to need fewer total steps."


def joint_against_separate(analysis: Analysis, result: JointResult) -> Section:
    """Section 9: shares reached, times until all tasks are learned, speed-ups, and what it costs."""
    arms = [c for c in (result.separate, *result.arms) if c.count]
    parts: list[str | Exhibit] = []
    if arms:
        parts.append(_profile(analysis, arms))
    parts += [heading("Speed-up over separate networks, per task"), _speed_ups(result)]
    parts.append(
        paragraph(
            "Total steps in which a score is reached, averaged over θ, separate networks divided by "
            "joint ones; "
            "separate networks count in lock-step. The intervals of single tasks are not independent of "
            "each "
            "other; that of the mean takes whole networks, and so does its permutation test, against "
            "separate networks of one seed of every task (none where tasks have unequal numbers of these)."
        )
    )
    parts += _completion(analysis, result)
    if arms:
        parts += [heading("What it costs"), _costs(analysis, arms)]
    return Section(TITLE, parts, 9)


def _profile(analysis: Analysis, arms: Sequence[JointCurves]) -> Exhibit:
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
        what = "sets" if of_line["arm"].iloc[0] == SEPARATE else "networks"
        steps, share = of_line["steps"].to_numpy(float), of_line["share"].to_numpy()
        lines.append(plots.Line(str(name), steps, share, ends[0], ends[1], f"{n} {what}"))
    return Exhibit(
        "joint_profile",
        TITLE,
        "Share of (task, θ) pairs reached against total steps, summed over all tasks, with pointwise 95% t "
        "intervals over networks or sets. Separate networks stand in lock-step, or are trained one after "
        "another, each until it is done.",
        plots.joint_profile(lines, float(arms[0].budget)),
        shares,
    )


def _speed_ups(result: JointResult) -> str:
    def row(of: pd.Series) -> list[str | Cell]:
        e = Estimate(of["log_ratio"], of["low"], of["high"], p=of["p"], reason=of["reason"])
        return [of["task"], of["arm"], words.ratio_cell(e, of["limit"]), words.p_cell(e.p),
                words.p_cell(of["p_permutation"])]  # fmt: skip

    given = [row(of) for _, of in result.speed_ups.iterrows()]
    # the means last, whichever arm they are of
    given.sort(key=lambda cells: cells[0] == SUITE)
    headers = ["task", "arm", "ρ̄ [95% t interval]", "t-test p", "permutation p"]
    return table(headers, given, "speed-up of joint networks")


def _completion(analysis: Analysis, result: JointResult) -> list[str | Exhibit]:
    rows = []
    for row in joint.completion_table([result.separate, *result.arms]).itertuples():
        if row.theta not in analysis.thresholds[analysis.shown]:
            continue
        interval = "" if row.reason else f" [{words.count(row.low)}, {words.count(row.high)}]"
        rows.append(
            [
                f"{row.arm}, {row.mode}",
                Cell(f"{row.theta:.2f}", row.theta),
                Cell(f"{row.reached} of {row.n}", row.reached),
                Cell(f"{words.count(row.steps)}{interval}", row.steps),
            ]
        )
    ratios = []
    for curves in result.arms:
        for i in analysis.shown:
            found = joint.completion_ratios(result.separate, curves, float(analysis.thresholds[i]))
            for row in found.itertuples():
                e = Estimate(row.log_ratio, row.low, row.high, p=row.p, reason=row.reason)
                ratios.append(
                    [
                        f"{row.arm}, {row.joint_mode}",
                        row.separate_mode,
                        Cell(f"{row.theta:.2f}", row.theta),
                        words.ratio_cell(e),
                        words.p_cell(e.p),
                    ]
                )
    return [
        heading("Until all tasks are at θ"),
        table(
            ["what", "θ", "get there", "total steps, at most K·B [95%]"],
            rows,
            "time until all tasks are learned",
        ),
        table(
            ["joint", "separate", "θ", "separate / joint [95%]", "t-test p"],
            ratios,
            "time until all tasks are learned, separate divided by joint",
        ),
    ]  # fmt: skip


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
    for curves in (result.separate, *result.arms):
        ends = measures.asymptotes(curves.scores.reshape(-1, len(curves.steps)))
        sides[curves.arm] = list(ends.reshape(curves.count, len(curves.tasks)).T)
    if any(not len(column) for columns in sides.values() for column in columns):
        return panel({}, rng("comparability"))
    return panel(sides, rng("comparability"), [curves.arm for curves in result.arms])
