"""What all figures share: one colour-blind-safe style, the look of each arm, axes, and the files.

Figures are made without pyplot, so that nothing is global, and saved without dates, so that equal data
give equal bytes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import html
import io
import itertools
import math
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, TypeAlias

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis, XAxis, YAxis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.textpath import TextToPath
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from harness.plots.compact import compact

INK = "#222222"
GUIDE = "#767676"
GROUND = "#ffffff"
BLUE = "#0072b2"
THEME = {"ink": INK, "guide": GUIDE, "ground": GROUND, "blue": BLUE}
"""Colours that a page may turn for a dark ground; the others read on both."""
DPI = 144
WIDTH = 7.0
"""Width of every figure, inches; with SMALL on it, what is written can be read on a phone's screen."""
SMALL = 8.0
"""Smallest letters of any figure, points."""
DASHED = (0, (4, 3))
DOTTED = (0, (1, 2))

Handle: TypeAlias = Line2D | Patch
Dash: TypeAlias = Literal["-", "none"] | tuple[float, tuple[float, ...]]


# --- the look of arms ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Look:
    """How an arm is drawn; colour, marker and dash each tell it apart, so that it reads in grey."""

    colour: str
    """Hexadecimal colour."""
    marker: str
    """Matplotlib's marker."""
    dash: Dash
    """Matplotlib's line style."""
    hollow: bool = False
    """Whether its markers are empty."""

    @property
    def face(self) -> str:
        """Colour of the inside of its markers."""
        return GROUND if self.hollow else self.colour


# Okabe and Ito's palette, told apart by the common colour blindnesses
LOOKS = {
    "scratch": Look("#D55E00", "o", "-"),
    "transfer": Look(BLUE, "s", (0, (6, 1.2))),
    "blind": Look("#009E73", "^", (0, (5, 1.5, 1, 1.5))),
    "single_source": Look("#CC79A7", "D", (0, (2.5, 1.2))),
    "normalizer": Look("#E69F00", "v", (0, (1, 1))),
    "shuffled": Look("#56B4E9", "P", (0, (4, 1.2, 1, 1.2, 1, 1.2))),
    "ceiling": Look(INK, "X", (0, (9, 1.5, 2, 1.5))),
    # joint plans
    "separate": Look("#D55E00", "o", "-"),
    "lock-step": Look("#D55E00", "o", "-"),
    "one after another": Look("#E69F00", "v", (0, (1, 1))),
    "joint": Look(BLUE, "s", (0, (6, 1.2))),
    "joint-wide": Look("#009E73", "^", (0, (5, 1.5, 1, 1.5))),
    # codes told at hand-over
    "true": Look(BLUE, "s", "-"),
    "mean": Look(BLUE, "o", "-", hollow=True),
    "wrong": Look("#D55E00", "X", "-"),
    # choice of sources
    "Gaussian process": Look(BLUE, "s", "-"),
    "random": Look(GUIDE, "o", (0, (1, 1))),
    "spread out": Look("#009E73", "^", (0, (5, 1.5, 1, 1.5))),
}
COLOURS = {arm: look.colour for arm, look in LOOKS.items()}
_OTHERS = (BLUE, "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#AA3377", GUIDE, "#999933")
_MARKERS = "so^DvPXhd*<"
_DASHES: tuple[Dash, ...] = (
    "-", (0, (5, 2)), (0, (1, 1.2)), (0, (5, 1.5, 1, 1.5)), (0, (2.5, 1.2)), (0, (4, 1, 1, 1, 1, 1)),
    (0, (9, 2)), (0, (9, 1.5, 2, 1.5)),
)  # fmt: skip


