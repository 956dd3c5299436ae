"""The audit log: who changed what through the admin and repository APIs, on disk before the change is made.

Each change has two lines in `run/log/audit.log`: that it began, which is on disk before anything is changed, and how it
ended. Space for further lines is reserved ahead, so that operators can act while the disk is full. When that is used
up, `begin` fails, and nothing is changed. Nobody renames or removes the file but the operator.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import os
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from tableside.process.offload import run_native

FILE = "log/audit.log"
"""In the run folder. It may be renamed at any time: it is opened for each line."""
RESERVE_BYTES = 1 << 16
"""Space behind the last line that is reserved while the disk has it: some 200 lines."""
END_BYTES = 1 << 12
"""Space that has to be left for how a change ends, and those that have begun in other workers, before one begins."""
_FALLOC_FL_KEEP_SIZE = 1
_NOT_SUPPORTED = (errno.EOPNOTSUPP, errno.ENOSYS)
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)

Line = dict[str, object]


def now() -> Line:
    """Return the member of a line that says when: UTC, ISO 8601."""
    return {"time": datetime.now(UTC).isoformat()}


class AuditLog:
    """The audit log of a host. All workers append to the same file; each line is written whole, or not at all."""

    def __init__(self, run_dir: Path) -> None:
        self._path = run_dir / FILE
        self._kept: list[bytes] = []

    def prepare(self) -> None:
        """Make the file, and reserve space. Raises OSError if it cannot be made."""
        _append(self._path, b"", 0)

    def begin(self, line: Line) -> None:
        """Write that a change begins, to the disk itself. Raises OSError if it, or its end, finds no room."""
        self._write([_encoded(line)], END_BYTES)

    def end(self, line: Line) -> None:
        """Write how a change ended. A line that cannot be written is kept, and written before the next one."""
        content = _encoded(line)
        try:
            self._write([content], 0)
        except OSError:
            self._kept.append(content)

    def _write(self, lines: list[bytes], left_bytes: int) -> None:
        kept, self._kept = self._kept, []
        try:
            run_native(lambda: _append(self._path, b"".join((*kept, *lines)), left_bytes))
        except OSError:
            self._kept = [*kept, *self._kept]
            raise


def _encoded(line: Line) -> bytes:
    return json.dumps(line).encode() + b"\n"


def _append(path: Path, content: bytes, left_bytes: int) -> None:
    """Append whole lines and reserve space behind them; without `left_bytes` of it, take the lines back and raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        size = os.fstat(fd).st_size
        try:
            if os.write(fd, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if left_bytes:
                _reserve(fd, size + len(content), left_bytes)
                os.fsync(fd)
        except OSError:
            os.ftruncate(fd, size)
            raise
        with suppress(OSError):
            _reserve(fd, size + len(content), RESERVE_BYTES)
    finally:
        os.close(fd)


def _reserve(fd: int, offset: int, size: int) -> None:
    """Reserve space that the file's size does not show. Where the file system cannot, nothing is reserved."""
    if _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, size) != 0:
        number = ctypes.get_errno()
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number))
