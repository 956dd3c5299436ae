"""The files of prometheus-client's multiprocess mode, on disk space that is reserved before it is used.

prometheus-client maps its files and makes them longer without reserving space. When the disk is full, the first write
to such a page ends the process (SIGBUS), and each worker that starts in its place ends the same way. Therefore every
file is made with its space, and before a metric gets a new label the space for it is reserved. Where there is none, the
metrics of that label stay in the worker's memory: they miss in `/metrics`, and the worker goes on.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from prometheus_client import values
from prometheus_client.mmap_dict import mmap_key

from tableside.telemetry import logs
from tableside.telemetry.metric_heads import HEAD, HEAD_BYTES, STAMP_AT

FIRST_BYTES = 1 << 16
"""Size of a new file."""
TYPES = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemin")
"""The first part of each file's name: the types of the metrics that Tableside has."""
_ENTRY_BYTES = 4 + 8 + 16
"""An entry has the length of its key, the key, up to 8 bytes of padding, and two doubles."""
log = logs.get_logger("metrics")


class MetricFiles:
    """The metric files of one worker slot. Make it before the first metric.

    Each new file gets a stamp by chance in its padding, which tells it from a former file of the same name and inode.

    lost: how many label sets have found no room and are only in memory.
    """

    def __init__(self, folder: Path, slot: int) -> None:
        self._folder, self._slot = folder, str(slot)
        self._reserved: dict[str, int] = {}
        self._make_stored = values.MultiProcessValue(lambda: self._slot)  # type: ignore[no-untyped-call]
        self.lost = 0

    def prepare(self) -> bool:
        """Make the files, with their space. Return whether all could be made."""
        return all([self._has_room(kind, 0) for kind in TYPES])

    def value(
        self, typ: str, metric_name: str, name: str, labelnames: Sequence[str], labelvalues: Sequence[str],
        help_text: str, multiprocess_mode: str = "", **more: object,
    ) -> object:  # fmt: skip
        """Make the value of one sample, as prometheus-client's `ValueClass` does. Its parameters have its names."""
        key = mmap_key(metric_name, name, list(labelnames), list(labelvalues), help_text)
        kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        known = (typ, metric_name, name, labelnames, labelvalues, help_text)
        if self._has_room(kind, len(key.encode()) + _ENTRY_BYTES):
            return self._make_stored(*known, multiprocess_mode=multiprocess_mode, **more)
        if not self.lost:
            log.warning("metrics_in_memory", reason=f"no space in {self._folder}: /metrics will lack new labels")
        self.lost += 1
        return values.MutexValue(*known, **more)  # type: ignore[no-untyped-call]

    def _has_room(self, kind: str, entry_bytes: int) -> bool:
        """Reserve the space that a further entry of this size needs. Return False if there is none."""
        path = self._folder / f"{kind}_{self._slot}.db"
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return False
        used = 0
        try:
            head = os.pread(fd, HEAD_BYTES, 0)
            used, stamp = HEAD.unpack(head) if len(head) == HEAD_BYTES else (0, 0)
            self._reserve(kind, fd, max(used, HEAD_BYTES) + entry_bytes)
            if not stamp:
                os.pwrite(fd, os.urandom(4), STAMP_AT)
        except OSError:
            if not used:  # an empty file could not be read
                with suppress(OSError):
                    path.unlink()
            return False
        finally:
            os.close(fd)
        return True

    def _reserve(self, kind: str, fd: int, needed: int) -> None:
        reserved = self._reserved.get(kind, 0)
        size = reserved or max(FIRST_BYTES, os.fstat(fd).st_size)
        while needed > size:
            size *= 2  # as prometheus-client does: it keeps what is reserved beyond the end that it knows
        if size > reserved:
            os.posix_fallocate(fd, 0, size)
            self._reserved[kind] = size