def looks(names: Sequence[str]) -> dict[str, Look]:
    """The look of each arm: its own where it has one, else one by its place among the others.

    Arms of a dose (``sources=3``) go from light to dark in the order given.

    Args:
        names: arms, or tasks where lines stand for tasks.
    """
    names = list(dict.fromkeys(names))
    others = [name for name in names if name not in LOOKS]
    doses = [name for name in others if re.fullmatch(r"[a-z]+=[\d.]+", name)]
    ramp = matplotlib.colormaps["viridis_r"](np.linspace(0.25, 1.0, len(doses)))
    colours = {name: matplotlib.colors.to_hex(c) for name, c in zip(doses, ramp, strict=True)}
    # what a named arm beside them has is not given twice
    own = [LOOKS[name] for name in names if name in LOOKS]
    free = [c for c in _OTHERS if c not in {look.colour for look in own}] or list(_OTHERS)
    markers = [m for m in _MARKERS if m not in {look.marker for look in own}] or list(_MARKERS)
    found = {
        name: Look(
            colours.get(name, free[i % len(free)]),
            markers[i % len(markers)],
            # the dash goes on where the colours begin again
            _DASHES[(i + i // len(free)) % len(_DASHES)],
        )
        for i, name in enumerate(others)
    }
    return {name: LOOKS.get(name) or found[name] for name in names}


def arm_label(arm: str) -> str:
    """``single_source`` as ``single source``; what is no arm of ours keeps its name."""
    return arm.replace("_", " ") if arm in LOOKS else arm


FOCUS = ("scratch", "transfer")
"""Arms whose runs and intervals are drawn where those of all arms would hide each other."""


def detailed(arms: Sequence[str], focus: Sequence[str], note: str, what: str) -> tuple[set[str], str]:
    """The arms of which intervals are drawn: all of up to three, else those in focus.

    Returns:
        The arms, and the note with a word of it where some are left out.
    """
    if len(arms) <= 3:
        return set(arms), note
    shown = [arm for arm in arms if arm in focus]
    of = ", ".join(map(arm_label, shown)) or "no arm"
    return set(shown), f"{note}{'; ' if note else ''}{what} of {of} only"


def key(arm: str, look: Look, label: str = "", line: bool = True) -> Line2D:
    """An arm's entry in a legend."""
    return Line2D(
        [], [], color=look.colour, linestyle=look.dash if line else "none", linewidth=1.9,
        marker=look.marker, markersize=5, markerfacecolor=look.face, label=label or arm_label(arm),
    )  # fmt: skip


def open_end(ax: Axes, at: tuple[float, float], limit: str, colour: str, upright: bool = False) -> None:
    """A short arrow that says on which side the first checkpoint hides the rest of a speed-up.

    Args:
        ax: where.
        at: the end of the interval on that side, or the point where there is none.
        limit: ``at least`` or ``at most``; anything else draws nothing.
        colour: of the arrow.
        upright: whether the axis of speed-ups is the y axis.
    """
    way = {"at least": 1, "at most": -1}.get(limit)
    if way:
        ax.annotate(
            "", at, (0, 15 * way) if upright else (18 * way, 0), textcoords="offset points", zorder=2,
            arrowprops={"arrowstyle": "<-", "color": colour, "linewidth": 1.0, "shrinkA": 0, "shrinkB": 0},
        )  # fmt: skip


# --- style and files -------------------------------------------------------------------------------


@contextlib.contextmanager
def style() -> Iterator[None]:
    """The style of all figures, for the time of the block."""
    rc = {
        "font.family": "DejaVu Sans",  # comes with matplotlib: bytes do not depend on the machine's fonts
        "font.size": 9,
        "axes.titlesize": 9.5,
        "axes.labelsize": 9,
        "axes.edgecolor": GUIDE,
        "axes.facecolor": "none",
        "axes.labelcolor": INK,
        "axes.titlecolor": INK,
        "figure.facecolor": GROUND,
        "text.color": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "xtick.labelsize": 8.5,
        "ytick.labelsize": 8.5,
        "legend.fontsize": 8.5,
        "legend.title_fontsize": 8.5,
        "legend.frameon": False,
        "legend.handlelength": 2.6,
        "axes.linewidth": 0.8,
        "figure.dpi": DPI,
        "savefig.dpi": DPI,
        # names of tasks are text, not formulas
        "text.parse_math": False,
        "svg.fonttype": "path",
        "svg.hashsalt": "mtenvs",
        "svg.id": None,
    }
    import seaborn  # where it is needed: it takes a second, and most commands draw nothing

    # from the defaults, whatever the user's matplotlibrc says
    with matplotlib.rc_context(matplotlib.rcParamsDefault | seaborn.axes_style("ticks") | rc):
        yield


def despine(ax: Axes, left: bool = False, bottom: bool = False) -> None:
    """Removes the frame at the top and on the right, and where else it is asked for."""
    import seaborn

    seaborn.despine(ax=ax, left=left, bottom=bottom)


def freeze(figure: Figure) -> Figure:
    """The figure with its layout done, so that it is the same in every file it is written to."""
    FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    return figure


def png(figure: Figure) -> bytes:
    """The figure as PNG, the same bytes for the same figure."""
    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None}, facecolor=GROUND)
    return buffer.getvalue()


