"""Rows of ratios with their intervals and their numbers beside: forest, sensitivity and break-even."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import XAxis
from matplotlib.figure import Figure

from harness.plots.style import (
    COLOURS,
    DASHED,
    GROUND,
    GUIDE,
    INK,
    SMALL,
    WIDTH,
    Look,
    arm_label,
    despine,
    fit,
    freeze,
    log_step_axis,
    looks,
    open_end,
    ratio_axis,
    style,
    text_width,
)
from harness.statistics import Estimate

ROW, ARM_ROW, LINE = 0.26, 0.2, 0.15
"""Height of a row, of a row of several arms, and of each further line of text in it, inches."""
GAP = 0.12
"""Between groups of rows, inches."""


@dataclasses.dataclass(frozen=True)
class ForestRow:
    """One row of the forest plot; rows of equal label in sequence are one group."""

    label: str
    """Name of the task, of the set of tasks, or of the variation."""
    ratio: Estimate
    """Speed-up with its interval, as a ratio."""
    n: tuple[int, ...]
    """Clusters of (scratch, arm), or the number of tasks of a suite row."""
    text: str
    """The estimate in words, as in the report's table."""
    mark: str = ""
    """What sets the row apart, for example ``solved at step 0``; several are parted by commas."""
    suite: bool = False
    """Whether the row is a mean over tasks."""
    arm: str = "transfer"
    """Which arm is compared."""
    limit: str = ""
    """``at least`` or ``at most`` where the first checkpoint hides the rest, which an arrow says."""


@dataclasses.dataclass(frozen=True)
class BreakEvenRow:
    """After how many new tasks a pretraining has paid for itself."""

    label: str
    """Name of the task or of the set of tasks."""
    tasks: Estimate
    """New tasks, C / (Y_scratch - Y_transfer) with Fieller's interval; an end at infinity is unbounded,
    and a value that is NaN or negative is not drawn."""
    n: tuple[int, ...]
    """Clusters of (scratch, transfer), or the number of tasks of a suite row."""
    text: str
    """The estimate in words."""
    suite: bool = False
    """Whether the row is a mean over tasks."""


@dataclasses.dataclass(frozen=True)
class _Headings:
    label: str
    text: str
    x: str
    sides: tuple[str, str]
    bare: bool = False
    """Whether the arm is not named in a group of one."""


def forest(
    rows: Sequence[ForestRow], baseline: str = "scratch", heading: str = "held-out task", note: str = ""
) -> Figure:
    """Speed-up per task with its interval on a logarithmic axis, the suite's rows below a line.

    Args:
        rows: in the order drawn; those of one task in sequence where there are several arms.
        baseline: the arm that all are compared with.
        heading: of the labels.
        note: printed below.
    """
    arms = list(dict.fromkeys(row.arm for row in rows))
    arm = f"with {arm_label(arms[0])}" if len(arms) == 1 else "of the arm"
    words = _Headings(
        heading,
        "ρ̄ [95% interval]",
        f"speed-up ρ̄: mean steps from {arm_label(baseline)} / {arm}",
        ("← slower ", " faster →"),
    )
    return _rows(rows, words, 1.0, None, ratio_axis, note)


def sensitivity(rows: Sequence[ForestRow], headline: Estimate, note: str = "") -> Figure:
    """The headline under each variation of how it is measured, over its own interval as a band.

    Args:
        rows: a variation each; rows of equal label in sequence are one group, their arms its members.
        headline: as a ratio.
        note: printed below.
    """
    words = _Headings("variation", "ρ̄ [95% interval]", "speed-up ρ̄", ("← slower ", " faster →"), bare=True)
    return _rows(rows, words, 1.0, headline, ratio_axis, note)


def break_even(rows: Sequence[BreakEvenRow], theta: str, note: str = "") -> Figure:
    """New tasks until the steps saved are those that pretraining took, on a logarithmic axis.

    Args:
        rows: in the order drawn.
        theta: the score, or the range of scores, that counts as learned.
        note: printed below.
    """
    words = _Headings(
        "held-out task",
        "tasks [95% interval]",
        f"new tasks until pretraining has paid for itself ({theta})",
        ("", ""),
    )
    shown = []
    for row in rows:
        e = row.tasks
        bare = not math.isfinite(e.value) or e.value <= 0
        # an interval without a value still shows from where on it may lie
        interval = e.low > 0 and math.isfinite(e.low)
        value = math.nan if bare and not interval else e.low if bare else e.value
        low = e.low if interval else 1e-9
        ratio = dataclasses.replace(e, value=value, low=low, high=math.inf if bare else e.high)
        shown.append(
            ForestRow(row.label, ratio, row.n, row.text, suite=row.suite, limit="hidden" if bare else "")
        )

    def axis(which: XAxis, low: float, high: float, inches: float) -> None:
        log_step_axis(which, low, high, int(inches / 0.5))

    return _rows(shown, words, None, None, axis, note)


