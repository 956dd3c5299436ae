"""The kernel's lock on a file, which it lets go of with its holder, however that ends."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

CREATED = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC


def try_lock(path: Path, flags: int = CREATED) -> int | None:
    """A descriptor that holds the lock until it is closed; None while another holds it.

    It never waits: blocking in the kernel would stop a hub, and with it perhaps the lock's holder. Raises OSError
    where the file cannot be opened or locked at all.
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
