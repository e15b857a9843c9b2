"""Figures: every hard case is drawn, nothing overlaps or is cut, files repeat, arms are told apart."""

from __future__ import annotations

import functools
import itertools
import re
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from figures import ARMS, BUDGET, FIGURES, LONG, NONE, THETA, ratio, rows
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from harness import plots
from harness.plots.style import THEME, fit, fit_title, ratio_ticks, spaced, text_width
from harness.statistics import Estimate

TO_FILE = ("forest-8", "theta-8", "km-1", "matrix-2")


@functools.cache
def drawn(name: str) -> Figure:
    return FIGURES[name]()


def texts(figure: Figure, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, float, np.ndarray]]:
    """What is really written, its size in points and its box ``(x0, y0, x1, y1)`` in inches."""
    found = {}
    draw = Text.draw

    def record(self, renderer, *args, **kwargs):
        if self.get_visible() and self.get_text().strip():
            box = Text.get_window_extent(self, renderer)
            found[id(self)] = (self.get_text(), self.get_fontsize(), box.extents / figure.dpi)
        return draw(self, renderer, *args, **kwargs)

    monkeypatch.setattr(Text, "draw", record)
    with plots.style():
        FigureCanvasAgg(figure).draw()
    return list(found.values())


@pytest.mark.filterwarnings("error")  # a layout that did not work is a warning only
@pytest.mark.parametrize("name", FIGURES)
def test_nothing_overlaps_is_cut_or_too_small(name, monkeypatch):
    figure = drawn(name)
    found = texts(figure, monkeypatch)
    assert len(found) > 3
    words = [text for text, _, _ in found]
    boxes = np.array([box for _, _, box in found])
    slack = 0.012
    a, b = boxes[:, None], boxes[None]
    over = np.minimum(a[..., 2:], b[..., 2:]) - np.maximum(a[..., :2], b[..., :2])
    pairs = np.argwhere(np.triu((over > slack).all(axis=-1), 1))
    assert [(words[i], words[j]) for i, j in pairs] == []
    width, height = figure.get_size_inches()
    ends = np.array([width, height]) + slack
    cut = (boxes[:, :2] < -slack).any(axis=1) | (boxes[:, 2:] > ends).any(axis=1)
    assert [words[i] for i in np.flatnonzero(cut)] == []
    assert width <= 8
    assert min(size for _, size, _ in found) >= 8


@pytest.mark.parametrize("name", TO_FILE)
def test_files_repeat_to_the_byte(name):
    first, again = drawn(name), FIGURES[name]()
    # in whichever order they are written
    files = plots.svg(first), plots.png(first)
    assert plots.png(again) == files[1]
    assert plots.svg(again) == files[0]


def ids(svg: bytes) -> list[str]:
    return re.findall(r'\bid="([^"]*)"', svg.decode())


def test_ids_of_inlined_figures_never_meet():
    files = [plots.svg(drawn(name), inline=True) for name in TO_FILE]
    # one figure twice in a page needs a name
    files.append(plots.svg(drawn(TO_FILE[0]), name="again", inline=True))
    every = [i for file in files for i in ids(file)]
    assert len(every) == len(set(every)) > 50
    for file in files:
        text = file.decode()
        used = set(re.findall(r'href="#([^"]*)"', text)) | set(re.findall(r"url\(#([^)]*)\)", text))
        assert used == set(ids(file))


def test_an_inlined_figure_fetches_nothing_and_leaves_the_page_alone():
    text = plots.svg(drawn("theta-8"), inline=True, alt='ρ > 1 & "θ"').decode()
    assert text.startswith("<svg ")
    assert "http" not in text
    assert "<style" not in text
    assert "xmlns" not in text
    root = ET.fromstring(text)
    assert root.attrib["aria-label"] == 'ρ > 1 & "θ"'
    assert root.attrib["role"] == "img"
    # the page may turn these; nothing else is dark on light by its own
    colours = set(re.findall(r"#[0-9a-f]{6}", re.sub(r"var\([^)]*\)", "", text)))
    assert not colours & {*THEME.values(), "#000000"}
    assert "var(--figure-ground, #ffffff)" in text


