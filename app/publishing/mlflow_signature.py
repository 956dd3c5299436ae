"""What an MLflow signature and input example say of the input table, and rows made to fit them.

Types are MLflow's: `boolean`, `integer` (32 bits), `long`, `float` (32 bits), `double`, `string`, or one tensor of
shape [-1, columns].
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from tableside.errors import PublishFailed
from tableside.publishing import sample

_SAME: dict[str, tuple[str, ...]] = {
    "double": ("float64",),
    "float": ("float32", "float16"),
    "long": ("int64", "uint32"),
    "integer": ("int32", "int16", "int8", "uint16", "uint8"),
    "boolean": ("bool",),
    "string": (),
}
"""Dtypes MLflow infers each type from: a sample that has one keeps it. The first is given to any other."""
_TENSOR = {
    **{dtype: kind for kind, dtypes in _SAME.items() for dtype in dtypes},
    "str": "string",
    "object": "string",
}
_WORDS = {"double": "numbers", "float": "numbers", "long": "whole numbers", "integer": "whole numbers"}
_WRAPPERS = ("dataframe_split", "dataframe_records", "inputs", "instances")


class _Tensor(msgspec.Struct, frozen=True):
    dtype: str
    shape: tuple[int, ...]


class _Input(msgspec.Struct, frozen=True):
    type: Any
    name: str | int | None = None
    required: bool | None = None
    tensor: _Tensor | None = msgspec.field(name="tensor-spec", default=None)


@dataclass(frozen=True)
class Spec:
    """One column of a signature; name is None where columns go by their position."""

    name: str | None
    type: str
    required: bool = True


def parse(words: dict[str, Any] | None) -> tuple[Spec, ...] | None:
    """The columns of `signature.inputs`; None where there is none, or a tensor of any width. Raises PublishFailed."""
    if not words or not words.get("inputs"):
        return None
    try:
        inputs = msgspec.json.decode(words["inputs"], type=list[_Input])
    except (msgspec.DecodeError, TypeError, RecursionError) as problem:
        raise PublishFailed(f"signature.inputs cannot be read: {problem}") from problem
    if any(entry.tensor is not None for entry in inputs):
        return _of_tensor(inputs)
    by_position = all(entry.name in (None, at) for at, entry in enumerate(inputs))
    specs = tuple(
        Spec(None if by_position else str(entry.name), str(entry.type), entry.required is not False) for entry in inputs
    )
    names = [spec.name for spec in specs if spec.name is not None]
    if len(set(names)) != len(names):
        raise PublishFailed("signature.inputs names a column twice")
    for at, spec in enumerate(specs):
        if spec.type not in _SAME:
            raise PublishFailed(
                f"the signature's column {_called(spec, at)} is of type {spec.type}; Tableside serves columns of "
                f"{', '.join(_SAME)}"
            )
    return specs


def _of_tensor(inputs: list[_Input]) -> tuple[Spec, ...] | None:
    tensor = inputs[0].tensor
    if len(inputs) != 1 or tensor is None or len(tensor.shape) != 2:
        shapes = ", ".join(str(list(entry.tensor.shape)) if entry.tensor else "a column" for entry in inputs)
        raise PublishFailed(f"the signature takes {shapes}; Tableside serves one tensor of shape [-1, columns]")
    if tensor.dtype not in _TENSOR:
        raise PublishFailed(f"the signature takes a tensor of {tensor.dtype}; expected {', '.join(_TENSOR)}")
    width = tensor.shape[1]
    return None if width < 0 else (Spec(None, _TENSOR[tensor.dtype]),) * width


def read_example(path: Path) -> pd.DataFrame:
    """`input_example.json` or `serving_input_example.json`: pandas split, records, rows, one record. NaN is a missing
    value.
    """
    try:
        content = json.loads(path.read_bytes())  # the standard library's: MLflow writes NaN as NaN
        if isinstance(content, dict):
            wrapped = [key for key in _WRAPPERS if isinstance(content.get(key), (dict, list))]
            if wrapped and set(content) <= {*_WRAPPERS, "params"}:
                content = content[wrapped[0]]
        frame = _frame(content)
    except (OSError, ValueError, TypeError, RecursionError) as problem:
        raise PublishFailed(
            f"{path}: is no table Tableside can read ({type(problem).__name__}); give the rows with --sample"
        ) from problem
    if frame.empty:
        raise PublishFailed(f"{path}: holds no rows; give some with --sample")
    return frame


def _frame(content: Any) -> pd.DataFrame:
    if isinstance(content, dict):
        if isinstance(content.get("data"), list) and set(content) <= {"data", "columns", "index"}:
            return pd.DataFrame(content["data"], columns=content.get("columns"))
        if {"data", "indices", "indptr", "shape"} <= set(content):
            raise ValueError("a sparse matrix")
        return pd.DataFrame(content if any(isinstance(v, list) for v in content.values()) else [content])
    if not isinstance(content, list):
        raise ValueError("neither rows nor a record")
    return pd.DataFrame(content)


def widened(frame: pd.DataFrame) -> pd.DataFrame:
    """Whole numbers as numbers: without a signature a 5 in a JSON example may well stand for 5.0."""
    whole = [at for at in frame.columns if pd.api.types.is_integer_dtype(frame[at].dtype)]
    return frame.astype(dict.fromkeys(whole, "float64"))


def arrange(frame: pd.DataFrame, specs: tuple[Spec, ...] | None, estimator: Any) -> pd.DataFrame:
    """The rows under the signature's names and types. Raises PublishFailed naming the columns that do not agree."""
    fitted_on = [str(name) for name in getattr(estimator, "feature_names_in_", ())]
    if specs is not None:
        _agree(specs, fitted_on, getattr(estimator, "n_features_in_", len(specs)))
    named = [spec.name for spec in specs or () if spec.name is not None] or fitted_on
    frame = _named(frame, named, len(specs) if specs is not None else len(named) or len(frame.columns))
    if specs is None:
        return frame
    known = sample.fitted_categories(estimator)
    by_name = {spec.name: spec for spec in specs}
    columns = {}
    for at, name in enumerate(frame.columns):
        spec = by_name.get(name, specs[at])
        groups, _ = known.get(str(name), ([], False))
        columns[name] = _cast(frame[name], spec, _called(spec, at), none=any(value is None for value in groups))
    return pd.DataFrame(columns)


