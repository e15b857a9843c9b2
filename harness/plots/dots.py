"""Panels of points with intervals, tasks or arms down the side: levels, codes, comparability, variance."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator

from harness.plots.forest import limited_end, ratio_limits
from harness.plots.reach import Line
from harness.plots.style import (
    BLUE,
    DASHED,
    GROUND,
    GUIDE,
    INK,
    SMALL,
    WIDTH,
    Handle,
    Look,
    arm_label,
    count_axis,
    despine,
    finite,
    fit,
    fit_title,
    freeze,
    grow,
    key,
    legend,
    looks,
    open_end,
    ratio_axis,
    style,
    text_width,
)
from harness.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Dot:
    """A point with its interval."""

    label: str
    """The row it stands in: a task, a set of tasks, or an arm."""
    estimate: Estimate
    """Drawn unless NaN."""
    arm: str = "transfer"
    """Decides its look; several of one row stand under each other."""
    suite: bool = False
    """Whether it is a mean over tasks."""
    limit: str = ""
    """``at least`` or ``at most`` where the first checkpoint hides the rest, which an arrow says."""


@dataclasses.dataclass(frozen=True)
class DotPanel:
    """One measure; panels of one figure share their rows."""

    title: str
    """Name of the measure."""
    x_label: str
    """What is on the axis, with its unit."""
    dots: Sequence[Dot]
    """In the order of the rows."""
    reference: float | None = 0.0
    """Where a guide is drawn: no difference."""
    ratio: bool = False
    """Whether the axis is of ratios, and logarithmic."""


def levels(panels: Sequence[DotPanel], note: str = "") -> Figure:
    """Measures side by side, a row per task: jumpstart, asymptote and areas.

    Args:
        panels: at most four stand in a row.
        note: above the legend.
    """
    arms = list(dict.fromkeys(dot.arm for panel in panels for dot in panel.dots))
    style_of = looks(arms)
    rows = list(dict.fromkeys(dot.label for panel in panels for dot in panel.dots))
    suite = {dot.label for panel in panels for dot in panel.dots if dot.suite}
    columns = min(4, len(panels))
    count = math.ceil(len(panels) / columns)
    with style():
        labels = {row: fit(row, 1.45, 8.5, "bold" if row in suite else "normal", lines=2) for row in rows}
        each = max(0.13 * len(arms) + 0.14, 0.2 + 0.14 * max(t.count("\n") for t in labels.values()))
        figure = Figure(figsize=(WIDTH, count * (len(rows) * each + 0.95)), layout="constrained")
        axes = figure.subplots(count, columns, sharey=True, squeeze=False)
        side = max(text_width(t, 8.5, "bold") for t in labels.values())
        width = (WIDTH - side - 0.3) / columns - 0.12
        for i, ax in enumerate(axes.flat):
            if i >= len(panels):
                ax.remove()
                continue
            _dots(ax, panels[i], rows, labels, suite, style_of, width)
            ax.tick_params(labelleft=i % columns == 0)
        handles: list[Handle] = [key(arm, look, line=False) for arm, look in style_of.items()]
        legend(figure, handles if len(arms) > 1 else [], note)
        grow(figure)
        return freeze(figure)


def told_or_not(speed_up: DotPanel, codes: DotPanel, note: str = "") -> Figure:
    """Transfer against blind per task, and the score at hand-over with the true, mean and wrong code.

    Args:
        speed_up: arms ``transfer`` and ``blind``.
        codes: arms ``true``, ``mean`` and ``wrong``.
        note: above the legends.
    """
    return _beside((speed_up, codes), note)


def _beside(panels: Sequence[DotPanel], note: str) -> Figure:
    """Panels of equal rows and of different arms, each with its own legend above."""
    rows = list(dict.fromkeys(dot.label for panel in panels for dot in panel.dots))
    suite = {dot.label for panel in panels for dot in panel.dots if dot.suite}
    with style():
        labels = {row: fit(row, 1.45, 8.5, "bold" if row in suite else "normal", lines=2) for row in rows}
        most = max(len({dot.arm for dot in panel.dots}) for panel in panels)
        each = max(0.13 * most + 0.14, 0.2 + 0.14 * max(t.count("\n") for t in labels.values()))
        figure = Figure(figsize=(WIDTH, len(rows) * each + 1.35), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        side = max(text_width(t, 8.5, "bold") for t in labels.values())
        width = (WIDTH - side - 0.3) / len(panels) - 0.2
        for i, (ax, panel) in enumerate(zip(axes, panels, strict=True)):
            style_of = looks([dot.arm for dot in panel.dots])
            _dots(ax, panel, rows, labels, suite, style_of, width)
            ax.tick_params(labelleft=i == 0)
            ax.legend(
                handles=[key(arm, look, line=False) for arm, look in style_of.items()], ncols=len(style_of),
                loc="lower center", bbox_to_anchor=(0.5, 1.0), columnspacing=0.9, handletextpad=0.1,
                borderaxespad=0.1,
            )  # fmt: skip
            ax.set_title(fit_title(panel.title, width), pad=24)
        legend(figure, [], note)
        grow(figure)
        return freeze(figure)


def _dots(
    ax: Axes,
    panel: DotPanel,
    rows: Sequence[str],
    labels: Mapping[str, str],
    suite: set[str],
    style_of: Mapping[str, Look],
    width: float,
) -> None:
    if panel.ratio:
        low, high = ratio_limits([dot.estimate for dot in panel.dots], panel.reference)
        ax.set(xscale="log", xlim=(low, high))
        ratio_axis(ax.xaxis, low, high, width)
    else:
        low, high = _limits(panel)
        ax.set_xlim(low, high)
        ax.xaxis.set_major_locator(FixedLocator(_ticks(low, high, width)))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: _tick_text(x)))
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_yticks(range(len(rows)), [labels[row] for row in rows])
    for label in ax.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in {labels[row] for row in suite} else "normal")
    ax.tick_params(axis="y", length=0)
    for y in range(0, len(rows), 2):
        ax.axhspan(y - 0.5, y + 0.5, color=GUIDE, alpha=0.07, lw=0, zorder=-1)
    if all(math.isnan(dot.estimate.value) for dot in panel.dots):
        ax.text(0.5, 0.5, "no estimate", transform=ax.transAxes, ha="center", va="center", color=GUIDE)
    elif panel.reference is not None:
        ax.axvline(panel.reference, color=GUIDE, linewidth=1.0, linestyle=DASHED, zorder=0)
    first_suite = next((y for y, row in enumerate(rows) if row in suite), 0)
    if first_suite:
        ax.axhline(first_suite - 0.5, color=GUIDE, linewidth=0.8)
    standing = {row: [dot for dot in panel.dots if dot.label == row] for row in rows}
    most = max(map(len, standing.values()))
    for y, here in enumerate(standing.values()):
        for dot, shift in zip(here, _dodge(len(here), most), strict=True):
            _dot(ax, y + shift, dot, style_of[dot.arm], (low, high), most)
    ax.set_title(fit_title(panel.title, width))
    ax.set_xlabel(fit(panel.x_label, width + 0.1, 9, lines=3))
    despine(ax, left=True)


def _tick_text(x: float) -> str:
    return f"{x:g}".replace("-", "−")


def _ticks(low: float, high: float, width: float) -> list[float]:
    """Round numbers whose labels stand apart from each other and, at the ends, from the next panel's."""

    def inside(most: int) -> list[tuple[float, float, float]]:
        found = []
        for tick in MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], min_n_ticks=2).tick_values(low, high):
            at, half = (tick - low) / (high - low) * width, text_width(_tick_text(tick), 8.5) / 2 + 0.05
            # half a label may hang over the end of the axis, where there is a gap
            if at - half > -0.13 and at + half < width + 0.13:
                found.append((at - half, at + half, round(float(tick), 12)))
        return found

    def apart(ends: list[tuple[float, float, float]]) -> bool:
        return len(ends) > 1 and all(a[1] <= b[0] for a, b in itertools.pairwise(ends))

    first = max(2, int(width / 0.45))
    every = [inside(most) for most in range(first, 0, -1)]
    # else the outer two of a finer grid
    every += [[ends[0], ends[-1]] for most in range(first + 1, 13) if len(ends := inside(most)) > 1]
    chosen = next(filter(apart, every), every[0])
    return [tick for *_, tick in chosen]


