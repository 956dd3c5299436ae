"""Opens files of the model repository, which may hold anything: no named pipe or device makes the reader wait."""

from __future__ import annotations

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

MAX_BYTES = 1 << 28
"""The most bytes that `read` returns; contracts and settings of models are far smaller."""


def open_plain(path: Path, flags: int = 0) -> BufferedReader:
    """Open a file for reading. flags: more flags of open(2), such as os.O_NOFOLLOW.

    Raises OSError if it cannot be opened, or is not an ordinary file.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | flags)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise OSError(errno.EISDIR, os.strerror(errno.EISDIR))
        if not stat.S_ISREG(mode):
            raise OSError(f"{path.name} is not an ordinary file")
        return os.fdopen(fd, "rb")
    except OSError:
        os.close(fd)
        raise


def read(path: Path, most: int = MAX_BYTES) -> bytes:
    """Return the content of a file. Raises OSError, as `open_plain` does, or if it has more than `most` bytes."""
    with open_plain(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(f"{path.name} has more than {most} bytes")
    return content