def svg(
    figure: Figure, name: str = "", inline: bool = False, alt: str = "", described_by: str = ""
) -> bytes:
    """The figure as SVG with its text as paths, the same bytes for the same figure.

    Every id begins with a digest of ``name`` and the drawing, so that several figures go into one page.

    Args:
        figure: the figure.
        name: tells apart the ids of one figure that stands twice in a page.
        inline: whether it goes into an HTML page rather than a file: without namespaces, and with the
            colours of :data:`THEME` taken from the page's custom properties ``--figure-ink``,
            ``--figure-guide``, ``--figure-ground`` and ``--figure-blue`` where it sets them. Where it
            does not, the figure is dark on white, as in a file.
        alt: what the figure shows, for those who do not see it.
        described_by: id of the element of the page that says more, such as its caption.
    """
    FigureCanvasSVG(figure)
    buffer = io.BytesIO()
    with style():
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing, facecolor=GROUND)
    text = buffer.getvalue().decode()
    text = compact(text)
    # nothing is read of what names glyphs and indents, a fifth of the bytes
    prefix = f"f{hashlib.sha256(f'{name} {text}'.encode()).hexdigest()[:6]}-"
    used = dict.fromkeys(re.findall(r'(?:xlink:href="#|url\(#)([^")]+)', text))
    short = {own: f"{prefix}{number:x}" for number, own in enumerate(used)}
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{short[m[1]]}"' if m[1] in short else "", text)
    text = re.sub(r'(xlink:href="#|url\(#)([^")]+)', lambda m: m[1] + short[m[2]], text)
    # the rule for every element would reach the page's other drawings
    rule = re.search(r'<style type="text/css">\*\{([^}]*)\}</style>', text)
    assert rule
    text = text.replace(f"<defs>\n  {rule[0]}\n </defs>", "", 1)
    text = re.sub(r">\s+<", "><", re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL))
    says = f' role="img" aria-label="{html.escape(alt)}"' if alt else ""
    says += f' aria-describedby="{html.escape(described_by)}"' if described_by else ""
    text = text.replace("<svg ", f'<svg style="{rule[1]}"{says} ', 1)
    if inline:
        text = text[text.index("<svg ") :].replace("xlink:href", "href")
        text = re.sub(r' xmlns(:xlink)?="[^"]*"', "", text)
        for which, colour in THEME.items():
            text = text.replace(f":{colour}", f":var(--figure-{which}, {colour})")
    return text.encode()


# --- text ------------------------------------------------------------------------------------------


def steps_text(steps: float) -> str:
    """``1500`` as ``1.5k``, ``2000000`` as ``2M``."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(steps) >= size * 0.9995:
            return f"{steps / size:.3g}{letter}"
    return f"{steps:.3g}"


def ratio_text(ratio: float) -> str:
    """``1.234`` as ``1.23``, ``43.21`` as ``43``."""
    return f"{ratio:.0f}" if ratio >= 20 else f"{ratio:.1f}" if ratio >= 10 else f"{ratio:.2f}"


@functools.cache
def text_width(text: str, size: float = 9.0, weight: str = "normal") -> float:
    """Width of the longest line, inches."""
    font = FontProperties(family="DejaVu Sans", size=size, weight=weight)
    measure = TextToPath().get_text_width_height_descent
    return max((measure(line, font, False)[0] / 72 for line in text.split("\n") if line), default=0.0)


def fit(text: str, width: float, size: float = 9.0, weight: str = "normal", lines: int = 1) -> str:
    """The text broken at spaces and hyphens into at most ``lines`` of ``width`` inches, then cut with ….

    Args:
        text: one line or more.
        width: inches.
        size: letters, points.
        weight: of the font.
        lines: how many at most.
    """
    broken = []
    for paragraph in text.split("\n"):
        line = ""
        for word in re.findall(r"[^\s-]*-+|\S+|\s+", paragraph):
            if line.strip() and text_width((line + word).rstrip(), size, weight) > width:
                broken.append(line.rstrip())
                line = word.lstrip()
            else:
                line += word
        broken.append(line.rstrip())
    if len(broken) > lines:
        rest = broken[lines - 1 :]
        broken[lines - 1] = "".join(t if t.endswith("-") else f"{t} " for t in rest).rstrip() + "…"
    return "\n".join(_cut(line, width, size, weight) for line in broken[:lines])


def fit_title(title: str, width: float) -> str:
    """A panel's title in at most two lines; ``(n = ...)`` or ``θ = ...`` at its end is never cut."""
    if text_width(title, 9.5) <= width:
        return title
    name, n = re.fullmatch(r"(.*?)( \(n = .*\)|,? θ = .*)?", title, re.DOTALL).groups()  # type: ignore[union-attr]
    if not n:
        return fit(name, width, 9.5, lines=2)
    return fit(name, width, 9.5) + "\n" + fit(n.lstrip(", "), width, 9.5)


