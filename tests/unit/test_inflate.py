"""Decompression: the content comes back unchanged, damaged data is refused, and the result is limited."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable

import pyarrow as pa
import pytest

from tableside.decoding.inflate import inflate
from tableside.errors import RequestRejected, TooLarge, UnsupportedBody

CONTENT = bytes(range(256)) * 300
LIMIT = len(CONTENT)


def raw_deflate(content: bytes) -> bytes:
    compressor = zlib.compressobj(wbits=-15)
    return compressor.compress(content) + compressor.flush()


def zstd(content: bytes) -> bytes:
    compressed: bytes = pa.compress(content, "zstd", asbytes=True)
    return compressed


CODECS: list[tuple[str, Callable[[bytes], bytes]]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("zstd", zstd),
]
every_codec = pytest.mark.parametrize(
    ("encoding", "compress"), CODECS, ids=lambda value: getattr(value, "__name__", value)
)


@every_codec
def test_a_body_as_large_as_the_limit_is_read(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """Every encoding gives back the content, up to a size of exactly the limit."""
    assert inflate(compress(CONTENT), encoding, LIMIT) == CONTENT
    assert inflate(compress(b""), encoding, LIMIT) == b""


@every_codec
def test_a_body_one_byte_larger_is_refused(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """Past the limit the error names the setting and its value."""
    with pytest.raises(TooLarge) as refused:
        inflate(compress(CONTENT), encoding, LIMIT - 1)
    assert (refused.value.setting, refused.value.limit_bytes) == ("server.max_inflated_bytes", LIMIT - 1)


@pytest.mark.parametrize(
    ("encoding", "body", "message"),
    [
        ("gzip", gzip.compress(CONTENT)[:-9], "its compressed data ends early"),
        ("gzip", b"", "its compressed data ends early"),
        ("gzip", b"no gzip at all", "it cannot be decompressed"),
        ("gzip", gzip.compress(CONTENT) + b"rest", "it cannot be decompressed"),
        ("deflate", zlib.compress(CONTENT)[:-5], "its compressed data ends early"),
        ("deflate", zlib.compress(CONTENT) + b"rest", "bytes follow the compressed data"),
        ("zstd", zstd(CONTENT)[:-5], ""),
        ("zstd", b"no zstd at all", "it cannot be decompressed"),
    ],
)
def test_damaged_data_is_refused(encoding: str, body: bytes, message: str) -> None:
    """Data that is cut, malformed or followed by other bytes is never read as a shorter body."""
    with pytest.raises(RequestRejected, match="the body is damaged") as refused:
        inflate(body, encoding, LIMIT)
    assert message in str(refused.value)


@every_codec
def test_a_dense_body_is_inflated_in_chunks(encoding: str, compress: Callable[[bytes], bytes]) -> None:
    """Its content is complete wherever the chunks end, and takes twice its size on the way, not three times."""
    for size in (*range((1 << 20) - 3, (1 << 20) + 3), (2 << 20) + 258, 5_000_001):
        assert inflate(compress(bytes(size)), encoding, 6_000_000) == bytes(size)
    body = compress(bytes(16 << 20))
    tracemalloc.start()
    try:
        inflate(body, encoding, 17 << 20)
        assert tracemalloc.get_traced_memory()[1] < 36 << 20
    finally:
        tracemalloc.stop()


def test_gzip_members_are_joined() -> None:
    """RFC 1952 allows several members in a row; their contents are one body, within one limit."""
    members = gzip.compress(CONTENT[:7]) + gzip.compress(b"") + gzip.compress(CONTENT[7:])
    assert inflate(members, "gzip", LIMIT) == CONTENT
    with pytest.raises(TooLarge):
        inflate(members, "gzip", LIMIT - 1)


def test_the_number_of_gzip_members_is_limited() -> None:
    """Empty members cost time and give nothing, so a body may have 10000 of them."""
    member = gzip.compress(b"")
    assert inflate(member * 10_000, "gzip", LIMIT) == b""
    with pytest.raises(RequestRejected, match="more than 10000 gzip files in a row; send it as one"):
        inflate(member * 10_001, "gzip", LIMIT)


def test_an_unknown_encoding_names_the_known_ones() -> None:
    """The error lists the encodings to use, and quotes at most 40 characters of the header."""
    with pytest.raises(UnsupportedBody) as refused:
        inflate(b"", "b" * 50, LIMIT)
    assert str(refused.value) == f"Content-Encoding '{'b' * 40}' is not supported; use gzip, deflate, zstd or none"
    assert inflate(b"as it is", "", 1) == b"as it is"
