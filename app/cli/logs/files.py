"""The log files of a run folder, with those that were renamed because they had become large."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tableside.cli.logs.lines import head_of

BLOCK_BYTES = 1 << 18
_NUMBERED = re.compile(r"\.(\d+)")
_TIMED = re.compile(r"\.\d{8}T[\d.]+")
"""`audit.log.TIME`, as the audit log names its older files."""


class LogFile:
    """An open file. It is read up to the size that it had, so that a reader and a follower share no line and lose none.

    end: where its whole lines end. stem: the name of the log, such as `web`.
    """

    def __init__(self, path: Path, stem: str) -> None:
        """Raises FileNotFoundError if it has been renamed meanwhile."""
        self.path, self.stem = path, stem
        self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        status = os.fstat(self.fd)
        self.identity = (status.st_dev, status.st_ino)
        self.end = self._whole(status.st_size)

    def close(self) -> None:
        """Close the file."""
        os.close(self.fd)

    def _whole(self, size: int) -> int:
        """Return where the last whole line ends: the one behind it is being written."""
        at = size
        while at > 0:
            start = max(0, at - BLOCK_BYTES)
            found = os.pread(self.fd, at - start, start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            at = start
        return 0

    def backwards(self, most_bytes: int | None = None) -> Iterator[bytes]:
        """Yield the lines, the newest first, from at most so many bytes. Memory is bounded by a block and a line."""
        at, rest = self.end, b""
        stop = 0 if most_bytes is None else max(0, self.end - most_bytes)
        while at > stop:
            start = max(stop, at - BLOCK_BYTES)
            lines = (os.pread(self.fd, at - start, start) + rest).split(b"\n")
            rest, at = lines[0], start
            yield from (line for line in reversed(lines[1:]) if line)
        if rest and stop == 0:
            yield rest

    def forwards(self, start: int) -> Iterator[bytes]:
        """Yield the lines from a byte on, which begins a line."""
        rest = b""
        while start < self.end:
            block = os.pread(self.fd, min(BLOCK_BYTES, self.end - start), start)
            if not block:  # it became shorter
                return
            start += len(block)
            *lines, rest = (rest + block).split(b"\n")
            yield from (line for line in lines if line)

    def first_at_s(self, start: int = 0) -> tuple[float, int] | None:
        """Return the time of the first line with one behind a byte, and where it begins; None if there is none."""
        at = start
        skips = start > 0  # the byte may be within a line
        rest = b""
        while at < self.end:
            block = os.pread(self.fd, min(BLOCK_BYTES, self.end - at), at)
            begin = at - len(rest)
            *lines, rest = (rest + block).split(b"\n")
            at += len(block)
            for line in lines:
                head = None if skips else head_of(line)
                if head is not None:
                    return head.at_s, begin
                skips, begin = False, begin + len(line) + 1
            if not block:
                break
        return None

    def place_of(self, since_s: float) -> int:
        """Return a place in front of the first line of this time or later, found by halving the file."""
        low, high = 0, self.end
        while high - low > BLOCK_BYTES:
            middle = (low + high) // 2
            found = self.first_at_s(middle)
            if found is None or found[0] >= since_s or found[1] >= high:
                high = middle
            else:
                low = found[1]
        return low


def logs(folder: Path) -> dict[str, Path]:
    """Return the logs by their stem, such as `web` for `web.log`."""
    return {path.stem: path for path in sorted(folder.glob("*.log"))}


def open_all(path: Path, stem: str, older: bool) -> list[LogFile]:
    """Open a log, the newest file first. older: with those that were renamed.

    The list of names is read after the log itself was opened, and a file that is met twice is left out: so none is
    missed when one is renamed meanwhile.
    """
    found: dict[tuple[int, int], LogFile] = {}
    for each in _names(path, older):
        try:
            opened = LogFile(each, stem)
        except OSError:
            continue
        if opened.identity in found:
            opened.close()
        else:
            found[opened.identity] = opened
    return list(found.values())


def _names(path: Path, older: bool) -> Iterator[Path]:
    yield path
    if older:
        yield from renamed(path)


def renamed(path: Path) -> list[Path]:
    """Return the files that had this name before, the newest first: `web.log.1`, `web.log.2`, or `audit.log.TIME`."""
    names = {each: each.name.removeprefix(path.name) for each in path.parent.glob(f"{path.name}.*")}
    numbered = [(int(found[1]), each) for each, rest in names.items() if (found := _NUMBERED.fullmatch(rest))]
    timed = [each for each, rest in names.items() if _TIMED.fullmatch(rest)]
    return [each for _, each in sorted(numbered)] + sorted(timed, reverse=True)
