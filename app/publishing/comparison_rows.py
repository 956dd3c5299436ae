"""The rows on which publish compares a fast backend with the estimator.

They are resampled from the sample and then changed where fast backends may go wrong: one unit in the last place beside
a value, on and beside the split points of trees, large numbers, missing values and unknown categories.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Column, Input
from tableside.contracts.table import Table
from tableside.decoding.cells import limits
from tableside.decoding.json_tables import from_columns, from_rows
from tableside.errors import RequestRejected
from tableside.publishing import booster_splits
from tableside.publishing.effort import FULL, Effort
from tableside.publishing.sample import Series
from tableside.publishing.sample_rows import cells_of, rows_as_cells

_CALL_ROWS = 1000
_SMALL_CALL_ROWS = 32
MAX_CELLS = 2_000_000
"""The most cells of all large calls together: a table of more than 200 columns is compared on fewer rows."""
_MIN_ROWS = 2 * _SMALL_CALL_ROWS
_UNKNOWN_CATEGORY = "\u2063no such category"
_LARGE_NUMBERS = (1.7e9, 1.7e12, -3e6, 123456789.0)
"""Seconds and milliseconds since 1970, and numbers of the size of ids: single precision cannot hold them exactly."""
_MISSING_SHARE = _UNKNOWN_SHARE = 0.05
_MAX_EXACT_INTEGER = 2.0**53
"""Up to this size a double holds every integer."""


def sample_rows(schema: Input, frame: pd.DataFrame, effort: Effort = FULL) -> list[Table]:
    """Return one table of rows of the sample, evenly spaced and unchanged; with full effort up to 1,000 rows.

    The list is empty when a client could not send these rows under `schema`.
    """
    most = _bounded(effort.sample_rows, schema)
    step = max(1, len(frame) // most)
    try:
        return [from_rows(rows_as_cells(frame.iloc[::step].iloc[:most], schema), schema)]
    except RequestRejected:
        return []


def _bounded(rows: int, schema: Input) -> int:
    """Return the number of rows, or fewer if they had more than MAX_CELLS cells, but never less than _MIN_ROWS."""
    return min(rows, max(_MIN_ROWS, MAX_CELLS // max(1, len(schema.columns))))


def tables(
    schema: Input, frame: pd.DataFrame, split_points: Sequence[Array], effort: Effort = FULL
) -> Iterator[Table]:  # fmt: skip
    """Yield the tables to compare: calls of 1,000 rows, then of 32 rows, then of one row.

    The first table has resampled, unchanged rows. split_points: for each column the values of `thresholds`.
    """
    rng = np.random.default_rng(20)
    rows = _bounded(effort.rows, schema)
    most = _bounded(len(frame), schema)
    if most < len(frame):
        frame = frame.iloc[np.linspace(0, len(frame) - 1, num=most, dtype=int)]
    first = min(_CALL_ROWS, rows // 2)
    unchanged = _table(schema, frame, split_points, rng, first, changed=False)
    changed = _table(schema, frame, split_points, rng, rows - first, changed=True)
    yield unchanged
    for start in range(0, changed.rows, _CALL_ROWS):
        yield changed.take(start, min(start + _CALL_ROWS, changed.rows))
    for call in range(min(effort.small_calls, changed.rows // _SMALL_CALL_ROWS)):
        yield changed.take(call * _SMALL_CALL_ROWS, (call + 1) * _SMALL_CALL_ROWS)
    for row in range(min(effort.single_row_calls, unchanged.rows)):
        yield (unchanged if row % 2 else changed).take(row, row + 1)


def _table(
    schema: Input, frame: pd.DataFrame, split_points: Sequence[Array], rng: np.random.Generator, rows: int,
    changed: bool,
) -> Table:  # fmt: skip
    columns = {}
    for index, column in enumerate(schema.columns):
        splits = split_points[index] if index < len(split_points) else np.empty(0)
        columns[column.name] = _cells(column, frame[column.name], splits, rng, rows, changed)
    return from_columns(columns, schema)


def _cells(
    column: Column, series: Series, splits: Array, rng: np.random.Generator, rows: int, changed: bool
) -> list[Cell]:  # fmt: skip
    present = cells_of(series.dropna())
    cells: list[Cell] = [present[at] for at in rng.integers(len(present), size=rows)] if present else [None] * rows
    if column.datatype in ("FP64", "FP32", "INT64") and not column.closed and present:
        cells = _numbers(column, np.array(cells, dtype=np.float64), splits, rng, changed)
    elif changed and column.kind == "BYTES" and not column.closed:
        cells = [_UNKNOWN_CATEGORY if rng.random() < _UNKNOWN_SHARE else cell for cell in cells]
    if column.nullable:
        share = _MISSING_SHARE if present else 1.0
        cells = [None if rng.random() < share else cell for cell in cells]
    return cells


def _numbers(column: Column, values: Array, splits: Array, rng: np.random.Generator, changed: bool) -> list[Cell]:
    if changed:
        values = _change(values, splits, rng)
    if column.datatype == "INT64":
        low, high, _ = limits(column)
        whole = np.clip(np.rint(values), max(low, -_MAX_EXACT_INTEGER), min(high, _MAX_EXACT_INTEGER))
        return [int(value) for value in whole]
    if column.datatype == "FP32" or column.dtype == "float32":
        return [float(value) for value in values.astype(np.float32)]
    return [float(value) for value in values]


def _change(values: Array, splits: Array, rng: np.random.Generator) -> Array:
    """Replace most values: 15% by their upper neighbour, 12% by noisy ones, 3% by large ones, 40% by split points."""
    kind = rng.random(len(values))
    values = np.where(kind < 0.15, np.nextafter(values, np.inf), values)
    values = np.where(kind > 0.97, rng.choice(_LARGE_NUMBERS, len(values)), values)
    spread = float(values.std()) or 1.0
    values = np.where((kind > 0.85) & (kind < 0.97), values + rng.normal(0, spread, len(values)), values)
    if len(splits):
        values = np.where((kind > 0.2) & (kind < 0.6), rng.choice(_with_neighbours(splits), len(values)), values)
    return values


def _with_neighbours(splits: Array) -> Array:
    """Return each split point with its neighbours in double and in single precision."""
    narrow = splits.astype(np.float32)
    values = [splits, np.nextafter(splits, np.inf), np.nextafter(splits, -np.inf)]
    values += [np.nextafter(narrow, np.float32(towards)).astype(np.float64) for towards in (np.inf, -np.inf)]
    return np.concatenate([*values, narrow.astype(np.float64)])


def thresholds(estimator: object, width: int) -> list[Array]:
    """Return the finite split points of each of `width` columns, sorted, from all trees of a fitted estimator.

    Only trees that take the table's own columns count: a pipeline, whose trees see transformed columns, has none.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    found = [split for each in _with_members(estimator) for split in _splits_of(each, width)]
    return _by_column([feature for feature, _ in found], [split for _, split in found], width)


