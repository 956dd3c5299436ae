"""The lines of a scrape: which key of a metric file belongs to which line, and in which order the lines come."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray
from prometheus_client.utils import floatToGoString

from tableside.telemetry.metric_entries import FileKind, Merge
from tableside.telemetry.metric_totals import TotalKey, total_key

Numbers = NDArray[np.int32]
NO_TOTAL = UNUSED = -1
_BUCKET, _OTHER, _COUNT = 0, 1, 2
_decode_key = msgspec.json.Decoder(tuple[str, str, dict[str, str], str]).decode


class Order(NamedTuple):
    """The lines of a scrape in order, and how the buckets of histograms are added up.

    headers: the HELP and TYPE lines by the place of the line before which they stand.
    sums: pairs of rows, one pair after the other: the values of the second rows are added to those of the first.
    counts, last_buckets: the rows of histograms' counts, and those whose values they get.
    """

    rows: Numbers
    headers: dict[int, bytes]
    sums: list[tuple[Numbers, Numbers]]
    counts: Numbers
    last_buckets: Numbers


class _Child(NamedTuple):
    """A histogram with its labels: its buckets mostly come one after the other, so the last one is kept.

    before_bound, after_bound: the line of a bucket up to its bound, and behind it.
    """

    family: int
    labels: dict[str, str]
    group: int
    count_line: bytes
    before_bound: str
    after_bound: str


class Rows:
    """A row for each sample. Rows are never removed; the reader begins anew when too many are unused.

    prefixes: each row's line up to its value. merges: how the row's values become one.
    totals: the place of the row's sum in `total_keys`, or NO_TOTAL.
    """

    def __init__(self) -> None:
        self.prefixes: list[bytes] = []
        self.merges, self.totals = array("b"), array("i")
        self.total_keys: dict[TotalKey, int] = {}
        self._families: dict[str, int] = {}
        self._headers: list[bytes] = []
        self._known: dict[bytes, int] = {}
        self._groups: dict[bytes, int] = {}
        self._count_of_group = array("i")
        self._family, self._group = array("i"), array("i")
        self._rank, self._bound = array("b"), array("d")
        self._child = _Child(UNUSED, {}, UNUSED, b"", "", "")
        self._bounds: dict[str, tuple[float, str]] = {}

    def __len__(self) -> int:
        return len(self.prefixes)

    def row_of(self, key: bytes, kind: FileKind) -> int:
        """Return the row of a key, and make it if it is new; UNUSED for a histogram's count, which buckets give.

        Raises ValueError if the key is none of prometheus-client.
        """
        name, sample, labels, help_text = _decode_key(key)
        family = self._families.get(name)
        if family is None:
            family = self._families[name] = len(self._headers)
            self._headers.append(_header(name, kind.type, help_text))
        if kind.type == "histogram":
            return self._row_of_histogram(family, name, sample, labels)
        line = _line(sample, labels)
        row = self._known.get(line)
        if row is None:
            group = self._new_group(line)
            row = self._add(line, kind.merge, family, group, _OTHER, total=total_key(sample, labels))
        return row

    def _row_of_histogram(self, family: int, name: str, sample: str, labels: dict[str, str]) -> int:
        bound = labels.pop("le", None)
        child = self._child
        if child.family != family or child.labels != labels:
            child = self._child = self._child_of(family, name, labels)
        if bound is None:
            line = _line(sample, labels)
            if line == child.count_line:
                return UNUSED
            row = self._known.get(line)
            if row is None:
                row = self._add(line, Merge.SUM, family, child.group, _OTHER, total=total_key(sample, labels))
            return row
        if self._count_of_group[child.group] < 0:
            self._count_of_group[child.group] = self._add(
                child.count_line, Merge.COUNTED, family, child.group, _COUNT, total=total_key(f"{name}_count", labels)
            )
        upper = self._bounds.get(bound)
        if upper is None:
            upper = self._bounds[bound] = (float(bound), floatToGoString(bound))  # type: ignore[no-untyped-call]
        line = f"{child.before_bound}{upper[1]}{child.after_bound}".encode()
        row = self._known.get(line)
        return self._add(line, Merge.SUM, family, child.group, _BUCKET, upper[0]) if row is None else row

    def _child_of(self, family: int, name: str, labels: dict[str, str]) -> _Child:
        count_line = _line(f"{name}_count", labels)
        group = self._groups.get(count_line)
        if group is None:
            group = self._new_group(count_line)
        before = "".join([f"{pair}," for pair in _pairs(labels) if pair < "le="])
        after = "".join([f",{pair}" for pair in _pairs(labels) if pair > "le="])
        return _Child(family, labels, group, count_line, f'{name}_bucket{{{before}le="', f'"{after}}} ')

    def _new_group(self, line: bytes) -> int:
        group = self._groups[line] = len(self._count_of_group)
        self._count_of_group.append(-1)
        return group

    def _add(
        self, line: bytes, merge: Merge, family: int, group: int, rank: int, bound: float = 0.0,
        total: TotalKey | None = None,
    ) -> int:  # fmt: skip
        row = self._known[line] = len(self.prefixes)
        self.prefixes.append(line)
        self.merges.append(merge)
        self._family.append(family)
        self._group.append(group)
        self._rank.append(rank)
        self._bound.append(bound)
        place = NO_TOTAL if total is None else self.total_keys.setdefault(total, len(self.total_keys))
        self.totals.append(place)
        return row

    def order(self, used: Numbers) -> Order:
        """Return the order of the lines. used: the rows that files have, each once."""
        family, group, rank, bound = (np.array(each) for each in (self._family, self._group, self._rank, self._bound))
        counts = np.array(self._count_of_group, np.int32)[np.unique(group[used[rank[used] == _BUCKET]])]
        rows = np.concatenate((used, counts)).astype(np.int32)
        rows = rows[np.lexsort((bound[rows], rank[rows], group[rows], family[rows]))]
        places = np.arange(len(rows))
        is_bucket = rank[rows] == _BUCKET
        begins = np.ones(len(rows), bool)
        begins[1:] = group[rows[1:]] != group[rows[:-1]]
        depth = places - np.maximum.accumulate(np.where(begins, places, 0))
        sums = []
        for level in range(1, int(depth[is_bucket].max(initial=0)) + 1):
            at = np.flatnonzero(is_bucket & (depth == level))
            sums.append((rows[at], rows[at - 1]))
        count_at = np.flatnonzero(rank[rows] == _COUNT)
        last = np.flatnonzero(is_bucket & ~np.append(is_bucket[1:] & ~begins[1:], False))
        first_of_family = np.flatnonzero(np.append(True, family[rows[1:]] != family[rows[:-1]])[: len(rows)])
        headers = {int(at): self._headers[family[rows[at]]] for at in first_of_family}
        return Order(rows, headers, sums, rows[count_at], rows[last])


def _header(name: str, kind: str, help_text: str) -> bytes:
    shown = f"{name}_total" if kind == "counter" else name
    escaped = help_text.replace("\\", "\\\\").replace("\n", "\\n")
    return f"# HELP {shown} {escaped}\n# TYPE {shown} {kind}\n".encode()


def _line(sample: str, labels: Mapping[str, str]) -> bytes:
    """Return a sample's line up to its value, with labels in the order of their names."""
    if not labels:
        return f"{sample} ".encode()
    return f"{sample}{{{','.join(_pairs(labels))}}} ".encode()


def _pairs(labels: Mapping[str, str]) -> list[str]:
    return [f'{name}="{_escaped(labels[name])}"' for name in sorted(labels)]


def _escaped(value: str) -> str:
    if "\\" in value or "\n" in value or '"' in value:
        return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
    return value
