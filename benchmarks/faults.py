"""Small plans and what can happen to them: tools of the tests and of the soak (``benchmarks/soak.py``)."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mtenvs
from baselines.registry import describe_learner
from harness.__main__ import INTERRUPTED
from harness.lock import holder
from harness.plan import PRESETS, make_plan, write_plan
from harness.store import Store

ROOT = Path(__file__).parents[1]
EARLY = 1 / 8
"""Of the moments at which a command is ended, those before it trains."""
SAVE_SECONDS = 0.2
"""Between two bookmarks, so that what is killed has some."""


def planned(directory: Path, family: str = "Biped", rollouts: int = 4, **changes: object) -> Path:
    """Writes a plan of one fold that trains within seconds; where it is.

    Args:
        directory: of the plan.
        family: whose tasks.
        rollouts: of the pretraining; learning takes half as many more.
        changes: other settings of the preset.
    """
    learner = describe_learner("ppo", family)
    tasks = len(mtenvs.tasks(family))
    rollout = learner.rollout * (tasks - 1)
    preset = dataclasses.replace(
        PRESETS["quick"],
        folds=(tasks - 3,),
        seeds=2,
        budget=(rollouts + rollouts // 2) * rollout,
        pretrain_budget=rollouts * rollout,
        worlds_per_run=tasks - 1,
        checkpoints=4,
        episodes=2,
        first_episodes=100,
    )
    preset = dataclasses.replace(preset, **changes)  # type: ignore[arg-type]
    return write_plan(make_plan(family, preset, dataclasses.asdict(learner), "quick"), directory).parent


def begun(whole: Path, directory: Path) -> Path:
    """The same plan in another directory, of which nothing is trained."""
    directory.mkdir(parents=True, exist_ok=True)
    shutil.copy(whole / "plan.json", directory)
    return directory


def trains(directory: Path) -> bool:
    """Whether a process trains here; the files of locks outlive one that was killed."""
    return any(holder(path) for path in directory.glob("locks/*"))


def rows(directory: Path) -> dict[str, bytes]:
    """The rows of every run of a plan, as they are stored."""
    return {path.parent.name: path.read_bytes() for path in sorted(directory.glob("runs/*/rows.jsonl"))}


def interruptions(directory: Path) -> int:
    """How often trainings of a finished plan were taken up again, summed over runs."""
    return sum(json.loads(path.read_text())["interruptions"] for path in directory.glob("runs/*/done.json"))


def command(*words: object) -> list[str]:
    """How the command line is called, with these words."""
    return [sys.executable, "-m", "harness", *map(str, words)]


def start(*words: object, output: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
    """Starts the command line in a session of its own, so that it can be killed with all its processes."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "COLUMNS": "1000"}
    return subprocess.Popen(
        command(*words),
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


@dataclasses.dataclass
class Toll:
    """What faults have done."""

    faults: int = 0
    """That were injected while the command ran."""
    plans: int = 0
    """That were trained to their end in spite of them."""
    resumed: int = 0
    """Trainings that were taken up again, summed over runs."""
    rows: int = 0
    """That these plans have, and are to have."""
    lost: int = 0
    """Rows of a plan that nothing happened to which one of these lacks, or has otherwise."""
    surplus: int = 0
    """Rows that one of these has and that plan has not, or that it has twice."""
    tracebacks: int = 0
    """Commands that ended in one."""
    slowest: float = 0.0
    """Seconds that the slowest command took to end after its fault."""

    def compare(self, whole: Path, directory: Path) -> None:
        """Counts what a finished plan lacks, or has too much."""
        expected, found = rows(whole), rows(directory)
        for run_id in {*expected, *found}:
            wanted = expected.get(run_id, b"").splitlines()
            there = found.get(run_id, b"").splitlines()
            self.rows += len(wanted)
            self.lost += len({*wanted} - {*there})
            self.surplus += len(there) - len({*wanted} & {*there})
        self.plans += 1
        self.resumed += interruptions(directory)


def harass(
    whole: Path,
    directory: Path,
    faults: int,
    seed: int,
    number: signal.Signals = signal.SIGKILL,
    seconds: float = 3.0,
) -> Toll:
    """Trains copies of a plan by the command, which is ended again and again at random moments.

    One in eight of these is before training, while the command is still beginning.

    Args:
        whole: the plan, trained undisturbed.
        directory: where copies are made; each goes when it was compared.
        faults: how often the command is to be ended.
        seed: of the moments.
        number: the signal that ends it: SIGKILL for it and all its processes at once, others as a user or
            a cluster sends them.
        seconds: of training within which it is ended.

    Returns:
        What came of it.
    """
    rng, toll = random.Random(seed), Toll()
    while toll.faults < faults:
        copy = begun(whole, directory / str(toll.plans))
        while True:
            # one process, or as many as there are cores
            some = ["--processes", 1] if rng.random() < 0.5 else []
            process = start("run", copy, "--save-every", SAVE_SECONDS, *some, output=subprocess.PIPE)
            moment = rng.uniform(0.0, seconds)
            if rng.random() >= EARLY:
                while process.poll() is None and not trains(copy):
                    time.sleep(0.05)
            last = toll.faults == faults  # this one may end
            try:
                text = process.communicate(timeout=None if last else moment)[0]
            except subprocess.TimeoutExpired:
                began = trains(copy)
                if number == signal.SIGKILL and rng.random() < 0.5:
                    process.kill()  # its processes are to end by themselves
                else:
                    os.killpg(process.pid, number)
                before = time.monotonic()
                text = process.communicate()[0]
                if number != signal.SIGKILL and began and process.returncode:
                    stopped = process.returncode == INTERRUPTED and "Go on with: mtenvs run" in text
                    if not stopped or "failed" in Store(copy).status().values():
                        raise AssertionError(f"{copy}: ended with {process.returncode}: {text}") from None
                toll.slowest = max(toll.slowest, time.monotonic() - before)
                toll.faults += 1
                toll.tracebacks += "Traceback" in text
                continue
            if process.returncode != 0:
                raise AssertionError(f"{copy}: ended with {process.returncode}: {text}")
            break
        toll.compare(whole, copy)
        shutil.rmtree(copy)
    return toll


def lose_nodes(whole: Path, directory: Path, faults: int, seed: int, seconds: float) -> Toll:
    """Trains copies of a plan on a Ray cluster of two nodes, of which one is lost again and again.

    Args:
        whole: the plan, trained undisturbed by this machine.
        directory: where copies are made.
        faults: how often a node is lost; another one joins each time.
        seed: of the moments and of which node it is.
        seconds: of training after which it is lost, at most.

    Returns:
        What came of it.
    """
    from ray.cluster_utils import Cluster

    rng, toll = random.Random(seed), Toll()
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1), cluster.add_node(num_cpus=1)]
        while toll.faults < faults:
            copy = begun(whole, directory / str(toll.plans))
            ray = ["--executor", "ray", "--address", cluster.address, "--save-every", SAVE_SECONDS]
            process = start("run", copy, *ray, output=subprocess.PIPE)
            while process.poll() is None and not trains(copy):
                time.sleep(0.05)
            while toll.faults < faults:
                time.sleep(rng.uniform(0.0, seconds))
                if process.poll() is not None:
                    break
                cluster.remove_node(nodes.pop(rng.randrange(2)), allow_graceful=False)
                nodes.append(cluster.add_node(num_cpus=1))
                toll.faults += 1
            text = process.communicate()[0]
            toll.tracebacks += "Traceback" in text
            if process.returncode != 0:
                raise AssertionError(f"{copy}: ended with {process.returncode}: {text}")
            toll.compare(whole, copy)
            shutil.rmtree(copy)
    finally:
        cluster.shutdown()
    return toll


