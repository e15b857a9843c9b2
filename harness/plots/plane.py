"""Transfer over the space of tasks: against distance, and from every source to every target."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle

from harness.plots.forest import limited_end, ratio_limits
from harness.plots.style import (
    COLOURS,
    DASHED,
    GROUND,
    GUIDE,
    INK,
    SMALL,
    WIDTH,
    despine,
    finite,
    fit,
    freeze,
    open_end,
    ratio_axis,
    ratio_text,
    ratio_ticks,
    style,
    text_width,
)
from harness.statistics import Estimate

# not INK and GROUND, which follow the page: the cells' own colours do not
DARK_TEXT, LIGHT_TEXT = "#1a1a1a", "#fdfdfd"
SLOWER, FASTER = "#c65700", "#00639b"
ARROW = 0.1
"""Length of an arrow at a limited speed-up, as a share of the axis, with a little to spare."""


@dataclasses.dataclass(frozen=True)
class DistancePoint:
    """A held-out task over its distance to what was trained on."""

    label: str
    """Name of the task."""
    distance: float
    """To the nearest training task, in units of standardised descriptors."""
    speed_up: Estimate
    """As a ratio."""
    jumpstart: Estimate
    """Difference of scores at step 0."""
    mark: str = ""
    """``solved at step 0`` is hollow."""
    limit: str = ""
    """``at least`` or ``at most`` where the first checkpoint hides the rest of the speed-up, which an
    arrow says."""


def distance(points: Sequence[DistancePoint], note: str = "") -> Figure:
    """Speed-up and jumpstart against the distance to the nearest training task, each point named."""
    at = [p.distance for p in points]
    points = _apart(points)
    if any(p.distance != x for p, x in zip(points, at, strict=True) if not math.isnan(x)):
        note = f"{note} Points of nearly equal distance stand side by side.".lstrip()
    with style():
        foot = fit(note, WIDTH - 0.2, SMALL, lines=3)
        below = 0.5 + 0.16 * (foot.count("\n") + 1 if foot else 0)
        tall, gap = 2.5, 0.18
        height = below + 2 * tall + gap + 0.12
        figure = Figure(figsize=(WIDTH, height))
        left, width = 0.75, WIDTH - 0.75 - 0.2
        xs = finite([p.distance for p in points if not math.isnan(p.speed_up.value)])
        low, high = (float(xs.min()), float(xs.max())) if len(xs) else (0.0, 1.0)
        margin = 0.12 * (high - low) or 0.5
        for k, ratio in enumerate((True, False)):
            bottom = below + (1 - k) * (tall + gap)
            ax = figure.add_axes((left / WIDTH, bottom / height, width / WIDTH, tall / height))
            ax.set_xlim(low - margin, high + margin)
            _scatter(ax, points, ratio)
            despine(ax)
            ax.yaxis.set_label_coords(-0.55 / width, 0.5)
            if ratio:
                ax.tick_params(labelbottom=False)
            else:
                ax.set_xlabel("distance to the nearest training task (standardised descriptor units)")
        if foot:
            figure.text(0.08 / WIDTH, 0.06 / height, foot, fontsize=SMALL, color=GUIDE, va="bottom")
        return freeze(figure)


def _apart(points: Sequence[DistancePoint]) -> list[DistancePoint]:
    """The points, those of nearly one distance moved sideways until their intervals stand apart."""
    known = finite([p.distance for p in points])
    step = 0.012 * float(np.ptp(known)) if len(known) else 0.0
    order = sorted(
        (i for i, p in enumerate(points) if not math.isnan(p.distance)), key=lambda i: points[i].distance
    )
    moved, group = list(points), order[:1]
    for i in [*order[1:], None]:
        if i is not None and points[i].distance - points[group[-1]].distance < step:
            group.append(i)
            continue
        for k, j in enumerate(group):
            shift = step * (k - (len(group) - 1) / 2)
            moved[j] = dataclasses.replace(points[j], distance=points[j].distance + shift)
        group = [] if i is None else [i]
    return moved


def _scatter(ax: Axes, points: Sequence[DistancePoint], ratio: bool) -> None:
    shown = [(p, p.speed_up if ratio else p.jumpstart) for p in points]
    shown = [(p, e) for p, e in shown if not math.isnan(e.value) and not math.isnan(p.distance)]
    if ratio:
        low, high = ratio_limits([e for _, e in shown])
        # arrows that start at an interval's end need room too
        arrow = (high / low) ** ARROW
        low /= arrow ** any(p.limit == "at most" for p, _ in shown)
        high *= arrow ** any(p.limit == "at least" for p, _ in shown)
        ax.set(yscale="log", ylim=(low, high), ylabel="speed-up ρ̄")
        ratio_axis(ax.yaxis, low, high, 2.5)
    else:
        ends = finite(
            [v for _, e in shown for v in (e.value, *(() if e.reason else (e.low, e.high)))] + [0.0]
        )
        low, high = float(ends.min()), float(ends.max())
        margin = 0.15 * (high - low) or 0.1
        low, high = low - margin, high + margin
        ax.set(ylim=(low, high), ylabel="jumpstart (score)")
    ax.axhline(1.0 if ratio else 0.0, color=GUIDE, linewidth=1.0, linestyle=DASHED, zorder=0)
    spans = []
    for p, e in shown:
        at = p.distance
        if not e.reason:
            ends_ = (max(e.low, low), min(e.high, high))
            ax.plot((at, at), ends_, color=COLOURS["transfer"], linewidth=1.3, alpha=0.7, zorder=2)
            for beyond, end, marker in ((e.low < low, low, "v"), (e.high > high, high, "^")):
                if beyond:
                    ax.plot(at, end, marker=marker, color=COLOURS["transfer"], markersize=4, clip_on=False)
            spans.append((at, *ends_))
        if ratio:
            end = min(max(limited_end(e, p.limit), low), high)
            open_end(ax, (at, end), p.limit, COLOURS["transfer"], upright=True)
            if p.limit:
                spans.append((at, *sorted((end, end * arrow ** (1 if p.limit == "at least" else -1)))))
        solved = "solved" in p.mark
        ax.plot(at, e.value, marker="o", markersize=6.5, color=COLOURS["transfer"], zorder=4,
                markerfacecolor=GROUND if solved else COLOURS["transfer"])  # fmt: skip
    _name_points(ax, [(p.distance, e.value, p.label) for p, e in shown], spans, 1.0 if ratio else 0.0)


def _name_points(
    ax: Axes,
    points: Sequence[tuple[float, float, str]],
    spans: Sequence[tuple[float, float, float]],
    guide: float,
) -> None:
    """Writes a name beside each point where no other name, point or frame is.

    Args:
        ax: where the points are.
        points: x, y and name of each.
        spans: x and both ends of the intervals, which names cross only where there is no other room.
        guide: y of the horizontal line, which likewise is not written on.
    """
    dpi = ax.figure.dpi
    frame = ax.get_window_extent()
    at = [ax.transData.transform((x, y)) / dpi for x, y, _ in points]
    bars = [
        (ax.transData.transform((x, low)) / dpi, ax.transData.transform((x, high)) / dpi)
        for x, low, high in spans
    ]
    line = float(ax.transData.transform((points[0][0], guide))[1]) / dpi if points else 0.0
    marker = 0.06
    taken = [(x - marker, y - marker, x + marker, y + marker) for x, y in at]
    inside = (frame.x0 / dpi, frame.y0 / dpi, frame.x1 / dpi, frame.y1 / dpi)
    # the crowded ones first
    order = sorted(range(len(points)), key=lambda i: sum(float(np.hypot(*(at[i] - other))) for other in at))
    for i in order:
        text = fit(points[i][2], 1.7, SMALL)
        width, height = text_width(text, SMALL) + 0.04, 0.15
        best: tuple[float, tuple[float, float, float, float]] | None = None
        for radius, angle in itertools.product(np.arange(0.11, 2.2, 0.1), np.arange(0, 360, 22.5)):
            dx, dy = math.cos(math.radians(angle)) * radius, math.sin(math.radians(angle)) * radius
            # the nearest side or corner of the box lies at that distance
            x0 = at[i][0] + dx - (0 if dx > 1e-6 else width if dx < -1e-6 else width / 2)
            y0 = at[i][1] + dy - (0 if dy > 0.05 else height if dy < -0.05 else height / 2)
            box = (x0, y0, x0 + width, y0 + height)
            if not (
                inside[0] <= box[0] and inside[1] <= box[1] and box[2] <= inside[2] and box[3] <= inside[3]
            ):
                continue
            if any(_overlap(box, other) for other in taken):
                continue
            crossed = sum(_overlap(box, (b[0][0] - 0.02, b[0][1], b[1][0] + 0.02, b[1][1])) for b in bars)
            on_line = box[1] < line < box[3]
            corner = (min(max(at[i][0], box[0]), box[2]), min(max(at[i][1], box[1]), box[3]))
            # nor does the line to a name lead through another point
            through = sum(_passes(at[i], corner, other, marker) for j, other in enumerate(at) if j != i)
            cost = radius + 0.6 * crossed + 1.0 * on_line + 1.0 * through
            if best is None or cost < best[0]:
                best = (cost, box)
        if best is None:  # no room at all: the table names it
            continue
        box = best[1]
        taken.append(box)
        corner = (min(max(at[i][0], box[0]), box[2]), min(max(at[i][1], box[1]), box[3]))
        if float(np.hypot(corner[0] - at[i][0], corner[1] - at[i][1])) > 0.2:
            ends = ax.transData.inverted().transform([at[i] * dpi, np.array(corner) * dpi])
            ax.plot(ends[:, 0], ends[:, 1], color=GUIDE, linewidth=0.6, zorder=1)
        x, y = ax.transData.inverted().transform((box[0] * dpi + 0.02 * dpi, (box[1] + height / 2) * dpi))
        ax.text(x, y, text, fontsize=SMALL, ha="left", va="center_baseline")


def _passes(start: np.ndarray, end: Sequence[float], point: np.ndarray, within: float) -> bool:
    """Whether a straight line from start to end comes as near as that to a point."""
    a, b = np.asarray(end) - start, np.asarray(point) - start
    along = min(max(float(a @ b) / max(float(a @ a), 1e-12), 0.0), 1.0)
    return float(np.hypot(*(b - along * a))) < within


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def transfer_matrix(
    ratios: np.ndarray,
    sources: Sequence[str],
    targets: Sequence[str],
    negative: np.ndarray | None = None,
    note: str = "",
    limits: np.ndarray | None = None,
) -> Figure:
    """Speed-up from every source to every target as a heat map with its values printed.

    Args:
        ratios: ``(sources, targets)``, NaN where there is none.
        sources: names of the rows.
        targets: names of the columns; a cell of equal names is marked as the task itself.
        negative: where transfer is shown to be negative, ``(sources, targets)`` of bool.
        note: printed below.
        limits: ``at least``, ``at most`` or ``unresolved`` where the first checkpoint limits a speed-up,
            ``(sources, targets)`` of str.
    """
    ratios = np.asarray(ratios, float)
    limits = np.full(ratios.shape, "") if limits is None else limits
    negative = np.zeros(ratios.shape, bool) if negative is None else np.asarray(negative, bool)
    with style():
        rows = [fit(s, 1.5, 8.5, lines=2) for s in sources]
        tops = [fit(t, 1.5, 8.5, lines=2) for t in targets]
        side = max(text_width(t, 8.5) for t in rows) + 0.36
        room = WIDTH - side - 0.15
        cell = min(0.9, room / len(targets))
        tall = min(0.42, cell)
        # names stand upright unless they fit
        upright = max(text_width(t, 8.5) for t in tops) > cell - 0.06
        head = (max(text_width(t, 8.5) for t in tops) if upright else 0.3) + 0.34
        foot = fit(note, WIDTH - 0.2, SMALL, lines=3)
        below = 0.74 + 0.16 * (foot.count("\n") + 1 if foot else 0)
        height = head + tall * len(sources) + below
        figure = Figure(figsize=(WIDTH, height))
        box = (side / WIDTH, below / height, cell * len(targets) / WIDTH, tall * len(sources) / height)
        ax = figure.add_axes(box)
        size = max(float(np.abs(np.log(finite([ratios]))).max(initial=0.0)), math.log(2))
        colours = LinearSegmentedColormap.from_list("", [SLOWER, "#f7f7f7", FASTER])
        for i, j in np.ndindex(*ratios.shape):
            itself, bad = sources[i] == targets[j], bool(negative[i, j])
            sign = {"at least": "≥", "at most": "≤", "unresolved": "≈"}.get(str(limits[i, j]), "")
            _cell(ax, i, j, float(ratios[i, j]), sign, itself, bad, colours, size, cell)
        ax.set(xlim=(0, len(targets)), ylim=(len(sources), 0))
        ax.set_xticks(np.arange(len(targets)) + 0.5, tops, rotation=90 if upright else 0)
        ax.set_yticks(np.arange(len(sources)) + 0.5, rows)
        ax.xaxis.tick_top()
        ax.tick_params(length=0)
        despine(ax, left=True, bottom=True)
        figure.text(
            side / WIDTH, 1 - 0.05 / height, "learned: target task →", fontsize=9, va="top", color=GUIDE
        )
        figure.text(0.06 / WIDTH, (below + tall * len(sources) / 2) / height, "pretrained on: source task",
                    fontsize=9, rotation=90, va="center", color=GUIDE)  # fmt: skip
        _scale(figure, side, below, height, colours, size, foot)
        return freeze(figure)


def _cell(
    ax: Axes,
    i: int,
    j: int,
    ratio: float,
    sign: str,
    itself: bool,
    bad: bool,
    colours: LinearSegmentedColormap,
    size: float,
    width: float,
) -> None:
    if math.isnan(ratio):
        ax.add_patch(Rectangle((j, i), 1, 1, facecolor=GUIDE, alpha=0.12, edgecolor=GROUND, linewidth=1.2))
        ax.text(j + 0.5, i + 0.5, "self" if itself else "–", ha="center", va="center", fontsize=SMALL,
                color=GUIDE)  # fmt: skip
        return
    fill = colours(0.5 + 0.5 * math.log(ratio) / size)
    ax.add_patch(Rectangle((j, i), 1, 1, facecolor=fill, edgecolor=GROUND, linewidth=1.2))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in to_rgb(fill))
    # WCAG's relative luminance: white reads better below 0.18
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.18
    colour = LIGHT_TEXT if light else DARK_TEXT
    words = sign + ratio_text(ratio)
    if text_width(words, 8.5) >= width - 0.1:
        words = f"{sign}{ratio:.2g}"
    ax.text(j + 0.5, i + 0.5, words, ha="center", va="center", fontsize=8.5, color=colour,
            weight="bold" if bad else "normal")  # fmt: skip
    if bad:
        ax.add_patch(
            Rectangle((j + 0.06, i + 0.08), 0.88, 0.84, fill=False, edgecolor=colour, linewidth=1.4)
        )
    if itself:
        ax.plot((j + 0.02, j + 0.98), (i + 0.97, i + 0.97), color=colour, linewidth=1.2)


def _scale(
    figure: Figure,
    side: float,
    below: float,
    height: float,
    colours: LinearSegmentedColormap,
    size: float,
    foot: str,
) -> None:
    """The colours' scale, and what the frames mean, under the map."""
    bar = figure.add_axes((side / WIDTH, (below - 0.24) / height, 2.0 / WIDTH, 0.11 / height))
    edges = np.linspace(-size, size, 41)
    for low, high in itertools.pairwise(edges):
        fill = colours(0.5 + 0.25 * (low + high) / size)
        bar.add_patch(Rectangle((low, 0), high - low, 1, facecolor=fill, edgecolor=fill, linewidth=0.3))
    ticks = ratio_ticks(math.exp(-size), math.exp(size), 2.0)
    bar.set(xlim=(-size, size), ylim=(0, 1), yticks=[])
    bar.set_xticks([math.log(t) for t in ticks], [f"{t:g}×" for t in ticks])
    bar.tick_params(length=2, labelsize=SMALL)
    despine(bar, left=True, bottom=True)
    bar.set_xlabel("speed-up ρ̄ over scratch", fontsize=SMALL, labelpad=1)
    figure.legend(
        handles=[Patch(facecolor="none", edgecolor=INK, linewidth=1.4, label="negative transfer")],
        loc="upper left",
        bbox_to_anchor=((side + 2.25) / WIDTH, (below - 0.08) / height),
        borderaxespad=0.0,
    )
    if foot:
        figure.text(0.08 / WIDTH, 0.06 / height, foot, fontsize=SMALL, color=GUIDE, va="bottom")
