"""npy files to tables: exactly, or refused before anything is allocated; nothing in them is evaluated."""

from __future__ import annotations

import contextlib
import io
import struct
import tracemalloc
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding.json_lines import from_json_lines
from tableside.decoding.json_tables import from_rows
from tableside.decoding.npy import from_npy
from tableside.decoding.rules import STRICT, Rules
from tableside.errors import RequestRejected, TooLarge, TooManyRows
from tests.fakes import numbers
from tests.spellings import npy

AB = numbers("a", "b")
WHOLE = Input("frame", (Column("i", "INT64", "int64"), Column("j", "INT64", "int64")))
FLAGS = Input("frame", (Column("f", "BOOL", "bool"), Column("g", "BOOL", "bool")))
TEXT = Input("frame", (Column("s", "BYTES", "object", nullable=True), Column("t", "BYTES", "object")))
LIMIT = 2**30


def read(body: bytes, schema: Input = AB, rules: Rules = STRICT, limit_bytes: int = LIMIT) -> Any:
    return from_npy(body, schema, rules, limit_bytes).to_input()


def refused(body: bytes, schema: Input = AB) -> str:
    with pytest.raises(RequestRejected) as caught:
        read(body, schema)
    return str(caught.value)


def file(header: str, data: bytes = b"", version: int = 1) -> bytes:
    """An npy file with this header."""
    text = header.encode("latin-1")
    return b"\x93NUMPY" + bytes((version, 0)) + struct.pack("<H" if version == 1 else "<I", len(text)) + text + data


@pytest.mark.parametrize("dtype", ["f8", ">f8", "f4", ">f4", "f2", "i8", "<i4", ">i2", "i1", "u8", "u4", "u2", "u1"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_numbers_of_every_dtype(dtype: str, order: Any) -> None:
    """In both orders of bytes and of memory; a number is first what the file's own dtype can hold."""
    array = np.array([[1, 2.1], [3, 100]]).astype(dtype, order=order)
    found = read(npy(array))
    np.testing.assert_array_equal(found, array.astype(float))
    assert found.flags.c_contiguous


def test_columns_of_integers_and_booleans() -> None:
    """They are checked as in other formats."""
    big = np.array([[2**63 - 1, -(2**63)]])
    assert read(npy(big), WHOLE).iloc[0].tolist() == big[0].tolist()
    assert read(npy(np.array([[True, False]])), FLAGS).iloc[0].tolist() == [True, False]
    assert "rows[0][1] (j): expected an integer, got a number with a fraction" in refused(
        npy(np.array([[1, 2.5]])), WHOLE
    )
    assert "rows[0][0] (a): expected a number, got a boolean" in refused(npy(np.array([[True, False]])))
    two = npy(np.array([[True, False]]))[:-2] + b"\2\0"
    assert "each boolean as a byte of 0 or 1" in refused(two, FLAGS)


def test_tables_of_other_formats_share_a_batch() -> None:
    """An array of float64 has the batch key of the same table in JSON lines and in rows, whatever its order."""
    rows = [[1.0, 2.0], [3.0, 4.0]]
    array = np.array(rows)
    tables = [from_npy(npy(each), AB, STRICT, LIMIT) for each in (array, np.asfortranarray(array))]
    tables += [from_json_lines(b"[1,2]\n[3,4]", AB, STRICT, LIMIT), from_rows(rows, AB)]
    assert len({table.batch_key() for table in tables}) == 1
    np.testing.assert_array_equal(Table.concat(tables).to_input(), rows * 4)


def test_text_and_missing_cells() -> None:
    """Text of any byte order. numpy writes a missing cell of text as a word; NaN is a missing number."""
    array = np.array([["nan", "ü€\U0001f600"], ["x", "nan"]])
    for spelled in (array, array.astype(array.dtype.newbyteorder(">"))):
        found = read(npy(spelled), TEXT)
        assert found.isna().to_numpy().tolist() == [[True, False], [False, False]]
        assert found.iloc[:, 1].tolist() == ["ü€\U0001f600", "nan"]
    assert "rows[0][0] (a): expected a number, got a string" in refused(npy(array))
    assert "rows[1][0] (a): expected a number, got null" in refused(npy(np.array([[1, 2], [np.nan, 3]])))


@pytest.mark.parametrize("code", [0x110000, 0xD800, 0xDFFF, 0xFFFFFFFF])
def test_text_that_is_no_unicode(code: int) -> None:
    """Python would raise, or make a text that cannot be encoded."""
    body = npy(np.array([["aa", "b"]]))
    assert "no Unicode character" in refused(body[:-8] + struct.pack("<I", code) + body[-4:], TEXT)


def test_one_row_and_one_column() -> None:
    """A flat array is one row, or the only column."""
    np.testing.assert_array_equal(read(npy(np.array([1.0, 2.0]))), [[1, 2]])
    one = Input("matrix", (Column("a", "FP64", "float64"),))
    np.testing.assert_array_equal(read(npy(np.array([1.0, 2.0])), one), [[1], [2]])


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros((2, 3)), "shape: expected [rows, 2] (a, b), got [2, 3]"),
        (np.zeros(3), "shape: expected [rows, 2] (a, b), got [1, 3]"),
        (np.zeros((1, 2, 1)), "got [1, 2, 1]"),
        (np.float64(1), "got []"),
        (np.zeros((0, 2)), "the request has no rows"),
        (np.zeros((1, 2), dtype="c16"), "expected an array of numbers (at most 64 bits), booleans or text"),
        (np.zeros((1, 2), dtype="S3"), "expected an array of numbers"),
        (np.zeros((1, 2), dtype="M8[s]"), "expected an array of numbers"),
        (np.zeros(2, dtype=[("a", "f8"), ("b", "f8")]), "not the npy header of an array of numbers, booleans or text"),
    ],
)
def test_other_arrays_are_refused(array: Any, text: str) -> None:
    """With the shape or the kinds that are read."""
    assert text in refused(npy(array))


