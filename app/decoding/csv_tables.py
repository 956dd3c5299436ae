"""CSV bodies (RFC 4180, UTF-8) to a `Table`. An empty cell is a missing cell; no row is ever dropped.

Headed files (MLflow's) and header-less ones (SageMaker's) come by one path: the first line decides, and where it could
be either the request is refused rather than a row lost.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, Input
from tableside.contract.table import Table
from tableside.decoding.inflate import CELL_BYTES, SETTING
from tableside.decoding.json_tables import Cells, from_columns, names
from tableside.decoding.rules import Problems, Rules, malformed
from tableside.errors import RequestRejected, TooLarge

Header = Literal["present", "absent"] | None

_BOM = b"\xef\xbb\xbf"
_MOST_FIELDS = 100_000
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_WHOLE = re.compile(r"[+-]?\d+\Z", re.ASCII)
_LONGEST_WHOLE = 400
_PAST_ALL = 10**309
"""A number no column holds: refused as too large, as JSON's 1e400 is."""
_FLAGS = {"true": True, "false": False}

csv.field_size_limit(2**31 - 1)


def from_csv(body: bytes, schema: Input, rules: Rules, header: Header = None, limit_bytes: int = 2**31) -> Table:
    """Rows of text cells, by name under a header line, by position without one.

    header: what the Content-Type says of the first line, None when it says nothing. limit_bytes: what the table's
    cells may take in memory. Raises RequestRejected or TooLarge.
    """
    body = body.removeprefix(_BOM)
    _check_text(body)
    records = _check_quotes(body, len(schema.columns) > 1)
    first = _first_record(body, len(schema.columns) > 1)
    if (body.count(b"\n") + 1) * len(first) * CELL_BYTES > limit_bytes:
        raise TooLarge(SETTING, limit_bytes)
    named = header == "present" if header else _is_header(first, schema)
    columns = _check_header(first, schema, rules) if named else _check_width(first, schema)
    found = _parse(body, named, len(first), rules)
    if records is not None and found.num_rows + named != records:
        raise malformed("body", f"{records} records by one count and {found.num_rows + named} by another: not RFC 4180")
    cells = {c.name: _cells(found.column(columns[c.name]), c) for c in schema.columns if c.name in columns}
    return from_columns(cells, schema, rules, lambda name, row: f"rows[{row}].{name}")


def _lines(body: bytes) -> Iterator[str]:
    at = 0
    while at < len(body):
        end = body.find(b"\n", at) + 1 or len(body)
        if body.count(b",", at, end) > _MOST_FIELDS:
            raise malformed("line 1", f"more than {_MOST_FIELDS} fields")
        yield body[at:end].decode()
        at = end


def _check_text(body: bytes) -> None:
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as problem:
        line = body.count(b"\n", 0, problem.start) + 1
        raise malformed(f"line {line}", "not UTF-8") from None


def _check_quotes(body: bytes, skips_blank: bool) -> int | None:
    """Hold quoted cells to RFC 4180, or an open quote would swallow the rows behind it. Returns the number of records.

    None where nothing is quoted, and every line is a record.
    """
    if b'"' not in body:
        return None
    try:
        return sum(bool(record) or not skips_blank for record in csv.reader(_lines(body), strict=True))
    except csv.Error:
        raise malformed("body", "not CSV: a quote is not closed, or text follows it") from None


def _first_record(body: bytes, skips_blank: bool) -> list[str]:
    """The first line's fields. A blank line is no row, but where there is one column it is a missing cell."""
    try:
        first = next((r or [""] for r in csv.reader(_lines(body), strict=True) if r or not skips_blank), None)
    except csv.Error:
        raise malformed("line 1", "not CSV: a quote is not closed, or text follows it") from None
    if not first:
        raise RequestRejected("the body is empty; CSV was expected, with or without a header line")
    return first


