"""Numbers in words: one way to print a ratio, an interval, a p and a share, and sentences of warning."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterable, Sequence

import numpy as np

from harness import joint, measures, statistics
from harness.measures import SIGNIFICANT, FoldMeasures
from harness.report.analysis import Analysis, FoldResult, SetResult, tested
from harness.report.page import Cell
from harness.report.variations import Resolution, resolution
from harness.statistics import Estimate

WIDTH = 110
"""Characters of a line of text for the terminal."""
LIMITS = {
    "at least": "many {arm} runs arrive by the first checkpoint, so ρ̄ is limited by its resolution: "
    "read “at least”.",
    "at most": "many {baseline} runs arrive by the first checkpoint, so ρ̄ is limited by its resolution: "
    "read “at most”.",
    "unresolved": "many runs of both arms arrive by the first checkpoint, which does not resolve ρ̄.",
}

DATED = (
    "Speed-ups are read at checkpoints, an arrival dated to the one that shows it, which mostly draws them "
    "towards 1: interpolated between checkpoints"
)
CROSSED = (
    "Arrivals are interpolated between checkpoints, as if scores rose straight from one to the next: dated "
    "to the checkpoint that shows them, which mostly draws speed-ups towards 1,"
)
"""Why speed-ups depend on the grid of checkpoints, and what the other reading is, by that of the plan."""
SHIFTED = 1.05
"""Factor by which the other reading must change a task's speed-up before a warning says so."""


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
    """A ratio to three digits, zeros at its end too."""
    return f"{value:#.3g}".removesuffix(".") if value < 999.5 else f"{value:.0f}"


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
        return "no data" if log_ratio.reason.startswith("no run of ") else "not estimable"
    return ratio(log_ratio, limit, reason=False)


def score(estimate: Estimate) -> str:
    """``0.61 [0.52, 0.70]``, or the reason why there is no interval."""
    if math.isnan(estimate.value):
        return estimate.reason
    if estimate.reason:
        return f"{number(estimate.value)} (no interval: {estimate.reason})"
    return f"{number(estimate.value)} [{number(estimate.low)}, {number(estimate.high)}]"


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
    folds = list(folds)
    return Cell(arrived(folds, arm, threshold), arrived_share(folds, arm, threshold)[0])


def arrived(folds: Iterable[FoldResult], arm: int, threshold: int) -> str:
    """Share of an arm's runs that arrive by B, in words, with its Wilson interval.

    Where pretrainings were fine-tuned several times it is the mean of their shares, of which the interval
    is, and the count of runs stands beside it.

    Args:
        folds: over which they are summed.
        arm: 0 for the baseline, 1 for the arm that is compared with it.
        threshold: index of θ.
    """
    folds = list(folds)
    some, runs = arrived_count(folds, arm, threshold)
    if not runs:
        return "–"
    share, clusters = arrived_share(folds, arm, threshold)
    low, high = statistics.wilson(share, clusters)
    interval = f"[{low:.2f}, {high:.2f}]"
    if clusters == runs:
        return f"{some}/{runs} {interval}"
    return f"{share:.0%} of {clusters} pretrainings {interval} ({some}/{runs} runs)"


def share(share: float, clusters: int) -> str:
    """``90% [60%, 98%]``: a share with its Wilson interval over so many clusters; a dash for none."""
    if math.isnan(share):
        return "–"
    low, high = statistics.wilson(share, clusters)
    return f"{share:.0%} [{low:.0%}, {high:.0%}]"


def arrived_count(folds: Iterable[FoldResult], arm: int, threshold: int) -> tuple[int, int]:
    """How many runs arrive by B, and of how many; see :func:`arrived`."""
    given = [fold.measures.arrivals[arm][:, threshold] for fold in folds]
    return sum(int(np.isfinite(times).sum()) for times in given), sum(map(len, given))


def arrived_share(folds: Iterable[FoldResult], arm: int, threshold: int) -> tuple[float, int]:
    """Mean over clusters of the share of their runs that arrives by B, and how many clusters there are."""
    shares, clusters = 0.0, 0
    for fold in (result.measures for result in folds):
        if n := fold.curves[arm].count:
            shares += n * float(fold.success[arm][threshold])
            clusters += n
    return (shares / clusters if clusters else math.nan), clusters


# --- sentences -------------------------------------------------------------------------------------


