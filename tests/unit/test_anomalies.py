"""Cells that are accepted, and yet are not what the model was trained on, are counted by column and kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tableside.contracts.schema import Column, Input
from tableside.decoding.csv_tables import from_csv
from tableside.decoding.json_tables import from_columns, from_matrix, from_numbers, from_rows, require_rows
from tableside.decoding.rules import STRICT

REAL = Column("real", "FP64", "float64", nullable=True, minimum=0.0, maximum=9.0)
WHOLE = Column("whole", "INT64", "int64", minimum=0.0, maximum=9.0)
FLAG = Column("flag", "BOOL", "bool")
OPEN = Column("open", "BYTES", "object", nullable=True, categories=("red", "blue"))
CODES = Column("codes", "INT64", "int64", categories=(1, 2))


@pytest.mark.parametrize(
    ("column", "cells", "found"),
    [
        (REAL, [0.0, 9.0, None, 5], {}),
        (REAL, [-0.1, 9.1, None], {("real", "outside_range"): 2}),
        (WHOLE, [1, 10], {("whole", "outside_range"): 1}),
        (WHOLE, [1.0, 2.0, 3], {("whole", "coerced"): 2}),
        (FLAG, [True, 1, 0.0], {("flag", "coerced"): 2}),
        (OPEN, ["red", None, "green", "green"], {("open", "unknown_category"): 2}),
        (CODES, [1, 2, 3], {("codes", "unknown_category"): 1}),
        (Column("plain", "BYTES", "object"), ["anything"], {}),
    ],
)
def test_anomalies_are_counted(column: Column, cells: list[Any], found: dict[Any, int]) -> None:
    """A missing cell is none of them."""
    schema = Input("frame", (column,))
    assert dict(require_rows(from_rows(cells, schema)).anomalies) == found
    assert dict(require_rows(from_columns({column.name: cells}, schema)).anomalies) == found


def test_numbers_of_a_whole_matrix_are_watched_by_column() -> None:
    """The fast ways to read a table of numbers count as the others do."""
    schema = Input(
        "matrix", (REAL, Column("free", "FP64", "float64"), Column("low", "FP64", "float64", minimum=1.0, maximum=2.0))
    )
    rows = [[-1.0, 1e9, 1.5], [99.0, -1e9, 3.0], [float("nan"), 0.0, 1.0]]
    expected = {("real", "outside_range"): 2, ("low", "outside_range"): 1}
    numbers = from_numbers(rows, schema)
    assert numbers is not None
    for table in (
        numbers,
        from_matrix(np.array(rows), schema),
        from_rows([[-1.0, 1e9, 1.5], [99, -1e9, 3], [None, 0, 1]], Input("matrix", tuple(schema.columns))),
    ):
        assert dict(require_rows(table).anomalies) == expected


def test_integers_with_a_missing_cell_are_not_coerced() -> None:
    """Formats that have no missing integer send float64; that is no doing of the client."""
    schema = Input("frame", (Column("n", "INT64", "int64", nullable=True),))
    assert dict(from_columns({"n": np.array([1.0, np.nan])}, schema).anomalies) == {}
    assert dict(from_columns({"n": np.array([1.0, 2.0])}, schema).anomalies) == {("n", "coerced"): 2}
    assert dict(from_csv(b"n\n1\n2\n", schema, STRICT).anomalies) == {}
