"""Derives the input table of the contract from a sample and from the fitted estimator."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import pandas as pd

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Column, Datatype, Input, plain
from tableside.errors import PublishFailed
from tableside.publishing import arrow_samples, column_types, missing_cells
from tableside_contract import cells, facts

MAX_CATEGORIES = 200
"""A text column of a frame with more distinct values than this gets no list of categories in the contract."""
MAX_DENSE_CELLS = 20_000_000
_MIN_DENSE_ROWS = 200
TEXT = "text"
"""The column name for a sample that is a list of texts without a name."""

_NULLABLE_DTYPES = ("boolean", "Float32", "Float64", *(f"{u}Int{size}" for u in ("", "U") for size in (8, 16, 32, 64)))

Form = Literal["frame", "matrix", "texts"]
Series: TypeAlias = "pd.Series[Any]"
FittedCategories = dict[str, tuple[list[Any], bool]]
"""Column name to the categories an encoder was fitted on, and whether it rejects others (`closed`)."""


def as_frame(sample: object, target: str | None, dropped: Collection[object] = ()) -> pd.DataFrame:
    """Return the sample as a DataFrame with a fresh index, without its target column.

    sample: a DataFrame of pandas or polars, Arrow table, Series, array or sparse matrix of shape [rows, columns], or a
    list of texts. dropped: columns that no answer depends on; cells that a contract cannot describe become text there.
    Raises PublishFailed when the target column is missing, when there are no rows, or for a column that a
    contract cannot describe.
    """
    frame = sample if isinstance(sample, pd.DataFrame) else pd.DataFrame(_as_columns(sample))
    if target is not None:
        frame = frame[without_target(list(frame.columns), target)]
    if len(frame) == 0:
        raise PublishFailed("the sample has no rows. Give some rows like the training data")
    _check_names(list(frame.columns))
    if not frame.columns.is_unique:
        duplicate = frame.columns[frame.columns.duplicated()][0]
        raise PublishFailed(f"the sample has more than one column {duplicate!r}. Give each column its own name")
    frame = _with_text(frame, {str(name) for name in dropped})
    for name in frame.columns:
        if not _is_supported(frame[name].dtype):
            hint = (
                "numbers, such as .dt.total_seconds()," if frame[name].dtype.kind == "m" else "numbers, booleans, text"
            )
            raise PublishFailed(
                f"column {name!r} has the dtype {frame[name].dtype}, which is not supported. Convert "
                f"it to {hint} or dates "
                "(datetime64) before fit"
            )
    return frame.reset_index(drop=True)


def _with_text(frame: pd.DataFrame, dropped: Collection[str]) -> pd.DataFrame:
    """Return the frame with text in those dropped columns whose cells a contract cannot describe."""
    columns = {}
    for name in frame.columns:
        series = frame[name]
        if str(name) in dropped and (not _is_supported(series.dtype) or _is_mixed(series)):
            texts = [None if missing else str(cell) for cell, missing in zip(series, series.isna(), strict=True)]
            columns[name] = pd.Series(texts, index=series.index, dtype="str")
    return pd.DataFrame({name: columns.get(name, frame[name]) for name in frame.columns}) if columns else frame


def _is_mixed(series: Series) -> bool:
    if isinstance(series.dtype, pd.CategoricalDtype):
        return not _is_supported(series.cat.categories.dtype) or _is_mixed(pd.Series(series.cat.categories))
    present = series.dropna() if series.dtype == object else ()
    kinds = {str if isinstance(cell, str) else bool if isinstance(cell, (bool, np.bool_)) else None for cell in present}
    return len(kinds) > 1 or None in kinds


def without_target(names: Sequence[Any], target: str | None) -> list[Any]:
    """Return the names without the target's. Raises PublishFailed if there is no such column."""
    if target is not None and target not in map(str, names):
        raise PublishFailed(
            f"the sample has no target column {target!r}. Its columns are: {', '.join(map(str, names))}"
        )
    return [name for name in names if str(name) != target]


