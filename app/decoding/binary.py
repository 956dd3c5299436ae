"""The binary tensor data extension: raw little-endian tensors behind the JSON of an infer request or response.

Source: triton-inference-server/server, docs/protocol/extension_binary_data.md.
Of the tensors only text is copied on the way in.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np

from tableside.contract.array_type import Array
from tableside.decoding.rules import malformed

SIZES = {
    "BOOL": 1, "INT8": 1, "UINT8": 1, "INT16": 2, "UINT16": 2, "FP16": 2, "INT32": 4, "UINT32": 4, "FP32": 4,
    "INT64": 8, "UINT64": 8, "FP64": 8,
}  # fmt: skip
DTYPES = {
    "BOOL": "?", "INT8": "i1", "UINT8": "u1", "INT16": "<i2", "UINT16": "<u2", "FP16": "<f2", "INT32": "<i4",
    "UINT32": "<u4", "FP32": "<f4", "INT64": "<i8", "UINT64": "<u8", "FP64": "<f8",
}  # fmt: skip
_LENGTH = struct.Struct("<I")


def split(body: bytes, header: str | None) -> tuple[bytes, memoryview]:
    """The JSON of a body and the raw tensors behind it; `header` is Inference-Header-Content-Length, None for JSON."""
    if header is None:
        return body, memoryview(b"")
    text = header.strip()
    size = int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
    if not 0 < size <= len(body):
        raise malformed(
            "Inference-Header-Content-Length", f"expected a number of bytes from 1 to the body's {len(body)}"
        )
    return body[:size], memoryview(body)[size:]


def read(raw: memoryview, datatype: str, count: int, path: str) -> Array:
    """`count` elements as a flat array; text as an object array. Raises RequestRejected naming what does not fit."""
    if datatype == "BYTES":
        return _read_text(raw, count, path)
    if len(raw) != count * SIZES[datatype]:
        wanted = count * SIZES[datatype]
        raise malformed(
            f"{path}.parameters.binary_data_size", f"expected {wanted} bytes for this shape, got {len(raw)}"
        )
    if datatype == "BOOL":
        cells = np.frombuffer(raw, dtype=np.uint8)
        if cells.size and int(cells.max()) > 1:
            raise malformed(path, "a boolean is a byte of 0 or 1")
        return cells.view(np.bool_)
    array: Array = np.frombuffer(raw, dtype=DTYPES[datatype])
    return array


def _read_text(raw: memoryview, count: int, path: str) -> Array:
    if count * _LENGTH.size > len(raw):
        raise malformed(path, f"expected {count} elements, each with its length before it; the data ends early")
    array, at = np.empty(count, dtype=object), 0
    for index in range(count):
        end = at + _LENGTH.size
        if end > len(raw):
            raise malformed(path, f"expected {count} elements, the data ends in element {index}")
        size = _LENGTH.unpack(raw[at:end])[0]
        at = end + size
        if at > len(raw):
            raise malformed(path, f"element {index} is longer than the data")
        try:
            array[index] = str(raw[end:at], "utf-8")
        except UnicodeDecodeError:
            raise malformed(path, f"element {index} is not UTF-8") from None
    if at != len(raw):
        raise malformed(path, f"{len(raw) - at} bytes follow the last of {count} elements")
    return array


def write(array: Array, datatype: str) -> bytes:
    """A tensor's raw bytes, row-major and little-endian."""
    if datatype != "BYTES":
        return np.ascontiguousarray(array).astype(DTYPES[datatype], copy=False).tobytes()
    parts: list[bytes] = []
    for cell in array.reshape(-1).tolist():
        text = ("" if cell is None else str(cell)).encode()
        parts += (_LENGTH.pack(len(text)), text)
    return b"".join(parts)


def sizes(parameters: list[dict[str, Any] | None], available: int) -> list[int | None]:
    """Each input's `binary_data_size`, None for one in JSON; together they must be all of the `available` bytes."""
    found: list[int | None] = []
    for at, given in enumerate(parameters):
        size = (given or {}).get("binary_data_size")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise malformed(f"inputs[{at}].parameters.binary_data_size", "expected a number of bytes")
        if size is not None and size > available:
            message = f"more than the {available} bytes that follow the JSON"
            raise malformed(f"inputs[{at}].parameters.binary_data_size", message)
        found.append(size)
    total = sum(size or 0 for size in found)
    if total != available:
        word = "more" if total > available else "fewer"
        message = f"the inputs name {total} bytes of binary data, {word} than the {available} that follow the JSON"
        raise malformed("inputs", message)
    return found
