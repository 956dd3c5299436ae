"""Reads arrays from the content of small npy files.

`np.load` compiles the header of each file as Python, which takes five times as long as the rest of a small file. A
skops file of a forest has hundreds of them, with few dtypes.
"""

from __future__ import annotations

import ast
import io
import re
from functools import lru_cache

import numpy as np
from numpy.lib import format as npy

from tableside.contracts.array_type import Array

_HEAD = 10
"""Bytes before the header in version 1 of the format: the magic string, the version, the header's length."""
_VERSION_1 = npy.magic(1, 0)
_HEADER = re.compile(rb"\{'descr': (.+), 'fortran_order': (True|False), 'shape': \(([0-9, ]*)\), \} *\n", re.DOTALL)
"""The header as numpy writes it (NEP 1: keys in this order, then spaces and a line feed)."""
_DTYPES = 256
_LONGEST = 2000


def array(content: bytes) -> Array:
    """Return the array of an npy file. It may be read-only.

    Raises ValueError, or what `np.load` raises, for content that is damaged and for an array of Python objects.
    """
    end = _HEAD + int.from_bytes(content[8:_HEAD], "little")
    found = _HEADER.fullmatch(content, _HEAD, end) if content.startswith(_VERSION_1) and end < _LONGEST else None
    if found is None:
        return _loaded(content)
    descr, is_fortran, sides = found.groups()
    dtype = _dtype(descr)
    if dtype.hasobject or not dtype.itemsize:
        return _loaded(content)
    shape = tuple(int(side) for side in sides.split(b",") if side.strip())
    flat: Array = np.frombuffer(content, dtype, offset=end)
    return flat.reshape(shape[::-1]).T if is_fortran == b"True" else flat.reshape(shape)


def _loaded(content: bytes) -> Array:
    found: Array = np.load(io.BytesIO(content), allow_pickle=False)
    return found


@lru_cache(_DTYPES)
def _dtype(descr: bytes) -> np.dtype[np.generic]:
    found: np.dtype[np.generic] = npy.descr_to_dtype(ast.literal_eval(descr.decode("latin-1")))
    return found
