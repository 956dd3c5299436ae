"""Encodes calls for few rows. What is the same for every call of a model with such columns is encoded once.

The header of such a message has no values of the request, so that both sides can remember it: cells of objects stand
at the end of the payload.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from tableside.contracts.array_type import Array
from tableside.contracts.table import Table
from tableside.model_process.child import wire

MAX_ROWS = wire.TEXT_ABOVE_ROWS
MAX_LAYOUTS = 64
"""How many kinds of calls are remembered for one version: methods, numbers of rows, dtypes."""
_FIXED_SIZE = "biufcUSmM"
"""The kinds of dtypes whose arrays are sent as they lie in memory."""
_encode = msgspec.json.Encoder().encode


class _Layout(NamedTuple):
    """What calls have in common. sizes: of each array with its gap; None for an array of objects."""

    header: bytes
    sizes: list[int | None]


class SmallCalls:
    """Encodes the calls of one version. Several native threads may use it."""

    def __init__(self, key: str) -> None:
        """key: of the version in model processes."""
        self._key = key
        self._known: dict[tuple[object, ...], _Layout] = {}

    def message(self, method: str, table: Table) -> bytes | None:
        """Return the message for one method on a table; None if it has many rows or bytes, or another order in memory.

        Raises WireError for cells of other types than text, numbers, booleans, None and NaN.
        """
        if table.rows > MAX_ROWS:
            return None
        if table.arrays is None:
            assert table.matrix is not None
            arrays = [table.matrix]
            if not table.matrix.flags.c_contiguous:
                return None
        else:
            arrays = [table.arrays[column.name] for column in table.schema.columns]
        layout = self._layout(method, table, arrays)
        return None if layout is None else _message(layout, arrays)

    def _layout(self, method: str, table: Table, arrays: list[Array]) -> _Layout | None:
        is_matrix = table.arrays is None
        kind = (method, arrays[0].shape if is_matrix else table.rows, *[array.dtype for array in arrays])
        found = self._known.get(kind)
        if found is None:
            found = self._make(method, table.rows, arrays, is_matrix)
            if found is not None:
                if len(self._known) >= MAX_LAYOUTS:
                    self._known.clear()
                self._known[kind] = found
        return found

    def _make(self, method: str, rows: int, arrays: list[Array], is_matrix: bool) -> _Layout | None:
        specs: list[list[Any]] = []
        sizes: list[int | None] = []
        start, objects = 0, 0
        for array in arrays:
            if array.dtype == object and not is_matrix:
                specs.append(["tail", list(array.shape), objects])
                sizes.append(None)
                objects += 1
            elif array.dtype.kind in _FIXED_SIZE:
                specs.append([array.dtype.str, list(array.shape), "C", start])
                sizes.append(array.nbytes + -array.nbytes % wire.ALIGNMENT)
                start += array.nbytes + -array.nbytes % wire.ALIGNMENT
            else:
                return None
        if start > wire.SMALL_BYTES:
            return None
        header = {
            "op": "run", "key": self._key, "method": method, "rows": rows, "matrix": specs[0] if is_matrix else None,
            "arrays": None if is_matrix else specs, "tail": start if objects else None,
        }  # fmt: skip
        return _Layout(_encode(header), sizes)


def _message(layout: _Layout, arrays: list[Array]) -> bytes:
    parts: list[bytes] = []
    cells: list[list[object]] = []
    for array, size in zip(arrays, layout.sizes, strict=True):
        if size is None:
            cells.append(array.tolist())
        else:
            parts.append(array.tobytes().ljust(size, b"\0"))
    if cells:
        parts.append(wire.write_tail(cells))
    payload = b"".join(parts)
    return b"".join((wire.PREFIX.pack(wire.MAGIC, len(layout.header), len(payload)), layout.header, payload))