def verdict(headline: SetResult, arm: str, marks: Sequence[str] = ()) -> str:
    """The headline in one sentence that claims no more than its interval and its tests.

    Args:
        headline: what it is about.
        arm: what is compared with learning from scratch.
        marks: how the report stands, :attr:`harness.report.analysis.Analysis.marks`.
    """
    estimate = headline.log_ratio
    if math.isnan(estimate.value):
        return f"No speed-up can be given: {estimate.reason}."
    if estimate.reason:
        return f"There is no interval ({estimate.reason}), so nothing can be concluded."
    network = {"transfer": "the pretrained network"}.get(arm, f"the arm {arm}")
    if estimate.low <= 0 <= estimate.high:
        return marked("The interval holds 1: on these tasks neither arm is shown to be faster.", marks)
    about, within = times(estimate, headline.limit)
    if estimate.low > 0:
        claim = f"learning from scratch takes {about} the steps that {network} takes{within}"
    else:
        claim = f"{network} is slower: it takes {about} the steps of one that starts from nothing{within}"
    claim = f"on these tasks {claim}"
    if not headline.p < SIGNIFICANT:
        return marked(
            f"By the t interval alone, {claim}. The permutation test does not confirm it: "
            f"p {p_is(headline.p)}.",
            marks,
        )
    claim = f"{claim[0].upper()}{claim[1:]}."
    if any(fold.measures.mixed for fold in headline.folds):
        claim += " Some runs fail, so that the interval may be too narrow: read the success shares with it."
    return marked(claim, marks)


def times(log_ratio: Estimate, limit: str) -> tuple[str, str]:
    """``about 3.25 times`` and ``, or more (95% interval 2.62 to 4.03)``; of a ratio below 1 its inverse.

    What the first checkpoint limits is the estimate, and not the interval, whose ends are no bounds.
    """
    ends = (log_ratio.low, log_ratio.high)
    value = log_ratio.value
    if value < 0:
        value, ends = -value, (-log_ratio.high, -log_ratio.low)
        limit = {"at least": "at most", "at most": "at least"}.get(limit, limit)
    beyond = {
        "at least": ", or more",
        "at most": ", or fewer",
        "unresolved": ", which the first checkpoint does not resolve",
    }.get(limit, "")
    low, high = (factor(math.exp(end)) for end in ends)
    return f"about {factor(math.exp(value))} times", f"{beyond} (95% interval {low} to {high})"


def marked(sentence: str, marks: Sequence[str]) -> str:
    """A claim with what the report's standing takes from it said first."""
    if not marks:
        return sentence
    return f"{' and '.join(marks).capitalize()}: {sentence[0].lower()}{sentence[1:]}"


def plural(number: int, noun: str) -> str:
    """``1 set``, ``2 sets``, ``3 batches``."""
    ending = "es" if noun.endswith("ch") else "s"
    return f"{number} {noun}{ending * (number != 1)}"


def no_verdict(counts: Sequence[tuple[int, int]]) -> str:
    """Why no test can show anything with the runs that there are, as a sentence; empty where one can.

    Args:
        counts: complete clusters of both arms of every test, which are adjusted for one another,
            :func:`harness.report.analysis.tested`.
    """
    if not counts:
        return ""
    smallest = [(statistics.smallest_permutation_p(n, m), n, m) for n, m in counts if min(n, m) > 1]
    if not smallest:
        return (
            "With one run in an arm there is no permutation test, so no verdict but “inconclusive” is "
            "possible."
        )
    p, n, m = min(smallest)
    adjusted = min(1.0, p * len(smallest))
    if adjusted < SIGNIFICANT:
        return ""
    tests = plural(len(smallest), "test") + ", adjusted after Holm," * (len(smallest) > 1)
    needed = statistics.runs_for_a_verdict(len(smallest))
    enough = (
        "no number of runs is enough for so many tests"
        if needed is None
        else f"at least {needed} runs in each arm are needed"
    )
    return (
        f"With {n}+{m} runs and {tests} the permutation p cannot be less than {adjusted:.2g}, so no "
        f"verdict but “inconclusive” is possible: {enough}."
    )


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
    if analysis.changed:
        found.append(f"Rows were changed after the run was finished: {', '.join(analysis.changed)}.")
    found += _of_folds(analysis) + _of_joint(analysis) + _incompetent(analysis) + _shifted(analysis)
    if impossible := no_verdict(tested(analysis)):
        found.append(impossible)
    return found


def _compared(analysis: Analysis) -> list[FoldResult]:
    """What warnings are about: doses and single sources all, else the headline's comparison."""
    shown = analysis.against_scratch
    return [f for c in (shown if analysis.kind in ("dose", "matrix") else shown[:1]) for f in c.folds]


def _of_folds(analysis: Analysis) -> list[str]:
    """Warnings about the runs that are compared with scratch, fold by fold."""
    beside = "the permutation p and the success shares"
    return _merged(pair for f in _compared(analysis) for pair in _of_task(f.measures, beside))


def _shifted(analysis: Analysis) -> list[str]:
    """The warning that speed-ups hang on where between two checkpoints a run arrived."""
    # task by task, as in a mean those above and below 1 cancel
    seen = [resolution([f]) for f in _compared(analysis)]
    shift = max((r.shift for r in seen if r is not None), default=1.0)
    if shift <= SHIFTED:
        return []
    why = CROSSED if analysis.interpolated else f"{DATED},"
    return [
        f"{why} those of single tasks change by a factor of up to {shift:.2f}. The intervals do not "
        "account for this."
    ]


