"""Columns that arrive as numpy arrays (binary tensors, CSV, Arrow, Parquet) to the trained dtypes, under the rules of
JSON cells. What numpy can decide for a whole column is decided there; the rest goes cell by cell through `cells`.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, describe
from tableside.decoding.cells import EXACT, PathOf, float_dtype, limits, to_array
from tableside.decoding.rules import Problems

_WORDS = {"b": "a boolean", "i": "an integer", "u": "an integer", "f": "a number", "O": "a string", "U": "a string"}


def convert(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    """An array of shape [rows], NaN standing for a missing cell, as the estimator was trained on it.

    Bad cells go to `problems`; the array returned then must not be used.
    """
    kind = array.dtype.kind
    if kind in "OU" or column.datatype == "BYTES" or column.closed or column.dtype == "object":
        return to_array(as_cells(array), column, problems, path_of)
    if column.datatype == "BOOL":
        return array if kind == "b" else _refuse(array, column, problems, path_of)
    if kind not in "iuf":
        return _refuse(array, column, problems, path_of)
    if not _missing_allowed(array, column, problems, path_of):
        return np.empty(0)
    if column.datatype == "INT64":
        return _integers(array, column, problems, path_of)
    return _floats(array, column, problems, path_of)


def as_cells(array: Array) -> list[Any]:
    """The array as JSON cells: NaN is None."""
    cells: list[Any] = array.tolist()
    if array.dtype.kind == "f":
        return [None if cell != cell else cell for cell in cells]
    if array.dtype.kind == "O":
        return [None if cell is None or cell != cell else cell for cell in cells]
    return cells


def _refuse(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    message = f"expected {describe(column)}, got {_WORDS.get(array.dtype.kind, str(array.dtype))}"
    problems.add_rows(path_of, np.arange(len(array)), message)
    return np.empty(0)


def _missing_allowed(array: Array, column: Column, problems: Problems, path_of: PathOf) -> bool:
    if column.nullable or array.dtype.kind != "f":
        return True
    missing_cells = np.flatnonzero(np.isnan(array))
    problems.add_rows(path_of, missing_cells, f"expected {describe(column)}, got null")
    return not len(missing_cells)


def _floats(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    if str(array.dtype) == float_dtype(column):
        return array
    with np.errstate(over="ignore"):
        converted: Array = array.astype(float_dtype(column))
    lost = np.flatnonzero(np.isinf(converted) & np.isfinite(array))
    problems.add_rows(path_of, lost, f"too large for a number of {column.dtype}", array)
    return converted


def _integers(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    before = problems.count
    low, high, bits = limits(column)
    present = ~np.isnan(array) if array.dtype.kind == "f" else np.ones(len(array), dtype=bool)
    if array.dtype.kind == "f":
        broken = np.flatnonzero(present & (np.floor(array) != array))
        problems.add_rows(path_of, broken, "expected an integer, got a number with a fraction", array)
    # Compared as Python integers: neither float64 nor int64 holds both ends of what may arrive.
    values = array[present]
    if problems.count == before and len(values) and not (low <= int(values.min()) and int(values.max()) <= high):
        for row in np.flatnonzero(present).tolist():
            if not low <= int(array[row]) <= high:
                problems.add(partial(path_of, row), f"expected an integer of {bits}", array[row])
    if problems.count == before and not present.all():
        vague = np.flatnonzero(present & (np.abs(array) > EXACT))
        message = "beyond 2^53 an integer is not exact in a column with missing cells"
        problems.add_rows(path_of, vague, message, array)
    if problems.count > before:
        return np.empty(0)
    return array.astype(np.int64 if present.all() else np.float64)
