"""Locks on files, by `flock(2)`. The kernel releases a lock when the process that holds it ends, even by SIGKILL."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def try_lock(path: Path, flags: int = CREATE, *, shared: bool = False) -> int | None:
    """Lock a file and return the descriptor that holds the lock until it is closed; None if the file is locked already.

    flags: those of `os.open`; by default a missing file is created. shared: whether others may hold the lock too, if
    they ask for a shared one.
    The call never waits: that would block the event loop, and with it perhaps the greenlet that holds the lock.
    Raises OSError if the file cannot be opened or locked at all.
    """
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_locked(path: Path, *, shared: bool = False) -> bool:
    """Return whether a process holds the lock of this file. A missing file is not locked.

    shared: whether holders of a shared lock count. Without it, two processes that ask at the same moment do not take
    each other for a holder; with it, they may.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, (fcntl.LOCK_EX if shared else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def wait_for_lock(path: Path) -> int:
    """Lock a file, and wait until nobody else has it. Return the descriptor that holds the lock until it is closed.

    Only for processes without an event loop. Raises OSError if the file cannot be opened or locked at all.
    """
    fd = os.open(path, CREATE, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
    except BaseException:
        os.close(fd)
        raise
    return fd
