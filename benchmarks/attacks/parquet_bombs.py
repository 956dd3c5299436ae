"""Parquet files of a few bytes that state gigabytes, written by hand in Thrift's compact protocol.

Source: apache/parquet-format, src/main/thrift/parquet.thrift; apache/thrift, doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import pyarrow as pa

_MAGIC = b"PAR1"
_I32, _I64, _BINARY, _LIST, _STRUCT = 5, 6, 8, 9, 12
_STOP = b"\0"
_DOUBLE, _BROTLI = 5, 4
_PLAIN, _RLE = 0, 3


def unsigned(value: int) -> bytes:
    """Return a number as a varint."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes(out + bytes((value,)))


def struct(*fields: tuple[int, int, bytes]) -> bytes:
    """Return a structure of fields, each its number, its type and its bytes, in the order of their numbers."""
    out, last = bytearray(), 0
    for number, kind, content in fields:
        out += bytes(((number - last) << 4 | kind,)) + content
        last = number
    return bytes(out) + _STOP


def integer(number: int, value: int, kind: int = _I32) -> tuple[int, int, bytes]:
    """Return a field with a number that is not negative."""
    return number, kind, unsigned(value << 1)


def text(number: int, value: str) -> tuple[int, int, bytes]:
    """Return a field with a text."""
    return number, _BINARY, _binary(value)


def items(number: int, kind: int, values: Sequence[bytes]) -> tuple[int, int, bytes]:
    """Return a field with a list of values of one type."""
    size = bytes((len(values) << 4 | kind,)) if len(values) < 15 else bytes((0xF0 | kind,)) + unsigned(len(values))
    return number, _LIST, size + b"".join(values)


def _binary(value: str) -> bytes:
    return unsigned(len(value)) + value.encode()


def _file(pages: bytes, schema: Sequence[bytes], chunks: Sequence[bytes]) -> bytes:
    group = struct(items(1, _STRUCT, chunks), integer(2, 100, _I64), integer(3, 1, _I64))
    root = struct(text(4, "schema"), integer(5, len(schema)))
    footer = struct(
        integer(1, 2), items(2, _STRUCT, [root, *schema]), integer(3, 1, _I64), items(4, _STRUCT, [group])
    )  # fmt: skip
    return _MAGIC + pages + footer + len(footer).to_bytes(4, "little") + _MAGIC


def _element(name: str) -> bytes:
    return struct(integer(1, _DOUBLE), integer(3, 0), text(4, name))


@cache
def _zeros(size: int) -> bytes:
    return bytes(pa.compress(bytes(size), "brotli", asbytes=True))


def _page(size: int) -> bytes:
    packed = _zeros(size)
    values = struct(integer(1, 1), integer(2, _PLAIN), integer(3, _RLE), integer(4, _RLE))
    return struct(integer(1, 0), integer(2, size), integer(3, len(packed)), (5, _STRUCT, values)) + packed


def _chunk(name: str, start: int, length: int) -> bytes:
    column = struct(
        integer(1, _DOUBLE), items(2, _I32, [unsigned(_PLAIN)]), items(3, _BINARY, [_binary(name)]),
        integer(4, _BROTLI), integer(5, 1, _I64), integer(6, 100, _I64), integer(7, length, _I64),
        integer(9, start, _I64),
    )  # fmt: skip
    return struct(integer(2, start, _I64), (3, _STRUCT, column))


def pages(names: Sequence[str], size: int) -> bytes:
    """Return a file of one row. The page of each column states `size` bytes and holds as many zeros, compressed."""
    page, at = _page(size), len(_MAGIC)
    chunks = [_chunk(name, at + number * len(page), len(page)) for number, name in enumerate(names)]
    return _file(page * len(names), [_element(name) for name in names], chunks)


def shared_pages(columns: int, count: int) -> bytes:
    """Return a file whose columns all name the same `count` small pages."""
    page = _page(8)
    chunk = _chunk("a", len(_MAGIC), count * len(page))
    return _file(page * count, [_element("a")] * columns, [chunk] * columns)


def elements(count: int) -> bytes:
    """Return a file without pages whose schema has so many columns."""
    return _file(b"", [_element("a")] * count, [])
