"""The report's figures, in one colour-blind-safe style, with units and n.

Each function draws what it is given and computes nothing but positions. Figures are made without
pyplot, so that nothing is global, and saved without dates, so that equal data give equal bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from harness.statistics import Band, Estimate

# Okabe and Ito's palette, told apart by the common colour blindnesses and, by lightness, in grey
COLOURS = {
    "scratch": "#D55E00",
    "transfer": "#0072B2",
    "blind": "#009E73",
    "single_source": "#CC79A7",
    "normalizer": "#E69F00",
    "shuffled": "#56B4E9",
    "ceiling": "#000000",
}
INK = "#222222"
GUIDE = "#767676"
DPI = 144
PANEL = (3.1, 2.5)
"""Width and height of one panel of small multiples, inches."""
RATIO_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of all figures, for the time of the block."""
    rc = {
        "font.family": "DejaVu Sans",  # comes with matplotlib: bytes do not depend on the machine's fonts
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.labelsize": 9,
        "axes.edgecolor": GUIDE,
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "legend.fontsize": 8.5,
        "legend.frameon": False,
        "axes.linewidth": 0.8,
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        # names of tasks are text, not formulas
        "text.parse_math": False,
    }
    # from the defaults, whatever the user's matplotlibrc says
    with matplotlib.rc_context(matplotlib.rcParamsDefault | sns.axes_style("ticks") | rc):
        yield


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, facecolor="white")
    return buffer.getvalue()


def steps_text(steps: float) -> str:
    """``1500`` as ``1.5k``, ``2000000`` as ``2M``."""
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if abs(steps) >= size * 0.9995:
            return f"{steps / size:.3g}{letter}"
    return f"{steps:.3g}"


@dataclasses.dataclass(frozen=True)
class ForestRow:
    """One row of the forest plot."""

    label: str
    """Name of the task or of the set of tasks."""
    ratio: Estimate
    """Speed-up with its interval, as a ratio."""
    n: tuple[int, ...]
    """Clusters of (scratch, transfer), or the number of tasks of a suite row."""
    text: str
    """The estimate in words, as in the report's table."""
    mark: str = ""
    """What sets the row apart, for example ``solved at step 0``."""
    suite: bool = False
    """Whether the row is a mean over tasks."""


def forest(rows: Sequence[ForestRow]) -> Figure:
    """Speed-up per task with its interval on a logarithmic axis, the suite's rows below a line."""
    with style():
        height = 1.15 + 0.34 * len(rows)
        figure = Figure(figsize=(9.2, height))
        ax = figure.add_axes((0.24, 0.72 / height, 0.36, 1 - 1.12 / height))
        low, high = _ratio_limits([row.ratio for row in rows])
        ax.set(xscale="log", xlim=(low, high), ylim=(len(rows) - 0.4, -0.6))
        ax.axvline(1.0, color=GUIDE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
        first_suite = next((i for i, row in enumerate(rows) if row.suite), len(rows))
        if 0 < first_suite < len(rows):
            ax.axhline(first_suite - 0.5, color=GUIDE, linewidth=0.8, clip_on=False, xmin=-0.6, xmax=1.95)
        for y, row in enumerate(rows):
            _forest_row(ax, y, row, low, high)
        for x, heading, place in (
            (-0.03, "held-out task", "right"),
            (1.04, "speed-up ρ̄ [95% interval]", "left"),
            (1.63, "n", "left"),
        ):
            ax.text(
                x, -0.75, heading, transform=ax.get_yaxis_transform(), ha=place, va="bottom", color=GUIDE
            )
        ax.xaxis.set_major_locator(FixedLocator([t for t in RATIO_TICKS if low <= t <= high]))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}×"))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.set_yticks([])
        ax.set_xlabel("speed-up ρ̄: mean steps from scratch / with transfer", labelpad=16)
        below: dict[str, Any] = {
            "xycoords": ax.get_xaxis_transform(),
            "textcoords": "offset points",
            "color": GUIDE,
        }
        for text, shift, place in (("← slower ", -2, "right"), (" faster →", 2, "left")):
            ax.annotate(text, (1.0, 0.0), (shift, -18), ha=place, va="top", fontsize=8, **below)
        sns.despine(ax=ax, left=True)
        return figure


