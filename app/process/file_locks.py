"""Locks on files, by `flock(2)`. The kernel releases a lock when the process that holds it ends, even by SIGKILL."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

CREATE = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def try_lock(path: Path, flags: int = CREATE) -> int | None:
    """Lock a file and return the descriptor that holds the lock until it is closed; None if the file is locked already.

    flags: those of `os.open`; by default a missing file is created.
    The call never waits: that would block the event loop, and with it perhaps the greenlet that holds the lock.
    Raises OSError if the file cannot be opened or locked at all.
    """
    fd = os.open(path, flags, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd
