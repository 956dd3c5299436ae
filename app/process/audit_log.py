"""The audit log: who changed what through the admin and repository APIs, on disk before the change is made.

Each change has two lines in `run/log/audit.log`: that it began, which is on disk before anything is changed, and how it
ended. Space for further lines is reserved ahead, so that operators can act while the disk is full. When that is used
up, `begin` fails, and nothing is changed. A file that has become large is renamed to `audit.log.TIME`. Nobody removes
it but the operator.
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
MAX_BYTES = 50_000_000
"""Size at which the file is renamed, unless a setting says otherwise."""
TAIL_BYTES = 1 << 20
"""How much of a file is read at once, from its end."""
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

    def __init__(self, run_dir: Path, max_bytes: int = MAX_BYTES) -> None:
        """max_bytes: the size at which the file is renamed."""
        self._path = run_dir / FILE
        self._max_bytes = max_bytes
        self._kept: list[bytes] = []

    def prepare(self) -> None:
        """Make the file, and reserve space. Raises OSError if it cannot be made."""
        _append(self._path, b"", 0, self._max_bytes)

    def newest(self, most: int) -> list[Line]:
        """Return the newest lines, the newest last. Lines of renamed files follow behind those of the file itself."""
        return run_native(lambda: _newest(self._path, most))

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
            run_native(lambda: _append(self._path, b"".join((*kept, *lines)), left_bytes, self._max_bytes))
        except OSError:
            self._kept = [*kept, *self._kept]
            raise


def _encoded(line: Line) -> bytes:
    return json.dumps(_with_valid_text(line)).encode() + b"\n"


def _with_valid_text(line: Line) -> Line:
    """Return the line with a question mark for each byte of a name that is no UTF-8: no reader could encode it again.

    Python keeps such a byte of a command's argument as a lone surrogate.
    """
    valid: Line = json.loads(json.dumps(line, ensure_ascii=False).encode(errors="replace"))
    return valid


def _append(path: Path, content: bytes, left_bytes: int, max_bytes: int) -> None:
    """Append whole lines and reserve space behind them; without `left_bytes` of it, take the lines back and raise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fd = _locked(path, max_bytes)
    try:
        size = os.fstat(fd).st_size
        if content and size and os.pread(fd, 1, size - 1) != b"\n":  # cut off by a crash of the host
            content = b"\n" + content
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


def _locked(path: Path, max_bytes: int) -> int:
    """Open the file that has this name, with its lock; a file that is too large is renamed first.

    Whoever has waited for the lock of a file that was renamed meanwhile opens the new one.
    """
    while True:
        fd = _open(path)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            found = os.fstat(fd)
            if _is_named(path, found) and (found.st_size < max_bytes or not _rotate(path)):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _is_named(path: Path, found: os.stat_result) -> bool:
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    return (named.st_dev, named.st_ino) == (found.st_dev, found.st_ino)


def _rotate(path: Path) -> bool:
    """Rename the file, whose lock this process holds, to one with the time in its name. Return whether it could.

    The new file has its space before the old one loses its name: on a full disk the old one goes on.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        fd = _open(draft)
        try:
            _reserve(fd, 0, RESERVE_BYTES)
        finally:
            os.close(fd)
        path.rename(path.with_name(f"{path.name}.{datetime.now(UTC):%Y%m%dT%H%M%S.%f}"))
        with suppress(FileExistsError):  # somebody has opened it in between
            os.link(draft, path)
    except OSError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


def _newest(path: Path, most: int) -> list[Line]:
    found: list[Line] = []
    renamed = sorted(path.parent.glob(f"{path.name}.*"), reverse=True)
    for file in (path, *renamed):
        with suppress(OSError):
            found = [*_lines(file, most - len(found)), *found]
        if len(found) >= most:
            break
    return found


def _lines(file: Path, most: int) -> list[Line]:
    """Return the newest lines of one file. A line that was cut off, or is no object, is left out."""
    with file.open("rb") as opened:
        at = opened.seek(0, os.SEEK_END)
        content = b""
        while at and content.count(b"\n") <= most:
            step = min(TAIL_BYTES, at)
            at -= step
            opened.seek(at)
            content = opened.read(step) + content
    found: list[Line] = []
    for line in content.splitlines()[-most:]:
        with suppress(ValueError):
            value = json.loads(line)
            if isinstance(value, dict):
                found.append(_with_valid_text(value))
    return found


def _reserve(fd: int, offset: int, size: int) -> None:
    """Reserve space that the file's size does not show. Where the file system cannot, nothing is reserved."""
    if _libc.fallocate(fd, _FALLOC_FL_KEEP_SIZE, offset, size) != 0:
        number = ctypes.get_errno()
        if number not in _NOT_SUPPORTED:
            raise OSError(number, os.strerror(number))
