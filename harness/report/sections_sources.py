"""The main sections of plans that vary the sources: how many, how long, and which one."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd

from harness import measures, plots
from harness.report import words
from harness.report.analysis import Analysis, rng, tested
from harness.report.page import Exhibit, Section, escape, heading, paragraph, table
from harness.report.sections_curves import NOTHING
from harness.statistics import Estimate

# --- dose ------------------------------------------------------------------------------------------


def dose(analysis: Analysis) -> Section:
    """Speed-up against the number of source tasks, or the steps of pretraining."""
    title = "Speed-up against dose"
    found = measures.dose_table({c.arm: [f.measures for f in c.folds] for c in analysis.against_scratch})
    if found["log_ratio"].isna().all():
        return Section(title, [NOTHING], 1)
    of_suite = {c.arm: c.sets["all_folds"].limit for c in analysis.against_scratch}
    found["limit"] = found["limit"].where(found["fold"] >= 0, found["arm"].map(of_suite))
    rows = [
        [
            row.task,
            words.count_cell(row.dose),
            row.arm,
            words.ratio_cell(e, row.limit),
            words.p_cell(e.p),
        ]
        for row in found.itertuples()
        for e in [Estimate(row.log_ratio, row.low, row.high, p=row.p, reason=row.reason)]
    ]
    # the mean of tasks first
    rows.sort(key=lambda row: row[0] != "mean of tasks")
    return Section(
        title,
        [
            _dose_figure(analysis, found),
            table(["task", "dose", "arm", "ρ̄ [95% t interval]", "t-test p"], rows, "speed-up by dose"),
            paragraph(
                "Every dose against the same runs from scratch, so that the doses of one task are not "
                "independent of each other."
            ),
        ],
        1,
    )


def _dose_figure(analysis: Analysis, found: pd.DataFrame) -> Exhibit:
    panels = []
    for kind, of_kind in found.groupby("kind", sort=False):
        lines = []
        for (fold, task), of_task in of_kind.groupby(["fold", "task"], sort=False):
            of_task = of_task.sort_values("dose")
            y, low, high = (np.exp(of_task[c].to_numpy(float)) for c in ("log_ratio", "low", "high"))
            ends = (low, high) if fold < 0 and np.isfinite(low).any() else (None, None)
            x, limits = of_task["dose"].to_numpy(float), list(of_task["limit"])
            lines.append((fold, plots.Line(str(task), x, y, ends[0], ends[1], limits=limits)))
        tasks = [line for fold, line in lines if fold >= 0]
        mean = next((line for fold, line in lines if fold < 0), None)
        panels.append(
            plots.DosePanel(
                measures.DOSES[str(kind)], tasks, mean if len(tasks) > 1 else None, kind == "steps"
            )
        )
    return Exhibit(
        "dose",
        "Speed-up against dose",
        "Speed-up over scratch against how much was learned before, per task and for the mean of tasks "
        f"with its 95% t interval. An arrow: limited by the first checkpoint. {analysis.n}.",
        plots.dose_curves(panels),
        _as_ratios(analysis, found, "task"),
    )


def _as_ratios(analysis: Analysis, found: pd.DataFrame, task: str) -> pd.DataFrame:
    """A table of logarithms as the CSV of a figure, which holds ratios and n.

    Args:
        analysis: the numbers.
        found: with columns ``log_ratio, low, high, limit``, and the arm, or its ``source``.
        task: column with the name of the task that is learned.
    """
    counts = {(c.arm, f.measures.task): f.n for c in analysis.against_scratch for f in c.folds}
    arms = found["arm"] if "arm" in found else "from=" + found["source"]
    n = [
        counts.get(pair, f"{len(analysis.plan['folds'])} tasks")
        for pair in zip(arms, found[task], strict=True)
    ]
    ends = {end: np.exp(found[end].astype(float)) for end in ("log_ratio", "low", "high")}
    return found.assign(**ends, n=n).rename(columns={"log_ratio": "speed_up", "reason": "no_interval"})


# --- matrix ----------------------------------------------------------------------------------------


def matrix(analysis: Analysis) -> Section:
    """Speed-up from every single source to every target, and what a choice of sources is worth."""
    title = "Transfer from every task to every other"
    found = measures.transfer_matrix(
        {c.arm: [f.measures for f in c.folds] for c in analysis.against_scratch}, rng("matrix")
    )
    if found["log_ratio"].isna().all():
        return Section(title, [NOTHING], 1)
    known = found.dropna(subset="log_ratio")
    best = known.loc[known["log_ratio"].idxmax()]
    bad = [f"{row.source} → {row.target}" for row in known.itertuples() if row.negative]
    rows = [
        [
            row.source,
            row.target,
            words.ratio_cell(e, row.limit),
            words.p_cell(row.p),
            words.p_cell(row.p_holm),
            "negative transfer" if row.negative else "",
        ]
        for row in found.itertuples()
        for e in [Estimate(row.log_ratio, row.low, row.high, reason=row.reason)]
    ]
    sentence = (
        f"{len(known)} of {len(found)} pairs are estimable. The largest speed-up is from "
        f"{best['source']} to "
        f"{best['target']}, {words.factor(math.exp(best['log_ratio']))}×; as the largest of many it is "
        "too large. "
        f"Negative transfer is shown for {', '.join(bad) if bad else 'no pair'}."
    )
    # where no pair can be shown, that is no finding
    impossible = words.no_verdict(tested(analysis))
    return Section(
        title,
        [
            f"<p><strong>{escape(f'{sentence} {impossible}'.rstrip())}</strong></p>",
            _heat_map(analysis, found),
            table(
                ["source", "target", "ρ̄ [95% t interval]", "permutation p", "Holm, all pairs", "mark"],
                rows,
                "transfer matrix",
            ),
            *choice(analysis, found),
        ],
        1,
    )


def _heat_map(analysis: Analysis, found: pd.DataFrame) -> Exhibit:
    # in the plan's order of tasks, so that a task stands in the same place on both sides
    sources, targets = (
        [task["name"] for task in analysis.plan["tasks"] if task["name"] in set(found[side])]
        for side in ("source", "target")
    )
    wide, negative, limits = (
        found.pivot(index="source", columns="target", values=values).reindex(sources, columns=targets)
        for values in ("log_ratio", "negative", "limit")
    )
    return Exhibit(
        "transfer_matrix",
        "Transfer from every task to every other",
        "Speed-up over scratch of learning the target task from a network trained on the source task "
        "alone. Framed: negative transfer, Holm-adjusted over all pairs. ≥, ≤, ≈: limited by the first "
        f"checkpoint. {analysis.n}.",
        plots.transfer_matrix(
            np.exp(wide.to_numpy(float)),
            sources,
            targets,
            negative.eq(True).to_numpy(),
            limits=limits.fillna("").to_numpy(str),
        ),
        _as_ratios(analysis, found, "target"),
    )


def choice(analysis: Analysis, found: pd.DataFrame) -> list[str | Exhibit]:
    """How well a model of transfer chooses sources, against chance and against spreading out."""
    from harness import selection

    parts: list[str | Exhibit] = [heading("Choosing sources")]
    try:
        chosen = selection.select_sources(found, analysis.plan.get("descriptors", {}))
    except ValueError as error:
        return [*parts, f'<p class="absent">The choice of sources cannot be judged: {escape(error)}.</p>']
    names = {"model": "Gaussian process", "spread": "spread out", "random": "random", "oracle": "oracle"}
    lines = []
    for method, of_method in chosen.groupby("method", sort=False):
        if method == "oracle":  # does not depend on n
            continue
        y, low, high = (np.exp(of_method[c].to_numpy()) for c in ("value", "low", "high"))
        ends = (low, high) if method == "random" else (None, None)
        lines.append(plots.Line(names[str(method)], of_method["n"].to_numpy(float), y, *ends))
    figure = Exhibit(
        "selection",
        "Choosing sources",
        "Speed-up from the best of n chosen sources, geometric mean over targets, each target unknown to "
        "the "
        "choice. Random: mean and 95% of the draws.",
        plots.selection(lines),
        chosen,
    )
    wide = chosen.pivot(index="n", columns="method", values="value")
    rows = [
        [words.count_cell(n), *(words.number_cell(math.exp(row[m])) for m in names)]
        for n, row in wide.iterrows()
    ]
    return [
        *parts,
        figure,
        table(["sources", *names.values()], rows, "worth of the chosen sources, as a speed-up"),
        paragraph(
            "On the stored matrix, whose noise is taken as it is. Oracle: the best source of each "
            "target, known "
            "afterwards."
        ),
    ]
