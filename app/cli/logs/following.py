"""Follows the logs as they are written, also when a file is renamed and a new one is begun."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from tableside.cli.logs import files
from tableside.cli.logs.files import LogFile
from tableside.cli.logs.filters import Filters
from tableside.cli.logs.lines import NO_HEAD, head_of

POLL_S = 0.3
"""How often new lines are looked for."""
LEAVE_AFTER_S = 30.0
"""How long a renamed file is read on: nginx writes to it until it has opened the new one."""


class _Reader:
    """Reads on in one file. place: behind the last whole line that was read."""

    def __init__(self, file: LogFile, place: int) -> None:
        self.file, self.place = file, place
        self.leave_at_s: float | None = None

    def lines(self) -> list[bytes]:
        """Return the whole lines that are new. A file that became shorter is read from its start."""
        size = os.fstat(self.file.fd).st_size
        if size < self.place:
            self.place = 0
        block = os.pread(self.file.fd, size - self.place, self.place)
        whole = block.rfind(b"\n") + 1
        self.place += whole
        return [line for line in block[:whole].split(b"\n") if line]


class Follower:
    """Follows one log. file: as it was read before; None for a log that has just come."""

    def __init__(self, path: Path, file: LogFile | None) -> None:
        self._path = path
        self._reader = _Reader(file, file.end) if file is not None else None
        self._left: list[_Reader] = []

    def lines(self, now_s: float) -> Iterator[bytes]:
        """Yield the lines that were written since the last call."""
        for reader in self._left:
            yield from reader.lines()
        for reader in [each for each in self._left if each.leave_at_s is not None and each.leave_at_s < now_s]:
            self._left.remove(reader)
            reader.file.close()
        with suppress(OSError):  # the file is missing, or it cannot be read: perhaps the next time
            yield from self._current(now_s)

    def _current(self, now_s: float) -> Iterator[bytes]:
        reader = self._reader
        if reader is None:
            opened = LogFile(self._path, self._path.stem)
            reader = self._reader = _Reader(opened, 0)
        yield from reader.lines()
        status = os.stat(self._path)
        if (status.st_dev, status.st_ino) == reader.file.identity:
            return
        yield from reader.lines()  # what was written just before the file was renamed
        newer = self._newer_than(reader.file)
        reader.leave_at_s = now_s + LEAVE_AFTER_S
        self._left.append(reader)
        self._reader = newer[-1] if newer else None
        self._left += newer[:-1]
        for each in newer:
            each.leave_at_s = reader.leave_at_s
            yield from each.lines()

    def _newer_than(self, file: LogFile) -> list[_Reader]:
        """Open the files that were begun after this one, the oldest first: several if it was renamed more than once."""
        opened = files.open_all(self._path, self._path.stem, older=True)
        places = [index for index, each in enumerate(opened) if each.identity == file.identity]
        newer = places[0] if places else 1
        for each in opened[newer:]:
            each.close()
        return [_Reader(each, 0) for each in reversed(opened[:newer])]


def follow(folder: Path, read: Mapping[Path, LogFile], filters: Filters) -> Iterator[bytes]:
    """Yield new lines that match, without end. read: what was read of each log before, by its path."""
    followers = {path: Follower(path, file) for path, file in read.items()}
    last = {path: (NO_HEAD, False) for path in followers}
    while True:
        found: list[tuple[float, bytes]] = []
        for path in files.logs(folder).values():
            follower = followers.setdefault(path, Follower(path, None))
            head, holds = last.get(path, (NO_HEAD, False))
            for line in follower.lines(time.monotonic()):
                if (new := head_of(line)) is not None or head is NO_HEAD:
                    head = new or head
                    holds = filters.holds(head, path.stem, line)
                if holds:
                    found.append((head.at_s, line))
            last[path] = head, holds
        found.sort(key=lambda each: each[0])
        yield from (line for _, line in found)
        time.sleep(POLL_S)