def _forest_row(ax: Axes, y: int, row: ForestRow, low: float, high: float) -> None:
    across = ax.get_yaxis_transform()
    weight = "bold" if row.suite else "normal"
    ax.text(-0.03, y, _shorten(row.label, 26), transform=across, ha="right", va="center", weight=weight)
    ax.text(1.04, y, row.text, transform=across, ha="left", va="center", weight=weight)
    unit = ("task" if row.n == (1,) else "tasks") if row.suite else ""
    ax.text(
        1.63, y, f"{'+'.join(map(str, row.n))} {unit}".strip(), transform=across, ha="left", va="center"
    )
    if row.mark:
        ax.text(
            1.78,
            y,
            row.mark.replace(", ", "\n"),
            transform=across,
            ha="left",
            va="center",
            color=GUIDE,
            fontsize=8,
        )
    colour = INK if row.suite else COLOURS["transfer"]
    if math.isnan(row.ratio.value):
        return
    if not row.ratio.reason:
        ends = (max(row.ratio.low, low), min(row.ratio.high, high))
        ax.plot(ends, (y, y), color=colour, linewidth=1.6, solid_capstyle="butt", zorder=2)
        # an interval that goes on beyond the axis ends in an arrow
        for beyond, end, marker in ((row.ratio.low < low, low, "<"), (row.ratio.high > high, high, ">")):
            if beyond:
                ax.plot(end, y, marker=marker, color=colour, markersize=5, clip_on=False, zorder=3)
    ax.plot(
        min(max(row.ratio.value, low), high),
        y,
        marker="D" if row.suite else "o",
        markersize=7 if row.suite else 6,
        color=colour,
        markerfacecolor="white" if row.mark.startswith("solved") else colour,
        linestyle="none",
        zorder=4,
    )


def _ratio_limits(ratios: Sequence[Estimate]) -> tuple[float, float]:
    """Limits that show every estimate, and every interval but for what lies eightfold beyond them."""
    values = [r.value for r in ratios if not math.isnan(r.value)] or [1.0]
    inner = min([*values, 1.0]), max([*values, 1.0])
    lows = [max(r.low, inner[0] / 8) for r in ratios if not r.reason]
    highs = [min(r.high, inner[1] * 8) for r in ratios if not r.reason]
    return min([inner[0] / 1.3, 0.5, *lows]) / 1.1, max([inner[1] * 1.3, 2.0, *highs]) * 1.1


@dataclasses.dataclass(frozen=True, eq=False)
class CurvePanel:
    """Learning curves of one task, or the mean over tasks."""

    title: str
    """Name of the task."""
    bands: Mapping[str, Band]
    """Mean and bands of each arm."""
    seeds: Mapping[str, np.ndarray]
    """Single runs of each arm, ``(runs, checkpoints)``; empty for a mean over tasks."""


