"""A small JSON object in a file that several processes change, each under a lock, so that no change is lost.

The space of the file is reserved when it is made, so that a full disk loses no later change. A change is one write of
the whole file: a process that is killed leaves either the old object or the new one, as long as it fits into one page.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson

RESERVED_BYTES = 4096
_LOCK_TRIES, _LOCK_PAUSE_S = 100, 0.002
"""A process that was stopped while it held the lock must not stop the others."""
Record = dict[str, Any]


def change(path: Path, work: Callable[[Record], bool]) -> bool:
    """Call `work` with the object, which it may change, while no other process does. It returns whether to write.

    A missing file is made, with its folder. An object that cannot be read is empty. Returns False, and changes nothing,
    where there is no space, or the lock is not free within a fifth of a second. Never raises OSError.
    """
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path, os.O_RDWR | os.O_CREAT, fcntl.LOCK_EX) as fd:
            record = _content(fd)
            return not work(record) or _write(fd, record)
    return False


def read(path: Path) -> Record:
    """Return the object; empty if there is none or it cannot be read. Never raises OSError."""
    with suppress(OSError), _locked(path, os.O_RDONLY, fcntl.LOCK_SH) as fd:
        return _content(fd)
    return {}


@contextmanager
def _locked(path: Path, flags: int, kind: int) -> Iterator[int]:
    """Raises OSError if the file cannot be opened, and TimeoutError, which is one, if its lock is not free."""
    fd = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        for attempt in range(_LOCK_TRIES):
            try:
                fcntl.flock(fd, kind | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if attempt == _LOCK_TRIES - 1:
                    raise TimeoutError(f"{path} is locked by another process") from None
                time.sleep(_LOCK_PAUSE_S)
        yield fd
    finally:
        os.close(fd)


def _content(fd: int) -> Record:
    with suppress(orjson.JSONDecodeError):
        found = orjson.loads(os.pread(fd, os.fstat(fd).st_size, 0))
        if isinstance(found, dict):
            return found
    return {}


def _write(fd: int, record: Record) -> bool:
    """Raises OSError if there is no space."""
    content = orjson.dumps(record)
    size = os.fstat(fd).st_size
    if len(content) > size or not size:
        wanted = max(RESERVED_BYTES, 2 * len(content))
        try:
            os.posix_fallocate(fd, 0, wanted)
        except OSError:
            os.ftruncate(fd, size)  # a part of the space would look like a file that has it
            raise
        size = wanted
    return os.pwrite(fd, content.ljust(size), 0) == size
