"""Decompression of request bodies, with a limit on the result.

The limit protects the worker's memory: a few kilobytes of compressed data can hold gigabytes.
"""

from __future__ import annotations

import zlib
from typing import Protocol

from tableside.errors import RequestRejected, TooLarge, UnsupportedBody

SETTING = "server.max_inflated_bytes"
ENCODINGS = ("gzip", "deflate", "zstd")
CELL_BYTES = 8
TEXT_CELL_BYTES = 40
"""What a cell counts that becomes a string of Python: its object takes about as much, however short the text is."""
FREE_BYTES = 16 * 1024 * 1024
"""What every body may take once it is inflated or decoded, however small it is."""
_CHUNK_BYTES = 1 << 20
_SLICE_BYTES = 1 << 16
_MAX_MEMBERS = 10_000
_GZIP_WINDOW, _ZLIB_WINDOW, _RAW_WINDOW = 31, 15, -15
"""The `wbits` argument of zlib.decompressobj for RFC 1952, RFC 1950 and RFC 1951."""


class _Decompressor(Protocol):
    """The part of zlib's decompression object that is used here."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    @property
    def unconsumed_tail(self) -> bytes: ...

    def decompress(self, data: bytes | memoryview, max_length: int = 0, /) -> bytes: ...


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """Decompress a body whose Content-Encoding is `encoding`; an empty `encoding` returns the body unchanged.

    gzip is RFC 1952, deflate is RFC 1950 (or raw RFC 1951, which some clients send), zstd is RFC 8878.
    Raises UnsupportedBody for another encoding, TooLarge past `limit_bytes`, RequestRejected for damaged data.
    """
    if not encoding:
        return body
    if encoding in ("gzip", "x-gzip"):
        return _zlib(body, _GZIP_WINDOW, limit_bytes)
    if encoding == "deflate":
        # The two header bytes of RFC 1950: method 8, and a multiple of 31 as a 16-bit number.
        has_header = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _zlib(body, _ZLIB_WINDOW if has_header else _RAW_WINDOW, limit_bytes)
    if encoding == "zstd":
        return _zstd(body, limit_bytes)
    raise UnsupportedBody(f"Content-Encoding {encoding[:40]!r} is not supported; use {', '.join(ENCODINGS)} or none")


def _zlib(body: bytes, window: int, limit_bytes: int) -> bytes:
    content, start, data = bytearray(), 0, memoryview(body)
    for _ in range(_MAX_MEMBERS):
        start = _inflate_member(data, start, zlib.decompressobj(window), content, limit_bytes)
        if start == len(data):
            return bytes(content)
        if window != _GZIP_WINDOW:
            raise RequestRejected("the body is damaged: bytes follow the compressed data")
    raise RequestRejected(f"the body is more than {_MAX_MEMBERS} gzip files in a row; send it as one")


def _inflate_member(
    data: memoryview, start: int, decompressor: _Decompressor, content: bytearray, limit_bytes: int
) -> int:
    """Append one decompressed gzip member to `content` and return the position where the member ends.

    The input is passed in slices, because zlib copies what it has not consumed after each call. The output is taken in
    chunks: zlib would hold a long one twice.
    """
    while not decompressor.eof:
        piece = decompressor.unconsumed_tail or data[start : start + _SLICE_BYTES]
        if not decompressor.unconsumed_tail:
            start += len(piece)
        try:  # zlib may hold output when it has taken all of its input, so it is also asked without any
            inflated = decompressor.decompress(piece, min(limit_bytes + 1 - len(content), _CHUNK_BYTES))
        except zlib.error:
            raise RequestRejected("the body is damaged: it cannot be decompressed") from None
        if not piece and not inflated and not decompressor.eof:
            raise RequestRejected("the body is damaged: its compressed data ends early")
        content += inflated
        if len(content) > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)
    return start - len(decompressor.unused_data)


def _zstd(body: bytes, limit_bytes: int) -> bytes:
    import pyarrow as pa

    content = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            while chunk := stream.read(_CHUNK_BYTES):
                content += chunk
                if len(content) > limit_bytes:
                    raise TooLarge(SETTING, limit_bytes)
    except OSError:
        raise RequestRejected("the body is damaged: it cannot be decompressed") from None
    return bytes(content)