def _rows(
    rows: Sequence[ForestRow],
    words: _Headings,
    one: float | None,
    band: Estimate | None,
    axis: Callable[[XAxis, float, float, float], None],
    note: str,
) -> Figure:
    """Columns of label, arm, interval, text and n, as wide as what they hold."""
    arms = list(dict.fromkeys(row.arm for row in rows))
    style_of = looks(arms)
    groups = _groups(rows)
    with style():
        labels = [fit(rows[g[0]].label, 1.6, 9, _weight(rows[g[0]]), lines=2) for g in groups]
        label_width = max(text_width(words.label, SMALL), *(text_width(t, 9, "bold") for t in labels))
        bare = {i for g in groups if len(g) == 1 for i in g} if words.bare or len(arms) == 1 else set()
        names = ["" if i in bare else fit(arm_label(row.arm), 1.15, 8.5) for i, row in enumerate(rows)]
        arm_width = max(text_width(t, 8.5) for t in names) + (0.12 if len(arms) > 1 else 0)
        texts = [fit(row.text, 1.75, 8.5, _weight(row), lines=3) for row in rows]
        marks = [fit(row.mark.replace(", ", "\n"), 1.75, SMALL, lines=3) for row in rows]
        text_column = max(
            text_width(words.text, SMALL),
            *(text_width(t, 8.5, _weight(row)) for t, row in zip(texts, rows, strict=True)),
            *(text_width(t, SMALL) for t in marks),
        )
        counts = [_count(row) for row in rows]
        n_width = max(text_width(t, 8.5) for t in (*counts, "n"))

        # from the top down, inches
        y, middles, lines = 0.06, [0.0] * len(rows), []
        for g, label in zip(groups, labels, strict=True):
            if g[0] and rows[g[0]].suite != rows[g[0] - 1].suite:
                lines.append(y + GAP / 2)
                y += GAP
            top, each = y, ROW if len(arms) == 1 else ARM_ROW
            for i in g:
                beside = _lines(label) if len(g) == 1 else 1
                high = each + LINE * (max(_lines(texts[i]) + _lines(marks[i]), beside) - 1)
                middles[i] = y + high / 2
                y += high
            y = max(y, top + each + LINE * label.count("\n")) + (GAP if len(arms) > 1 else 0.0)
        # arrows may begin at the end of the axis, and need room beside it
        limits = {row.limit for row in rows}
        gaps = [
            0.34 if limit in limits else usual for limit, usual in (("at most", 0.14), ("at least", 0.16))
        ]
        left = 0.08 + label_width + arm_width + gaps[0]
        right = gaps[1] + text_column + 0.14 + n_width + 0.08
        below = 0.62 if words.sides[1] else 0.46
        foot = fit(note, WIDTH - 0.2, SMALL, lines=3)
        below += 0.16 * _lines(foot) + (0.06 if foot else 0.0)
        height = 0.28 + y + below
        figure = Figure(figsize=(WIDTH, height))
        ax = figure.add_axes((left / WIDTH, below / height, (WIDTH - left - right) / WIDTH, y / height))
        low, high = ratio_limits([row.ratio for row in rows], one)
        ax.set(xscale="log", xlim=(low, high), ylim=(y, 0.0))
        if one is not None:
            ax.axvline(one, color=GUIDE, linewidth=1.0, linestyle=DASHED, zorder=0)
        if band is not None and not band.reason and not math.isnan(band.value):
            ax.axvspan(max(band.low, low), min(band.high, high), color=INK, alpha=0.09, lw=0, zorder=0)
            ax.axvline(band.value, color=INK, linewidth=0.8, alpha=0.6, zorder=0)
        inch = 1 / (WIDTH - left - right)
        across = ax.get_yaxis_transform()
        for at in lines:
            ax.plot((-(left - 0.08) * inch, 1 + (right - 0.08) * inch), (at, at),
                        color=GUIDE, linewidth=0.8, transform=across, clip_on=False)  # fmt: skip

        def write(x: float, y: float, text: str, size: float = 8.5, **kwargs: Any) -> None:
            ax.text(x, y, text, transform=across, fontsize=size, **{"ha": "left", "va": "center"} | kwargs)

        text_x, n_x = 1 + gaps[1] * inch, 1 + (right - 0.08 - n_width) * inch
        label_x = -(left - 0.08) * inch
        for x, text in ((label_x, words.label), (text_x, words.text), (n_x, "n")):
            write(x, -0.04, text, SMALL, va="bottom", color=GUIDE)
        for g, label in zip(groups, labels, strict=True):
            at = middles[g[0]] if len(g) == 1 or "\n" not in label else middles[g[0]] + LINE / 2
            write(label_x, at, label, 9, weight=_weight(rows[g[0]]))
        for i, row in enumerate(rows):
            _interval(ax, middles[i], row, style_of[row.arm], (low, high), lone=len(arms) == 1)
            write(label_x + (label_width + 0.12) * inch, middles[i], names[i])
            shift = LINE / 2
            write(text_x, middles[i] - shift * _lines(marks[i]), texts[i], weight=_weight(row))
            bad = "negative" in row.mark
            write(text_x, middles[i] + shift * _lines(texts[i]), marks[i], SMALL,
                  color=COLOURS["scratch"] if bad else GUIDE)  # fmt: skip
            write(n_x, middles[i], counts[i])
        axis(ax.xaxis, low, high, WIDTH - left - right)
        ax.set_yticks([])
        ax.set_xlabel(words.x, labelpad=16 if words.sides[1] else 4)
        # centred under the axis, but never beyond the page
        half = text_width(words.x) / 2
        middle = left + (WIDTH - left - right) / 2
        shifted = min(max(middle, half + 0.08), WIDTH - half - 0.08)
        ax.xaxis.label.set_x((shifted - left) * inch)
        if one is not None:
            for text, shift, place in zip(words.sides, (-2, 2), ("right", "left"), strict=True):
                ax.annotate(text, (one, 0.0), (shift, -18), xycoords=ax.get_xaxis_transform(), ha=place,
                            textcoords="offset points", va="top", fontsize=SMALL, color=GUIDE)  # fmt: skip
        if foot:
            figure.text(0.08 / WIDTH, 0.06 / height, foot, fontsize=SMALL, color=GUIDE, va="bottom")
        despine(ax, left=True)
        return freeze(figure)


