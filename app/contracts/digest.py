"""A hash of a table and the requested outputs, for the cache.

Two requests have equal digests only if the estimator would be given the same data, bit for bit.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import msgspec
import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.table import Table

DIGEST_BYTES = 32
"""The size of a digest. Among 2**64 different tables, two have equal digests with a probability of 2**-129."""
TEXT_CELL_BYTES = 64
"""The cost of one text cell besides its characters: hashing it takes as long as this many bytes of numbers."""
_RAW_KINDS = frozenset("biufM")
_CELL_TYPES = frozenset((str, float, int, bool, type(None)))


def digest_of(table: Table, names: Sequence[str], max_bytes: int) -> bytes | None:
    """Return the digest of a table and of the output names.

    Returns None for a table larger than `max_bytes`, and for cells of a type that no contract has. Bytes are compared:
    0.0 and -0.0 differ, and so do two NaN with different bits. Memory layouts differ if the estimator can see them.
    """
    layout, arrays = _parts(table)
    if not _is_small(arrays, max_bytes):
        return None
    packed = [_pack(array) for array in arrays]
    # The head has the length of each array of numbers, and MessagePack the end of each cell, so different tables
    # cannot be joined to the same bytes.
    head = (tuple(names), layout, [(array.dtype.str, array.shape) for array in arrays])
    digest = blake2b(msgspec.msgpack.encode(head), digest_size=DIGEST_BYTES)
    for part in packed:
        if part is None:
            return None
        digest.update(part)
    return digest.digest()


def _parts(table: Table) -> tuple[str, list[Array]]:
    """Return the memory layout that the estimator is given, and the table's arrays in the contract's order."""
    is_matrix = table.schema.form == "matrix"
    if table.matrix is not None:
        return "C" if is_matrix or table.matrix.flags.c_contiguous else "F", [table.matrix]
    assert table.arrays is not None
    arrays = [table.arrays[column.name] for column in table.schema.columns]
    if is_matrix and arrays and all(array.dtype == np.float64 for array in arrays):
        return "C", [np.column_stack(arrays)]
    return "columns", arrays


def _is_small(arrays: Sequence[Array], max_bytes: int) -> bool:
    left = max_bytes
    for array in arrays:
        left -= array.nbytes if array.dtype.kind in _RAW_KINDS else array.size * TEXT_CELL_BYTES
    texts = [array for array in arrays if array.dtype == object] if left >= 0 else []
    return left >= sum(len(cell) for array in texts for cell in array.tolist() if type(cell) is str)


def _pack(array: Array) -> bytes | None:
    if array.dtype.kind in _RAW_KINDS:
        return array.tobytes()
    if array.dtype != object:
        return None
    cells = array.tolist()
    if not _CELL_TYPES.issuperset(map(type, cells)):
        return None
    try:
        return msgspec.msgpack.encode(cells)
    except (UnicodeEncodeError, OverflowError):  # a lone surrogate; an integer of more than 64 bits
        return None
