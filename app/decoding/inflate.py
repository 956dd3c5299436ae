"""Compressed bodies, inflated under a cap: a small body must not become a large memory."""

from __future__ import annotations

import zlib
from typing import Any

from tableside.errors import RequestRejected, TooLarge, UnsupportedBody

SETTING = "server.max_inflated_bytes"
READ = ("gzip", "deflate", "zstd")
CELL_BYTES = 8
_STEP_BYTES = 1 << 20
_SLICE_BYTES = 1 << 16
_MOST_MEMBERS = 10_000


def inflate(body: bytes, encoding: str, limit_bytes: int) -> bytes:
    """The content of a body in `encoding`, "" for none.

    gzip is RFC 1952, deflate RFC 1950 (or raw RFC 1951, as some clients send it), zstd RFC 8878.
    Raises UnsupportedBody for another encoding, TooLarge past `limit_bytes`, RequestRejected for damaged data.
    """
    if not encoding:
        return body
    if encoding in ("gzip", "x-gzip"):
        return _zlib(body, 31, limit_bytes)
    if encoding == "deflate":
        wrapped = len(body) > 1 and body[0] & 15 == 8 and int.from_bytes(body[:2], "big") % 31 == 0
        return _zlib(body, 15 if wrapped else -15, limit_bytes)
    if encoding == "zstd":
        return _zstd(body, limit_bytes)
    raise UnsupportedBody(f"Content-Encoding {encoding[:40]!r} is not read here; use {', '.join(READ)} or none")


def _zlib(body: bytes, window: int, limit_bytes: int) -> bytes:
    found, at, whole = bytearray(), 0, memoryview(body)
    for _ in range(_MOST_MEMBERS):
        at = _member(whole, at, zlib.decompressobj(window), found, limit_bytes)
        if at == len(whole):
            return bytes(found)
        if window < 31:
            raise RequestRejected("the body is damaged: bytes follow the compressed data")
    raise RequestRejected(f"the body is more than {_MOST_MEMBERS} gzip files in a row")


def _member(whole: memoryview, at: int, member: Any, found: bytearray, limit_bytes: int) -> int:
    """Inflate one gzip member from `at`, in slices: what is left over of one is small. Returns where it ends."""
    while not member.eof:
        piece = member.unconsumed_tail or whole[at : at + _SLICE_BYTES]
        if not member.unconsumed_tail:
            at += len(piece)
        if not piece:
            raise RequestRejected("the body is damaged: its compressed data ends early")
        try:
            found += member.decompress(piece, limit_bytes + 1 - len(found))
        except zlib.error:
            raise RequestRejected("the body is damaged: it does not inflate") from None
        if len(found) > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)
    return at - len(member.unused_data)


def check_cells(text: bytes, limit_bytes: int) -> None:
    """Refuse JSON whose commas alone say that its cells take more memory than a body may inflate to.

    `0,` is two bytes of text and eight of a table. Raises TooLarge.
    """
    if len(text) * CELL_BYTES > limit_bytes and text.count(b",") * CELL_BYTES > limit_bytes:
        raise TooLarge(SETTING, limit_bytes)


def _zstd(body: bytes, limit_bytes: int) -> bytes:
    import pyarrow as pa

    found = bytearray()
    try:
        with pa.CompressedInputStream(pa.BufferReader(body), "zstd") as stream:
            while chunk := stream.read(_STEP_BYTES):
                found += chunk
                if len(found) > limit_bytes:
                    raise TooLarge(SETTING, limit_bytes)
    except OSError:
        raise RequestRejected("the body is damaged: it does not inflate") from None
    return bytes(found)
