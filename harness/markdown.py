"""Tables of the pages that are written from records."""

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
