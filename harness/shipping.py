"""What a cohort needs and leaves, as bytes: between the one store and a scratch directory elsewhere.

There, on another machine, a cohort is trained as it is at home. What changes is sent back, in an order that
keeps the store whole at every moment: rows, the bookmark that counts them, checkpoints, and the marks of
completion last.
What comes from another machine is data, and only what a cohort may leave is taken.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
import shutil
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

import baselines
import harness
import mtenvs
from baselines.checkpoint import FACTS, TENSORS, read_facts
from harness.run import checkpoint_path
from harness.schema import directory_name, entries, parsed, whole
from harness.store import _RECORD, Store, StoreError, owned

ROWS, DONE = "rows.jsonl", "done.json"
DEEPEST = 4
"""Directories within a checkpoint, at most."""
LOOK_SECONDS = 0.5
"""Between two looks at whether a cohort's training is to stop."""
MOST_NESTED = 20
"""Lists and objects within one another in a mark of completion, at most."""

Files = dict[str, bytes]
"""Contents by path, with ``/``."""


@dataclasses.dataclass(frozen=True)
class End:
    """How the training of a cohort ended."""

    trained: bool
    """Whether it is trained now."""
    kind: str = ""
    """Name of the exception that ended it; empty if none did."""
    why: str = ""
    """What that exception said."""
    trace: str = ""
    """Its traceback."""


@dataclasses.dataclass(frozen=True)
class Delivery:
    """What has changed in a scratch directory since the last one."""

    steps: int = 0
    """Control steps that were trained."""
    rows: dict[str, tuple[int, bytes]] = dataclasses.field(default_factory=dict)
    """By run: from which byte on its rows are others, and these; empty ones say that it has begun."""
    bookmark: Files = dataclasses.field(default_factory=dict)
    """The files of a new bookmark; empty if there is none."""
    checkpoints: dict[str, Files] = dataclasses.field(default_factory=dict)
    """By run: the files of its network."""
    done: dict[str, bytes] = dataclasses.field(default_factory=dict)
    """By run: its mark of completion."""
    end: End | None = None
    """Of the last one: how it ended."""

    def __bool__(self) -> bool:
        return any(getattr(self, field.name) for field in dataclasses.fields(self))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return (
            sum(len(text) for _, text in self.rows.values())
            + sum(map(len, self.bookmark.values()))
            + sum(len(text) for files in self.checkpoints.values() for text in files.values())
            + sum(map(len, self.done.values()))
        )


def read_files(directory: Path) -> Files:
    """The files under a directory, which need not exist; what links lead to is none of them."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not path.is_symlink() and not path.name.endswith((".part", ".tmp"))
    }


def network_files(directory: Path, run_id: str) -> Files:
    """The files of the network that a run has left in a plan's directory.

    Raises:
        StoreError: if it is there by a link, which may lead to what is not to be sent to others.
    """
    return read_files(owned(directory, checkpoint_path(directory, run_id)))


def refused(name: str) -> bool:
    """Whether a name is none that another machine may give a file."""
    parts = PurePosixPath(name).parts
    return len(parts) > DEEPEST or not parts or any(map(directory_name, parts))


def write_files(directory: Path, files: Files) -> None:
    """Writes files under a directory, which is made; they are on disk then.

    Raises:
        StoreError: if a name is none of a file under it.
    """
    if wrong := [name for name in files if refused(name)]:
        raise StoreError(f"another machine has named a file {wrong[0]!r}, which is refused")
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def belongings(directory: Path, cohort: Sequence[str]) -> Files:
    """What a store has of a cohort: rows and marks of its runs, and its bookmark.

    Args:
        directory: of the plan.
        cohort: ids of its runs.

    Raises:
        StoreError: if any of it is there by a link, which may lead to what is not to be sent to others.
    """
    # a run that has begun and has no rows is told from one that has not
    runs = [f"runs/{run_id}" for run_id in cohort]
    found: Files = {f"{run}/{ROWS}": b"" for run in runs if (directory / run).is_dir()}
    for name in _paths(cohort):
        if (path := owned(directory, directory / name)).is_file():
            found[name] = path.read_bytes()
    return found


def stamp(directory: Path, cohort: Sequence[str]) -> list[tuple[int, int] | None]:
    """What tells whether :func:`belongings` have changed, without reading them."""
    return [_stamp(directory / name) for name in _paths(cohort)]


def _paths(cohort: Sequence[str]) -> list[str]:
    runs = [f"runs/{run_id}/{name}" for run_id in cohort for name in (ROWS, DONE)]
    places = [_bookmark(cohort, number) for number in range(2)]
    return runs + [f"{place}/{name}" for place in places for name in (FACTS, TENSORS)]


def _bookmark(cohort: Sequence[str], number: int) -> str:
    """Where a cohort's bookmark of a number is, as :mod:`harness.bookmark` numbers them."""
    return f"resume/{cohort[0]}/{number % 2}"


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found.st_mtime_ns, found.st_size


