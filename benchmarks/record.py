"""How a figure is taken, kept and shown.

Absolute speeds differ from machine to machine and hour to hour, so every comparison is made of
interleaved repetitions (A B A B ...) and given as the median of the pairwise ratios.
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGES = (
    "mtenvs",
    "mujoco",
    "mujoco_warp",
    "numpy",
    "gymnasium",
    "torch",
    "stable_baselines3",
    "envpool",
)
README_HEAD = """# Speed and fidelity, measured

Written by `python -m benchmarks`. Each ratio is the median of the pairwise ratios of interleaved
repetitions (A B A B ...), least and greatest in brackets; absolute speeds are medians on the machine
named below the tables and mean little elsewhere. Goals are those the project set itself beforehand.
"""


@functools.cache
def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "?")


def machine() -> dict[str, Any]:
    """What a reader must know of the machine to place a figure."""
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "os": platform.platform(),
        "python": platform.python_version(),
        "packages": versions,
        # other work on the cores spoils a figure: the reader can see whether there was any
        "load_average": list(os.getloadavg()),
    }


def interleave(sides: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Measures all sides in turn, ``repeats`` times.

    Args:
        sides: name to a function that does some work and returns its steps per second.
        repeats: rounds; one more is made first and thrown away, as caches and pools are still cold.

    Returns:
        Steps per second of every side, round by round.
    """
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    for round_ in range(repeats + 1):
        for name, measure in sides.items():
            speed = measure()
            if round_:
                speeds[name].append(speed)
    return speeds


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, least and greatest."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table: one ratio beside its goal."""

    what: str
    """What is measured."""
    against: str
    """What it is compared with."""
    ours: dict[str, float]
    """Spread of our steps per second."""
    theirs: dict[str, float]
    """Spread of theirs."""
    ratio: dict[str, float]
    """Spread of the pairwise ratios."""
    goal: float | None = None
    """Least ratio that meets the goal; ``None`` where none was set."""
    substeps: tuple[int, int] | None = None
    """Physics steps in an environment step, ours and theirs."""
    unit: str = "environment steps/s"
    """Of ``ours`` and ``theirs``."""
    note: str = ""
    """What a reader should know."""

    @property
    def met(self) -> str:
        """``"met"``, ``"not met"`` or ``""``."""
        if self.goal is None:
            return ""
        return "met" if self.ratio["median"] >= self.goal else "not met"


def compare(what: str, against: str, ours: Sequence[float], theirs: Sequence[float], **more: Any) -> Row:
    """Makes a row of two series that were measured in turn."""
    ratio = spread([a / b for a, b in zip(ours, theirs, strict=True)])
    return Row(what, against, spread(ours), spread(theirs), ratio, **more)


@dataclasses.dataclass(frozen=True)
class Store:
    """Where results go: one JSON file each, written whole as soon as it is known."""

    out: Path
    """Directory."""
    quick: bool
    """Tiny sizes: shows that everything runs, measures nothing."""

    def path(self, key: str) -> Path:
        """File of a result."""
        return self.out / f"{key}.json"

    def load(self, key: str) -> dict[str, Any] | None:
        """A result that was kept before, or ``None``."""
        return json.loads(self.path(key).read_text()) if self.path(key).is_file() else None

    def save(self, key: str, rows: Sequence[Row] = (), **facts: Any) -> None:
        """Keeps a result with the machine's description, prints its rows and rewrites the README."""
        whole = {
            "machine": machine(),
            "command": "python -m " + " ".join([Path(sys.argv[0]).parent.name, *sys.argv[1:]]),
            "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "quick": self.quick,
            "rows": [{**dataclasses.asdict(row), "met": row.met} for row in rows],
            **facts,
        }
        self.out.mkdir(parents=True, exist_ok=True)
        part = self.path(key).with_suffix(".part")
        part.write_text(json.dumps(whole, indent=1) + "\n")
        os.replace(part, self.path(key))
        (self.out / "README.md").write_text(self.readme())

    def readme(self) -> str:
        """All results so far as Markdown."""
        results = {p.stem: json.loads(p.read_text()) for p in sorted(self.out.glob("*.json"))}
        parts = [README_HEAD]
        if any(r["quick"] for r in results.values()):
            parts.append("**A smoke run with tiny sizes: the figures below measure nothing.**\n")
        rows = [row for result in results.values() for row in result["rows"]]
        if rows:
            parts.append(table(rows))
        notes = [f"- {row['what']} / {row['against']}: {row['note']}" for row in rows if row["note"]]
        if notes:
            parts.append("\n".join(notes) + "\n")
        for result in results.values():
            if "text" in result:  # a section of the benchmark's own
                parts.append(result["text"])
        parts.append("## Machine and command of each result\n")
        for key, result in results.items():
            m = result["machine"]
            packages = ", ".join(f"{k} {v}" for k, v in m["packages"].items() if v)
            parts.append(
                f"- `{key}.json`: `{result['command']}`, {result['finished']}; {m['cpu']}, {m['cores']} "
                f"cores, {m['os']}, Python {m['python']}, {packages}; load average at the end "
                f"{m['load_average'][0]:.1f}"
            )
        return "\n".join(parts) + "\n"


def _speed(speed: Mapping[str, float], substeps: int | None) -> str:
    physics = f" ({speed['median'] * substeps:,.0f})" if substeps else ""
    return f"{speed['median']:,.0f}{physics}"


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a Markdown table."""
    lines = [
        "| what | against | ours, steps/s (physics steps/s) | theirs | ratio | goal | |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio, (a, b) = row["ratio"], row["substeps"] or (None, None)
        goal = "" if row["goal"] is None else f"{row['goal']:g}x"
        lines.append(
            f"| {row['what']} | {row['against']} | {_speed(row['ours'], a)} | {_speed(row['theirs'], b)} | "
            f"**{ratio['median']:.2f}x** [{ratio['min']:.2f}, {ratio['max']:.2f}] | {goal} | {row['met']} |"
        )
    return "\n".join(lines) + "\n"
