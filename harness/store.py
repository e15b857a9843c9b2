"""Where the trainer leaves rows and the analysis finds them: one directory, plain text, append only.

    DIR/plan.json                   what was to be done (frozen by harness.plan before training)
    DIR/runs/<run id>/rows.jsonl    one JSON row per evaluation of one task at one checkpoint
    DIR/runs/<run id>/done.json     appears, whole or not at all, when the run is complete
    DIR/rows/<cohort>.parquet       the same rows of all runs of a cohort, packed to be published
    DIR/records/<cohort>.parquet    and what their done.json said

A run is a directory of its own, so that many processes write without a lock, and what a killed one
left behind is recognised (no ``done.json``) and discarded when the run begins again.
What :mod:`harness.pack` has packed is read as if it lay there loose. A cohort, which is trained as a whole,
is packed as a whole, once, under its number in the plan.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from harness.schema import LARGEST, OF_RUN, REPORTED, check_plan, entries, maybe, one_of, parsed, text
from harness.schema import number as finite

STATUSES = ("missing", "started", "finished", "diverged", "failed")
COMPLETE = ("finished", "diverged")
"""Statuses of a run that has its result and is not trained again; divergence is a result (PROTOCOL §4)."""

RETRIES = 100
"""Of what another process has just undone."""
PROBE_BYTES = 65536
"""That a disk must have left to be one that rows can be stored on."""

ROW_COLUMNS = {
    "run": "str",
    "checkpoint": "int64",
    "steps": "int64",
    "task": "str",
    "code": "str",
    "return_mean": "float64",
    "return_std": "float64",
    "length_mean": "float64",
    "success": "float64",
    "episodes": "int64",
    "diverged": "bool",
}
"""Columns of a row and their types: undiscounted returns, lengths in control steps, success in [0, 1].
``code`` is what the network was told of the task: its own code, the mean of those it was trained on, or
a wrong one."""

KINDS = {"str": "text", "int64": "whole number", "float64": "number", "bool": "true or false"}

CODES = ("true", "mean", "wrong")

RECORD_COLUMNS = {
    "run": "str",
    "status": "str",
    "steps": "int64",
    "wall_seconds": "float64",
    "updates": "int64",
    "parameters": "int64",
    "device": "str",
    "processor": "str",
    "rows_sha256": "str",
    "more": "str",
}
"""Columns of a packed record and their types; null where the record has no such entry. ``more`` holds the
others, as a JSON object."""
ROWS, RECORDS = "rows", "records"
"""Directories of what is packed."""

PLAN_COLUMNS = ("phase", "fold", "arm", "seed", "finetune", "start")
"""What :meth:`Store.evaluations` joins to a row from the plan's entry of its run."""


def content_hash(value: Any) -> str:
    """SHA-256 of the canonical JSON of a value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def differences(values: Sequence[Any], name: str = "") -> list[str]:
    """Names of the entries, however deep, in which dictionaries differ, with values if they are short."""
    if all(value == values[0] for value in values):
        return []
    if all(isinstance(value, Mapping) for value in values):
        keys = dict.fromkeys(key for value in values for key in value)
        return [
            text
            for key in keys
            for text in differences([v.get(key) for v in values], f"{name}.{key}" if name else str(key))
        ]
    texts = ["none" if value is None else str(value) for value in values]
    return [f"{name}: {' and '.join(texts)}" if max(map(len, texts)) <= 40 else name]


def digest(plan: Mapping[str, Any]) -> str:
    """SHA-256 of a plan's canonical form, without its own field; empty for what has no such form."""
    try:
        return content_hash({key: value for key, value in plan.items() if key != "sha256"})
    except (RecursionError, ValueError):  # nested too deep, or an infinite number
        return ""


UNUSABLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN})
"""Errors of a disk that nothing can be stored on any more."""


class StoreError(ValueError):
    """The directory does not hold what a store should hold; the message says where and what to do."""


class UnpackableError(StoreError):
    """Rows or records that no packed file holds as they are."""


def owned(directory: Path, path: Path) -> Path:
    """A path below an experiment's directory that may be written to or removed: no link leads out of it.

    The directory itself may be a link, which is its owner's choice. What lies in it may come from a
    stranger, and a link there would have us write to, or empty, a directory of the user's.

    Raises:
        StoreError: if the path, or a directory on the way to it, is a symbolic link.
    """
    for place in (path, *path.parents):
        if place == directory:
            return path
        if place.is_symlink():
            raise StoreError(
                f"{place} is a symbolic link, through which nothing is written or removed: put a "
                f"directory or file in its place, or link to all of {directory} instead"
            )
    raise StoreError(f"{path} is not in {directory}")


