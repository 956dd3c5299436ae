"""Answers that were given before, of one servable in one worker: bounded in bytes, the least recently used go first.

A key is a digest of the whole table and of the outputs asked for (`tableside.contract.digest`), so an answer is found
again only for the same rows in the same order: right for every model, also for one whose answers depend on the other
rows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from cachetools import LRUCache

from tableside.contract.array_type import Array
from tableside.contract.digest import digest_of
from tableside.contract.schema import Output
from tableside.contract.table import Table

LARGEST_SHARE = 8
"""An answer that takes more than one such part of the bound is not kept: it would drive out what many others ask."""
MAX_TABLE_BYTES = 1 << 18
"""Larger tables are not looked up: the digest is made on the event loop, and this many bytes take 0.3 ms there."""
ENTRY_BYTES = 512
"""Key, the cache's own tables and the mapping of one entry; a test holds it to what Python allocates."""
ARRAY_BYTES = 192
"""An array without its numbers, its name's place in the mapping included."""

Answers = Mapping[str, Array]


class CacheMetrics(Protocol):
    """Where a cache says what it does. Called on the hub, never from native threads."""

    def looked(self, hit: bool) -> None:
        """A request was answered from the cache, or not."""

    def held(self, more_bytes: int) -> None:
        """So many bytes more are held than before; negative for fewer."""


class NoCacheMetrics:
    """Says nothing."""

    def looked(self, hit: bool) -> None:
        """See CacheMetrics."""

    def held(self, more_bytes: int) -> None:
        """See CacheMetrics."""


class ResponseCache:
    """Answers by digest. To be called from greenlets of one hub, or from plain threads."""

    def __init__(self, max_bytes: int, metrics: CacheMetrics) -> None:
        self.max_bytes = max_bytes
        self._metrics = metrics
        self._lock = threading.Lock()
        self._closed = False
        self._entries: LRUCache[bytes, Answers] = LRUCache(max_bytes, size_bytes)

    @property
    def size_bytes(self) -> int:
        """What it holds now, keys and overhead included."""
        return int(self._entries.currsize)

    def key(self, table: Table, outputs: Sequence[Output]) -> bytes | None:
        """What the answer is kept under; None for a table that is not looked up."""
        return digest_of(table, [output.name for output in outputs], MAX_TABLE_BYTES)

    def find(self, key: bytes | None) -> Answers | None:
        """What was answered before, in arrays that cannot be written to."""
        found = None
        if key is not None:
            with self._lock:
                found = self._entries.get(key)
        self._metrics.looked(found is not None)
        return found

    def keep(self, key: bytes | None, arrays: Answers) -> None:
        """Keep a copy of an answer, unless it is too large, or the cache was closed while it was computed."""
        if key is None or size_bytes(arrays) * LARGEST_SHARE > self.max_bytes:
            return
        # A copy also where nobody else writes: an answer may be a part of a large batch, and would hold all of it.
        own = {name: np.array(array, order="K") for name, array in arrays.items()}
        for array in own.values():
            array.flags.writeable = False
        with self._lock:
            if not self._closed:
                before = self.size_bytes
                self._entries[key] = own
                self._metrics.held(self.size_bytes - before)

    def close(self) -> None:
        """Forget everything, and keep nothing more."""
        with self._lock:
            self._closed = True
            self._metrics.held(-self.size_bytes)
            self._entries.clear()


def size_bytes(arrays: Answers) -> int:
    """What an entry takes in memory, its key and the cache's own tables included."""
    return ENTRY_BYTES + sum(ARRAY_BYTES + _array_bytes(array) for array in arrays.values())


def _array_bytes(array: Array) -> int:
    # Objects may be shared with the estimator (class labels are); counting them is on the safe side.
    cells = sum(map(sys.getsizeof, array.ravel().tolist())) if array.dtype == object else 0
    return array.nbytes + cells
