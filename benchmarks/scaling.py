"""Training by a Ray cluster: from one worker to two here, and on paper to a thousand GPUs.

The paper's figures follow from what is measured here: bytes of a run's rows, bookmark and network, and the
time that the one thread which stores them spends on a cohort, a run and a delivery.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import tempfile
import time
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from baselines.registry import describe_learner
from benchmarks.record import Store, compare, interleave, spread
from harness.bookmark import SAVE_SECONDS
from harness.plan import PRESETS, make_plan, write_plan
from harness.run import MOST_RUNS, MOST_STEPS, run_plan
from harness.shipping import Delivery, Receiver, belongings
from harness.store import Store as Rows

FAMILY = "Biped"
WORKERS = (1, 2)
GPUS = (1, 10, 100, 1000)
GPU_SPEED = 1e6
"""Control steps a second that a GPU trains, all runs of its cohort together: the project's goal."""
NETWORK, DISK = 1.25e9, 5e8
"""Bytes a second that the machine with the store receives (10 Gbit/s) and writes: assumed."""


@dataclasses.dataclass
class Seen:
    """What the machine with the store saw of a training."""

    first: float = 0.0
    """When the first cohort began, as of ``time.perf_counter``: what comes before is Python's imports."""
    deliveries: int = 0
    """Number that came."""
    received: int = 0
    """Bytes of files that came."""
    bookmark: float = 0.0
    """Bytes of a bookmark, to each of its runs."""
    begins: float = 0.0
    """Seconds in which cohorts were given to Ray."""
    ends: float = 0.0
    """Seconds in which the last deliveries of cohorts were fetched and stored."""
    others: float = 0.0
    """The same of all other deliveries."""


@contextlib.contextmanager
def watched() -> Iterator[Seen]:
    """Looks at what comes from nodes meanwhile."""
    from harness.ray_workers import RayWorkers

    seen, take, read, begin = Seen(), Receiver.take, RayWorkers._read, RayWorkers._begin
    ended = False

    def take_seen(receiver: Receiver, delivery: Delivery) -> None:
        nonlocal ended
        seen.first = seen.first or time.perf_counter()
        seen.deliveries += 1
        seen.received += delivery.size
        ended = delivery.end is not None
        if delivery.bookmark:
            seen.bookmark = sum(map(len, delivery.bookmark.values())) / len(receiver.cohort)
        take(receiver, delivery)

    def read_seen(workers: RayWorkers, job: Any) -> None:
        nonlocal ended
        ended, began = False, time.perf_counter()
        read(workers, job)
        took = time.perf_counter() - began
        if ended:
            seen.ends += took
        else:
            seen.others += took

    def begin_seen(workers: RayWorkers, job: Any) -> None:
        began = time.perf_counter()
        begin(workers, job)
        seen.begins += time.perf_counter() - began

    # not public: a benchmark may look
    with (
        unittest.mock.patch.multiple(RayWorkers, _read=read_seen, _begin=begin_seen),
        unittest.mock.patch.object(Receiver, "take", take_seen),
    ):
        yield seen


@contextlib.contextmanager
def cluster(workers: int) -> Iterator[str]:
    """A cluster of a head that trains nothing and nodes of a core each; its address."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(workers):
            made.add_node(num_cpus=1)
        yield made.address
    finally:
        made.shutdown()


@dataclasses.dataclass(frozen=True)
class Figures:
    """What a run and its cohort cost the machine with the store."""

    rows: float
    """Bytes of a run's rows and mark of completion."""
    network: float
    """Bytes of a network that is kept."""
    bookmark: float
    """Bytes of a bookmark, to each run."""
    per_cohort: float
    """Seconds to give a cohort to Ray."""
    per_run: float
    """Seconds to fetch and store what a run leaves."""
    per_delivery: float
    """Seconds to fetch and store what comes meanwhile, each second and cohort."""


def paper(
    figures: Figures, gpus: int, runs: int, steps: int, saved: float = SAVE_SECONDS
) -> dict[str, Any]:
    """What so many GPUs would ask of the machine with the store, each second.

    Args:
        figures: measured.
        gpus: number of them, each with a cohort at all times.
        runs: of a cohort.
        steps: control steps of a run.
        saved: seconds between two bookmarks.
    """
    seconds = runs * steps / GPU_SPEED
    cohorts = gpus / seconds
    ended = cohorts * runs
    bookmarks = gpus * runs * figures.bookmark / saved if seconds > saved else 0.0
    # every run begins from a network and leaves one, at most
    received = ended * (figures.rows + figures.network) + bookmarks
    sent = ended * figures.network
    work = cohorts * figures.per_cohort + ended * figures.per_run + gpus * figures.per_delivery
    shares = {"thread": work, "network": max(received, sent) / NETWORK, "disk": received / DISK}
    most = max(shares, key=shares.__getitem__)
    return {
        "gpus": gpus,
        "runs_per_second": ended,
        "stored_per_run": figures.rows + figures.network,
        "moved_per_run": (received + sent) / ended,
        "received_per_second": received,
        "sent_per_second": sent,
        "thread_per_run": work / ended,
        "shares": shares,
        "limit": most,
        "gpus_at_limit": gpus / shares[most],
    }


