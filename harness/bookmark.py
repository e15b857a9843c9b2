"""Where a cohort's training stands, so that a killed one goes on as if nothing had happened.

    DIR/resume/<first run>/0 and 1    state of learner and worlds, and how many rows each run had then

A bookmark is written between two rollouts, the older of the two over, so that there is always a whole one;
both go when their cohort is finished. Rows that were stored after it are cut off when it is taken up again,
for they will be written again, the same.
"""

from __future__ import annotations

import contextlib
import dataclasses
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from baselines.checkpoint import load_state, read_facts, save_state
from harness.schema import Check, each, entries, number, of_names, only, text, whole
from harness.store import Store, content_hash, made, owned

SAVE_SECONDS = 60.0
"""How much of a training may be lost."""


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a training stands."""

    index: int = 0
    """Number of the checkpoint that it is on the way to."""
    seconds: float = 0.0
    """That it has taken so far."""
    interruptions: int = 0
    """How often it was taken up again."""
    before: tuple[Mapping[str, Any], ...] = ()
    """Circumstances of what was trained before it was taken up again, where they were others."""


_CIRCUMSTANCES = entries({"processor": text, "torch_threads": whole(1), "versions": of_names(text)})
_PLACE: dict[str, Check] = {
    "index": whole(0),
    "seconds": number(0.0),
    "interruptions": whole(0),
    "before": each(_CIRCUMSTANCES),
}
_KEPT = {"of": text, "number": whole(0), "rows": of_names(whole(0)), "place": only(_PLACE)}
_FACTS = entries({**_KEPT, "circumstances": _CIRCUMSTANCES}, (*_KEPT, "circumstances", "state"))
"""What a bookmark says of itself; else it is none."""


class Bookmark:
    """The bookmark of one cohort.

    Args:
        directory: of the plan.
        store: of the plan.
        cohort: ids of all its runs.
        missing: ids of those that have no result yet.
        circumstances: where it is trained, for its record.
        every: seconds between two bookmarks.
    """

    def __init__(
        self,
        directory: Path,
        store: Store,
        cohort: Sequence[str],
        missing: Sequence[str],
        circumstances: Mapping[str, Any],
        every: float = SAVE_SECONDS,
    ) -> None:
        self._directory, self.path = directory, directory / "resume" / cohort[0]
        self._places = (self.path / "0", self.path / "1")
        self._number = 0
        self._store, self._missing, self._every = store, list(missing), every
        # what the state must be of; the plan holds tasks, seeds, hyperparameters and the agent's version
        self._of = content_hash([store.plan["sha256"], list(cohort)])
        self._circumstances = dict(circumstances)
        self._last = time.monotonic()

    def _whole(self) -> list[Path]:
        """Where bookmarks are of the same runs of the same plan, with all their rows, the newest first."""
        found = []
        begun = all(status == "started" for status in self._store.status(self._missing).values())
        for place in self._places if begun else ():
            try:
                facts = read_facts(place)
            except (FileNotFoundError, ValueError):
                continue
            # some of its runs may have had their results since
            if _FACTS(facts) or facts["of"] != self._of or not {*self._missing} <= {*facts["rows"]}:
                continue
            if all(self._store.count(i) >= facts["rows"][i] for i in self._missing):
                found.append((facts["number"], place))
        return [place for _, place in sorted(found, reverse=True)]

    def due(self) -> bool:
        """Whether it is time for another one."""
        return time.monotonic() - self._last >= self._every

    def save(self, state: Any, place: Place) -> None:
        """Writes where training stands."""
        self._store.check_there()
        self._number += 1
        where = owned(self._directory, self._places[self._number % 2])
        shutil.rmtree(where, ignore_errors=True)
        made(where)
        for run_id in self._missing:
            self._store.force(run_id)
        rows = {run_id: self._store.count(run_id) for run_id in self._missing}
        facts = {"of": self._of, "number": self._number, "rows": rows, "place": dataclasses.asdict(place)}
        save_state(where, state, {**facts, "circumstances": self._circumstances})
        self._last = time.monotonic()

    def load(self) -> tuple[Any, Place] | None:
        """Reads the newest state that is whole, and cuts off rows that were stored after it.

        Returns:
            The state and where it stands; ``None`` if there is none that can be read.
        """
        for where in self._whole():
            try:
                state, facts = load_state(where)
            except (FileNotFoundError, ValueError):
                continue
            place = Place(**facts["place"])
            for run_id in self._missing:
                self._store.truncate(run_id, facts["rows"][run_id])
            self._last, self._number = time.monotonic(), facts["number"]
            before, made = list(place.before), facts["circumstances"]
            # with which the last digits would have been others
            if made not in (self._circumstances, *before):
                before.append(made)
            return state, dataclasses.replace(
                place, interruptions=place.interruptions + 1, before=tuple(before)
            )
        return None

    def trained(self) -> tuple[int, float]:
        """Control steps of each run when it was last saved, and seconds that these took; zero if never."""
        for place in self._whole():
            facts = read_facts(place)
            steps = facts["state"].get("steps") if isinstance(facts["state"], dict) else None
            if isinstance(steps, int):
                return steps, facts["place"]["seconds"]
        return 0, 0.0

    def remove(self) -> None:
        """Forgets it."""
        shutil.rmtree(owned(self._directory, self.path), ignore_errors=True)
        with contextlib.suppress(OSError):  # others are there
            self.path.parent.rmdir()
