"""Conversion of Arrow streams and Parquet files to a `Table`. Columns are matched by name; types and size are checked.

Sources: arrow.apache.org/docs/format/Columnar.html (IPC streaming format), parquet.apache.org/docs/file-format.
pyarrow is used without its thread pool, which does not survive the fork of a worker.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding import parquet_pages
from tableside.decoding.arrow_buffers import check_inflated
from tableside.decoding.dates import has_zone
from tableside.decoding.inflate import CELL_BYTES, SETTING, TEXT_CELL_BYTES
from tableside.decoding.json_tables import from_columns, names
from tableside.decoding.pyarrow_types import ArrowType, Field, RecordBatch, Schema, Values
from tableside.decoding.rules import Cells, Problems, Rules
from tableside.errors import RequestRejected, TooLarge

# pyarrow imports its part for pandas at the first such call, under a lock that all threads share. With gevent a native
# thread may wait for that lock for ever. So the call is made here, before there are threads.
pa.array([""], from_pandas=True)

_DAMAGE_ERRORS = (
    pa.ArrowException, OSError, struct.error, IndexError, OverflowError, MemoryError, UnicodeDecodeError
)  # fmt: skip
"""What pyarrow and the reading of its metadata raise on damaged input."""
_BATCH_ROWS = 65536
_HINTS = ((pa.types.is_temporal, "send dates as text"), (pa.types.is_decimal, "send decimals as float64"))


def from_arrow(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> Table:
    """Convert an Arrow IPC stream to a table.

    Raises RequestRejected, or TooLarge if its columns take more than `limit_bytes` of memory.
    """
    try:
        check_inflated(body, limit_bytes)
        with pa.ipc.open_stream(pa.BufferReader(body), options=pa.ipc.IpcReadOptions(use_threads=False)) as stream:
            fields: Schema = stream.schema
            positions = _choose_columns(fields, schema, rules)
            batches, rows, row_bytes = [], 0, _row_bytes(fields, positions)
            for batch in stream:
                batch.validate(full=True)
                batches.append(batch)
                rows += batch.num_rows
                rules.check_rows(rows)
                if rows * row_bytes > limit_bytes:  # a column of nulls has rows and no bytes
                    raise TooLarge(SETTING, limit_bytes)
        return _to_table(fields, batches, schema, rules, positions, limit_bytes)
    except _DAMAGE_ERRORS as error:
        raise _damaged("an Arrow IPC stream", error) from None


def _row_bytes(fields: Schema, positions: Mapping[str, int]) -> int:
    """What a row counts. Values of a dictionary are strings once, so they count as other cells do."""
    texts = sum(_is_text(fields.field(at).type) for at in positions.values())
    return max(1, len(fields)) * CELL_BYTES + texts * (TEXT_CELL_BYTES - CELL_BYTES)


def from_parquet(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> Table:
    """Convert a Parquet file to a table.

    Raises RequestRejected, or TooLarge if its columns take more than `limit_bytes` of memory.
    """
    try:
        parquet_pages.check(body, len(schema.columns), rules, limit_bytes)
        file = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False)
        fields: Schema = file.schema_arrow
        positions = _choose_columns(fields, schema, rules)
        texts = [name for name, at in positions.items() if _is_text(fields.field(at).type)]
        if any(pa.types.is_string_view(fields.field(at).type) for at in positions.values()):
            raise RequestRejected("text columns of type string_view are not supported in Parquet; write them as string")
        # Text is read as a dictionary, so that a long value that many rows share is in memory once.
        file = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False, read_dictionary=texts)
        batches, size, rows = [], 0, 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(positions), use_threads=False):
            rows += batch.num_rows
            rules.check_rows(rows)
            size += batch.nbytes
            if size > limit_bytes:
                raise TooLarge(SETTING, limit_bytes)
            batches.append(batch)
        # The batches hold the chosen columns only, in the file's order.
        chosen: Schema = batches[0].schema if batches else pa.schema([fields.field(at) for at in positions.values()])
        positions = {name: chosen.get_all_field_indices(name)[0] for name in positions}
        return _to_table(chosen, batches, schema, rules, positions, limit_bytes)
    except _DAMAGE_ERRORS as error:
        raise _damaged("a Parquet file", error) from None


def _damaged(what: str, error: BaseException) -> RequestRejected:
    return RequestRejected(f"the body is not {what}, or it is damaged ({type(error).__name__})")


def _is_supported(kind: ArrowType) -> bool:
    types = pa.types
    return bool(
        types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind) or types.is_null(kind)
        or types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind)
    )  # fmt: skip


def _choose_columns(fields: Schema, schema: Input, rules: Rules) -> dict[str, int]:
    """Return the position of each column of the contract; names and types are checked before any data is read."""
    if len(fields) > parquet_pages.most_columns(len(schema.columns), rules):
        raise parquet_pages.too_many_columns(len(fields), len(schema.columns))
    known = {column.name: column for column in schema.columns}
    index = _index_columns(fields) - known.keys()
    positions: dict[str, int] = {}
    problems = Problems(rules)
    for at, field in enumerate(fields):
        name = field.name
        if name in index:
            continue
        if name in positions and rules.duplicate == "refuse":
            problems.add(f"columns.{name}", "this column is given twice")
        elif name not in known and rules.extra == "refuse":
            problems.add(f"columns.{name}", f"no such column; expected {names(schema)}")
        elif name in known and name not in positions:
            positions[name] = at
            _check_type(field, known[name], problems)
    if problems:
        raise problems.refusal()
    return positions


def _check_type(field: Field, column: Column, problems: Problems) -> None:
    if column.is_date and _is_date(field.type):
        if bool(getattr(field.type, "tz", None)) != has_zone(column.dtype):
            expected = "a time zone" if has_zone(column.dtype) else "no time zone; the column has none"
            problems.add(f"columns.{field.name}", f"expected {expected}, got {field.type}")
        return
    kind = _value_type(field.type) if pa.types.is_dictionary(field.type) else field.type
    if not _is_supported(kind):
        hint = next((f"; {text}" for test, text in _HINTS if test(kind)), "")
        problems.add(f"columns.{field.name}", f"expected numbers, booleans or text, got {kind}{hint}")


def _is_date(kind: ArrowType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _value_type(dictionary: ArrowType) -> ArrowType:
    assert isinstance(dictionary, pa.DictionaryType)
    value_type: ArrowType = dictionary.value_type
    return value_type


def _to_table(
    fields: Schema,
    batches: Sequence[RecordBatch],
    schema: Input,
    rules: Rules,
    positions: Mapping[str, int],
    limit_bytes: int,
) -> Table:
    _check_texts(batches, positions.values(), limit_bytes)
    columns = {name: _cells(fields.field(at).type, batches, at) for name, at in positions.items()}
    return from_columns(columns, schema, rules, lambda name, row: f"rows[{row}].{name}")


def _check_texts(batches: Sequence[RecordBatch], positions: Iterable[int], limit_bytes: int) -> None:
    """Check the size of text columns as if each row had its own copy, because the estimator is given such copies."""
    total = 0
    for batch in batches:
        for at in positions:
            total += _text_bytes(batch.column(at))
            if total > limit_bytes:
                raise TooLarge(SETTING, limit_bytes)


def _text_bytes(values: Values) -> int:
    if isinstance(values, pa.DictionaryArray):
        if not _is_text(_value_type(values.type)):
            return 0
        lengths = pc.binary_length(values.dictionary.cast(pa.large_string())).to_numpy(zero_copy_only=False)
        used = values.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(np.nan_to_num(lengths)[used].sum())
    if isinstance(values, pa.StringViewArray):
        return sum(len(cell.as_buffer()) for cell in values if cell.is_valid)
    return 0


def _index_columns(fields: Schema) -> set[str]:
    """Return the columns that pandas wrote for the frame's index. They are not columns of the table."""
    try:
        pandas_metadata = orjson.loads((fields.metadata or {}).get(b"pandas", b"{}"))
        return {name for name in pandas_metadata.get("index_columns", ()) if isinstance(name, str)}
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return set()


def _cells(kind: ArrowType, batches: Iterable[RecordBatch], at: int) -> Cells:
    """Return one column of all batches: a numpy array if it holds every value exactly, else JSON values."""
    parts = [batch.column(at) for batch in batches]
    if any(pa.types.is_dictionary(part.type) for part in parts):
        return [cell for part in parts for cell in _from_dictionary(part)]
    column: Values = pa.chunked_array(parts, type=kind)
    has_values_only = column.null_count == 0 and not _is_text(kind) and not pa.types.is_null(kind)
    is_array = has_values_only or pa.types.is_floating(kind) or _is_date(kind)
    return column.to_numpy() if is_array else column.to_pylist()


def _is_text(kind: ArrowType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _from_dictionary(values: Values) -> list[object]:
    """Return a column's values. Each value of a dictionary is converted once, however many rows share it."""
    if not isinstance(values, pa.DictionaryArray):
        return values.to_pylist()
    known = [None if value is None or value != value else value for value in values.dictionary.to_pylist()]
    return [None if index is None else known[index] for index in values.indices.to_pylist()]
