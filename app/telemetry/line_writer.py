"""Writes log lines to standard output without ever waiting or raising: a log must not hold up a prediction.

Standard output is a pipe to supervisord. When supervisord is stopped or busy, the pipe fills up, and a plain write
would wait for it in the event loop. The pipe is therefore opened once more without blocking, and what does not fit is
dropped and counted.
"""

from __future__ import annotations

import fcntl
import os
import stat
import weakref
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PIPE_BYTES = 1 << 20
"""Size of the pipe to supervisord."""
MAX_FALLBACK_BYTES = 50_000_000
"""Size above which nothing more is appended to the fallback file: nobody rotates it."""


class LineWriter:
    """Writes whole lines to standard output. Those that cannot be written at once are dropped.

    fallback: the file that gets the lines if the reader of the pipe has ended, as it has for the workers of a killed
    master.
    """

    def __init__(self, fallback: Path | None) -> None:
        self._fallback = fallback
        self._fd = _open_without_blocking()
        self._close = _closer(self, self._fd) if self._fd != 1 else None
        self._is_file = False
        self._rest = b""
        self._dropped = 0

    def take_dropped(self) -> int:
        """Return how many lines were dropped since the last call."""
        dropped, self._dropped = self._dropped, 0
        return dropped

    def send(self, lines: bytes) -> None:
        """Write these lines. lines: whole lines, each with its line feed."""
        rest, self._rest = self._rest, b""
        data = rest + lines
        try:
            written = 0 if self._is_file and _is_too_large(self._fd) else os.write(self._fd, data)
        except BlockingIOError:
            written = 0
        except OSError:
            if not self._use_fallback():
                self._dropped += data.count(b"\n")
                return
            written = len(data)
            self._append(data)
        if written < len(data):
            self._keep_rest(data, written, len(rest))

    def _keep_rest(self, data: bytes, written: int, rest_bytes: int) -> None:
        """Keep what is left of a line that was begun: it is written first next time. All further lines are dropped."""
        began = written > 0 and data[written - 1 : written] != b"\n"
        keeps = began or (written == 0 and rest_bytes > 0)
        end = data.find(b"\n", written) + 1 if keeps else written
        self._rest = data[written:end]
        self._dropped += data.count(b"\n", end)

    def _append(self, data: bytes) -> None:
        try:
            os.write(self._fd, data)
        except OSError:
            self._dropped += data.count(b"\n")

    def _use_fallback(self) -> bool:
        """Replace standard output and standard error by the fallback file. Return whether it could be opened."""
        fallback, self._fallback = self._fallback, None
        if fallback is None:
            return False
        try:
            fd = os.open(fallback, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        for standard in (1, 2):
            os.dup2(fd, standard)
        if self._close:
            self._close()
        self._close = _closer(self, fd)
        self._fd, self._is_file = fd, True
        return True


def _closer(owner: LineWriter, fd: int) -> Callable[[], object]:
    """Return a function that closes the descriptor, which also happens when nothing refers to the owner any more."""
    close = weakref.finalize(owner, os.close, fd)
    close.atexit = False  # lines are still written when the process ends
    return close


def _open_without_blocking() -> int:
    """Return a descriptor of standard output that does not block: a new one if it is a pipe, otherwise 1 itself.

    The mode belongs to the open file that all processes share, so that it cannot simply be changed.
    """
    with suppress(OSError):
        if stat.S_ISFIFO(os.fstat(1).st_mode):
            with suppress(OSError):  # the system's limit is lower: keep the size
                fcntl.fcntl(1, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
            return os.open("/proc/self/fd/1", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    return 1


def _is_too_large(fd: int) -> bool:
    return os.lseek(fd, 0, os.SEEK_END) > MAX_FALLBACK_BYTES
