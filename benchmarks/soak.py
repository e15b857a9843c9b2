"""``python -m benchmarks.soak [parts...]``: faults by the hundred, and what came of them (`make soak`).

Writes ``reliability.json`` after every finding and ``reliability.md`` from it; raises when it finds fault.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import tyro

import mtenvs
from benchmarks.faults import ROOT, Toll, can_mount, fill, harass, lose_nodes, planned
from benchmarks.record import machine
from harness import markdown
from harness.run import run_plan
from mtenvs.registry import ALL_FAMILIES

HEAD = """# Reliability, measured

Written by `make soak`: faults are injected into small plans that are trained by the command, each plan is
trained to its end, and its rows are compared, byte by byte, with those of the same plan that nothing
happened to. *Lost* are rows that differ or are not there, *surplus* those that are there and should not be.
"""


@dataclasses.dataclass(frozen=True)
class Size:
    """How much is done."""

    kills: int = 100
    """By SIGKILL, of one family's plan."""
    others: int = 10
    """Of each of the other families' plans."""
    interrupts: int = 20
    """By Ctrl-C, and again by SIGTERM."""
    disks: int = 20
    """That are full."""
    nodes: int = 20
    """Of a Ray cluster that are lost."""
    tasks: int = 10_000
    """Sampled of each family."""


QUICK = Size(kills=2, others=1, interrupts=1, disks=2, nodes=1, tasks=50)


Found = Iterator[dict[str, Any]]
"""Rows of a table, as they are found."""


def trained(family: str, directory: Path) -> Path:
    """A small plan that nothing happens to."""
    whole = planned(directory, family)
    run_plan(whole)
    return whole


def check(name: str, toll: Toll) -> dict[str, Any]:
    """What a fault has done, for the record.

    Raises:
        AssertionError: if anything was lost, or nothing was put to the test.
    """
    # many faults come before anything was saved; if nearly all did, resuming was not put to the test
    untested = not toll.rows or toll.resumed < toll.faults // 5
    if toll.lost or toll.surplus or toll.tracebacks or untested:
        raise AssertionError(f"{name}: {toll}")
    return {"what": name, **dataclasses.asdict(toll)}


def kills(size: Size, directory: Path) -> Found:
    """Ends the command and all its processes at once at random moments."""
    for number, family in enumerate(mtenvs.families()):
        whole = trained(family, directory / family / "whole")
        faults = size.others if number else size.kills
        toll = harass(whole, directory / family, faults, seed=number, seconds=_seconds(whole))
        yield check(f"kill -9, {family}", toll)


def _seconds(whole: Path) -> float:
    """That a plan took to train."""
    done = [json.loads(path.read_text()) for path in whole.glob("runs/*/done.json")]
    return sum(record["wall_seconds"] for record in done)


def interrupts(size: Size, directory: Path) -> Found:
    """Ends the command as a user or a cluster does, with the moments before it trains."""
    whole = trained("Biped", directory / "whole")
    for name, number in (("Ctrl-C", signal.SIGINT), ("SIGTERM", signal.SIGTERM)):
        toll = harass(whole, directory / name, size.interrupts, 1, number, _seconds(whole))
        if toll.slowest >= 5.0:
            raise AssertionError(f"{name}: took {toll.slowest:.1f} s to end")
        yield check(name, toll)


def disks(size: Size, directory: Path) -> Found:
    """Trains on disks that are full again and again."""
    if not can_mount():
        print("disks: file systems can be mounted by root on Linux only: left out")
        return
    whole = trained("Biped", directory / "whole")
    yield check("full disk", fill(whole, directory / "disks", size.disks, seed=0))


def nodes(size: Size, directory: Path) -> Found:
    """Takes nodes away from a cluster that trains."""
    whole = planned(directory / "whole", rollouts=12, cohort_runs=2)
    run_plan(whole)
    toll = lose_nodes(whole, directory / "copies", size.nodes, seed=0, seconds=_seconds(whole))
    yield check("node of a cluster", toll)


def fuzz(size: Size, directory: Path) -> Found:
    """Calls, command lines and files, valid and spoilt, by the thousand.

    Raises:
        subprocess.CalledProcessError: if a case was neither right nor clearly refused.
    """
    tests = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("tests/test_fuzz_*.py"))
    profile = [] if size is QUICK else ["--hypothesis-profile=soak"]
    command = [sys.executable, "-m", "pytest", "-q", "-n", "logical", *profile, *tests]
    subprocess.run(command, cwd=ROOT, env={**os.environ, "MTENVS_SOAK_OUT": str(directory)}, check=True)
    for path in sorted(directory.glob("*.json")):
        one = json.loads(path.read_text())
        yield {"what": one["test"], **{key: one[key] for key in ("cases", "accepted", "refused")}}


