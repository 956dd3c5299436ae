"""Reads a sample from a CSV or Parquet file, with the types that the trainer declared or that the model knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd

from tableside.errors import PublishFailed
from tableside.publishing import column_types, csv_samples, missing_cells, sample
from tableside.publishing.column_types import Types
from tableside_contract import facts, readings
from tableside_contract.readings import Known, Label

T = TypeVar("T")
Sample = tuple[pd.DataFrame, list[str]]
"""The rows of a file, and the notes to print."""


def read(path: Path, estimator: object = None, target: str | None = None, types: Types | None = None) -> Sample:
    """Read a sample from a `.csv` file with a header line, a `.parquet` file, or a sparse matrix in a `.npz` file.

    The target column is left out.

    estimator: the fitted model, which decides what the cells of a CSV file are. types: declared dtypes by column name,
    which outrank the model. Raises PublishFailed.
    """
    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet", ".npz"):
        raise PublishFailed(f"{path}: a sample must be a .csv or .parquet file, or .npz of scipy.sparse.save_npz")
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    types = column_types.check(types or {})
    if ending == ".csv":
        return _csv(path, estimator, target, types)
    return _typed(_frame(path, ending), estimator, target, types)


def columns_of_csv(path: Path, target: str | None = None) -> list[str]:
    """Return the names of a CSV sample's columns, without the target. Raises PublishFailed."""
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    return sample.without_target(list(csv_samples.read_text(path)), target)


def _frame(path: Path, ending: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(path) if ending == ".parquet" else _sparse(path)
    except (OSError, ValueError, KeyError) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem


def _sparse(path: Path) -> pd.DataFrame:
    """Read what scipy.sparse.save_npz has written. Pickled objects in it are refused."""
    from scipy import sparse

    return pd.DataFrame(sample.dense(sparse.load_npz(path)))


def known_columns(estimator: object, names: Sequence[Label]) -> dict[Label, Known]:
    """Return what the model says of its columns: those it was fitted on by name, or those of the sample in order."""
    return readings.of_model(estimator, _names(estimator, names))


def dropped_columns(estimator: object, rows: object) -> list[Label]:
    """Return the columns of a DataFrame that the model drops, so that no answer depends on them."""
    if not isinstance(rows, pd.DataFrame):
        return []
    return readings.dropped(estimator, _names(estimator, list(rows.columns)))


def _csv(path: Path, estimator: object, target: str | None, types: Types) -> Sample:
    texts = csv_samples.read_text(path)
    kept: list[str] = sample.without_target(list(texts), target)
    _check_declared(types, kept)
    fitted_on = facts.feature_names(estimator, kept)
    known = known_columns(estimator, kept)
    wanted = kept if fitted_on is None else [name for name in kept if name in set(fitted_on)]
    frame, notes = csv_samples.typed(
        {name: texts[name] for name in wanted}, types, known, estimator, _names(estimator, kept)
    )
    for name in kept:
        if name not in frame.columns:  # a surplus column is refused later, by its name and not by its look
            frame[name] = pd.Series(texts[name], dtype="str")
    frame = _numbered(frame, estimator)
    return missing_cells.as_fitted(frame, by_text(known), is_file=True), notes


def _names(estimator: object, names: Sequence[Label]) -> list[Label]:
    fitted_on = facts.feature_names(estimator, names)
    return [*fitted_on] if fitted_on is not None else list(names)


def _numbered(frame: pd.DataFrame, estimator: object) -> pd.DataFrame:
    """Return the frame with numbers as names, if all are numbers and the estimator was fitted without text as names."""
    if facts.feature_names(estimator) is not None:
        return frame
    return frame.set_axis(pd.Index(csv_samples.labels([str(name) for name in frame.columns])), axis=1)


def by_text(known: Mapping[Label, T]) -> dict[str, T]:
    """Return what is known by the columns' names as text."""
    return {str(name): each for name, each in known.items()}


def _typed(frame: pd.DataFrame, estimator: object, target: str | None, types: Types) -> Sample:
    frame = frame[sample.without_target(list(frame.columns), target)]
    _check_declared(types, list(frame.columns))
    known = known_columns(estimator, list(frame.columns))
    frame = _numbered(column_types.apply(frame, types), estimator)
    return missing_cells.as_fitted(frame, by_text(known), is_file=True), []


def _check_declared(types: Types, names: Sequence[Label]) -> None:
    for name in types:
        if name not in map(str, names):
            raise PublishFailed(
                f"--types names the column {name!r}, which the sample does not have. Its columns: "
                f"{', '.join(map(str, names))}"
            )