def made(directory: Path) -> Path:
    """Makes a directory, also while other processes remove empty ones on the way to it; returns it."""
    for _ in range(RETRIES):
        with contextlib.suppress(FileNotFoundError):
            directory.mkdir(parents=True, exist_ok=True)
            return directory
    directory.mkdir(parents=True, exist_ok=True)
    return directory


class Store:
    """The rows of one experiment, by run.

    Args:
        directory: the experiment's directory; it must contain a ``plan.json``.

    Raises:
        StoreError: if there is no readable ``plan.json`` with a list of runs.
    """

    def __init__(self, directory: str | os.PathLike[str]) -> None:
        self.directory = Path(directory)
        path = self.directory / "plan.json"
        if not path.is_file():
            raise StoreError(
                f"{self.directory} has no plan.json, so it is not the directory of an experiment; "
                "make one with 'mtenvs plan' or 'mtenvs loo'"
            )
        plan = _read_json(path)
        if not isinstance(plan, dict) or not isinstance(plan.get("runs"), list):
            raise StoreError(f"{path} is not a plan: it has no list 'runs'")
        # a run's name is that of its directory: none may lead out of the experiment's
        if wrong := check_plan(plan, (), OF_RUN):
            raise StoreError(f"{path} is not a plan: {wrong}")
        self.plan: dict[str, Any] = plan
        self._planned: dict[str, dict[str, Any]] = {run["id"]: run for run in plan["runs"]}
        if len(self._planned) != len(plan["runs"]):
            raise StoreError(f"{path} lists a run twice; every run id must be unique")
        self.cohorts: list[list[str]] = plan.get("cohorts") or [[*self._planned]]
        self._cohort_of = {i: number for number, cohort in enumerate(self.cohorts) for i in cohort}
        self._unpacked: dict[Path, tuple[Any, dict[str, Any]]] = {}

    def check_frozen(self) -> None:
        """Refuses a plan that was edited after it was frozen; one of an older format is still read.

        Raises:
            StoreError: if the plan's SHA-256 is not that of its content.
        """
        if not (content := digest(self.plan)) or self.plan.get("sha256") != content:
            raise StoreError(
                f"the plan of {self.directory} was edited after it was frozen; restore plan.json, or leave "
                "it out"
            )

    def check_reported(self, *also: str) -> None:
        """Makes sure that the plan has what a report needs.

        Args:
            also: entries that are needed besides.

        Raises:
            StoreError: otherwise.
        """
        if wrong := check_plan(self.plan, (*REPORTED, *also)):
            raise StoreError(f"the plan of {self.directory} cannot be reported: {wrong}")

    # --- writing -----------------------------------------------------------------------------------

    def begin(self, run_id: str) -> None:
        """Starts a run, discarding the rows of an earlier attempt that was killed or failed.

        Raises:
            StoreError: for a run that is not in the plan, or that already has its result.
        """
        self.check_there()
        directory = owned(self.directory, self._run_directory(run_id))
        status = self._status(run_id)
        if status in COMPLETE:
            raise StoreError(
                f"run {run_id!r} is already {status}, and its rows are kept; "
                f"remove {self.place(run_id)} to train it again"
            )
        if directory.exists():
            shutil.rmtree(directory)
        directory.mkdir(parents=True)

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows, which may belong to several runs, each to the file of its run.

        NaN and infinities are stored as ``null``, which is JSON, and read back as NaN.

        Raises:
            StoreError: for a row with missing or unknown keys, of an unknown run, or of a run that has
                not begun or is complete.
        """
        self.check_there()
        lines: dict[str, list[str]] = {}
        for row in ({"code": CODES[0], **row} for row in rows):
            if set(row) != set(ROW_COLUMNS):
                raise StoreError(
                    f"a row needs exactly the keys {', '.join(ROW_COLUMNS)}; missing: "
                    f"{sorted(set(ROW_COLUMNS) - set(row))}, unknown: {sorted(set(row) - set(ROW_COLUMNS))}"
                )
            lines.setdefault(row["run"], []).append(_dumps({key: row[key] for key in ROW_COLUMNS}))
        # all rows are checked before the first is written
        for run_id in lines:
            status = self._status(run_id)
            if status != "started":
                raise StoreError(f"run {run_id!r} is {status}; call begin() before append()")
        for run_id, run_lines in lines.items():
            path = owned(self.directory, self._run_directory(run_id) / "rows.jsonl")
            with path.open("a", encoding="utf-8") as file:
                # one write call for all rows of a checkpoint: a kill tears at most the last of them
                file.write("".join(line + "\n" for line in run_lines))

    def check_there(self) -> None:
        """Makes sure that nothing is written to where the experiment no longer is.

        Raises:
            OSError: if its directory is gone, as with a file system that was unmounted.
        """
        if not (self.directory / "plan.json").is_file():
            raise OSError(errno.ESTALE, "the experiment's directory is gone", str(self.directory))

    def check_usable(self) -> None:
        """Makes sure that rows can be stored.

        Raises:
            OSError: if the directory is gone, or cannot be written to.
        """
        self.check_there()
        with tempfile.TemporaryFile(dir=self.directory) as probe:
            probe.write(bytes(PROBE_BYTES))
            probe.flush()

    def count(self, run_id: str) -> int:
        """Whole rows of a run, which a torn one at the end is not."""
        path = self._run_directory(run_id) / "rows.jsonl"
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    def truncate(self, run_id: str, rows: int) -> None:
        """Cuts off all but the first rows of a run that is going on, whole or not at all.

        Raises:
            StoreError: for a run that has not begun or is complete.
        """
        if (status := self._status(run_id)) != "started":
            raise StoreError(f"run {run_id!r} is {status}: only a run that is going on can be cut")
        path = owned(self.directory, self._run_directory(run_id) / "rows.jsonl")
        if not path.is_file():
            return
        kept = path.read_bytes().split(b"\n")[:rows]
        part = owned(self.directory, path.with_suffix(".part"))
        with part.open("wb") as file:
            file.write(b"".join(line + b"\n" for line in kept))
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)

    def force(self, run_id: str) -> None:
        """Has the rows of a run on the disk itself, where they outlive a loss of power."""
        path = self._run_directory(run_id) / "rows.jsonl"
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def size(self, run_id: str) -> int:
        """Bytes of a run's rows, a torn one included."""
        path = self._run_directory(run_id) / "rows.jsonl"
        return path.stat().st_size if path.is_file() else 0

    def splice(self, run_id: str, start: int, rows: bytes) -> None:
        """Begins a run, if need be, and writes rows from a byte on, in place of what may stand there.

        A result of the run, which was to be trained again, is discarded.

        Args:
            run_id: the run.
            start: how many bytes are kept.
            rows: whole lines, as :meth:`append` writes them.

        Raises:
            StoreError: for an unknown run, if there are fewer bytes than are to be kept, if there would be
                what are no rows of the run, or if a link leads elsewhere.
        """
        self.check_there()
        directory, size = self._run_directory(run_id), self.size(run_id)
        path = owned(self.directory, directory / "rows.jsonl")
        part = owned(self.directory, path.with_suffix(".part"))
        if path.exists() and not path.is_file():  # a pipe would keep us waiting
            raise StoreError(f"{path} is no file; remove {directory} and run again")
        if not 0 <= start <= size:
            raise StoreError(f"rows of run {run_id!r} are to follow byte {start}, but there are {size}")
        kept = path.read_bytes()[:start] if start else b""
        if rows:
            *lines, torn = (kept + rows).decode(errors="replace").split("\n")
            what = f"what was sent for run {run_id!r}"
            self._checked(run_id, lines, what, "is its node's mtenvs another version?")
            if torn:
                raise StoreError(f"{what} ends in a torn line")
        self.discard(run_id)
        directory.mkdir(parents=True, exist_ok=True)
        if start < size:
            part.write_bytes(kept + rows)
            os.replace(part, path)
        elif rows:
            with path.open("ab") as file:
                file.write(rows)

    def rows_sha256(self, run_id: str) -> str:
        """SHA-256 of a run's rows, whatever their order, as :meth:`finish` records it."""
        if self._packed(run_id) is not None:
            return _sha256_of(_dumps(row).encode() for row in self._packed_rows(run_id))
        return _sha256(self._run_directory(run_id) / "rows.jsonl")

    def place(self, run_id: str) -> str:
        """What to remove for a run to be trained again, in words."""
        if not self._only_packed(run_id):
            return str(self._run_directory(run_id))
        number = self._cohort_of[run_id]
        shards = [self.shard(kind, number) for kind in (ROWS, RECORDS)]
        return f"{shards[0]} and {shards[1]}, with all {len(self.cohorts[number])} runs of its cohort,"

    def shard(self, kind: str, number: int) -> Path:
        """Where the rows or records of a cohort are packed.

        Args:
            kind: :data:`ROWS` or :data:`RECORDS`.
            number: of the cohort, in the plan.
        """
        return self.directory / kind / f"{number:04d}.parquet"

    def packed(self, number: int) -> bool:
        """Whether a cohort, given by its number in the plan, is packed."""
        return bool(self._records(number))

    def unpack(self, number: int) -> None:
        """Removes what a cohort was packed into."""
        for kind in (RECORDS, ROWS):
            owned(self.directory, self.shard(kind, number)).unlink(missing_ok=True)

    def pack(self, number: int, records: Mapping[str, Mapping[str, Any]], lines: Mapping[str, Any]) -> int:
        """Writes a cohort packed; the records come last, and a cohort is packed when they are there.

        Args:
            number: of the cohort, in the plan.
            records: what :meth:`record` says of each of its runs.
            lines: :meth:`lines` of each of them.

        Returns:
            Bytes written.

        Raises:
            UnpackableError: for rows that have other columns or values, as those of plans of format 1, or
                for more than the plan asks for.
            StoreError: if there is a link on the way.
        """
        self.check_there()
        try:
            rows = [parsed(line) for i in self.cohorts[number] for line in sorted(lines[i])]
            told = [_to_columns(records[i]) for i in self.cohorts[number]]
            if len(rows) > (most := self._most_rows(number)):
                raise ValueError(f"{len(rows):,} rows are more than the plan's {most:,}")
            from harness.parquet import encoded  # a machine that only trains may have no pyarrow

            contents = {ROWS: encoded(rows, ROW_COLUMNS), RECORDS: encoded(told, RECORD_COLUMNS)}
        except (ValueError, TypeError) as error:
            raise UnpackableError(f"its rows or records cannot be packed as they are: {error}") from None
        size = 0
        for kind, content in contents.items():
            path = owned(self.directory, self.shard(kind, number))
            part = owned(self.directory, path.with_suffix(".part"))
            made(path.parent)
            part.unlink(missing_ok=True)
            with part.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
            # that it is there must outlive a loss of power too, before what is loose is removed
            for place in (path.parent, self.directory):
                _force_directory(place)
            size += len(content)
        return size

    def _most_rows(self, number: int) -> int:
        """Rows that the runs of a cohort can have: of every checkpoint, task and code one."""
        times = max(len(self.plan.get(name) or ()) for name in ("checkpoints", "joint_checkpoints"))
        # beside its own tasks, the one that is held out
        tasks = sum(len(self._planned[i]["tasks"]) + 1 for i in self.cohorts[number])
        return max(times, 1) * tasks * len(CODES)

    def finish(self, run_id: str, record: Mapping[str, Any]) -> None:
        """Marks a run complete; the mark appears atomically, after its rows are on disk.

        Args:
            run_id: the run.
            record: at least ``status``, one of ``finished``, ``diverged`` and ``failed``; further
                ``steps``, ``wall_seconds``, ``updates``, ``parameters`` and whatever else is worth keeping.

        Raises:
            StoreError: for an unknown run or status, or a run that has not begun.
        """
        directory = self._run_directory(run_id)
        if record.get("status") not in STATUSES[2:]:
            raise StoreError(
                f"a complete run is {', '.join(STATUSES[2:])}; got status {record.get('status')!r}"
            )
        if record.get("run", run_id) != run_id:
            raise StoreError(f"the record speaks of run {record['run']!r}, not of {run_id!r}")
        self.check_there()
        if not directory.is_dir():
            raise StoreError(f"run {run_id!r} is missing; call begin() before finish()")
        self.force(run_id)
        rows = directory / "rows.jsonl"
        temporary = owned(self.directory, directory / "done.json.tmp")
        record = {"run": run_id, **record, "rows_sha256": _sha256(rows)}
        with temporary.open("w", encoding="utf-8") as file:
            file.write(_dumps(record, indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, directory / "done.json")

    # --- reading -----------------------------------------------------------------------------------

    def status(self, run_ids: Iterable[str] | None = None) -> dict[str, str]:
        """Status of runs, all that are planned unless some are named; see :data:`STATUSES`."""
        return {run_id: self._status(run_id) for run_id in self._chosen(run_ids)}

    def unknown(self) -> list[str]:
        """Names under ``runs/`` that are no run of the plan, sorted; their rows are never mixed in.

        And what is packed under the number of no cohort.
        """
        runs = self.directory / "runs"
        found = [path.name for path in runs.iterdir()] if runs.is_dir() else []
        known = {self.shard(kind, n) for kind in (ROWS, RECORDS) for n in range(len(self.cohorts))}
        packed = (path for kind in (ROWS, RECORDS) for path in self.directory.glob(f"{kind}/*.parquet"))
        strange = [str(path.relative_to(self.directory)) for path in packed if path not in known]
        return sorted([name for name in found if name not in self._planned] + strange)

    def changed(self) -> list[str]:
        """Complete runs whose rows are not those that they were finished with, in the plan's order."""
        found = []
        for run_id in self._planned:
            done = self._done(run_id)
            if done is None or "rows_sha256" not in done:
                continue
            rows = self._run_directory(run_id) / "rows.jsonl"
            if self._packed(run_id) is None:
                there = [_sha256(rows)]
            else:
                # what lies there loose besides may be being removed, and be a part of it
                loose = [_sha256(rows)] if self._loose(run_id) is not None and rows.is_file() else []
                there = [*loose, _sha256_of(_dumps(row).encode() for row in self._packed_rows(run_id))]
            if any(sha256 != done["rows_sha256"] for sha256 in there):
                found.append(run_id)
        return found

    def record(self, run_id: str) -> dict[str, Any] | None:
        """What was recorded when a run ended; ``None`` of one that has not."""
        return self._done(run_id)

    def lines(self, run_id: str) -> list[str]:
        """The rows of a run as they are stored, each a line of JSON, sorted; a torn one is left out."""
        if self._packed(run_id) is not None:
            return self.packed_lines(run_id)
        path = self._run_directory(run_id) / "rows.jsonl"
        whole = path.read_bytes().rpartition(b"\n")[0] if path.is_file() else b""
        return sorted(whole.decode(errors="replace").splitlines())

    def packed_record(self, run_id: str) -> dict[str, Any] | None:
        """The same of what is packed, whatever lies there loose."""
        return self._packed(run_id)

    def packed_lines(self, run_id: str) -> list[str]:
        """The rows of a packed run as :meth:`lines` gives them, whatever lies there loose."""
        return sorted(_dumps(row) for row in self._packed_rows(run_id))

    def discard(self, run_id: str) -> None:
        """Forgets the result of a run, so that it can begin again.

        Raises:
            StoreError: if it is packed, and so would not be forgotten.
        """
        if self._packed(run_id) is not None:
            raise StoreError(f"run {run_id!r} is packed: remove {self.place(run_id)} to train it again")
        owned(self.directory, self._run_directory(run_id) / "done.json").unlink(missing_ok=True)

    def evaluations(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """Every stored row of every planned run, or of those named, whatever the run's status.

        Returns:
            The columns of :data:`ROW_COLUMNS` and, from the plan, :data:`PLAN_COLUMNS`; one row per
            (run, checkpoint, task, code), also where a row was written twice; sorted in the plan's order of
            runs, then by checkpoint, task and code, so that nothing depends on the order of lines or
            directories.

        Raises:
            StoreError: for a line that cannot be read (a torn last one is tolerated: its run was killed),
                that belongs to another run, or that contradicts an earlier one.
        """
        rows: list[dict[str, Any]] = []
        for order, (run_id, run) in enumerate(self._chosen(run_ids).items()):
            from_plan = {key: run.get(key) for key in PLAN_COLUMNS}
            from_plan |= {"finetune": run.get("finetune", 0), "_order": order}
            rows.extend(row | from_plan for row in self._rows(run_id))
        columns = [*ROW_COLUMNS, *PLAN_COLUMNS]
        table = pd.DataFrame(rows, columns=[*columns, "_order"])
        table = table.drop_duplicates(["run", "checkpoint", "task", "code"], keep="first")
        table = table.sort_values(["_order", "checkpoint", "task", "code"], ignore_index=True)[columns]
        whole = dict.fromkeys(("fold", "seed", "finetune"), "int64")
        return table.astype(ROW_COLUMNS | {"phase": "str", "arm": "str"} | whole)

    def runs(self, run_ids: Iterable[str] | None = None) -> pd.DataFrame:
        """One row per planned run, or each of those named: the plan's entry, its ``status``, its record.

        Returns:
            Columns ``run, phase, fold, arm, seed, finetune, steps_planned, start, init, conditioning,
            status, steps, wall_seconds, updates, parameters`` in the plan's order; NaN where the run is not
            complete.
        """
        rows = []
        for run_id, run in self._chosen(run_ids).items():
            status = self._status(run_id)
            done = self._done(run_id) or {}
            rows.append(
                {
                    "run": run_id,
                    **{key: run.get(key) for key in ("phase", "fold", "arm", "seed")},
                    "finetune": run.get("finetune", 0),
                    "steps_planned": run.get("steps"),
                    **{key: run.get(key) for key in ("start", "init", "conditioning")},
                    "status": status,
                    **{
                        key: _number(done.get(key))
                        for key in ("steps", "wall_seconds", "updates", "parameters")
                    },
                }
            )
        names = (
            "run phase fold arm seed finetune steps_planned start init conditioning status steps "
            "wall_seconds updates parameters"
        )
        return pd.DataFrame(rows, columns=names.split())

    # --- inside ------------------------------------------------------------------------------------

    def records(self) -> list[dict[str, Any]]:
        """What was recorded of every run that has its result."""
        found = [self._done(run_id) for run_id in self._planned]
        return [done for done in found if done is not None and done["status"] in COMPLETE]

    def _chosen(self, run_ids: Iterable[str] | None) -> dict[str, dict[str, Any]]:
        """Entries of runs, in the plan's order."""
        wanted = None if run_ids is None else {*run_ids}
        return {i: run for i, run in self._planned.items() if wanted is None or i in wanted}

    def _run_directory(self, run_id: str) -> Path:
        if run_id not in self._planned:
            raise StoreError(f"run {run_id!r} is not in {self.directory / 'plan.json'}")
        return self.directory / "runs" / run_id

    def _status(self, run_id: str) -> str:
        done = self._done(run_id)
        if done is not None:
            return done["status"]
        return "started" if self._run_directory(run_id).is_dir() else "missing"

    def _done(self, run_id: str) -> dict[str, Any] | None:
        loose, packed = self._loose(run_id), self._packed(run_id)
        if loose is None or packed is None:
            return packed if loose is None else loose
        if loose != packed:
            what = "; ".join(differences([loose, packed]))
            raise StoreError(
                f"run {run_id!r} has two results, in {self._run_directory(run_id)} and in "
                f"{self.shard(RECORDS, self._cohort_of[run_id])}, which differ in {what}: remove the one "
                "that is not the plan's"
            )
        return loose

    def _packed(self, run_id: str) -> dict[str, Any] | None:
        return self._records(self._cohort_of[self._run_directory(run_id).name]).get(run_id)

    def _only_packed(self, run_id: str) -> bool:
        """Whether a run's result is packed and does not lie there loose too."""
        return self._packed(run_id) is not None and self._loose(run_id) is None

    def _records(self, number: int) -> dict[str, Any]:
        """Packed records of a cohort by run; empty if it is not packed."""
        return self._read(self.shard(RECORDS, number), RECORD_COLUMNS, number)

    def _packed_rows(self, run_id: str) -> list[dict[str, Any]]:
        number = self._cohort_of[run_id]
        path = self.shard(ROWS, number)
        if not path.is_file():
            raise StoreError(f"{path} is gone, whose runs are complete by {self.shard(RECORDS, number)}")
        found: list[dict[str, Any]] = self._read(path, ROW_COLUMNS, number).get(run_id, [])
        return found

    def _read(self, path: Path, columns: Mapping[str, str], number: int) -> dict[str, Any]:
        """What is packed in a file, by run; read again only when it is another."""
        if not path.is_file():
            return {}
        told = path.stat()
        stamp = told.st_mtime_ns, told.st_size, told.st_ino
        if path not in self._unpacked or self._unpacked[path][0] != stamp:
            most = len(self.cohorts[number]) if columns is RECORD_COLUMNS else self._most_rows(number)
            advice = f"restore it, or remove {self.shard(ROWS, number)} and {self.shard(RECORDS, number)}"
            try:
                from harness.parquet import decoded  # as above

                table = decoded(path, columns, most)
            except ValueError as error:
                raise StoreError(f"{path} cannot be read: {error}; {advice} and run again") from None
            check = self._checked_records if columns is RECORD_COLUMNS else self._by_run
            self._unpacked[path] = stamp, check(table, number, str(path), f"{advice} and run again")
        return self._unpacked[path][1]

    def _checked_records(
        self, table: Sequence[Mapping[str, Any]], number: int, where: str, advice: str
    ) -> dict[str, Any]:
        """Packed records by run.

        Raises:
            StoreError: if they are not those of complete runs, each run of the cohort once.
        """
        found = {}
        for place, columns in enumerate(table, 1):
            try:
                record = _from_columns(columns)
            except ValueError as error:
                raise StoreError(
                    f"{where}, row {place}: more is no JSON object ({error}); {advice}"
                ) from None
            if wrong := _PACKED_RECORD(record):
                raise StoreError(f"{where}, row {place}: the record{wrong}; {advice}")
            found[record["run"]] = record
        if [row["run"] for row in table] != self.cohorts[number]:
            raise StoreError(f"{where} does not hold the runs of cohort {number}, each once; {advice}")
        return found

    def _by_run(
        self, table: Sequence[Mapping[str, Any]], number: int, where: str, advice: str
    ) -> dict[str, Any]:
        """Packed rows by run.

        Raises:
            StoreError: if one is no row of a run of the cohort, or contradicts another.
        """
        found: dict[str, list[tuple[int, Any]]] = {i: [] for i in self.cohorts[number]}
        for place, row in enumerate(table, 1):
            if row["run"] not in found:
                raise StoreError(f"{where}, row {place}, is of no run of cohort {number}; {advice}")
            found[row["run"]].append((place, row))
        return {i: self._agreeing(i, rows, where, advice, "row") for i, rows in found.items()}

    def _loose(self, run_id: str) -> dict[str, Any] | None:
        path = self._run_directory(run_id) / "done.json"
        if not path.is_file():
            return None
        try:
            done = _read_json(path)
        except FileNotFoundError:  # another process has just taken it away
            return None
        if not isinstance(done, dict) or done.get("status") not in STATUSES[2:]:
            raise StoreError(
                f"{path} has no valid status ({', '.join(STATUSES[2:])}); "
                f"remove {path.parent} and run again"
            )
        if wrong := _RECORD(done):
            raise StoreError(f"{path}: the record{wrong}; remove {path.parent} and run again")
        if done.get("run", run_id) != run_id:
            raise StoreError(f"{path} belongs to run {done['run']!r}, not to {run_id!r}")
        return done

    def _rows(self, run_id: str) -> list[dict[str, Any]]:
        # also if they lie there loose, which may be only a part: they are being removed
        if self._packed(run_id) is not None:
            return self._packed_rows(run_id)
        path = self._run_directory(run_id) / "rows.jsonl"
        if not path.is_file():
            return []
        complete = self._status(run_id) in COMPLETE  # before they are read: they may be being written
        try:
            lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
        except FileNotFoundError:  # another process has just begun the run again
            return []
        # a whole row ends in a newline, so what stands behind the last one was torn by a kill
        torn = lines.pop()
        advice = f"remove {path.parent} and run again"
        rows = self._checked(run_id, lines, str(path), advice)
        if torn and complete:
            raise StoreError(f"{path} ends in a torn line although its run is marked complete; {advice}")
        return rows

    @classmethod
    def _checked(cls, run_id: str, lines: Iterable[str], where: str, advice: str) -> list[dict[str, Any]]:
        """The rows that lines hold.

        Raises:
            StoreError: for one that is no row of the run, or that contradicts another.
        """

        def rows() -> Iterator[tuple[int, dict[str, Any]]]:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    row = {"code": CODES[0], **parsed(line)}  # rows of plans of format 1 have none
                except (ValueError, TypeError) as error:
                    raise StoreError(
                        f"{where}, line {number}, is no JSON row ({error}); {advice}"
                    ) from None
                yield number, row

        return cls._agreeing(run_id, rows(), where, advice, "line")

    @staticmethod
    def _agreeing(
        run_id: str, numbered: Iterable[tuple[int, Mapping[str, Any]]], where: str, advice: str, unit: str
    ) -> list[dict[str, Any]]:
        """Rows with their numbers, all of them right.

        Raises:
            StoreError: for one that is no row of the run, or that contradicts another.
        """
        rows: list[dict[str, Any]] = []
        seen: dict[tuple[int, str, str], dict[str, Any]] = {}
        for number, row in numbered:
            place = f"{where}, {unit} {number}"
            missing, unknown = set(ROW_COLUMNS) - set(row), set(row) - set(ROW_COLUMNS)
            if missing:
                raise StoreError(f"{place}, lacks {', '.join(sorted(missing))}")
            if unknown or row["code"] not in CODES:
                names = ", ".join(map(repr, sorted(unknown)))
                bad = f"columns {names}" if unknown else f"code {row['code']!r}"
                raise StoreError(
                    f"{place}, has unknown {bad}; was it written by another version? "
                    f"Known columns: {', '.join(ROW_COLUMNS)}; codes: {', '.join(CODES)}"
                )
            if row["run"] != run_id:
                raise StoreError(f"{place}, belongs to run {row['run']!r}, not to {run_id!r}")
            for key, kind in ROW_COLUMNS.items():
                if not _is(row[key], kind):
                    raise StoreError(f"{place}: {key} is {row[key]!r}, no {KINDS[kind]}")
            row = {key: row[key] for key in ROW_COLUMNS}
            of = row["checkpoint"], row["task"], row["code"]
            if seen.setdefault(of, row) != row:
                raise StoreError(
                    f"{place}, contradicts an earlier row of checkpoint {of[0]}, task {of[1]!r} and code "
                    f"{of[2]!r}; {advice}"
                )
            rows.append(row)
        return rows


_MEASURED = ("steps", "wall_seconds", "updates", "parameters", "cohort_runs")
_ENTRIES = {
    "run": text,
    "backend": text,
    "rows_sha256": text,
    **dict.fromkeys(_MEASURED, maybe(finite(0.0))),
}
_RECORD = entries(_ENTRIES)
"""What is read of a run's record, and of which kind it is."""
_PACKED_RECORD = entries({**_ENTRIES, "status": one_of(*COMPLETE)}, ("run", "status", "rows_sha256"))
"""The same of one that is packed, which is complete."""


def _to_columns(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as :data:`RECORD_COLUMNS` hold it."""
    types = {"str": str, "int64": int, "float64": float}
    plain = {
        name: record[name]
        for name, kind in RECORD_COLUMNS.items()
        if name != "more" and type(record.get(name)) is types[kind]
    }
    more = {name: value for name, value in record.items() if name not in plain}
    return {**dict.fromkeys(RECORD_COLUMNS), **plain, "more": json.dumps(more, sort_keys=True)}


def _from_columns(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The record that :func:`_to_columns` was given.

    Raises:
        ValueError: if ``more`` is no JSON object.
    """
    more = parsed(columns["more"] or "")
    if not isinstance(more, dict):
        raise ValueError(f"it is a {type(more).__name__}")
    plain = {name: value for name, value in columns.items() if name != "more" and value is not None}
    return {**more, **plain}


def _dumps(value: Mapping[str, Any], indent: int | None = None) -> str:
    return json.dumps(_plain(value), allow_nan=False, indent=indent)


def _plain(value: Any) -> Any:
    """JSON types only: NumPy scalars unwrapped, NaN and infinities to ``None``."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item") and getattr(value, "ndim", 0) == 0:
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _is(value: Any, kind: str) -> bool:
    """Whether a value of a JSON row is of its column's kind; null is a number that is not finite."""
    if kind == "str":
        return not text(value)
    if kind == "bool" or isinstance(value, bool):
        return kind == "bool" and isinstance(value, bool)
    if kind == "int64":
        return isinstance(value, int) and abs(value) <= LARGEST
    return value is None or not finite()(value)


def _force_directory(path: Path) -> None:
    """Has the names in a directory on the disk itself."""
    place = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(place)
    finally:
        os.close(place)


def _sha256(path: Path) -> str:
    """Of a file's lines, whatever their order."""
    return _sha256_of(path.read_bytes().splitlines() if path.is_file() else [])


def _sha256_of(lines: Iterable[bytes]) -> str:
    return hashlib.sha256(b"\n".join(sorted(lines))).hexdigest()


def _number(value: Any) -> float:
    return float(value) if isinstance(value, (int, float)) else math.nan


def _read_json(path: Path) -> Any:
    try:
        return parsed(path.read_bytes())
    except ValueError as error:
        what = "restore it" if path.name == "plan.json" else f"remove {path.parent} and run again"
        raise StoreError(f"{path} is no JSON: {error}; {what}") from None