def physics(size: Size, directory: Path) -> Found:
    """Sampled bodies and those at the ends of their ranges, shaken with violent actions.

    Raises:
        AssertionError: if a bad number has left an environment.
    """
    for name in (*mtenvs.families(), ALL_FAMILIES):
        out = directory / f"{name}.json"
        words = [name, "--tasks", str(size.tasks), "--out", str(out)]
        # a process each: thousands of bodies have come and gone then
        subprocess.run([sys.executable, "-m", "benchmarks.soak_physics", *words], cwd=ROOT, check=False)
        (shaken,) = json.loads(out.read_text())["families"].values()
        if shaken["faults"]:
            raise AssertionError(f"{name}: {shaken['faults']}")
        yield {"what": name, **{key: shaken[key] for key in SHAKEN}}


SHAKEN = ("tasks", "control_steps", "episodes", "diverged", "largest_observation", "largest_speed")
"""What is recorded of shaken bodies."""
WORDS = {
    "cases": "cases",
    "accepted": "accepted, and right",
    "refused": "refused, in clear words",
    "tasks": "bodies",
    "control_steps": "control steps",
    "episodes": "episodes",
    "diverged": "diverged, and noticed",
    "largest_observation": "largest observation",
    "largest_speed": "largest speed, rad/s or m/s",
    "what": "what",
    "faults": "faults injected",
    "plans": "plans that ended",
    "resumed": "runs taken up again",
    "rows": "rows compared",
    "lost": "lost",
    "surplus": "surplus",
    "tracebacks": "tracebacks",
    "slowest": "slowest to end, s",
}
"""Headings of the page's tables."""
TITLES = {
    "kills": "Killed at random moments",
    "interrupts": "Asked to stop at random moments",
    "disks": "Full disks",
    "nodes": "Nodes lost",
    "fuzz": "Spoilt calls, command lines and files",
    "physics": "Violent actions on sampled bodies",
}


def page(known: Mapping[str, Any]) -> str:
    """The page for people, made of the record."""
    parts = [HEAD.rstrip()]
    for name in (name for name in TITLES if known.get(name)):
        found, made = known[name]["found"], known[name]["machine"]
        if not found:
            continue
        keys = list(found[0])
        lines = [[_text(row[key]) for key in keys] for row in found]
        packages = ", ".join(f"{key} {value}" for key, value in made["packages"].items() if value)
        parts += [
            f"\n## {TITLES[name]}\n",
            markdown.table([WORDS[key] for key in keys], lines),
            f"\n`python -m benchmarks.soak {name}`, {known[name]['minutes']:.0f} minutes; "
            f"{made['cpu']}, {made['cores']} cores; Python {made['python']}, {packages}.",
        ]
    return "\n".join(parts) + "\n"


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


Part = Callable[[Size, Path], Found]
PARTS: dict[str, Part] = {
    "kills": kills,
    "interrupts": interrupts,
    "disks": disks,
    "nodes": nodes,
    "fuzz": fuzz,
    "physics": physics,
}


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Injects faults by the hundred and writes what came of them."""

    parts: tyro.conf.Positional[tuple[str, ...]] = tuple(PARTS)
    """What to do."""
    quick: bool = False
    """A few of each: shows that it runs."""
    out: Path | None = None
    """Where to write; results, or runs/soak-quick with --quick."""


def main() -> None:
    """Does the chosen parts in turn."""
    arguments = tyro.cli(Arguments)
    # shells start what is in the background deaf to Ctrl-C, and it would hand that on to what it tries
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if unknown := [name for name in arguments.parts if name not in PARTS]:
        raise SystemExit(f"unknown part {unknown[0]!r}; valid: {', '.join(PARTS)}")
    out = arguments.out or ROOT / ("runs/soak-quick" if arguments.quick else "results")
    out.mkdir(parents=True, exist_ok=True)
    path = out / "reliability.json"
    known: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    for name in arguments.parts:
        print(f"== {name}", flush=True)
        before = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="mtenvs-soak-") as directory:
            found: list[dict[str, Any]] = []
            minutes = 0.0
            for row in PARTS[name](QUICK if arguments.quick else Size(), Path(directory)):
                found.append(row)
                minutes = (time.monotonic() - before) / 60
                known[name] = {"found": found, "minutes": round(minutes, 1), "machine": machine()}
                path.write_text(json.dumps(known, indent=1) + "\n")
                (out / "reliability.md").write_text(page(known))
        print(f"== {name} took {minutes:.1f} minutes", flush=True)
    print(f"figures: {out / 'reliability.md'}")


if __name__ == "__main__":
    main()
