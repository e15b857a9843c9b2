"""Tables of the pages that are written from records, and where they stand in them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in GitHub's Markdown, without a line end after its last row.

    Args:
        header: names of the columns.
        rows: the cells of each row, Markdown themselves; a ``|`` in one stands as it is.
    """
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def between(text: str, opening: str, closing: str, content: str, what: str) -> str:
    """The text with other content between two marks.

    Args:
        text: of the page.
        opening: mark before the content.
        closing: mark after it.
        content: what is to stand there.
        what: that is, for the message.

    Raises:
        ValueError: if the marks are not there, once each and in order.
    """
    before, opened, rest = text.partition(opening)
    _, closed, after = rest.partition(closing)
    if not (opened and closed) or opening in rest or closing in before + after:
        raise ValueError(f"{what} belongs between {opening.strip()!r} and {closing.strip()!r}, once")
    return "".join([before, opening, content, closing, after])
