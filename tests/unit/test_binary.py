"""Binary tensors: the JSON's size, the tensors' sizes, and the elements."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.decoding import binary
from tableside.errors import RequestRejected


def packed(*texts: bytes) -> bytes:
    return b"".join(struct.pack("<I", len(text)) + text for text in texts)


def test_a_body_is_split_after_its_json() -> None:
    """The header is the size of the JSON; without it the whole body is JSON."""
    assert binary.split(b"{}raw", "2") == (b"{}", b"raw")
    assert binary.split(b"{}raw", " 5 ") == (b"{}raw", b"")
    assert binary.split(b"{}raw", None) == (b"{}raw", b"")


@pytest.mark.parametrize("header", ["", "0", "6", "-1", "+2", "2.0", "0x2", "٢", "²", "9" * 5000])
def test_a_wrong_size_of_the_json_is_refused(header: str) -> None:
    """The header must be a decimal number from 1 to the size of the body."""
    with pytest.raises(RequestRejected) as refused:
        binary.split(b"{}raw", header)
    (error,) = refused.value.cells
    assert error.path == "Inference-Header-Content-Length"
    assert error.message == "expected a number of bytes from 1 to the body's 5"


@pytest.mark.parametrize("datatype", binary.SIZES)
def test_numbers_come_back(datatype: str) -> None:
    """What is written for a datatype has its size and is read as the same numbers, without a copy."""
    array = np.array([0, 1, 1], dtype=binary.DTYPES[datatype])
    raw = binary.write(array, datatype)
    assert len(raw) == 3 * binary.SIZES[datatype]
    again = binary.read(memoryview(raw), datatype, 3, "inputs[0]")
    np.testing.assert_array_equal(again, array)
    assert not again.flags.owndata


@given(st.lists(st.text(max_size=6), max_size=6))
def test_texts_come_back(texts: list[str]) -> None:
    """Text of any length, empty or not ASCII, is read as it was written."""
    raw = binary.write(np.array(texts, dtype=object), "BYTES")
    assert binary.read(memoryview(raw), "BYTES", len(texts), "inputs[0]").tolist() == texts


def test_missing_text_is_written_as_empty() -> None:
    """The protocol has no missing text, so None becomes a text of length zero."""
    assert binary.write(np.array([None, "x"], dtype=object), "BYTES") == packed(b"", b"x")


@pytest.mark.parametrize(
    ("datatype", "count", "raw", "path", "message"),
    [
        ("FP32", 2, b"\0" * 7, "t.parameters.binary_data_size", "expected 8 bytes for this shape, got 7"),
        ("INT8", 2, b"\0" * 3, "t.parameters.binary_data_size", "expected 2 bytes for this shape, got 3"),
        ("BOOL", 2, b"\0\2", "t", "expected each boolean as a byte of 0 or 1"),
        ("BYTES", 2**50, b"", "t", f"expected {2**50} elements, each with its length before it; the data ends early"),
        ("BYTES", 2, packed(b"abcd"), "t", "expected 2 elements, but the data ends in element 1"),
        ("BYTES", 1, packed(b"ab")[:-1], "t", "element 0 has a length of 2 bytes, but the data ends before"),
        ("BYTES", 2, packed(b"a", b"\xff"), "t", "element 1 is not UTF-8"),
        ("BYTES", 1, packed(b"a", b"b"), "t", "5 bytes follow the last of 1 elements"),
        ("BYTES", 0, b"x", "t", "1 bytes follow the last of 0 elements"),
    ],
)
def test_data_that_does_not_fit_is_refused(datatype: str, count: int, raw: bytes, path: str, message: str) -> None:
    """Too few bytes, too many, or bytes that are no such elements: the error has the place and the sizes."""
    with pytest.raises(RequestRejected) as refused:
        binary.read(memoryview(raw), datatype, count, "t")
    (error,) = refused.value.cells
    assert (error.path, error.message) == (path, message)


def test_sizes_are_those_of_the_inputs() -> None:
    """An input without a size has its data in the JSON; zero bytes are a size."""
    assert binary.sizes([{"binary_data_size": 3}, None, {"other": 1}, {"binary_data_size": 0}], 3) == [3, None, None, 0]


@pytest.mark.parametrize(
    ("size", "path", "message"),
    [
        (-1, "inputs[1].parameters.binary_data_size", "expected a number of bytes"),
        (True, "inputs[1].parameters.binary_data_size", "expected a number of bytes"),
        ("4", "inputs[1].parameters.binary_data_size", "expected a number of bytes"),
        (9, "inputs[1].parameters.binary_data_size", "more than the 8 bytes that follow the JSON"),
        (5, "inputs", "the sum of all binary_data_size is 9 bytes, more than the 8 that follow the JSON"),
        (3, "inputs", "the sum of all binary_data_size is 7 bytes, fewer than the 8 that follow the JSON"),
    ],
)
def test_sizes_must_add_up(size: object, path: str, message: str) -> None:
    """Each size is a number of bytes, and their sum is the number of bytes after the JSON."""
    with pytest.raises(RequestRejected) as refused:
        binary.sizes([{"binary_data_size": 4}, {"binary_data_size": size}], 8)
    (error,) = refused.value.cells
    assert (error.path, error.message) == (path, message)
