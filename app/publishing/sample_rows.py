"""Chooses golden rows of a sample, and writes rows as the JSON cells that a client would send."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Input, plain
from tableside.publishing import missing_cells

MAX_GOLDEN_ROWS = 64
MAX_GOLDEN_CELLS = 1 << 17
"""Tables of more than 2,048 columns have fewer golden rows, so that a contract stays small."""
_MIN_GOLDEN_ROWS = 4

Series: TypeAlias = "pd.Series[Any]"


def golden_rows(frame: pd.DataFrame, most: int = MAX_GOLDEN_ROWS) -> list[int]:
    """Return the positions, at most `most`, of rows that together cover the sample well.

    These are up to 16 evenly spaced rows, and for each column a missing value, the extremes and up to 5 categories.
    """
    most = min(most, max(_MIN_GOLDEN_ROWS, MAX_GOLDEN_CELLS // max(1, len(frame.columns))))
    chosen = dict.fromkeys(np.linspace(0, len(frame) - 1, num=min(16, most, len(frame)), dtype=int).tolist())
    for name in frame.columns:
        series = frame[name].reset_index(drop=True)
        picks = _first_missing(series)
        if pd.api.types.is_numeric_dtype(series.dtype) and series.notna().any():
            picks += [int(series.argmin()), int(series.argmax())]
        else:
            picks += series.drop_duplicates().index.tolist()[:5]
        chosen.update(dict.fromkeys(int(pick) for pick in picks))
        if len(chosen) >= most:
            break
    return sorted(chosen)[:most]


def _first_missing(series: Series) -> list[int]:
    """Return the position of the first missing cell of each kind."""
    firsts: dict[object, int] = {}
    for at in np.flatnonzero(series.isna().to_numpy()).tolist():
        firsts.setdefault(missing_cells.missing_kind(series.iloc[at]), at)
        if series.dtype != object:
            break
    return list(firsts.values())


def cells_of(series: Series) -> list[Cell]:
    """Return the cells of a column as JSON values: None for a missing one, ISO 8601 text for a date."""
    if isinstance(series.dtype, np.dtype) and series.dtype.kind in "biuf":
        return _numbers(series.to_numpy())
    if not pd.api.types.is_datetime64_any_dtype(series.dtype):
        return [plain(value) for value in series]
    zoned = isinstance(series.dtype, pd.DatetimeTZDtype)
    in_utc = series.dt.tz_convert("UTC").dt.tz_localize(None) if zoned else series
    texts = np.datetime_as_string(in_utc.to_numpy())
    return [None if text == "NaT" else f"{text}{'Z' if zoned else ''}" for text in texts.tolist()]


def _numbers(cells: Array) -> list[Cell]:
    """Return what `plain` gives for each cell, faster."""
    found: list[Cell] = cells.tolist()
    if cells.dtype.kind == "f" and not np.isfinite(cells).all():
        return [cell if is_finite else None for cell, is_finite in zip(found, np.isfinite(cells).tolist(), strict=True)]
    return found


def rows_as_cells(frame: pd.DataFrame, schema: Input) -> list[list[Cell]]:
    """Return the rows of a frame as the JSON cells that a client would send: null for a missing value."""
    columns = [cells_of(frame[column.name]) for column in schema.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    for at, column in enumerate(schema.columns):
        if column.datatype in ("FP64", "FP32"):
            for row in rows:
                row[at] = None if row[at] is None else float(row[at])
    return rows
