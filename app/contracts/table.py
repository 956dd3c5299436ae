"""The table of a decoded request, and its conversion to what the estimator takes."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tableside.contracts import conversion
from tableside.contracts.array_type import Array
from tableside.contracts.id_column import RowIds
from tableside.contracts.schema import Column, Input

if TYPE_CHECKING:
    import pandas as pd

Anomalies: TypeAlias = Mapping[tuple[str, str], int]
"""How many cells of a table are accepted although the model was not trained on such: by column and kind."""
EstimatorInput: TypeAlias = "pd.DataFrame | Array | list[str]"
"""What `fit` was given, by the contract's form: a DataFrame (`frame`), an array (`matrix`) or strings (`texts`)."""


class Table:
    """The rows of one request, or of several joined ones.

    Either `arrays` holds a column of shape [rows] for each name, or `matrix` holds all columns in the contract's order,
    of shape [rows, columns]. The other one is None. `anomalies` counts what tableside.decoding.anomalies finds in a
    request. `ids`: those of the rows, if the request has them; the model is not given them.
    """

    __slots__ = ("anomalies", "arrays", "ids", "matrix", "rows", "schema")

    def __init__(
        self, schema: Input, rows: int, arrays: Mapping[str, Array] | None, matrix: Array | None = None
    ) -> None:
        self.schema = schema
        self.rows = rows
        self.arrays = arrays
        self.matrix = matrix
        self.anomalies: Anomalies = {}
        self.ids: RowIds | None = None

    def to_input(self) -> EstimatorInput:
        """Return the rows in the form that the estimator was trained on.

        That is a DataFrame with the trained dtypes, a C-ordered writable array, or a list of strings.
        """
        columns = self.schema.columns
        if self.schema.form == "matrix":
            return conversion.to_matrix(columns, self.rows, self.arrays, self.matrix)
        if self.schema.form == "texts":
            texts: list[str] = _arrays(self)[self.schema.columns[0].name].tolist()
            return texts
        return conversion.to_frame(columns, self.arrays, self.matrix)

    def batch_key(self) -> Hashable:
        """Return a key for batching. Tables of one schema with equal keys can be joined without changing a dtype.

        An integer column with a missing value is given as float64, so missing values are part of its key.
        """
        columns = self.schema.columns
        if self.arrays is not None:
            arrays = [self.arrays[column.name] for column in columns]
            return tuple(_kept_dtype(array, column) for array, column in zip(arrays, columns, strict=True))
        assert self.matrix is not None
        matrix = self.matrix
        if self.schema.form == "matrix" or matrix.dtype.kind != "f":
            return (matrix.dtype, matrix.flags.c_contiguous)
        parts = (_kept_dtype(matrix[:, at], column) for at, column in enumerate(columns))
        return (matrix.dtype, matrix.flags.c_contiguous, *parts)

    @staticmethod
    def concat(tables: Sequence[Table]) -> Table:
        """Return a table of all rows, in order, as a copy. The tables must have one schema and equal `batch_key`s."""
        first = tables[0]
        rows = sum(table.rows for table in tables)
        if first.arrays is None:
            return Table(first.schema, rows, None, np.concatenate([_matrix(table) for table in tables]))
        names = [column.name for column in first.schema.columns]
        arrays = {name: np.concatenate([_arrays(table)[name] for table in tables]) for name in names}
        return Table(first.schema, rows, arrays)

    def take(self, start: int, stop: int) -> Table:
        """Return a table of the rows from `start` up to, but not including, `stop`. It shares this table's memory."""
        arrays = None if self.arrays is None else {name: array[start:stop] for name, array in self.arrays.items()}
        return Table(self.schema, stop - start, arrays, None if self.matrix is None else self.matrix[start:stop])


def _arrays(table: Table) -> Mapping[str, Array]:
    assert table.arrays is not None
    return table.arrays


def _matrix(table: Table) -> Array:
    assert table.matrix is not None
    return table.matrix


def _kept_dtype(array: Array, column: Column) -> Hashable:
    """The array's dtype and, for integers held as float64, whether a missing value will keep them so."""
    if column.datatype == "INT64" and array.dtype.kind == "f":
        return (array.dtype, bool(np.isnan(array).any()))
    return array.dtype