def _dodge(count: int, arms: int) -> np.ndarray:
    spread = 0.76 * (arms - 1) / (arms + 0.6)
    return np.linspace(-spread / 2, spread / 2, count) if count > 1 else np.zeros(count)


def _dot(ax: Axes, y: float, dot: Dot, look: Look, limits: tuple[float, float], arms: int) -> None:
    e = dot.estimate
    if math.isnan(e.value):
        return
    low, high = limits
    lone = dot.suite and arms == 1
    colour = INK if lone else look.colour
    if not e.reason:
        # caps taller than the marker, which would hide a short interval
        ax.plot((max(e.low, low), min(e.high, high)), (y, y), color=colour, linewidth=1.4, zorder=2,
                marker="|", markersize=8.0 if arms < 4 else 6.5, markeredgewidth=0.9)  # fmt: skip
        for beyond, end, marker in ((e.low < low, low, "<"), (e.high > high, high, ">")):
            if beyond:
                ax.plot(end, y, marker=marker, color=colour, markersize=4, clip_on=False, zorder=3)
    open_end(ax, (min(max(limited_end(e, dot.limit), low), high), y), dot.limit, colour)
    ax.plot(
        min(max(e.value, low), high), y, marker="D" if lone else look.marker, color=colour, clip_on=False,
        markersize=5.0 if arms < 4 else 4.2, markerfacecolor=GROUND if look.hollow else colour, zorder=4,
    )  # fmt: skip


