"""Arrow and Parquet: types, names, the pandas index, and sizes that are checked before memory is allocated."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding.arrow import from_arrow, from_parquet
from tableside.decoding.arrow_buffers import check_inflated
from tableside.decoding.rules import STRICT, Rules
from tableside.errors import RequestRejected, TooLarge

LIMIT = 2**20
SCHEMA = Input(
    "frame",
    (
        Column("real", "FP64", "float64", nullable=True),
        Column("count", "INT64", "int64", nullable=True),
        Column("word", "BYTES", "object", nullable=True, missing="none"),
    ),
)
ONE = Input("frame", (Column("c", "FP64", "float64"),))
WORD = Input("frame", (Column("c", "BYTES", "object", nullable=True, missing="none"),))
Write = Callable[[pa.Table], bytes]
Read = Callable[..., Table]


def stream_of(table: pa.Table, codec: str | None = None) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=codec)) as stream:
        stream.write_table(table)
    return sink.getvalue()


def file_of(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


both = pytest.mark.parametrize(
    ("read", "write"), [(from_arrow, stream_of), (from_parquet, file_of)], ids=["arrow", "parquet"]
)


def refusal(read: Read, body: bytes, schema: Input = ONE, rules: Rules = STRICT) -> RequestRejected:
    with pytest.raises(RequestRejected) as refused:
        read(body, schema, rules, LIMIT)
    return refused.value


@both
def test_columns_are_matched_by_name(read: Read, write: Write) -> None:
    """Columns in any order, with missing values and dictionaries, are the columns of the contract."""
    words = pa.array(["a", None, "a"]).dictionary_encode()
    sent = pa.table({"word": words, "count": pa.array([1, None, 3]), "real": pa.array([0.1, None, -0.0])})
    frame = read(write(sent), SCHEMA, STRICT, LIMIT).to_input()
    assert list(frame.columns) == ["real", "count", "word"]
    assert frame["word"].tolist() == ["a", None, "a"]
    np.testing.assert_array_equal(frame["count"], [1, np.nan, 3])
    assert frame["real"].to_numpy().tobytes() == np.array([0.1, np.nan, -0.0]).tobytes()


@both
@pytest.mark.parametrize(
    "kind", [pa.float32(), pa.int8(), pa.uint64(), pa.int32(), pa.float64()], ids=lambda kind: str(kind)
)
def test_numbers_of_every_width_are_numbers(read: Read, write: Write, kind: Any) -> None:
    """Numbers of another width become those of the trained dtype."""
    sent = pa.table({"c": pa.array([1, 2], kind)})
    assert read(write(sent), ONE, STRICT, LIMIT).to_input()["c"].tolist() == [1.0, 2.0]


@both
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([datetime.date(2026, 1, 2)], "expected numbers, booleans or text, got date32[day]; send dates as text"),
        ([decimal.Decimal("1.5")], "got decimal128(2, 1); send decimals as float64"),
        ([[1.0]], "expected numbers, booleans or text, got list<"),
        ([b"x"], "expected numbers, booleans or text, got binary"),
    ],
)
def test_types_without_cells_are_refused(read: Read, write: Write, values: list[Any], message: str) -> None:
    """A column of a type that no cell has is refused by its name, with what to send instead."""
    (error,) = refusal(read, write(pa.table({"c": pa.array(values)}))).cells
    assert error.path == "columns.c"
    assert message in error.message


@both
def test_a_bad_cell_is_named(read: Read, write: Write) -> None:
    """The error of a cell has its row and column."""
    (error,) = refusal(read, write(pa.table({"c": ["1", None]})), ONE).cells[:1]
    assert (error.path, error.message) == ("rows[0].c", "expected a number, got a string")


@both
def test_unknown_and_repeated_columns_follow_the_rules(read: Read, write: Write) -> None:
    """They are refused by default; if the rules ignore them, the first column of a name is read."""
    unknown = pa.table({"c": [1.0], "d": [2.0]})
    (error,) = refusal(read, write(unknown)).cells
    assert (error.path, error.message) == ("columns.d", "no such column; expected c")
    assert read(write(unknown), ONE, Rules(extra="ignore"), LIMIT).to_input()["c"].tolist() == [1.0]


def test_a_repeated_column_follows_the_rules() -> None:
    """A column that is given twice is refused, or its first one is read."""
    body = stream_of(pa.Table.from_arrays([pa.array([1.0]), pa.array([2.0])], names=["c", "c"]))
    (error,) = refusal(from_arrow, body).cells
    assert (error.path, error.message) == ("columns.c", "this column is given twice")
    assert from_arrow(body, ONE, Rules(duplicate="ignore"), LIMIT).to_input()["c"].tolist() == [1.0]


@both
def test_the_index_of_a_frame_is_no_column(read: Read, write: Write) -> None:
    """pandas names its index columns in the metadata; they are left out, unless the contract has them."""
    sent = pa.table({"c": [1.0], "__index_level_0__": [7]})
    metadata = {b"pandas": json.dumps({"index_columns": ["__index_level_0__", {"kind": "range"}]}).encode()}
    assert read(write(sent.replace_schema_metadata(metadata)), ONE, STRICT, LIMIT).rows == 1
    for damaged in (b"{", b"[]", b'{"index_columns": 1}'):
        body = write(sent.replace_schema_metadata({b"pandas": damaged}))
        assert refusal(read, body).cells[0].path == "columns.__index_level_0__"
    index = {b"pandas": b'{"index_columns": ["c"]}'}
    assert read(write(pa.table({"c": [1.0]}).replace_schema_metadata(index)), ONE, STRICT, LIMIT).rows == 1


@both
@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_a_cut_body_is_refused(read: Read, write: Write, cut: int) -> None:
    """A body that ends early is refused as damaged, or still holds every row."""
    whole = write(pa.table({"c": np.arange(1000.0)}))
    try:
        assert read(whole[:cut], ONE, STRICT, LIMIT).rows == 1000
    except RequestRejected as refused:
        assert "or it is damaged (" in refused.detail


@both
def test_memory_is_limited(read: Read, write: Write) -> None:
    """Columns of nulls, repeated numbers and text that rows share are counted as the memory that they will take."""
    rows = LIMIT // 8
    assert read(write(pa.table({"c": np.zeros(rows // 2)})), ONE, STRICT, LIMIT).rows == rows // 2
    shared = pa.array(["x" * 1000] * 1100).dictionary_encode()
    for sent, schema in (
        (pa.table({"c": np.zeros(rows + 1)}), ONE),
        (pa.table({"c": pa.nulls(rows + 1)}), ONE),
        (pa.table({"c": shared}), WORD),
    ):
        with pytest.raises(TooLarge, match="server.max_inflated_bytes"):
            read(write(sent), schema, STRICT, LIMIT)
    assert read(write(pa.table({"c": shared[:900]})), WORD, STRICT, LIMIT).rows == 900


@pytest.mark.parametrize("codec", ["lz4", "zstd"])
def test_the_size_of_compressed_buffers_is_read_first(codec: str) -> None:
    """A stream of compressed buffers is refused by the size that they state, dictionaries included."""
    small = pa.table({"c": np.zeros(1000)})
    assert from_arrow(stream_of(small, codec), ONE, STRICT, LIMIT).rows == 1000
    large = stream_of(pa.table({"c": np.zeros(LIMIT // 4)}), codec)
    words = stream_of(pa.table({"c": pa.array(["x" * 2 * LIMIT]).dictionary_encode()}), codec)
    assert max(len(large), len(words)) < LIMIT // 8
    for body, schema in ((large, ONE), (words, WORD)):
        with pytest.raises(TooLarge):
            check_inflated(body, LIMIT)
        with pytest.raises(TooLarge):
            from_arrow(body, schema, STRICT, LIMIT)


def test_uncompressed_buffers_count_as_they_are() -> None:
    """A stream without compression takes its own size, and a stream without batches takes nothing."""
    table = pa.table({"c": np.zeros(1000)})
    check_inflated(stream_of(table), 8000)
    with pytest.raises(TooLarge):
        check_inflated(stream_of(table), 7999)
    check_inflated(stream_of(table[:0]), 0)


@pytest.mark.parametrize("codec", [None, "lz4", "zstd"])
def test_a_changed_byte_is_answered_or_refused(codec: str | None) -> None:
    """No byte of a stream, whatever it is changed to, causes another exception or a table over the limit."""
    whole = stream_of(pa.table({"c": pa.array([1.0, 2.0, 3.0])}), codec)
    for at in range(len(whole)):
        for value in (0, 255, whole[at] ^ 128):
            changed = whole[:at] + bytes((value,)) + whole[at + 1 :]
            try:
                assert from_arrow(changed, ONE, STRICT, LIMIT).rows <= LIMIT // 8
            except (RequestRejected, TooLarge):
                continue


def test_string_views_are_read_from_streams_only() -> None:
    """An Arrow stream may have text of type string_view; in Parquet the error names the type to write."""
    table = pa.table({"c": pa.array(["a", None, "long enough to be a view"], pa.string_view())})
    frame = from_arrow(stream_of(table), WORD, STRICT, LIMIT).to_input()
    assert frame["c"].tolist() == ["a", None, "long enough to be a view"]
    with pytest.raises(TooLarge):
        from_arrow(stream_of(table), WORD, STRICT, 24)
    expected = "text columns of type string_view are not supported in Parquet; write them as string"
    assert str(refusal(from_parquet, file_of(table), WORD)) == expected


@both
def test_no_rows_are_an_empty_table(read: Read, write: Write) -> None:
    """A body without rows is a table without rows, which a prediction refuses later."""
    assert read(write(pa.table({"c": pa.array([], pa.float64())})), ONE, STRICT, LIMIT).rows == 0
