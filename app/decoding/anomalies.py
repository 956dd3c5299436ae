"""Input anomalies: cells that are accepted, and yet are not what the model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, Input
from tableside.contract.table import Anomalies, Table

_FEW_CELLS = 32
UNKNOWN, OUTSIDE = "unknown_category", "outside_range"


def of(table: Table, noted: Anomalies) -> Anomalies:
    """Return the anomalies of a table: its cells by column and kind.

    noted: those that the conversion found, `missing_word` and `coerced`. This adds `unknown_category`, a text that the
    encoder did not see and does not refuse, and `outside_range`, a number below or above all of the sample.
    """
    schema = table.schema
    if table.matrix is not None:
        return {**noted, **dict(_in_matrix(table.matrix, schema))}
    if table.arrays is None or not schema.watched.columns:
        return noted
    return {**noted, **dict(_in_arrays(table.arrays, schema.watched.columns))}


def _in_matrix(matrix: Array, schema: Input) -> Iterator[tuple[tuple[str, str], int]]:
    ranges = schema.watched.ranges
    if ranges is None:
        return
    low, high = ranges
    if len(matrix) == 1 and matrix.size <= _FEW_CELLS:
        # For one row this takes less time than numpy's calls. A comparison with NaN is false.
        cells = zip(schema.columns, matrix[0].tolist(), low.tolist(), high.tolist(), strict=True)
        for column, cell, least, most in cells:
            if cell < least or cell > most:
                yield (column.name, OUTSIDE), 1
        return
    outside = (matrix < low) | (matrix > high)
    if outside.any():
        for at in np.flatnonzero(outside.any(axis=0)).tolist():
            yield (schema.columns[at].name, OUTSIDE), int(np.count_nonzero(outside[:, at]))


def _in_arrays(arrays: Mapping[str, Array], columns: tuple[Column, ...]) -> Iterator[tuple[tuple[str, str], int]]:
    for column in columns:
        array = arrays[column.name]
        if column.categories is not None:
            kind, count = UNKNOWN, _unknown(array.tolist(), column)
        else:
            kind, count = OUTSIDE, _outside(array, column)
        if count:
            yield (column.name, kind), count


def _outside(array: Array, column: Column) -> int:
    """Count the numbers below or above all of the sample; a missing cell is neither."""
    if array.dtype.kind not in "iuf":
        return 0
    if len(array) == 1:
        return _is_outside(array.tolist(), (column.minimum,), (column.maximum,))
    return int(np.count_nonzero((array < column.minimum) | (array > column.maximum)))


def _is_outside(cells: Sequence[float], low: Sequence[Any], high: Sequence[Any]) -> bool:
    """Whether a number lies outside of its range. For the cells of one row this takes less time than numpy's calls."""
    # A comparison with NaN, a missing cell, is false.
    return any(cell < least or cell > most for cell, least, most in zip(cells, low, high, strict=True))


def _unknown(cells: list[object], column: Column) -> int:
    """Count the cells that are no category and not missing."""
    categories = column.categories or ()
    if len(cells) == 1 and cells[0] in categories:
        return 0
    known = {*categories, None}
    if known.issuperset(cells):
        return 0
    return sum(cell not in known and cell == cell for cell in cells)
