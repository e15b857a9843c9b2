"""One process at a time for each cohort, whoever started it.

    DIR/locks/<first run>    there while a process trains the cohort; says which one

The lock is the operating system's, on the open file: it ends with the process that holds it, however that
ends, so that nobody has to guess whether a file that was left behind still means something.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.store import RETRIES, StoreError, made, owned

UNABLE = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP})
"""What file systems without locks say."""


def lock_path(directory: Path, cohort: Sequence[str]) -> Path:
    """Where the lock of a cohort is.

    Raises:
        harness.store.StoreError: if that leads out of the plan's directory.
    """
    return owned(directory, directory / "locks" / cohort[0])


@contextlib.contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Takes a lock, if nobody has it.

    Args:
        path: of the file, made if it is missing; it goes when the lock is given back.

    Yields:
        Whether it was taken.
    """
    file = _opened(path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            if error.errno not in UNABLE:
                raise
            raise StoreError(
                f"{path.parent} is on a file system without locks, so that two processes could train the "
                "same runs: put the experiment on one that has them, such as a disk of this machine"
            ) from None
        if not _is(path, file):  # it was given back, and its file removed, between opening and locking
            yield False
            return
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {platform.node()}\n".encode())
        try:
            yield True
        finally:
            path.unlink(missing_ok=True)  # while it is held: nobody can have taken it
            with contextlib.suppress(OSError):  # others are there
                path.parent.rmdir()
    finally:
        os.close(file)


def _opened(path: Path) -> int:
    for _ in range(RETRIES):
        # who gives the last lock back removes the directory
        with contextlib.suppress(FileNotFoundError):
            return os.open(made(path.parent) / path.name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)


def holder(path: Path) -> str | None:
    """Who has a lock, such as ``process 12 on here``; ``None`` if nobody does."""
    try:
        # of what a stranger put there, a pipe for instance, nothing is waited for
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:  # it is gone, or is no lock
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.read(file, 1000).decode(errors="replace").strip()
    finally:
        os.close(file)
    return None


def _is(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(file))
    except FileNotFoundError:
        return False
