"""The rows on which a fast backend is held to the estimator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, Input
from tableside.contract.table import Table
from tableside.decoding.cells import limits
from tableside.decoding.json_tables import from_columns, from_rows
from tableside.errors import RequestRejected
from tableside.publishing import sample

ROWS = 10_000
_SAMPLE_ROWS = 1000
_SINGLES, _DOZENS, _DOZEN = 100, 20, 32
_UNKNOWN = "\u2063no such category"
_LARGE = (1.7e9, 1.7e12, -3e6, 123456789.0)


def sample_rows(schema: Input, frame: Any) -> list[Table]:
    """Up to a thousand rows of the sample as they are, evenly spaced; none where a client could not send them."""
    step = max(1, len(frame) // _SAMPLE_ROWS)
    try:
        return [from_rows(sample.rows_as_cells(frame.iloc[::step].iloc[:_SAMPLE_ROWS], schema), schema)]
    except RequestRejected:
        return []


def tables(schema: Input, frame: Any, splits: Sequence[Array]) -> Iterator[Table]:
    """The rows to compare: plainly resampled ones first, then all kinds, then dozens and single rows of them.

    splits: of each column, values to put cells on and beside.
    """
    chance = np.random.default_rng(20)
    plain = _table(schema, frame, splits, chance, 1000, odd=False)
    odd = _table(schema, frame, splits, chance, ROWS - 1000, odd=True)
    yield plain
    for start in range(0, odd.rows, 1000):
        yield odd.take(start, min(start + 1000, odd.rows))
    for at in range(_DOZENS):
        yield odd.take(at * _DOZEN, (at + 1) * _DOZEN)
    for at in range(_SINGLES):
        yield (plain if at % 2 else odd).take(at, at + 1)


def _table(
    schema: Input, frame: Any, splits: Sequence[Array], chance: np.random.Generator, rows: int, odd: bool
) -> Table:
    columns = {}
    for at, column in enumerate(schema.columns):
        near = splits[at] if at < len(splits) else np.empty(0)
        columns[column.name] = _cells(column, frame[column.name], near, chance, rows, odd)
    return from_columns(columns, schema)


def _cells(
    column: Column, series: Any, near: Array, chance: np.random.Generator, rows: int, odd: bool
) -> list[Any]:  # fmt: skip
    present = series.dropna().tolist()
    cells: list[Any] = [present[at] for at in chance.integers(len(present), size=rows)] if present else [None] * rows
    if column.datatype in ("FP64", "FP32", "INT64") and not column.closed and present:
        cells = _numbers(column, np.array(cells, dtype=np.float64), near, chance, odd)
    elif odd and column.datatype == "BYTES" and not column.closed:
        cells = [_UNKNOWN if chance.random() < 0.05 else cell for cell in cells]
    if column.nullable:
        share = 0.05 if present else 1.0
        cells = [None if chance.random() < share else cell for cell in cells]
    return cells


def _numbers(column: Column, values: Array, near: Array, chance: np.random.Generator, odd: bool) -> list[Any]:
    if odd:
        kind = chance.random(len(values))
        values = np.where(kind < 0.15, np.nextafter(values, np.inf), values)
        values = np.where(kind > 0.97, chance.choice(_LARGE, len(values)), values)
        spread = float(values.std()) or 1.0
        values = np.where((kind > 0.85) & (kind < 0.97), values + chance.normal(0, spread, len(values)), values)
        if len(near):
            values = np.where((kind > 0.2) & (kind < 0.6), chance.choice(_beside(near), len(values)), values)
    if column.datatype == "INT64":
        low, high, _ = limits(column)
        edge = 2.0**53
        whole = np.clip(np.rint(values), max(low, -edge), min(high, edge))
        return [int(value) for value in whole]
    if column.datatype == "FP32" or column.dtype == "float32":
        return [float(value) for value in values.astype(np.float32)]
    return [float(value) for value in values]


def _beside(near: Array) -> Array:
    """Each threshold, and its neighbours in double and in single precision."""
    narrow = near.astype(np.float32)
    sides = [near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)]
    sides += [np.nextafter(narrow, np.float32(side)).astype(np.float64) for side in (np.inf, -np.inf)]
    return np.concatenate([*sides, narrow.astype(np.float64)])


def thresholds(estimator: Any, width: int) -> list[Array]:
    """The split points of each column, for trees that see the columns as they come."""
    found: list[list[Array]] = [[] for _ in range(width)]
    trees = [estimator, *np.ravel(getattr(estimator, "estimators_", [])).tolist()]
    for each in trees:
        nodes = getattr(each, "tree_", None)
        if nodes is not None and hasattr(nodes, "threshold") and each.n_features_in_ == width:
            for at in range(width):
                found[at].append(nodes.threshold[nodes.feature == at])
    for rounds in getattr(estimator, "_predictors", []):
        for predictor in rounds:
            nodes = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            for at in range(width):
                found[at].append(nodes["num_threshold"][nodes["feature_idx"] == at])
    joined = [np.unique(np.concatenate(parts)) if parts else np.empty(0) for parts in found]
    return [split[np.isfinite(split)] for split in joined]
