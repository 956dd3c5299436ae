"""Reading a sample, and what a fitted estimator and its sample say of the input table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd

from tableside.contract.schema import Cell, Column, Datatype, Input, plain
from tableside.errors import PublishFailed

MAX_CATEGORIES = 200
TEXT = "text"
"""The name of the one column of a model that takes texts, when its sample has no name for it."""

_NULLABLE = ("boolean", "Float32", "Float64", *(f"{u}Int{size}" for u in ("", "U") for size in (8, 16, 32, 64)))

Form = Literal["frame", "matrix", "texts"]


def read(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """A sample from `.csv` (with a header; columns in `text` keep their digits) or `.parquet`. Raises PublishFailed."""

    def read_csv(path: Path) -> pd.DataFrame:
        return pd.read_csv(path, dtype=dict.fromkeys(text, str))

    readers: dict[str, Callable[[Path], pd.DataFrame]] = {".csv": read_csv, ".parquet": pd.read_parquet}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PublishFailed(f"{path}: a sample is a .csv or .parquet file")
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    try:
        return reader(path)
    except (OSError, ValueError) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem


def as_frame(sample: Any, target: str | None) -> pd.DataFrame:
    """The sample as a frame without its target column. Raises PublishFailed."""
    frame = sample if isinstance(sample, pd.DataFrame) else pd.DataFrame(_plain_columns(sample))
    if target is not None:
        if target not in frame.columns:
            raise PublishFailed(
                f"the sample has no target column {target!r}; it has {', '.join(map(str, frame.columns))}"
            )
        frame = frame.drop(columns=[target])
    if len(frame) == 0:
        raise PublishFailed("the sample has no rows; a contract needs some to learn the columns from")
    if not frame.columns.is_unique:
        twice = frame.columns[frame.columns.duplicated()][0]
        raise PublishFailed(f"the sample has more than one column {twice!r}; a contract needs a name for each")
    for name in frame.columns:
        if not isinstance(frame[name].dtype, np.dtype | pd.CategoricalDtype) and not _is_plain(frame[name].dtype):
            raise PublishFailed(f"column {name!r} is of dtype {frame[name].dtype}; convert it to numbers or text first")
    return frame.reset_index(drop=True)


def _is_plain(dtype: Any) -> bool:
    """pandas' own nullable dtypes and text; not sparse ones, and not Arrow's."""
    return isinstance(dtype, pd.StringDtype) or str(dtype) in _NULLABLE


def _plain_columns(sample: Any) -> Any:
    """What pandas makes columns of without guessing: a Series or list of texts is one column."""
    if hasattr(sample, "toarray"):
        sample = sample.toarray()
    if isinstance(sample, pd.Series):
        return sample.to_frame(TEXT if sample.name is None else sample.name)
    texts = isinstance(sample, (list, tuple)) and all(isinstance(value, str) for value in sample)
    return {TEXT: sample} if texts else np.asarray(sample)


def align(frame: pd.DataFrame, estimator: Any) -> tuple[pd.DataFrame, Form]:
    """The frame with the estimator's columns in its order, and what the estimator is to be given of it.

    Raises PublishFailed naming missing or surplus columns.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        wanted = [str(name) for name in names]
        missing = [name for name in wanted if name not in frame.columns]
        extra = [str(name) for name in frame.columns if name not in wanted]
        if missing:
            raise PublishFailed(f"the sample lacks columns the estimator was fitted on: {', '.join(missing)}")
        if extra:
            hint = f"--target {extra[0]}" if len(extra) == 1 else "dropping them from the sample"
            raise PublishFailed(f"the sample has columns the estimator does not know: {', '.join(extra)}; try {hint}")
        return frame[wanted], "frame"
    width = getattr(estimator, "n_features_in_", len(frame.columns))
    if width != len(frame.columns):
        raise PublishFailed(
            f"the estimator takes {width} columns, the sample has {len(frame.columns)}; is one the target (--target)?"
        )
    renamed = frame.copy()
    renamed.columns = pd.Index([name if isinstance(name, str) else f"x{at}" for at, name in enumerate(frame.columns)])
    if not renamed.columns.is_unique:
        raise PublishFailed(
            "the sample mixes names and numbers as column names, and two would be the same; name them all"
        )
    kinds = {_datatype(frame[column]) for column in frame.columns}
    # A vectorizer at the front takes the texts themselves: of a frame it would read the column names.
    if kinds == {"BYTES"} and len(frame.columns) == 1 and not hasattr(estimator, "n_features_in_"):
        return renamed.rename(columns={"x0": TEXT}), "texts"
    if kinds & {"BYTES", "BOOL"}:
        return renamed, "frame"
    if "FP32" in kinds and kinds != {"FP32"}:
        # numpy would have made one array of them, and so was the estimator fitted.
        renamed = renamed.astype(np.float64)
    return renamed, "matrix"


def describe(frame: pd.DataFrame, form: Form, fitted: dict[str, tuple[list[Any], bool]]) -> Input:
    """Columns as the sample shows them; `fitted` holds the pipeline's own categories and whether they are closed."""
    columns = tuple(_column(frame[name], fitted.get(str(name)), form) for name in frame.columns)
    return Input(form, columns)


