"""A clock around the physics inside an environment."""

from __future__ import annotations

import time
from typing import Any

from mtenvs.backends.mujoco_batch import BatchBackend


class Clock:
    """Stands in for a ``mujoco.batch.Batch`` and adds up the time that its ``step`` takes."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.seconds = 0.0
        """Time inside ``step`` so far; set it to 0 to begin anew."""

    @classmethod
    def of(cls, backend: BatchBackend) -> Clock:
        """Puts a clock into the worlds of one topology."""
        clock = backend._batch = cls(backend._batch)  # not public: a benchmark may look
        return clock

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Steps the batch on the clock."""
        started = time.perf_counter()
        result = self._batch.step(*args, **kwargs)
        self.seconds += time.perf_counter() - started
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)
