"""Reads the entries of prometheus-client's metric files where they stand.

prometheus-client's own reader makes text and a tuple of each entry at each scrape. Here a file is read as numbers, and
its keys only once. The format is that of prometheus-client 0.26 (`requirements/base.in` allows no other), as its class
`MmapedDict` describes it: 4 bytes that say how many bytes are used, 4 bytes of padding, and entries. An entry is 4
bytes with the length of its key, the key (JSON) with spaces behind it up to a multiple of 8 bytes, the value, and the
moment at which it was set; both are doubles. tests/unit/test_metric_reader.py writes files with the library and fails
if it changes this.
"""

from __future__ import annotations

import os
import struct
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tableside.telemetry.metric_heads import HEAD, HEAD_BYTES

Doubles = NDArray[np.float64]
_LENGTH = struct.Struct("i")
_JSON_BEGINS = int.from_bytes(b'["', "little")


class Merge(IntEnum):
    """How the values of several workers become one."""

    SUM = 0
    MIN = 1
    MAX = 2
    MOST_RECENT = 3
    COUNTED = 4
    """The number of a histogram's observations, which no file has: it is the sum of its buckets."""


_MODES = {"sum": Merge.SUM, "min": Merge.MIN, "max": Merge.MAX, "mostrecent": Merge.MOST_RECENT}
TYPES = ("counter", "histogram", "summary")


class FileKind(NamedTuple):
    """What a file's name says: the type of its metrics, how they are merged, and who writes it.

    is_live: whether its values end with their writer.
    """

    type: str
    merge: Merge
    is_live: bool
    writer: str


class DamagedFile(Exception):
    """The file is not, or no longer, in prometheus-client's format. The message says where."""


class Content(NamedTuple):
    """The used part of a file.

    identity: another one after the file has been replaced.
    """

    identity: tuple[int, int]
    used: int
    doubles: Doubles


def kind_of(name: str) -> FileKind | None:
    """Read a file's name: `counter_WRITER.db`, `gauge_MODE_WRITER.db`. None if it is not the name of a metric file.

    Modes `all` and `liveall`, which have a sample for each process, are not read.
    """
    stem, dot, ending = name.rpartition(".")
    kind, _, writer = stem.partition("_")
    if not dot or ending != "db" or not writer:
        return None
    if kind in TYPES:
        return FileKind(kind, Merge.SUM, False, writer)
    mode, _, writer = writer.partition("_")
    merge = _MODES.get(mode.removeprefix("live"))
    if kind != "gauge" or merge is None or not writer:
        return None
    return FileKind(kind, merge, mode.startswith("live"), writer)


def read(path: Path) -> Content:
    """Read the used part of a file. Its writer may write meanwhile: it makes an entry before it counts it as used.

    Raises OSError, and DamagedFile if the file is shorter than it says.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        head = os.pread(fd, HEAD_BYTES, 0)
        used, stamp = HEAD.unpack(head) if len(head) == HEAD_BYTES else (0, 0)
        used = used or HEAD_BYTES  # a file that has just been made
        if used < HEAD_BYTES or used % 8:
            raise DamagedFile(f"its first 4 bytes are {used}, which is no length")
        found = os.fstat(fd)
        if used > found.st_size > 0:
            raise DamagedFile(f"it has {found.st_size} bytes and says that {used} are used")
        doubles = np.empty(used // 8)
        if found.st_size and os.preadv(fd, [doubles.data], 0) < used:
            raise DamagedFile(f"it became shorter than the {used} bytes that it says are used")
        return Content((found.st_ino, stamp), used, doubles)
    finally:
        os.close(fd)


class Entries(NamedTuple):
    """Entries of a file, one after the other.

    places: where in `Content.doubles` each value is. end: the byte behind the last entry. problem: why it is the last
    one, if not because the used part ends there.
    """

    keys: list[bytes]
    places: NDArray[np.int32]
    end: int
    problem: str = ""


def entries(content: Content, start: int) -> Entries:
    """Return the entries from the byte `start` on, up to the first that does not end within the used part."""
    return _all_at_once(content, start) or _one_by_one(content, start)


def _all_at_once(content: Content, start: int) -> Entries | None:
    """Find all entries in a few numpy calls: ten times as fast as one by one. None if that does not work out.

    A key is a JSON list that begins with a text, so entries begin where a length is followed by `["`. If each of these
    places is exactly behind the entry at the place before, they are the entries and there are no others.
    """
    lengths, first_bytes = content.doubles[start // 8 :].view(np.int32).reshape(-1, 2).T
    begins = np.flatnonzero((first_bytes & 0xFFFF) == _JSON_BEGINS) * 8 + start
    found = lengths[(begins - start) // 8].astype(np.int64)
    places = begins + 4 + found + 8 - (found + 4) % 8
    ends = places + 16
    if not (len(begins) and begins[0] == start and ends[-1] == content.used and (ends[:-1] == begins[1:]).all()):
        return None
    data = content.doubles.data.cast("B")
    text = data[start : content.used].tobytes()
    key_begins = begins + 4 - start
    keys = [text[at:end] for at, end in zip(key_begins.tolist(), (key_begins + found).tolist(), strict=True)]
    return Entries(keys, (places // 8).astype(np.int32), content.used)


def _one_by_one(content: Content, start: int) -> Entries:
    data, position, used = content.doubles.data.cast("B"), start, content.used
    keys, places, problem = [], [], ""
    while position < used:
        (length,) = _LENGTH.unpack_from(data, position)
        place = position + 4 + length + 8 - (length + 4) % 8
        if length <= 0 or place + 16 > used:
            problem = f"the entry at byte {position} has the length {length}"
            break
        keys.append(data[position + 4 : position + 4 + length].tobytes())
        places.append(place // 8)
        position = place + 16
    return Entries(keys, np.array(places, np.int32), position, problem)
