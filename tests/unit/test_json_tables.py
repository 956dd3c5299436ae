"""Decoding: every spelling of a table is the same table."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tableside.contract.schema import Column, Input
from tableside.decoding.json_tables import from_columns, from_rows, require_rows
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
    """A table of floats is decoded whole, bit for bit."""
    table = from_rows([[1, 0.1], [3.5, -0.0]], numbers("a", "b"))
    assert table.to_input().tobytes() == np.array([[1, 0.1], [3.5, -0.0]]).tobytes()


def test_one_column_takes_bare_values() -> None:
    """A model of one column takes a list of cells as its rows."""
    np.testing.assert_array_equal(from_rows([1.0, 2.0], numbers("a")).to_input(), [[1.0], [2.0]])
    assert refusal([1.0, "x"], numbers("a")).cells[0].path == "rows[1]"


def test_a_nullable_column_may_be_left_out() -> None:
    """A name that is missing from a row is a missing cell, where the column takes those."""
    table = from_rows([{"count": 2, "fresh": True}, {"count": 3, "fresh": False, "shade": "red"}], MIXED)
    frame = table.to_input()
    assert frame["age"].isna().all()
    assert frame["shade"].isna().tolist() == [True, False]
    with pytest.raises(RequestRejected, match="age: this column is missing"):
        from_columns({"count": [1], "fresh": [True]}, MIXED)
    filled = from_columns({"count": [1], "fresh": [True]}, MIXED, Rules(missing="fill"))
    assert filled.to_input()[["age", "shade"]].isna().all(axis=None)


@pytest.mark.parametrize(
    ("rows", "path", "said"),
    [
        ([[1.5, 2, "red"]], "rows[0]", "expected 4 values (age, count, shade, fresh), got 3"),
        ([[1.5, 2, "red", "yes"]], "rows[0][3] (fresh)", "true or false"),
        ([{"age": 1.5, "fresh": True}], "rows[0].count", "missing"),
        ([{"count": 1, "fresh": True, "agee": 1}], "rows[0].agee", "no such column"),
        ([{"count": "1", "fresh": True}], "rows[0].count", "expected an integer, got a string"),
        ([[1.5, 2, "red", True], {"count": 1}], "rows[0]", "all rows as arrays, or all rows as objects"),
        ([1, 2], "rows[0]", "all rows as arrays"),
        ([None], "rows[0]", "all rows as arrays"),
    ],
)
def test_a_bad_row_is_named(rows: list[Any], path: str, said: str) -> None:
    """A row that does not fit is refused with its place and what was expected."""
    first = refusal(rows).cells[0]
    assert first.path == path
    assert said in first.message


@pytest.mark.parametrize(
    ("columns", "path", "said"),
    [
        ({"count": [1], "fresh": [True], "x": [1]}, "inputs.x", "no such column"),
        ({"count": [1, 2], "fresh": [True]}, "inputs.fresh", "expected 2 values"),
        ({"count": [1], "age": [None], "shade": [None]}, "inputs.fresh", "missing"),
        ({"count": [1], "fresh": [3], "age": [None], "shade": [None]}, "inputs.fresh[0]", "true or false"),
    ],
)
def test_a_bad_column_is_named(columns: dict[str, Any], path: str, said: str) -> None:
    """A column that does not fit is refused with its name and what was expected."""
    with pytest.raises(RequestRejected) as refused:
        from_columns(columns, MIXED)
    assert refused.value.cells[0].path == path
    assert said in refused.value.cells[0].message


def test_every_bad_cell_is_named_up_to_the_limit() -> None:
    """All bad cells are reported at once, and how many were left out."""
    error = refusal([["x", "y", 1, 1]] * 3, rules=Rules(most_errors=5))
    assert len(error.cells) == 5
    assert "7 more not shown" in str(error)


def test_an_empty_table_has_no_answer() -> None:
    """No rows decode to an empty table, which a prediction then refuses."""
    with pytest.raises(RequestRejected, match="no rows"):
        require_rows(from_rows([], MIXED))
    assert require_rows(from_rows(ROWS, MIXED)).rows == 2


@pytest.mark.parametrize("rows", [[[10**400, 1]], [[1, 10**400]]])
def test_a_number_past_the_doubles_is_refused(rows: list[Any]) -> None:
    """An integer no double can hold is a bad cell, not a crash."""
    assert "too large" in refusal(rows, numbers("a", "b")).cells[0].message
    assert "too large" in refusal(named(rows, numbers("a", "b")), numbers("a", "b")).cells[0].message
