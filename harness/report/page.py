"""The page: HTML of tables, figures and sections, and the shell around them.

One file that opens from disk and asks for nothing: figures are inlined, the style and the one script
stand in the page, and its Content-Security-Policy forbids every request. What the plan and its tasks are
named is escaped wherever it is quoted.
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import math
import re
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from harness import plots
from harness.report.look import CSS, SCRIPT

MEDIA = {".mp4": "video/mp4", ".webm": "video/webm", ".gif": "image/gif"}
"""Films that a browser plays, by the ending of their files."""


@dataclasses.dataclass(frozen=True, eq=False)
class Exhibit:
    """A figure with the data that it shows."""

    name: str
    """Stem of its files."""
    title: str
    """What it is, for those who do not see it."""
    caption: str
    """What it shows and how to read it."""
    figure: Figure
    """The figure."""
    data: pd.DataFrame
    """What it shows, tidy: one observation per row."""

    def svg(self) -> bytes:
        """The figure as a file, the same bytes for the same figure."""
        return plots.svg(self.figure, self.name, alt=f"{self.title}. {self.caption}")

    def inline(self) -> str:
        """The figure as part of the page, with its caption; its ink and ground follow the theme."""
        caption = f"{self.name}-caption"
        drawing = plots.svg(self.figure, self.name, inline=True, alt=self.title, described_by=caption)
        files = ", ".join(
            f'<a href="{file}" download>{file}</a>'
            for file in (f"figures/{self.name}.svg", f"figures/{self.name}.csv")
        )
        # the box scrolls where the figure would become too small to read
        return (
            f'<figure><div class="drawing" role="group" aria-label="{escape(self.title)}" tabindex="0">'
            f'{drawing.decode().rstrip()}</div><figcaption id="{caption}">{escape(self.caption)} '
            f"<span>{files} (beside this file)</span></figcaption></figure>"
        )

    def csv(self) -> bytes:
        """Its data, the same bytes for the same numbers.

        Whole numbers are whole; others have six digits, more than any is known to. The rows have them all.
        """

        def digits(value: float) -> str:
            return f"{value:.0f}" if value.is_integer() else f"{value:.6g}"

        return self.data.to_csv(index=False, float_format=digits, lineterminator="\n").encode()


@dataclasses.dataclass(frozen=True, eq=False)
class Section:
    """One section of the page."""

    title: str
    """Its heading, of which its address in the page is made."""
    parts: Sequence[str | Exhibit]
    """HTML and figures, in order."""
    number: int | None = None
    """Its number in PROTOCOL §8; None for what stands around those."""
    look: str = ""
    """Class of its box, for the style."""

    @property
    def anchor(self) -> str:
        """Its address within the page."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    @property
    def exhibits(self) -> list[Exhibit]:
        """Its figures."""
        return [part for part in self.parts if isinstance(part, Exhibit)]


@dataclasses.dataclass(frozen=True)
class Cell:
    """An entry of a table that is sorted by something else than its text."""

    text: str
    """What is read."""
    value: float | None = None
    """What the column is sorted by; None or NaN sorts last."""


# --- pieces ----------------------------------------------------------------------------------------


def escape(text: Any) -> str:
    """Text as HTML, in quotes too."""
    return html.escape(str(text))


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def absent(sentence: str) -> str:
    """What is said, in HTML, where the plan does not ask for what a section shows."""
    return f'<p class="absent">{sentence}</p>'


def heading(text: str) -> str:
    """A heading within a section."""
    return f"<h3>{escape(text)}</h3>"