def _groups(rows: Sequence[ForestRow]) -> list[list[int]]:
    groups: list[list[int]] = []
    for i, row in enumerate(rows):
        # the same arm twice under one label is two groups
        if i and row.label == rows[i - 1].label and row.arm not in {rows[j].arm for j in groups[-1]}:
            groups[-1].append(i)
        else:
            groups.append([i])
    return groups


def _interval(
    ax: Axes, y: float, row: ForestRow, look: Look, limits: tuple[float, float], lone: bool
) -> None:
    """A row's point and interval; what goes on beyond the axis ends in an arrow."""
    low, high = limits
    ratio = row.ratio
    if math.isnan(ratio.value):
        return
    colour = INK if row.suite and lone else look.colour
    value = min(max(ratio.value, low), high)
    if not ratio.reason:
        ends = min(max(ratio.low, low), high), max(min(ratio.high, high), low)
        ax.plot(ends, (y, y), color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        for beyond, end, marker in ((ratio.low < low, low, "<"), (ratio.high > high, high, ">")):
            if beyond:
                ax.plot(end, y, marker=marker, color=colour, markersize=5, clip_on=False, zorder=3)
    if row.limit == "hidden":
        return
    end = limited_end(ratio, row.limit)
    open_end(ax, (min(max(end, low), high), y), row.limit, colour)
    ax.plot(
        value,
        y,
        marker="D" if row.suite and lone else look.marker,
        markersize=7 if row.suite else 6,
        color=colour,
        markerfacecolor=GROUND if "solved" in row.mark or look.hollow else colour,
        linestyle="none",
        clip_on=False,
        zorder=4,
    )


def limited_end(ratio: Estimate, limit: str) -> float:
    """Where the arrow of :func:`harness.plots.style.open_end` starts."""
    if ratio.reason:
        return ratio.value
    return max(ratio.high, ratio.value) if limit == "at least" else min(ratio.low, ratio.value)


def ratio_limits(ratios: Sequence[Estimate], one: float | None = 1.0) -> tuple[float, float]:
    """Limits that show every estimate, and every interval but for what lies eightfold beyond them."""
    anchors = [] if one is None else [one]
    values = [r.value for r in ratios if not math.isnan(r.value)] + anchors or [1.0]
    inner = min(values), max(values)
    lows = [max(r.low, inner[0] / 8) for r in ratios if not r.reason and not math.isnan(r.low)]
    highs = [min(r.high, inner[1] * 8) for r in ratios if not r.reason and not math.isnan(r.high)]
    return (
        min([inner[0] / 1.3, *(a / 2 for a in anchors), *lows]) / 1.15,
        max([inner[1] * 1.3, *(a * 2 for a in anchors), *highs]) * 1.15,
    )


def _weight(row: ForestRow) -> str:
    return "bold" if row.suite else "normal"


def _lines(text: str) -> int:
    return text.count("\n") + 1 if text else 0


def _count(row: ForestRow) -> str:
    unit = ("task" if row.n == (1,) else "tasks") if row.suite else ""
    return f"{'+'.join(map(str, row.n))} {unit}".strip()
