"""``python -m benchmarks.performance``: renews the table of goals in ``docs/performance.md``."""

from __future__ import annotations

import json
from pathlib import Path

from harness import markdown

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "performance.md"
RESULTS = ROOT / "results" / "benchmarks"
MARKS = ("<!-- goals -->\n", "<!-- /goals -->\n")
"""What stands before and after the table in the page."""


def goals_table(results: Path = RESULTS) -> str:
    """Every stored comparison that has a goal, as a Markdown table, with the file that it is read from."""
    rows = []
    for path in sorted(results.glob("*.json")):
        result = json.loads(path.read_text(encoding="utf-8"))
        for row in result.get("rows", []):
            if row["goal"] is None:
                continue
            if result["quick"]:
                raise ValueError(
                    f"{path.name} is of a smoke run, which measures nothing: run it without --quick"
                )
            ratio, verdict = row["ratio"], row["met"] if row["met"] == "met" else f"**{row['met']}**"
            told = f"{ratio['median']:.2f} [{ratio['min']:.2f}, {ratio['max']:.2f}]"
            rows.append((row["what"], row["against"], told, f"{row['goal']:g}", verdict, f"`{path.name}`"))
    return markdown.table(("what", "against", "ratio", "goal", "", "stored in"), rows)


def with_goals(text: str) -> str:
    """The text of the page with the present table between its marks.

    Raises:
        ValueError: if the marks are not there, once each and in order.
    """
    return markdown.between(text, *MARKS, f"\n{goals_table()}\n\n", "the table of goals")


if __name__ == "__main__":
    PAGE.write_text(with_goals(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
