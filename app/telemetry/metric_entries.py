"""Reads the entries of prometheus-client's metric files where they stand.

prometheus-client's own reader makes text and a tuple of each entry at each scrape. Here a file is read as numbers, and
its keys only once. The format is that of prometheus-client 0.20 to 0.26, as its class `MmapedDict` describes it: 4
bytes that say how many bytes are used, 4 bytes of padding, and entries. An entry is 4 bytes with the length of its key,
the key (JSON) with spaces behind it up to a multiple of 8 bytes, the value, and the moment at which it was set; both
are doubles. tests/unit/test_metric_reader.py writes files with the library and fails if it changes this.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tableside.telemetry.metric_heads import HEAD, HEAD_BYTES

Doubles = NDArray[np.float64]
_LENGTH = struct.Struct("i")


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


def entries(content: Content, start: int) -> Iterator[tuple[bytes, int]]:
    """Yield the key of each entry from the byte `start` on, and the place of its value in `content.doubles`.

    Raises DamagedFile at the first entry that does not end within the used part.
    """
    data, position, used = content.doubles[start // 8 :].tobytes(), 0, content.used - start
    length_at = _LENGTH.unpack_from
    while position < used:
        (length,) = length_at(data, position)
        place = position + 4 + length + 8 - (length + 4) % 8
        if length <= 0 or place + 16 > used:
            raise DamagedFile(f"the entry at byte {start + position} has the length {length}")
        yield data[position + 4 : position + 4 + length], (start + place) // 8
        position = place + 16
