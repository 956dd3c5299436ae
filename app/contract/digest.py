"""A table and the outputs asked of it, as 32 bytes: equal only where the estimator is given the same, to the bit."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec
import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.table import Table

DIGEST_BYTES = 32
"""Two of 2**64 different tables have equal digests with a chance of 2**-129."""
TEXT_CELL_BYTES = 64
"""What reading one cell of text counts, besides its characters: about as long as so many bytes of numbers take."""
_RAW = frozenset("biuf")
_CELLS = frozenset((str, float, int, bool, type(None)))


def digest_of(table: Table, names: Sequence[str], most_bytes: int) -> bytes | None:
    """The digest; None for a table past `most_bytes`, or one with cells of another type than a contract knows.

    Bytes decide: 0.0 and -0.0 differ, and so do two NaN. So do memory layouts where the estimator is given them.
    """
    layout, arrays = _parts(table)
    if not _is_small(arrays, most_bytes):
        return None
    packed = [_pack(array) for array in arrays]
    # What comes first tells how long the numbers are, and MessagePack where a cell ends: no two tables join alike.
    head = (tuple(names), layout, [(array.dtype.str, array.shape) for array in arrays])
    found = blake2b(msgspec.msgpack.encode(head), digest_size=DIGEST_BYTES)
    for part in packed:
        if part is None:
            return None
        found.update(part)
    return found.digest()


def _parts(table: Table) -> tuple[str, list[Array]]:
    """How the table lies in memory, as far as the estimator sees it, and its arrays in the contract's order."""
    is_matrix = table.schema.form == "matrix"
    if table.matrix is not None:
        return "C" if is_matrix or table.matrix.flags.c_contiguous else "F", [table.matrix]
    assert table.arrays is not None
    arrays = [table.arrays[column.name] for column in table.schema.columns]
    if is_matrix and arrays and all(array.dtype == np.float64 for array in arrays):
        return "C", [np.column_stack(arrays)]
    return "columns", arrays


def _is_small(arrays: Sequence[Array], most_bytes: int) -> bool:
    left = most_bytes
    for array in arrays:
        left -= array.nbytes if array.dtype.kind in _RAW else array.size * TEXT_CELL_BYTES
    texts = [array for array in arrays if array.dtype == object] if left >= 0 else []
    return left >= sum(len(cell) for array in texts for cell in array.tolist() if type(cell) is str)


def _pack(array: Array) -> bytes | None:
    if array.dtype.kind in _RAW:
        return array.tobytes()
    if array.dtype != object:
        return None
    cells = array.tolist()
    if not _CELLS.issuperset(map(type, cells)):
        return None
    try:
        return msgspec.msgpack.encode(cells)
    except (UnicodeEncodeError, OverflowError):  # half a surrogate pair; an integer past 64 bits
        return None
