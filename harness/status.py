"""How far the training of a plan is, told from its directory alone."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from pathlib import Path

from harness.bookmark import Bookmark
from harness.lock import holder, lock_path
from harness.plan import load_plan
from harness.store import COMPLETE, Store


@dataclasses.dataclass(frozen=True)
class Status:
    """How far a plan is."""

    runs: dict[str, int]
    """Number of runs by status, of :data:`harness.store.STATUSES`."""
    running: dict[str, tuple[str, int]]
    """Cohorts that a process trains now, by their first run: which process, and how many runs."""
    failed: dict[str, str]
    """Runs that have failed, each with the last line of why."""
    steps: int
    """Control steps of all runs."""
    steps_left: int
    """Of these, those that are not trained yet, as far as it is stored."""
    device: str
    """Where the last run that has a result was trained; ``"cpu"`` if none has."""
    hours_left: float
    """Estimated from what was trained, with as many processes as there are now; NaN if nothing was."""


def status_of(directory: Path) -> Status:
    """Reads how far a plan is; what is trained meanwhile may be newer.

    Args:
        directory: of the plan.

    Raises:
        harness.plan.PlanError: if there is no plan.
    """
    plan, store = load_plan(directory), Store(directory)
    status = store.status()
    steps = {run["id"]: int(run["steps"]) for run in plan["runs"]}
    running = {}
    for cohort in plan["cohorts"]:
        if (who := holder(lock_path(directory, cohort))) is not None:
            running[cohort[0]] = (who, len(cohort))
    records = store.records()
    # what is under way, as far as it is saved
    under_way = [
        (len(missing), *Bookmark(directory, store, cohort, missing, {}).trained())
        for cohort in plan["cohorts"]
        if (missing := [i for i in cohort if status[i] not in COMPLETE])
    ]
    spent = sum(record.get("wall_seconds") or 0.0 for record in records)
    trained = sum(record.get("steps") or 0 for record in records)
    left = sum(steps[i] for i, of in status.items() if of not in COMPLETE)
    for runs, reached, seconds in under_way:
        spent, trained, left = spent + seconds, trained + runs * reached, left - runs * reached
    return Status(
        runs=dict(Counter(status.values())),
        running=running,
        failed={i: _why(directory, i) for i, of in status.items() if of == "failed"},
        steps=sum(steps.values()),
        steps_left=max(0, left),
        device=next((str(record["device"]) for record in reversed(records) if "device" in record), "cpu"),
        hours_left=left * spent / trained / max(1, len(running)) / 3600 if trained else float("nan"),
    )


def _why(directory: Path, run_id: str) -> str:
    done = json.loads((directory / "runs" / run_id / "done.json").read_text())
    lines = str(done.get("error", "")).strip().splitlines()
    return lines[-1] if lines else "without a word"
