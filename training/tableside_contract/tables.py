"""The sample as the trainer's estimator takes it, and as columns of JSON cells that keep their exact dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import pandas as pd

from tableside_contract import cells
from tableside_contract.cells import Cell
from tableside_contract.errors import RecordFailed
from tableside_contract.facts import Facts

MAX_CELLS = 2_000_000
"""The cells that a record may have: of a wider sample fewer rows are kept."""
MIN_ROWS = 16
TEXT = "text"
"""The column name for a sample that is a list of texts."""


class Column(TypedDict):
    """One column: its name (of an array, its position) and dtype; for a categorical one, also its categories."""

    name: str | int
    dtype: str
    categories: list[Cell] | None
    ordered: bool


def read(path: Path, facts: Facts) -> pd.DataFrame:
    """Read a sample from a `.csv` file with a header line, or from a `.parquet` file. Raises RecordFailed.

    A CSV column whose encoder was fitted on text is read as text, and its missing cells are None if the encoder was
    fitted on None.
    """
    if not path.is_file():
        raise RecordFailed(f"{path}: no such file")
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise RecordFailed(f"{path}: a sample must be a .csv or .parquet file")
    fitted = {name: found["values"] for name, found in facts["categories"].items()}
    text = [
        name
        for name, values in fitted.items()
        if values and all(isinstance(v, (str, dict, type(None))) for v in values)
    ]
    try:
        frame = (
            pd.read_parquet(path)
            if path.suffix.lower() == ".parquet"
            else pd.read_csv(path, dtype=dict.fromkeys(text, object))
        )
    except (OSError, ValueError, ImportError) as problem:
        raise RecordFailed(f"{path}: {problem}") from problem
    if path.suffix.lower() == ".csv":
        _check_codes(path, frame, text)
    for name in text:
        if name in frame.columns and None in fitted[name] and {"type": "nan"} not in fitted[name]:
            column = frame[name].astype(object)
            frame[name] = column.where(column.notna(), None)
    return frame


def _check_codes(path: Path, frame: pd.DataFrame, text: list[str]) -> None:
    """Raise RecordFailed for a column that was read as numbers although its zeros say that it may be text."""
    numeric = [name for name in frame.columns if name not in text and frame[name].dtype.kind in "iuf"]
    written = pd.read_csv(path, dtype=str, usecols=numeric) if numeric else frame[numeric]
    for name in numeric:
        codes = written[name].dropna()
        codes = codes[codes.str.match(r"\s*[+-]?0\d")]
        if len(codes):
            raise RecordFailed(
                f"column {name!r} of {path} has the cell {codes.iloc[0]!r}, which could be a text or "
                "a number. Give a Parquet "
                "sample, which has types, or a DataFrame"
            )


def as_frame(sample: Any, target: str | None) -> pd.DataFrame:
    """Return a DataFrame, Series, array, sparse matrix or list of texts as a DataFrame, without its target column."""
    if hasattr(sample, "toarray"):
        sample = sample.toarray()
    if isinstance(sample, pd.Series):
        sample = sample.to_frame(TEXT if sample.name is None else sample.name)
    if isinstance(sample, (list, tuple)) and all(isinstance(value, str) for value in sample):
        sample = {TEXT: list(sample)}
    frame = sample if isinstance(sample, pd.DataFrame) else pd.DataFrame(sample)
    if target is not None:
        if target not in frame.columns:
            raise RecordFailed(f"the sample has no target column {target!r}. Its columns are: {_listed(frame.columns)}")
        frame = frame.drop(columns=[target])
    if not len(frame):
        raise RecordFailed("the sample has no rows. Give some rows like the training data")
    return frame.reset_index(drop=True)


def _listed(names: Any) -> str:
    return ", ".join(map(str, names))


def align(frame: pd.DataFrame, facts: Facts) -> pd.DataFrame:
    """Return the columns that the estimator was fitted on, in its order. Raises RecordFailed for other columns."""
    wanted = facts["feature_names"]
    if wanted is None:
        width = facts["n_features"] or len(frame.columns)
        if width != len(frame.columns):
            raise RecordFailed(
                f"the estimator takes {width} columns, but the sample has {len(frame.columns)}. If one is the target, "
                "name it with --target"
            )
        return frame
    missing = [name for name in wanted if name not in frame.columns]
    extra = [name for name in frame.columns if name not in wanted]
    if missing:
        raise RecordFailed(f"the sample lacks columns that the estimator was fitted on: {_listed(missing)}")
    if extra:
        raise RecordFailed(
            f"the sample has columns that the estimator does not take: {_listed(extra)}. If one is the target, name it "
            "with --target; drop the others"
        )
    return frame[wanted]


def as_trained(frame: pd.DataFrame, facts: Facts) -> Any:
    """Return what the estimator is called with: the DataFrame, an array, or a list of texts.

    An estimator that was fitted on an array knows no column names. One without a number of columns takes texts.
    """
    if facts["feature_names"] is not None:
        return frame
    kinds = {getattr(dtype, "kind", "O") for dtype in frame.dtypes}
    if kinds <= set("iuf"):
        return np.ascontiguousarray(frame.to_numpy())
    texts = len(frame.columns) == 1 and facts["n_features"] is None
    return frame.iloc[:, 0].tolist() if texts and all(isinstance(v, str) for v in frame.iloc[:, 0]) else frame


def choose(frame: pd.DataFrame, most: int) -> pd.DataFrame:
    """Return at most `most` rows, evenly spaced; each column's missing cell, smallest and largest are among them."""
    most = max(MIN_ROWS, min(most, MAX_CELLS // max(1, len(frame.columns))))
    if len(frame) <= most:
        return frame
    chosen = dict.fromkeys(np.linspace(0, len(frame) - 1, num=most // 2, dtype=int).tolist())
    for name in frame.columns:
        series = frame[name]
        missing = np.flatnonzero(series.isna().to_numpy())
        chosen.update(dict.fromkeys(missing[:1].tolist()))
        if getattr(series.dtype, "kind", "O") in "iuf" and len(missing) < len(series):
            values = series.to_numpy(dtype=float, na_value=np.nan)
            chosen.update(dict.fromkeys([int(np.nanargmin(values)), int(np.nanargmax(values))]))
        if len(chosen) >= most:
            break
    for row in np.linspace(0, len(frame) - 1, num=most, dtype=int).tolist():
        if len(chosen) >= most:
            break
        chosen.setdefault(row)
    return frame.iloc[sorted(chosen)[:most]].reset_index(drop=True)


def columns_of(frame: pd.DataFrame) -> list[Column]:
    """Describe the columns of a frame."""
    described = []
    for name in frame.columns:
        dtype = frame[name].dtype
        categories = getattr(dtype, "categories", None)
        described.append(
            Column(
                name=int(name) if isinstance(name, (int, np.integer)) and not isinstance(name, bool) else str(name),
                dtype=str(dtype),
                categories=None if categories is None else [cells.to_json(value) for value in categories],
                ordered=bool(getattr(dtype, "ordered", False)),
            )
        )
    return described


def rows_of(frame: pd.DataFrame) -> list[list[Cell]]:
    """Return the cells of a frame, row by row."""
    columns = [[cells.to_json(value) for value in frame[name]] for name in frame.columns]
    return [list(row) for row in zip(*columns)]
