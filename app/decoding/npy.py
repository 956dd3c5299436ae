"""Conversion of npy files, which `numpy.save` writes and SageMaker's clients send, to a `Table`.

Source: numpy.org, "NEP 1, A simple file format for numpy arrays". An array of shape [rows, columns] has the contract's
order of columns; NaN is a missing value. The header is read with a strict grammar and never evaluated, and arrays of
objects, which are pickles, are refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.id_column import model_of, of_width
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.decoding.inflate import CELL_BYTES, SETTING, TEXT_CELL_BYTES
from tableside.decoding.json_tables import from_matrix, names
from tableside.decoding.rules import Rules, malformed
from tableside.errors import RequestRejected, TooLarge

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {1: 2, 2: 4, 3: 4}
"""How many bytes state the length of the header, by the version of the format."""
_MAX_HEADER_BYTES = 4096
_NAMES = ("descr", "fortran_order", "shape")
_MEMBER = r"\s*+'(?:descr|fortran_order|shape)'\s*+:\s*+(?:'[^']{1,20}+'|True|False|\([0-9L,\s]{0,200}+\))\s*+"
_HEADER = re.compile(rf"\s*+\{{{_MEMBER},{_MEMBER},{_MEMBER},?\s*+\}}\s*+", re.ASCII)
_MEMBERS = re.compile(r"'(\w+)'\s*:\s*(?:'([^']+)'|(True|False)|\(([^)]*)\))", re.ASCII)
_DTYPE = re.compile(r"[<>|=]?(?:b1|[iu][1248]|f[248]|U[1-9][0-9]{0,7})", re.ASCII)
_MAX_DIGITS = 19
_LARGEST_CODE, _SURROGATES = 0x10FFFF, (0xD800, 0xDFFF)


def from_npy(body: bytes, schema: Input, rules: Rules, limit_bytes: int) -> Table:
    """Convert an npy file to a table. The size that it states is checked before anything is allocated.

    limit_bytes: the memory that the table's cells may take. Raises RequestRejected, TooManyRows or TooLarge.
    """
    dtype, is_fortran, shape, start = _read_header(body)
    if len(shape) == 2:
        schema = of_width(schema, shape[1])
    elif len(model_of(schema).columns) == 1 or shape[:1] != (len(schema.columns),):  # no row that begins with an id
        schema = model_of(schema)
    width = len(schema.columns)
    if len(shape) == 1:  # one row, as SageMaker's clients send it, or the only column
        shape = (1, *shape) if width > 1 else (*shape, 1)
    if len(shape) != 2 or shape[1] != width:
        raise malformed("shape", f"expected [rows, {width}] ({names(schema)}), got {list(shape)}")
    rows, cell_bytes = shape[0], TEXT_CELL_BYTES if dtype.kind == "U" else CELL_BYTES
    rules.check_rows(rows)
    if rows * width * cell_bytes > limit_bytes:
        raise TooLarge(SETTING, limit_bytes)
    size = rows * width * dtype.itemsize
    if len(body) - start != size:
        raise malformed("body", f"the npy header states {size} bytes of data, and {len(body) - start} follow it")
    if not size:
        raise RequestRejected("the request has no rows; at least one is needed")
    data = memoryview(body)[start:]
    _check_raw(data, dtype)
    array: Array = np.frombuffer(data, dtype).reshape(shape, order="F" if is_fortran else "C")
    return from_matrix(np.ascontiguousarray(array, dtype.newbyteorder("=")), schema, rules.of_texts)


def _read_header(body: bytes) -> tuple[np.dtype[Any], bool, tuple[int, ...], int]:
    """Return the dtype, whether columns come first, the shape, and where the data begins. Raises RequestRejected."""
    width = _LENGTH_BYTES.get(body[6]) if body.startswith(_MAGIC) and len(body) > len(_MAGIC) else None
    if width is None:
        raise malformed("body", "not an npy file of version 1, 2 or 3; write it with numpy.save")
    start = 8 + width
    length = int.from_bytes(body[8:start], "little")
    if len(body) < start + length or length > _MAX_HEADER_BYTES:
        raise malformed("header", "the npy header ends early, or is too long for a plain array")
    text = body[start : start + length].decode("latin-1").replace('"', "'")
    found: dict[str, Sequence[str]] = {}
    if _HEADER.fullmatch(text):
        found = {name: values for name, *values in _MEMBERS.findall(text)}
    descr, order, sizes = (found.get(name, ("", "", ""))[at] for at, name in enumerate(_NAMES))
    shape = _shape(sizes)
    if not descr or not order or shape is None:
        raise malformed("header", "not the npy header of an array of numbers, booleans or text")
    if not _DTYPE.fullmatch(descr):
        raise malformed("header", _refused_dtype(descr))
    return np.dtype(descr), order == "True", shape, start + length


def _refused_dtype(descr: str) -> str:
    if descr.lstrip("<>|=").startswith("O"):
        return "an array of objects is a pickle, which is never read; send numbers, or text with astype(str)"
    return "expected an array of numbers (at most 64 bits), booleans or text (astype(str))"


def _shape(text: str) -> tuple[int, ...] | None:
    """Return the sizes in a tuple of Python's, such as `3, 4` or `3,`; None if they are none."""
    parts = [part.strip().removesuffix("L") for part in text.split(",")]
    if parts[-1] == "":
        parts.pop()
    if not all(part.isdecimal() and len(part) <= _MAX_DIGITS for part in parts):
        return None
    return tuple(map(int, parts))


def _check_raw(data: memoryview, dtype: np.dtype[Any]) -> None:
    """Raise RequestRejected for bytes that are no value of the dtype: numpy would make one of them nevertheless."""
    if dtype.kind == "b":
        if int(np.frombuffer(data, np.uint8).max()) > 1:
            raise malformed("body", "expected each boolean as a byte of 0 or 1")
    elif dtype.kind == "U":
        codes = np.frombuffer(data, np.dtype("u4").newbyteorder(dtype.byteorder))
        low, high = _SURROGATES
        if (codes > _LARGEST_CODE).any() or ((codes >= low) & (codes <= high)).any():
            raise malformed("body", "the text holds a number that is no Unicode character")
