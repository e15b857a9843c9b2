"""Rebuilds what is published, from stored rows alone: reports with their figures, and tables in Markdown.

Nothing is trained and nothing is asked of a network. With the same versions of what draws, bytes are those
that were there.
"""

from __future__ import annotations

import dataclasses
import multiprocessing
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

from harness import findings, markdown
from harness.compare import leaderboard
from harness.report import write_report
from harness.report.write import write_whole
from harness.store import COMPLETE, Store

BEGIN, END = "<!-- leaderboard -->", "<!-- /leaderboard -->"
"""Lines of a Markdown file between which the table of all plans beside and below it stands."""


@dataclasses.dataclass(frozen=True)
class Rebuilt:
    """What was rebuilt."""

    pages: Sequence[Path]
    """Reports, Markdown files and their figures."""
    untrained: Sequence[Path]
    """Directories of plans of which nothing is trained, and so nothing is reported."""
    failed: Mapping[Path, str]
    """Directories of plans that cannot be reported and Markdown files that cannot be filled in, and why."""


def plans_below(directory: Path) -> list[Path]:
    """Directories of all plans in a directory or below it, sorted; none in hidden ones.

    Raises:
        ValueError: if there is none.
    """
    found = [path.parent for path in _seen_below(directory, "plan.json")]
    if not found:
        raise ValueError(f"no plan.json in {directory} or below it; name a directory of experiments")
    return found


def _seen_below(directory: Path, pattern: str) -> list[Path]:
    found = sorted(directory.rglob(pattern))
    return [p for p in found if not any(part.startswith(".") for part in p.relative_to(directory).parts)]


def rebuild(directory: Path, processes: int = 1, done: Callable[[], object] = lambda: None) -> Rebuilt:
    """Rebuilds all reports below a directory, and the tables and figures of Markdown files there.

    Args:
        directory: where to look.
        processes: reports and Markdown files at a time, each in a process of its own if more than one.
        done: called when a plan is done with.

    Raises:
        ValueError: if there is no plan.
    """
    plans = plans_below(directory)
    texts = _seen_below(directory, "*.md")
    outcomes: dict[Path, list[Path] | str] = {}

    def keep(path: Path, outcome: list[Path] | str) -> None:
        outcomes[path] = outcome
        if path in plans:
            done()

    # what a Markdown file is filled in from are rows too, not reports; the one that shows several plans
    # takes longest, so that it is begun first
    jobs = [*((_text, path) for path in texts), *((_report, path) for path in plans)]
    if processes == 1:
        for job, path in jobs:
            keep(path, job(path))
    else:
        # not forked: a copy of this process would hold locks of threads that it does not have
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(processes, len(jobs)), context) as pool:
            futures = {pool.submit(job, path): path for job, path in jobs}
            for future in as_completed(futures):
                keep(futures[future], future.result())
    pages: list[Path] = []
    failed: dict[Path, str] = {}
    for path in (*plans, *texts):
        outcome = outcomes[path]
        if isinstance(outcome, str):
            failed[path] = outcome
        else:
            pages += outcome
    return Rebuilt(pages, [path for path in plans if not outcomes[path]], failed)


def _report(directory: Path) -> list[Path] | str:
    """Writes a plan's report; its page, or why there is none: nothing where nothing is trained."""
    try:
        if not any(status in (*COMPLETE, "failed") for status in Store(directory).status().values()):
            return []
        return [write_report(directory)]
    except ValueError as error:  # what is told of one does not keep the others from being made
        return str(error)


def _text(path: Path) -> list[Path] | str:
    """Fills in a Markdown file; what was written, or why nothing is."""
    try:
        text = path.read_text(encoding="utf-8")
        written = []
        if BEGIN in text or END in text:
            write_whole(path, with_leaderboard(text, path).encode())
            written.append(path)
        return [*written, *findings.fill(path)]
    except ValueError as error:
        return str(error)


def with_leaderboard(text: str, path: Path) -> str:
    """The text of a Markdown file with the table of the plans beside and below it, between its marks.

    Args:
        text: of the file.
        path: of the file.

    Raises:
        ValueError: if the marks are not there once each, in order.
    """
    table = leaderboard(path.parent, check=lambda plan: Store(plan).check_frozen()).markdown()
    return markdown.between(text, f"{BEGIN}\n", f"{END}\n", f"\n{table}\n\n", f"{path}: the leaderboard")
