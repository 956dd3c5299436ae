"""Conversion of numpy columns (from binary tensors, CSV, Arrow and Parquet) to the trained dtypes.

The rules are those of JSON cells. Whole columns are checked by numpy where possible; the others go through
`tableside.decoding.cells`.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Column
from tableside.decoding import dates
from tableside.decoding.cells import INEXACT, MAX_EXACT_INTEGER, PathOf, float_dtype, limits, to_array
from tableside.decoding.rules import Problems, describe

_WORDS = {"b": "a boolean", "i": "an integer", "u": "an integer", "f": "a number", "O": "a string", "U": "a string"}


def convert(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    """Convert an array of shape [rows], in which NaN is a missing value, to the dtype the estimator was trained on.

    Errors are added to `problems` under `path_of(row)`. If there are any, the returned array must not be used.
    """
    kind = array.dtype.kind
    if kind == "M" and column.is_date:
        return dates.from_numpy(array, column, problems, path_of)
    if kind in "OU" or column.datatype == "BYTES" or column.closed or column.dtype == "object":
        return to_array(as_cells(array), column, problems, path_of)
    if column.datatype == "BOOL":
        return array if kind == "b" else _booleans(array, column, problems, path_of)
    if kind not in "iuf":
        return _refuse(array, column, problems, path_of)
    if not _missing_allowed(array, column, problems, path_of):
        return np.empty(0)
    if column.datatype == "INT64":
        return _integers(array, column, problems, path_of)
    return _floats(array, column, problems, path_of)


def as_cells(array: Array) -> list[object]:
    """The array as a list of JSON values: NaN becomes None."""
    cells: list[object] = array.tolist()
    if array.dtype.kind in "fO":
        return [None if cell != cell else cell for cell in cells]
    return cells


def _booleans(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    """Booleans from numbers that are 0 and 1."""
    if array.dtype.kind not in "iuf":
        return _refuse(array, column, problems, path_of)
    if array.dtype.kind == "f" and np.isnan(array).any():
        return to_array(as_cells(array), column, problems, path_of)
    others = np.flatnonzero((array != 0) & (array != 1))
    problems.add_rows(path_of, others, f"expected {describe(column)}, got {_WORDS[array.dtype.kind]}", array)
    problems.note("coerced", len(array))
    return array.astype(bool)


def _refuse(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    message = f"expected {describe(column)}, got {_WORDS.get(array.dtype.kind, str(array.dtype))}"
    problems.add_rows(path_of, np.arange(len(array)), message)
    return np.empty(0)


def _missing_allowed(array: Array, column: Column, problems: Problems, path_of: PathOf) -> bool:
    if column.nullable or array.dtype.kind != "f":
        return True
    missing_rows = np.flatnonzero(np.isnan(array))
    problems.add_rows(path_of, missing_rows, f"expected {describe(column)}, got null")
    return not len(missing_rows)


def _floats(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    if str(array.dtype) == float_dtype(column):
        return array
    with np.errstate(over="ignore"):
        converted: Array = array.astype(float_dtype(column))
    overflowed = np.flatnonzero(np.isinf(converted) & np.isfinite(array))
    problems.add_rows(path_of, overflowed, f"too large for a number of {column.dtype}", array)
    return converted


def _integers(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    before = problems.count
    low, high, range_text = limits(column)
    is_float = array.dtype.kind == "f"
    present = ~np.isnan(array) if is_float else np.ones(len(array), dtype=bool)
    if is_float:
        fractions = np.flatnonzero(present & (np.floor(array) != array))
        problems.add_rows(path_of, fractions, "expected an integer, got a number with a fraction", array)
    # Python integers are compared, because neither float64 nor int64 holds all of int64 and uint64.
    values = array[present]
    if problems.count == before and len(values) and not (low <= int(values.min()) and int(values.max()) <= high):
        for row in np.flatnonzero(present).tolist():
            if not low <= int(array[row]) <= high:
                problems.add(partial(path_of, row), f"expected an integer of {range_text}", array[row])
    if problems.count == before and not present.all():
        inexact = np.flatnonzero(present & (np.abs(array) > MAX_EXACT_INTEGER))
        problems.add_rows(path_of, inexact, INEXACT, array)
    if problems.count > before:
        return np.empty(0)
    if is_float and present.all():  # an integer column with missing cells arrives as float64, too
        problems.note("coerced", len(array))
    return array.astype(np.int64 if present.all() else np.float64)
