"""Messages between a worker and a model process: a JSON header and plain buffers, never pickle.

A message is the prefix (magic, header bytes, payload bytes; little-endian), the header and the payload. An array lies
in the payload as it lies in memory, or, for objects, as text or as JSON cells; the header says which. This file runs in
the server and in model processes, so it needs Python 3.8 and numpy only and imports nothing of this project.
"""

from __future__ import annotations

import json
import struct
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional, Union

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tableside.contracts.array_type import Array

    Spec = list[Any]
    """The place of an array in a message, as its header has it."""

PREFIX = struct.Struct("<4sIQ")
MAGIC = b"TSM1"
"""The first bytes of each message; another number means another format."""
MAX_HEADER_BYTES = 1 << 30
SMALL_BYTES = 32768
"""Messages with a larger payload gain nothing from a remembered header."""
MAX_REMEMBERED, MAX_REMEMBERED_BYTES = 128, 4096
"""How many parsed headers a process remembers, and the longest one."""
_REMEMBERED = (b'{"op":"run"', b'{"array":')
"""How the headers begin that come again and again. No other is remembered: it may quote values of a request."""
ALIGNMENT = 64
"""Arrays begin at multiples of this in the payload, as numpy's own large arrays do."""
TEXT_ABOVE_ROWS = 64
"""Shorter arrays of objects are written as JSON cells, which takes less time for few cells."""
MISSING_NONE, MISSING_NAN = -1, -2
"""What stands in place of a length in a text array for None and for NaN."""
_NO_TEXT = -3
_COPIED_BELOW_BYTES = 4096
_WITHOUT_BYTES = ("<U0", ">U0", "|S0")
_encode = json.JSONEncoder(separators=(",", ":")).encode
_decode = json.JSONDecoder().raw_decode

Buffer = Union[bytes, bytearray, memoryview]


class Message(NamedTuple):
    """A received message. payload: the bytes that `read_array` reads arrays from; it may write into them."""

    header: dict[str, Any]
    payload: bytearray


class WireError(Exception):
    """The bytes are not a message of this format, or an array holds something that no message can carry."""


class Writer:
    """Collects the arrays of one message and makes its bytes."""

    def __init__(self) -> None:
        self._buffers: list[Buffer] = []
        self._size = 0

    def add(self, array: Array) -> Spec:
        """Add an array to the payload and return its place, for the header. Raises WireError for cells of other types
        than text, numbers, booleans, None and NaN.
        """
        if array.dtype == object:
            return self._add_objects(array)
        if array.dtype.kind not in "biufcUSmM":
            raise WireError(f"arrays of dtype {array.dtype} cannot be sent to a model process")
        if array.ndim == 1 and array.nbytes < _COPIED_BELOW_BYTES:
            return [array.dtype.str, [len(array)], "C", self._append(array.tobytes())]
        order = "F" if array.ndim > 1 and array.flags.f_contiguous and not array.flags.c_contiguous else "C"
        content = np.ascontiguousarray(array.T if order == "F" else array)
        return [content.dtype.str, list(array.shape), order, self._append(_bytes_of(content))]

    def _add_objects(self, array: Array) -> Spec:
        cells = array.ravel().tolist()
        types = set(map(type, cells))
        if len(cells) > TEXT_ABOVE_ROWS and str in types and types <= {str, float, type(None)}:
            lengths = np.array([_length(cell) for cell in cells], dtype=np.int64)
            if (lengths != _NO_TEXT).all():
                text = "".join([cell for cell in cells if type(cell) is str]).encode("utf-8", "surrogatepass")
                return ["text", list(array.shape), self._append(_bytes_of(lengths)), self._append(text), len(text)]
        return ["cells", list(array.shape), [_plain(cell) for cell in cells]]

    def _append(self, content: Buffer) -> int:
        """Append a buffer and return where it begins."""
        gap = -self._size % ALIGNMENT
        if gap:
            self._buffers.append(bytes(gap))
        start = self._size + gap
        self._buffers.append(content)
        self._size = start + len(content)
        return start

    def message(self, header: dict[str, Any], text: Optional[bytes] = None) -> list[Buffer]:
        """Return the message as buffers to be sent one after another; a small message is one buffer.

        text: the header as JSON, where a quicker encoder than this file may use has made it.
        """
        if text is None:
            text = (_one_array(header) or _encode(header)).encode()
        head = PREFIX.pack(MAGIC, len(text), self._size) + text
        if self._size < 65536:
            return [b"".join([head, *self._buffers])]
        return [head, *self._buffers]


class HeaderReader:
    """Parses headers and remembers them: calls of one model with as many rows have headers of the same bytes.

    Nobody may write into a parsed header. Several threads may use it.
    """

    def __init__(self, read: Callable[[bytes], dict[str, Any]]) -> None:
        self._read = read
        self._known: dict[bytes, dict[str, Any]] = {}

    def __call__(self, text: bytes) -> dict[str, Any]:
        """Parse a header. Raises WireError if it is not a JSON object."""
        found = self._known.get(text)
        if found is None:
            found = self._read(text)
            if len(text) <= MAX_REMEMBERED_BYTES and text.startswith(_REMEMBERED) and b'"cells"' not in text:
                if len(self._known) >= MAX_REMEMBERED:
                    self._known.clear()
                self._known[text] = found
        return found