def _cut(line: str, width: float, size: float, weight: str) -> str:
    while text_width(line, size, weight) > width and len(line) > 1:
        line = line.rstrip("…")[:-1].rstrip() + "…"
    return line


# --- axes ------------------------------------------------------------------------------------------


def step_axis(ax: Axes, steps: np.ndarray, inches: float) -> None:
    """Logarithmic from the first positive checkpoint on, and linear down to step 0, which is shown."""
    positive = np.asarray(steps, float)[np.asarray(steps, float) > 0]
    first, last = (float(positive[0]), float(positive[-1])) if len(positive) else (1.0, 10.0)
    ax.set_xscale("symlog", linthresh=first, linscale=0.45)
    ax.set_xlim(0, max(last * 1.06, first * 3))
    # room for "100k" and a gap at each tick
    ticks = thin(decades(first, max(last, first * 3)), max(1, int(inches / 0.5) - 1))
    ax.xaxis.set_major_locator(FixedLocator([0.0, *ticks]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: steps_text(x)))
    ax.xaxis.set_minor_locator(FixedLocator(decades(first, last)))
    ax.xaxis.set_minor_formatter(NullFormatter())


def log_step_axis(axis: Axis, low: float, high: float, most: int = 6) -> None:
    """Steps on a logarithmic x or y axis."""
    axis.set_major_locator(FixedLocator(thin(decades(low, high), most)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: steps_text(value)))
    axis.set_minor_locator(FixedLocator(decades(low, high)))
    axis.set_minor_formatter(NullFormatter())


def ratio_axis(axis: XAxis | YAxis, low: float, high: float, inches: float) -> None:
    """Ratios on a logarithmic axis, 1 among its ticks where it is within the limits.

    Args:
        axis: x or y.
        low: limit.
        high: limit.
        inches: length of the axis.
    """
    ticks = ratio_ticks(low, high, inches, upright=isinstance(axis, YAxis))
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}×"))
    axis.set_minor_locator(NullLocator())


def ratio_ticks(low: float, high: float, inches: float, upright: bool = False) -> list[float]:
    """Round ratios within the limits whose labels do not touch, finer where there is room."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    decades = [10.0**e for e in exponents]
    classes = [[1.0], [t for t in decades if math.log10(t) % 2 == 0], decades]
    for factors in ((2, 5), (1.5, 3, 7), (1.1, 1.2)):
        classes.append([round(f * t, 12) for t in decades for f in factors])
    kept: list[float] = []
    for some in classes:
        more = sorted({*kept, *(t for t in some if low <= t <= high)})
        if not spaced(more, low, high, inches, upright):
            break
        kept = more
    return kept


def spaced(ticks: Sequence[float], low: float, high: float, inches: float, upright: bool) -> bool:
    """Whether the labels of ratios on a logarithmic axis of this length stand apart."""
    ends = []
    for tick in ticks:
        at = math.log(tick / low) / math.log(high / low) * inches
        half = 0.09 if upright else text_width(f"{tick:g}×", 8.5) / 2 + 0.06
        ends.append((at - half, at + half))
    return all(a[1] <= b[0] for a, b in itertools.pairwise(ends))


def threshold_axis(ax: Axes, thresholds: np.ndarray) -> None:
    """θ on the x axis."""
    ax.set_xlim(float(thresholds[0]) - 0.03, float(thresholds[-1]) + 0.03)
    ax.xaxis.set_major_locator(
        FixedLocator([t for t in np.arange(0, 1.05, 0.2) if t <= thresholds[-1] + 0.01])
    )
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.1f}"))


def count_axis(axis: Axis, counts: Sequence[float], inches: float) -> None:
    """Whole numbers on a linear x axis, a tick at each that was tried, as far as they stand apart."""
    low, high = min(counts), max(counts)
    kept: list[float] = []
    for count in sorted(set(counts)):
        if not kept or (count - kept[-1]) / max(high - low, 1) * inches > 0.3:
            kept.append(count)
    axis.set_major_locator(FixedLocator(kept))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def decades(low: float, high: float) -> list[float]:
    """Powers of ten within the limits, with their threefolds where those would be fewer than three."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [10.0**e for e in exponents if low <= 10.0**e <= high * 1.0001]
    if len(ticks) < 3:
        ticks = [m * 10.0**e for e in exponents for m in (1, 3) if low <= m * 10.0**e <= high * 1.0001]
    return ticks or [low]


