"""The size of an Arrow stream's compressed buffers, read from its messages before pyarrow decompresses any of them.

Sources: arrow/format/Message.fbs, flatbuffers.dev/internals. Each offset is checked by `struct`, by the slicing of a
memoryview, or here, so that a damaged message raises an error and is never read out of bounds.
"""

from __future__ import annotations

import struct

import pyarrow as pa

from tableside.decoding.inflate import SETTING
from tableside.errors import TooLarge

_RECORD_BATCH, _DICTIONARY = "record batch", "dictionary"
"""The names that pyarrow gives to the types of messages with buffers."""
_MESSAGE_HEADER = 2
_DICTIONARY_DATA = 1
_BATCH_BUFFERS, _BATCH_COMPRESSION = 2, 3
"""Field numbers of the tables Message, DictionaryBatch and RecordBatch."""
_BUFFER_BYTES = 16
"""A Buffer is two int64: its offset in the message's body, and its length."""
_SIZE_BYTES = 8
"""A compressed buffer starts with its uncompressed size, an int64."""


def check_inflated(body: bytes, limit_bytes: int) -> None:
    """Refuse an IPC stream whose buffers state an uncompressed size of more than `limit_bytes` together.

    pyarrow allocates the stated size before it decompresses a buffer, so a small body could allocate any amount.
    Raises TooLarge; struct.error, IndexError or ArrowException for a damaged stream.
    """
    total = 0
    reader = pa.ipc.MessageReader.open_stream(pa.BufferReader(body))
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return
        if message.body is None or message.type not in (_RECORD_BATCH, _DICTIONARY):
            continue
        data = memoryview(message.body)
        total += len(data)
        for offset, length in _compressed_buffers(memoryview(message.metadata), message.type):
            if length >= _SIZE_BYTES:
                (size,) = struct.unpack_from("<q", data, offset)
                total += max(0, size)
        if total > limit_bytes:
            raise TooLarge(SETTING, limit_bytes)


def _compressed_buffers(metadata: memoryview, message_type: str) -> list[tuple[int, int]]:
    """Return the offset and length of each buffer of a compressed batch; an empty list for an uncompressed one."""
    message = _follow(metadata, 0)
    header = _table(metadata, message, _MESSAGE_HEADER)
    if message_type == _DICTIONARY:
        header = _table(metadata, header, _DICTIONARY_DATA) if header else 0
    if not header or not _field(metadata, header, _BATCH_COMPRESSION):
        return []
    buffers = _table(metadata, header, _BATCH_BUFFERS)
    if not buffers:
        return []
    (count,) = struct.unpack_from("<I", metadata, buffers)
    if count > len(metadata) // _BUFFER_BYTES:
        raise IndexError("more buffers than the message can list")
    return [struct.unpack_from("<qq", metadata, buffers + 4 + _BUFFER_BYTES * at) for at in range(count)]


def _follow(data: memoryview, at: int) -> int:
    """Return the position to which the offset at `at` points."""
    (offset,) = struct.unpack_from("<I", data, at)
    return int(at + offset)


def _field(data: memoryview, table: int, number: int) -> int:
    """Return the position of a table's field, 0 if the field is absent.

    A table starts with the distance back to its vtable, which lists the offsets of its fields.
    """
    (back,) = struct.unpack_from("<i", data, table)
    vtable = table - back
    if vtable < 0:
        raise IndexError("a table's vtable lies outside the message")
    (size,) = struct.unpack_from("<H", data, vtable)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", data, vtable + 4 + 2 * number)
    return table + int(offset) if offset else 0


def _table(data: memoryview, table: int, number: int) -> int:
    """Return the position of the table or vector to which a field points, 0 if the field is absent."""
    at = _field(data, table, number)
    return _follow(data, at) if at else 0