def test_a_figures_file_stands_alone():
    text = plots.svg(drawn("theta-8")).decode()
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert "var(" not in text
    assert "<text" not in text  # paths need no font
    # nor a date, but for what a path happens to look like
    assert not re.search(r"<dc:|<metadata|20\d\d-\d\d", re.sub(r' d="[^"]*"', "", text))


def test_every_arm_has_its_own_colour_marker_and_dash():
    found = plots.looks(ARMS)
    for part in ("colour", "marker", "dash"):
        assert len({getattr(look, part) for look in found.values()}) == len(ARMS)
    # by whatever it stands beside
    assert plots.looks(["sources=3", "transfer"])["transfer"] == found["transfer"]
    # a baseline and eight sources of a matrix share nothing
    beside = plots.looks(["scratch", *(f"from={name}" for name in LONG)])
    for part in ("colour", "marker"):
        assert len({getattr(look, part) for look in beside.values()}) == 1 + len(LONG)
    others = plots.looks(LONG)
    assert len({(look.colour, look.marker, look.dash) for look in others.values()}) == len(LONG)
    assert len({look.colour for look in others.values()}) == len(LONG)


def test_doses_darken_as_they_grow():
    found = plots.looks(["scratch", *(f"steps={n}" for n in (100000, 200000, 400000, 800000))])
    light = [np.dot(to_rgb(look.colour), (0.2126, 0.7152, 0.0722)) for look in found.values()][1:]
    assert light == sorted(light, reverse=True)
    assert found["scratch"] == plots.looks(["scratch"])["scratch"]


def lines(figure: Figure, axes: int = 0) -> list:
    return figure.axes[axes].lines


def test_rows_say_what_is_solved_at_least_and_negative():
    estimate = ratio(2.0)
    cases = [
        plots.ForestRow("solved", estimate, (2, 2), "2.0", "solved at step 0"),
        plots.ForestRow("open", estimate, (2, 2), "2.0", limit="at least"),
        plots.ForestRow("worse", ratio(0.5), (2, 2), "0.5", "negative transfer"),
    ]
    figure = plots.forest(cases)
    faces = [line.get_markerfacecolor() for line in lines(figure) if line.get_marker() == "s"]
    assert faces == ["#ffffff", plots.COLOURS["transfer"], plots.COLOURS["transfer"]]
    arrows = [a for a in figure.axes[0].texts if getattr(a, "arrow_patch", None)]
    assert [a.xy[0] for a in arrows] == [estimate.high]
    # and ends before the text, wherever it begins
    far = [*cases, plots.ForestRow("far", Estimate(400.0, 200.0, 800.0), (2, 2), "40", limit="at least")]
    ax = plots.forest(far).axes[0]
    begin = max(ax.transData.transform(a.xy)[0] for a in ax.texts if getattr(a, "arrow_patch", None))
    column = next(t for t in ax.texts if t.get_text() == "40").get_window_extent().x0
    assert column - begin > 18 / 72 * ax.figure.dpi
    marked = next(t for t in figure.axes[0].texts if t.get_text() == "negative transfer")
    assert marked.get_color() == plots.COLOURS["scratch"]


def test_an_interval_without_end_ends_in_an_arrow_at_the_edge():
    unbounded = plots.BreakEvenRow("a", Estimate(60.0, 20.0, np.inf), (3, 3), "60 [20, unbounded]")
    never = plots.BreakEvenRow("b", Estimate(-8.0, 45.0, np.inf), (3, 3), "unbounded")
    figure = plots.break_even([unbounded, never], "θ = 0.5")
    edge = figure.axes[0].get_xlim()[1]
    found = [line.get_xdata() for line in lines(figure) if line.get_marker() == ">"]
    assert [float(x[0]) for x in found] == pytest.approx([edge, edge])
    points = [float(line.get_xdata()[0]) for line in lines(figure) if line.get_marker() == "s"]
    assert points == [60.0]  # a saving that is negative has no number of tasks


