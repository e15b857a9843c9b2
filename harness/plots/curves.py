"""Small multiples over the tasks: learning curves, times, success and speed-up against the threshold."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from harness.plots.forest import ratio_limits
from harness.plots.style import (
    DASHED,
    DOTTED,
    FOCUS,
    GROUND,
    GUIDE,
    INK,
    SMALL,
    WIDTH,
    Handle,
    Look,
    arm_label,
    despine,
    detailed,
    finite,
    fit,
    freeze,
    grid,
    grow,
    key,
    legend,
    log_step_axis,
    looks,
    panel_title,
    panel_width,
    ratio_axis,
    step_axis,
    style,
    threshold_axis,
)
from harness.statistics import Band, Estimate

REFERENCE = (0, (6, 2, 1, 2))


@dataclasses.dataclass(frozen=True, eq=False)
class CurvePanel:
    """Learning curves of one task, or the mean over tasks."""

    title: str
    """Name of the task."""
    bands: Mapping[str, Band]
    """Mean and bands of each arm."""
    seeds: Mapping[str, np.ndarray]
    """Single runs of each arm, ``(runs, checkpoints)``; empty for a mean over tasks."""
    steps: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Steps of the checkpoints of those arms that have others than the figure's."""
    budget: float | None = None
    """Steps of its own budget, where that is not the figure's."""


def learning_curves(
    panels: Sequence[CurvePanel],
    steps: np.ndarray,
    budget: float,
    thresholds: Sequence[float],
    note: str = "",
    focus: Sequence[str] = FOCUS,
    x_label: str = "steps (control steps of all worlds of a run)",
) -> Figure:
    """Score against steps, a panel per task: every seed thin, mean, simultaneous and pointwise band.

    Args:
        panels: one per task.
        steps: of the checkpoints.
        budget: steps of the budget B.
        thresholds: θ grid, of which the ends are drawn.
        note: above the legend.
        focus: where there are more than three arms, those of which runs and bands are drawn; of the
            others it is the mean.
        x_label: what is counted.
    """
    steps = np.asarray(steps, float)
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.bands))
    style_of = looks(arms)
    single = any(len(np.atleast_2d(r)) for panel in panels for r in panel.seeds.values())
    shown, note = detailed(arms, focus, note, "runs and bands" if single else "bands")

    def draw(ax: Axes, i: int) -> None:
        panel = panels[i]
        for level in (min(thresholds), max(thresholds)):
            ax.axhline(level, color=GUIDE, linewidth=0.7, linestyle=DASHED, zorder=0)
        ax.axhline(1.0, color=GUIDE, linewidth=0.8, linestyle=REFERENCE, zorder=0)
        end = budget if panel.budget is None else panel.budget
        ax.axvline(end, color=GUIDE, linewidth=0.8, linestyle=DOTTED, zorder=0)
        for k, (arm, band) in enumerate(panel.bands.items()):
            look, of_arm = style_of[arm], panel.steps.get(arm, steps)
            if arm in shown:
                runs = np.atleast_2d(panel.seeds.get(arm, np.empty((0, len(of_arm)))))
                # one line with gaps for all runs
                x = np.tile(np.append(of_arm, np.nan), len(runs))
                y = np.column_stack([runs, np.full(len(runs), np.nan)]).ravel()
                ax.plot(x, y, color=look.colour, linewidth=0.5, alpha=0.5, zorder=2)
                _fill(ax, of_arm, band.low_simultaneous, band.high_simultaneous, look.colour, 0.12)
                _fill(ax, of_arm, band.low, band.high, look.colour, 0.16)
            ax.plot(
                of_arm, band.mean, color=look.colour, linewidth=1.8, linestyle=look.dash, zorder=3,
                marker=look.marker, markersize=3.6, markevery=_every(band.mean, k, len(arms)),
            )  # fmt: skip
        panel_title(ax, panel.title, len(panels))
        step_axis(ax, steps, panel_width(len(panels)))

    means = [band.mean for panel in panels for band in panel.bands.values()]
    values = finite([*means, *(runs for panel in panels for runs in panel.seeds.values())])
    top = max(1.12, min(float(values.max(initial=1.0)) + 0.06, 2.0))
    bottom = min(-0.08, max(float(values.min(initial=0.0)) - 0.06, -0.6))
    several = [p for panel in panels for p in panel.bands.values() if not np.isnan(p.low).all()]
    handles: list[Handle] = [key(arm, look, f"{arm_label(arm)}: mean") for arm, look in style_of.items()]
    if single:
        handles.append(Line2D([], [], color=INK, linewidth=0.6, alpha=0.7, label="single runs"))
    if several:
        handles.append(Patch(facecolor=INK, alpha=0.30, label="95% pointwise"))
        handles.append(Patch(facecolor=INK, alpha=0.13, label="95% simultaneous"))
    handles += [
        Line2D([], [], color=GUIDE, linewidth=0.8, linestyle=DASHED, label="range of θ"),
        Line2D([], [], color=GUIDE, linewidth=0.8, linestyle=REFERENCE, label="reference"),
        Line2D([], [], color=GUIDE, linewidth=0.9, linestyle=DOTTED, label="budget B"),
    ]
    return grid(len(panels), draw, x_label, "score g", handles, (bottom, top), note)


