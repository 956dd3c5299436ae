"""Conversion of CSV bodies (RFC 4180, UTF-8) to a `Table`. An empty cell is a missing value.

MLflow's clients send a header line and SageMaker's do not, on the same path. Unless the Content-Type states which, the
first line is inspected: exactly the contract's names in their order are the header. If it could be either, the request
is refused, because a wrong guess would lose a row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv

from tableside.contracts.array_type import Array
from tableside.contracts.id_column import InputWithId, model_of, of_width
from tableside.contracts.schema import Cell, Column, Input
from tableside.contracts.table import Table
from tableside.decoding import dates, missing_words
from tableside.decoding.inflate import CELL_BYTES, SETTING, TEXT_CELL_BYTES
from tableside.decoding.json_tables import from_columns, names
from tableside.decoding.pyarrow_types import InvalidRow, TextTable, Values
from tableside.decoding.rules import Cells, Problems, Rules, malformed
from tableside.errors import RequestRejected, TooLarge

Header = Literal["present", "absent"] | None
"""The `header` parameter of text/csv (RFC 4180, section 3); None if the Content-Type has none."""

_BOM = b"\xef\xbb\xbf"
_MAX_FIELDS = 100_000
_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)
_INTEGER = re.compile(r"[+-]?\d+\Z", re.ASCII)
_MAX_DIGITS = 400
"""Longer integers are not converted: int() takes quadratic time, and no column holds so large a number."""
_TOO_LARGE = 10**309
"""Stands for a number too large for any column: the column then refuses it as it refuses 1e400 in JSON."""
_BOOLEANS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_COMPACT_DATES = (4, 6, 8, 14)
"""Numbers of so many digits could be a date without its hyphens, such as 20260531, and are no milliseconds."""

_TEXT = ("BYTES", "ID")
"""The kinds of columns whose cells are text as they are written: `007` stays `007`."""

_FIELD_BYTES = 8
csv.field_size_limit(2**31 - 1)


def from_csv(body: bytes, schema: Input, rules: Rules, header: Header = None, limit_bytes: int = 2**31) -> Table:
    """Convert CSV to a table: columns by name if there is a header line, by position if not.

    header: whether the first line is a header; None to decide by its content. limit_bytes: the memory that the table's
    cells may take. Raises RequestRejected or TooLarge.
    """
    body = body.removeprefix(_BOM)
    _check_text(body)
    skips_blank = _skips_blank(body, schema, limit_bytes)
    records = _check_quotes(body, skips_blank, limit_bytes)
    first = _first_record(body, skips_blank, limit_bytes)
    texts = sum(column.datatype == "BYTES" for column in schema.columns)  # dates are read as text, too
    row_bytes = len(first) * CELL_BYTES + min(texts, len(first)) * (TEXT_CELL_BYTES - CELL_BYTES)
    if (body.count(b"\n") + 1) * row_bytes > limit_bytes:
        raise TooLarge(SETTING, limit_bytes)
    has_header = header == "present" if header else _is_header(first, schema, rules)
    positions = _check_header(first, schema, rules) if has_header else _check_width(first, schema)
    parsed = _parse(body, has_header, len(first), rules)
    if records is not None and parsed.num_rows + has_header != records:
        counts = f"read as {records} and as {parsed.num_rows + has_header} records"
        raise malformed("body", f"not RFC 4180: its quotes are ambiguous, {counts}")
    cells = {c.name: _cells(parsed.column(positions[c.name]), c) for c in schema.columns if c.name in positions}
    return from_columns(cells, schema, rules.of_texts, lambda name, row: f"rows[{row}].{name}")


def _skips_blank(body: bytes, schema: Input, limit_bytes: int) -> bool:
    """Whether a blank line is no row. In a table of one column it is one, with a missing value."""
    if len(model_of(schema).columns) > 1:
        return True
    return isinstance(schema, InputWithId) and len(_first_record(body, False, limit_bytes)) > 1


def _lines(body: bytes, limit_bytes: int) -> Iterator[str]:
    """Yield the body line by line. Only the csv module's parser needs this: it takes text, not bytes.

    That parser holds a field in up to eight bytes for each character. Raises TooLarge for a record that is too long.
    """
    at, open_bytes, is_open = 0, 0, False
    while at < len(body):
        end = body.find(b"\n", at) + 1 or len(body)
        if body.count(b",", at, end) > _MAX_FIELDS:
            raise malformed("line 1", f"more than {_MAX_FIELDS} fields")
        open_bytes += end - at
        if open_bytes * _FIELD_BYTES > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)
        is_open ^= body.count(b'"', at, end) % 2 == 1
        if not is_open:
            open_bytes = 0
        yield body[at:end].decode()
        at = end


def _check_text(body: bytes) -> None:
    try:
        str(body, "utf-8")
    except UnicodeDecodeError as problem:
        line = body.count(b"\n", 0, problem.start) + 1
        raise malformed(f"line {line}", "not UTF-8") from None


def _check_quotes(body: bytes, skips_blank: bool, limit_bytes: int) -> int | None:
    """Return the number of records, None if no cell is quoted and every line is a record.

    Raises RequestRejected for a quote that is not closed: a lenient parser would read the rows after it as one cell.
    """
    if b'"' not in body:
        return None
    try:
        return sum(bool(record) or not skips_blank for record in csv.reader(_lines(body, limit_bytes), strict=True))
    except csv.Error:
        raise malformed("body", "not CSV: a quote is not closed, or text follows it") from None


def _first_record(body: bytes, skips_blank: bool, limit_bytes: int) -> list[str]:
    """Return the first record's fields. A blank line is skipped, but with one column it is a row: a missing value."""
    records = csv.reader(_lines(body, limit_bytes), strict=True)
    try:
        first = next((record or [""] for record in records if record or not skips_blank), None)
    except csv.Error:
        raise malformed("line 1", "not CSV: a quote is not closed, or text follows it") from None
    if not first:
        raise RequestRejected("the body is empty; CSV was expected, with or without a header line")
    return first


