"""JSON is weighed before it is decoded: cells, arrays, objects and depth."""

from __future__ import annotations

import time

import pytest

from tableside.decoding.inflate import FREE_BYTES
from tableside.decoding.json_size import MAX_DEPTH, RATIO, check
from tableside.errors import RequestRejected, TooLarge

PADDING = b" " * 5000
"""Texts of up to 4096 bytes are not weighed."""


@pytest.mark.parametrize(
    ("piece", "weight"), [(b"0,", 8), (b"[", 24), (b"{", 64), (b'"', 6)], ids=["cell", "array", "object", "quote"]
)
def test_the_weight_of_a_text(piece: bytes, weight: int) -> None:
    """A text of exactly the limit passes, one piece more does not."""
    check(PADDING + piece * 50, 50 * weight)
    with pytest.raises(TooLarge):
        check(PADDING + piece * 51, 50 * weight)


def test_pieces_in_every_part_of_a_long_text_count() -> None:
    """The text is counted in parts of a MiB."""
    text = b"," + b" " * (1 << 20) + b"," + b" " * (1 << 20) + b","
    check(text, 24)
    with pytest.raises(TooLarge):
        check(text, 23)


def test_a_table_of_one_column_is_the_densest_that_passes() -> None:
    """Rows as arrays or objects pass at any size; a text of empty objects does not."""
    rows = 3_000_000
    for row in (b"[1],", b'{"x":1},', b"1,"):
        check(row * rows, FREE_BYTES + RATIO * len(row) * rows)
    with pytest.raises(TooLarge):
        check(b"{}," * rows, 2**40)


def test_depth() -> None:
    """Arrays and objects count alike; brackets in strings do not count."""
    check(PADDING + b'[{"a":' * (MAX_DEPTH // 2) + b"0" + b"}]" * (MAX_DEPTH // 2), 2**30)
    with pytest.raises(RequestRejected, match="nested too deeply; 64 levels are allowed"):
        check(PADDING + b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1), 2**30)
    check(PADDING + b'["' + b"[" * 500 + b'", "\\"[[' + b"{" * 500 + b'"]', 2**30)
    check(PADDING + b'["' + b"[" * 500 + b'\\\\", "' + b"[" * 500 + b'\\\\\\""]', 2**30)
    too_deep = b"[" * (MAX_DEPTH + 1)
    for before in (b'"\\\\",', b'"\\"",', b'"[\\\\\\"[",', b'"' + b"a" * (3 << 20) + b'",', b" " * (3 << 20)):
        with pytest.raises(RequestRejected, match="nested too deeply"):
            check(PADDING + before + too_deep, 2**30)


def test_a_refusal_for_depth_costs_little() -> None:
    """16 MB of a string or of spaces before the brackets: a few ms of CPU, where an expression took 20 ns a byte."""
    for filler in (b'"' + b"a" * 15_900_000 + b'",', b" " * 15_900_000):
        text = b"[" + filler + b"[" * 100
        spent_s = []
        for _ in range(3):
            before_s = time.thread_time()
            with pytest.raises(RequestRejected):
                check(text, 2**30)
            spent_s.append(time.thread_time() - before_s)
        assert min(spent_s) < 0.1, "it was 0.3 s; 0.01 s now"
