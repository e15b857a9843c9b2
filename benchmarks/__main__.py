"""``python -m benchmarks [names...] [--quick] [--out DIR]``, from the root of the repository."""

from __future__ import annotations

import dataclasses
import importlib
import time
from pathlib import Path

import tyro

from benchmarks.record import Store, table

# name to module and function; a name's first part selects all that begin with it
BENCHMARKS = {
    "environments.bare": "environments:bare",
    "environments.threads": "environments:threads",
    "environments.vectors": "environments:vectors",
    "environments.walker2d": "environments:walker2d",
    "training.peers": "training:peers",
    "training.runs": "training:runs",
    "curves": "curves:curves",
    "physics_study.speed": "physics_study:speed",
    "physics_study.training": "physics_study:training",
    "physics_study.closeness": "physics_study:closeness",
}
DEFAULT = ("environments", "training")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures speed and fidelity beside the peers, and writes them with the machine's description."""

    names: tyro.conf.Positional[tuple[str, ...]] = DEFAULT
    """What to run: environments, training, curves, physics_study, or a part such as environments.bare."""
    quick: bool = False
    """Tiny sizes: shows that everything runs, measures nothing."""
    out: Path | None = None
    """Directory for the results; results/benchmarks, or runs/benchmarks-quick with --quick."""


def main() -> None:
    """Runs the chosen benchmarks in turn."""
    arguments = tyro.cli(Arguments)
    chosen: list[str] = []
    for name in arguments.names:
        matches = [b for b in BENCHMARKS if b == name or b.startswith(f"{name}.")]
        if not matches:
            raise SystemExit(f"unknown benchmark {name!r}; valid: {', '.join(BENCHMARKS)}, or a first part")
        chosen += [m for m in matches if m not in chosen]
    out = arguments.out or Path("runs/benchmarks-quick" if arguments.quick else "results/benchmarks")
    store = Store(out, arguments.quick)
    for name in chosen:
        module, function = BENCHMARKS[name].split(":")
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        # imported where used: each needs other packages
        getattr(importlib.import_module(f"benchmarks.{module}"), function)(store)
        result = store.load(name)
        if result and result["rows"]:
            print(table(result["rows"]))
        print(f"== {name} took {time.perf_counter() - started:.0f} s", flush=True)
    print(f"results and table: {out / 'README.md'}")


if __name__ == "__main__":
    main()