def _one_array(header: dict[str, Any]) -> str:
    """The JSON of the commonest answer, one array in the payload, in a tenth of the encoder's time; else empty."""
    if len(header) != 1 or "array" not in header or header["array"][0] in ("cells", "text"):
        return ""
    return '{{"array":["{}",{},"{}",{}]}}'.format(*header["array"])


def _bytes_of(array: Array) -> Buffer:
    """The memory of a contiguous array. numpy exports no buffer of dates, so they are seen as integers."""
    if array.size == 0:
        return b""
    if array.nbytes < _COPIED_BELOW_BYTES:
        return array.tobytes()
    return array.reshape(-1).view(np.uint8).data


def _length(cell: object) -> int:
    if cell is None:
        return MISSING_NONE
    if type(cell) is float:
        return _NO_TEXT if cell == cell else MISSING_NAN
    return len(cell)  # type: ignore[arg-type]


def _plain(cell: object) -> object:
    """A cell as JSON: numpy's scalars become Python's, NaN becomes `NaN`, which Python's JSON reads back."""
    if isinstance(cell, np.generic):
        cell = cell.item()
    if cell is None or isinstance(cell, (str, bool, int, float)):
        return cell
    raise WireError(f"cells of type {type(cell).__name__} cannot be sent to a model process")


def write_tail(columns: Sequence[Sequence[object]]) -> bytes:
    """The cells of all object columns of a small table, as they stand at the end of a payload. Raises WireError."""
    return _encode([[_plain(cell) for cell in cells] for cells in columns]).encode()


def read_tail(start: Optional[int], payload: bytearray) -> list[list[object]]:
    """Return what `write_tail` has written. start: where it begins in the payload; None if there is none."""
    if start is None:
        return []
    columns: list[list[object]] = _decode(payload[start:].decode())[0]
    return columns


def read_array(spec: Spec, payload: bytearray, tail: Sequence[Sequence[object]] = ()) -> Array:
    """Return the array that a Writer has added, in writable memory of the payload where it is not of objects.

    tail: what `read_tail` has returned.
    """
    kind, shape = spec[0], tuple(spec[1])
    if kind in ("cells", "tail"):
        cells = spec[2] if kind == "cells" else tail[spec[2]]
        return _objects([np.nan if cell != cell else cell for cell in cells], shape)
    if kind == "text":
        return _objects(list(_texts(spec, payload)), shape)
    if 0 in shape or kind in _WITHOUT_BYTES:
        return np.empty(shape, kind)
    return np.ndarray(shape, kind, payload, spec[3], order=spec[2])


def _objects(cells: list[Any], shape: tuple[int, ...]) -> Array:
    array = np.empty(len(cells), dtype=object)
    array[:] = cells
    return array.reshape(shape)


def _texts(spec: Spec, payload: bytearray) -> Iterator[Any]:
    count = 1
    for length in spec[1]:
        count *= length
    lengths: Sequence[int] = np.frombuffer(payload, np.int64, count, spec[2]).tolist()
    text = payload[spec[3] : spec[3] + spec[4]].decode("utf-8", "surrogatepass")
    start = 0
    for length in lengths:
        if length < 0:
            yield None if length == MISSING_NONE else np.nan
        else:
            yield text[start : start + length]
            start += length


def sizes(start: Buffer) -> tuple[int, int]:
    """Return the bytes of the header and of the payload of a message that begins with `start`, of at least the size of
    the prefix. Raises WireError for the prefix of another format.
    """
    magic, header_bytes, payload_bytes = PREFIX.unpack_from(start)
    if magic != MAGIC or header_bytes > MAX_HEADER_BYTES:
        raise WireError("not a message of this format")
    return header_bytes, payload_bytes


def whole(start: bytes, read: Optional[Callable[[bytes], dict[str, Any]]] = None) -> Optional[Message]:
    """Return the message if `start` holds all of it, as one read gives a small one; else None. Raises WireError.

    read: parses the header; by default `read_header`.
    """
    if len(start) < PREFIX.size:
        return None
    header_bytes, payload_bytes = sizes(start)
    end = PREFIX.size + header_bytes
    if len(start) != end + payload_bytes:
        return None
    return Message((read or read_header)(start[PREFIX.size : end]), bytearray(start[end:]))


def read_header(text: Buffer) -> dict[str, Any]:
    """Parse a header. Raises WireError if it is not a JSON object."""
    try:
        written = bytes(text).decode()
        header, end = _decode(written)
    except ValueError as problem:
        raise WireError("the header is not JSON") from problem
    if end != len(written):
        raise WireError("the header is more than one JSON value")
    if not isinstance(header, dict):
        raise WireError("the header is not an object")
    return header