def bullets(items: Iterable[str]) -> str:
    """A list of plain texts."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>"


def details(summary: str, content: str) -> str:
    """HTML that is folded away behind a line of plain text."""
    return f"<details><summary>{escape(summary)}</summary>{content}</details>"


def code(text: str) -> str:
    """A line to type."""
    return f"<pre><code>{escape(text)}</code></pre>"


def table(
    headers: Sequence[str], rows: Iterable[Sequence[Any]], caption: str, footer: Sequence[Any] = ()
) -> str:
    """A table that scrolls in a box of its own and sorts by a click on a column's name.

    Args:
        headers: names of the columns, plain text.
        rows: entries, text or :class:`Cell`; the first of a row names it.
        caption: what the table holds, for those who do not see it.
        footer: a last row that stays last.
    """
    given = [list(row) for row in rows]
    # a column in which nothing stands is left out
    kept = [i for i in range(len(headers)) if any(row[i] != "" for row in [*given, footer] if row)]
    head = "".join(
        f'<th scope="col" aria-sort="none"><button type="button">{escape(headers[i])}</button></th>'
        for i in kept
    )
    body = "".join(_row([row[i] for i in kept]) for row in given)
    foot = f"<tfoot>{_row([footer[i] for i in kept])}</tfoot>" if footer else ""
    return (
        f'<div class="table" role="region" aria-label="{escape(caption)}" tabindex="0"><table>'
        f"{_caption(caption)}<thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table></div>"
    )


def facts(rows: Iterable[tuple[str, str]], caption: str) -> str:
    """Names with what they stand for, plain text."""
    body = "".join(f'<tr><th scope="row">{escape(k)}</th>{_cell(v)}</tr>' for k, v in rows)
    return (
        f'<div class="table" role="region" aria-label="{escape(caption)}" tabindex="0">'
        f'<table class="facts">{_caption(caption)}<tbody>{body}</tbody></table></div>'
    )


def film(name: str, content: bytes) -> str:
    """A film inlined: ``name`` is its file's name, whose ending says what it is (see :data:`MEDIA`)."""
    kind = MEDIA[name[name.rindex(".") :].lower()]
    data = f"data:{kind};base64,{base64.b64encode(content).decode()}"
    label = escape(name)
    if kind.startswith("image"):
        shown = f'<img src="{data}" alt="{label}">'
    else:
        shown = f'<video src="{data}" controls muted loop playsinline aria-label="{label}"></video>'
    return f'<figure class="film">{shown}<figcaption><span>videos/{label}</span></figcaption></figure>'


def _caption(text: str) -> str:
    # the heading or the line above says it to those who see
    return f'<caption><span class="unseen">{escape(text)}</span></caption>'


def _row(row: Sequence[Any]) -> str:
    first, *rest = row
    return f'<tr><th scope="row"{_value(first)}>{_text(first)}</th>{"".join(map(_cell, rest))}</tr>'


def _cell(content: Any) -> str:
    return f"<td{_value(content)}>{_text(content)}</td>"


def _value(content: Any) -> str:
    if not isinstance(content, Cell):
        return ""
    if content.value is None or math.isnan(content.value):
        return ' data-value=""'
    # as JavaScript writes numbers
    number = f"{content.value:.10g}".replace("inf", "Infinity")
    return f' data-value="{number}"'


def _text(content: Any) -> str:
    # an interval is never broken over two lines
    text = escape(content.text if isinstance(content, Cell) else content)
    return re.sub(r"\[[^\]]*\]", r'<span class="whole">\g<0></span>', text)


# --- the shell -------------------------------------------------------------------------------------


def page(title: str, marks: Sequence[str], sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    """The whole page.

    Args:
        title: plain text.
        marks: what the title says of the report's standing, for example ``incomplete``.
        sections: in order.
        notes: what stands under the title, sentences of plain text.
    """
    plain = escape(title + (f" ({', '.join(marks)})" if marks else ""))
    marked = "".join(f" <em>{escape(mark)}</em>" for mark in marks)
    below = "".join(f'<p class="note">{escape(note)}</p>' for note in notes)
    contents = "".join(
        f'<li><a href="#{s.anchor}"><span>{s.number or "·"}</span> {escape(s.title)}</a></li>'
        for s in sections
    )
    body = "\n".join(_section(s) for s in sections)
    # the script is let in by its hash, so that nothing that a name might smuggle in would run
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "media-src data:; base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{plain}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
        f"<header><h1>{escape(title)}{marked}</h1>{below}</header>\n"
        '<nav aria-label="Contents"><h2>Contents</h2>'
        f"<ol>{contents}</ol></nav>\n<main>\n{body}\n</main>\n<script>{SCRIPT}</script>\n</body>\n</html>\n"
    )


def _section(section: Section) -> str:
    number = f"<span>{section.number}</span> " if section.number else ""
    parts = (part.inline() if isinstance(part, Exhibit) else part for part in section.parts)
    look = f' class="{section.look}"' if section.look else ""
    return (
        f'<section id="{section.anchor}"{look}><h2><a href="#{section.anchor}">{number}'
        f"{escape(section.title)}</a></h2>{''.join(parts)}</section>"
    )