def arrows(figure: Figure, axes: int = 0) -> list[tuple[float, float]]:
    """Where the arrows of an axes start."""
    return [a.xy for a in figure.axes[axes].texts if getattr(a, "arrow_patch", None)]


def test_at_least_is_an_arrow_or_a_sign_in_every_figure_of_speed_ups():
    e = ratio(2.0)
    dots = [plots.Dot("a", e, limit="at least"), plots.Dot("b", e), plots.Dot("c", e, limit="at most")]
    panel = plots.DotPanel("speed-up", "ρ̄", dots, 1.0, ratio=True)
    assert arrows(plots.levels([panel])) == [(e.high, 0.0), (e.low, 2.0)]
    points = [plots.DistancePoint(d.label, 1.0 + i, e, NONE, limit=d.limit) for i, d in enumerate(dots)]
    assert arrows(plots.distance(points)) == [(1.0, e.high), (3.0, e.low)]
    line = plots.Line("a", x := np.array([1.0, 2.0]), x, limits=("", "at least"))
    assert arrows(plots.dose_curves([plots.DosePanel("sources", [line])])) == [(2.0, 2.0)]
    cells, limits = (
        np.array([[np.nan, 0.5], [12.34, np.nan]]),
        np.array([["", "at most"], ["at least", ""]]),
    )
    figure = plots.transfer_matrix(cells, LONG[:2], LONG[:2], limits=limits)
    assert [t.get_text() for t in figure.axes[0].texts] == ["self", "≤0.50", "≥12.3", "self"]
    limited = {"a": np.arange(len(THETA)) < 4}
    figure = plots.speed_up_by_threshold({"a": THETA + 1}, [e] * len(THETA), THETA, [1], limited=limited)
    hollow = [line for line in lines(figure) if line.get_markerfacecolor() == "#ffffff"]
    assert [len(line.get_xdata()) for line in hollow] == [4]
    assert "hollow: limited by the first checkpoint" in [
        t.get_text() for t in figure.legends[0].get_texts()
    ]


def test_intervals_of_scratch_and_transfer_stay_where_arms_are_many():
    colours = [to_rgb(plots.COLOURS[arm]) for arm in ("scratch", "transfer")]
    for name, what in (("times-arms", "intervals"), ("shares-arms", "intervals"), ("km-arms", "intervals")):
        figure = drawn(name)
        said = figure.legends[0].get_title().get_text()
        assert f"{what} of scratch, transfer only" in said
        shown = figure.axes[0].collections
        found = {
            to_rgb((c.get_facecolor() if len(c.get_facecolor()) else c.get_edgecolor())[0]) for c in shown
        }
        assert found == set(colours)


def test_doses_are_the_ticks():
    doses = np.array([1e5, 4e5])
    panel = plots.DosePanel("steps", [plots.Line("a", doses, doses / 1e5)], log=True)
    assert plots.dose_curves([panel]).axes[0].get_xticks().tolist() == doses.tolist()


def test_no_name_stands_on_the_line_of_no_transfer():
    nothing = Estimate(0.005, -0.02, 0.03)
    points = [plots.DistancePoint(name, i, ratio(1.02, 0.1), nothing) for i, name in enumerate(LONG[:6])]
    figure = plots.distance(points)
    for ax, guide in zip(figure.axes, (1.0, 0.0), strict=True):
        assert len(ax.texts) == len(points)
        line = ax.transData.transform((0.0, guide))[1]
        for text in ax.texts:
            box = text.get_window_extent()
            assert not box.y0 < line < box.y1, text.get_text()


def test_ticks_of_panels_side_by_side_stand_apart():
    for name in ("comparability", "levels-8"):
        figure = drawn(name)
        panels = [ax for ax in figure.axes if ax.get_subplotspec().rowspan.start == 0][:4]
        labels = [
            [t.get_window_extent().extents / figure.dpi for t in ax.get_xticklabels() if t.get_text()]
            for ax in panels
        ]
        assert all(len(of_panel) >= 2 for of_panel in labels)
        for one, two in itertools.pairwise(labels):
            assert min(box[0] for box in two) - max(box[2] for box in one) > 0.1