def fill(whole: Path, directory: Path, faults: int, seed: int) -> Toll:
    """Trains copies of a plan on disks of a random size, made larger whenever they are full.

    Args:
        whole: the plan, trained undisturbed.
        directory: where the disks are mounted.
        faults: how many times a disk is to be full.
        seed: of the sizes.

    Returns:
        What came of it.
    """
    rng, toll = random.Random(seed), Toll()
    while toll.faults < faults:
        size = rng.randint(100, 700)
        with small_disk(directory / str(toll.plans), size) as disk:
            copy = begun(whole, disk / "plan")
            while True:
                some = ["--processes", 1] if rng.random() < 0.5 else []
                process = start("run", copy, "--save-every", SAVE_SECONDS, *some, output=subprocess.PIPE)
                text = process.communicate()[0]
                if process.returncode == 0:
                    break
                if process.returncode != 2 or "No space left" not in text:
                    raise AssertionError(f"{copy}: ended with {process.returncode}: {text}")
                toll.faults += 1
                toll.tracebacks += "Traceback" in text
                size = rng.randint(size, size + 400) if toll.faults < faults else 100_000
                resize(disk, size)
            toll.compare(whole, copy)
    return toll


def can_mount() -> bool:
    """Whether file systems can be mounted here, which takes Linux and root."""
    if not sys.platform.startswith("linux") or os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    probe = Path(f"/tmp/mtenvs-mount-{os.getpid()}")
    try:
        with small_disk(probe, 64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        with contextlib.suppress(OSError):
            probe.rmdir()


@contextlib.contextmanager
def small_disk(where: Path, kilobytes: int) -> Iterator[Path]:
    """A disk with so much room, in memory."""
    where.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", where)
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", where], check=True, capture_output=True)


def resize(where: Path, kilobytes: int) -> None:
    """Gives a small disk another size."""
    _mount("-o", f"remount,size={kilobytes}k", where)


def make_read_only(where: Path) -> None:
    """Makes a small disk one that cannot be written to."""
    _mount("-o", "remount,ro", where)


def show(what: Path, where: Path) -> None:
    """Lets a directory be seen in another place too, as a file system of its own."""
    where.mkdir(parents=True, exist_ok=True)
    _mount("--bind", what, where)


def take_away(where: Path) -> None:
    """Unmounts a file system, whoever uses it."""
    subprocess.run(["umount", "-l", where], check=True, capture_output=True)


def _mount(*words: object) -> None:
    subprocess.run(["mount", *map(str, words)], check=True, capture_output=True)
