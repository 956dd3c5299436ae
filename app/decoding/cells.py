"""Lists of JSON values to one numpy array per column, exactly or with every bad cell named.

The good case is decided in C: the set of Python types in the list. Only when that set holds something the column does
not take are the cells walked one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, describe
from tableside.decoding.rules import Problems

NONE = type(None)
EXACT = 2**53
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_NUMBERS = frozenset((float, int))
ACCEPTED: dict[str, frozenset[type]] = {
    "FP64": _NUMBERS,
    "FP32": _NUMBERS,
    "INT64": _NUMBERS,
    "BOOL": frozenset((bool,)),
    "BYTES": frozenset((str,)),
}
WORDS = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "an array", dict: "an object"}


PathOf = Callable[[int], str]


def to_array(values: Sequence[Any], column: Column, problems: Problems, path_of: PathOf) -> Array:
    """One column's cells as an array of the dtype the estimator was trained on, shape [rows].

    Bad cells go to `problems` under `path_of(row)`; the array returned then must not be used.
    """
    kinds = set(map(type, values))
    allowed = ACCEPTED[column.datatype] | ({NONE} if column.nullable else set())
    if not kinds <= allowed:
        values, path_of = _name_bad_cells(values, column, allowed, problems, path_of)
        kinds &= allowed
    if column.closed and column.categories is not None:
        _check_categories(values, column, problems, path_of)
    if column.datatype == "INT64":
        return _integers(values, column, kinds, problems, path_of)
    if column.datatype in ("FP64", "FP32"):
        return _floats(values, column, problems, path_of)
    return _objects(values, column, kinds)


def _floats(values: Sequence[Any], column: Column, problems: Problems, path_of: PathOf) -> Array:
    """Numbers in the column's own width; one that does not fit is a bad cell, never an infinity."""
    try:
        wide: Array = np.array(values, dtype=np.float64)
        if float_dtype(column) == "float64":
            return wide
        with np.errstate(over="ignore"):
            narrow = wide.astype(float_dtype(column))
        if not (np.isinf(narrow) & np.isfinite(wide)).any():
            return narrow
    except OverflowError:  # an integer past the largest double
        pass
    largest = float(np.finfo(float_dtype(column)).max)
    for row, value in enumerate(values):
        if value is not None and abs(value) > largest:
            problems.add(partial(path_of, row), f"too large for a number of {column.dtype}", value)
    return np.empty(0)


def _integers(values: Sequence[Any], column: Column, kinds: set[type], problems: Problems, path_of: PathOf) -> Array:
    """Whole numbers; a missing one makes the column float64, as pandas would read it."""
    before = problems.count
    low, high, bits = limits(column)
    if kinds != {int} or _out_of_range(values, low, high):
        for row, value in enumerate(values):
            if value is None:
                continue
            if isinstance(value, float) and not value.is_integer():
                problems.add(partial(path_of, row), "expected an integer, got a number with a fraction", value)
            elif not low <= value <= high:
                problems.add(partial(path_of, row), f"expected an integer of {bits}", value)
            elif NONE in kinds and abs(value) > EXACT:
                problems.add(
                    partial(path_of, row), "beyond 2^53 an integer is not exact in a column with missing cells", value
                )
    if problems.count > before:
        return np.empty(0)
    if NONE in kinds:
        return np.array(values, dtype=np.float64)
    return np.array([int(value) for value in values] if float in kinds else values, dtype=np.int64)


def float_dtype(column: Column) -> str:
    """The width a column of numbers was trained in; categories and pandas' nullable dtypes are doubles underneath."""
    return column.dtype.lower() if column.dtype.lower() in ("float16", "float32") else "float64"


def limits(column: Column) -> tuple[int, int, str]:
    """What the trained integer dtype holds: a larger number would wrap around to another one."""
    dtype = column.dtype.lower()
    if dtype in ("int8", "int16", "int32", "uint8", "uint16", "uint32"):
        limits = np.iinfo(dtype)
        return int(limits.min), int(limits.max), f"{limits.min} to {limits.max}"
    return 0 if dtype == "uint64" else INT64_MIN, INT64_MAX, "64 bits"


def _out_of_range(values: Sequence[Any], low: int, high: int) -> bool:
    return bool(values) and not (low <= min(values) and max(values) <= high)


def _objects(values: Sequence[Any], column: Column, kinds: set[type]) -> Array:
    if column.datatype == "BOOL" and column.dtype == "bool":
        if NONE not in kinds:
            return np.array(values, dtype=bool)
        return _with_missing(values, column)
    if NONE in kinds:
        return _with_missing(values, column)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _with_missing(values: Sequence[Any], column: Column) -> Array:
    mark = np.nan if column.missing == "nan" else None
    array = np.empty(len(values), dtype=object)
    array[:] = [mark if value is None else value for value in values]
    return array


def _name_bad_cells(
    values: Sequence[Any], column: Column, allowed: set[type] | frozenset[type], problems: Problems, path_of: PathOf
) -> tuple[list[Any], PathOf]:
    """Note the cells of a wrong type; the others, and where they stand, are still to be checked."""
    expected = describe(column)
    kept: list[int] = []
    for row, value in enumerate(values):
        if type(value) in allowed:
            kept.append(row)
        else:
            problems.add(partial(path_of, row), f"expected {expected}, got {WORDS.get(type(value), 'null')}", value)
    return [values[row] for row in kept], lambda at: path_of(kept[at])


def _check_categories(values: Sequence[Any], column: Column, problems: Problems, path_of: PathOf) -> None:
    known = set(column.categories or ())
    if set(values) - {None} <= known:
        return
    shown = ", ".join(str(category) for category in (column.categories or ())[:10])
    more = ", ..." if len(known) > 10 else ""
    for row, value in enumerate(values):
        if value is not None and value not in known:
            problems.add(partial(path_of, row), f"not a category of this column; it has {shown}{more}", value)