def test_a_panel_of_narrow_values_has_two_ticks():
    names = ("mean", "median", "IQM", "optimality gap")
    near = [
        plots.Dot("transfer", Estimate(1.0, 0.9967, 1.0018)),
        plots.Dot("blind", Estimate(0.9975, reason="-")),
    ]
    panels = [plots.DotPanel(name, "score", near, None) for name in names]
    for ax in plots.levels(panels).axes:
        assert len([x for x in ax.get_xticks() if ax.get_xlim()[0] <= x <= ax.get_xlim()[1]]) >= 2


def test_an_interval_shorter_than_its_marker_is_seen():
    figure = plots.levels([plots.DotPanel("a", "score", [plots.Dot("x", Estimate(0.65, 0.649, 0.651))])])
    caps = [line for line in lines(figure) if line.get_marker() == "|"]
    marker = next(line for line in lines(figure) if line.get_marker() == "s")
    assert [line.get_xdata()[0] for line in caps] == [0.649]
    assert caps[0].get_markersize() > marker.get_markersize() + 2


def test_groups_name_their_task_once():
    written = [t.get_text() for t in plots.forest(rows(2, 3)).axes[0].texts]
    assert written.count("single source") == 3
    assert written.count("giant <b>&$x_1$") == 1


def test_numbers_at_risk_are_those_before_the_next_checkpoint():
    steps = np.array([0.0, 1000, 5000, 10_000, 100_000])
    survival = plots.Survival(np.array([1, 1, 0.75, 0.5, 0.25]), np.array([4, 4, 4, 3, 2]))
    figure = plots.kaplan_meier([plots.SurvivalPanel("a", {"scratch": survival})], steps, 100_000)
    ax = figure.axes[0]
    assert ax.get_xticks().tolist() == [0, 1000, 10_000, 100_000]
    numbers = [t.get_text() for t in ax.texts if t.get_text().isdigit()]
    assert numbers == ["4", "4", "3", "2"]
    assert "|" in [line.get_marker() for line in ax.lines]  # one run is left at B
    # B has a column of its own, and arms that are not planned have no row
    panels = [
        plots.SurvivalPanel("a", {"scratch": survival, "transfer": survival}),
        plots.SurvivalPanel("b", {"transfer": survival}),
    ]
    figure = plots.kaplan_meier(panels, steps, 60_000)
    assert [ax.xaxis.get_major_formatter()(x) for x in ax.get_xticks()][-1] == "B"
    assert figure.axes[0].get_xticks()[-1] == 60_000
    counted = [len([t for t in ax.texts if t.get_text().isdigit()]) for ax in figure.axes]
    ticks = len(figure.axes[0].get_xticks())
    assert counted == [2 * ticks, ticks]


def test_the_censored_mass_is_a_bar_from_the_top():
    line = plots.Line("transfer", np.array([1e3, 1e4, BUDGET]), np.array([0.1, 0.5, 0.8]))
    figure = plots.runtime_profile([line], BUDGET)
    (bar,) = figure.axes[1].patches
    assert bar.get_y() == pytest.approx(0.8)
    assert bar.get_y() + bar.get_height() == pytest.approx(1.0)
    assert "20% never" in figure.legends[0].get_texts()[0].get_text()
    assert len(figure.axes[1].lines) == 1
    all_reached = plots.runtime_profile([plots.Line("transfer", line.x, np.array([0.1, 0.5, 1.0]))], BUDGET)
    assert not figure_markers(all_reached, 1)  # at the top it would read as 100% never


def figure_markers(figure: Figure, axes: int) -> list:
    return [line for line in figure.axes[axes].lines if line.get_marker() not in ("None", None)]