def _check_names(names: Sequence[object]) -> None:
    """Raise PublishFailed unless each name is a text or a whole number, and no two are written alike."""
    for name in names:
        if isinstance(name, bool) or not isinstance(name, (str, int, np.integer)):
            raise PublishFailed(
                f"the column {name!r} has a {type(name).__name__} as its name. Use texts or whole numbers"
            )
    counts = Counter(map(str, names))
    for name, count in counts.items():
        if count > 1 and len(set(names)) == len(names):
            raise PublishFailed(f"the sample has the columns {name!r} and {name}, which JSON writes alike. Rename one")


def _is_supported(dtype: object) -> bool:
    """Whether a contract can describe it. Sparse and Arrow dtypes, periods, intervals and timedeltas are not."""
    if isinstance(dtype, np.dtype):
        return dtype.kind not in "mc" and (dtype.kind != "M" or column_types.is_date(str(dtype)))
    if isinstance(dtype, pd.DatetimeTZDtype):
        return column_types.is_date(str(dtype))
    return isinstance(dtype, pd.CategoricalDtype | pd.StringDtype) or str(dtype) in _NULLABLE_DTYPES


def _as_columns(sample: Any) -> pd.DataFrame | dict[str, Sequence[str]] | Array:
    """Return what pd.DataFrame makes columns of: a Series, or a list of texts, becomes one column."""
    if arrow_samples.is_arrow(sample):
        return arrow_samples.to_frame(sample)
    if hasattr(sample, "toarray"):
        sample = dense(sample)
    if isinstance(sample, pd.Series):
        return pd.DataFrame({TEXT if sample.name is None else sample.name: sample})
    texts = isinstance(sample, (list, tuple)) and all(isinstance(value, str) for value in sample)
    return {TEXT: sample} if texts else np.asarray(sample)


def dense(sample: Any) -> Array:
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
    wanted = facts.feature_names(estimator, frame.columns)
    if wanted is not None:
        frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
        missing = [name for name in wanted if name not in frame.columns]
        known = set(wanted)
        extra = [str(name) for name in frame.columns if name not in known]
        if missing:
            raise PublishFailed(f"the sample lacks columns that the estimator was fitted on: {', '.join(missing)}")
        if extra:
            hint = f"If that is the target, add --target {extra[0]}" if len(extra) == 1 else "Drop them"
            raise PublishFailed(f"the sample has columns that the estimator does not take: {', '.join(extra)}. {hint}")
        return frame[wanted], "frame"
    width = facts.n_features(estimator) or len(frame.columns)
    if width != len(frame.columns):
        raise PublishFailed(
            f"the estimator takes {width} columns, but the sample has {len(frame.columns)}. If one is the target, "
            "name it with --target"
        )
    renamed = frame.copy()
    names_given: list[object] = [*frame.columns]
    default = names_given == [*range(len(names_given))]  # pandas' own numbers, which are no names
    renamed.columns = pd.Index([f"x{at}" if default else str(name) for at, name in enumerate(frame.columns)])
    kinds = {_datatype(frame[column]) for column in frame.columns}
    # A text vectorizer iterates over its input. From a DataFrame it would get the column names, not the texts.
    if kinds == {"BYTES"} and len(frame.columns) == 1 and facts.n_features(estimator) is None:
        return renamed.rename(columns={"x0": TEXT}), "texts"
    if kinds & {"BYTES", "BOOL"} or (not default and not all(isinstance(name, str) for name in names_given)):
        return renamed, "frame"  # of numbers as names scikit-learn keeps none, but only a DataFrame has them
    if "FP32" in kinds and kinds != {"FP32"}:
        # numpy converts mixed widths to one float64 array, and the estimator was fitted on that.
        renamed = renamed.astype(np.float64)
    return renamed, "matrix"


