"""Rows and columns of JSON values: every form of a table gives the same table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tableside.contracts.schema import Column, Input
from tableside.decoding.json_tables import from_columns, from_matrix, from_numbers, from_rows, names, require_rows
from tableside.decoding.rules import Rules
from tableside.errors import RequestRejected
from tests.fakes import numbers

MIXED = Input(
    "frame",
    (
        Column("age", "FP64", "float64", nullable=True),
        Column("count", "INT64", "int64"),
        Column("shade", "BYTES", "object", nullable=True),
        Column("fresh", "BOOL", "bool"),
    ),
)
ROWS: list[list[Any]] = [[1.5, 2, "red", True], [None, 3, None, False]]


def named(rows: list[list[Any]], schema: Input = MIXED) -> list[dict[str, Any]]:
    return [dict(zip([c.name for c in schema.columns], row, strict=True)) for row in rows]


def refusal(rows: Any, schema: Input = MIXED, **more: Any) -> RequestRejected:
    with pytest.raises(RequestRejected) as refused:
        from_rows(rows, schema, **more)
    return refused.value


def test_the_three_spellings_agree() -> None:
    """Rows by position, rows by name in any order, and columns by name give equal frames."""
    lists = from_rows(ROWS, MIXED).to_input()
    shuffled = [dict(reversed(row.items())) for row in named(ROWS)]
    columns = {c.name: [row[at] for row in ROWS] for at, c in enumerate(MIXED.columns)}
    for other in (from_rows(shuffled, MIXED), from_columns(columns, MIXED)):
        assert lists.equals(other.to_input())
        assert list(other.to_input().dtypes) == list(lists.dtypes)


def test_a_numeric_table_is_one_matrix() -> None:
    """A table of floats is one matrix with the same bits."""
    table = from_rows([[1, 0.1], [3.5, -0.0]], numbers("a", "b"))
    assert table.to_input().tobytes() == np.array([[1, 0.1], [3.5, -0.0]]).tobytes()


def test_one_column_takes_bare_values() -> None:
    """A model with one column accepts a list of values as its rows."""
    np.testing.assert_array_equal(from_rows([1.0, 2.0], numbers("a")).to_input(), [[1.0], [2.0]])
    assert refusal([1.0, "x"], numbers("a")).cells[0].path == "rows[1]"


def test_a_nullable_column_may_be_left_out() -> None:
    """A name that a row does not have is a missing value, if the column is nullable."""
    table = from_rows([{"count": 2, "fresh": True}, {"count": 3, "fresh": False, "shade": "red"}], MIXED)
    frame = table.to_input()
    assert frame["age"].isna().all()
    assert frame["shade"].isna().tolist() == [True, False]
    with pytest.raises(RequestRejected, match="age: this column is missing"):
        from_columns({"count": [1], "fresh": [True]}, MIXED)
    filled = from_columns({"count": [1], "fresh": [True]}, MIXED, Rules(missing="fill"))
    assert filled.to_input()[["age", "shade"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("rows", "path", "message"),
    [
        ([[1.5, 2, "red"]], "rows[0]", "expected 4 values (age, count, shade, fresh), got 3"),
        ([[1.5, 2, "red", "yes"]], "rows[0][3] (fresh)", "true, false, 1 or 0"),
        ([{"age": 1.5, "fresh": True}], "rows[0].count", "missing"),
        ([{"count": 1, "fresh": True, "agee": 1}], "rows[0].agee", "no such column"),
        ([{"count": "1", "fresh": True}], "rows[0].count", "expected an integer, got a string"),
        ([[1.5, 2, "red", True], {"count": 1}], "rows[0]", "all rows as arrays, or all rows as objects"),
        ([1, 2], "rows[0]", "all rows as arrays"),
        ([None], "rows[0]", "all rows as arrays"),
    ],
)
def test_a_bad_row_is_named(rows: list[Any], path: str, message: str) -> None:
    """A row that does not fit is refused with its place and what was expected."""
    first = refusal(rows).cells[0]
    assert first.path == path
    assert message in first.message


@pytest.mark.parametrize(
    ("columns", "path", "message"),
    [
        ({"count": [1], "fresh": [True], "x": [1]}, "inputs.x", "no such column"),
        ({"count": [1, 2], "fresh": [True]}, "inputs.fresh", "expected 2 values"),
        ({"count": [1], "age": [None], "shade": [None]}, "inputs.fresh", "missing"),
        ({"count": [1], "fresh": [3], "age": [None], "shade": [None]}, "inputs.fresh[0]", "true, false, 1 or 0"),
    ],
)
def test_a_bad_column_is_named(columns: dict[str, Any], path: str, message: str) -> None:
    """A column that does not fit is refused with its name and what was expected."""
    with pytest.raises(RequestRejected) as refused:
        from_columns(columns, MIXED)
    assert refused.value.cells[0].path == path
    assert message in refused.value.cells[0].message


def test_every_bad_cell_is_named_up_to_the_limit() -> None:
    """All bad cells are listed in one error; more than the limit are one for each message, with the columns."""
    error = refusal([["x", "y", 1, 2]] * 3, rules=Rules(most_errors=12))
    assert len(error.cells) == 12
    error = refusal([["x", "y", 1, 2]] * 3, rules=Rules(most_errors=5))
    assert [(cell.path, cell.message.partition(" (")[2]) for cell in error.cells] == [
        ("rows[0][0] (age)", "3 cells of age; this is the first)"),
        ("rows[0][1] (count)", "3 cells of count; this is the first)"),
        ("rows[0][2] (shade)", "3 cells of shade; this is the first)"),
        ("rows[0][3] (fresh)", "3 cells of fresh; this is the first)"),
    ]
    assert "12 errors, those with one message listed as one" in str(error)


def test_an_empty_table_is_refused_by_require_rows() -> None:
    """No rows are an empty table, which require_rows refuses."""
    with pytest.raises(RequestRejected, match="no rows"):
        require_rows(from_rows([], MIXED))
    assert require_rows(from_rows(ROWS, MIXED)).rows == 2


@pytest.mark.parametrize("rows", [[[10**400, 1]], [[1, 10**400]]])
def test_a_number_past_the_doubles_is_refused(rows: list[Any]) -> None:
    """An integer larger than any float64 is a bad cell, not another exception."""
    assert "too large" in refusal(rows, numbers("a", "b")).cells[0].message
    assert "too large" in refusal(named(rows, numbers("a", "b")), numbers("a", "b")).cells[0].message


def test_every_error_of_uneven_rows_is_listed() -> None:
    """Rows of a wrong width are listed together with the bad cells of the other rows."""
    error = refusal([[1.5, 2], ["x", 2, "red", True], [1.5, 2, "red", 7]])
    assert [cell.path for cell in error.cells] == ["rows[0]", "rows[1][0] (age)", "rows[2][3] (fresh)"]


def test_every_error_of_named_rows_is_listed() -> None:
    """Missing and unknown keys are listed together with the bad cells, and the label is part of each path."""
    rows = [{"count": 1}, {"count": "1", "fresh": True, "x": 1}]
    error = refusal(rows, label="instances")
    assert [(cell.path, cell.message) for cell in error.cells] == [
        ("instances[0].fresh", "missing; the column does not accept missing values"),
        ("instances[1].x", "no such column; expected age, count, shade, fresh"),
        ("instances[1].count", "expected an integer, got a string"),
    ]


@pytest.mark.parametrize("missing", ["refuse", "fill"])
def test_a_missing_column_that_is_not_nullable_is_refused(missing: Any) -> None:
    """No rule fills a column that does not accept missing values, and the error gives that reason."""
    with pytest.raises(RequestRejected) as refused:
        from_columns({"age": [1.0], "shade": ["red"], "count": [1]}, MIXED, Rules(missing=missing))
    (error,) = refused.value.cells
    assert (error.path, error.message) == (
        "inputs.fresh",
        "this column is missing, and it does not accept missing values",
    )


def test_unknown_columns_may_be_ignored_but_not_of_another_length() -> None:
    """With extra='ignore' an unknown column is left out; columns of unequal length are refused even then."""
    rules = Rules(extra="ignore")
    assert from_columns({"a": [1.0], "x": ["?"]}, numbers("a"), rules).to_input().tolist() == [[1.0]]
    with pytest.raises(RequestRejected, match="inputs.x: expected 1 values as in the longest column, got 2"):
        from_columns({"a": [1.0], "x": [1, 2]}, numbers("a"), rules)


def test_a_matrix_is_not_copied() -> None:
    """A float64 matrix is used without a copy; NaN is refused in a column that is not nullable."""
    schema = Input("matrix", (Column("a", "FP64", "float64"), Column("b", "FP64", "float64", nullable=True)))
    matrix = np.array([[1.0, np.nan], [2.0, 3.0]])
    assert from_matrix(matrix, schema).matrix is matrix
    with pytest.raises(RequestRejected) as refused:
        from_matrix(matrix[:, ::-1], schema, label="inputs[0].data")
    assert [cell.path for cell in refused.value.cells] == ["inputs[0].data[0][0] (a)"]
    with pytest.raises(RequestRejected, match=r"expected 2 columns \(a, b\), got 1"):
        from_matrix(matrix[:, :1], schema)


@pytest.mark.parametrize("rows", [[], [[1.0]], [[1.0, 2.0], [3.0]], [[1.0, 2.0, 3.0]]])
def test_numbers_of_another_shape_are_left_to_from_rows(rows: list[list[float]]) -> None:
    """from_numbers returns None if there is no row, or one of another width."""
    assert from_numbers(rows, numbers("a", "b")) is None


def test_numbers_are_read_without_checks() -> None:
    """from_numbers gives the same matrix as from_rows, and NaN for None."""
    schema = numbers("a", "b", nullable=True)
    table = from_numbers([[1, None], [0.1, -0.0]], schema)
    assert table is not None
    assert table.to_input().tobytes() == from_rows([[1, None], [0.1, -0.0]], schema).to_input().tobytes()


def test_only_twelve_names_are_shown() -> None:
    """A message lists at most twelve column names, and then the number of all columns."""
    assert names(numbers(*"abcdefghijkl")) == "a, b, c, d, e, f, g, h, i, j, k, l"
    assert names(numbers(*"abcdefghijklm")) == "a, b, c, d, e, f, g, h, i, j, k, l, ... (13 columns)"
