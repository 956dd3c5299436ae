"""Input anomalies: cells that are accepted, and yet are not what the model was trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import gt, lt

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Column, Input
from tableside.contracts.table import Anomalies, Table
from tableside.contracts.watched import Watched

_FEW_CELLS = 32
UNKNOWN, OUTSIDE = "unknown_category", "outside_range"


def of(table: Table, noted: Anomalies) -> Anomalies:
    """Return the anomalies of a table: its cells by column and kind.

    noted: those that the conversion found, `missing_word` and `coerced`. This adds `unknown_category`, a text that the
    encoder did not see and does not refuse, and `outside_range`, a number below or above all of the sample.
    """
    schema = table.schema
    if table.matrix is not None:
        found = dict(_in_matrix(table.matrix, schema))
    elif table.arrays is not None and schema.watched.columns:
        found = dict(_in_arrays(table.arrays, schema.watched))
    else:
        return noted
    return {**noted, **found} if noted else found


def _in_matrix(matrix: Array, schema: Input) -> Iterator[tuple[tuple[str, str], int]]:
    ranges, limits = schema.watched.ranges, schema.watched.limits
    if ranges is None or limits is None:
        return
    if len(matrix) == 1 and matrix.size <= _FEW_CELLS:
        # For one row this takes less time than numpy's calls. A comparison with NaN is false.
        cells: list[float] = matrix[0].tolist()
        if any(map(lt, cells, limits[0])) or any(map(gt, cells, limits[1])):
            for column, cell, least, most in zip(schema.columns, cells, *limits, strict=True):
                if cell < least or cell > most:
                    yield (column.name, OUTSIDE), 1
        return
    low, high = ranges
    outside = (matrix < low) | (matrix > high)
    if outside.any():
        for at in np.flatnonzero(outside.any(axis=0)).tolist():
            yield (schema.columns[at].name, OUTSIDE), int(np.count_nonzero(outside[:, at]))


def _in_arrays(arrays: Mapping[str, Array], watched: Watched) -> Iterator[tuple[tuple[str, str], int]]:
    for column in watched.columns:
        array, known = arrays[column.name], watched.categories.get(column.name)
        if known is not None:
            kind, count = UNKNOWN, _unknown(array.tolist(), known)
        elif column.categories is None:
            kind, count = OUTSIDE, _outside(array, column)
        else:
            continue  # closed: other categories were refused
        if count:
            yield (column.name, kind), count


def _outside(array: Array, column: Column) -> int:
    """Count the numbers below or above all of the sample; a missing cell is neither."""
    if array.dtype.kind not in "iuf":
        return 0
    assert column.minimum is not None
    assert column.maximum is not None
    if len(array) == 1:
        cell = array[0].item()
        return int(cell < column.minimum or cell > column.maximum)
    return int(np.count_nonzero((array < column.minimum) | (array > column.maximum)))


def _unknown(cells: list[object], known: frozenset[Cell]) -> int:
    """Count the cells that are no category and not missing."""
    if known.issuperset(cells):
        return 0
    return sum(cell not in known and cell == cell for cell in cells)
