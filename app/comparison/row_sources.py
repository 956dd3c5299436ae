"""The rows that two versions are compared on: golden rows, or those of a CSV, Parquet or JSON lines file.

Each version decodes them by its own contract, as it decodes a request. Rows that one of them refuses are left out.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tableside.contracts.schema import Cell, Contract, Input
from tableside.contracts.table import Table
from tableside.decoding import arrow, csv_tables
from tableside.decoding.json_tables import from_rows
from tableside.decoding.rules import Rules
from tableside.errors import RequestRejected, TablesideError

MAX_ROWS = 100_000
"""Of a longer file the first rows are compared."""
MAX_FILE_BYTES = 1 << 31
ENDINGS = (".csv", ".parquet", ".jsonl")
_ROW = re.compile(r"\[(\d+)\]")
_MOST_ERRORS = 200_000
_MOST_PASSES = 8
"""A cell may be refused for one reason after another, such as its type and then its category."""


class RowSource(Protocol):
    """Rows before they are decoded. name: where they are from, for people. count: how many there are."""

    name: str
    count: int

    def table(self, keep: Sequence[int], schema: Input, rules: Rules) -> Table:
        """Return the rows with these numbers. Raises RequestRejected; its paths have positions in `keep`."""


class Reading(NamedTuple):
    """How a version reads requests. missing_words: those of model.toml, by column."""

    schema: Input
    missing_words: Mapping[str, frozenset[str]] = {}


class Refused(msgspec.Struct, frozen=True):
    """The rows that a version does not take. first: the number of the first one, from 0. reason: why it is refused."""

    rows: int = 0
    first: int | None = None
    reason: str = ""


class ComparedRows(msgspec.Struct, frozen=True):
    """The rows that both versions take: their numbers, and the same rows as each version decodes them."""

    numbers: list[int]
    old: Table | None
    new: Table | None
    refused_by_old: Refused
    refused_by_new: Refused


class NamedRows:
    """Rows as objects, by column name: golden rows, and JSON lines."""

    def __init__(self, name: str, rows: Sequence[object]) -> None:
        self.name, self.count, self._rows = name, len(rows), rows

    def table(self, keep: Sequence[int], schema: Input, rules: Rules) -> Table:
        """Return the rows with these numbers."""
        return from_rows([self._rows[at] for at in keep], schema, rules)


class CsvRows:
    """The records of a CSV file with a header line."""

    def __init__(self, name: str, text: str) -> None:
        records = [record for record in csv.reader(io.StringIO(text, newline="")) if record]
        self.name, self._head, self._records = name, records[:1], records[1 : MAX_ROWS + 1]
        self.count = len(self._records)

    def table(self, keep: Sequence[int], schema: Input, rules: Rules) -> Table:
        """Return the rows with these numbers. An empty cell is a missing value, quoted or not."""
        text = io.StringIO(newline="")
        csv.writer(text, lineterminator="\n").writerows([*self._head, *(self._records[at] for at in keep)])
        return csv_tables.from_csv(text.getvalue().encode(), schema, rules, "present")


class ParquetRows:
    """The rows of a Parquet file."""

    def __init__(self, name: str, content: bytes) -> None:
        self._table = pq.read_table(pa.BufferReader(content), use_threads=False).slice(0, MAX_ROWS)
        self.name, self.count = name, self._table.num_rows

    def table(self, keep: Sequence[int], schema: Input, rules: Rules) -> Table:
        """Return the rows with these numbers."""
        chosen = self._table if len(keep) == self.count else self._table.take(list(keep))
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, chosen.schema) as writer:
            writer.write_table(chosen)
        return arrow.from_arrow(sink.getvalue().to_pybytes(), schema, rules, MAX_FILE_BYTES)


def golden(old: Contract, new: Contract) -> NamedRows:
    """Return the golden rows of both versions, each once."""
    rows: dict[tuple[tuple[str, Cell], ...], None] = {}
    for contract in (old, new):
        names = [column.name for column in contract.input.columns]
        rows.update(dict.fromkeys(tuple(zip(names, row, strict=True)) for row in contract.golden.rows))
    return NamedRows("golden rows", [dict(row) for row in rows])


def of_file(path: Path) -> RowSource:
    """Return the rows of a file, at most MAX_ROWS. Raises RequestRejected for one that cannot be read."""
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise RequestRejected(f"{path}: rows are read from files that end in {', '.join(ENDINGS)}")
    try:
        if path.stat().st_size > MAX_FILE_BYTES:
            raise RequestRejected(f"{path}: larger than {MAX_FILE_BYTES >> 30} GB. Take fewer rows")
        content = path.read_bytes()
        return _READ[ending](path.name, content)
    except OSError as problem:
        raise RequestRejected(f"{path}: {problem.strerror or problem}") from problem
    except (ValueError, csv.Error, pa.ArrowException) as problem:
        raise RequestRejected(f"{path}: not a {ending} file: {problem}") from problem


def _of_lines(name: str, content: bytes) -> NamedRows:
    lines = [line for line in content.decode("utf-8-sig").splitlines() if line.strip()]
    return NamedRows(name, [json.loads(line) for line in lines[:MAX_ROWS]])


_READ: dict[str, Callable[[str, bytes], RowSource]] = {
    ".csv": lambda name, content: CsvRows(name, content.decode("utf-8-sig")),
    ".parquet": ParquetRows,
    ".jsonl": _of_lines,
}


def compare_rows(source: RowSource, old: Reading, new: Reading) -> ComparedRows:
    """Return the rows that both versions take, and how many each of them refuses.

    Columns that a version does not have are left out for it; columns that are not there count as missing, where it
    accepts that.
    """
    everything = list(range(source.count))
    by_old, refused_by_old = _taken(source, everything, old)
    by_new, refused_by_new = _taken(source, everything, new)
    both = set(by_new)
    numbers = [at for at in by_old if at in both]
    if not numbers:
        return ComparedRows([], None, None, refused_by_old, refused_by_new)
    was, now = (source.table(numbers, each.schema, _rules(source.count, each)) for each in (old, new))
    return ComparedRows(numbers, was, now, refused_by_old, refused_by_new)


def _rules(rows: int, reading: Reading) -> Rules:
    most_errors = min(rows * len(reading.schema.columns) + 1, _MOST_ERRORS)
    return Rules(most_errors, extra="ignore", missing="fill", duplicate="ignore", missing_words=reading.missing_words)


def _taken(source: RowSource, keep: list[int], reading: Reading) -> tuple[list[int], Refused]:
    """Return the numbers of the rows that a version takes, and what it refuses."""
    refused = Refused()
    for _ in range(_MOST_PASSES):
        if not keep:
            break
        try:
            source.table(keep, reading.schema, _rules(source.count, reading))
            return keep, refused
        except RequestRejected as problem:
            bad = {int(found[1]): cell for cell in reversed(problem.cells) if (found := _ROW.search(cell.path))}
            if not bad or any(_ROW.search(cell.path) is None for cell in problem.cells):
                return [], _all(refused, keep, str(problem))
            first = min(bad)
            reason = f"{bad[first].path.partition('.')[2] or 'the row'}: {bad[first].message}"
            refused = _more(refused, len(bad), keep[first], reason)
            keep = [number for at, number in enumerate(keep) if at not in bad]
        except TablesideError as problem:
            return [], _all(refused, keep, str(problem))
    return [], _all(refused, keep, refused.reason)


def _all(before: Refused, keep: Sequence[int], reason: str) -> Refused:
    return Refused(before.rows + len(keep), keep[0] if keep else before.first, reason)


def _more(before: Refused, rows: int, first: int, reason: str) -> Refused:
    if before.first is not None and before.first < first:
        return msgspec.structs.replace(before, rows=before.rows + rows)
    return Refused(before.rows + rows, first, reason)