def _of_joint(analysis: Analysis) -> list[str]:
    """Warnings about the runs of a joint plan, task by task."""
    if analysis.kind != "joint":
        return []
    given = (analysis.evaluations, analysis.runs, analysis.plan)
    if joint.SEPARATE not in analysis.arms:
        return [
            f"{int(diverged.sum())} of {plural(curves.count, 'network')} of {arm} diverged. They count "
            "with the whole budget for what they had not reached, and as 0 in mean curves and final scores."
            for arm in analysis.arms
            for curves in [joint.joint_curves(*given, arm, analysis.damaged)]
            for diverged in [np.isnan(curves.scores).any(axis=(1, 2))]
            if diverged.any()
        ]
    beside = "how many get there"
    return _merged(
        pair
        for arm in analysis.arms
        if arm != joint.SEPARATE
        for task in joint.task_measures(
            *given, joint.joint_curves(*given, arm, analysis.damaged), analysis.damaged
        )
        for pair in _of_task(task, beside)
    )


def _merged(pairs: Iterable[tuple[str, str]]) -> list[str]:
    """Sentences of ``(task, text)``, each text once, after the names of all tasks that it is about."""
    tasks: dict[str, list[str]] = {}
    for task, text in pairs:
        # what is said of the runs from scratch is the same for every arm
        if task not in tasks.setdefault(text, []):
            tasks[text].append(task)
    return [f"{', '.join(names)}: {text}" for text, names in tasks.items()]


def _of_task(fold: FoldMeasures, beside: str) -> Iterable[tuple[str, str]]:
    """Warnings about the runs of two arms on one task, each with the task's name.

    Args:
        fold: the measures of both arms.
        beside: what to read with an interval that may be too narrow.
    """
    for arm, theta in fold.mixed:
        yield (
            fold.task,
            f"mixed outcomes. From θ = {theta:.2f} on some runs of {arm} arrive within the budget and "
            f"others do not, so the t interval may be too narrow: read {beside} with it.",
        )
    for curves in fold.curves:
        if curves.diverged.any():
            yield (
                fold.task,
                f"{int(curves.diverged.sum())} of {len(curves.runs)} runs of {curves.arm} diverged. They "
                "count with the whole budget for what they had not reached, and as 0 in mean curves and in "
                "the asymptote.",
            )
    if fold.complete and not fold.estimable.all():
        out = fold.thresholds[~fold.estimable]
        yield (
            fold.task,
            f"no run of either arm reaches θ = {span(out)} within the budget. These thresholds are not "
            "estimable and left out of ρ̄ in both arms.",
        )
    if fold.limit:
        baseline, arm = fold.names
        yield fold.task, LIMITS[fold.limit].format(baseline=baseline, arm=arm)
    if fold.log_ratio().reason == "zero variance in both arms":
        yield (
            fold.task,
            "within each arm all runs took equally long, so there is no interval, and the task adds no "
            "uncertainty to that of the suite.",
        )


def _incompetent(analysis: Analysis) -> list[str]:
    """Warnings about pretrained networks that cannot do their own tasks, the headline's arm first."""
    shown = analysis.main.arm if analysis.comparisons else ""
    found = []
    for (fold, arm), pretrainings in analysis.competence.groupby(["fold", "arm"], sort=False):
        score = pretrainings["score"].mean()
        if score >= measures.COMPETENT:
            continue
        # the sources of a matrix belong to no fold
        where = f"{analysis.name(int(fold))}: " if fold >= 0 else ""
        text = (
            f"{where}at hand-over the pretrained networks of {arm} score {number(score)} on their own "
            f"tasks, below {measures.COMPETENT}. What they transfer is not what a competent network would."
        )
        found.append((arm != shown, f"{text[0].upper()}{text[1:]}" if fold < 0 else text))
    return [text for _, text in sorted(found, key=lambda entry: entry[0])]


def between_checkpoints(analysis: Analysis) -> str:
    """What the gaps between checkpoints leave open of the headline, in a sentence; empty without one."""
    seen = resolution(analysis.headline.folds)
    if seen is None:
        return ""
    return (
        f"{CROSSED if analysis.interpolated else DATED} this one is {factor(seen.other)} instead of "
        f"{factor(seen.planned)}, and wherever in its gap each run arrived, {span_of(seen)}. The interval "
        "does not account for this."
    )


def span_of(seen: Resolution) -> str:
    """The bounds of a mean speed-up in words."""
    if math.isinf(seen.high):
        return f"{factor(seen.low)} or more"
    return f"between {factor(seen.low)} and {factor(seen.high)}"


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
        counts = [arrived_count([result], arm, theta) for arm in (0, 1)]
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
        textwrap.fill(verdict(headline, main.arm, analysis.marks), WIDTH),
        "",
        *columns(rows),
    ]


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of text with the entries of ``rows`` in columns, the first row set off by a rule."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "─" * max(map(len, lines)))
    return lines
