"""``python -m benchmarks [names...] [--quick] [--out DIR]``, from the root of the repository."""

from __future__ import annotations

import dataclasses
import multiprocessing
import time
from pathlib import Path

import tyro

from benchmarks.parts import BENCHMARKS, run
from benchmarks.record import Store, table

DEFAULT = ("environments", "training", "architectures")


@dataclasses.dataclass(frozen=True)
class Arguments:
    """Measures speed and fidelity beside the peers, and writes them with the machine's description."""

    names: tyro.conf.Positional[tuple[str, ...]] = DEFAULT
    """What to run: environments, training, architectures, scaling, curves, everything, warp_curves,
    layout_pilot, physics_study, or a part of one, such as environments.bare."""
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
    context, failed = multiprocessing.get_context("spawn"), []
    for name in chosen:
        print(f"== {name}", flush=True)
        started = time.perf_counter()
        # a fresh interpreter each: a thousand worlds reserve so much memory that a peer cannot fork
        process = context.Process(target=run, args=(name, store))
        process.start()
        process.join()
        if process.exitcode:
            failed.append(name)
        result = store.load(name)
        if not process.exitcode and result and result["rows"]:
            print(table(result["rows"]))
        print(f"== {name} took {time.perf_counter() - started:.0f} s", flush=True)
    print(f"results and table: {out / 'README.md'}")
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
