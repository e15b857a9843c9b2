"""Where cohorts are trained: in this process, or several at a time in processes of their own."""

from __future__ import annotations

import contextlib
import ctypes
import math
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import torch

EXIT_SECONDS = 5.0
"""How long a process that is ending is waited for."""

STOPS = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGTERM})
"""Signals that ask to stop."""
GRACE_SECONDS = 2.0
"""How long those that are asked to stop are given, to save where they are."""

Progress = Callable[[int], object]
"""Called with control steps just trained."""


def give_back_memory() -> None:
    """Returns what was freed to the system, where the C library would keep it.

    A world's memory is reserved by megabytes, of which it touches little. The C library keeps what worlds
    free, and gives it out again cut otherwise, so that from cohort to cohort more of it was touched once:
    with bipeds a quarter of a gigabyte each time.
    """
    with contextlib.suppress(AttributeError, OSError):  # glibc alone has it
        ctypes.CDLL(None).malloc_trim(0)


def use_one_torch_thread() -> None:
    """Leaves the other cores to the physics, unless the user has set OMP_NUM_THREADS.

    PyTorch's threads wait for each other by spinning. These matrices are so small that the waiting,
    against MuJoCo's threads and whatever else runs, costs more than the second core brings: one run of
    56 worlds was seen to train 50 times slower with two threads than with one.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(1)


class Flag:
    """What can be set in a signal's handler, which an event with its lock cannot."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        """Sets it."""
        self._set = True

    def is_set(self) -> bool:
        """Whether it is."""
        return self._set


class Workers:
    """Calls functions, several at a time in processes of their own, or one at a time in this one.

    Args:
        count: how many at a time.
        apart: never in this process.
    """

    def __init__(self, count: int, apart: bool = False) -> None:
        self.count = count
        self._apart = apart or count > 1
        # one process each, so that one that dies takes no other's work along
        self._idle: list[ProcessPoolExecutor] = []
        self._busy: dict[Future[Any], ProcessPoolExecutor] = {}
        # of calls that were broken off, until somebody asks how
        self._broken: dict[Future[Any], ProcessPoolExecutor] = {}
        self._steps: Any = None
        self._stop: Any = Flag()

    def __enter__(self) -> Workers:
        use_one_torch_thread()
        if self._apart:
            # not forked: a copy of this process would hold locks of threads that it does not have
            self._context = multiprocessing.get_context("spawn")
            self._steps, self._stop = self._context.SimpleQueue(), self._context.Event()
        return self

    def __exit__(self, kind: Any, *rest: Any) -> None:
        try:
            if kind is not None and self._apart:
                self._stop.set()
                wait(self._busy, timeout=GRACE_SECONDS)
        finally:
            for pool in (*self._idle, *self._busy.values()):
                if kind is not None:  # it had its time
                    for process in list((pool._processes or {}).values()):
                        process.kill()
                pool.shutdown(cancel_futures=True)

    @staticmethod
    def threads(running: int) -> int:
        """Threads for the physics of each of so many calls; 0 for all processors."""
        return 0 if running == 1 else max(1, (os.cpu_count() or 1) // running)

    def submit(
        self, function: Callable[..., Any], *args: Any, progress: Progress | None = None
    ) -> Future[Any]:
        """Begins a call, or, if it is one at a time, ends it too."""
        if self._apart:
            self._reclaim()
            pool = self._idle.pop() if self._idle else self._process()
            with _without_interrupts():
                started = pool.submit(function, *args, *([_send_steps] if progress else []))
            self._busy[started] = pool
            return started
        future: Future[Any] = Future()
        try:
            with _interrupts_ask(self._stop):
                future.set_result(function(*args, *([progress] if progress else [])))
        except Exception as error:
            future.set_exception(error)
        return future

    def exit_code(self, futures: Iterable[Future[Any]]) -> str:
        """How the first process ended of those calls that were broken off, as the end of a sentence."""
        for future in futures:
            if future.done() and isinstance(future.exception(), BrokenProcessPool):
                # private, but there is no other way to learn it
                pool = self._broken.pop(future, None) or self._busy[future]
                for process in (pool._processes or {}).values():
                    until = time.monotonic() + EXIT_SECONDS
                    process.join(EXIT_SECONDS)
                    # the pool's own thread waits for the process too: whoever is second learns nothing
                    # before the first has noted the code
                    while process.exitcode is None and time.monotonic() < until:
                        time.sleep(0.01)
                    if (code := process.exitcode) is not None:
                        why = " (most likely for want of memory)" * (code == -signal.SIGKILL)
                        return f", by signal {-code}{why}" if code < 0 else f", with exit code {code}"
        return ""

    def _process(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(1, self._context, initializer=_begin, initargs=(self._steps, self._stop))

    def _reclaim(self) -> None:
        """Takes back the processes whose calls have ended."""
        for future in [future for future in self._busy if future.done()]:
            pool = self._busy.pop(future)
            if isinstance(future.exception(), BrokenProcessPool):
                self._broken[future] = pool  # it has no process any more
            else:
                self._idle.append(pool)

    def wait(
        self, futures: Iterable[Future[Any]], progress: Progress | None, seconds: float = math.inf
    ) -> set[Future[Any]]:
        """Waits for any of the calls, or for so long, handing their progress on."""
        until = time.monotonic() + seconds
        while True:
            done = wait(futures, timeout=0.2, return_when=FIRST_COMPLETED).done
            while self._steps is not None and not self._steps.empty():
                steps = self._steps.get()
                if progress is not None:
                    progress(steps)
            if done or time.monotonic() >= until:
                return done


_steps: Any = None
"""In a worker process: where steps trained are reported."""
_asked: Any = None
"""Where functions that are called look whether they are to stop: an event, or nothing."""


def asked_to_stop() -> bool:
    """Whether who is called by a worker shall save where it is and raise ``KeyboardInterrupt``."""
    return _asked is not None and _asked.is_set()


@contextlib.contextmanager
def _interrupts_ask(stop: Flag) -> Iterator[None]:
    """Lets the first Ctrl-C ask to stop, and a second one, or the end of the time given, interrupt."""
    global _asked
    if threading.current_thread() is not threading.main_thread():  # which alone may handle signals
        yield
        return
    # a signal indeed, for it is to wake what sleeps
    again = (threading.main_thread().ident, signal.SIGINT)
    timer = threading.Timer(GRACE_SECONDS, signal.pthread_kill, again)
    timer.daemon = True

    def ask(number: int, frame: Any) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        timer.start()

    _asked, before = stop, signal.signal(signal.SIGINT, ask)
    try:
        yield
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)
        _asked = None
    if stop.is_set():  # too late for the call to notice, but no other is to begin
        raise KeyboardInterrupt


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Keeps what asks to stop from the processes that are started here: it is sent to all, we tell them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(queue: Any, stop: Any) -> None:
    global _steps, _asked
    _steps, _asked = queue, stop
    for number in STOPS:
        signal.signal(number, lambda *_: None)
    # what an agent starts is ended as usual
    os.register_at_fork(after_in_child=_end_as_usual)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
    # one that outlived a killed command would write beside those that go on with its plan
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_as_usual() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in STOPS - {signal.SIGINT}:
        signal.signal(number, signal.SIG_DFL)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _send_steps(steps: int) -> None:
    _steps.put(steps)
