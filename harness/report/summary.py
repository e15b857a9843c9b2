"""The main numbers of a plan of any kind as plain text, for the terminal."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Sequence

from harness import joint, measures
from harness.report import words
from harness.report.agent import standing
from harness.report.analysis import Analysis, analyse, rng
from harness.report.sections_joint import JointResult, analyse_joint
from harness.statistics import Estimate


def summary_table(directory: str | os.PathLike[str]) -> str:
    """What the report opens with, as a table.

    Leave-one-out has its headline and a row per fold, a joint plan a row per arm or, without separate
    networks, per task, doses a row each, and a matrix a row per target. A matrix has no mean with an
    interval: its targets share sources.

    Args:
        directory: the experiment's directory.

    Raises:
        StoreError: if the directory holds no readable plan or rows.
        ValueError: if the plan lacks a task or a reference score that the rows need.
    """
    analysis = analyse(directory)
    marks = f" ({', '.join(analysis.marks)})" if analysis.marks else ""
    lines = {"joint": _joint, "dose": _dose, "matrix": _matrix}.get(analysis.kind, words.summary_of_folds)
    notes = [textwrap.fill(note, words.WIDTH) for note in standing(analysis.plan, analysis.physics)]
    return "\n".join([f"{analysis.title}{marks}", *notes, *lines(analysis)])


def _joint(analysis: Analysis) -> list[str]:
    result = analyse_joint(analysis)
    if result.separate is None:
        return _joint_scores(analysis, result)
    means = result.speed_ups[result.speed_ups["task"] == joint.SUITE].set_index("arm")
    top = f"{analysis.thresholds[-1]:.2f}"
    rows: list[Sequence[str]] = [
        ("arm", "speed-up over separate [95% interval]", "t-test p", "perm. p", f"all tasks at θ={top}")
    ]
    done = _all_at_top(analysis, result)
    for curves in result.every:
        reached = done[curves.arm]
        if curves.arm == joint.SEPARATE:
            rows.append((curves.arm, "", "", "", reached))
            continue
        mean = means.loc[curves.arm]
        e = Estimate(mean["log_ratio"], mean["low"], mean["high"], reason=mean["reason"])
        p = [words.p_value(mean[column]) for column in ("p", "p_permutation")]
        rows.append((curves.arm, words.ratio(e), *p, reached))
    return words.columns(rows)


def _joint_scores(analysis: Analysis, result: JointResult) -> list[str]:
    scores, done = joint.score_table(result.arms), _all_at_top(analysis, result)
    rows: list[Sequence[str]] = [
        ("task", "arm", "final score g [95% interval]", f"all tasks at θ={analysis.thresholds[-1]:.2f}")
    ]
    for row in scores.itertuples():
        e = Estimate(row.score, row.low, row.high, reason=row.reason)
        rows.append((row.task, row.arm, words.score(e), done[row.arm] if row.task == joint.SUITE else ""))
    return words.columns(rows)


def _all_at_top(analysis: Analysis, result: JointResult) -> dict[str, str]:
    """By arm, how many networks bring all tasks to the highest θ."""
    done = joint.completion_table(result.every)
    done = done[done["theta"] == analysis.thresholds[-1]]
    return {
        str(arm): ", ".join(f"{row.mode} {row.reached}/{row.n}" for row in of_arm.itertuples())
        for arm, of_arm in done.groupby("arm")
    }


def _dose(analysis: Analysis) -> list[str]:
    found = measures.dose_table({c.arm: [f.measures for f in c.folds] for c in analysis.against_scratch})
    rows: list[Sequence[str]] = [("dose", "mean speed-up over tasks [95% interval]", "t-test p", "tasks")]
    for arm, of_dose in found.groupby("arm", sort=False):
        mean = of_dose[of_dose["fold"] < 0].iloc[0]
        tasks = of_dose[of_dose["fold"] >= 0]["log_ratio"]
        e = Estimate(mean["log_ratio"], mean["low"], mean["high"], reason=mean["reason"])
        counted = f"{tasks.notna().sum()} of {len(tasks)}"
        rows.append((str(arm), words.ratio(e), words.p_value(mean["p"]), counted))
    return words.columns(rows)


def _matrix(analysis: Analysis) -> list[str]:
    found = measures.transfer_matrix(
        {c.arm: [f.measures for f in c.folds] for c in analysis.against_scratch}, rng("matrix")
    )
    rows: list[Sequence[str]] = [("target", "best source", "speed-up", "worst source", "speed-up")]
    targets = set(found["target"])
    for target in (task["name"] for task in analysis.plan["tasks"] if task["name"] in targets):
        cells = found[found["target"] == target]
        known = cells.dropna(subset="log_ratio").sort_values("log_ratio", ascending=False, kind="stable")
        row = [target]
        for place in (0, -1) if len(known) else ():
            cell = known.iloc[place]
            e = Estimate(cell["log_ratio"], cell["low"], cell["high"], reason=cell["reason"])
            row += [cell["source"], words.ratio(e, cell["limit"], reason=False)]
        rows.append((*row, *["–"] * (len(rows[0]) - len(row))))
    return [
        f"negative transfer shown for {int(found['negative'].sum())} of {len(found)} pairs; "
        "the best of many sources is flattered by chance",
        "",
        *words.columns(rows),
    ]
