"""A clock around the physics inside an environment."""

from __future__ import annotations

import time
from typing import Any

from mtenvs.backends.mujoco_batch import BatchBackend
from mtenvs.vector_env import TaskVectorEnv


class Clock:
    """Stands in for a ``mujoco.batch.Batch`` and adds up the time that its ``step`` takes."""

    def __init__(self, batch: Any) -> None:
        self._batch = batch
        self.seconds = 0.0
        """Time inside ``step`` so far; set it to 0 to begin anew."""

    @classmethod
    def of(cls, worlds: TaskVectorEnv | BatchBackend) -> Clock:
        """Puts a clock into worlds of one topology."""
        if isinstance(worlds, TaskVectorEnv):
            (group,) = worlds._groups  # not public: a benchmark may look where users should not
            worlds = group.backend
        clock = worlds._batch = cls(worlds._batch)
        return clock

    def step(self, *args: Any, **kwargs: Any) -> Any:
        """Steps the batch on the clock."""
        started = time.perf_counter()
        result = self._batch.step(*args, **kwargs)
        self.seconds += time.perf_counter() - started
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._batch, name)
