"""Cohorts trained by a Ray cluster, each a task of its own, with what they store streamed back here.

The nodes share no file system with this machine: see :mod:`harness.shipping`. A node that is lost costs
what was trained since the last bookmark; its cohort begins again elsewhere.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import logging
import math
import os
import platform
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import harness.workers
from baselines.registry import find_agent
from harness.lock import holder, lock_path, locked
from harness.plan import PlanError, load_plan
from harness.run import TrainingError, Where, checkpoint_path, choose_backend, fail_runs
from harness.shipping import (
    Delivery,
    End,
    Files,
    Receiver,
    belongings,
    deliveries,
    network_files,
    stamp,
    versions,
    write_files,
)
from harness.store import COMPLETE, Store, StoreError
from harness.workers import GRACE_SECONDS, Progress
from mtenvs.spec import MissingPackageError

if importlib.util.find_spec("ray") is None:
    raise MissingPackageError(
        "--executor ray needs Ray, which is not installed: pip install 'mtenvs[ray]', on every machine"
    )
# read when Ray is imported: no figures are sent to its makers, and no warnings of what it will change
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")

import ray
import ray.exceptions as lost
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put

SEND_SECONDS = 1.0
"""How often a cohort's node sends what has changed, at most."""
RETRIES = 4
"""How often in a row a cohort begins again that is lost before it has sent another bookmark."""
ANSWER_SECONDS = 30.0
"""How long a cluster may take to answer."""
UNREAD = 4
"""Deliveries of a cohort that wait to be read before its node gathers more in the next."""

LOST = (lost.WorkerCrashedError, lost.NodeDiedError, lost.ObjectLostError, lost.OutOfMemoryError)
"""What Ray says of a task whose process, machine or memory is gone."""

KNOWN = {kind.__name__: kind for kind in (PlanError, StoreError, TrainingError)}
"""What a training ends with on purpose; anything else is a bug, and is told with its traceback."""

Train = Callable[[Path, Sequence[str], str, Where, Progress | None], bool]
"""What trains a cohort: :func:`harness.run.run_plan` says which."""


class ClusterError(ValueError):
    """The cluster cannot do what was asked of it; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class _Link:
    """How a task and the command that gave it speak with each other."""

    home: str
    """The store's directory, to speak of."""
    every: float
    """Seconds between two deliveries, at least."""
    stop: str
    """What is in the cluster's memory once the task is to save where it is and end."""


@dataclasses.dataclass
class _Job:
    """A cohort that Ray was given."""

    train: Train
    cohort: Sequence[str]
    agent: str
    where: Where
    progress: Progress | None
    future: Future[bool]
    receiver: Receiver
    lock: contextlib.ExitStack = dataclasses.field(default_factory=contextlib.ExitStack)
    """Holds the cohort's lock, once its task has begun."""
    mine: bool = False
    """Whether it does."""
    reading: bool = False
    """Whether a delivery is being taken."""
    stream: Any = None
    """Of its task."""
    sent: Any = None
    """What stood in the store when its task was made, to see whether others have been at it since."""
    steps: int = 0
    """Told of so far."""
    losses: int = 0
    """Times in a row that it was lost without a new bookmark."""


