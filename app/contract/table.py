"""One decoded request: named columns of equal length, and the object the estimator is given."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, Input


class Table:
    """Columns as arrays of shape [rows], in the contract's order; or one [rows, columns] matrix."""

    __slots__ = ("arrays", "matrix", "rows", "schema")

    def __init__(
        self, schema: Input, rows: int, arrays: Mapping[str, Array] | None, matrix: Array | None = None
    ) -> None:
        self.schema = schema
        self.rows = rows
        self.arrays = arrays
        self.matrix = matrix

    def to_input(self) -> Any:
        """What the estimator was trained on: a DataFrame with the trained dtypes, one C-ordered array, or strings."""
        if self.schema.form == "matrix":
            return self._to_matrix()
        if self.schema.form == "texts":
            assert self.arrays is not None
            texts: list[Any] = self.arrays[self.schema.columns[0].name].tolist()
            return texts
        return self._to_frame()

    def _to_matrix(self) -> Array:
        columns = self.schema.columns
        if self.matrix is not None:
            # Some of scikit-learn's compiled code refuses memory it could not write, as a request's body is.
            return np.require(self.matrix, requirements=["C", "W"])
        assert self.arrays is not None
        parts = [self.arrays[column.name] for column in columns]
        return np.ascontiguousarray(np.column_stack(parts)) if parts else np.empty((self.rows, 0))

    def _to_frame(self) -> Any:
        import pandas as pd

        if self.arrays is None:
            assert self.matrix is not None
            names = [column.name for column in self.schema.columns]
            dtypes = {column.dtype for column in self.schema.columns}
            if len(dtypes) == 1 and str(self.matrix.dtype) in dtypes:
                return pd.DataFrame(self.matrix, columns=names)
            split = {name: self.matrix[:, at] for at, name in enumerate(names)}
            return pd.DataFrame({c.name: _trained(pd, split[c.name], c) for c in self.schema.columns})
        return pd.DataFrame({c.name: _trained(pd, self.arrays[c.name], c) for c in self.schema.columns})

    def batch_key(self) -> Hashable:
        """Tables of one schema with equal keys may be concatenated: the estimator is given each one's dtypes unchanged.

        A column of integers is given as doubles where a cell is missing, so missing values are part of the key there.
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
        """The rows of all, in order, in memory of their own. They share one schema and one `batch_key`."""
        first = tables[0]
        rows = sum(table.rows for table in tables)
        if first.arrays is None:
            return Table(first.schema, rows, None, np.concatenate([_matrix(table) for table in tables]))
        names = [column.name for column in first.schema.columns]
        arrays = {name: np.concatenate([_arrays(table)[name] for table in tables]) for name in names}
        return Table(first.schema, rows, arrays)

    def take(self, start: int, stop: int) -> Table:
        """Rows [start, stop) as a table of their own."""
        arrays = None if self.arrays is None else {name: array[start:stop] for name, array in self.arrays.items()}
        return Table(self.schema, stop - start, arrays, None if self.matrix is None else self.matrix[start:stop])


def _arrays(table: Table) -> Mapping[str, Array]:
    assert table.arrays is not None
    return table.arrays


def _matrix(table: Table) -> Array:
    assert table.matrix is not None
    return table.matrix


def _kept_dtype(array: Array, column: Column) -> Hashable:
    """The array's dtype, and with it whether `_whole` will keep doubles."""
    if column.datatype == "INT64" and array.dtype.kind == "f":
        return (array.dtype, bool(np.isnan(array).any()))
    return array.dtype


def _trained(pd: Any, array: Array, column: Column) -> Any:
    """The array under the column's trained dtype. A missing cell keeps the wider dtype pandas would have read."""
    if column.dtype == "category":
        categories = dict.fromkeys(column.categories or ())
        if not column.closed:  # the encoder has a rule for what it does not know; a missing cell is another matter
            categories |= dict.fromkeys(cell for cell in array.tolist() if cell is not None and cell == cell)
        return pd.Categorical(array, categories=list(categories))
    if column.dtype in ("str", "string", "boolean") or column.dtype[0].isupper():  # Int64 and the like
        return pd.array(array, dtype=column.dtype)
    if array.dtype == object:
        return pd.Series(array, dtype=object)  # pandas would turn a bare array of text into its own text dtype
    if column.dtype in ("object", "bool") or column.datatype == "INT64":
        return array if column.dtype in ("bool", "object") else _whole(array, column)
    return array.astype(column.dtype, copy=False)


def _whole(array: Array, column: Column) -> Array:
    if array.dtype.kind == "f" and np.isnan(array).any():
        return array
    return array.astype(column.dtype, copy=False)
