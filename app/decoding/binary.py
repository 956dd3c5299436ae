"""The binary tensor data extension: raw little-endian tensors after the JSON of an infer request or response.

Source: triton-inference-server/server, docs/protocol/extension_binary_data.md.
Numeric tensors of a request are views of its body; only text is copied.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

import numpy as np

from tableside.contracts.array_type import Array
from tableside.decoding.rules import malformed

SIZES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "INT32": 4, "UINT32": 4, "FP32": 4,
    "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip
"""Bytes of one element, by datatype. BYTES is not here: each of its elements has its own length."""
DTYPES = {
    "BOOL": "?", "INT8": "i1", "UINT8": "u1", "INT16": "<i2", "UINT16": "<u2", "FP16": "<f2", "INT32": "<i4",
    "UINT32": "<u4", "FP32": "<f4", "INT64": "<i8", "UINT64": "<u8", "FP64": "<f8",
}  # fmt: skip
"""The little-endian numpy dtype of each datatype."""
_LENGTH = struct.Struct("<I")
_MAX_HEADER_DIGITS = 19


def split(body: bytes, header: str | None) -> tuple[bytes, memoryview]:
    """Split a body into its JSON and the raw tensors after it.

    header: the value of Inference-Header-Content-Length, which is the size of the JSON in bytes; None if the body is
    JSON only. Raises RequestRejected if it is not a number from 1 to the length of the body.
    """
    if header is None:
        return body, memoryview(b"")
    text = header.strip()
    size = int(text) if text.isascii() and text.isdecimal() and len(text) <= _MAX_HEADER_DIGITS else -1
    if not 0 < size <= len(body):
        raise malformed(
            "Inference-Header-Content-Length", f"expected a number of bytes from 1 to the body's {len(body)}"
        )
    return body[:size], memoryview(body)[size:]


def read(raw: memoryview, datatype: str, count: int, path: str) -> Array:
    """Read `count` elements as an array of shape [count]; text becomes an object array of str.

    Raises RequestRejected if the size does not match, a boolean is not 0 or 1, or text is not UTF-8.
    """
    if datatype == "BYTES":
        return _read_text(raw, count, path)
    expected = count * SIZES[datatype]
    if len(raw) != expected:
        raise malformed(
            f"{path}.parameters.binary_data_size", f"expected {expected} bytes for this shape, got {len(raw)}"
        )
    if datatype == "BOOL":
        flags = np.frombuffer(raw, dtype=np.uint8)
        if flags.size and int(flags.max()) > 1:
            raise malformed(path, "expected each boolean as a byte of 0 or 1")
        return flags.view(np.bool_)
    array: Array = np.frombuffer(raw, dtype=DTYPES[datatype])
    return array


def _read_text(raw: memoryview, count: int, path: str) -> Array:
    # Checked before the array is allocated: `count` comes from the request's shape and may be huge.
    if count * _LENGTH.size > len(raw):
        raise malformed(path, f"expected {count} elements, each with its length before it; the data ends early")
    array, at = np.empty(count, dtype=object), 0
    for index in range(count):
        start = at + _LENGTH.size
        if start > len(raw):
            raise malformed(path, f"expected {count} elements, but the data ends in element {index}")
        (size,) = _LENGTH.unpack(raw[at:start])
        at = start + size
        if at > len(raw):
            raise malformed(path, f"element {index} has a length of {size} bytes, but the data ends before")
        try:
            array[index] = str(raw[start:at], "utf-8")
        except UnicodeDecodeError:
            raise malformed(path, f"element {index} is not UTF-8") from None
    if at != len(raw):
        raise malformed(path, f"{len(raw) - at} bytes follow the last of {count} elements")
    return array


def write(array: Array, datatype: str) -> bytes:
    """Return the bytes of a tensor, row-major and little-endian. None in a BYTES tensor becomes an empty text."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array).astype(DTYPES[datatype], copy=False).tobytes()
    parts: list[bytes] = []
    for cell in array.reshape(-1).tolist():
        text = ("" if cell is None else str(cell)).encode()
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def sizes(parameters: Sequence[Mapping[str, object] | None], available: int) -> list[int | None]:
    """Return the `binary_data_size` of each input, None for an input whose data is in the JSON.

    Raises RequestRejected if a size is not a number of bytes, or if their sum is not `available`, the number of bytes
    after the JSON.
    """
    found: list[int | None] = []
    for at, parameter in enumerate(parameters):
        size = (parameter or {}).get("binary_data_size")
        path = f"inputs[{at}].parameters.binary_data_size"
        if size is None:
            found.append(None)
        elif not isinstance(size, int) or isinstance(size, bool) or size < 0:
            raise malformed(path, "expected a number of bytes")
        elif size > available:
            raise malformed(path, f"more than the {available} bytes that follow the JSON")
        else:
            found.append(size)
    total = sum(size or 0 for size in found)
    if total != available:
        word = "more" if total > available else "fewer"
        message = f"the sum of all binary_data_size is {total} bytes, {word} than the {available} that follow the JSON"
        raise malformed("inputs", message)
    return found