class RayWorkers:
    """Trains cohorts in a Ray cluster. The counterpart of :class:`harness.workers.Workers`.

    Args:
        directory: of the plan.
        count: how many cohorts at a time.
        device: where networks live: ``"cpu"``, or ``"cuda"`` for a GPU to each cohort.
        address: of the cluster, as of ``ray.init``; ``None`` to have one on this machine, for as long as
            this is entered, unless the program is connected to one.
        tell: what users should know is told to this.

    Raises:
        ClusterError: if it is entered and the cluster does not answer, or has no node that could train.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        device: str = "cpu",
        address: str | None = None,
        tell: Callable[[str], object] = print,
    ) -> None:
        self.count = count
        self._directory, self._device, self._address, self._tell = directory, device, address, tell
        self._store = Store(directory)
        self._starts = {run["id"]: run["start"] for run in load_plan(directory)["runs"]}
        self._ended = {i for i, status in self._store.status().items() if status in COMPLETE}
        self._jobs: dict[Future[bool], _Job] = {}
        self._networks: dict[str, Any] = {}
        # in the cluster's memory once tasks are asked to stop: the one thing that both sides see
        self._stop = f"mtenvs-stop-{uuid.uuid4().hex}"
        self._own = False

    def __enter__(self) -> RayWorkers:
        self._own = not ray.is_initialized()
        if self._own:
            _connect(self._address)
        try:
            if not self._able():
                need = "a GPU" if self._gpus else "a free core"
                raise ClusterError(
                    f"no node of the cluster has {need} for the device {self._device!r}: "
                    + (
                        "start one with 'ray start --num-gpus 1', or leave out --device cuda"
                        if self._gpus
                        else "start nodes with 'ray start --address ADDRESS --num-cpus N'"
                    )
                )
            # a file for each lock
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard if soft < hard else soft, hard))
            self._plan = ray.put((self._directory / "plan.json").read_bytes())
            self._versions = versions()
        except BaseException:
            self._disconnect()
            raise
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is not None:
                self._receive_last()
        finally:
            for job in self._jobs.values():
                with contextlib.suppress(lost.RayError):  # it is gone, which was wanted
                    ray.cancel(job.stream, force=True)
                job.lock.close()
            self._jobs.clear()
            self._disconnect()

    def _receive_last(self) -> None:
        """Asks the cohorts that are trained to save where they are, and stores what comes of it in time."""
        until = time.monotonic() + GRACE_SECONDS
        # a delivery in the midst of which we were stopped is lost, and those that follow would build on it
        saving = {job.stream: job for job in self._jobs.values() if job.mine and not job.reading}
        for job in self._jobs.values():
            if not job.mine:  # nor is it to begin in the room that those leave
                ray.cancel(job.stream, force=True)
        if not saving:
            return
        # from beside, as a cluster that is gone would keep us waiting
        ask = threading.Thread(target=_internal_kv_put, args=(self._stop, b"1"), daemon=True)
        ask.start()
        while saving and (left := until - time.monotonic()) > 0:
            ready, _ = ray.wait([*saving], timeout=left)
            for stream in ready:
                job = saving[stream]
                try:
                    delivery = ray.get(next(job.stream), timeout=left)
                    job.receiver.take(delivery)
                # what is told is why we stop, not this: it goes on from what was stored before
                except (StopIteration, OSError, StoreError, lost.RayError):
                    del saving[stream]
                    continue
                self._count(job, delivery.steps)
                if delivery.end is not None:
                    del saving[stream]

    def _disconnect(self) -> None:
        self._networks.clear()
        if self._own:
            ray.shutdown()

    @property
    def _gpus(self) -> int:
        return int(self._device.startswith("cuda"))

    def _able(self) -> bool:
        """Whether there is a node that could train a cohort, if it had nothing else to do."""
        found = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        return any(of.get("CPU", 0) >= 1 and of.get("GPU", 0) >= self._gpus for of in found)

    @staticmethod
    def threads(running: int) -> int:
        """Threads for the physics of each call: Ray counts cores, and each cohort has one."""
        return 1

    @staticmethod
    def exit_code(futures: Iterable[Future[Any]]) -> str:
        """Nothing: no call ends as one that is broken off."""
        return ""

    def submit(
        self,
        train: Train,
        directory: Path,
        cohort: Sequence[str],
        agent: str,
        where: Where,
        progress: Progress | None = None,
    ) -> Future[bool]:
        """Gives a cohort to the cluster, which trains it when it has room."""
        future: Future[bool] = Future()
        if holder(lock_path(directory, cohort)) is not None:
            future.set_result(False)
            return future
        job = _Job(train, cohort, agent, where, progress, future, Receiver(self._store, cohort))
        self._jobs[future] = job
        self._begin(job)
        return future

    def _begin(self, job: _Job) -> None:
        """Makes the task of a cohort, from what the store has of it now."""
        job.reading = False
        job.sent = stamp(self._directory, job.cohort)
        starts = sorted({start for i in job.cohort if (start := self._starts[i]) is not None})
        for start in starts:
            if start not in self._networks:  # many begin from one
                self._networks[start] = ray.put(network_files(self._directory, start))
        task = ray.remote(_on_node).options(
            num_cpus=max(1, job.where.threads),
            num_gpus=self._gpus,
            num_returns="streaming",
            max_retries=0,  # not by Ray, which would begin from where this one did
            name=f"mtenvs {job.cohort[0]}",
            _generator_backpressure_num_objects=UNREAD,
        )
        job.stream = task.remote(
            job.train,
            job.cohort,
            job.agent,
            job.where,
            self._versions,
            self._plan,
            belongings(self._directory, job.cohort),
            {start: [self._networks[start]] for start in starts},  # in a list, Ray leaves it a reference
            _Link(str(self._directory), SEND_SECONDS, self._stop),
        )

    def wait(
        self, futures: Iterable[Future[Any]], progress: Progress | None, seconds: float = math.inf
    ) -> set[Future[Any]]:
        """Waits for any of the cohorts, or for so long, storing what nodes send.

        Raises:
            ClusterError: if a node or the cluster cannot go on.
            OSError: if nothing can be stored here any more.
        """
        until = time.monotonic() + seconds
        while True:
            done = {future for future in futures if future.done()}
            if done or time.monotonic() >= until:
                return done
            streams = {job.stream: job for job in self._jobs.values()}
            if not streams:
                time.sleep(0.1)
                continue
            ray.wait([*streams], timeout=0.2)
            ready, _ = ray.wait([*streams], num_returns=len(streams), timeout=0)
            for stream in ready:
                self._read(streams[stream])

    def _read(self, job: _Job) -> None:
        """Takes one delivery of a cohort."""
        job.reading = True
        try:
            delivery = ray.get(next(job.stream))
        except LOST as error:
            self._again(job, error)
            return
        except lost.RayError as error:
            lines = str(error).strip().splitlines()
            raise ClusterError(
                f"the cluster could not train {job.cohort[0]}: {lines[-1]}. Is the same mtenvs installed "
                "on every node, and the cluster still there?"
            ) from None
        if not job.mine and not self._take_lock(job):
            return
        if delivery.bookmark:
            job.losses = 0
        job.receiver.take(delivery)
        job.reading = False
        self._count(job, delivery.steps)
        if (end := delivery.end) is not None:
            if end.kind in ("NodeError", "OSError"):
                raise ClusterError(end.why)
            if end.kind == "TrainingError":
                # that the node has stored as failed has its traceback
                status = self._store.status()
                left = [i for i in job.cohort if status[i] in ("missing", "started")]
                fail_runs(self._store, left, end.why)
            if not end.kind:
                self._end(job, result=end.trained)
            else:
                self._end(job, error=KNOWN.get(end.kind, RuntimeError)(end.why))

    def _take_lock(self, job: _Job) -> bool:
        """Makes the cohort ours, now that its task has begun; whether the task may go on."""
        job.mine = job.lock.enter_context(locked(lock_path(self._directory, job.cohort)))
        current = stamp(self._directory, job.cohort) == job.sent
        if job.mine and current:
            return True
        ray.cancel(job.stream, force=True)
        if job.mine:  # but others have been at it while it waited for a node
            self._begin(job)
        else:
            job.lock.close()
            del self._jobs[job.future]
            job.future.set_result(False)
        return False

    def _again(self, job: _Job, error: Exception) -> None:
        """Gives a cohort to the cluster again, from its bookmark, or gives up."""
        job.losses += 1
        self._count(job, -job.steps)
        with contextlib.suppress(lost.RayError):  # where only what it sent is lost, it may train still
            ray.cancel(job.stream, force=True)
        what = {
            lost.NodeDiedError: "its node was lost",
            lost.OutOfMemoryError: "its node ran out of memory",
            lost.WorkerCrashedError: f"the process that trained it ended, by agent {job.agent} or by force",
        }
        why = next((text for kind, text in what.items() if isinstance(error, kind)), "its node was lost")
        if job.losses > RETRIES:
            why = f"{why}, {job.losses} time{'s' * (job.losses > 1)} in a row"
            status = self._store.status(job.cohort)
            # it may have been lost before the lock was ours, and another process have it since
            if job.mine or job.lock.enter_context(locked(lock_path(self._directory, job.cohort))):
                fail_runs(self._store, [i for i in job.cohort if status[i] not in COMPLETE], why)
            self._end(job, error=TrainingError(why))
            return
        self._tell(f"{job.cohort[0]}: {why}; it goes on from where it was last saved")
        if not self._able():
            self._tell("no node is left that could train; one that joins the cluster will")
        self._begin(job)

    def _count(self, job: _Job, steps: int) -> None:
        job.steps += steps
        if job.progress is not None and steps:
            job.progress(steps)

    def _end(self, job: _Job, result: bool = False, error: Exception | None = None) -> None:
        del self._jobs[job.future]
        job.lock.close()
        self._ended |= {*job.cohort}
        # a cluster's memory is not to hold what nobody will begin from any more
        wanted = {start for i, start in self._starts.items() if i not in self._ended}
        self._networks = {start: at for start, at in self._networks.items() if start in wanted}
        if error is None:
            job.future.set_result(result)
        else:
            job.future.set_exception(error)


def _connect(address: str | None) -> None:
    """Joins a cluster, or makes one of this machine, and leaves what SIGTERM does as it was.

    Raises:
        ClusterError: if it does not answer.
    """
    before = signal.getsignal(signal.SIGTERM)
    try:
        _join(address)
    finally:
        # Ray has put its own in the place of the command's; others than the main thread may not handle any
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _join(address: str | None) -> None:
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    # what it prints of nodes that are lost is told by us; it is private, but there is no other way
    ray._private.worker._worker_logs_enabled = False
    if address is None:
        # not the one that RAY_ADDRESS names, which has an option
        ray.init(address="local", include_dashboard=False, **quiet)
        return
    if address.startswith("ray://"):
        raise ClusterError(
            f"{address} is an address of Ray's client, by which nothing can be streamed: run this on a "
            "machine of the cluster, with --address auto"
        )
    _check_answers(address)
    try:
        ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError, lost.RayError) as error:
        raise ClusterError(_unanswered(address, str(error))) from None


def _check_answers(address: str) -> None:
    """Makes sure that there is a cluster at an address, as Ray would try for minutes.

    Raises:
        ClusterError: otherwise.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit():
        try:
            socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(_unanswered(address, str(error))) from None
    # only another process can be stopped in the midst of it
    script = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='CRITICAL')"
    try:
        tried = subprocess.run(
            [sys.executable, "-c", script, address],
            capture_output=True,
            text=True,
            timeout=ANSWER_SECONDS,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise ClusterError(_unanswered(address, f"no answer within {ANSWER_SECONDS:.0f} s")) from None
    if tried.returncode:
        raise ClusterError(
            _unanswered(address, (tried.stderr.strip() or "it ended at once").splitlines()[-1])
        )


def _unanswered(address: str, why: str) -> str:
    return (
        f"no Ray cluster answers at {address!r}: {why.strip()}. Start one with 'ray start --head', and run "
        "this on one of its machines"
    )


# ----------------------------------------------------------------------------------- on a node


def _on_node(
    train: Train,
    cohort: Sequence[str],
    agent: str,
    where: Where,
    wanted: dict[str, str],
    plan: bytes,
    files: Files,
    networks: dict[str, list[Any]],
    link: _Link,
) -> Iterator[Delivery]:
    """Trains a cohort on a node, in a directory of its own, and sends what it stores.

    Args:
        train: what trains.
        cohort: ids of the runs.
        agent: whom to train.
        where: on what.
        wanted: versions that must be those here.
        plan: the plan's file.
        files: what the store has of the cohort.
        networks: by run: where the files of the network are that it has left.
        link: to the command.
    """
    yield Delivery()  # it has begun: the one that gave it may want it no more
    node = platform.node()
    try:
        base = _scratch_base()
        _check_node(agent, where, wanted)
    except Exception as error:
        yield Delivery(end=End(False, "NodeError", f"on node {node}: {error}"))
        return
    harness.workers._asked = asked = threading.Event()
    with _scratch(base) as directory:
        try:
            write_files(directory, {"plan.json": plan, **files})
            for run_id, (reference,) in networks.items():
                write_files(checkpoint_path(directory, run_id), ray.get(reference))
        except OSError as error:
            yield Delivery(end=End(False, "OSError", f"on node {node}: {error}"))
            return

        def begin(progress: Progress) -> bool:
            import torch

            torch.set_num_threads(1)  # of this thread; Ray counts on one for a core
            return train(directory, cohort, agent, where, progress)

        def look() -> None:
            with contextlib.suppress(lost.RayError):  # it can be asked again
                if _internal_kv_get(link.stop) is not None:
                    asked.set()

        for delivery in deliveries(begin, directory, cohort, link.every, look):
            if (end := delivery.end) is not None:
                why = (end.why if end.kind in (*KNOWN, "OSError") else end.trace).replace(
                    str(directory), link.home
                )
                if end.kind == "OSError":
                    why = f"on node {node}: {why}"
                delivery = dataclasses.replace(delivery, end=dataclasses.replace(end, why=why))
            yield delivery


def _check_node(agent: str, where: Where, wanted: dict[str, str]) -> None:
    """Makes sure that a node can train what it was given, to the same rows as others.

    Raises:
        ClusterError: if versions differ.
        ValueError: if the agent cannot be imported, or the device or backend cannot be used.
        mtenvs.spec.MissingPackageError: if a package is missing.
    """
    here = versions()
    if other := [
        f"{name} {here[name]}, not {wanted[name]}" for name in wanted if here[name] != wanted[name]
    ]:
        raise ClusterError(
            f"it has {' and '.join(other)}, so that its rows would not be those of others: install the "
            "same on every machine"
        )
    find_agent(agent)
    choose_backend(agent, where.device, where.backend)


def _scratch_base() -> Path:
    """Where this user's cohorts have their directories on this node.

    Raises:
        PermissionError: if another user has put something there, or may.
    """
    base = Path(tempfile.gettempdir()) / f"mtenvs-{os.getuid()}"
    with contextlib.suppress(FileExistsError):
        base.mkdir(mode=0o700)
    found = base.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(
            f"{base} is no directory of this user alone: remove it, or set TMPDIR to another place before "
            "'ray start'"
        )
    return base


@contextlib.contextmanager
def _scratch(base: Path) -> Iterator[Path]:
    """A directory for one cohort; those that killed ones have left are removed.

    Args:
        base: where it is made; it stays, as others may be about to use it.
    """
    with contextlib.ExitStack() as held:
        mine = False
        while not mine:  # one that cleans up may take the lock before we do
            name = uuid.uuid4().hex
            mine = held.enter_context(locked(base / "locks" / name))
        for other in (base / "locks").iterdir():
            with locked(other) as left:
                if left:
                    shutil.rmtree(base / other.name, ignore_errors=True)
        directory = base / name
        directory.mkdir()
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)
