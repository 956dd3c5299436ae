"""Arrow and Parquet bodies to a `Table`: columns by name, their types held to the contract, their size bounded.

Sources: arrow.apache.org/docs/format/Columnar.html (IPC streaming format), parquet.apache.org/docs/file-format.
pyarrow runs on the calling thread only: its pool does not survive a fork.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.decoding.inflate import SETTING
from tableside.decoding.json_tables import Cells, from_columns, names
from tableside.decoding.rules import Problems, Rules
from tableside.errors import RequestRejected, TooLarge

_DAMAGE = (
    pa.ArrowException, OSError, struct.error, IndexError, OverflowError, MemoryError, UnicodeDecodeError
)  # fmt: skip
_BATCH_ROWS = 65536
_HINTS = ((pa.types.is_temporal, "send dates as text"), (pa.types.is_decimal, "send decimals as float64"))


def from_arrow(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> Table:
    """An Arrow IPC stream. Raises RequestRejected, or TooLarge when its buffers inflate past `limit_bytes`."""
    try:
        check_inflated(body, limit_bytes)
        with pa.ipc.open_stream(pa.BufferReader(body), options=pa.ipc.IpcReadOptions(use_threads=False)) as stream:
            found = stream.schema
            chosen = _choose(found, schema, rules)
            batches, rows = [], 0
            for batch in stream:
                batch.validate(full=True)
                batches.append(batch)
                rows += batch.num_rows
                if rows * max(1, len(found)) * 8 > limit_bytes:  # a column of nulls has rows and no bytes
                    raise TooLarge(SETTING, limit_bytes)
        return _to_table(found, batches, schema, rules, chosen, limit_bytes)
    except _DAMAGE as damage:
        raise _damaged("an Arrow IPC stream", damage) from None


def from_parquet(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> Table:
    """A Parquet file. Raises RequestRejected, or TooLarge when it holds more than `limit_bytes`."""
    try:
        file = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False)
        shape = file.metadata
        # Pages of repeated values take no room in the file: what it says of its rows is checked before any is read.
        if shape.num_rows * max(1, shape.num_columns) * 8 > limit_bytes or _stated_bytes(shape) > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)
        found = file.schema_arrow
        chosen = _choose(found, schema, rules)
        texts = [name for name, at in chosen.items() if _is_text(found.field(at).type)]
        if any(pa.types.is_string_view(found.field(at).type) for at in chosen.values()):
            raise RequestRejected("the file's text columns are views; write them as strings")
        # Text is read as positions in a list of values, so a long value that many rows share is there once.
        file = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False, read_dictionary=texts)
        batches, size = [], 0
        for batch in file.iter_batches(_BATCH_ROWS, columns=list(chosen), use_threads=False):
            size += batch.nbytes
            if size > limit_bytes:
                raise TooLarge(SETTING, limit_bytes)
            batches.append(batch)
        # The batches hold the chosen columns only, in the file's order.
        found = batches[0].schema if batches else pa.schema([found.field(at) for at in chosen.values()])
        chosen = {name: found.get_all_field_indices(name)[0] for name in chosen}
        return _to_table(found, batches, schema, rules, chosen, limit_bytes)
    except _DAMAGE as damage:
        raise _damaged("a Parquet file", damage) from None


def _stated_bytes(shape: Any) -> int:
    return sum(shape.row_group(at).total_byte_size for at in range(shape.num_row_groups))


def _damaged(what: str, damage: BaseException) -> RequestRejected:
    return RequestRejected(f"the body is not {what}, or it is damaged ({type(damage).__name__})")


def _readable(kind: Any) -> bool:
    tests = pa.types
    return bool(
        tests.is_integer(kind) or tests.is_floating(kind) or tests.is_boolean(kind) or tests.is_null(kind)
        or tests.is_string(kind) or tests.is_large_string(kind) or tests.is_string_view(kind)
    )  # fmt: skip


def _choose(found: Any, schema: Input, rules: Rules) -> dict[str, int]:
    """Where each column of the contract stands, decided by names and types before any data is read."""
    known = {column.name for column in schema.columns}
    index = _index_columns(found) - known
    chosen: dict[str, int] = {}
    problems = Problems(rules)
    for at, field in enumerate(found):
        name = field.name
        if name in index:
            continue
        if name in chosen and rules.duplicate == "refuse":
            problems.add(f"columns.{name}", "this column is given twice")
        elif name not in known and rules.extra == "refuse":
            problems.add(f"columns.{name}", f"no such column; expected {names(schema)}")
        elif name in known and name not in chosen:
            chosen[name] = at
            _check_type(field, problems)
    if problems:
        raise problems.refusal()
    return chosen


def _check_type(field: Any, problems: Problems) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    if not _readable(kind):
        hint = next((f"; {text}" for test, text in _HINTS if test(kind)), "")
        problems.add(f"columns.{field.name}", f"expected numbers, booleans or text, got {kind}{hint}")


def _to_table(
    found: Any, batches: Sequence[Any], schema: Input, rules: Rules, chosen: Mapping[str, int], limit_bytes: int
) -> Table:
    _check_texts(batches, chosen.values(), limit_bytes)
    columns: Mapping[str, Cells] = {name: _cells(found.field(at).type, batches, at) for name, at in chosen.items()}
    return from_columns(columns, schema, rules, lambda name, row: f"rows[{row}].{name}")


def _check_texts(batches: Sequence[Any], places: Iterable[int], limit_bytes: int) -> None:
    """Refuse text that is short only because rows share it: the estimator is given each row's own."""
    total = 0
    for batch in batches:
        for at in places:
            total += _text_bytes(batch.column(at))
            if total > limit_bytes:
                raise TooLarge(SETTING, limit_bytes)


