"""Cells: exact, or every bad one named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contract.schema import Column
from tableside.decoding.cells import to_array
from tableside.decoding.rules import Problems, Rules

REAL = Column("c", "FP64", "float64")
WHOLE = Column("c", "INT64", "int64")
FLAG = Column("c", "BOOL", "bool")
TEXT = Column("c", "BYTES", "object")


def nullable(column: Column, **more: Any) -> Column:
    return Column(column.name, column.datatype, column.dtype, nullable=True, **more)


def good(values: list[Any], column: Column) -> Any:
    problems = Problems(Rules(most_errors=5))
    array = to_array(values, column, problems, lambda row: f"c[{row}]")
    assert not problems, problems.found
    return array


def bad(values: list[Any], column: Column, limit: int = 5) -> Problems:
    problems = Problems(Rules(most_errors=limit))
    to_array(values, column, problems, lambda row: f"c[{row}]")
    assert problems
    return problems


def test_numbers_keep_every_bit() -> None:
    """A float column takes JSON floats and integers as the nearest doubles."""
    array = good([0.1, 3, -0.0, 1e308], REAL)
    assert array.dtype == np.float64
    assert array.tobytes() == np.array([0.1, 3.0, -0.0, 1e308]).tobytes()


def test_a_missing_number_is_nan() -> None:
    """null in a nullable float column is NaN."""
    np.testing.assert_array_equal(good([1.5, None], nullable(REAL)), [1.5, np.nan])


@pytest.mark.parametrize(
    ("column", "values", "row", "said"),
    [
        (REAL, [1.0, "2"], 1, "expected a number, got a string"),
        (REAL, [True], 0, "got a boolean"),
        (REAL, [None], 0, "got null"),
        (REAL, [[1.0]], 0, "got an array"),
        (REAL, [{}], 0, "got an object"),
        (REAL, [10**400], 0, "too large"),
        (nullable(REAL), [None, 1, 10**400], 2, "too large"),
        (Column("c", "FP32", "float32"), [1.0, 1e300], 1, "too large"),
        (WHOLE, [1, 2.5], 1, "fraction"),
        (WHOLE, [2**63], 0, "64 bits"),
        (WHOLE, [9.3e18], 0, "64 bits"),
        (WHOLE, [1e300], 0, "64 bits"),
        (WHOLE, [True], 0, "got a boolean"),
        (nullable(WHOLE), [None, 2**53 + 1], 1, "2^53"),
        (FLAG, [1], 0, "expected true or false, got an integer"),
        (FLAG, ["true"], 0, "got a string"),
        (TEXT, [1], 0, "expected a string, got an integer"),
        (nullable(TEXT), [1], 0, "expected a string or null"),
        (Column("c", "BYTES", "object", categories=("x", "y"), closed=True), ["x", "z"], 1, "expected one of x, y"),
    ],
)
def test_a_bad_cell_is_named(column: Column, values: list[Any], row: int, said: str) -> None:
    """What a column does not take is named by place and by what was expected, and nothing else is."""
    problems = bad(values, column)
    assert [cell.path for cell in problems.found] == [f"c[{row}]"]
    assert said in problems.found[0].message


def test_bad_cells_are_counted_past_the_limit() -> None:
    """Only `limit` bad cells are spelled out; the rest are counted."""
    problems = bad(["x"] * 12, REAL, limit=3)
    assert (len(problems.found), problems.extra) == (3, 9)


def test_integers_stay_exact() -> None:
    """An integer column holds all of int64, and takes a float that is whole."""
    array = good([2**63 - 1, -(2**63), 2.0], WHOLE)
    assert array.dtype == np.int64
    assert array.tolist() == [2**63 - 1, -(2**63), 2]


def test_a_missing_integer_widens_the_column() -> None:
    """With a missing value the column is float64, as pandas would have read it."""
    array = good([1, None], nullable(WHOLE))
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, [1, np.nan])


def test_booleans_are_booleans() -> None:
    """A boolean column takes true and false only, and keeps its dtype."""
    array = good([True, False], FLAG)
    assert array.dtype == bool
    assert array.tolist() == [True, False]


@pytest.mark.parametrize(("missing", "mark"), [("nan", np.nan), ("none", None)])
def test_missing_text_is_what_the_trainer_had(missing: str, mark: object) -> None:
    """A missing value in text is NaN or None, whichever the sample had."""
    array = good(["x", None], nullable(TEXT, missing=missing))
    assert array[0] == "x"
    assert array[1] is mark or (mark is not None and np.isnan(array[1]))


def test_open_categories_take_anything() -> None:
    """Categories that are not closed are for documentation: other text passes."""
    assert good(["new"], Column("c", "BYTES", "object", categories=("x",)))[0] == "new"


def test_an_error_does_not_repeat_the_value() -> None:
    """Values of a caller's data never appear in an error."""
    closed = Column("c", "BYTES", "object", categories=("x",), closed=True)
    for column, value in ((REAL, "secret-value"), (WHOLE, 123456.25), (closed, "secret-value")):
        for cell in bad([value], column).found:
            assert "secret" not in cell.message
            assert "123456" not in cell.message


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=30))
def test_any_double_survives(values: list[float]) -> None:
    """A list of doubles becomes exactly those doubles."""
    assert good(values, REAL).tobytes() == np.array(values, dtype=np.float64).tobytes()


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=30))
def test_any_int64_survives(values: list[int]) -> None:
    """A list of 64-bit integers becomes exactly those integers."""
    assert good(values, WHOLE).tolist() == values


def test_a_half_column_has_its_own_limit() -> None:
    """float16 holds up to 65504: more is a bad cell, not an infinity."""
    half = Column("c", "FP64", "float16")
    assert good([65504.0], half).dtype == np.float16
    assert bad([70000.0], half).found[0].message == "too large for a number of float16"
