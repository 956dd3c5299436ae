"""The response cache: answers of one servable in one worker, limited in bytes; the least recently used go first.

A key is a digest of the whole table and of the requested outputs (`tableside.contracts.digest`). An answer is found
only for the same rows in the same order, which is correct also for models whose answers depend on the other rows.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from cachetools import LRUCache

from tableside.contracts.array_type import Array
from tableside.contracts.digest import digest_of
from tableside.contracts.schema import Output
from tableside.contracts.table import Table

LARGEST_SHARE = 8
"""An answer larger than 1/8 of the limit is not kept: it would displace many small ones."""
MAX_TABLE_BYTES = 1 << 18
"""Larger tables are not looked up: the digest is computed on the event loop, where this many bytes take 0.3 ms."""
ENTRY_BYTES = 512
"""The overhead of one entry: its key, its mapping and the cache's own tables. A test compares it with tracemalloc."""
ARRAY_BYTES = 192
"""The overhead of one array without its numbers, including its name in the mapping."""

Answers = Mapping[str, Array]
"""Output name to array."""


class CacheMetrics(Protocol):
    """Receives the events of one cache. Called on the event loop's thread, never from native threads."""

    def looked(self, hit: bool) -> None:
        """Record one request; `hit` if the cache had its answer."""

    def held(self, more_bytes: int) -> None:
        """Record that the size changed by `more_bytes`; negative if it shrank."""


class NoCacheMetrics:
    """Ignores every event. It is the default of a servable that no application has wired to metrics."""

    def looked(self, hit: bool) -> None:
        """Ignore the request."""

    def held(self, more_bytes: int) -> None:
        """Ignore the change of size."""


class ResponseCache:
    """Answers by key. Greenlets of one hub, or plain threads, may use it at the same time."""

    def __init__(self, max_bytes: int, metrics: CacheMetrics) -> None:
        self.max_bytes = max_bytes
        self._metrics = metrics
        self._lock = threading.Lock()
        self._closed = False
        self._entries: LRUCache[bytes, Answers] = LRUCache(max_bytes, size_bytes)

    @property
    def size_bytes(self) -> int:
        """The bytes in use, with keys and overhead; at most `max_bytes`."""
        return int(self._entries.currsize)

    def key(self, table: Table, outputs: Sequence[Output]) -> bytes | None:
        """Return the key of a request; None for a table that is too large, or holds cells that have no digest."""
        return digest_of(table, [output.name for output in outputs], MAX_TABLE_BYTES)

    def find(self, key: bytes | None) -> Answers | None:
        """Return the answer kept under `key`, in read-only arrays; None if there is none. Counts a hit or a miss."""
        found = None
        if key is not None:
            with self._lock:
                found = self._entries.get(key)
        self._metrics.looked(found is not None)
        return found

    def keep(self, key: bytes | None, arrays: Answers) -> None:
        """Keep a copy of an answer.

        Does nothing if `key` is None, if the answer is larger than its share (LARGEST_SHARE), or after `close`.
        """
        if key is None or size_bytes(arrays) * LARGEST_SHARE > self.max_bytes:
            return
        # The answer may be a view into the arrays of a large batch, which it would keep in memory.
        own = {name: np.array(array, order="K") for name, array in arrays.items()}
        for array in own.values():
            array.flags.writeable = False
        with self._lock:
            if not self._closed:
                before = self.size_bytes
                self._entries[key] = own
                self._metrics.held(self.size_bytes - before)

    def close(self) -> None:
        """Remove every answer. Answers that are being computed now will not be kept either."""
        with self._lock:
            self._closed = True
            self._metrics.held(-self.size_bytes)
            self._entries.clear()


def size_bytes(arrays: Answers) -> int:
    """Return the memory that an entry with these arrays takes, with its key and the cache's own tables."""
    return ENTRY_BYTES + sum(ARRAY_BYTES + _array_bytes(array) for array in arrays.values())


def _array_bytes(array: Array) -> int:
    # The estimator may own the objects too, as it does class labels; counting them keeps the limit on the safe side.
    cells = sum(map(sys.getsizeof, array.ravel().tolist())) if array.dtype == object else 0
    return array.nbytes + cells
