"""Tables: what the estimator is given, and how tables are joined and cut."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_columns, from_rows
from tableside.errors import RequestRejected
from tests.fakes import numbers


@pytest.mark.parametrize("form", ["matrix", "frame"])
def test_a_slice_is_a_table(form: Any) -> None:
    """Rows that are taken from a table are the same rows, for a table of columns and for one matrix."""
    schema = numbers("a", "b", form=form)
    rows = [[float(at), at / 3] for at in range(6)]
    for table in (
        from_rows(rows, schema),
        from_columns({"b": [r[1] for r in rows], "a": [r[0] for r in rows]}, schema),
    ):
        part = table.take(2, 5)
        assert part.rows == 3
        np.testing.assert_array_equal(np.asarray(part.to_input()), rows[2:5])


def test_a_matrix_is_contiguous() -> None:
    """An estimator is given a C-ordered float64 matrix, with the columns in the contract's order."""
    data = from_columns({"b": [2.0, 4.0], "a": [1.0, 3.0]}, numbers("a", "b")).to_input()
    assert data.flags.c_contiguous
    np.testing.assert_array_equal(data, [[1.0, 2.0], [3.0, 4.0]])


@pytest.mark.parametrize(
    ("dtype", "datatype", "cells"),
    [
        ("float64", "FP64", [0.1, 2.0]),
        ("float32", "FP32", [0.1, 2.0]),
        ("int64", "INT64", [1, 2]),
        ("int32", "INT64", [1, 2]),
        ("uint8", "INT64", [1, 255]),
        ("bool", "BOOL", [True, False]),
        ("object", "BYTES", ["x", "y"]),
        ("str", "BYTES", ["x", "y"]),
        ("string", "BYTES", ["x", "y"]),
    ],
)
def test_a_column_has_its_trained_dtype(dtype: str, datatype: Any, cells: list[Any]) -> None:
    """Each column of the frame has the dtype that the estimator was fitted on."""
    frame = from_rows([[cell] for cell in cells], Input("frame", (Column("c", datatype, dtype),))).to_input()
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"c": pd.Series(cells, dtype=dtype)}))


@pytest.mark.parametrize("cells", [[300, 1], [-1, 2]])
def test_a_narrow_integer_does_not_wrap(cells: list[int]) -> None:
    """A number outside the trained integer dtype is refused, never wrapped around to another number."""
    with pytest.raises(RequestRejected):
        from_rows([[cell] for cell in cells], Input("frame", (Column("c", "INT64", "uint8"),))).to_input()


def test_categories_keep_their_codes() -> None:
    """A categorical column has the trained categories in the trained order, whatever the request holds."""
    column = Column("c", "BYTES", "category", categories=("z", "a"), closed=True, nullable=True)
    frame = from_rows([["a"], [None], ["z"]], Input("frame", (column,))).to_input()
    assert frame["c"].cat.categories.tolist() == ["z", "a"]
    assert frame["c"].cat.codes.tolist() == [1, -1, 0]


def test_a_missing_integer_stays_missing() -> None:
    """A nullable integer column with a missing value is float64 with NaN there."""
    frame = from_rows([[1], [None]], Input("frame", (Column("c", "INT64", "int64", nullable=True),))).to_input()
    np.testing.assert_array_equal(frame["c"], [1.0, np.nan])


def test_read_only_memory_is_copied() -> None:
    """A matrix that shares the memory of a request's body is copied, because some estimators need writable memory."""
    matrix = np.frombuffer(np.arange(4.0).tobytes()).reshape(2, 2)
    data: Any = Table(numbers("a", "b"), 2, None, matrix).to_input()
    assert data.flags.writeable
    np.testing.assert_array_equal(data, matrix)


def test_texts_are_a_list() -> None:
    """A text model is given its only column as a list of strings."""
    schema = Input("texts", (Column("c", "BYTES", "object"),))
    assert from_rows([["a"], ["b"]], schema).to_input() == ["a", "b"]


def test_open_categories_are_extended() -> None:
    """A value outside open categories is a new category after the trained ones, and is not missing."""
    column = Column("c", "BYTES", "category", categories=("z", "a"), nullable=True)
    cells = from_rows([["new"], [None], ["a"]], Input("frame", (column,))).to_input()["c"]
    assert cells.cat.categories.tolist() == ["z", "a", "new"]
    assert cells.cat.codes.tolist() == [2, -1, 1]


@pytest.mark.parametrize(("dtype", "datatype", "cell"), [("Int64", "INT64", 7), ("boolean", "BOOL", True)])
def test_nullable_dtypes_keep_missing_values(dtype: str, datatype: Any, cell: object) -> None:
    """pandas' nullable dtypes are kept, and a missing value in them is NA."""
    schema = Input("frame", (Column("c", datatype, dtype, nullable=True, missing="none"),))
    cells = from_rows([[cell], [None]], schema).to_input()["c"]
    assert str(cells.dtype) == dtype
    assert cells[0] == cell
    assert cells.isna().tolist() == [False, True]


@pytest.mark.parametrize("form", ["matrix", "frame"])
def test_joined_tables_have_all_rows_in_order(form: Any) -> None:
    """Joined tables give the rows of the first, then those of the second, in memory of their own."""
    schema = numbers("a", "b", form=form)
    for read in (
        from_rows,
        lambda rows, schema: from_columns({"a": [r[0] for r in rows], "b": [r[1] for r in rows]}, schema),
    ):
        first, second = read([[1.0, 2.0]], schema), read([[3.0, 4.0], [5.0, 6.0]], schema)
        assert first.batch_key() == second.batch_key()
        joined = Table.concat([first, second])
        assert joined.rows == 3
        np.testing.assert_array_equal(np.asarray(joined.to_input()), [[1, 2], [3, 4], [5, 6]])
        np.testing.assert_array_equal(np.asarray(joined.take(1, 3).to_input()), np.asarray(second.to_input()))


def test_the_batch_key_separates_what_would_change_a_dtype() -> None:
    """Integers with a missing value are float64, so they are not joined with integers that have none."""
    schema = Input("frame", (Column("c", "INT64", "int64", nullable=True),))
    whole, missing = from_rows([[1]], schema), from_rows([[None]], schema)
    assert whole.batch_key() == from_rows([[2]], schema).batch_key()
    assert whole.batch_key() != missing.batch_key()
    floats, gaps = (Table(schema, 1, None, np.array([[cell]])) for cell in (1.0, np.nan))
    assert floats.batch_key() != gaps.batch_key()
    ordered = Table(numbers("a", "b"), 2, None, np.zeros((2, 2)))
    assert ordered.batch_key() != Table(numbers("a", "b"), 2, None, np.zeros((2, 2), order="F")).batch_key()
    assert ordered.batch_key() != Table(numbers("a", "b"), 2, None, np.zeros((2, 2), dtype=np.float32)).batch_key()
