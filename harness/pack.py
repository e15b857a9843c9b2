"""Packs what a plan's training has left, to be published: small, and read as if it were not packed.

A cohort is packed once, when all its runs have their results, into a file of rows and one of records
(:meth:`harness.store.Store.pack`), and never written again: what is committed often grows by what is new.
Rows come back bit for bit, so that every run's ``rows_sha256`` still holds.
"""

from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from baselines.checkpoint import FACTS, STRIPPED, copy_checkpoint, read_facts
from harness.lock import lock_path, locked
from harness.measures import damaged_runs
from harness.plan import write_plan
from harness.run import checkpoint_path
from harness.store import COMPLETE, Store, StoreError, UnpackableError, owned

PART, OLD = "part", "old"
"""Endings of a network that is being copied, and of the one in whose place it goes."""


@dataclasses.dataclass(frozen=True)
class Packed:
    """What was packed."""

    new: int
    """Cohorts that were packed now."""
    before: int
    """Cohorts that were packed already."""
    runs: int
    """Runs in all of them."""
    size: int
    """Bytes of what was packed now."""
    left: Mapping[int, str]
    """Cohorts, by their number, that are not packed, and why."""
    networks: int
    """Networks that are there now."""
    networks_size: int
    """Bytes of these."""


def pack(directory: Path, out: Path | None = None, networks: int | None = None) -> Packed:
    """Packs all cohorts of a plan that have their results, and thins out the networks if that is asked for.

    In place, what is packed is removed where it lay loose, once it has been read again from where it is
    packed. Into another directory all is copied, and the first is left as it is.

    Args:
        directory: of the plan; what others train there meanwhile is left to them.
        out: directory to pack into: new, or of the same plan; ``None`` for in place.
        networks: seeds of which networks that others start from are kept for every phase, fold and arm, and
            the first of every arm that learns a task; all without the optimiser's state, unless the plan
            hands that on; a target loses what it has more. ``None`` for all networks that there are, as
            they are.

    Raises:
        StoreError: if the plan was edited, rows were changed after their run was finished, what is packed
            already is another result, or a link is in the way.
        harness.plan.PlanError: if ``out`` holds something else.
        ValueError: for a negative number of networks.
    """
    if networks is not None and networks < 0:
        raise ValueError(f"networks must not be negative, got {networks}")
    source = Store(directory)
    source.check_frozen()
    if changed := source.changed():
        raise StoreError(
            f"rows of {changed[0]} are not those that it was finished with, so nothing is packed: restore "
            f"them, or remove {source.place(changed[0])} and run again"
        )
    if out is not None and not _same(out, directory):
        write_plan(source.plan, out)
        target = Store(out)
    else:
        target = source
    damaged = damaged_runs(source.evaluations(), source.runs(), source.plan)
    left: dict[int, str] = {}
    new = before = runs = size = 0
    for number, cohort in enumerate(source.cohorts):
        was = target.packed(number)
        written, why = _pack_cohort(source, target, number, damaged)
        if why:
            left[number] = why
            continue
        runs, size = runs + len(cohort), size + written
        new, before = new + (not was), before + was
    kept = _copy_networks(source, target, networks, damaged)
    return Packed(new, before, runs, size, left, len(kept), sum(map(_size, kept)))


def _same(out: Path, directory: Path) -> bool:
    return out.exists() and os.path.samefile(out, directory)


def _pack_cohort(source: Store, target: Store, number: int, damaged: Mapping[str, str]) -> tuple[int, str]:
    """Packs a cohort, if that can be done: bytes written, and why it was not done."""
    cohort = source.cohorts[number]
    with locked(lock_path(source.directory, cohort)) as mine:
        if not mine:
            return 0, "it is being trained"
        status = source.status(cohort)
        if missing := [i for i in cohort if status[i] not in COMPLETE]:
            return 0, f"{len(missing)} of its {len(cohort)} runs have no result"
        if lost := [i for i in cohort if i in damaged]:
            return 0, f"{lost[0]}: {damaged[lost[0]]}"
        lines = {i: source.lines(i) for i in cohort}
        records = {i: source.record(i) or {} for i in cohort}
        written = 0
        if not target.packed(number):
            try:
                written = target.pack(number, records, lines)
            except UnpackableError as error:
                return 0, str(error)
        if odd := [i for i in cohort if not _agrees(target, i, records[i], lines[i])]:
            if not written:
                raise StoreError(
                    f"run {odd[0]!r} is packed in {target.directory} with another result than in "
                    f"{source.directory}: remove the one that is not the plan's"
                )
            # of before rows were written as they are now, or by another program
            target.unpack(number)
            return 0, f"{odd[0]}: its rows or record would not come back as they are"
        if target is source:
            for run_id in cohort:
                _remove_loose(source, run_id)
            _remove_empty(source.directory / "runs")
    return written, ""