def _limits(panel: DotPanel) -> tuple[float, float]:
    """Every estimate, and every interval but for what lies more than the estimates' spread beyond."""
    values = finite([dot.estimate.value for dot in panel.dots] + [panel.reference])
    if not len(values):
        return 0.0, 1.0
    low, high = float(values.min()), float(values.max())
    reach = max(high - low, 0.1 * max(abs(low), abs(high)), 0.05)
    ends = finite(
        [e for d in panel.dots if not d.estimate.reason for e in (d.estimate.low, d.estimate.high)]
    )
    low = min(low, max(float(ends.min(initial=low)), low - reach))
    high = max(high, min(float(ends.max(initial=high)), high + reach))
    margin = max(0.06 * (high - low), 0.05 - (high - low) / 2)
    return low - margin, high + margin


# --- comparability ---------------------------------------------------------------------------------


def comparability(
    aggregates: Sequence[DotPanel],
    profile: Sequence[Line],
    improvement: DotPanel | None,
    note: str = "",
) -> Figure:
    """What other papers print: aggregate scores, performance profile, probability of improvement.

    Args:
        aggregates: mean, median, IQM and optimality gap, a row per arm.
        profile: share of runs with a score above τ against τ, one per arm.
        improvement: probability that an arm's run scores above one from scratch, a row per arm; ``None``
            where there is nothing to improve on.
        note: above the legend.
    """
    arms = list(
        dict.fromkeys([d.arm for p in aggregates for d in p.dots] + [line.name for line in profile])
    )
    style_of = looks(arms)
    with style():
        rows = list(dict.fromkeys(dot.label for panel in aggregates for dot in panel.dots))
        labels = {row: fit(arm_label(row), 1.3, 8.5) for row in rows}
        above = 0.24 * len(rows) + 0.75
        figure = Figure(figsize=(WIDTH, above + 2.5), layout="constrained")
        top, bottom = figure.subfigures(2, 1, height_ratios=(above, 2.5), squeeze=False)[:, 0]
        axes = top.subplots(1, len(aggregates), sharey=True, squeeze=False)[0]
        width = (WIDTH - 1.5) / len(aggregates) - 0.12
        for i, (ax, panel) in enumerate(zip(axes, aggregates, strict=True)):
            _dots(ax, panel, rows, labels, set(), style_of, width)
            ax.tick_params(labelleft=i == 0)
        ratios = (1.25, 1) if improvement else (1,)
        left, *right = bottom.subplots(1, len(ratios), width_ratios=ratios, squeeze=False)[0]
        for line in profile:
            look = style_of[line.name]
            left.step(line.x, line.y, where="post", color=look.colour, linestyle=look.dash, linewidth=1.7)
            if line.low is not None and line.high is not None:
                left.fill_between(
                    line.x, line.low, line.high, step="post", color=look.colour, alpha=0.12, lw=0
                )
        left.set(ylim=(-0.02, 1.02), xlabel="score τ", ylabel="runs that score more than τ")
        left.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
        left.set_title("performance profile")
        despine(left)
        if improvement:
            rows_below = list(dict.fromkeys(dot.label for dot in improvement.dots))
            labels_below = {row: fit(arm_label(row), 1.3, 8.5) for row in rows_below}
            _dots(right[0], improvement, rows_below, labels_below, set(), style_of, 2.0)
        legend(figure, [key(arm, look) for arm, look in style_of.items()], note)
        grow(figure)
        return freeze(figure)


# --- variance --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class VarianceRow:
    """Where the spread of one task and arm comes from."""

    label: str
    """Task and arm, with n."""
    parts: Mapping[str, float]
    """Variance by source, for example ``pretraining`` and ``fine-tuning``; not negative, in one unit."""
    text: str = ""
    """The spread in words, for example ``sd 0.21 of log steps``."""


PARTS = {
    "pretraining": BLUE,
    "fine-tuning": "#56B4E9",
    "seed": "#D55E00",
    "evaluation": "#BBBBBB",
}
_HATCHES = ("", "///", "...", "xxx")