def test_objects_are_never_read() -> None:
    """An array of objects is a pickle. Only its header is looked at."""
    sink = io.BytesIO()
    np.save(sink, np.array([["a", None]], dtype=object), allow_pickle=True)
    assert "header: an array of objects is a pickle, which is never read" in refused(sink.getvalue())


GOOD = "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2), }"


@pytest.mark.parametrize(
    "header",
    [
        GOOD, GOOD + " " * 60 + "\n", GOOD.replace("'", '"'), GOOD.replace(", }", "}"), GOOD.replace(" ", ""),
        "{'shape': (1L, 2L,), 'descr': '<f8', 'fortran_order': False}",
    ],
)  # fmt: skip
@pytest.mark.parametrize("version", [1, 2, 3])
def test_headers_of_other_programs(header: str, version: int) -> None:
    """Other spaces, quotes, order of members, and integers of Python 2."""
    np.testing.assert_array_equal(read(file(header, struct.pack("<2d", 1, 2), version)), [[1, 2]])


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\x93NUMPY", b"\x93NUMPY\x04\x00\x00\x00", b"\x93NUMPY\x01\x00\xff\xff{}", b"{}", b"PK\x03\x04",
        file("{'descr': '<f8', 'fortran_order': False, 'shape': (1, -2), }"),
        file("{'descr': '<f8', 'fortran_order': False, 'shape': __import__('os'), }"),
        file("{'descr': '<f8', 'fortran_order': 0, 'shape': (1, 2), }", bytes(16)),
        file("{'descr': '<f8', 'descr': '<f8', 'shape': (1, 2), }", bytes(16)),
        file("{'descr': True, 'fortran_order': False, 'shape': (1, 2), }", bytes(16)),
        file("{'descr': '<f8', 'fortran_order': False, 'shape': 'x', }", bytes(16)),
        file("{'descr': '<U0', 'fortran_order': False, 'shape': (1, 2), }"),
        file("{'descr': '<f8', 'fortran_order': False, 'shape': (1 2), }", bytes(16)),
        file("(" * 4000), file(" " * 4000), file("{" + " " * 3000 + "'" * 900), file(GOOD[:-1], bytes(16)),
        file(GOOD, bytes(15)), file(GOOD, bytes(17)), file(GOOD), file(GOOD + " " * 5000, bytes(16)),
    ],
)  # fmt: skip
def test_a_damaged_file_is_refused(body: bytes) -> None:
    """Nothing in a header is evaluated, and data and header must agree to the byte."""
    assert "the request is malformed: " in refused(body)


def test_a_size_that_is_stated_only_takes_no_memory() -> None:
    """Sizes are compared as numbers of any length before an array is made."""
    tracemalloc.start()
    try:
        for shape in ("(999999, 2)", f"({10**18}, {10**18})", f"({10**18}, 0)", f"({10**18}, 2)"):
            for dtype in ("<f8", "|b1", "<U99999999"):
                body = file(f"{{'descr': '{dtype}', 'fortran_order': True, 'shape': {shape}, }}", bytes(100))
                with pytest.raises((RequestRejected, TooLarge, TooManyRows)):
                    read(body)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()


def test_the_table_is_weighed() -> None:
    """A byte becomes eight, and a text forty."""
    flags = npy(np.zeros((1000, 2), dtype=bool))
    assert from_npy(flags, FLAGS, STRICT, 16_000).rows == 1000
    with pytest.raises(TooLarge):
        from_npy(flags, FLAGS, STRICT, 15_999)
    with pytest.raises(TooLarge):
        from_npy(npy(np.full((1000, 2), "a")), TEXT, STRICT, 79_999)
    with pytest.raises(TooManyRows):
        from_npy(npy(np.zeros((11, 2))), AB, replace(STRICT, most_rows=10), LIMIT)


@given(body=st.binary(max_size=60), header=st.text("(){}'\", 0123456789TrueFals:descfortan_pLUi<>|", max_size=120))
def test_random_headers(body: bytes, header: str) -> None:
    """Each is read or refused."""
    with contextlib.suppress(RequestRejected, TooLarge, TooManyRows):
        read(file(header, body))
