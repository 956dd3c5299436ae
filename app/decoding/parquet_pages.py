"""The size of a Parquet file, read from its footer and its pages' headers before pyarrow reads any of it.

pyarrow allocates over a kilobyte for each element of the schema, and what the headers of the pages state. A file of a
few kilobytes can state gigabytes. Source: apache/parquet-format, src/main/thrift/parquet.thrift (FileMetaData,
PageHeader). pyarrow's own metadata objects are not used, because they abort the process for some damaged files.
"""

from __future__ import annotations

from collections.abc import Iterator

from tableside.decoding.inflate import CELL_BYTES, SETTING
from tableside.decoding.rules import Rules
from tableside.decoding.thrift_compact import Reader, Struct, TooManyItems, TooManyValues, Value
from tableside.errors import RequestRejected, TooLarge

MAX_UNKNOWN_COLUMNS = 10_000
"""A file may have so many columns, or row groups, more than the contract has columns."""
MAX_REFUSED_COLUMNS = 50
"""The same where unknown columns are refused: so many are looked at one by one, and more are only counted."""
MAX_PAGES, PAGE_BYTES = 20_000, 256
"""The most pages of a file: MAX_PAGES, and one for each PAGE_BYTES. A file of a million rows usually has a page for
each column and 20,000 rows. Reading the header of a page takes 6 us."""
_MAX_VALUES, _COLUMN_VALUES = 400_000, 100
"""The most values in a footer: _MAX_VALUES, and _COLUMN_VALUES for each column that is known. It has about 40 for each
column chunk. Reading one takes 0.5 us."""
_MAX_HEADER_VALUES = 1000
_MAGIC = b"PAR1"
_SCHEMA, _NUM_ROWS, _ROW_GROUPS = 2, 3, 4
"""Fields of FileMetaData."""
_COLUMNS, _META_DATA = 1, 3
"""Fields of RowGroup and ColumnChunk."""
_UNCOMPRESSED_TOTAL, _COMPRESSED_TOTAL, _DATA_PAGE, _DICTIONARY_PAGE = 6, 7, 9, 11
"""Fields of ColumnMetaData."""
_UNCOMPRESSED, _COMPRESSED = 2, 3
"""Fields of PageHeader."""


def check(body: bytes, known_columns: int, rules: Rules, limit_bytes: int) -> None:
    """Refuse a file whose table or pages state more than `limit_bytes`, or that has too many rows.

    known_columns: how many columns the contract has. Raises TooLarge, TooManyRows; RequestRejected for a file with
    many more columns, where unknown ones are refused; IndexError for a damaged file.
    """
    try:
        metadata = _footer(body, known_columns, rules)
    except TooManyItems as problem:
        raise too_many_columns(problem.items - 1, known_columns) from None
    except TooManyValues:
        raise TooLarge(SETTING, limit_bytes) from None
    schema, groups = _list(metadata.get(_SCHEMA)), _list(metadata.get(_ROW_GROUPS))
    rows = _integer(metadata.get(_NUM_ROWS))
    rules.check_rows(rows)
    if rows * max(1, len(schema) - 1) * CELL_BYTES > limit_bytes:  # repeated values take almost no room in a file
        raise TooLarge(SETTING, limit_bytes)
    _check_pages(body, groups, limit_bytes)


def too_many_columns(columns: int, known_columns: int) -> RequestRejected:
    """Return the refusal of a table that has many more columns than the model."""
    return RequestRejected(f"the table has {columns} columns; the model takes {known_columns}")


def most_columns(known_columns: int, rules: Rules) -> int:
    """Return how many columns a table may have before its columns are looked at one by one."""
    return known_columns + (MAX_REFUSED_COLUMNS if rules.extra == "refuse" else MAX_UNKNOWN_COLUMNS)


def _footer(body: bytes, known_columns: int, rules: Rules) -> Struct:
    """Return the FileMetaData, which stands before its length and the magic number at the end.

    Raises TooManyItems for a schema that has more elements than `most_columns` and the root, and TooManyValues, also
    where another list has more than known_columns and MAX_UNKNOWN_COLUMNS items.
    """
    length = int.from_bytes(body[-8:-4], "little")
    if body[-4:] != _MAGIC or len(body) < length + 8:
        raise IndexError("no footer")
    most_values = _MAX_VALUES + _COLUMN_VALUES * known_columns
    most_items = known_columns + MAX_UNKNOWN_COLUMNS
    reader = Reader(memoryview(body), len(body) - 8 - length, most_values, most_items)
    return reader.struct(most_items={_SCHEMA: most_columns(known_columns, rules) + 1})


def _check_pages(body: bytes, groups: list[Value], limit_bytes: int) -> None:
    data, stated, pages, read, compressed = memoryview(body), 0, 0, 0, 0
    most_pages = MAX_PAGES + len(body) // PAGE_BYTES
    for start, end, uncompressed in _chunks(groups):
        stated, compressed, at = stated + uncompressed, compressed + end - start, start
        if compressed > len(body):  # column chunks do not overlap
            raise IndexError("the column chunks are larger than the file")
        while at < min(end, len(data)):
            reader = Reader(data, at, _MAX_HEADER_VALUES)
            header = reader.struct()
            read, pages = read + _integer(header.get(_UNCOMPRESSED)), pages + 1
            if max(stated, read) > limit_bytes or pages > most_pages:
                raise TooLarge(SETTING, limit_bytes)
            at = reader.at + _integer(header.get(_COMPRESSED))
    if stated > limit_bytes:
        raise TooLarge(SETTING, limit_bytes)


def _chunks(groups: list[Value]) -> Iterator[tuple[int, int, int]]:
    """Yield the first and last position of each column chunk, and the uncompressed size that it states."""
    for group in groups:
        for chunk in _list(_struct(group).get(_COLUMNS)):
            column = _struct(_struct(chunk).get(_META_DATA))
            offsets = [_integer(column.get(field) or 0) for field in (_DICTIONARY_PAGE, _DATA_PAGE)]
            start = min((offset for offset in offsets if offset), default=0)
            yield start, start + _integer(column.get(_COMPRESSED_TOTAL)), _integer(column.get(_UNCOMPRESSED_TOTAL))


def _struct(value: Value) -> Struct:
    if not isinstance(value, dict):
        raise IndexError("a structure is missing")
    return value


def _list(value: Value) -> list[Value]:
    if not isinstance(value, list):
        raise IndexError("a list is missing")
    return value


def _integer(value: Value) -> int:
    if not isinstance(value, int) or value < 0:
        raise IndexError("a number is missing or negative")
    return value
