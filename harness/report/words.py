"""Numbers in words: one way to print a ratio, an interval, a p and a share, and sentences of warning."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from harness import measures, statistics
from harness.report.analysis import (
    Analysis,
    Comparison,
    FoldResult,
    SetResult,
    smallest_p,
)
from harness.report.page import Cell
from harness.report.variations import Resolution, resolution
from harness.statistics import Estimate

LIMITS = {
    "at least": "many {arm} runs arrive by the first checkpoint, so ρ̄ is limited by its resolution: "
    "read “at least”.",
    "at most": "many {baseline} runs arrive by the first checkpoint, so ρ̄ is limited by its resolution: "
    "read “at most”.",
    "unresolved": "many runs of both arms arrive by the first checkpoint, which does not resolve ρ̄.",
}

DATED = (
    "Speed-ups are read at checkpoints, an arrival dated to the one that shows it, which mostly draws them "
    "towards 1"
)
"""Why speed-ups depend on the grid of checkpoints."""
SHIFTED = 1.05
"""Factor by which interpolation must change a task's speed-up before a warning says so."""


# --- numbers ---------------------------------------------------------------------------------------


def number(value: float, digits: int = 2) -> str:
    """``−0.25``; a dash for NaN."""
    # adding 0 makes a rounded -0.0 positive
    return "–" if math.isnan(value) else f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def signed(value: float) -> str:
    """``+0.25``; a dash for NaN."""
    text = number(value)
    return text if text[0] in "−–" else f"+{text}"