def _agrees(target: Store, run_id: str, record: Mapping[str, Any], lines: list[str]) -> bool:
    return target.packed_record(run_id) == record and target.packed_lines(run_id) == lines


def _remove_loose(store: Store, run_id: str) -> None:
    """Removes what of a packed run lies there loose."""
    directory = owned(store.directory, store.directory / "runs" / run_id)
    # first: while it is there, the rest is taken for a whole run, also if we are killed in between
    owned(store.directory, directory / "done.json").unlink(missing_ok=True)
    if directory.exists():
        shutil.rmtree(directory)


def _remove_empty(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


# --- networks --------------------------------------------------------------------------------------


def kept_networks(plan: Mapping[str, Any], networks: int) -> list[str]:
    """Runs whose networks are kept for publication, in the plan's order.

    Args:
        plan: the plan.
        networks: as of :func:`pack`.
    """
    starts = {run["start"] for run in plan["runs"]}
    found, shown = [], set()
    for run in plan["runs"]:
        handed_on = run["phase"] == "pretrain" or run["id"] in starts
        # anyone makes the others anew from what is handed on, in minutes
        learned = run["phase"] != "pretrain" and run["arm"] not in shown
        if learned:
            shown.add(run["arm"])
        if (handed_on and run["seed"] < networks) or learned:
            found.append(run["id"])
    return found


def _copy_networks(
    source: Store, target: Store, networks: int | None, damaged: Iterable[str]
) -> list[Path]:
    """Has the networks that are kept in the target, and no others if a number is asked for; where they are.

    Of a cohort that is being trained nothing is touched or copied.
    """
    plan = source.plan
    moments = {run["start"] for run in plan["runs"] if "keep_optimizer" in run.get("switches", ())}
    kept = None if networks is None else {*kept_networks(plan, networks)}
    # what is still to be trained, or is to be trained again, needs them as they are
    again = {*damaged, *(i for i, told in source.status().items() if told not in COMPLETE)}
    waiting = {run["start"] for run in plan["runs"] if run["id"] in again} if target is source else set()
    found = []
    for cohort in source.cohorts:
        with locked(lock_path(source.directory, cohort)) as mine:
            for run_id in cohort:
                if mine:
                    _recover(target, run_id)
                path, there = _network(target, run_id), _is_network(_network(source, run_id))
                if not mine:
                    pass
                elif kept is None or run_id in kept or run_id in waiting:
                    whole = kept is None or run_id in moments or run_id in waiting
                    done = target is source and (whole or (there and STRIPPED in _facts(target, run_id)))
                    if there and not done:
                        _copy(source, target, run_id, whole)
                elif path.is_dir():
                    shutil.rmtree(owned(target.directory, path))
                if _is_network(path):
                    found.append(path)
    _remove_empty(target.directory / "checkpoints")
    return found


def _copy(source: Store, target: Store, run_id: str, whole: bool) -> None:
    """Puts a network in the target's place, where one is there all the time that can be helped.

    If we are killed between the two renames, :func:`_recover` puts the old one back.
    """
    path = owned(target.directory, _network(target, run_id))
    part, old = (owned(target.directory, path.with_name(f"{path.name}.{end}")) for end in (PART, OLD))
    copy_checkpoint(owned(source.directory, _network(source, run_id)), part, moments=whole)
    if path.is_dir():
        os.rename(path, old)
    os.rename(part, path)
    if old.is_dir():
        shutil.rmtree(old)


def _recover(store: Store, run_id: str) -> None:
    """Mends what an earlier packing left behind that was killed while it copied a network."""
    path = _network(store, run_id)
    part, old = (path.with_name(f"{path.name}.{end}") for end in (PART, OLD))
    if part.is_dir():
        shutil.rmtree(owned(store.directory, part))
    if old.is_dir() and path.is_dir():
        shutil.rmtree(owned(store.directory, old))
    elif old.is_dir():
        os.rename(owned(store.directory, old), owned(store.directory, path))


def _facts(store: Store, run_id: str) -> dict[str, Any]:
    return read_facts(owned(store.directory, _network(store, run_id)))


def _is_network(path: Path) -> bool:
    return (path / FACTS).is_file()


def _network(store: Store, run_id: str) -> Path:
    return checkpoint_path(store.directory, run_id)


def _size(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
