"""JSON values to columns: every value is exact, or is listed as an error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.contracts.schema import Column
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
    ("column", "values", "row", "message"),
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
        (FLAG, [2], 0, "expected true, false, 1 or 0, got an integer"),
        (FLAG, [True, 0.5], 1, "expected true, false, 1 or 0, got a number"),
        (FLAG, ["true"], 0, "got a string"),
        (TEXT, [1], 0, "expected a string, got an integer"),
        (nullable(TEXT), [1], 0, "expected a string or null"),
        (Column("c", "BYTES", "object", categories=("x", "y"), closed=True), ["x", "z"], 1, "expected one of x, y"),
    ],
)
def test_a_bad_cell_is_named(column: Column, values: list[Any], row: int, message: str) -> None:
    """A value that the column does not accept is the only error, with its place and what was expected."""
    problems = bad(values, column)
    assert [cell.path for cell in problems.found] == [f"c[{row}]"]
    assert message in problems.found[0].message


def test_bad_cells_are_counted_past_the_limit() -> None:
    """Only `limit` errors are listed; the others are counted."""
    problems = bad(["x"] * 12, REAL, limit=3)
    assert (len(problems.found), problems.extra) == (3, 9)


def test_integers_stay_exact() -> None:
    """An integer column holds all of int64, and accepts a float without a fraction."""
    array = good([2**63 - 1, -(2**63), 2.0], WHOLE)
    assert array.dtype == np.int64
    assert array.tolist() == [2**63 - 1, -(2**63), 2]


def test_a_missing_integer_widens_the_column() -> None:
    """With a missing value an integer column is float64, which is what pandas reads."""
    array = good([1, None], nullable(WHOLE))
    assert array.dtype == np.float64
    np.testing.assert_array_equal(array, [1, np.nan])


def test_booleans_are_booleans() -> None:
    """A boolean column takes true and false, 1 and 0, and keeps its dtype."""
    for values in ([True, False], [1, 0], [1.0, 0.0], [True, 0]):
        array = good(values, FLAG)
        assert array.dtype == bool
        assert array.tolist() == [True, False]
    assert good([1, None], nullable(FLAG))[0] is True
    closed = Column("c", "BOOL", "category", categories=(True,), closed=True)
    assert good([1], closed).tolist() == [True]
    assert bad([0], closed).found[0].message.startswith("not a category")


@pytest.mark.parametrize(("missing", "mark"), [("nan", np.nan), ("none", None)])
def test_missing_text_is_nan_or_none(missing: str, mark: object) -> None:
    """A missing text is NaN or None, whichever the sample had."""
    array = good(["x", None], nullable(TEXT, missing=missing))
    assert array[0] == "x"
    assert array[1] is mark or (mark is not None and np.isnan(array[1]))


def test_open_categories_take_anything() -> None:
    """Categories that are not closed are documentation only: other text is accepted."""
    assert good(["new"], Column("c", "BYTES", "object", categories=("x",)))[0] == "new"


def test_an_error_does_not_repeat_the_value() -> None:
    """A client's values never appear in an error, unless the rules allow it."""
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
    """float16 holds up to 65504: a larger number is an error, not an infinity."""
    half = Column("c", "FP64", "float16")
    assert good([65504.0], half).dtype == np.float16
    assert bad([70000.0], half).found[0].message == "too large for a number of float16"


@pytest.mark.parametrize(
    ("dtype", "low", "high"),
    [
        ("int8", -128, 127), ("uint8", 0, 255), ("int16", -(2**15), 2**15 - 1), ("uint32", 0, 2**32 - 1),
        ("Int32", -(2**31), 2**31 - 1), ("int64", -(2**63), 2**63 - 1), ("uint64", 0, 2**63 - 1),
    ],
)  # fmt: skip
def test_an_integer_dtype_has_its_own_limits(dtype: str, low: int, high: int) -> None:
    """The smallest and largest number of the trained dtype are accepted, and the next ones are errors."""
    column = Column("c", "INT64", dtype)
    assert good([low, high], column).tolist() == [low, high]
    assert [error.path for error in bad([low - 1, low, high, high + 1], column).found] == ["c[0]", "c[3]"]


def test_rows_after_a_bad_cell_keep_their_numbers() -> None:
    """A value of a wrong type and a value out of range are listed together, each with its own row."""
    problems = bad(["x", 1, None, 300, 2.5], Column("c", "INT64", "uint8"))
    assert [(error.path, error.message) for error in problems.found] == [
        ("c[0]", "expected an integer, got a string"),
        ("c[2]", "expected an integer, got null"),
        ("c[3]", "expected an integer of 0 to 255"),
        ("c[4]", "expected an integer, got a number with a fraction"),
    ]


def test_only_ten_categories_are_shown() -> None:
    """The error of an unknown category shows the first ten that are known, and that there are more."""
    ten = tuple("abcdefghij")
    for categories, message in ((ten, "expected one of a, b, c, d, e, f, g, h, i, j"), ((*ten, "k"), "i, j, ...")):
        column = Column("c", "BYTES", "object", categories=categories, closed=True)
        assert bad(["z"], column).found[0].message.endswith(message)


def test_a_missing_value_is_no_unknown_category() -> None:
    """null in a nullable column of closed categories is a missing value."""
    column = Column("c", "BYTES", "object", nullable=True, missing="none", categories=("x",), closed=True)
    assert good(["x", None], column).tolist() == ["x", None]
    assert [error.path for error in bad(["x", None, "y"], column).found] == ["c[2]"]


def test_a_missing_boolean_makes_the_column_objects() -> None:
    """numpy's bool has no missing value, so such a column holds objects: true, false and NaN."""
    array = good([True, None], nullable(FLAG))
    assert array.dtype == object
    assert array[0] is True
    assert np.isnan(array[1])
