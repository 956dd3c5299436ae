"""Adds up the metric files of all workers for a scrape.

The result is that of prometheus-client's MultiProcessCollector, in a small part of its time. The place of each value in
its file, and the line that it belongs to, are found once and kept. A later scrape reads the files as arrays of numbers,
adds these, and writes the numbers that have changed. Only entries that are new since the last scrape are decoded.

A reader uses no locks, no metrics and no logs, so that a native thread may run it. One thread at a time may use it.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from prometheus_client.utils import floatToGoString

from tableside.telemetry.metric_entries import DamagedFile, Doubles, FileKind, Merge, entries, kind_of, read
from tableside.telemetry.metric_heads import HEAD_BYTES
from tableside.telemetry.metric_rows import NO_TOTAL, UNUSED, Numbers, Order, Rows
from tableside.telemetry.metric_totals import TotalKey

FEW_ROWS = 1000
_NAN_BITS = np.array(np.nan).view(np.int64)
_NONE = np.array([], np.int32)


class Problem(NamedTuple):
    """Why a file, or an entry of it, is left out."""

    file: Path
    reason: str


class _File:
    """What is known of one file: up to which byte its entries are known, and where their values are.

    parts: by the way in which values are merged, the places of the values in the file, and their rows.
    """

    def __init__(self, identity: tuple[int, int]) -> None:
        self.identity = identity
        self.seen = HEAD_BYTES
        self.known = HEAD_BYTES
        self.parts: dict[int, tuple[Numbers, Numbers]] = {}

    def add(self, places: Numbers, rows: Numbers, merges: NDArray[np.int8]) -> None:
        """Keep the places of more values, with their rows. merges: those of all rows."""
        is_used = rows != UNUSED
        places, rows = places[is_used], rows[is_used]
        of_entries = merges[rows]
        for merge in set(of_entries.tolist()) - {Merge.COUNTED}:
            chosen = of_entries == merge
            old_places, old_rows = self.parts.get(merge, (_NONE, _NONE))
            self.parts[merge] = (
                np.concatenate((old_places, places[chosen])), np.concatenate((old_rows, rows[chosen])),
            )  # fmt: skip


class MetricReader:
    """Reads one folder of metric files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._problems: list[Problem] = []
        self._reported: set[str] = set()
        self._forget()

    def _forget(self) -> None:
        self._files: dict[str, _File] = {}
        self._rows = Rows()
        self._row_of_key: dict[bytes, int] = {}
        self._texts: list[bytes] = []
        self._shown = np.empty(0, np.int64)
        self._order: Order | None = None
        self._pieces: list[bytes] = []

    def __len__(self) -> int:
        """How many rows are kept."""
        return len(self._rows)

    def read_ahead(self, alive: Iterable[int]) -> None:
        """Find the places of all values, which takes most of the time of a first scrape. A missing folder has none."""
        if self.folder.is_dir():
            self._merged({str(slot) for slot in alive})

    def render(self, alive: Iterable[int]) -> bytes:
        """Return all samples in Prometheus's text format.

        alive: the worker slots that are held. Live gauges of other slots are left out; those of files whose names end
        in no number belong to other programs, and count.
        """
        order, values = self._merged({str(slot) for slot in alive})
        self._write(order, values)
        pieces, texts = self._pieces, self._texts
        pieces[1::2] = [texts[row] for row in order.rows.tolist()]
        if Merge.MOST_RECENT in self._rows.merges:
            pieces = self._without_unset(order, values)
        return b"".join(pieces)

    def totals(self, alive: Iterable[int]) -> dict[TotalKey, float]:
        """Return the sums by sample name, model and version: `metrics.Totals`."""
        order, values = self._merged({str(slot) for slot in alive})
        places = np.array(self._rows.totals, np.int32)[order.rows]
        summed = places != NO_TOTAL
        places = places[summed]
        sums = np.bincount(places, values[order.rows[summed]], len(self._rows.total_keys))
        keys = list(self._rows.total_keys)
        return {keys[place]: float(sums[place]) for place in np.unique(places)}

    def take_problems(self) -> list[Problem]:
        """Return what has been left out and why: each file once in the life of the reader."""
        taken, self._problems = self._problems, []
        return taken

    def _merged(self, alive: set[str]) -> tuple[Order, Doubles]:
        """Read all files. Return the order of the lines, and the value of each row."""
        if len(self._rows) > FEW_ROWS and self._order is not None and len(self._order.rows) < len(self._rows) / 2:
            self._forget()
        contents = self._read_all(alive)
        if self._order is None:
            is_used = np.zeros(len(self._rows), bool)
            for file, _ in contents:
                for _, rows in file.parts.values():
                    is_used[rows] = True
            self._arrange(self._rows.order(np.flatnonzero(is_used).astype(np.int32)))
        assert self._order is not None
        values = self._sum(contents)
        for to, added in self._order.sums:
            values[to] += values[added]
        values[self._order.counts] = values[self._order.last_buckets]
        return self._order, values

    def _read_all(self, alive: set[str]) -> list[tuple[_File, dict[int, tuple[Doubles, Doubles | None]]]]:
        """Return each file with its values now, and for MOST_RECENT with the moments at which they were set."""
        found = {}
        for name in self._names(alive):
            try:
                file, doubles = self._read(*name)
            except FileNotFoundError:  # it was removed after the folder was listed
                continue
            except (OSError, DamagedFile) as problem:
                self._report(name[0], str(problem))
                continue
            found[name[0]] = (
                file,
                {
                    merge: (doubles[places], doubles[places + 1] if merge == Merge.MOST_RECENT else None)
                    for merge, (places, _) in file.parts.items()
                },
            )
        if found.keys() != self._files.keys():
            self._order = None
        self._files = {name: file for name, (file, _) in found.items()}
        return list(found.values())

    def _names(self, alive: set[str]) -> list[tuple[str, FileKind]]:
        try:
            names = [(name, kind_of(name)) for name in os.listdir(self.folder)]
        except OSError as problem:
            self._report("", str(problem))
            return []
        return [
            (name, kind)
            for name, kind in names
            if kind and not (kind.is_live and kind.writer.isdecimal() and kind.writer not in alive)
        ]

    def _read(self, name: str, kind: FileKind) -> tuple[_File, Doubles]:
        content = read(self.folder / name)
        file = self._files.get(name)
        if file is None or file.identity != content.identity or content.used < file.known:
            self._order, file = None, _File(content.identity)
        if content.used == file.seen:
            return file, content.doubles
        self._order = None
        new = entries(content, file.known)
        if new.problem:
            self._report(name, new.problem)
        row_of_key = self._row_of_key
        rows = list(map(row_of_key.get, new.keys))
        if None in rows:
            for key in new.keys:
                if key not in row_of_key:
                    row_of_key[key] = self._row_of(name, key, kind)
            rows = list(map(row_of_key.get, new.keys))
        file.seen, file.known = content.used, new.end
        file.add(new.places, np.array(rows, np.int32), np.array(self._rows.merges, np.int8))
        return file, content.doubles

    def _row_of(self, name: str, key: bytes, kind: FileKind) -> int:
        try:
            return self._rows.row_of(key, kind)
        except ValueError as problem:
            self._report(name, f"an entry has no readable key: {problem}")
            return UNUSED

    def _sum(self, contents: list[tuple[_File, dict[int, tuple[Doubles, Doubles | None]]]]) -> Doubles:
        values = np.where(np.array(self._rows.merges, np.int8) == Merge.SUM, 0.0, np.nan)
        set_at_s = np.zeros(len(values))
        with np.errstate(invalid="ignore", over="ignore"):
            for file, found in contents:
                for merge, (new, moments) in found.items():
                    rows = file.parts[merge][1]
                    if moments is not None:
                        later = moments > set_at_s[rows]
                        values[rows[later]], set_at_s[rows[later]] = new[later], moments[later]
                    else:
                        _MERGES[merge].at(values, rows, new)
        return values

    def _arrange(self, order: Order) -> None:
        """Keep the order of the lines, and the text before each value."""
        self._order = order
        more = len(self._rows) - len(self._texts)
        self._texts += [b"NaN\n"] * more
        self._shown = np.concatenate((self._shown, np.full(more, _NAN_BITS)))
        prefixes = self._rows.prefixes
        self._pieces = [b""] * (2 * len(order.rows))
        self._pieces[0::2] = [prefixes[row] for row in order.rows.tolist()]
        for place, header in order.headers.items():
            self._pieces[2 * place] = header + self._pieces[2 * place]

    def _write(self, order: Order, values: Doubles) -> None:
        """Make the texts of the values that have changed. Bits are compared, because -0.0 equals 0.0."""
        bits = values.view(np.int64)
        changed = order.rows[bits[order.rows] != self._shown[order.rows]]
        texts = self._texts
        for row, value in zip(changed.tolist(), values[changed].tolist(), strict=True):
            texts[row] = f"{floatToGoString(value)}\n".encode()  # type: ignore[no-untyped-call]
        self._shown[changed] = bits[changed]

    def _without_unset(self, order: Order, values: Doubles) -> list[bytes]:
        """Leave out gauges of mode mostrecent that nobody has set: they have no sample, as in prometheus-client."""
        pieces = self._pieces.copy()
        merges = np.array(self._rows.merges, np.int8)[order.rows]
        for place in np.flatnonzero((merges == Merge.MOST_RECENT) & np.isnan(values[order.rows])).tolist():
            pieces[2 * place : 2 * place + 2] = [order.headers.get(place, b""), b""]
        return pieces

    def _report(self, name: str, reason: str) -> None:
        if name not in self._reported:
            self._reported.add(name)
            self._problems.append(Problem(self.folder / name, reason))


_MERGES: dict[int, np.ufunc] = {Merge.SUM: np.add, Merge.MIN: np.fmin, Merge.MAX: np.fmax}
