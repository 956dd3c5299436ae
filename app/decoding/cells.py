"""Conversion of one column of JSON values to a numpy array, exactly or with an error for each bad cell.

A valid column is recognized without a Python loop: the set of types in the list must be among the types that the column
accepts. The cells are checked one by one only if it is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import NoneType
from typing import cast

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Column
from tableside.decoding import dates
from tableside.decoding.rules import Problems, describe

MAX_EXACT_INTEGER = 2**53
"""Up to this size a float64 holds every integer exactly."""
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

_NUMBERS = frozenset((float, int))
ACCEPTED_TYPES: dict[str, frozenset[type]] = {
    "FP64": _NUMBERS,
    "FP32": _NUMBERS,
    "INT64": _NUMBERS,
    "BOOL": frozenset((bool, int, float)),
    "BYTES": frozenset((str,)),
    "DATE": frozenset((str, int, float)),
}
"""The types of JSON values that a column takes, by its kind. Numbers in a column of booleans must be 0 or 1."""
WORDS = {bool: "a boolean", int: "an integer", float: "a number", str: "a string", list: "an array", dict: "an object"}
"""The name of a JSON type in an error message, by its Python type."""
INEXACT = "integers beyond 2^53 are not exact in a column with missing values"
_MAX_SHOWN_CATEGORIES = 10

PathOf = Callable[[int], str]
"""Returns the place of a row's cell in the request, such as `instances[3].age`."""


def to_array(values: Sequence[object], column: Column, problems: Problems, path_of: PathOf) -> Array:
    """Convert a column's JSON values to an array of shape [rows], with the dtype that the estimator was trained on.

    Errors are added to `problems` under `path_of(row)`. If there are any, the returned array must not be used.
    """
    types = set(map(type, values))
    is_date = column.is_date
    allowed = ACCEPTED_TYPES["DATE" if is_date else column.datatype] | ({NoneType} if column.nullable else set())
    if not types <= allowed:
        values, path_of = _split_off_bad_cells(values, column, allowed, problems, path_of)
        types &= allowed
    if is_date:
        return dates.from_cells(cast("Sequence[str | float | None]", values), column, problems, path_of)
    if column.datatype == "BOOL" and types & _NUMBERS:
        problems.note("coerced", sum(type(value) in _NUMBERS for value in values))
        values = _booleans(values, column, problems, path_of)
    if column.closed and column.categories is not None and not _check_categories(values, column, problems, path_of):
        return np.empty(0)
    if column.datatype == "INT64":
        return _integers(cast("Sequence[float | int | None]", values), column, types, problems, path_of)
    if column.datatype in ("FP64", "FP32"):
        return _floats(cast("Sequence[float | int | None]", values), column, problems, path_of)
    return _objects(values, column, types)


def _floats(values: Sequence[float | int | None], column: Column, problems: Problems, path_of: PathOf) -> Array:
    """Numbers in the trained width. A number too large for that width is an error, not an infinity."""
    try:
        wide: Array = np.array(values, dtype=np.float64)
        if float_dtype(column) == "float64":
            return wide
        with np.errstate(over="ignore"):
            narrow = wide.astype(float_dtype(column))
        if not (np.isinf(narrow) & np.isfinite(wide)).any():
            return narrow
    except OverflowError:  # an integer larger than the largest float64
        pass
    largest = float(np.finfo(float_dtype(column)).max)
    for row, value in enumerate(values):
        if value is not None and abs(value) > largest:
            problems.add(partial(path_of, row), f"too large for a number of {column.dtype}", value)
    return np.empty(0)