def _with_members(estimator: object) -> Iterator[object]:
    """Yield an estimator and the members of ensembles in it, which take the same columns."""
    yield estimator
    members = getattr(estimator, "estimators_", [])
    calibrated = [each.estimator for each in getattr(estimator, "calibrated_classifiers_", [])]
    for member in [*(members.ravel() if isinstance(members, np.ndarray) else members), *calibrated]:
        yield from _with_members(getattr(member, "best_estimator_", member))


def _splits_of(estimator: object, width: int) -> Iterator[booster_splits.Splits]:
    nodes = getattr(estimator, "tree_", None)
    if getattr(estimator, "n_features_in_", width) != width:
        return
    if nodes is not None and hasattr(nodes, "threshold"):
        yield nodes.feature, nodes.threshold
    places = _encoded_places(estimator, width)
    for predictors in getattr(estimator, "_predictors", []):
        for predictor in predictors:
            inner = predictor.nodes[(predictor.nodes["is_leaf"] == 0) & (predictor.nodes["is_categorical"] == 0)]
            yield places[inner["feature_idx"]], inner["num_threshold"]
    yield from booster_splits.of(estimator)


def _encoded_places(estimator: object, width: int) -> Array:
    """Return the table's column for each column that histogram boosting's trees see: the categorical ones first."""
    chosen = getattr(estimator, "is_categorical_", None)
    return np.arange(width) if chosen is None else np.argsort(~np.asarray(chosen), kind="stable")


def _by_column(features: Sequence[Array], splits: Sequence[Array], width: int) -> list[Array]:
    """Return the distinct finite split points of each column, sorted. A leaf has a negative feature."""
    if not features:
        return [np.empty(0)] * width
    feature, split = np.concatenate(features).astype(np.int64), np.concatenate(splits).astype(np.float64)
    used = np.isfinite(split) & (feature >= 0) & (feature < width)
    feature, split = feature[used], split[used]
    order = np.lexsort((split, feature))
    starts = np.searchsorted(feature[order], np.arange(width + 1))
    return [np.unique(split[order[low:high]]) for low, high in itertools.pairwise(starts)]