def test_an_interval_that_there_is_not_has_no_entry_in_the_legend():
    known = plots.Line("transfer", x := np.array([1e3, 1e4, BUDGET]), x / BUDGET, x * np.nan, x * np.nan)
    labels = [t.get_text() for t in plots.runtime_profile([known], BUDGET).legends[0].get_texts()]
    assert "95% interval" not in labels  # none is drawn


def test_the_heat_map_prints_its_values_and_frames_the_negative_ones():
    values = np.array([[np.nan, 0.5], [12.34, np.nan]])
    figure = plots.transfer_matrix(values, LONG[:2], LONG[:2], values < 1)
    ax = figure.axes[0]
    assert [t.get_text() for t in ax.texts] == ["self", "0.50", "12.3", "self"]
    frames = [p for p in ax.patches if not p.get_fill()]
    assert [(round(p.get_x()), round(p.get_y())) for p in frames] == [(1, 0)]


def test_more_than_three_arms_keep_runs_and_bands_to_two():
    figure = drawn("curves-arms")
    legend = figure.legends[0]
    labels = [t.get_text() for t in legend.get_texts()]
    assert labels[:7] == [f"{arm.replace('_', ' ')}: mean" for arm in ARMS]
    assert "runs and bands of scratch, transfer only" in legend.get_title().get_text()
    bands = {matplotlib.colors.to_hex(c.get_facecolor()[0]) for c in figure.axes[0].collections}
    assert bands == {plots.COLOURS[a].lower() for a in ("scratch", "transfer")}


@pytest.mark.parametrize("width", [0.4, 1.0, 2.2])
def test_text_fits_its_place(width):
    for name, count in itertools.product(LONG, (1, 2)):
        found = fit(name, width, lines=count)
        assert found.count("\n") < count
        assert text_width(found) <= width
        assert found.replace("\n", " ").startswith(name[0])


def test_text_is_cut_no_more_than_it_must():
    assert fit("long-shins", 2.0) == "long-shins"
    assert fit("run-backwards-on-one-foot", 1.3, lines=2) == "run-backwards-on-\none-foot"
    assert fit("one two three", 0.3, lines=1).endswith("…")


def test_n_is_never_cut_from_a_title():
    for name in LONG:
        assert fit_title(f"{name} (n = 10+10)", 1.9).endswith("(n = 10+10)")
        assert fit_title(f"{name}, θ = 0.5", 1.9).endswith("θ = 0.5")


@pytest.mark.parametrize("limits", [(0.9, 1.3), (0.4, 2.5), (0.2, 30), (1e-3, 1e3), (2, 40)])
def test_ticks_of_ratios_are_round_hold_one_and_stand_apart(limits):
    for inches in (1.2, 2.5, 5):
        ticks = ratio_ticks(*limits, inches)
        assert ticks
        assert (1.0 in ticks) == (limits[0] <= 1 <= limits[1])
        assert all(limits[0] <= t <= limits[1] for t in ticks)
        assert spaced(ticks, *limits, inches, upright=False)


def test_nothing_estimable_is_said():
    panel = plots.DotPanel("jumpstart", "score", [plots.Dot("a", NONE)])
    assert "no estimate" in [t.get_text() for t in plots.levels([panel]).axes[0].texts]


def test_of_many_arms_those_that_always_arrive_are_told_not_drawn():
    thresholds = np.linspace(0.1, 0.8, 15)
    always, fails = np.ones(15), np.linspace(1.0, 0.5, 15)

    def panel(*values):
        given = dict(zip(("scratch", "transfer", "blind", "single_source"), values, strict=False))
        return plots.ThresholdPanel("a task", given, {a: v - 0.1 for a, v in given.items()}, given)

    figure = plots.success_shares(
        [panel(always, fails, always, always), panel(*[always] * 4), panel(fails, always)], thresholds
    )
    told = [[text.get_text() for text in ax.texts] for ax in figure.axes]
    assert told == [["of the others every run arrives"], ["every run arrives"], []]
    marked = [{line.get_color() for line in ax.lines if line.get_marker() != "None"} for ax in figure.axes]
    assert [len(colours) for colours in marked] == [1, 0, 2]