def _is_header(first: Sequence[str], schema: Input) -> bool:
    """Whether the first line holds names. Raises RequestRejected when it could be a row as well."""
    known = {column.name for column in schema.columns}
    as_names = sum(field in known for field in first)
    holds = [_could_hold(column, field) for column, field in zip(schema.columns, first, strict=False)]
    fits = len(first) == len(schema.columns) and all(holds)
    numbered = fits and list(first) == [str(at) for at in range(len(first))] and len(first) > 1
    if not as_names and not any(holds):
        raise malformed("line 1", f"neither the names ({names(schema)}) nor a row of their values")
    if not fits:
        return as_names > 0
    # A row of text that holds just the names, in their order, is no coincidence; all else that fits could be a row.
    only_names = len(first) > 1 and list(first) == [c.name for c in schema.columns if c.datatype == "BYTES"]
    worded = any(field in known and not _NUMBER.match(field) for field in first)
    if numbered or ((as_names == len(first) or worded) and not only_names):
        hint = "Content-Type: text/csv; header=present or text/csv; header=absent"
        raise malformed("line 1", f"could be a header or a row; say which with '{hint}'")
    return only_names


def _could_hold(column: Column, text: str) -> bool:
    cell = _cell(text, column) if text else None
    if cell is None:
        return True
    if column.closed and cell not in (column.categories or ()):
        return False
    return column.datatype == "BYTES" or not isinstance(cell, str)


def _check_header(first: Sequence[str], schema: Input, rules: Rules) -> dict[str, int]:
    known = {column.name for column in schema.columns}
    problems = Problems(rules)
    columns: dict[str, int] = {}
    for at, name in enumerate(first):
        if name in columns and rules.duplicate == "refuse":
            problems.add(f"columns[{at}]", f"{name} is given twice" if name in known else "this name is given twice")
        if name not in known and rules.extra == "refuse":
            problems.add(f"columns[{at}]", f"no such column; expected {names(schema)}")
        columns.setdefault(name, at)
    if problems:
        raise problems.refusal()
    return {name: at for name, at in columns.items() if name in known}


def _check_width(first: Sequence[str], schema: Input) -> dict[str, int]:
    width = len(schema.columns)
    if len(first) != width:
        raise malformed("line 1", f"expected the names or {width} values ({names(schema)}), got {len(first)} fields")
    return {column.name: at for at, column in enumerate(schema.columns)}


def _parse(body: bytes, named: bool, width: int, rules: Rules) -> Any:
    """All rows as text, null for an empty cell. Raises RequestRejected naming rows of another width."""
    bad: list[tuple[int, int]] = []

    def note(row: Any) -> str:
        bad.append((row.number - 1 - named, row.actual_columns))
        return "skip"

    fields = [str(at) for at in range(width)]
    try:
        found = arrow_csv.read_csv(
            pa.BufferReader(body),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=fields, block_size=min(len(body) + 2, 2**31 - 1)
            ),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=width > 1, invalid_row_handler=note
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(fields, pa.string()), strings_can_be_null=True, null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )  # fmt: skip
    except pa.ArrowException:
        raise RequestRejected("the body is not CSV (RFC 4180)") from None
    if bad:
        problems = Problems(rules)
        for row, got in bad:
            problems.add(partial("rows[{}]".format, row), f"expected {width} values, got {got}")
        raise problems.refusal()
    return found.slice(1) if named else found


def _cells(column: Any, kind: Column) -> Cells:
    """A column of text as what its kind of column takes; a cell that is none of that stays text, to be refused."""
    if kind.datatype in ("FP64", "FP32", "INT64") and not kind.closed:
        fast = _numbers(column, whole=kind.datatype == "INT64")
        if fast is not None:
            return fast
    if kind.datatype == "BYTES":
        texts: list[Any] = column.to_pylist()
        return texts
    return [None if text is None else _cell(text, kind) for text in column.to_pylist()]


def _numbers(column: Any, whole: bool) -> Array | None:
    """The good case, decided in C: None when some cell needs a closer look."""
    if whole and (column.null_count or pc.any(pc.match_substring_regex(column, "[xX]")).as_py()):
        return None  # pyarrow would read 0x1F, too
    try:
        found: Array = pc.cast(column, pa.int64() if whole else pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    # A cell that spells infinity or NaN, or overflows, is read one by one.
    if not whole and not np.isfinite(found).all() and np.count_nonzero(~np.isfinite(found)) != column.null_count:
        return None
    return found


def _cell(text: str, kind: Column) -> Any:
    if kind.datatype == "BYTES":
        return text
    text = text.strip()
    if kind.datatype == "BOOL":
        return _FLAGS.get(text.lower(), text)
    if text.lower() == "nan":
        return None
    if _WHOLE.match(text):
        return int(text) if len(text) < _LONGEST_WHOLE else _PAST_ALL
    if not _NUMBER.match(text):
        return text
    value = float(text)
    return _PAST_ALL if abs(value) == float("inf") else value
