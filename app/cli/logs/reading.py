"""Reads what the logs have already: the newest lines that match, or all of a time, in the order of their time."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tableside.cli.logs.files import LogFile
from tableside.cli.logs.filters import Filters
from tableside.cli.logs.lines import NO_HEAD, Head, head_of

DISORDER_S = 60.0
"""How much later than a line with a later time a line may be in its file. Each access line has the time of its answer,
and workers write them some milliseconds later, nginx up to a second.
"""
_WINDOW_LINES = 512
"""So many lines of a file are put in order before they are merged with those of other files."""
_MOST_PENDING = 10_000
"""Lines without a time, one after the other, that are kept until the line that they belong to is met."""


class Entry(NamedTuple):
    """A line with a time, and the lines after it that have none."""

    head: Head
    lines: list[bytes]


@dataclass
class Seen:
    """How many lines were looked at, and the time of the earliest of them, for the message that none matches."""

    lines: int = 0
    first_at_s: float = math.inf

    def add(self, entry: Entry) -> None:
        """Count the lines of an entry."""
        self.lines += len(entry.lines)
        if entry.head.at_s > -math.inf:
            self.first_at_s = min(self.first_at_s, entry.head.at_s)


def newest(
    logs: Iterable[Sequence[LogFile]], filters: Filters, count: int, most_bytes: int | None, seen: Seen
) -> list[bytes]:
    """Return the newest lines that match, at most `count`, ordered by their time.

    logs: the files of each log, the newest first; each is read backwards, until `count` lines have matched.
    most_bytes: how much of each log is read at most; None: as much as there is since the time of the filters.
    """
    found: list[tuple[float, bytes]] = []
    for files in logs:
        matched: list[Entry] = []
        left = count
        for entry in _backwards(files, most_bytes):
            if filters.since_s is not None and entry.head.at_s < filters.since_s - DISORDER_S:
                break
            seen.add(entry)
            if filters.holds(entry.head, files[0].stem, entry.lines[0]):
                matched.append(entry)
                left -= len(entry.lines)
                if left <= 0:
                    break
        found += [(entry.head.at_s, line) for entry in reversed(matched) for line in entry.lines]
    found.sort(key=lambda each: each[0])
    return [line for _, line in found[-count:]]


def _backwards(files: Sequence[LogFile], most_bytes: int | None) -> Iterator[Entry]:
    for file in files:
        if most_bytes is not None and most_bytes <= 0:
            return
        pending: list[bytes] = []
        for line in file.backwards(most_bytes):
            pending.append(line)
            head = head_of(line)
            if head is not None or len(pending) > _MOST_PENDING:
                yield Entry(head or NO_HEAD, pending[::-1])
                pending = []
        if pending:
            yield Entry(NO_HEAD, pending[::-1])
        if most_bytes is not None:
            most_bytes -= file.end


def every(logs: Iterable[Sequence[LogFile]], filters: Filters, seen: Seen) -> Iterator[bytes]:
    """Yield all lines that match, in the order of their time. Memory does not grow with the number of lines."""
    streams = [_in_order(_matching(files, filters, seen)) for files in logs if files]
    for _, _, lines in heapq.merge(*streams, key=lambda each: each[0]):
        yield from lines


Timed = tuple[float, int, list[bytes]]
"""Time, number in its log, lines."""


def _matching(files: Sequence[LogFile], filters: Filters, seen: Seen) -> Iterator[Timed]:
    since_s = -math.inf if filters.since_s is None else filters.since_s - DISORDER_S
    until_s = math.inf if filters.until_s is None else filters.until_s + DISORDER_S
    number = 0
    for file in reversed(_needed(files, since_s)):
        for entry in _forwards(file, file.place_of(since_s)):
            if entry.head.at_s > until_s:
                return
            if entry.head.at_s < since_s:
                continue
            seen.add(entry)
            if filters.holds(entry.head, file.stem, entry.lines[0]):
                number += 1
                yield entry.head.at_s, number, entry.lines


def _needed(files: Sequence[LogFile], since_s: float) -> list[LogFile]:
    """Return the files that may have lines of this time or later: up to the first that begins before it."""
    needed = []
    for file in files:
        needed.append(file)
        first = file.first_at_s()
        if first is not None and first[0] < since_s:
            break
    return needed


def _forwards(file: LogFile, start: int) -> Iterator[Entry]:
    head, lines = NO_HEAD, list[bytes]()
    for line in file.forwards(start):
        found = head_of(line)
        if found is not None or len(lines) > _MOST_PENDING:
            if lines:
                yield Entry(head, lines)
            head, lines = found or head, []
        lines.append(line)
    if lines:
        yield Entry(head, lines)


def _in_order(entries: Iterator[Timed]) -> Iterator[Timed]:
    """Put entries in order that are a little out of it."""
    window: list[Timed] = []
    for each in entries:
        if len(window) < _WINDOW_LINES:
            heapq.heappush(window, each)
        else:
            yield heapq.heappushpop(window, each)
    while window:
        yield heapq.heappop(window)