def _fill(ax: Axes, x: np.ndarray, low: np.ndarray, high: np.ndarray, colour: str, alpha: float) -> None:
    if not np.isnan(low).all():
        ax.fill_between(x, low, high, color=colour, alpha=alpha, lw=0)


def _hollow_where(
    ax: Axes, x: np.ndarray, y: np.ndarray, look: Look, hollow: np.ndarray, size: float
) -> None:
    """The markers of a line, empty at some of its points."""
    for which, face in ((~hollow, look.colour), (hollow, GROUND)):
        if which.any():
            ax.plot(x[which], y[which], marker=look.marker, markersize=size, color=look.colour,
                    markerfacecolor=face, linestyle="none", clip_on=False, zorder=3)  # fmt: skip


def _hollow_key(label: str) -> Line2D:
    return Line2D([], [], color=INK, marker="o", markersize=4, markerfacecolor=GROUND, linestyle="none",
                  label=label)  # fmt: skip


def _every(mean: np.ndarray, k: int, arms: int) -> list[int]:
    """Which points bear a marker: few, those of the arms apart, and a lone point always."""
    known = np.flatnonzero(np.isfinite(mean))
    stride = max(4, arms)
    chosen = known[(known + 1) % stride == (k * stride // max(arms, 1)) % stride]
    return [int(i) for i in (chosen if len(chosen) else known[:1])]


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


def success_shares(
    panels: Sequence[ThresholdPanel],
    thresholds: np.ndarray,
    note: str = "",
    focus: Sequence[str] = FOCUS,
) -> Figure:
    """Share of runs that arrive at θ within the budget, a panel per task.

    Arms of which every run arrives at every θ are told, not drawn, if there are more than three, or no
    others: they would hide each other.

    Args:
        panels: one per task.
        thresholds: θ grid.
        note: above the legend.
        focus: where there are more than three arms, those of which Wilson intervals are drawn.
    """
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.values))
    style_of = looks(arms)
    shown, note = detailed(arms, focus, note, "intervals")
    # side by side, so that equal shares do not hide each other
    spacing = float(np.diff(thresholds).min()) if len(thresholds) > 1 else 0.05
    gap = min(0.7, 0.18 * len(arms)) * spacing if len(arms) > 1 else 0.0

    def draw(ax: Axes, i: int) -> None:
        given = panels[i].values
        drawn = [arm for arm in arms if arm in given and (given[arm] < 1.0).any()]
        if drawn and len(given) <= 3:
            drawn = [arm for arm in arms if arm in given]
        if len(drawn) < len(given):
            ax.text(0.03, 0.99, "of the others every run arrives" if drawn else "every run arrives",
                    transform=ax.transAxes, fontsize=SMALL, color=INK, va="top")  # fmt: skip
        for arm in drawn:
            look = style_of[arm]
            x = thresholds + gap * (arms.index(arm) / max(len(arms) - 1, 1) - 0.5)
            share = given[arm]
            ax.plot(x, share, color=look.colour, linestyle=look.dash, linewidth=0.9, alpha=0.7, zorder=2)
            if arm in shown:
                ends = panels[i].low[arm], panels[i].high[arm]
                ax.vlines(x, *ends, color=look.colour, linewidth=0.9, alpha=0.5)
            ax.plot(
                x, share, color=look.colour, linestyle="none", marker=look.marker, clip_on=False, zorder=3,
                markersize=3.4 if len(arms) <= 3 else 3.0,
            )  # fmt: skip
        panel_title(ax, panels[i].title, len(panels))
        threshold_axis(ax, thresholds)

    handles: list[Handle] = [
        *(key(arm, look) for arm, look in style_of.items()),
        Line2D([], [], color=INK, linewidth=1.1, alpha=0.6, label="95% Wilson interval"),
    ]
    return grid(
        len(panels), draw, "threshold θ (score)", "share arrived by B", handles, (-0.04, 1.17), note
    )