def scaling(store: Store) -> None:
    """Measures one plan with one worker and two, and works out what many would ask."""
    seeds, budget, repeats = (4, 4_000, 1) if store.quick else (8, 100_000, 3)
    preset = dataclasses.replace(
        PRESETS["standard"],
        exploratory=True,
        folds=(0,),
        arms=("scratch", "transfer"),
        finetunes=1,
        finetune_folds=(),
        seeds=seeds,
        cohort_runs=seeds // 4,
        budget=budget,
    )
    learner = dataclasses.asdict(describe_learner("ppo", FAMILY))
    plan = make_plan(FAMILY, preset, learner, "scaling")
    runs, cohorts = plan["runs"], plan["cohorts"]
    trained = sum(run["steps"] for run in runs)
    watches: list[Seen] = []
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch) / "plan"

        def train(workers: int) -> float:
            shutil.rmtree(directory, ignore_errors=True)
            write_plan(plan, directory)
            with cluster(workers) as address, watched() as seen:
                run_plan(directory, executor="ray", address=address, save_every=2.0)
                watches.append(seen)
                return trained / (time.perf_counter() - seen.first)

        speeds = interleave({str(n): lambda n=n: train(n) for n in WORKERS}, repeats)
        stored = Rows(directory)
        left = belongings(directory, [run["id"] for run in runs])
        kept = list((directory / "checkpoints").iterdir())
        network = sum(path.stat().st_size for path in (directory / "checkpoints").rglob("*.*"))
        figures = Figures(
            rows=sum(map(len, left.values())) / len(stored.status()),
            network=network / len(kept),
            bookmark=max(seen.bookmark for seen in watches),
            per_cohort=spread([seen.begins / len(cohorts) for seen in watches])["median"],
            per_run=spread([seen.ends / len(runs) for seen in watches])["median"],
            per_delivery=spread([s.others / (s.deliveries - len(cohorts)) for s in watches])["median"],
        )
    row = compare(
        f"{len(cohorts)} cohorts of {len(cohorts[0])} runs, {WORKERS[1]} Ray workers of a core",
        "1 Ray worker",
        speeds[str(WORKERS[1])],
        speeds[str(WORKERS[0])],
        note="from when the first cohort begins to when all is in the store",
    )
    budgets = {name: PRESETS[name].budget for name in ("standard", "wide")}
    shapes = {name: (min(MOST_RUNS, MOST_STEPS // steps), steps) for name, steps in budgets.items()}
    on_paper = {name: [paper(figures, gpus, *shape) for gpus in GPUS] for name, shape in shapes.items()}
    store.save(
        "scaling",
        [row],
        figures=dataclasses.asdict(figures),
        paper=on_paper,
        text=text(figures, shapes, on_paper),
    )
    print(text(figures, shapes, on_paper))


def text(
    figures: Figures, shapes: dict[str, tuple[int, int]], on_paper: dict[str, list[dict[str, Any]]]
) -> str:
    """The calculation as Markdown."""
    lines = [
        "## On paper to 1,000 GPUs",
        "",
        f"Measured for each run: {_size(figures.rows)} of rows, {_size(figures.network)} of network, "
        f"{_size(figures.bookmark)} of bookmark; the plan goes to each node once. Time of the one "
        f"thread that stores: {1e3 * figures.per_cohort:.1f} ms a cohort, "
        f"{1e3 * figures.per_run:.1f} ms a run, {1e3 * figures.per_delivery:.1f} ms a delivery. "
        f"Assumed: {GPU_SPEED:,.0f} steps/s trained by a GPU, which is a goal, a delivery of each a "
        f"second, a bookmark every {SAVE_SECONDS:.0f} s, {8e-9 * NETWORK:.0f} Gbit/s, a disk that writes "
        f"{1e-6 * DISK:.0f} MB/s. Every run begins from a network and leaves one, which is more "
        "than plans do.",
        "",
        "| cohorts | GPUs | runs/s | stored, a run | moved, a run | received/s | sent/s | thread, a run "
        "| busiest | GPUs that it bears |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, rows in on_paper.items():
        runs, steps = shapes[name]
        for row in rows:
            limit = row["limit"]
            lines.append(
                f"| {name}: {runs} x {steps:,} steps | {row['gpus']:,} | {row['runs_per_second']:,.1f} | "
                f"{_size(row['stored_per_run'])} | {_size(row['moved_per_run'])} | "
                f"{_size(row['received_per_second'])} | {_size(row['sent_per_second'])} | "
                f"{1e3 * row['thread_per_run']:.1f} ms | {limit}, {row['shares'][limit]:.1%} | "
                f"{row['gpus_at_limit']:,.0f} |"
            )
    return "\n".join(lines) + "\n"


def _size(count: float) -> str:
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"
