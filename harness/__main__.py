"""``python -m harness`` is ``mtenvs``."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import NoReturn

TRAIN = (
    *("matplotlib", "pandas", "psutil", "pyarrow", "rich", "safetensors", "scipy", "seaborn", "sklearn"),
    *("stable_baselines3", "statsmodels", "torch", "tyro"),
)
"""Modules that the extra ``train`` brings."""


INTERRUPTED = 130
"""What shells give a command that Ctrl-C ended."""


def main() -> None:
    """Runs the command line, or says what it needs: the environments alone install without it."""
    try:
        with _interrupts_end():
            from harness.cli import main as run
    except ModuleNotFoundError as error:
        _say_what_is_needed(error)
    except RuntimeError as error:
        if "MUJOCO_GL" not in str(error):
            raise
        # mujoco refuses to be imported, whether or not anything is to be drawn
        sys.exit(f"mtenvs: {error}; valid: egl, osmesa, glfw, disable, or leave it unset")
    try:
        run()
    except ModuleNotFoundError as error:  # psutil is imported where it is used
        _say_what_is_needed(error)


def _say_what_is_needed(error: ModuleNotFoundError) -> NoReturn:
    """Ends with what to install; any other module is a mistake, as in a family file of one's own."""
    if (error.name or "").split(".")[0] not in TRAIN:
        raise error
    sys.exit(f"mtenvs: the command line needs {error.name}: pip install 'mtenvs[train]'")


@contextlib.contextmanager
def _interrupts_end() -> Iterator[None]:
    """Lets Ctrl-C end the process at once while nothing has begun.

    Imports take seconds, and an exception raised in their midst may be caught by whoever is imported.
    """
    is_usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if not is_usual or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(INTERRUPTED))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


if __name__ == "__main__":
    main()