def factor(value: float) -> str:
    """A ratio to three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"


def count(value: float) -> str:
    """``1,500``; a dash for NaN, ``∞`` for infinity."""
    return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:,.0f}".replace("-", "−")


def p_value(value: float) -> str:
    """A p to three decimals, or that it is below them."""
    return "–" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def p_is(value: float) -> str:
    """``= 0.012`` or ``< 0.001``."""
    text = p_value(value)
    return text.replace("<", "< ") if text.startswith("<") else f"= {text}"


def span(thresholds: np.ndarray) -> str:
    """The range of some thresholds."""
    low, high = float(thresholds.min()), float(thresholds.max())
    return f"{low:.2f}" if low == high else f"{low:.2f} to {high:.2f}"


def ratio(log_ratio: Estimate, limit: str = "", reason: bool = True) -> str:
    """``2.31 [1.80, 2.97]``, or the reason why there is no interval."""
    if math.isnan(log_ratio.value):
        return log_ratio.reason if reason else "–"
    e = log_ratio.exp()
    text = {"at least": "≥ ", "at most": "≤ ", "unresolved": "≈ "}.get(limit, "") + factor(e.value)
    if not e.reason:
        return f"{text} [{factor(e.low)}, {factor(e.high)}]"
    return f"{text} (no interval: {e.reason})" if reason else text


def ratio_of(log_ratio: Estimate) -> Estimate:
    """A logarithm as a ratio; NaN stays."""
    return log_ratio if math.isnan(log_ratio.value) else log_ratio.exp()


def short_ratio(log_ratio: Estimate, limit: str) -> str:
    """The same in a figure, without reasons."""
    if math.isnan(log_ratio.value):
        return "no data" if log_ratio.reason.startswith("no ") else "not estimable"
    return ratio(log_ratio, limit, reason=False)


def difference(estimate: Estimate) -> str:
    """``+0.12 [0.03, 0.21]``, or the reason why there is no interval."""
    if math.isnan(estimate.value):
        return estimate.reason
    text = signed(estimate.value)
    if estimate.reason:
        return f"{text} (no interval: {estimate.reason})"
    return f"{text} [{number(estimate.low)}, {number(estimate.high)}]"


# --- cells, which sort by their number -------------------------------------------------------------


def number_cell(value: float, digits: int = 2) -> Cell:
    """:func:`number` as a cell."""
    return Cell(number(value, digits), value)


def count_cell(value: float) -> Cell:
    """:func:`count` as a cell."""
    return Cell(count(value), value)


def p_cell(value: float) -> Cell:
    """:func:`p_value` as a cell."""
    return Cell(p_value(value), value)


def ratio_cell(log_ratio: Estimate, limit: str = "") -> Cell:
    """:func:`ratio` as a cell."""
    return Cell(ratio(log_ratio, limit), log_ratio.value)


def difference_cell(estimate: Estimate) -> Cell:
    """:func:`difference` as a cell."""
    return Cell(difference(estimate), estimate.value)


def arrived_cell(folds: Iterable[FoldResult], arm: int, threshold: int) -> Cell:
    """:func:`arrived` as a cell that sorts by the share."""
    text, some, runs = arrived(folds, arm, threshold)
    return Cell(text, some / runs if runs else math.nan)


def arrived(folds: Iterable[FoldResult], arm: int, threshold: int) -> tuple[str, int, int]:
    """Runs of an arm that arrive by B: in words with the Wilson interval, and as two counts.

    Args:
        folds: over which they are summed.
        arm: 0 for the baseline, 1 for the arm that is compared with it.
        threshold: index of θ.
    """
    some, runs, clusters, shares = 0, 0, 0, 0.0
    for result in folds:
        fold = result.measures
        some += int(np.isfinite(fold.arrivals[arm][:, threshold]).sum())
        runs += len(fold.curves[arm].runs)
        n = fold.curves[arm].count
        clusters += n
        shares += n * float(fold.success[arm][threshold]) if n else 0.0
    if not runs:
        return "–", 0, 0
    low, high = statistics.wilson(shares / clusters, clusters)
    return f"{some}/{runs} [{low:.2f}, {high:.2f}]", some, runs


# --- sentences -------------------------------------------------------------------------------------


def verdict(headline: SetResult, arm: str) -> str:
    """The headline in one sentence that claims no more than the interval."""
    estimate = headline.log_ratio
    if math.isnan(estimate.value):
        return f"No speed-up can be given: {estimate.reason}."
    if estimate.reason:
        return f"There is no interval ({estimate.reason}), so nothing can be concluded."
    about = {"": "", "unresolved": "about "}.get(headline.limit, f"{headline.limit} ")
    network = {"transfer": "the pretrained network"}.get(arm, f"the arm {arm}")
    if estimate.low > 0:
        return (
            f"On these tasks learning from scratch takes {about}"
            f"{factor(math.exp(estimate.value))} times the steps that {network} takes."
        )
    if estimate.high < 0:
        return (
            f"On these tasks {network} is slower: it takes "
            f"{factor(math.exp(-estimate.value))} times the steps of one that starts from nothing."
        )
    return "The interval holds 1: on these tasks neither arm is shown to be faster."


def warnings(analysis: Analysis) -> list[str]:
    """What a reader must know before believing the numbers, as sentences."""
    found = []
    if analysis.plan["exploratory"]:
        found.append("The plan is exploratory: it shows what the method would say, and is no evidence.")
    if analysis.incomplete:
        found.append(
            "Not all planned runs have their result; “mtenvs run” trains what is missing. "
            "The numbers below are of the runs that are complete."
        )
    found += [f"Run {run} is left out: {reason}." for run, reason in sorted(analysis.damaged.items())]
    if analysis.unknown:
        found.append(
            f"The store holds what the plan does not know, ignored: {', '.join(analysis.unknown)}."
        )
    # doses and single sources are all what the report is about; else it is the headline's comparison
    compared = (
        analysis.against_scratch if analysis.kind in ("dose", "matrix") else analysis.against_scratch[:1]
    )
    # what is said of the runs from scratch would be repeated for every arm
    found += list(dict.fromkeys(text for comparison in compared for text in _of_folds(comparison)))
    for fold, pretrainings in analysis.competence.groupby("fold"):
        score = pretrainings["score"].mean()
        # sources of a matrix and joint runs belong to no fold
        if fold >= 0 and not score >= measures.COMPETENT:
            found.append(
                f"{analysis.name(int(fold))}: at hand-over the pretrained networks score {number(score)} "
                f"on their own tasks, below {measures.COMPETENT}. What they transfer is not what a "
                "competent network would."
            )
    # task by task, as in a mean those above and below 1 cancel
    seen = [resolution([result]) for comparison in compared for result in comparison.folds]
    shift = max((r.shift for r in seen if r is not None), default=1.0)
    if shift > SHIFTED:
        found.append(
            f"{DATED}: interpolated between checkpoints, those of single tasks change by a factor of up to "
            f"{shift:.2f}. The intervals do not contain this."
        )
    smallest = smallest_p(analysis)
    if smallest > 0.05:
        found.append(
            f"With so few runs the permutation test of one task cannot give less than p = {smallest:.2g}."
        )
    return found


def between_checkpoints(analysis: Analysis) -> str:
    """What the gaps between checkpoints leave open of the headline, in a sentence; empty without one."""
    seen = resolution(analysis.headline.folds)
    if seen is None:
        return ""
    return (
        f"{DATED}: interpolated between checkpoints this one is {factor(seen.interpolated)} instead of "
        f"{factor(seen.planned)}, and wherever in its gap each run arrived, {span_of(seen)}. The interval "
        "does not contain this."
    )


def span_of(seen: Resolution) -> str:
    """The bounds of a mean speed-up in words."""
    return f"at least {factor(seen.low)}" + (
        " with no upper end" if math.isinf(seen.high) else f" and at most {factor(seen.high)}"
    )


def _of_folds(main: Comparison) -> list[str]:
    """Warnings about the runs of a comparison, fold by fold."""
    found = []
    for result in main.folds:
        fold = result.measures
        for arm, theta in fold.mixed:
            found.append(
                f"{fold.task}: mixed outcomes. From θ = {theta:.2f} on some runs of {arm} arrive within "
                "the budget and others do not, so the t interval may be too narrow: read the permutation p "
                "and the success shares with it."
            )
        for curves in fold.curves:
            if curves.diverged.any():
                found.append(
                    f"{fold.task}: {int(curves.diverged.sum())} of {len(curves.runs)} runs of {curves.arm} "
                    "diverged. They count with the whole budget for what they had not reached, and as 0 "
                    "in mean curves and in the asymptote."
                )
        if all(c.count for c in fold.curves) and not fold.estimable.all():
            out = fold.thresholds[~fold.estimable]
            found.append(
                f"{fold.task}: no run of either arm reaches θ = {span(out)} within the budget. These "
                "thresholds are not estimable and left out of ρ̄ in both arms."
            )
        if fold.limit:
            limit = LIMITS[fold.limit].format(baseline=main.baseline, arm=main.arm)
            found.append(f"{fold.task}: {limit}")
        if result.log_ratio.reason == "zero variance in both arms":
            found.append(
                f"{fold.task}: within each arm all runs took equally long, so there is no interval, and "
                "the task adds no uncertainty to that of the suite."
            )
    return found


def summary_of_folds(analysis: Analysis) -> list[str]:
    """The headline and one row per fold as lines of plain text, for the terminal."""
    if not analysis.comparisons:
        return []
    theta = analysis.shown[-1]
    top = f"{analysis.thresholds[theta]:.2f}"
    main, headline = analysis.main, analysis.headline
    rows: list[Sequence[str]] = [
        ("held-out task", "speed-up [95% interval]", "perm. p", "jumpstart",
         f"{main.baseline} θ={top}", f"{main.arm} θ={top}", "")
    ]  # fmt: skip
    for result in analysis.folds:
        counts = [arrived([result], arm, theta)[1:] for arm in (0, 1)]
        rows.append(
            (
                result.measures.task,
                ratio(result.log_ratio, result.measures.limit),
                p_value(result.p),
                signed(result.jumpstart.value),
                *(f"{a}/{n} arrive" for a, n in counts),
                result.mark,
            )
        )
    return [
        f"speed-up over {headline.name}: {ratio(headline.log_ratio, headline.limit)}",
        verdict(headline, main.arm),
        "",
        *columns(rows),
    ]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text with the entries of ``rows`` in columns, the first row set off by a rule."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "─" * max(map(len, lines)))
    return lines
