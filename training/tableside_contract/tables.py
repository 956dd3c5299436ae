"""The sample as the trainer's estimator takes it, and as columns of JSON cells that keep their exact dtypes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, TypedDict

import numpy as np
import pandas as pd

from tableside_contract import cells, csv_text, csv_types, declared_types, model_choice, readings
from tableside_contract.cells import Cell
from tableside_contract.csv_types import Rules
from tableside_contract.errors import RecordFailed
from tableside_contract.facts import Facts, feature_names
from tableside_contract.readings import Label

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


def read(
    path: Path, estimator: object, target: str | None = None, types: Mapping[str, str] | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Read a sample from a `.csv` file with a header line, or from a `.parquet` file, without its target column.

    types: declared dtypes by column of a CSV file; the fitted estimator decides the others (see csv_types). Also
    returns notes. Raises RecordFailed.
    """
    if not path.is_file():
        raise RecordFailed(f"{path}: no such file")
    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise RecordFailed(f"{path}: a sample must be a .csv or .parquet file")
    if ending == ".csv":
        return _csv(path, estimator, target, types or {})
    if types:
        raise RecordFailed(f"{path}: a Parquet file has its types. Leave out --types")
    try:
        return without_target(pd.read_parquet(path), target), []
    except (OSError, ValueError, ImportError) as problem:
        raise RecordFailed(f"{path}: {problem}") from problem


def _csv(path: Path, estimator: object, target: str | None, types: Mapping[str, str]) -> tuple[pd.DataFrame, list[str]]:
    texts = csv_text.read(path)
    kept = [name for name in texts if name != target]
    if target is not None and len(kept) == len(texts):
        raise RecordFailed(_no_target(target, kept))
    for name in types:
        if name not in kept:
            raise RecordFailed(
                f"--types names the column {name!r}, which the sample does not have. Its columns: {', '.join(kept)}"
            )
    fitted_on = feature_names(estimator, kept)
    names: list[Label] = [*(kept if fitted_on is None else fitted_on)]
    known = readings.of_model(estimator, names)
    rules = Rules(
        types, known, readings.dropped(estimator, names), declared_types.convert, declared_types.date_dtype,
        model_choice.asker(estimator),
    )  # fmt: skip
    frame, notes = csv_types.typed({name: texts[name] for name in kept if name in set(names)}, rules)
    for name in kept:
        if name not in frame.columns:  # a surplus column is refused later, by its name
            frame[name] = csv_types.text_series(texts[name])
    for label, found in known.items():
        if label in frame.columns and found.missing == {"none"}:
            column = frame[label].astype(object)
            frame[label] = column.where(column.notna(), None)
    return (frame if fitted_on is not None else frame.set_axis(csv_types.labels(list(frame.columns)), axis=1)), notes


def as_frame(sample: Any, target: str | None) -> pd.DataFrame:
    """Return a DataFrame, Series, array, sparse matrix or list of texts as a DataFrame, without its target column."""
    if hasattr(sample, "toarray"):
        sample = sample.toarray()
    if isinstance(sample, pd.Series):
        sample = sample.to_frame(TEXT if sample.name is None else sample.name)
    if isinstance(sample, (list, tuple)) and all(isinstance(value, str) for value in sample):
        sample = {TEXT: list(sample)}
    frame = without_target(sample if isinstance(sample, pd.DataFrame) else pd.DataFrame(sample), target)
    if not len(frame):
        raise RecordFailed("the sample has no rows. Give some rows like the training data")
    return frame.reset_index(drop=True)


def without_target(frame: pd.DataFrame, target: str | None) -> pd.DataFrame:
    """Return the frame without its target column. Raises RecordFailed if it has none."""
    if target is None:
        return frame
    if target not in frame.columns:
        raise RecordFailed(_no_target(target, frame.columns))
    return frame.drop(columns=[target])


def _no_target(target: str, names: Any) -> str:
    return f"the sample has no target column {target!r}. Its columns are: {_listed(names)}"


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