def learning_curves(
    panels: Sequence[CurvePanel], steps: np.ndarray, budget: float, thresholds: Sequence[float]
) -> Figure:
    """Score against steps, a panel per task: every seed thin, mean, simultaneous and pointwise band."""
    steps = np.asarray(steps, float)

    def draw(ax: Axes, i: int) -> None:
        panel = panels[i]
        for level in (min(thresholds), max(thresholds)):
            ax.axhline(level, color=GUIDE, linewidth=0.7, linestyle=(0, (4, 3)), zorder=0)
        ax.axhline(1.0, color=GUIDE, linewidth=0.8, linestyle=(0, (6, 2, 1, 2)), zorder=0)
        ax.axvline(budget, color=GUIDE, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        for arm, band in panel.bands.items():
            colour = COLOURS[arm]
            for run in panel.seeds.get(arm, ()):
                ax.plot(steps, run, color=colour, linewidth=0.5, alpha=0.55, zorder=2)
            if not np.isnan(band.low_simultaneous).all():
                ax.fill_between(
                    steps, band.low_simultaneous, band.high_simultaneous, color=colour, alpha=0.12, lw=0
                )
            if not np.isnan(band.low).all():
                ax.fill_between(steps, band.low, band.high, color=colour, alpha=0.16, lw=0)
            ax.plot(steps, band.mean, color=colour, linewidth=1.9, zorder=3, solid_joinstyle="round")
        ax.set_title(_shorten(panel.title, 34))
        _step_axis(ax, steps)

    shown = [run for panel in panels for runs in panel.seeds.values() for run in runs]
    values = np.concatenate(shown) if shown else np.array([0.0])
    values = values[np.isfinite(values)]
    top = max(1.12, min(float(values.max(initial=1.0)) + 0.06, 2.0))
    bottom = min(-0.08, max(float(values.min(initial=0.0)) - 0.06, -0.6))
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.bands))
    handles: list[Line2D | Patch] = [
        *(Line2D([], [], color=COLOURS[arm], linewidth=1.9, label=f"{arm}: mean") for arm in arms),
        Line2D([], [], color=INK, linewidth=0.6, alpha=0.7, label="single runs"),
        Patch(facecolor=INK, alpha=0.30, label="95% pointwise"),
        Patch(facecolor=INK, alpha=0.13, label="95% simultaneous"),
        Line2D([], [], color=GUIDE, linewidth=0.8, linestyle=(0, (4, 3)), label="range of θ"),
        Line2D([], [], color=GUIDE, linewidth=0.8, linestyle=(0, (6, 2, 1, 2)), label="reference"),
        Line2D([], [], color=GUIDE, linewidth=0.9, linestyle=(0, (1, 2)), label="budget B"),
    ]
    return _grid(
        len(panels), draw, "steps (control steps of all worlds of a run)", "score g", handles, (bottom, top)
    )