def _is_header(first: Sequence[str], schema: Input, rules: Rules) -> bool:
    """Whether the first line holds column names. Raises RequestRejected if it could also be a row of values."""
    by_position = of_width(schema, len(first))
    if len(first) > 1 and list(first) == [column.name for column in by_position.columns]:
        return True  # as a row of values it would be a rare coincidence
    known = schema.names
    name_count = sum(field in known for field in first)
    accepted = [_accepts(column, field, rules) for column, field in zip(by_position.columns, first, strict=False)]
    is_valid_row = len(first) == len(by_position.columns) and all(accepted)
    if not name_count and not any(accepted):
        raise malformed("line 1", f"neither the names ({names(schema)}) nor a row of their values")
    if not is_valid_row:
        return name_count > 0
    is_numbering = len(first) > 1 and list(first) == [str(at) for at in range(len(first))]
    has_word_name = any(field in known and not _NUMBER.match(field) for field in first)
    if is_numbering or name_count == len(first) or has_word_name:
        hint = "'Content-Type: text/csv; header=present' or 'text/csv; header=absent'"
        raise malformed("line 1", f"could be a header or a row; send {hint}")
    return False


def _accepts(column: Column, text: str, rules: Rules) -> bool:
    cell = cell_of_text(text, column) if text else None
    if cell is None or text in missing_words.of_column(column, rules):
        return True
    if column.is_date:
        return not isinstance(cell, str) or dates.is_date(cell)
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
    schema = of_width(schema, len(first))
    width = len(schema.columns)
    if len(first) != width:
        raise malformed("line 1", f"expected the names or {width} values ({names(schema)}), got {len(first)} fields")
    return {column.name: at for at, column in enumerate(schema.columns)}


def _parse(body: bytes, has_header: bool, width: int, rules: Rules) -> TextTable:
    """Read all rows as text, null for an empty cell. Raises RequestRejected that lists the rows of another width."""
    bad_rows: list[tuple[int, int]] = []

    def skip(row: InvalidRow) -> str:
        bad_rows.append((row.number - 1 - has_header, row.actual_columns))
        return "skip"

    fields = [str(at) for at in range(width)]
    try:
        parsed: TextTable = arrow_csv.read_csv(
            pa.BufferReader(body),
            read_options=arrow_csv.ReadOptions(
                use_threads=False, column_names=fields, block_size=min(len(body) + 2, 2**31 - 1)
            ),
            parse_options=arrow_csv.ParseOptions(
                newlines_in_values=True, ignore_empty_lines=width > 1, invalid_row_handler=skip
            ),
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(fields, pa.string()), strings_can_be_null=True, null_values=[""],
                quoted_strings_can_be_null=False,
            ),
        )  # fmt: skip
    except pa.ArrowException:
        raise RequestRejected("the body is not CSV (RFC 4180)") from None
    if bad_rows:
        problems = Problems(rules)
        for row, got in bad_rows:
            problems.add(partial("rows[{}]".format, row), f"expected {width} values, got {got}")
        raise problems.refusal()
    return parsed.slice(1) if has_header else parsed


def _cells(column: Values, kind: Column) -> Cells:
    """Convert a column of text to its datatype. A cell that cannot be converted stays text, and is refused later."""
    if kind.datatype in ("FP64", "FP32", "INT64") and not kind.closed:
        numbers = _numbers(column, integers=kind.datatype == "INT64")
        if numbers is not None:
            return numbers
    texts = column.to_pylist()
    return (
        texts if kind.kind in _TEXT else [cell_of_text(text, kind) if isinstance(text, str) else None for text in texts]
    )


def _numbers(column: Values, integers: bool) -> Array | None:
    """Convert the whole column with pyarrow. Returns None if a cell needs the conversion one by one."""
    if integers and (column.null_count or pc.any(pc.match_substring_regex(column, "[xX]")).as_py()):
        return None  # pyarrow would accept 0x1F
    try:
        numbers: Array = pc.cast(column, pa.int64() if integers else pa.float64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    # A number that is not finite, besides the missing values, was written as "inf" or "nan", or is too large.
    if not integers and np.count_nonzero(~np.isfinite(numbers)) != column.null_count:
        return None
    return numbers


def cell_of_text(text: str, kind: Column) -> Cell:
    """Return a CSV cell that is not empty as the JSON value that a client would send.

    It stays text, which the column then refuses, if it is no value of the column.
    """
    if kind.kind in _TEXT:
        return text
    text = text.strip()
    if kind.is_date:
        return int(text) if _INTEGER.match(text) and _is_epoch(text) else text
    if kind.datatype == "BOOL":
        return _BOOLEANS.get(text.lower(), text)
    if text.lower() == "nan":
        return None
    if _INTEGER.match(text):
        return int(text) if len(text) < _MAX_DIGITS else _TOO_LARGE
    if not _NUMBER.match(text):
        return text
    value = float(text)
    return _TOO_LARGE if abs(value) == float("inf") else value


def _is_epoch(text: str) -> bool:
    digits = len(text.lstrip("+-"))
    return digits not in _COMPACT_DATES and digits < _MAX_DIGITS
