"""JSON lines to tables: one line is one row, and a line that is none is named."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tableside.contracts.schema import Column, Input
from tableside.decoding.json_lines import from_json_lines
from tableside.decoding.rules import STRICT, Rules
from tableside.errors import RequestRejected, TooLarge, TooManyRows
from tests.fakes import numbers

AB = numbers("a", "b")
TEXT = Input("texts", (Column("note", "BYTES", "object"),))
GAPS = Input("matrix", (Column("a", "FP64", "float64", nullable=True), Column("b", "FP64", "float64", nullable=True)))
LIMIT = 2**30


def read(body: bytes, schema: Input = AB, rules: Rules = STRICT, limit_bytes: int = LIMIT) -> np.ndarray:
    return np.asarray(from_json_lines(body, schema, rules, limit_bytes).to_input())


@pytest.mark.parametrize(
    "body",
    [
        b"[1,2]\n[3,4]\n", b"[1,2]\n[3,4]", b"[1,2]\r\n[3,4]\r\n", b'{"b":2,"a":1}\n{"a":3,"b":4}',
        b"\xef\xbb\xbf[1,2]\n  [ 3 , 4 ]  \n\n\r\n",
    ],
)  # fmt: skip
def test_each_line_is_a_row(body: bytes) -> None:
    """As arrays or objects, with LF or CRLF, with and without an end of the last line, behind a byte order mark."""
    np.testing.assert_array_equal(read(body), [[1, 2], [3, 4]])


def test_bare_values_of_the_only_column() -> None:
    """A text may hold a line break as JSON writes it."""
    assert from_json_lines(b'"a\\nb"\n"c"', TEXT, STRICT, LIMIT).to_input() == ["a\nb", "c"]


def test_nan_is_a_missing_cell_as_in_json() -> None:
    """Unless `predict.strict_json` is on."""
    np.testing.assert_array_equal(read(b"[1,NaN]\n[null,2]", GAPS), [[1, np.nan], [np.nan, 2]])
    with pytest.raises(RequestRejected, match="line 1: not one JSON value"):
        read(b"[1,NaN]", GAPS, replace(STRICT, strict_json=True))
    with pytest.raises(RequestRejected, match=r"rows\[1\]\[0\] \(a\): too large"):
        read(b"[1,2]\n[Infinity,2]", GAPS)


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        (
            b"[1,2]\n[3,x]\n",
            "line 2",
            "not one JSON value: unexpected character, expected a JSON value at line 2, column 4",
        ),
        (b"[1,2]\n\n[3,4]\n", "line 2", "empty; each line must be one row"),
        (b"[1,2] [3,4]\n", "line 1", "not one JSON value: "),
        (b"[1\n,2]\n", "line 1", "not one JSON value: "),
        (b"[1,2],\n[3,4]\n", "line 1", "not one JSON value: "),
        (b"[1,2],[5,6]\n[3\n4]", "line 1", "not one JSON value: "),
        (b"[1,2]\n[3,4", "line 2", "not one JSON value: "),
        (b"[1,2]\n[\xff,4]", "line 2", "not one JSON value: not UTF-8 at line 2, column 2"),
        (b"[" * 2000, "line 1", "not one JSON value: "),
    ],
)
def test_a_line_that_is_no_value_is_named(body: bytes, place: str, message: str) -> None:
    """By its number; lines that would be JSON only together are none."""
    with pytest.raises(RequestRejected) as refused:
        read(body)
    (cell,) = refused.value.cells
    assert (cell.path, cell.message[: len(message)]) == (place, message)


def test_bad_cells_are_named_by_row() -> None:
    """As in other formats by rows."""
    with pytest.raises(RequestRejected) as refused:
        read(b'[1,2]\n[3,"x"]\n[true,1]')
    assert [cell.path for cell in refused.value.cells] == ["rows[2][0] (a)", "rows[1][1] (b)"]


@pytest.mark.parametrize("body", [b"", b"\n", b" \r\n \n", b"\xef\xbb\xbf"])
def test_an_empty_body(body: bytes) -> None:
    """It has no row, and the error says what was expected."""
    with pytest.raises(RequestRejected, match="the body is empty; JSON lines were expected"):
        read(body)


def test_the_size_is_weighed_before_it_is_decoded() -> None:
    """Each line counts a cell, because it takes as much as one; rows are counted before anything is decoded."""
    one = Input("matrix", (Column("a", "FP64", "float64"),))
    body = b"0\n" * 5000
    assert from_json_lines(body, one, STRICT, 40_000).rows == 5000
    with pytest.raises(TooLarge):
        from_json_lines(body, one, STRICT, 39_999)
    with pytest.raises(TooManyRows):
        from_json_lines(b"not json\n" * 11, one, replace(STRICT, most_rows=10), LIMIT)
