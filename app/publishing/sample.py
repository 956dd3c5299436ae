"""Reads a sample and derives the input table of the contract from it and from the fitted estimator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from tableside.contract.array_type import Array
from tableside.contract.schema import Cell, Column, Datatype, Input, plain
from tableside.errors import PublishFailed

MAX_CATEGORIES = 200
"""A text column of a frame with more distinct values than this gets no list of categories in the contract."""
MAX_GOLDEN_ROWS = 64
MAX_GOLDEN_CELLS = 1 << 17
"""Tables of more than 2,048 columns have fewer golden rows, so that a contract stays small."""
_MIN_GOLDEN_ROWS = 4
MAX_DENSE_CELLS = 20_000_000
_MIN_DENSE_ROWS = 200
TEXT = "text"
"""The column name for a sample that is a list of texts without a name."""

_NULLABLE_DTYPES = ("boolean", "Float32", "Float64", *(f"{u}Int{size}" for u in ("", "U") for size in (8, 16, 32, 64)))

Form = Literal["frame", "matrix", "texts"]
Series: TypeAlias = "pd.Series[Any]"
EstimatorInput: TypeAlias = "pd.DataFrame | Array | list[str]"
"""What an estimator is called with, by Form."""
FittedCategories = dict[str, tuple[list[Any], bool]]
"""Column name to the categories an encoder was fitted on, and whether it rejects others (`closed`)."""


def read(path: Path, text: Sequence[str] = ()) -> pd.DataFrame:
    """Read a sample from a `.csv` file with a header line, a `.parquet` file, or a sparse matrix in a `.npz` file.

    text: names of CSV columns to read as text, so that `00017` keeps its zeros. Raises PublishFailed.
    """

    def read_csv(path: Path) -> pd.DataFrame:
        return pd.read_csv(path, dtype=dict.fromkeys(text, str))

    readers: dict[str, Callable[[Path], pd.DataFrame]] = {
        ".csv": read_csv, ".parquet": pd.read_parquet, ".npz": _read_sparse,
    }  # fmt: skip
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise PublishFailed(f"{path}: a sample must be a .csv or .parquet file, or .npz of scipy.sparse.save_npz")
    if not path.is_file():
        raise PublishFailed(f"{path}: no such file")
    try:
        return reader(path)
    except (OSError, ValueError, KeyError) as problem:
        raise PublishFailed(f"{path}: {problem}") from problem


def _read_sparse(path: Path) -> pd.DataFrame:
    """Read what scipy.sparse.save_npz has written. Pickled objects in it are refused."""
    from scipy import sparse

    return pd.DataFrame(_dense(sparse.load_npz(path)))


def as_frame(sample: object, target: str | None) -> pd.DataFrame:
    """Return the sample as a DataFrame with a fresh index, without its target column.

    sample: a DataFrame, Series, array or sparse matrix of shape [rows, columns], or a list of texts.
    Raises PublishFailed when the target column is missing, when there are no rows, or for a column that a
    contract cannot describe.
    """
    frame = sample if isinstance(sample, pd.DataFrame) else pd.DataFrame(_as_columns(sample))
    if target is not None:
        if target not in frame.columns:
            raise PublishFailed(
                f"the sample has no target column {target!r}. Its columns are: {', '.join(map(str, frame.columns))}"
            )
        frame = frame.drop(columns=[target])
    if len(frame) == 0:
        raise PublishFailed("the sample has no rows. Give some rows like the training data")
    if not frame.columns.is_unique:
        duplicate = frame.columns[frame.columns.duplicated()][0]
        raise PublishFailed(f"the sample has more than one column {duplicate!r}. Give each column its own name")
    for name in frame.columns:
        if not isinstance(frame[name].dtype, np.dtype | pd.CategoricalDtype) and not _is_supported(frame[name].dtype):
            raise PublishFailed(
                f"column {name!r} has the dtype {frame[name].dtype}, which is not supported. Convert it to numbers, "
                "booleans or text"
            )
    return frame.reset_index(drop=True)


def _is_supported(dtype: object) -> bool:
    """Whether it is one of pandas' own nullable dtypes or its text dtype. Sparse and Arrow dtypes are not."""
    return isinstance(dtype, pd.StringDtype) or str(dtype) in _NULLABLE_DTYPES