def _agree(specs: tuple[Spec, ...], fitted_on: Sequence[str], width: int) -> None:
    names = [spec.name for spec in specs if spec.name is not None]
    if names and fitted_on:
        parts = [
            f"{side} has {', '.join(only)}"
            for side, only in (
                ("only the signature", [name for name in names if name not in fitted_on]),
                ("only the estimator", [name for name in fitted_on if name not in names]),
            )
            if only
        ]
        if parts:
            raise PublishFailed(f"the signature and the estimator disagree in columns: {'; '.join(parts)}")
    if len(specs) != width:
        held = f" ({', '.join(names)})" if names else ""
        raise PublishFailed(f"the signature has {len(specs)} columns{held}, the estimator takes {width}")


def _named(frame: pd.DataFrame, names: Sequence[str], width: int) -> pd.DataFrame:
    """The frame's columns by the names wanted and in their order; rows without names are taken by position."""
    has = list(frame.columns)
    if len(set(has)) < len(has):
        raise PublishFailed("the sample has two columns of one name")
    if not names or not all(isinstance(name, str) for name in has):
        if len(has) != width:
            raise PublishFailed(
                f"the sample has {len(has)} columns, the model takes {width}; is one the target (--target)?"
            )
        return frame.set_axis(pd.Index(names), axis=1) if names else frame
    missing = [name for name in names if name not in has]
    extra = [name for name in has if name not in names]
    if missing:
        raise PublishFailed(f"the sample lacks columns the model takes: {', '.join(missing)}")
    if extra:
        hint = f"; is it the target (--target {extra[0]})?" if len(extra) == 1 else ""
        raise PublishFailed(f"the sample has columns the model does not take: {', '.join(extra)}{hint}")
    return frame[list(names)]


def _called(spec: Spec, at: int) -> str:
    return repr(spec.name) if spec.name is not None else f"number {at + 1}"


def _cast(series: pd.Series[Any], spec: Spec, called: str, *, none: bool) -> pd.Series[Any]:
    """The column under its signature's dtype.

    none: whether a missing value of an object column is None, because an encoder was fitted on None; else it is NaN.
    Raises PublishFailed when the cells are of another kind than the signature says.
    """
    if str(series.dtype) in _SAME[spec.type]:
        return series
    if spec.type == "string":
        return _text(series, called, none)
    if spec.type == "boolean":
        return _flags(series, called, none)
    return _numbers(series, spec.type, called)


def _wrong(series: pd.Series[Any], called: str, wanted: str) -> PublishFailed:
    return PublishFailed(f"column {called} is {wanted} in the signature, but the sample holds {series.dtype} there")


def _text(series: pd.Series[Any], called: str, none: bool) -> pd.Series[Any]:
    present = series.dropna()
    if not all(isinstance(value, str) for value in present):
        raise _wrong(series, called, "text")
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series
    if none:
        return _with_missing_values(series, None)
    return series.astype(pd.StringDtype(na_value=np.nan))


def _flags(series: pd.Series[Any], called: str, none: bool) -> pd.Series[Any]:
    present = series.dropna()
    if len(present) == 0:
        raise PublishFailed(
            f"column {called} is boolean, but the sample has only missing values there; give more with --sample"
        )
    if not all(isinstance(value, (bool, np.bool_)) for value in present):
        raise _wrong(series, called, "boolean")
    return _with_missing_values(series, None if none else np.nan)


def _with_missing_values(series: pd.Series[Any], mark: float | None) -> pd.Series[Any]:
    values = np.empty(len(series), dtype=object)
    values[:] = [mark if is_missing else value for value, is_missing in zip(series, series.isna(), strict=True)]
    return pd.Series(values, index=series.index, name=series.name, dtype=object)


def _numbers(series: pd.Series[Any], kind: str, called: str) -> pd.Series[Any]:
    """Numbers of the kind's width; whole ones with missing values become float64, as pandas reads them."""
    wanted, present = _SAME[kind][0], series.dropna()
    is_number = pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype)
    if len(present) and not is_number:
        raise _wrong(series, called, _WORDS[kind])
    if kind in ("long", "integer"):
        limits = np.iinfo(wanted)
        if not all(float(value).is_integer() and limits.min <= value <= limits.max for value in present):
            raise PublishFailed(f"column {called} is {kind} in the signature, but the sample has other numbers there")
        if len(present) < len(series):
            wanted = "float64"
    return series.astype(np.dtype(wanted))