def versions() -> dict[str, str]:
    """What must be the same on two machines for their rows to be."""
    code = hashlib.sha256()
    for package in (mtenvs, baselines, harness):
        root = Path(package.__path__[0])
        for path in sorted(root.rglob("*.py")):
            code.update(path.relative_to(root.parent).as_posix().encode() + path.read_bytes())
    packages = {name: version(name) for name in ("mujoco", "numpy", "torch")}
    return {"mtenvs": mtenvs.__version__, **packages, "code of mtenvs": code.hexdigest()[:10]}


class Sender:
    """Finds what changes in a scratch directory in which a cohort is trained.

    Its training tells it after every rollout, when nothing is being written; another thread takes what has
    gathered. So a bookmark never goes without the rows that it counts.

    Args:
        directory: the scratch directory, as it was filled.
        cohort: ids of the runs.
    """

    def __init__(self, directory: Path, cohort: Sequence[str]) -> None:
        self._directory, self._cohort = directory, list(cohort)
        self._lock = threading.Lock()
        self._states: dict[str, Any] = {}
        self._rows = {run_id: self._read(run_id) for run_id in cohort}  # None of one that has not begun
        self._sent = dict(self._rows)
        self._done = {run_id: _stamp(self._run(run_id) / DONE) for run_id in cohort}
        places = [directory / _bookmark(cohort, number) for number in range(2)]
        self._marks = {place: _stamp(place / FACTS) for place in places}
        self._bookmark: Files = {}
        self._steps = 0

    def _run(self, run_id: str) -> Path:
        return self._directory / "runs" / run_id

    def _state(self, run_id: str) -> Any:
        """What tells whether a run's rows have changed."""
        return self._run(run_id).is_dir(), _stamp(self._run(run_id) / ROWS)

    def _read(self, run_id: str) -> bytes | None:
        begun, rows = self._states[run_id] = self._state(run_id)
        return (self._run(run_id) / ROWS).read_bytes() if rows else b"" if begun else None

    def progress(self, steps: int) -> None:
        """Called by the training, with the control steps that it has just made."""
        changed = {
            run_id: self._read(run_id)
            for run_id in self._cohort
            if self._state(run_id) != self._states[run_id]
        }
        marks = {place: _stamp(place / FACTS) for place in self._marks}
        bookmark: Files = {}
        if new := [place for place, mark in marks.items() if mark not in (None, self._marks[place])]:
            newest = max(new, key=lambda place: int(read_facts(place)["number"]))
            bookmark = {name: (newest / name).read_bytes() for name in (FACTS, TENSORS)}
        self._marks = marks
        with self._lock:
            self._rows |= changed
            self._bookmark = bookmark or self._bookmark
            self._steps += steps

    def take(self) -> Delivery:
        """What has gathered."""
        with self._lock:
            rows = {}
            for run_id, now in self._rows.items():
                if now != (sent := self._sent[run_id]):
                    # all of it again, if it was begun again
                    now, sent = now or b"", sent or b""
                    start = len(sent) if now.startswith(sent) else 0
                    rows[run_id] = (start, now[start:])
            self._sent = dict(self._rows)
            found = Delivery(steps=self._steps, rows=rows, bookmark=self._bookmark)
            self._bookmark, self._steps = {}, 0
        return found

    def last(self, end: End) -> Delivery:
        """What is there when the training has ended; a failure if a file of it would be refused."""
        self.progress(0)
        done = {i: path for i in self._cohort if _stamp(path := self._run(i) / DONE) != self._done[i]}
        checkpoints = {i: network_files(self._directory, i) for i in done}
        if wrong := {i: name for i, files in checkpoints.items() for name in files if refused(name)}:
            run_id, name = next(iter(wrong.items()))
            why = (
                f"its agent has saved a file {name!r} with the network of run {run_id}, which is not sent: "
                "names have letters, digits and any of _ = . -, no point first, and are in at most "
                f"{DEEPEST - 1} directories"
            )
            end = end if end.kind else End(False, "TrainingError", why)
            done = {i: path for i, path in done.items() if i not in wrong}
            checkpoints = {i: files for i, files in checkpoints.items() if i not in wrong}
        return dataclasses.replace(
            self.take(),
            checkpoints={run_id: files for run_id, files in checkpoints.items() if files},
            done={run_id: path.read_bytes() for run_id, path in done.items() if path.is_file()},
            end=end,
        )