@dataclasses.dataclass(frozen=True, eq=False)
class ThresholdPanel:
    """Something against θ for one task, by arm."""

    title: str
    """Name of the task."""
    values: Mapping[str, np.ndarray]
    """By arm, ``(thresholds,)``."""
    low: Mapping[str, np.ndarray]
    """Lower ends of the intervals, NaN where there is none."""
    high: Mapping[str, np.ndarray]
    """Upper ends."""
    censored: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Where a mean holds runs that never arrived, ``(thresholds,)`` of bool."""


def success_shares(panels: Sequence[ThresholdPanel], thresholds: np.ndarray) -> Figure:
    """Share of runs that arrive at θ within the budget, with Wilson intervals, a panel per task."""

    def draw(ax: Axes, i: int) -> None:
        # side by side, so that equal shares do not hide each other
        arms = list(panels[i].values)
        gap = 0.018 if len(arms) > 1 else 0.0
        for k, arm in enumerate(arms):
            x = thresholds + gap * (k / max(len(arms) - 1, 1) - 0.5)
            share = panels[i].values[arm]
            ax.vlines(
                x, panels[i].low[arm], panels[i].high[arm], color=COLOURS[arm], linewidth=1.1, alpha=0.6
            )
            ax.plot(
                x,
                share,
                marker="os^Dv"[k % 5],
                markersize=3.6,
                color=COLOURS[arm],
                linestyle="none",
                clip_on=False,
                zorder=3,
            )
        ax.set_title(_shorten(panels[i].title, 34))
        _threshold_axis(ax, thresholds)

    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.values))
    handles = [
        *(
            Line2D([], [], color=COLOURS[a], marker="os^Dv"[k % 5], markersize=4, linestyle="none", label=a)
            for k, a in enumerate(arms)
        ),
        Line2D([], [], color=INK, linewidth=1.1, alpha=0.6, label="95% Wilson interval"),
    ]
    return _grid(
        len(panels),
        draw,
        "threshold θ (score)",
        "share arrived by B",
        handles,
        (-0.04, 1.04),
        legend_columns=3,
    )


def times_by_threshold(
    panels: Sequence[ThresholdPanel], thresholds: np.ndarray, first: float, budget: float
) -> Figure:
    """Mean restricted time to θ, a panel per task; hollow where runs never arrived and count with B."""

    def draw(ax: Axes, i: int) -> None:
        for guide in (first, budget):
            ax.axhline(guide, color=GUIDE, linewidth=0.8, linestyle=(0, (1, 2)), zorder=0)
        for arm, times in panels[i].values.items():
            colour = COLOURS[arm]
            ax.fill_between(
                thresholds, panels[i].low[arm], panels[i].high[arm], color=colour, alpha=0.15, lw=0
            )
            ax.plot(thresholds, times, color=colour, linewidth=1.6, zorder=2)
            hollow = panels[i].censored[arm]
            for which, face in ((~hollow, colour), (hollow, "white")):
                if not which.any():
                    continue
                ax.plot(
                    thresholds[which],
                    times[which],
                    marker="o",
                    markersize=3.6,
                    color=colour,
                    markerfacecolor=face,
                    linestyle="none",
                    clip_on=False,
                    zorder=3,
                )
        ax.set_title(_shorten(panels[i].title, 34))
        ax.set_yscale("log")
        ax.yaxis.set_major_locator(FixedLocator(_decades(first, budget)))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: steps_text(y)))
        ax.yaxis.set_minor_locator(NullLocator())
        _threshold_axis(ax, thresholds)

    handles: list[Line2D | Patch] = [
        *_arm_handles(panels, "95% t interval"),
        Line2D([], [], color=INK, marker="o", markersize=4, markerfacecolor="white", linestyle="none",
               label="some runs never arrive (count as B)"),
        Line2D([], [], color=GUIDE, linewidth=0.9, linestyle=(0, (1, 2)), label="first checkpoint, B"),
    ]  # fmt: skip
    return _grid(
        len(panels),
        draw,
        "threshold θ (score)",
        "mean steps to θ, at most B",
        handles,
        (first / 1.35, budget * 1.35),
        legend_columns=3,
    )


def speed_up_by_threshold(
    tasks: Mapping[str, np.ndarray],
    suite: Sequence[Estimate],
    thresholds: np.ndarray,
    counts: Sequence[int],
) -> Figure:
    """ρ_θ against θ: a thin line per task, and the mean over tasks with its pointwise t interval.

    Args:
        tasks: by task, ``(thresholds,)``, NaN where not estimable.
        suite: mean over the tasks that are estimable at each θ, as a ratio.
        thresholds: θ grid.
        counts: how many tasks those are.
    """
    with style():
        figure = Figure(figsize=(7.6, 4.0), layout="constrained")
        ax = figure.subplots()
        estimates = [Estimate(float(v), reason="-") for values in tasks.values() for v in values]
        low, high = _ratio_limits([*estimates, *suite])
        # tasks are told apart by colour and by dash
        palette = [*list(COLOURS.values())[:6], "#882255", "#777777"]
        dashes = ("-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)))
        handles: list[Line2D | Patch] = []
        for i, (name, values) in enumerate(tasks.items()):
            look: dict[str, Any] = {
                "color": palette[i % 8],
                "linestyle": dashes[(i // 2) % 4],
                "linewidth": 1.1,
            }
            ax.plot(thresholds, values, alpha=0.9, **look)
            handles.append(Line2D([], [], label=_shorten(name, 26), **look))
        mean = np.array([e.value for e in suite])
        if len(tasks) > 1:
            ax.fill_between(
                thresholds,
                np.clip([e.low for e in suite], low, high),
                np.clip([e.high for e in suite], low, high),
                color=INK,
                alpha=0.13,
                lw=0,
            )
            ax.plot(thresholds, mean, color=INK, linewidth=2.2, zorder=3)
            handles = [
                Line2D([], [], color=INK, linewidth=2.2, label="mean over tasks"),
                Patch(facecolor=INK, alpha=0.15, label="95% t interval"),
                *handles,
            ]
        ax.axhline(1.0, color=GUIDE, linewidth=1.0, linestyle=(0, (4, 3)), zorder=0)
        ax.set(yscale="log", ylim=(low, high))
        ax.yaxis.set_major_locator(FixedLocator([t for t in RATIO_TICKS if low <= t <= high]))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}×"))
        ax.yaxis.set_minor_locator(NullLocator())
        _threshold_axis(ax, thresholds)
        if min(counts) < max(counts):
            for x, count in zip(thresholds, counts, strict=True):
                ax.text(x, 1.01, str(count), transform=ax.get_xaxis_transform(), ha="center", va="bottom",
                        fontsize=7, color=GUIDE)  # fmt: skip
            ax.set_title("tasks that are estimable at θ:", loc="left", fontsize=8, color=GUIDE, pad=14)
        ax.set(xlabel="threshold θ (score)", ylabel="speed-up at θ: steps scratch / transfer")
        sns.despine(ax=ax)
        figure.legend(handles=handles, loc="outside right upper")
        return figure


# --- shared parts ----------------------------------------------------------------------------------


def _grid(
    count: int,
    draw: Callable[[Axes, int], None],
    x_label: str,
    y_label: str,
    handles: Sequence[Line2D | Patch],
    limits: tuple[float, float],
    legend_columns: int = 4,
) -> Figure:
    """Small multiples with shared axes and one legend above."""
    columns = min(count, 3)
    rows = math.ceil(count / columns)
    with style():
        width = max(columns * PANEL[0], 6.4) + 0.4
        figure = Figure(figsize=(width, rows * PANEL[1] + 0.9), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for i, ax in enumerate(axes.flat):
            if i >= count:
                ax.remove()
                continue
            draw(ax, i)
            ax.set_ylim(limits)
            sns.despine(ax=ax)
            # with shared axes only the outer panels are labelled, and those above a gap are outer too
            ax.tick_params(labelbottom=i + columns >= count, labelleft=i % columns == 0)
        figure.supxlabel(x_label, fontsize=9)
        figure.supylabel(y_label, fontsize=9)
        figure.legend(
            handles=list(handles), loc="outside upper center", ncols=min(legend_columns, len(handles))
        )
        return figure


def _arm_handles(panels: Sequence[ThresholdPanel], interval: str) -> list[Line2D | Patch]:
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.values))
    lines = [Line2D([], [], color=COLOURS[arm], linewidth=1.9, label=arm) for arm in arms]
    return [*lines, Patch(facecolor=INK, alpha=0.18, label=interval)]


def _step_axis(ax: Axes, steps: np.ndarray) -> None:
    """Logarithmic from the first positive checkpoint on, and linear down to step 0, which is shown."""
    ax.set_xscale("symlog", linthresh=steps[1], linscale=0.45)
    ax.set_xlim(0, steps[-1] * 1.06)
    ax.xaxis.set_major_locator(FixedLocator([0.0, *_decades(steps[1], steps[-1])]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: steps_text(x)))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())


def _decades(low: float, high: float) -> list[float]:
    """Powers of ten within the limits, with their threefolds where those would be fewer than three."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**e for e in exponents if low <= 10.0**e <= high]
    if len(ticks) < 3:
        ticks = [m * 10.0**e for e in exponents for m in (1, 3) if low <= m * 10.0**e <= high]
    return ticks or [low, high]


def _threshold_axis(ax: Axes, thresholds: np.ndarray) -> None:
    ax.set_xlim(float(thresholds[0]) - 0.03, float(thresholds[-1]) + 0.03)
    ax.xaxis.set_major_locator(
        FixedLocator([t for t in np.arange(0, 1.05, 0.2) if t <= thresholds[-1] + 0.01])
    )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.1f}"))


def _shorten(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