def _as_columns(sample: Any) -> pd.DataFrame | dict[str, Sequence[str]] | Array:
    """Return what pd.DataFrame makes columns of: a Series, or a list of texts, becomes one column."""
    if hasattr(sample, "toarray"):
        sample = _dense(sample)
    if isinstance(sample, pd.Series):
        return pd.DataFrame({TEXT if sample.name is None else sample.name: sample})
    texts = isinstance(sample, (list, tuple)) and all(isinstance(value, str) for value in sample)
    return {TEXT: sample} if texts else np.asarray(sample)


def _dense(sample: Any) -> Array:
    """Return a sparse matrix as an array: all of it, or evenly spaced rows if it would have too many cells."""
    rows, columns = sample.shape
    most = max(_MIN_DENSE_ROWS, MAX_DENSE_CELLS // max(1, columns))
    if rows > most:
        sample = sample.tocsr()[np.linspace(0, rows - 1, num=most, dtype=int)]
    found: Array = sample.toarray()
    return found


def align(frame: pd.DataFrame, estimator: object) -> tuple[pd.DataFrame, Form]:
    """Return the frame with the estimator's columns in the estimator's order, and the form of its input.

    An estimator that was fitted on a DataFrame selects columns by name; others take all columns by position.
    Raises PublishFailed that names missing or surplus columns.
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is not None:
        wanted = [str(name) for name in names]
        missing = [name for name in wanted if name not in frame.columns]
        known = set(wanted)
        extra = [str(name) for name in frame.columns if name not in known]
        if missing:
            raise PublishFailed(f"the sample lacks columns that the estimator was fitted on: {', '.join(missing)}")
        if extra:
            hint = f"If that is the target, add --target {extra[0]}" if len(extra) == 1 else "Drop them"
            raise PublishFailed(f"the sample has columns that the estimator does not take: {', '.join(extra)}. {hint}")
        return frame[wanted], "frame"
    width = getattr(estimator, "n_features_in_", len(frame.columns))
    if width != len(frame.columns):
        raise PublishFailed(
            f"the estimator takes {width} columns, but the sample has {len(frame.columns)}. If one is the target, "
            "name it with --target"
        )
    renamed = frame.copy()
    renamed.columns = pd.Index([name if isinstance(name, str) else f"x{at}" for at, name in enumerate(frame.columns)])
    if not renamed.columns.is_unique:
        raise PublishFailed(
            "the sample has some columns without a name, and their default names (x0, x1, ...) are already used. "
            "Name all columns"
        )
    kinds = {_datatype(frame[column]) for column in frame.columns}
    # A text vectorizer iterates over its input. From a DataFrame it would get the column names, not the texts.
    if kinds == {"BYTES"} and len(frame.columns) == 1 and not hasattr(estimator, "n_features_in_"):
        return renamed.rename(columns={"x0": TEXT}), "texts"
    if kinds & {"BYTES", "BOOL"}:
        return renamed, "frame"
    if "FP32" in kinds and kinds != {"FP32"}:
        # numpy converts mixed widths to one float64 array, and the estimator was fitted on that.
        renamed = renamed.astype(np.float64)
    return renamed, "matrix"


def describe(frame: pd.DataFrame, form: Form, fitted: FittedCategories) -> Input:
    """Return the input table of the contract: names, types, ranges and categories of an aligned sample.

    fitted: from `fitted_categories`. Raises PublishFailed for a column that is neither numbers, booleans nor text.
    """
    columns = tuple(_column(frame[name], fitted.get(str(name)), form) for name in frame.columns)
    return Input(form, columns)


def _datatype(series: Series) -> Datatype:
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
    raise PublishFailed(
        f"column {series.name!r} has the dtype {series.dtype} with mixed cells. Use numbers, booleans or text"
    )


def _column(series: Series, fitted: tuple[list[Any], bool] | None, form: Form) -> Column:
    datatype = _datatype(series)
    if form == "matrix" and datatype != "FP32":
        datatype = "FP64"
    present = series.dropna()
    values = [*series, *(fitted[0] if fitted else ())] if series.dtype == object else []
    # An encoder that was fitted on None treats NaN as an unknown category.
    missing: Literal["nan", "none"] = "none" if any(value is None for value in values) else "nan"
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
        missing=missing,
        categories=None if categories is None else tuple(categories),
        closed=closed,
        minimum=float(present.min()) if numeric else None,
        maximum=float(present.max()) if numeric else None,
    )


def fitted_categories(estimator: object) -> FittedCategories:
    """Return the categories of the encoders inside a ColumnTransformer that selects its columns by name."""
    categories: FittedCategories = {}
    for step in _steps(estimator):
        for _, transformer, columns in getattr(step, "transformers_", ()):
            names = [columns] if isinstance(columns, str) else list(columns) if _are_names(columns) else []
            for encoder in _steps(transformer):
                if not _keeps_cells(encoder):
                    break
                groups = getattr(encoder, "categories_", None)
                if groups is not None and len(groups) == len(names):
                    closed = getattr(encoder, "handle_unknown", "") == "error"
                    categories.update({name: (list(group), closed) for name, group in zip(names, groups, strict=True)})
                    break
    return categories


def _keeps_cells(step: object) -> bool:
    """Whether the next step sees the column's own cells. After KBinsDiscretizer, say, it sees numbers of bins."""
    return type(step).__name__ in ("SimpleImputer", "OneHotEncoder", "OrdinalEncoder", "TargetEncoder")


def restore_none(frame: pd.DataFrame, fitted: FittedCategories) -> pd.DataFrame:
    """Return the frame with None for missing values in the columns whose encoder was fitted on None.

    pandas reads a missing value from a file as NaN, which such an encoder treats as an unknown category.
    """
    wanted = [name for name, (categories, _) in fitted.items() if any(value is None for value in categories)]
    columns = {name: frame[name].astype(object).where(frame[name].notna(), None) for name in wanted if name in frame}
    return frame.assign(**columns) if columns else frame


def _are_names(columns: object) -> bool:
    return isinstance(columns, (list, tuple, np.ndarray, pd.Index)) and all(isinstance(c, str) for c in columns)


def _steps(estimator: object) -> list[Any]:
    steps = getattr(estimator, "steps", None)
    return [part for _, part in steps] if steps else [estimator]


def golden_rows(frame: pd.DataFrame, most: int = MAX_GOLDEN_ROWS) -> list[int]:
    """Return the positions, at most `most`, of rows that together cover the sample well.

    These are up to 16 evenly spaced rows, and for each column a missing value, the extremes and up to 5 categories.
    """
    most = min(most, max(_MIN_GOLDEN_ROWS, MAX_GOLDEN_CELLS // max(1, len(frame.columns))))
    chosen = dict.fromkeys(np.linspace(0, len(frame) - 1, num=min(16, most, len(frame)), dtype=int).tolist())
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
    """Return the rows of a frame as the JSON cells that a client would send: null for a missing value."""
    columns = [[plain(value) for value in frame[column.name]] for column in schema.columns]
    rows = [list(row) for row in zip(*columns, strict=True)]
    for at, column in enumerate(schema.columns):
        if column.datatype in ("FP64", "FP32"):
            for row in rows:
                row[at] = None if row[at] is None else float(row[at])
    return rows


def accepts_missing(
    run: Callable[[EstimatorInput], object],
    make_input: Callable[[list[list[Cell]]], EstimatorInput],
    row: list[Cell],
    at: int,
) -> bool:
    """Call the estimator with cell `at` of the row missing, and return whether it gives an answer."""
    probe = list(row)
    probe[at] = None
    try:
        run(make_input([probe]))
    except Exception:  # noqa: BLE001 - whatever it raises, it takes no missing value here
        return False
    return True
