"""Puts the sections together and writes the page with its figures."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from harness.report import (
    sections_arms,
    sections_comparability,
    sections_costs,
    sections_curves,
    sections_distance,
    sections_facts,
    sections_joint,
    sections_levels,
    sections_opening,
    sections_sources,
)
from harness.report.agent import standing
from harness.report.analysis import Analysis, analyse
from harness.report.page import Section, page
from harness.store import Store, owned


def sections(analysis: Analysis, directory: Path) -> list[Section]:
    """All sections of the report, in its order.

    Args:
        analysis: the numbers.
        directory: the experiment's directory, for its videos.
    """
    main = {"joint": _joint, "dose": _dose, "matrix": _matrix}.get(analysis.kind, _folds)
    found = [
        sections_opening.flow_of_runs(analysis),
        *main(analysis),
        sections_facts.videos(analysis, directory),
        sections_facts.counted(analysis),
        sections_facts.reference(analysis),
        sections_facts.tasks(analysis),
        sections_facts.rebuild(analysis),
    ]
    # the protocol numbers the sections of a leave-one-out; of other kinds some would be missing
    return found if main is _folds else [dataclasses.replace(s, number=None) for s in found]


def _folds(analysis: Analysis) -> list[Section]:
    return [
        sections_opening.headline(analysis),
        *sections_opening.read_first(analysis),
        sections_opening.per_task(analysis),
        sections_curves.learning_curves(analysis),
        sections_curves.by_threshold(analysis),
        sections_curves.profile(analysis),
        sections_curves.survival(analysis),
        sections_levels.levels(analysis),
        sections_arms.told_or_not(analysis),
        sections_joint.absent_joint(analysis),
        sections_costs.break_even(analysis),
        sections_costs.variance(analysis),
        sections_arms.sensitivity(analysis),
        sections_facts.fairness(analysis),
        sections_comparability.comparability_panel(analysis),
        sections_distance.distance(analysis),
    ]


def _joint(analysis: Analysis) -> list[Section]:
    result = sections_joint.analyse_joint(analysis)
    return [
        sections_joint.headline(analysis, result),
        *sections_opening.read_first(analysis),
        sections_joint.learning_curves(analysis, result),
        sections_joint.joint_against_separate(analysis, result),
        sections_facts.fairness(analysis),
        sections_joint.joint_comparability(analysis, result),
    ]


def _dose(analysis: Analysis) -> list[Section]:
    return [
        *sections_opening.read_first(analysis),
        sections_sources.dose(analysis),
        sections_curves.learning_curves(analysis),
        sections_facts.fairness(analysis),
    ]


def _matrix(analysis: Analysis) -> list[Section]:
    return [
        *sections_opening.read_first(analysis),
        sections_sources.matrix(analysis),
        sections_curves.learning_curves(analysis),
        sections_facts.fairness(analysis),
    ]


def write_report(directory: str | os.PathLike[str]) -> Path:
    """Writes ``DIR/report/index.html`` and, in ``DIR/report/figures/``, each figure with its data.

    Other SVG and CSV files in ``figures/`` are of an earlier report and removed.

    Args:
        directory: the experiment's directory; only its plan, rows and videos are read.

    Returns:
        Path of the page.

    Raises:
        StoreError: if the directory holds no readable plan or rows, or its plan was edited after it was
            frozen: the page would print a hash that is not that of what it shows.
        ValueError: if the plan lacks a task or a reference score that the rows need.
    """
    Store(directory).check_frozen()
    analysis = analyse(directory)
    shown = sections(analysis, Path(directory))
    figures = owned(Path(directory), Path(directory) / "report" / "figures")
    figures.mkdir(parents=True, exist_ok=True)
    files: dict[str, bytes] = {}
    for exhibit in (e for section in shown for e in section.exhibits):
        files |= {f"{exhibit.name}.svg": exhibit.svg(), f"{exhibit.name}.csv": exhibit.csv()}
    for name, content in files.items():
        write_whole(figures / name, content)
    # a figure that an earlier report had would be taken for one of this
    for path in figures.iterdir():
        if path.suffix in (".svg", ".csv") and path.name not in files:
            path.unlink()
    path = figures.parent / "index.html"
    whole = page(analysis.title, analysis.marks, shown, standing(analysis.plan, analysis.physics))
    write_whole(path, whole.encode())
    return path


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader never sees half of it, in a link's place rather than through it."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # of a killed command, or a link of a stranger's
    part.write_bytes(content)
    os.replace(part, path)
