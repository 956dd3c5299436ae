"""The lame duck: the stack is about to stop, so that readiness answers 503, while requests are still answered.

The state is a lock on a file and not the file itself. Workers then need no message and no poll, it needs no space on
the disk, and it ends with the process that has announced it.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from tableside.process.file_locks import CREATE, try_lock

LOCK = "lame_duck.lock"
_GIVE_UP_S = 2.0


def announce(run_dir: Path) -> int:
    """Make readiness answer 503 until the returned descriptor is closed, at the latest when this process ends.

    Raises OSError if the lock's file can neither be opened nor made, and TimeoutError if another process has announced
    the same.
    """
    give_up_at_s = time.monotonic() + _GIVE_UP_S
    path = run_dir / LOCK
    flags = os.O_RDONLY | os.O_CLOEXEC if path.exists() else CREATE  # a read-only file system can still lock
    while (descriptor := try_lock(path, flags)) is None:
        if time.monotonic() >= give_up_at_s:
            raise TimeoutError(f"{path} is locked by another process")
        time.sleep(0.001)  # a worker that answers a probe holds the lock for some microseconds
    return descriptor


def is_announced(run_dir: Path) -> bool:
    """Return whether a process has announced the end of the stack. Takes some microseconds; never raises OSError."""
    try:
        descriptor = os.open(run_dir / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
