"""What is reached by when: runtime profiles, joint against separate, Kaplan-Meier, doses and choices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from harness.plots.style import (
    DASHED,
    DOTTED,
    FOCUS,
    GUIDE,
    INK,
    SMALL,
    WIDTH,
    Handle,
    Look,
    arm_label,
    count_axis,
    despine,
    detailed,
    finite,
    fit,
    fit_title,
    freeze,
    grow,
    key,
    legend,
    log_step_axis,
    looks,
    open_end,
    ratio_axis,
    step_axis,
    steps_text,
    style,
    text_width,
)

MARKERS = 10
"""On a line of shares, about; one of few points has fewer."""


@dataclasses.dataclass(frozen=True, eq=False)
class Line:
    """One line of a figure: points, and an interval where there is one."""

    name: str
    """The arm, task or rule that it stands for; decides its look."""
    x: np.ndarray
    """``(points,)``, rising."""
    y: np.ndarray
    """``(points,)``; NaN is a gap."""
    low: np.ndarray | None = None
    """Lower ends of the interval, ``(points,)``."""
    high: np.ndarray | None = None
    """Upper ends."""
    n: str = ""
    """What it is over, for the legend: ``10 runs of 8 tasks``."""
    limits: Sequence[str] = ()
    """Of the speed-up at each point: ``at least`` or ``at most`` where the first checkpoint hides the rest,
    which an arrow says."""


def _label(line: Line, width: float = 3.0) -> str:
    return fit(arm_label(line.name), width, 8.5) + (f" ({line.n})" if line.n else "")


def _interval(ax: Axes, line: Line, look: Look, steps: bool, alpha: float = 0.13) -> None:
    if line.low is None or line.high is None or np.isnan(line.low).all():
        return
    ax.fill_between(
        line.x, line.low, line.high, step="post" if steps else None, color=look.colour, alpha=alpha, lw=0
    )


def _open_ends(ax: Axes, line: Line, colour: str) -> None:
    for x, y, limit in zip(line.x, line.y, line.limits, strict=False):
        if not math.isnan(y):
            open_end(ax, (float(x), float(y)), limit, colour, upright=True)


def runtime_profile(lines: Sequence[Line], budget: float, note: str = "") -> Figure:
    """Share of (task, θ) pairs reached against steps; at the right what is never reached by B.

    Args:
        lines: one per arm, the share reached by each number of steps.
        budget: steps of the budget B.
        note: above the legend.
    """
    return _reached(lines, budget, "steps (control steps of all worlds of a run)", "by B", note)


def joint_profile(lines: Sequence[Line], end: float, note: str = "") -> Figure:
    """Share of (task, θ) pairs reached against total steps, one network against one for each task.

    Args:
        lines: ``lock-step``, ``one after another``, ``joint``, ``joint-wide``.
        end: total steps of all tasks' budgets.
        note: above the legend.
    """
    return _reached(lines, end, "total steps, summed over all tasks", f"by {steps_text(end)}", note)


def _reached(lines: Sequence[Line], end: float, x_label: str, by: str, note: str) -> Figure:
    style_of = looks([line.name for line in lines])
    with style():
        figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
        beyond = min(0.3, 0.07 + 0.03 * len(lines))
        ax, rest = figure.subplots(1, 2, sharey=True, width_ratios=(1, beyond))
        handles: list[Handle] = []
        for k, line in enumerate(lines):
            look = style_of[line.name]
            ax.step(line.x, line.y, where="post", color=look.colour, linestyle=look.dash, linewidth=1.8)
            _interval(ax, line, look, steps=True, alpha=0.12 if len(lines) <= 4 else 0.07)
            marked = np.arange(k % 3, len(line.x), max(4, len(line.x) // MARKERS))
            ax.plot(line.x[marked], line.y[marked], color=look.colour, marker=look.marker, markersize=4,
                    linestyle="none", clip_on=False)  # fmt: skip
            known = finite([line.y])
            never = 1 - float(known[-1]) if len(known) else math.nan
            # the censored mass hangs from the top
            rest.bar(k, never, bottom=1 - never, width=0.72, color=look.colour, alpha=0.75)
            if never > 0:  # a lone marker at the top would read as 100%
                rest.plot(k, 1 - never, marker=look.marker, markersize=4, color=look.colour, clip_on=False)
            said = "" if math.isnan(never) else f"; {never:.0%} never"
            n = f" ({line.n}{said})" if line.n else f" ({said[2:]})" if said else ""
            handles.append(key(line.name, look, f"{arm_label(line.name)}{n}"))
        first = min((float(x) for line in lines for x in line.x if x > 0), default=1.0)
        low = min(first, end / 3)
        ax.set(xscale="log", xlim=(low / 1.08, end * 1.05), ylim=(0.0, 1.0))
        ax.axvline(end, color=GUIDE, linewidth=0.8, linestyle=DOTTED, zorder=0)
        log_step_axis(ax.xaxis, low, end)
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:.0%}"))
        ax.set(xlabel=x_label, ylabel="(task, θ) pairs reached")
        rest.set(xlim=(-0.7, len(lines) - 0.3), xticks=[])
        rest.set_xlabel(f"never\n{by}" if len(lines) < 5 else f"never {by}")
        rest.tick_params(left=False, labelleft=False)
        despine(ax)
        despine(rest, left=True)
        if any(line.low is not None and np.isfinite(line.low).any() for line in lines):
            handles.append(Patch(facecolor=INK, alpha=0.15, label="95% interval"))
        legend(figure, handles, note)
        grow(figure)
        return freeze(figure)


# --- Kaplan-Meier ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class Survival:
    """A Kaplan-Meier curve of one arm at some steps."""

    share: np.ndarray
    """Share of runs that have not yet arrived after each step, ``(steps,)``."""
    at_risk: np.ndarray
    """Runs under observation that have not arrived before it, ``(steps,)``."""
    low: np.ndarray | None = None
    """Lower ends of the pointwise interval."""
    high: np.ndarray | None = None
    """Upper ends."""


@dataclasses.dataclass(frozen=True, eq=False)
class SurvivalPanel:
    """Kaplan-Meier curves of one task at one threshold."""

    title: str
    """Name of the task, and θ where it differs between panels."""
    arms: Mapping[str, Survival]
    """One per arm."""


def kaplan_meier(
    panels: Sequence[SurvivalPanel],
    steps: np.ndarray,
    budget: float,
    note: str = "",
    focus: Sequence[str] = FOCUS,
) -> Figure:
    """Share of runs still under θ against steps, with the numbers at risk under each axis.

    Args:
        panels: one per task.
        steps: at which the curves are given, ``(steps,)``; those of the checkpoints at least.
        budget: steps of the budget B, where all that have not arrived are censored.
        note: above the legend.
        focus: where there are more than three arms, those of which intervals are drawn.
    """
    steps = np.asarray(steps, float)
    arms = list(dict.fromkeys(arm for panel in panels for arm in panel.arms))
    style_of = looks(arms)
    if any(curve.low is not None for panel in panels for curve in panel.arms.values()):
        shown, note = detailed(arms, focus, note, "intervals")
    columns = min(len(panels), 2)
    rows = [panels[i : i + columns] for i in range(0, len(panels), columns)]
    with style():
        names = {arm: fit(arm_label(arm), 1.0, SMALL) for arm in arms}
        left = 0.26 + max(0.5, max(text_width(n, SMALL) for n in names.values()) + 0.32)
        said = fit(note, WIDTH - 0.3, 8.5, lines=3)
        top = 0.18 * math.ceil((len(arms) + 2) / 4) + 0.16 * (said.count("\n") + 1 if said else 0) + 0.1
        titles = [fit_title(panel.title, (WIDTH - left) / columns - 0.35) for panel in panels]
        plot, title, line = 1.45, 0.16 * (2 if any("\n" in t for t in titles) else 1) + 0.08, 0.15
        # a row of panels is as tall as its longest table of numbers at risk
        tables = [0.26 + 0.17 + line * max(len(panel.arms) for panel in row) for row in rows]
        above = [
            top + sum(title + plot + table + 0.12 for table in tables[:k]) for k in range(len(rows) + 1)
        ]
        height = above[-1] + 0.34
        between = 0.42
        width = (WIDTH - left - 0.2 - between * (columns - 1)) / columns
        figure = Figure(figsize=(WIDTH, height))
        for i, panel in enumerate(panels):
            column, row = i % columns, i // columns
            x = left + column * (width + between)
            y = height - above[row] - title - plot
            ax = figure.add_axes((x / WIDTH, y / height, width / WIDTH, plot / height))
            ax.axvline(budget, color=GUIDE, linewidth=0.8, linestyle=DOTTED, zorder=0)
            for arm, curve in panel.arms.items():
                look = style_of[arm]
                ax.step(steps, curve.share, where="post", color=look.colour, linestyle=look.dash, lw=1.7)
                if curve.low is not None and arm in shown:
                    of_arm = Line(arm, steps, curve.share, curve.low, curve.high)
                    _interval(ax, of_arm, look, steps=True)
                # a tick at the end says that runs are left
                by_budget = np.flatnonzero((steps <= budget) & np.isfinite(curve.share))
                if len(by_budget) and curve.share[by_budget[-1]] > 0:
                    ax.plot(steps[by_budget[-1]], curve.share[by_budget[-1]], marker="|", markersize=9,
                            color=look.colour, markeredgewidth=1.6, clip_on=False)  # fmt: skip
            ax.set_ylim(-0.03, 1.05)
            step_axis(ax, steps[steps <= budget * 1.0001], width)
            _budget_tick(ax, budget, width)
            ax.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
            ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:.0%}"))
            ax.set_title(titles[i], pad=4)
            ax.tick_params(labelleft=column == 0)
            despine(ax)
            for k, (arm, curve) in enumerate(panel.arms.items()):
                at = -(0.26 + 0.17 + line * (k + 0.5)) / plot
                colour = style_of[arm].colour
                if column == 0:  # the other columns have the markers
                    ax.text(-0.3 / width, at, names[arm], transform=ax.transAxes, color=INK,
                            fontsize=SMALL, ha="right", va="center")  # fmt: skip
                ax.plot(-0.18 / width, at, marker=style_of[arm].marker, color=colour, markersize=4,
                        transform=ax.transAxes, clip_on=False)  # fmt: skip
                for tick in ax.get_xticks():
                    later = np.flatnonzero(steps >= tick * 0.999)
                    if len(later):
                        ax.text(tick, at, f"{curve.at_risk[later[0]]:.0f}", fontsize=SMALL,
                                transform=ax.get_xaxis_transform(), ha="center", va="center")  # fmt: skip
            ax.text(-0.24 / width, -(0.26 + 0.08) / plot, "at risk", transform=ax.transAxes, color=GUIDE,
                    fontsize=SMALL, ha="left", va="center")  # fmt: skip
        handles: list[Handle] = [key(arm, look) for arm, look in style_of.items()]
        if any(s.low is not None for p in panels for s in p.arms.values()):
            handles.append(Patch(facecolor=INK, alpha=0.15, label="95% pointwise"))
        handles.append(
            Line2D([], [], color=INK, marker="|", markersize=9, markeredgewidth=1.6, linestyle="none",
                   label="censored at B")
        )  # fmt: skip
        figure.legend(handles=handles, loc="upper left", ncols=min(4, len(handles)), title=said or None,
                      alignment="left", columnspacing=1.3, borderaxespad=0.2)  # fmt: skip
        # centred beside the axes, not beside the page
        middle = 0.5 + (0.34 - top) / height / 2
        figure.text(
            0.06 / WIDTH, middle, "runs that have not reached θ", rotation=90, va="center", fontsize=9
        )
        figure.text(
            0.5, 0.08 / height, "steps (control steps of all worlds of a run)", ha="center", fontsize=9
        )
        return freeze(figure)


def _budget_tick(ax: Axes, budget: float, inches: float) -> None:
    """A tick at B in the place of those of which the label would touch its own."""
    ticks = [*ax.get_xticks(), budget]
    at = (ax.transData + ax.transAxes.inverted()).transform([(t, 0.0) for t in ticks])[:, 0] * inches
    kept = [t for t, x in zip(ticks, at, strict=True) if at[-1] - x > 0.24]
    ax.xaxis.set_major_locator(FixedLocator([*kept, budget]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: "B" if x == budget else steps_text(x)))


# --- doses, choices and sums -----------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, eq=False)
class DosePanel:
    """Speed-up against one dose."""

    x_label: str
    """The dose and its unit."""
    lines: Sequence[Line]
    """One per task, or per arm."""
    mean: Line | None = None
    """Mean over the lines, drawn bold."""
    log: bool = False
    """Whether the dose is in steps, on a logarithmic axis; else it counts something."""


def dose_curves(panels: Sequence[DosePanel], note: str = "") -> Figure:
    """ρ̄ against the number of source tasks and against the steps of pretraining, side by side."""
    with style():
        figure = Figure(figsize=(WIDTH, 3.0), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        every = [line for panel in panels for line in (*panel.lines, panel.mean) if line is not None]
        style_of = looks([line.name for panel in panels for line in panel.lines])
        values = finite([line.y for line in every] + [e for li in every for e in (li.low, li.high)])
        values = values[values > 0]
        low = min(0.5, float(values.min(initial=1.0))) / 1.15
        high = max(2.0, float(values.max(initial=1.0))) * 1.15
        for ax, panel in zip(axes, panels, strict=True):
            for line in panel.lines:
                look = style_of[line.name]
                ax.plot(line.x, line.y, color=look.colour, linestyle=look.dash, linewidth=1.1,
                        marker=look.marker, markersize=4)  # fmt: skip
                _open_ends(ax, line, look.colour)
                _interval(ax, line, look, steps=False, alpha=0.10)
            if panel.mean is not None:
                ax.plot(
                    panel.mean.x, panel.mean.y, color=INK, linewidth=2.2, marker="D", markersize=5, zorder=3
                )
                _open_ends(ax, panel.mean, INK)
                _interval(ax, panel.mean, Look(INK, "D", "-"), steps=False)
            ax.axhline(1.0, color=GUIDE, linewidth=1.0, linestyle=DASHED, zorder=0)
            ax.set(yscale="log", ylim=(low, high))
            ax.set_xlabel(fit(panel.x_label, 5.5 / len(panels), 9, lines=2))
            ratio_axis(ax.yaxis, low, high, 2.1)
            doses = [float(x) for line in (*panel.lines, panel.mean) if line is not None for x in line.x]
            _dose_axis(ax, sorted(set(doses)) or [1.0], panel.log, 5.5 / len(panels))
            despine(ax)
        axes[0].set_ylabel("speed-up ρ̄ over scratch")
        handles: list[Handle] = [
            key(line.name, style_of[line.name], _label(line, 1.6))
            for line in {li.name: li for panel in panels for li in panel.lines}.values()
        ]
        mean = next((panel.mean for panel in panels if panel.mean is not None), None)
        if mean is not None:
            handles.insert(0, key("", Look(INK, "D", "-"), _label(mean)))
        if any(line.low is not None for line in every):
            handles.append(Patch(facecolor=INK, alpha=0.15, label="95% interval"))
        legend(figure, handles, note)
        grow(figure)
        return freeze(figure)


def _dose_axis(ax: Axes, doses: Sequence[float], log: bool, inches: float) -> None:
    if not log:
        ax.set_xlim(doses[0] - 0.4, doses[-1] + 0.4)
        count_axis(ax.xaxis, doses, inches)
        return
    low, high = doses[0] / 1.25, doses[-1] * 1.25
    ax.set(xscale="log", xlim=(low, high))
    # a tick at each dose, as far as their labels stand apart
    kept: list[float] = []
    for dose in doses:
        if not kept or math.log(dose / kept[-1]) / math.log(high / low) * inches > 0.5:
            kept.append(dose)
    ax.xaxis.set_major_locator(FixedLocator(kept))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: steps_text(x)))
    ax.xaxis.set_minor_locator(NullLocator())


def selection(lines: Sequence[Line], note: str = "") -> Figure:
    """Score of the chosen sources against how many may be chosen, for each rule of choice.

    Args:
        lines: ``Gaussian process``, ``random``, ``spread out``; y is the mean over targets of the best
            speed-up that a chosen source gives.
        note: above the legend.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        ax = figure.subplots()
        style_of = looks([line.name for line in lines])
        for line in lines:
            look = style_of[line.name]
            ax.plot(
                line.x, line.y, color=look.colour, linestyle=look.dash, marker=look.marker, linewidth=1.7
            )
            _interval(ax, line, look, steps=False)
        _dose_axis(ax, sorted({float(x) for line in lines for x in line.x}) or [1.0], False, 5.5)
        ax.set(
            xlabel="budget: number of source tasks chosen",
            ylabel="mean best speed-up\nof the chosen sources",
        )
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}×"))
        despine(ax)
        handles: list[Handle] = [key(line.name, style_of[line.name], _label(line)) for line in lines]
        if any(line.low is not None for line in lines):
            handles.append(Patch(facecolor=INK, alpha=0.15, label="95% interval"))
        legend(figure, handles, note)
        grow(figure)
        return freeze(figure)


def cumulative_steps(lines: Sequence[Line], note: str = "") -> Figure:
    """All steps spent against the number of new tasks learned; where the lines cross is break-even.

    Args:
        lines: one per arm, x the number of new tasks from 0 on, y steps, pretraining included.
        note: above the legend.
    """
    with style():
        figure = Figure(figsize=(WIDTH, 2.7), layout="constrained")
        ax = figure.subplots()
        style_of = looks([line.name for line in lines])
        for line in lines:
            look = style_of[line.name]
            ax.plot(line.x, line.y, color=look.colour, linestyle=look.dash, linewidth=1.8)
            _interval(ax, line, look, steps=False)
        last = max((float(x) for line in lines for x in line.x), default=1.0)
        ax.set(
            xlim=(0, last),
            xlabel="number of new tasks learned",
            ylabel="steps in all,\npretraining included",
        )
        ax.set_ylim(bottom=0)
        ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_formatter(FuncFormatter(lambda y, _: steps_text(y)))
        ax.yaxis.set_minor_locator(NullLocator())
        despine(ax)
        handles: list[Handle] = [
            Line2D([], [], color=style_of[line.name].colour, linestyle=style_of[line.name].dash,
                   linewidth=1.9, label=_label(line))
            for line in lines
        ]  # fmt: skip
        if any(line.low is not None for line in lines):
            handles.append(Patch(facecolor=INK, alpha=0.15, label="95% interval"))
        legend(figure, handles, note)
        grow(figure)
        return freeze(figure)