def thin(ticks: Sequence[float], most: int) -> list[float]:
    """Every tick, or every second, third, ... of them, the last one kept."""
    stride = math.ceil(len(ticks) / most)
    return list(ticks)[::-1][::stride][::-1]


def finite(values: Sequence[Any]) -> np.ndarray:
    """All finite numbers of arrays and numbers, in one array."""
    parts = [np.ravel(np.asarray(v, float)) for v in values if v is not None]
    joined = np.concatenate(parts) if parts else np.empty(0)
    return joined[np.isfinite(joined)]


# --- legends and small multiples -------------------------------------------------------------------


def legend(figure: Figure, handles: Sequence[Handle], note: str = "", columns: int = 5) -> None:
    """One legend above all panels, in as many columns as fit, under a note that says n.

    Args:
        figure: with constrained layout.
        handles: its entries.
        note: printed above them.
        columns: how many at most.
    """
    if not handles and not note:
        return
    width = figure.get_figwidth() - 0.3
    widest = max((text_width(str(h.get_label()), 8.5) for h in handles), default=0.0) + 0.55
    figure.legend(
        handles=list(handles),
        loc="outside upper left",
        ncols=max(1, min(columns, int(width / widest), len(handles))),
        title=fit(note, width, 8.5, lines=3) or None,
        alignment="left",
        columnspacing=1.3,
        borderaxespad=0.2,
    )


def grid(
    count: int,
    draw: Callable[[Axes, int], None],
    x_label: str,
    y_label: str,
    handles: Sequence[Handle],
    limits: tuple[float, float],
    note: str = "",
    panel_height: float = 1.75,
) -> Figure:
    """Small multiples with shared axes and one legend above.

    Args:
        count: how many panels.
        draw: draws the i-th.
        x_label: of all panels.
        y_label: of all panels.
        handles: of the legend.
        limits: of the y axis.
        note: above the legend.
        panel_height: inches.
    """
    columns = panel_columns(count)
    rows = math.ceil(count / columns)
    with style():
        figure = Figure(figsize=(WIDTH, 0.4 + rows * (panel_height + 0.4) + 0.2), layout="constrained")
        axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
        for i, ax in enumerate(axes.flat):
            if i >= count:
                ax.remove()
                continue
            draw(ax, i)
            ax.set_ylim(limits)
            despine(ax)
            # with shared axes only the outer panels are labelled, and those above a gap are outer too
            ax.tick_params(labelbottom=i + columns >= count, labelleft=i % columns == 0)
        figure.supxlabel(x_label, fontsize=9)
        figure.supylabel(y_label, fontsize=9)
        legend(figure, handles, note)
        grow(figure)
        return freeze(figure)


def grow(figure: Figure) -> None:
    """Makes room for the figure's legend by its own height."""
    FigureCanvasAgg(figure)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = sum(entry.get_window_extent(renderer).height for entry in figure.legends) / figure.dpi
    figure.set_figheight(figure.get_figheight() + taken)


def panel_columns(count: int) -> int:
    """How many panels stand side by side."""
    return count if count <= 3 else 2 if count == 4 else 3


def panel_width(count: int) -> float:
    """About how wide a panel's axes are, inches."""
    return (WIDTH - 0.65) / panel_columns(count) - 0.15


def panel_title(ax: Axes, title: str, count: int) -> None:
    """A title in at most two lines of the panel's width."""
    ax.set_title(fit_title(title, panel_width(count)))