def variance(
    rows: Sequence[VarianceRow], effects: Sequence[Line], planned: int | None = None, note: str = ""
) -> Figure:
    """How the variance splits, and the smallest speed-up that n clusters an arm would show.

    Args:
        rows: one per task and arm; empty where no split was planned.
        effects: detectable ρ against clusters an arm, a line per task; that named ``suite`` is bold.
        planned: clusters an arm of the plan.
        note: above the legend.
    """
    with style():
        bars = 0.36 * len(rows) + 0.75 if rows else 0.0
        figure = Figure(figsize=(WIDTH, bars + (2.9 if effects else 0.0)), layout="constrained")
        parts = [(bars, "bars")] * bool(rows) + [(2.9, "effects")] * bool(effects)
        pieces = figure.subfigures(len(parts), 1, height_ratios=[h for h, _ in parts], squeeze=False)[:, 0]
        for piece, (_, what) in zip(pieces, parts, strict=True):
            ax = piece.subplots()
            if what == "bars":
                _split(ax, rows)
                piece.legend(handles=_part_handles(rows), loc="outside upper left", ncols=4)
            else:
                handles = _effects(ax, effects, planned)
                widest = max(text_width(str(h.get_label()), 8.5) for h in handles) + 0.6
                piece.legend(handles=handles, loc="outside upper left",
                             ncols=max(1, min(4, int((WIDTH - 0.2) / widest))))  # fmt: skip
        legend(figure, [], note)
        grow(figure)
        return freeze(figure)


def _part_names(rows: Sequence[VarianceRow]) -> list[str]:
    return list(dict.fromkeys(part for row in rows for part in row.parts))


def _part_handles(rows: Sequence[VarianceRow]) -> list[Patch]:
    return [
        Patch(facecolor=PARTS.get(p, GUIDE), edgecolor=GROUND, hatch=_HATCHES[k % 4], label=f"between {p}s")
        for k, p in enumerate(_part_names(rows))
    ]


def _split(ax: Axes, rows: Sequence[VarianceRow]) -> None:
    names = _part_names(rows)
    for y, row in enumerate(rows):
        whole = float(np.nansum(list(row.parts.values())))
        left = 0.0
        for part, value in row.parts.items():
            share = value / whole if whole > 0 and not math.isnan(value) else 0.0
            ax.barh(y, share, left=left, height=0.62, color=PARTS.get(part, GUIDE), edgecolor=GROUND,
                    hatch=_HATCHES[names.index(part) % 4], linewidth=0.6)  # fmt: skip
            left += share
        said = row.text if whole > 0 else "no spread"
        ax.text(
            1.015, y, fit(said, 1.6, SMALL), va="center", fontsize=SMALL, transform=ax.get_yaxis_transform()
        )
    ax.set_yticks(range(len(rows)), [fit(row.label, 1.8, 8.5, lines=2) for row in rows])
    ax.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="share of the variance of log steps")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.0%}"))
    ax.tick_params(axis="y", length=0)
    despine(ax, left=True)


def _effects(ax: Axes, effects: Sequence[Line], planned: int | None) -> list[Handle]:
    style_of = looks([line.name for line in effects if line.name != "suite"])
    handles: list[Handle] = []
    for line in effects:
        look = style_of.get(line.name, Look(INK, "D", "-"))
        bold = line.name == "suite"
        ax.plot(line.x, line.y, color=look.colour, linestyle=look.dash, linewidth=2.2 if bold else 1.1,
                marker=look.marker, markersize=4.5 if bold else 3.2, zorder=3 if bold else 2)  # fmt: skip
        label = "mean over tasks" if bold else fit(line.name, 1.6, 8.5)
        handles.append(key(line.name, look, label + (f" ({line.n})" if line.n else "")))
    values = finite([line.y for line in effects])
    high = float(values.max(initial=2.0)) * 1.1
    ax.set(yscale="log", ylim=(1.0, high), xlabel="clusters in each arm",
           ylabel="smallest speed-up\nseen with power 80%")  # fmt: skip
    ratio_axis(ax.yaxis, 1.0, high, 2.0)
    count_axis(ax.xaxis, [float(x) for line in effects for x in line.x], 5.5)
    if planned is not None:
        ax.axvline(planned, color=GUIDE, linewidth=0.8, linestyle=DASHED, zorder=0)
        ax.annotate(f"n = {planned}", (planned, 1.0), (3, -3), xycoords=ax.get_xaxis_transform(),
                    textcoords="offset points", va="top", fontsize=SMALL, color=GUIDE)  # fmt: skip
    despine(ax)
    return handles