def times_by_threshold(
    panels: Sequence[ThresholdPanel],
    thresholds: np.ndarray,
    first: float,
    budget: float,
    note: str = "",
    focus: Sequence[str] = FOCUS,
) -> Figure:
    """Mean restricted time to θ, a panel per task; hollow where runs never arrived and count with B.

    Args:
        panels: one per task.
        thresholds: θ grid.
        first: step of the first positive checkpoint.
        budget: steps of the budget B.
        note: above the legend.
        focus: where there are more than three arms, those of which intervals are drawn; more would hide
            each other.
    """
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.values))
    style_of = looks(arms)
    shown, note = detailed(arms, focus, note, "intervals")

    def draw(ax: Axes, i: int) -> None:
        for guide in (first, budget):
            ax.axhline(guide, color=GUIDE, linewidth=0.8, linestyle=DOTTED, zorder=0)
        for arm, times in panels[i].values.items():
            look = style_of[arm]
            if arm in shown:
                _fill(ax, thresholds, panels[i].low[arm], panels[i].high[arm], look.colour, 0.15)
            ax.plot(thresholds, times, color=look.colour, linewidth=1.5, linestyle=look.dash, zorder=2)
            hollow = panels[i].censored.get(arm, np.zeros(len(thresholds), bool))
            _hollow_where(ax, thresholds, times, look, hollow, 3.6)
        panel_title(ax, panels[i].title, len(panels))
        ax.set_yscale("log")
        log_step_axis(ax.yaxis, first, budget)
        threshold_axis(ax, thresholds)

    handles: list[Handle] = [
        *(key(arm, look) for arm, look in style_of.items()),
        Patch(facecolor=INK, alpha=0.18, label="95% t interval"),
        _hollow_key("hollow: some runs never arrive (count as B)"),
        Line2D([], [], color=GUIDE, linewidth=0.9, linestyle=DOTTED, label="first checkpoint, B"),
    ]  # fmt: skip
    limits = (first / 1.35, budget * 1.35)
    return grid(
        len(panels), draw, "threshold θ (score)", "mean steps to θ, at most B", handles, limits, note
    )


def speed_up_by_threshold(
    tasks: Mapping[str, np.ndarray],
    suite: Sequence[Estimate],
    thresholds: np.ndarray,
    counts: Sequence[int],
    note: str = "",
    arm: str = "transfer",
    limited: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """ρ_θ against θ: a thin line per task, and the mean over tasks with its pointwise t interval.

    Args:
        tasks: by task, ``(thresholds,)``, NaN where not estimable.
        suite: mean over the tasks that are estimable at each θ, as a ratio.
        thresholds: θ grid.
        counts: how many tasks those are.
        note: above the legend.
        arm: which arm is compared with scratch.
        limited: by task, where the first checkpoint limits ρ_θ, ``(thresholds,)`` of bool.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 3.4), layout="constrained")
        ax = figure.subplots()
        estimates = [Estimate(float(v), reason="-") for values in tasks.values() for v in values]
        low, high = ratio_limits([*estimates, *suite])
        handles: list[Handle] = []
        for name, look in looks(list(tasks)).items():
            ax.plot(thresholds, tasks[name], color=look.colour, linestyle=look.dash, linewidth=1.1)
            hollow = (limited or {}).get(name, np.zeros(len(thresholds), bool))
            _hollow_where(ax, thresholds, tasks[name], look, hollow, 3.2)
            handles.append(key(name, look, fit(name, 1.6, 8.5)))
        if any(which.any() for which in (limited or {}).values()):
            handles.append(_hollow_key("hollow: limited by the first checkpoint"))
        if len(tasks) > 1:
            mean = np.array([e.value for e in suite])
            lows = np.clip([e.low for e in suite], low, high)
            highs = np.clip([e.high for e in suite], low, high)
            _fill(ax, thresholds, lows, highs, INK, 0.13)
            ax.plot(thresholds, mean, color=INK, linewidth=2.4, zorder=3)
            handles = [
                Line2D([], [], color=INK, linewidth=2.4, label="mean over tasks"),
                Patch(facecolor=INK, alpha=0.15, label="95% t interval"),
                *handles,
            ]
        ax.axhline(1.0, color=GUIDE, linewidth=1.0, linestyle=DASHED, zorder=0)
        ax.set(yscale="log", ylim=(low, high))
        ratio_axis(ax.yaxis, low, high, 2.5)
        threshold_axis(ax, thresholds)
        if not len(finite(list(tasks.values()))):
            ax.text(0.5, 0.25, "no θ is estimable", transform=ax.transAxes, ha="center", color=GUIDE)
        if len(tasks) > 1 and min(counts) < max(counts):
            for x, count in zip(thresholds, counts, strict=True):
                ax.text(x, 1.01, str(count), transform=ax.get_xaxis_transform(), ha="center", va="bottom",
                        fontsize=SMALL, color=GUIDE)  # fmt: skip
            ax.set_title("tasks that are estimable at θ:", loc="left", fontsize=SMALL, color=GUIDE, pad=14)
        ax.set(xlabel="threshold θ (score)", ylabel=f"speed-up at θ: steps scratch / {arm_label(arm)}")
        despine(ax)
        legend(figure, handles, note)
        grow(figure)
        return freeze(figure)
