"""Reads structures of Thrift's compact protocol, in which Parquet files state what they hold.

Source: apache/thrift, doc/specs/thrift-compact-protocol.md. Each position is checked by the indexing of a memoryview,
so that a damaged structure raises an error and is never read out of bounds.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

Struct: TypeAlias = "dict[int, Value]"
"""The fields of a structure by number."""
Value: TypeAlias = "int | list[Value] | Struct | None"
"""A value. Booleans are 0 and 1; text, numbers of double precision and maps are not needed and are None."""

_TRUE, _FALSE, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = 1, 2, 3, (4, 5, 6), 7, 8, (9, 10), 12
_MAX_DEPTH = 16
_NO_LIMITS: Mapping[int, int] = MappingProxyType({})
_MAX_VARINT_BYTES = 10


class TooManyValues(IndexError):
    """The structures hold, or a list states, more values than may be read."""


class TooManyItems(TooManyValues):
    """A field's list states more items than that field may have. items: how many it states."""

    def __init__(self, items: int) -> None:
        super().__init__(f"a list has {items} items")
        self.items = items


class Reader:
    """Reads from `data`, beginning at `at`, which moves behind what has been read.

    most_values: how many values may be read in all. most_items: of one list; a longer one is refused before its items
    are read. Reading raises IndexError for damaged data, and TooManyValues beyond these numbers.
    """

    def __init__(self, data: memoryview, at: int, most_values: int, most_items: int | None = None) -> None:
        self.at = at
        self._data = data
        self._left = most_values
        self._most_items = most_values if most_items is None else most_items

    def struct(self, depth: int = 0, most_items: Mapping[int, int] = _NO_LIMITS) -> Struct:
        """Read a structure.

        most_items: of lists of this structure, by the number of the field. Raises TooManyItems for a longer one, before
        its items are read.
        """
        if depth > _MAX_DEPTH:
            raise IndexError("the structures are nested too deeply")
        fields: Struct = {}
        number = 0
        while head := self._byte():
            number = number + (head >> 4) if head >> 4 else self._integer()
            kind = head & 15
            if kind in (_TRUE, _FALSE):
                fields[number] = 2 - kind
            else:
                fields[number] = self._value(kind, depth, most_items.get(number))
        return fields

    def _value(self, kind: int, depth: int, most_items: int | None = None) -> Value:
        self._left -= 1
        if self._left < 0:
            raise TooManyValues("the structures hold too many values")
        if kind in _INTEGERS:
            return self._integer()
        if kind in _LISTS:
            return self._list(depth, most_items)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind not in (_BYTE, _DOUBLE, _BINARY):
            raise IndexError("the structures hold a type that they cannot have")
        self._skip({_BYTE: 1, _DOUBLE: 8}.get(kind) or self._varint())
        return None

    def _list(self, depth: int, most_items: int | None = None) -> list[Value]:
        head = self._byte()
        count, kind = head >> 4, head & 15
        if count == 15:
            count = self._varint()
        if kind in (_TRUE, _FALSE):  # in a list, unlike in a structure, a boolean is a byte
            self._skip(count)
            return []
        if most_items is not None and count > most_items:
            raise TooManyItems(count)
        if count > min(self._left, self._most_items):
            raise TooManyValues("the structures hold too many values")
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _skip(self, size: int) -> None:
        if size > len(self._data) - self.at:
            raise IndexError("a value is longer than the data")
        self.at += size

    def _byte(self) -> int:
        value = self._data[self.at]
        self.at += 1
        return value

    def _varint(self) -> int:
        """Read an unsigned number of variable length: seven bits a byte, the lowest first."""
        value = 0
        for place in range(_MAX_VARINT_BYTES):
            byte = self._byte()
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                return value
        raise IndexError("a number is too long")

    def _integer(self) -> int:
        """Read a signed number: n >= 0 is written as 2n, a negative one as -2n - 1."""
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
