"""Drawings in fewer bytes show what they showed."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from harness.plots.compact import compact, joined, number, path

PLACES = st.integers(-500_000, 500_000).map(lambda n: n / 1000)
POINT = st.tuples(PLACES, PLACES)
COMMAND = st.one_of(
    st.tuples(st.just("L"), st.lists(POINT, min_size=1, max_size=1)),
    st.tuples(st.just("Q"), st.lists(POINT, min_size=2, max_size=2)),
    st.tuples(st.just("C"), st.lists(POINT, min_size=3, max_size=3)),
    st.tuples(st.just("M"), st.lists(POINT, min_size=1, max_size=1)),
    st.just(("z", [])),
)
READ = re.compile(r"[a-zA-Z]|-?(?:\d+\.?\d*|\.\d+)")
"""As SVG's grammar has it, without exponents."""


def written(commands):
    return "\n".join(" ".join([c, *(f"{x:.6f} {y:.6f}" for x, y in points)]) for c, points in commands)


def drawn(data):
    """The absolute commands of a path, by SVG's rules for relative ones and for letters left out."""
    tokens, found = READ.findall(data), []
    x = y = start_x = start_y = 0.0
    word, i = "", 0
    while i < len(tokens):
        if tokens[i].isalpha():
            word = tokens[i]
            i += 1
        if word == "z":
            x, y = start_x, start_y
            found.append(("z", []))
            continue
        n = {"M": 2, "l": 2, "h": 1, "v": 1, "q": 4, "c": 6}[word]
        numbers = [float(t) for t in tokens[i : i + n]]
        assert len(numbers) == n
        i += n
        if word == "M":
            points = [tuple(numbers)]
            start_x, start_y = numbers
        elif word == "h":
            points = [(x + numbers[0], y)]
        elif word == "v":
            points = [(x, y + numbers[0])]
        else:
            points = [(x + numbers[k], y + numbers[k + 1]) for k in range(0, n, 2)]
        x, y = points[-1]
        found.append(({"h": "L", "v": "L"}.get(word, word.upper()), points))
    return found


@given(POINT, st.lists(COMMAND, max_size=30))
def test_a_path_keeps_its_places(start, rest):
    commands = [("M", [start]), *rest]
    found = drawn(path(written(commands)))
    assert [c for c, _ in found] == [c for c, _ in commands]
    for (_, points), (_, wanted) in zip(found, commands, strict=True):
        for have, want in zip(points, wanted, strict=True):
            # wherever along the path: nothing adds up
            assert have == pytest.approx(want, abs=0.00501)


def test_a_path_is_short():
    assert (
        path("M 0.123456 10 L 0.123456 20 L 5.5 20 L 6.5 21 L 7.5 20.994 z") == "M.12 10v10h5.38l1 1 1-.01z"
    )
    assert path("M 1 2 Q 3 4 5 6 Q 7 8 9 10") == "M1 2q2 2 4 4 2 2 4 4"


def test_a_command_that_is_not_known_is_told():
    with pytest.raises(ValueError, match="'A'"):
        path("M 0 0 A 1 1 0 0 0 2 2")


def test_numbers():
    assert [number(n) for n in (0, 5, -5, 50, 100, -1230, 12345)] == [
        "0",
        ".05",
        "-.05",
        ".5",
        "1",
        "-12.3",
        "123.45",
    ]
    assert joined([100, -100, 5]) == "1-1 .05"


def test_markers_of_one_look_take_it_from_their_group():
    one = '<use href="#a" x="1.23456" y="2" style="fill: #d55e00; stroke: #d55e00"/>'
    other = one.replace("fill: #d55e00", "fill: #222222")
    assert compact(f"<g>{one}\n {one}</g>") == (
        '<g style="fill:#d55e00;stroke:#d55e00"><use href="#a" x="1.23" y="2"/>\n '
        '<use href="#a" x="1.23" y="2"/></g>'
    )
    assert compact(f"<g>{one}{other}</g>").count("style") == 2


def test_a_figure_has_fewer_bytes():
    figure = Figure()
    ax = figure.subplots()
    ax.plot([i**0.5 for i in range(200)], [(i * 37 % 101) / 7 for i in range(200)], "o-")
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg")
    assert len(compact(buffer.getvalue())) < 0.7 * len(buffer.getvalue())
