"""Columns of numpy arrays: the same rules as for JSON cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contracts.schema import Column
from tableside.decoding.cells import to_array
from tableside.decoding.numpy_columns import as_cells, convert
from tableside.decoding.rules import Problems, Rules

FLOAT = Column("c", "FP64", "float64")
FLOAT32 = Column("c", "FP32", "float32")
INTEGER = Column("c", "INT64", "int64")
NULLABLE_INTEGER = Column("c", "INT64", "int64", nullable=True)
SMALL = Column("c", "INT64", "int8")
FLAG = Column("c", "BOOL", "bool")
TEXT = Column("c", "BYTES", "object", nullable=True)


def converted(array: Any, column: Column) -> Any:
    problems = Problems()
    result = convert(np.asarray(array), column, problems, lambda row: f"c[{row}]")
    assert not problems, problems.found
    return result


@pytest.mark.parametrize(
    ("array", "column", "dtype", "cells"),
    [
        (np.array([1.5, 2.0]), FLOAT, "float64", [1.5, 2.0]),
        (np.array([1, 2], dtype=np.uint8), FLOAT, "float64", [1.0, 2.0]),
        (np.array([0.5], dtype=np.float16), FLOAT32, "float32", [0.5]),
        (np.array([2.0, -3.0]), INTEGER, "int64", [2, -3]),
        (np.array([2**63 - 1], dtype=np.uint64), INTEGER, "int64", [2**63 - 1]),
        (np.array([-128, 127]), SMALL, "int64", [-128, 127]),
        (np.array([True, False]), FLAG, "bool", [True, False]),
        (np.array(["a", "b"]), TEXT, "object", ["a", "b"]),
        (np.array([], dtype=np.float64), INTEGER, "int64", []),
    ],
)
def test_values_are_kept_exactly(array: Any, column: Column, dtype: str, cells: list[Any]) -> None:
    """An array of another width or kind is converted where every value stays the same."""
    result = converted(array, column)
    assert (str(result.dtype), result.tolist()) == (dtype, cells)


def test_a_missing_integer_widens_the_column() -> None:
    """NaN in a nullable integer column keeps the column float64."""
    result = converted([2.0, np.nan], NULLABLE_INTEGER)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, [2.0, np.nan])


@pytest.mark.parametrize(
    ("array", "column", "row", "message"),
    [
        (np.array([1.0, np.nan]), FLOAT, 1, "expected a number, got null"),
        (np.array([0.0, 1e300]), FLOAT32, 1, "too large for a number of float32"),
        (np.array([1.0, 2.5]), INTEGER, 1, "expected an integer, got a number with a fraction"),
        (np.array([2**63], dtype=np.uint64), INTEGER, 0, "expected an integer of 64 bits"),
        (np.array([1.0, 2.0**63]), INTEGER, 1, "expected an integer of 64 bits"),
        (np.array([127, 128]), SMALL, 1, "expected an integer of -128 to 127"),
        (np.array([np.nan, 2.0**53 + 2]), NULLABLE_INTEGER, 1, "beyond 2^53 are not exact"),
        (np.array([1, 2]), FLAG, 1, "expected true, false, 1 or 0, got an integer"),
        (np.array([0.0, 0.5]), FLAG, 1, "expected true, false, 1 or 0, got a number"),
        (np.array([True]), FLOAT, 0, "expected a number, got a boolean"),
        (np.array([1.5]), TEXT, 0, "expected a string or null, got a number"),
        (np.array(["1"]), FLOAT, 0, "expected a number, got a string"),
    ],
)
def test_a_bad_cell_is_named(array: Any, column: Column, row: int, message: str) -> None:
    """A value that the column does not take is the only error, with its row and what was expected."""
    problems = Problems()
    convert(array, column, problems, lambda row: f"c[{row}]")
    assert [error.path for error in problems.found] == [f"c[{row}]"]
    assert message in problems.found[0].message


@pytest.mark.parametrize("dtype", ["int8", "uint64", "float32", "float64", "bool"])
def test_ones_and_zeros_are_booleans(dtype: str) -> None:
    """A column of booleans takes numbers that are 1 and 0, whatever their width."""
    problems = Problems()
    array = convert(np.array([1, 0]).astype(dtype), FLAG, problems, str)
    assert not problems
    assert (array.dtype, array.tolist()) == (np.dtype(bool), [True, False])


def test_a_whole_column_of_a_wrong_type_is_counted() -> None:
    """Every row of a column of a wrong type is an error; those past the limit are counted."""
    problems = Problems(Rules(most_errors=2))
    convert(np.zeros(1000, dtype=bool), FLOAT, problems, lambda row: f"c[{row}]")
    assert ([error.path for error in problems.found], problems.extra) == (["c[0]", "c[1]"], 998)


def test_nan_becomes_none_among_cells() -> None:
    """NaN in an array of numbers or objects is None as a JSON value; nothing else changes."""
    assert as_cells(np.array([1.0, np.nan])) == [1.0, None]
    assert as_cells(np.array([None, np.nan, "x", 0], dtype=object)) == [None, None, "x", 0]
    assert as_cells(np.array([1, 2])) == [1, 2]


@given(
    values=st.lists(st.one_of(st.floats(allow_infinity=False), st.integers(-10, 10).map(float)), max_size=6),
    column=st.sampled_from([FLOAT, FLOAT32, INTEGER, NULLABLE_INTEGER, SMALL]),
)
def test_an_array_and_json_give_one_column(values: list[float], column: Column) -> None:
    """An array of floats and the JSON list of the same numbers give the same bits, or both are refused."""
    outcomes = []
    for read in (
        lambda problems: convert(np.array(values, dtype=np.float64), column, problems, str),
        lambda problems: to_array([None if v != v else v for v in values], column, problems, str),
    ):
        problems = Problems()
        array = read(problems)
        outcomes.append(bool(problems) or (array.dtype, array.tobytes()))
    assert outcomes[0] == outcomes[1]
