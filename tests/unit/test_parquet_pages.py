"""Parquet files that state or hold far more than their size are refused before pyarrow decompresses them."""

from __future__ import annotations

import io
import tracemalloc
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.attacks import parquet_bombs
from tableside.contracts.schema import Column, Input
from tableside.decoding.arrow import from_parquet
from tableside.decoding.parquet_pages import MAX_PAGES, MAX_REFUSED_COLUMNS, MAX_UNKNOWN_COLUMNS, check
from tableside.decoding.rules import Rules
from tableside.errors import RequestRejected, TooLarge, TooManyRows


def parquet(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


ONE = Input("frame", (Column("c", "FP64", "float64", nullable=True),))
ROWS = 1 << 20


def varint(value: int) -> bytes:
    """A signed number as the compact protocol writes it."""
    value, out = value << 1, bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes((value,)))


def understated(body: bytes) -> bytes:
    """The file with metadata that states a size of 0 for its columns; the page headers are left as they are."""
    metadata = pq.ParquetFile(pa.BufferReader(body)).metadata
    at = len(body) - 8 - int.from_bytes(body[-8:-4], "little")
    head, footer = body[:at], body[at:]
    for size in {metadata.row_group(0).total_byte_size, metadata.row_group(0).column(0).total_uncompressed_size}:
        stated = varint(size)
        assert stated in footer
        footer = footer.replace(stated, b"\x80" * (len(stated) - 1) + b"\x00")
    return head + footer


@pytest.mark.parametrize("codec", ["zstd", "gzip", "snappy"])
def test_the_pages_are_counted_whatever_the_metadata_states(codec: str) -> None:
    """8 MB of zeros in a file of kilobytes, whose metadata states a size of 0, is refused by its page headers."""
    body = understated(parquet(pa.table({"c": np.zeros(ROWS)}), compression=codec, use_dictionary=False))
    assert len(body) < ROWS // 2
    assert pq.ParquetFile(pa.BufferReader(body)).metadata.row_group(0).total_byte_size == 0
    rules = Rules(most_rows=ROWS)
    check(body, 1, rules, 8 * ROWS + 100_000)
    with pytest.raises(TooLarge):
        check(body, 1, rules, 8 * ROWS)
    assert from_parquet(body, ONE, rules, 9 * ROWS).rows == ROWS


def test_dictionary_pages_and_every_row_group_count() -> None:
    """Two row groups, each with a dictionary of long texts."""
    texts = pa.array([letter * 100_000 for letter in "ab"])
    body = parquet(pa.table({"c": texts}), row_group_size=1, compression="zstd")
    assert pq.ParquetFile(pa.BufferReader(body)).metadata.num_row_groups == 2
    check(body, 1, Rules(), 201_000)
    with pytest.raises(TooLarge):
        check(body, 1, Rules(), 200_000)


def wide(unknown: int) -> bytes:
    """Return a file with the column of the contract and so many others."""
    names = ["c", *(f"x{at}" for at in range(unknown))]
    return parquet(pa.table({name: pa.array([1.0]) for name in names}), store_schema=False)


def test_a_file_of_many_columns_is_refused_before_its_metadata_is_read() -> None:
    """Where unknown columns are ignored, MAX_UNKNOWN_COLUMNS of them are read, and where they are refused far fewer."""
    ignoring = Rules(extra="ignore")
    with pytest.raises(RequestRejected, match=f"the table has {MAX_UNKNOWN_COLUMNS + 2} columns; the model takes 1$"):
        from_parquet(wide(MAX_UNKNOWN_COLUMNS + 1), ONE, ignoring, 2**30)
    assert from_parquet(wide(MAX_REFUSED_COLUMNS + 1), ONE, ignoring, 2**30).rows == 1
    with pytest.raises(RequestRejected, match=f"the table has {MAX_REFUSED_COLUMNS + 2} columns; the model takes 1$"):
        from_parquet(wide(MAX_REFUSED_COLUMNS + 1), ONE, Rules(), 2**30)
    with pytest.raises(RequestRejected) as refusal:
        from_parquet(wide(MAX_REFUSED_COLUMNS), ONE, Rules(), 2**30)
    assert "columns.x0" in str(refusal.value.cells)


def test_a_long_list_is_refused_before_its_items_are_read() -> None:
    """A schema of 900,000 elements in 7 MB, is refused by the length that it states."""
    body = parquet_bombs.elements(900_000)
    tracemalloc.start()
    try:
        with pytest.raises(RequestRejected, match="the table has 900000 columns"):
            from_parquet(body, ONE, Rules(), 2**30)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_pages_that_state_far_more_than_the_file_are_refused() -> None:
    """The file has 2 kB, and its pages state half a gigabyte."""
    names = [str(at) for at in range(8)]
    table = Input("frame", tuple(Column(name, "FP64", "float64", nullable=True) for name in names))
    body = parquet_bombs.pages(names, 1 << 26)
    assert len(body) < 3000
    with pytest.raises(TooLarge):
        from_parquet(body, table, Rules(), 2**28)
    assert from_parquet(parquet_bombs.pages(names, 8), table, Rules(), 2**30).rows == 1


def test_pages_are_read_once() -> None:
    """Columns that share their pages would make a few kilobytes any amount of work; chunks do not overlap."""
    body = parquet_bombs.shared_pages(1000, 100)
    assert len(body) < 50_000
    with pytest.raises(IndexError, match="larger than the file"):
        check(body, 1000, Rules(), 2**30)


def test_pages_are_limited_by_the_size_of_the_file() -> None:
    """More than MAX_PAGES, and one for each 256 bytes: reading their headers costs more than their values."""
    check(parquet_bombs.shared_pages(1, MAX_PAGES), 1, Rules(), 2**30)
    with pytest.raises(TooLarge):
        check(parquet_bombs.shared_pages(1, 3 * MAX_PAGES // 2), 1, Rules(), 2**30)


def test_rows_are_counted_before_any_page_is_read() -> None:
    """The metadata states the number of rows."""
    body = parquet(pa.table({"c": np.zeros(1001)}))
    assert from_parquet(body, ONE, Rules(most_rows=1001), 2**30).rows == 1001
    with pytest.raises(TooManyRows, match="1001 rows or more; server.max_rows allows 1000"):
        from_parquet(body, ONE, Rules(most_rows=1000), 2**30)


def test_a_changed_byte_is_answered_or_refused() -> None:
    """No byte of a file, whatever it is changed to, causes another exception or a table over the limit."""
    whole = parquet(pa.table({"c": pa.array([1.0, 2.0, 3.0])}), compression="zstd", write_statistics=True)
    for at in range(len(whole)):
        for value in (0, 255, whole[at] ^ 128):
            changed = whole[:at] + bytes((value,)) + whole[at + 1 :]
            try:
                assert from_parquet(changed, ONE, Rules(), 2**20).rows <= 2**17
            except (RequestRejected, TooLarge, TooManyRows):
                continue
