"""What the processes that train say of themselves."""

from __future__ import annotations

import time
from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from types import SimpleNamespace

import pytest

from harness import workers
from harness.workers import Workers


class Reaped:
    """A process that another thread waits for as well: that one notes its exit code a little later."""

    def __init__(self, code: int | None, seconds: float = 0.0) -> None:
        self._code, self._from = code, time.monotonic() + seconds

    def join(self, timeout: float) -> None:
        pass

    @property
    def exitcode(self) -> int | None:
        return self._code if time.monotonic() >= self._from else None


@pytest.mark.parametrize(
    ("process", "said"),
    [
        (Reaped(3), ", with exit code 3"),
        (Reaped(3, seconds=0.3), ", with exit code 3"),
        (Reaped(-9, seconds=0.3), ", by signal 9 (most likely for want of memory)"),
        (Reaped(None), ""),
    ],
    ids=["at once", "later", "signal", "never"],
)
def test_how_a_process_ended_is_said_whoever_waited_for_it(monkeypatch, process, said):
    monkeypatch.setattr(workers, "EXIT_SECONDS", 1.0)
    broken: Future[None] = Future()
    broken.set_exception(BrokenProcessPool())
    training: Future[None] = Future()
    pool = Workers(2)
    pool._busy = {broken: SimpleNamespace(_processes={1: process})}
    assert pool.exit_code([training, broken]) == said