def _integers(
    values: Sequence[float | int | None], column: Column, types: set[type], problems: Problems, path_of: PathOf
) -> Array:
    """Integers as int64, or as float64 if a value is missing, which is also what pandas reads."""
    before = problems.count
    low, high, range_text = limits(column)
    if types != {int} or _out_of_range(cast("Sequence[int]", values), low, high):
        for row, value in enumerate(values):
            if value is None:
                continue
            if isinstance(value, float) and not value.is_integer():
                problems.add(partial(path_of, row), "expected an integer, got a number with a fraction", value)
            elif not low <= value <= high:
                problems.add(partial(path_of, row), f"expected an integer of {range_text}", value)
            elif NoneType in types and abs(value) > MAX_EXACT_INTEGER:
                problems.add(partial(path_of, row), INEXACT, value)
    if problems.count > before:
        return np.empty(0)
    if NoneType in types:
        return np.array(values, dtype=np.float64)
    if float in types:
        problems.note("coerced", sum(type(value) is float for value in values))
    # int() first: numpy would convert a list with a float in it by way of float64, and change large integers.
    whole = [int(value) for value in cast("Sequence[float]", values)] if float in types else values
    return np.array(whole, dtype=np.int64)


def float_dtype(column: Column) -> str:
    """The float dtype of a column of numbers: float16, float32 or float64.

    Categories and pandas' nullable dtypes hold float64.
    """
    return column.dtype.lower() if column.dtype.lower() in ("float16", "float32") else "float64"


def limits(column: Column) -> tuple[int, int, str]:
    """The smallest and largest integer that the trained dtype holds, and both as text for an error message.

    numpy would wrap a larger number around to another one without an error.
    """
    dtype = column.dtype.lower()
    if dtype in ("int8", "int16", "int32", "uint8", "uint16", "uint32"):
        limits = np.iinfo(dtype)
        return int(limits.min), int(limits.max), f"{limits.min} to {limits.max}"
    return 0 if dtype == "uint64" else INT64_MIN, INT64_MAX, "64 bits"


def _out_of_range(values: Sequence[int], low: int, high: int) -> bool:
    return bool(values) and not (low <= min(values) and max(values) <= high)


def _booleans(values: Sequence[object], column: Column, problems: Problems, path_of: PathOf) -> list[object]:
    """The values with 1 and 0 as booleans. Other numbers are errors."""
    for row, value in enumerate(values):
        if type(value) in _NUMBERS and value not in (0, 1):
            problems.add(partial(path_of, row), f"expected {describe(column)}, got {WORDS[type(value)]}", value)
    return [bool(value) if type(value) in _NUMBERS else value for value in values]


def _objects(values: Sequence[object], column: Column, types: set[type]) -> Array:
    if NoneType in types:
        return _with_missing(values, column)
    if column.datatype == "BOOL" and column.dtype == "bool":
        return np.array(values, dtype=bool)
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


def _with_missing(values: Sequence[object], column: Column) -> Array:
    marker = np.nan if column.missing == "nan" else None
    array = np.empty(len(values), dtype=object)
    array[:] = [marker if value is None else value for value in values]
    return array


def _split_off_bad_cells(
    values: Sequence[object], column: Column, allowed: set[type] | frozenset[type], problems: Problems, path_of: PathOf
) -> tuple[list[object], PathOf]:
    """Add an error for each value of a wrong type. Return the other values, still unchecked, and their paths."""
    expected = describe(column)
    kept: list[int] = []
    for row, value in enumerate(values):
        if type(value) in allowed:
            kept.append(row)
        else:
            problems.add(partial(path_of, row), f"expected {expected}, got {WORDS.get(type(value), 'null')}", value)
    return [values[row] for row in kept], lambda at: path_of(kept[at])


def _check_categories(values: Sequence[object], column: Column, problems: Problems, path_of: PathOf) -> bool:
    """Add an error for each value that is no category. Return whether all are."""
    categories: tuple[Cell, ...] = column.categories or ()
    known = {*categories, None}
    # Each value is looked up. A set of the values would take quadratic time for integers that a client has chosen to
    # have one hash: multiples of 2^61 - 1.
    others = [row for row, value in enumerate(values) if value not in known]
    if not others:
        return True
    shown = ", ".join(str(category) for category in categories[:_MAX_SHOWN_CATEGORIES])
    more = ", ..." if len(categories) > _MAX_SHOWN_CATEGORIES else ""
    message = f"not a category of this column; expected one of {shown}{more}"
    problems.add_rows(path_of, others, message, values)
    return False