def integer_names(frame: pd.DataFrame, estimator: object) -> frozenset[str]:
    """Return the columns of a sample, before `align`, that have a whole number as their name, as text."""
    if facts.feature_names(estimator) is not None:
        return frozenset()  # scikit-learn keeps names only if all are text
    return frozenset(str(name) for name in frame.columns if not isinstance(name, str))


def describe(frame: pd.DataFrame, form: Form, fitted: FittedCategories, integers: Collection[str] = ()) -> Input:
    """Return the input table of the contract: names, types, ranges and categories of an aligned sample.

    fitted: from `fitted_categories`. integers: from `integer_names`. Raises PublishFailed for a column that is neither
    numbers, booleans, text nor dates.
    """
    columns = tuple(_column(frame[name], fitted.get(str(name)), form, str(name) in integers) for name in frame.columns)
    return Input(form, columns)


def _datatype(series: Series) -> Datatype:
    if isinstance(series.dtype, pd.CategoricalDtype):
        if pd.api.types.is_datetime64_any_dtype(series.cat.categories.dtype):
            raise PublishFailed(f"column {series.name!r} has dates as categories. Use datetime64 or text before fit")
        return _datatype(pd.Series(series.cat.categories, name=series.name))
    if pd.api.types.is_datetime64_any_dtype(series.dtype):
        return "BYTES"
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
        f"column {series.name!r} has the dtype {series.dtype} with mixed cells. Use numbers, booleans or text, or "
        "dates as datetime64 (pd.to_datetime)"
    )


def _column(series: Series, fitted: tuple[list[Any], bool] | None, form: Form, is_integer_name: bool) -> Column:
    datatype = _datatype(series)
    if form == "matrix" and datatype != "FP32":
        datatype = "FP64"
    present = series.dropna()
    is_category = isinstance(series.dtype, pd.CategoricalDtype)
    is_date = pd.api.types.is_datetime64_any_dtype(series.dtype)
    categories, closed = (None, False) if is_date else _categories(series, fitted, form, datatype)
    numeric = datatype in ("FP64", "FP32", "INT64") and len(present) and not is_category
    return Column(
        name=str(series.name),
        datatype=datatype,
        dtype="float64" if datatype == "FP64" and form == "matrix" else str(series.dtype),
        nullable=bool(series.isna().any()),
        missing=missing_cells.mark_of(series, fitted[0] if fitted else ()),
        categories=None if categories is None else tuple(categories),
        closed=closed,
        minimum=float(present.min()) if numeric else None,
        maximum=float(present.max()) if numeric else None,
        integer_name=is_integer_name,
        ordered=bool(is_category and series.cat.ordered),
        categories_dtype=str(series.cat.categories.dtype) if is_category else "",
    )


def _categories(
    series: Series, fitted: tuple[list[Any], bool] | None, form: Form, datatype: Datatype
) -> tuple[list[Cell] | None, bool]:
    """Return the categories of a column, without a missing one, and whether others are refused.

    Those of a `category` column come first and keep their order, which is part of its dtype.
    """
    own = [*series.cat.categories] if isinstance(series.dtype, pd.CategoricalDtype) else []
    if fitted is not None or own:
        known = dict.fromkeys(plain(value) for value in [*own, *(fitted[0] if fitted else ())])
        return [value for value in known if value is not None], fitted[1] if fitted else True
    present = series.dropna()
    if form == "frame" and datatype == "BYTES" and present.nunique() <= min(MAX_CATEGORIES, max(1, len(present) - 1)):
        return sorted(present.unique().tolist()), False
    return None, False


def fitted_categories(estimator: object) -> FittedCategories:
    """Return the categories of the encoders inside a ColumnTransformer that selects its columns by name."""
    return {
        name: ([cells.from_json(cell) for cell in found["values"]], found["closed"])
        for name, found in facts.fitted_categories(estimator).items()
    }
