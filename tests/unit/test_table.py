"""The table: what the estimator is given."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from tableside.contract.schema import Column, Input
from tableside.decoding.json_tables import from_columns, from_rows
from tests.fakes import numbers


@pytest.mark.parametrize("form", ["matrix", "frame"])
def test_a_slice_is_a_table(form: Any) -> None:
    """Rows taken out of a table are the same rows, in both of its layouts."""
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
    """The matrix given to an estimator is C-ordered float64, in the contract's order."""
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
    """Each column of the frame has the dtype the estimator was fitted on, and the trainer's values."""
    frame = from_rows([[cell] for cell in cells], Input("frame", (Column("c", datatype, dtype),))).to_input()
    pd.testing.assert_frame_equal(frame, pd.DataFrame({"c": pd.Series(cells, dtype=dtype)}))


@pytest.mark.parametrize("cells", [[300, 1], [-1, 2]])
def test_a_narrow_integer_does_not_wrap(cells: list[int]) -> None:
    """A number outside the trained integer dtype is refused, never wrapped around to another number."""
    from tableside.errors import RequestRejected

    with pytest.raises(RequestRejected):
        from_rows([[cell] for cell in cells], Input("frame", (Column("c", "INT64", "uint8"),))).to_input()


def test_categories_keep_their_codes() -> None:
    """A categorical column has the trained categories in the trained order, whatever the request holds."""
    column = Column("c", "BYTES", "category", categories=("z", "a"), closed=True, nullable=True)
    frame = from_rows([["a"], [None], ["z"]], Input("frame", (column,))).to_input()
    assert frame["c"].cat.categories.tolist() == ["z", "a"]
    assert frame["c"].cat.codes.tolist() == [1, -1, 0]


def test_a_gap_in_integers_stays_a_gap() -> None:
    """A nullable integer column with a missing cell is float64 with NaN there."""
    frame = from_rows([[1], [None]], Input("frame", (Column("c", "INT64", "int64", nullable=True),))).to_input()
    np.testing.assert_array_equal(frame["c"], [1.0, np.nan])