def deliveries(
    train: Callable[[Callable[[int], None]], bool],
    directory: Path,
    cohort: Sequence[str],
    every: float,
    look: Callable[[], object] = lambda: None,
) -> Iterator[Delivery]:
    """Trains a cohort in a scratch directory, and tells what changes there.

    Args:
        train: what trains; called, in a thread of its own, with what is to be told of steps.
        directory: the scratch directory.
        cohort: ids of the runs.
        every: seconds between two deliveries, at least.
        look: called every :data:`LOOK_SECONDS`, also while there is nothing to tell.

    Yields:
        What is new: something each time, and last how it ended.
    """
    sender, ended = Sender(directory, cohort), threading.Event()
    ends: list[End] = []

    def work() -> None:
        try:
            ends.append(End(train(sender.progress)))
        except BaseException as error:
            # of all kinds of them, such as a PermissionError, it is told where
            kind = "OSError" if isinstance(error, OSError) else type(error).__name__
            ends.append(End(False, kind, str(error), traceback.format_exc()))
        finally:
            ended.set()

    threading.Thread(target=work, daemon=True).start()
    due = time.monotonic() + every
    while not ended.wait(min(every, LOOK_SECONDS)):
        look()
        if time.monotonic() >= due and (delivery := sender.take()):
            yield delivery
            due = time.monotonic() + every
    yield sender.last(ends[0])


class Receiver:
    """Writes what another machine sends of a cohort into the store.

    Args:
        store: of the plan.
        cohort: ids of the runs; what is sent of others is refused.
    """

    def __init__(self, store: Store, cohort: Sequence[str]) -> None:
        self.cohort = list(cohort)
        self._store = store

    def take(self, delivery: Delivery) -> None:
        """Writes what was sent.

        Raises:
            StoreError: for anything that a cohort does not leave, or that does not fit to what is there.
        """
        self._check({*delivery.rows, *delivery.checkpoints, *delivery.done})
        for run_id, (start, rows) in delivery.rows.items():
            self._store.splice(run_id, start, rows)
        if delivery.bookmark:
            self._mark(delivery.bookmark)
        for run_id, files in delivery.checkpoints.items():
            self._replace(checkpoint_path(self._store.directory, run_id), files)
        for run_id, text in delivery.done.items():
            self._finish(run_id, text)
        if delivery.end is not None and delivery.end.trained:
            resume = (self._store.directory / _bookmark(self.cohort, 0)).parent
            shutil.rmtree(owned(self._store.directory, resume), ignore_errors=True)
            with contextlib.suppress(OSError):  # others are there
                resume.parent.rmdir()

    def _check(self, runs: Iterable[str]) -> None:
        if strange := sorted({*runs} - {*self.cohort}):
            raise StoreError(
                f"another machine has sent something of run {strange[0]!r}, which it does not train"
            )

    def _mark(self, files: Files) -> None:
        if {*files} != {FACTS, TENSORS}:
            raise StoreError(f"another machine has sent a bookmark of the files {sorted(files)}")
        try:
            facts = parsed(files[FACTS])
        except ValueError as error:
            raise StoreError(f"another machine has sent a bookmark that cannot be read: {error}") from None
        if wrong := entries({"number": whole(0)}, ("number",))(facts):
            raise StoreError(f"another machine has sent a bookmark of which the facts{wrong}")
        self._replace(self._store.directory / _bookmark(self.cohort, facts["number"]), files)

    def _finish(self, run_id: str, text: bytes) -> None:
        try:
            record = parsed(text)
        except ValueError as error:
            raise StoreError(f"another machine has sent a mark that cannot be read: {error}") from None
        if wrong := _RECORD(record) or (" is nested too deep" if _nested(record) else ""):
            raise StoreError(f"another machine has sent a mark of run {run_id!r}: its record{wrong}")
        if record.pop("rows_sha256", None) != self._store.rows_sha256(run_id):
            raise StoreError(f"the rows of run {run_id!r} are not those that another machine has written")
        self._store.finish(run_id, record)

    def _replace(self, directory: Path, files: Files) -> None:
        """Puts a directory of files in another's place, which is never there in part."""
        self._store.check_there()
        owned(self._store.directory, directory)
        part = owned(self._store.directory, directory.with_name(f"{directory.name}.part"))
        shutil.rmtree(part, ignore_errors=True)
        write_files(part, files)
        shutil.rmtree(directory, ignore_errors=True)
        os.rename(part, directory)


def _nested(value: Any, most: int = MOST_NESTED) -> bool:
    """Whether lists and objects are deeper in one another than can be gone through."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return most < 0 or any(_nested(entry, most - 1) for entry in inside)
