"""Missing cells of a sample: which kind of missing value the estimator was fitted on, and which columns accept them.

Python has three: None, NaN and pandas.NA. An encoder tells them apart; JSON, CSV and Parquet do not.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from tableside.contracts.schema import Cell, Column
from tableside.contracts.table import EstimatorInput
from tableside.errors import PublishFailed
from tableside_contract.readings import WORDS, Known, Missing, Reading, missing_kind, of_values

__all__ = ["Known", "Nullable", "as_fitted", "check", "check_names", "mark_of", "missing_kind", "reading_of", "refusal"]

Series: TypeAlias = "pd.Series[Any]"
Nullable = Collection[str] | Literal["all"]
"""The columns that accept missing cells although the sample has none; `all`: those where the estimator answers one."""
_MARKS: dict[Missing, object] = {"nan": np.nan, "none": None, "na": pd.NA}
NAMES: dict[Missing, str] = {"nan": "NaN", "none": "None", "na": "pandas.NA"}
"""The kinds of missing values, as Python writes them."""


def as_fitted(frame: pd.DataFrame, known: Mapping[str, Known], *, is_file: bool = False) -> pd.DataFrame:
    """Return the frame with the missing values that its encoders were fitted on.

    Only cells that do not say which kind they are change: those of a file, and those of pandas' text dtype, which holds
    NaN whatever the trainer had. Object columns of a DataFrame are the trainer's own and stay as they are.
    """
    columns = {}
    for name in frame.columns:
        series, one = frame[name], known.get(str(name))
        is_neutral = isinstance(series.dtype, pd.StringDtype) or (is_file and series.dtype == object)
        if one is not None and is_neutral and len(one.missing) == 1 and series.isna().any():
            (kind,) = one.missing
            if kind != "nan" or series.dtype == object:
                columns[name] = _marked(series, _MARKS[kind])
    return pd.DataFrame({name: columns.get(name, frame[name]) for name in frame.columns}) if columns else frame


def _marked(series: Series, mark: object) -> Series:
    cells = np.empty(len(series), dtype=object)
    cells[:] = [mark if is_missing else cell for cell, is_missing in zip(series, series.isna(), strict=True)]
    return pd.Series(cells, index=series.index, dtype=object)


def kinds_of(series: Series) -> dict[Missing, int]:
    """Return how many cells of an object column are missing, by kind."""
    counts: dict[Missing, int] = {}
    if series.dtype == object:
        for value in series[series.isna()]:
            if (kind := missing_kind(value)) is not None:
                counts[kind] = counts.get(kind, 0) + 1
    return counts


def mark_of(series: Series, fitted: Sequence[object]) -> Missing:
    """Return the kind of missing value that the estimator is given: its encoder's, or the most frequent of the sample.

    fitted: the values that the encoder was fitted on; empty if there is none.
    """
    if series.dtype != object:
        return "nan"
    for value in fitted:
        if (kind := missing_kind(value)) is not None:
            return kind
    counts = kinds_of(series)
    return max(counts, key=lambda kind: counts[kind]) if counts else "nan"


def check(frame: pd.DataFrame, known: Mapping[str, Known]) -> None:
    """Raise PublishFailed if the sample has other cells than the encoders were fitted on.

    Those are cells of another type, and missing cells where an encoder tells two kinds of missing values apart.
    """
    for name in frame.columns:
        one = known.get(str(name))
        if one is None or not one.values:
            continue
        series = frame[name]
        _check_reading(series, one, str(name))
        if len(one.missing) > 1 and series.isna().any():
            raise PublishFailed(two_kinds(str(name), one))


def two_kinds(name: str, known: Known) -> str:
    """Return why a column cannot accept missing cells whose encoder was fitted on two kinds of them."""
    kinds = " and ".join(sorted(NAMES[kind] for kind in known.missing))
    return (
        f"column {name!r}: {known.source} was fitted on two kinds of missing values, {kinds}, and "
        "answers them differently. "
        f"A request has only null. Make them one before fit, for instance frame[{name!r}] = "
        f"frame[{name!r}].fillna('missing'), and publish the new model"
    )


def _check_reading(series: Series, known: Known, name: str) -> None:
    reading = reading_of(series)
    if reading is None or reading == known.reading or {reading, known.reading} <= {"number", "boolean"}:
        return
    shown = ", ".join(repr(cell) for cell in series.dropna().head(3).tolist())
    way_out = f"Add --types {name}=str for a CSV sample, or give" if known.reading == "text" else "Give"
    raise PublishFailed(
        f"column {name!r}: {known.describe()}, but the sample has {WORDS[reading]} ({shown}, ...). "
        f"{way_out} a Parquet sample "
        "or a DataFrame with the types of the training data"
    )


def reading_of(series: Series) -> Reading | None:
    """Return what the cells of a column are; None if all are missing, or mixed."""
    if isinstance(series.dtype, pd.CategoricalDtype):
        return reading_of(pd.Series(series.cat.categories))
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return "date"
    if pd.api.types.is_bool_dtype(series.dtype):
        return "boolean"
    return "number" if pd.api.types.is_numeric_dtype(series.dtype) else of_values(series.dropna())


def check_names(asked: Nullable, columns: Sequence[Column]) -> None:
    """Raise PublishFailed if `--nullable` names a column that the model does not have."""
    names = [column.name for column in columns]
    for name in asked if asked != "all" else ():
        if name not in names:
            raise PublishFailed(f"--nullable names the column {name!r}; the model's columns are: {', '.join(names)}")


def refusal(
    run: Callable[[EstimatorInput], object],
    make_input: Callable[[list[list[Cell]]], EstimatorInput],
    row: list[Cell],
    at: int,
) -> str:
    """Call the estimator with cell `at` of the row missing. Return what it raises in words; empty if it answers."""
    probe = list(row)
    probe[at] = None
    try:
        run(make_input([probe]))
    except Exception as problem:  # noqa: BLE001 - whatever it raises, it takes no missing value here
        return f"{type(problem).__name__}: {problem}".splitlines()[0]
    return ""