def _text_bytes(part: Any) -> int:
    if pa.types.is_dictionary(part.type):
        if not _is_text(part.type.value_type):
            return 0
        lengths = pc.binary_length(part.dictionary.cast(pa.large_string())).to_numpy(zero_copy_only=False)
        used = part.indices.drop_null().to_numpy(zero_copy_only=False)
        return int(np.nan_to_num(lengths)[used].sum())
    if pa.types.is_string_view(part.type):
        return sum(len(cell.as_buffer()) for cell in part if cell.is_valid)
    return 0


def _index_columns(found: Any) -> set[str]:
    """Columns pandas wrote for the frame's index: they are none of the table's."""
    try:
        noted = orjson.loads((found.metadata or {}).get(b"pandas", b"{}"))
        return {name for name in noted.get("index_columns", ()) if isinstance(name, str)}
    except (orjson.JSONDecodeError, AttributeError, TypeError):
        return set()


def _cells(kind: Any, batches: Iterable[Any], at: int) -> Cells:
    """One column over all batches: a numpy array where that loses nothing, else JSON cells."""
    parts = [batch.column(at) for batch in batches]
    if any(pa.types.is_dictionary(part.type) for part in parts):
        return [cell for part in parts for cell in _from_dictionary(part)]
    column = pa.chunked_array(parts, type=kind)
    exact = pa.types.is_floating(kind) or (column.null_count == 0 and not _is_text(kind) and not pa.types.is_null(kind))
    if exact:
        array: Cells = column.to_numpy()
        return array
    cells: list[Any] = column.to_pylist()
    return cells


def _is_text(kind: Any) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _from_dictionary(part: Any) -> list[Any]:
    """Each value once, however many rows name it."""
    if not pa.types.is_dictionary(part.type):
        return list(part.to_pylist())
    values = [None if value is None or value != value else value for value in part.dictionary.to_pylist()]
    return [None if index is None else values[index] for index in part.indices.to_pylist()]


def check_inflated(body: bytes, limit_bytes: int) -> None:
    """Refuse an IPC stream whose compressed buffers say that they hold more than `limit_bytes`.

    pyarrow allocates what a buffer says before it inflates it, so the sum is taken from the messages' own tables first.
    Raises TooLarge; struct.error, IndexError or ArrowException for a damaged stream.
    """
    total = 0
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(body))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.body is None or message.type not in ("record batch", "dictionary batch"):
            continue
        data = memoryview(message.body)
        total += len(data)
        for offset, length in _compressed_buffers(memoryview(message.metadata), message.type):
            if length >= 8:
                (size,) = struct.unpack_from("<q", data, offset)
                total += max(0, size)
        if total > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)


def _compressed_buffers(metadata: memoryview, kind: str) -> list[tuple[int, int]]:
    """(offset, length) of each buffer of a record batch whose body is compressed; empty when it is not.

    Reads three tables of the message's flatbuffer (arrow/format/Message.fbs): Message.header, DictionaryBatch.data and
    RecordBatch.buffers, .compression. A table starts with the offset back to its vtable of field offsets.
    """
    message = _follow(metadata, 0)
    header = _table(metadata, message, 2)
    if kind == "dictionary batch":
        header = _table(metadata, header, 1) if header else 0
    if not header or not _field(metadata, header, 3):
        return []
    buffers = _table(metadata, header, 2)
    if not buffers:
        return []
    (count,) = struct.unpack_from("<I", metadata, buffers)
    if count > len(metadata) // 16:
        raise IndexError("more buffers than the message can list")
    return [struct.unpack_from("<qq", metadata, buffers + 4 + 16 * at) for at in range(count)]


def _follow(data: memoryview, at: int) -> int:
    (step,) = struct.unpack_from("<I", data, at)
    return int(at + step)


def _field(data: memoryview, table: int, number: int) -> int:
    """Where a table's field lies, 0 when it is absent."""
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise IndexError("a table's vtable lies outside the message")
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + int(offset) if offset else 0


def _table(data: memoryview, table: int, number: int) -> int:
    """Where the table or vector a field points to lies, 0 when the field is absent."""
    at = _field(data, table, number)
    return _follow(data, at) if at else 0