def _datatype(series: pd.Series[Any]) -> Datatype:
    if isinstance(series.dtype, pd.CategoricalDtype):
        return _datatype(pd.Series(series.cat.categories))
    if pd.api.types.is_bool_dtype(series.dtype):
        return "BOOL"
    if pd.api.types.is_integer_dtype(series.dtype):
        return "INT64"
    if pd.api.types.is_float_dtype(series.dtype):
        return "FP32" if str(series.dtype).lower() == "float32" else "FP64"
    present = series.dropna()
    if len(present) and all(isinstance(value, (bool, np.bool_)) for value in present):
        return "BOOL"
    if all(isinstance(value, str) for value in present):
        return "BYTES"
    raise PublishFailed(f"column {series.name!r} has dtype {series.dtype}; take numbers, booleans or text")


def _column(series: pd.Series[Any], fitted: tuple[list[Any], bool] | None, form: Form) -> Column:
    datatype = _datatype(series)
    if form == "matrix" and datatype != "FP32":
        datatype = "FP64"
    present = series.dropna()
    missing_cells = [*series, *(fitted[0] if fitted else ())]  # an encoder that was fitted on None knows no NaN
    missing = "none" if series.dtype == object and any(value is None for value in missing_cells) else "nan"
    categories, closed = (None, False)
    if fitted is not None:
        categories, closed = [plain(value) for value in fitted[0]], fitted[1]
        categories = [value for value in categories if value is not None]
    elif isinstance(series.dtype, pd.CategoricalDtype):
        categories, closed = [plain(value) for value in series.cat.categories], True
    elif form == "frame" and datatype == "BYTES" and present.nunique() <= min(MAX_CATEGORIES, max(1, len(present) - 1)):
        categories = sorted(present.unique().tolist())
    numeric = (
        datatype in ("FP64", "FP32", "INT64") and len(present) and not isinstance(series.dtype, pd.CategoricalDtype)
    )
    return Column(
        name=str(series.name),
        datatype=datatype,
        dtype="float64" if datatype == "FP64" and form == "matrix" else str(series.dtype),
        nullable=bool(series.isna().any()),
        missing=missing,  # type: ignore[arg-type]
        categories=None if categories is None else tuple(categories),
        closed=closed,
        minimum=float(present.min()) if numeric else None,
        maximum=float(present.max()) if numeric else None,
    )


def fitted_categories(estimator: Any) -> dict[str, tuple[list[Any], bool]]:
    """Column name to (categories, closed) for encoders that sit behind a ColumnTransformer with named columns."""
    found: dict[str, tuple[list[Any], bool]] = {}
    for step in _steps(estimator):
        for _, transformer, columns in getattr(step, "transformers_", ()):
            names = [columns] if isinstance(columns, str) else list(columns) if _named(columns) else []
            for encoder in _steps(transformer):
                if not _keeps_cells(encoder):
                    break
                groups = getattr(encoder, "categories_", None)
                if groups is not None and len(groups) == len(names):
                    closed = getattr(encoder, "handle_unknown", "") == "error"
                    found.update({name: (list(group), closed) for name, group in zip(names, groups, strict=True)})
                    break
    return found


def _keeps_cells(step: Any) -> bool:
    """Whether what a step sees are the column's own cells: an encoder behind a binning one knows the bins' numbers."""
    return type(step).__name__ in ("SimpleImputer", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


def restore_none(frame: pd.DataFrame, fitted: dict[str, tuple[list[Any], bool]]) -> pd.DataFrame:
    """A missing value read from a file is NaN; an encoder fitted on None knows no NaN, so there it becomes None
    again.
    """
    wanted = [name for name, (categories, _) in fitted.items() if any(value is None for value in categories)]
    columns = {name: frame[name].astype(object).where(frame[name].notna(), None) for name in wanted if name in frame}
    return frame.assign(**columns) if columns else frame


def _named(columns: Any) -> bool:
    return isinstance(columns, (list, tuple, np.ndarray, pd.Index)) and all(isinstance(c, str) for c in columns)


def _steps(estimator: Any) -> list[Any]:
    steps = getattr(estimator, "steps", None)
    return [part for _, part in steps] if steps else [estimator]


def golden_rows(frame: pd.DataFrame, most: int = 64) -> list[int]:
    """Positions of rows that together show much of the sample: ends, each column's extremes, missing values and
    categories.
    """
    chosen = dict.fromkeys(np.linspace(0, len(frame) - 1, num=min(16, len(frame)), dtype=int).tolist())
    for name in frame.columns:
        series = frame[name].reset_index(drop=True)
        missing_cells = np.flatnonzero(series.isna().to_numpy())
        picks = list(missing_cells[:1])
        if pd.api.types.is_numeric_dtype(series.dtype) and series.notna().any():
            picks += [int(series.argmin()), int(series.argmax())]
        else:
            picks += series.drop_duplicates().index.tolist()[:5]
        chosen.update(dict.fromkeys(int(pick) for pick in picks))
        if len(chosen) >= most:
            break
    return sorted(chosen)[:most]


def rows_as_cells(frame: pd.DataFrame, schema: Input) -> list[list[Cell]]:
    """A frame's rows as the JSON cells a client would send."""
    columns = [[plain(value) for value in frame[column.name]] for column in schema.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    for at, column in enumerate(schema.columns):
        if column.datatype in ("FP64", "FP32"):
            for row in rows:
                row[at] = None if row[at] is None else float(row[at])
    return rows


def accepts_missing(
    run: Callable[[Any], object], make_input: Callable[[list[list[Cell]]], Any], row: list[Cell], at: int
) -> bool:
    """Whether the estimator answers when cell `at` is missing: asked, not guessed."""
    probe = list(row)
    probe[at] = None
    try:
        run(make_input([probe]))
    except Exception:  # noqa: BLE001 - any refusal by the estimator means no
        return False
    return True
