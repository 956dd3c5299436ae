"""Reads MLflow signatures and input examples, and gives a sample the columns and dtypes of a signature.

The types are those of `mlflow.types.DataType`: `boolean`, `integer` (32 bits), `long`, `float` (32 bits), `double`,
`string` and `datetime`; or one tensor of shape [-1, columns].
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd

from tableside.errors import PublishFailed
from tableside.publishing import column_types, sample
from tableside.publishing.sample import Series
from tableside_contract import facts

_DTYPES: dict[str, tuple[str, ...]] = {
    "double": ("float64",),
    "float": ("float32", "float16"),
    "long": ("int64", "uint32"),
    "integer": ("int32", "int16", "int8", "uint16", "uint8"),
    "boolean": ("bool",),
    "string": (),
    "datetime": ("datetime64[ns]", "datetime64[us]", "datetime64[ms]", "datetime64[s]"),
}
"""The dtypes that MLflow maps to each type. A sample column with one of them keeps it; others get the first."""
_TENSOR_TYPES = {dtype: kind for kind, dtypes in _DTYPES.items() for dtype in dtypes}
_TENSOR_TYPES |= {"str": "string", "object": "string"}
_TYPES_IN_WORDS = {"double": "numbers", "float": "numbers", "long": "whole numbers", "integer": "whole numbers"}
_WRAPPER_KEYS = ("dataframe_split", "dataframe_records", "inputs", "instances")


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
    """One column of a signature. Its name is None in a signature without names, where the position counts."""

    name: str | None
    type: str
    required: bool = True


def parse(signature: Mapping[str, str | None] | None) -> tuple[Spec, ...] | None:
    """Return the columns of `signature.inputs`, a JSON text in the MLmodel file.

    The result is None without inputs, and for a tensor of any width. Raises PublishFailed for a signature that cannot
    be read or that Tableside cannot serve.
    """
    text = signature.get("inputs") if signature else None
    if not text:
        return None
    try:
        inputs = msgspec.json.decode(text, type=list[_Input])
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
        raise PublishFailed("signature.inputs has two columns with the same name")
    for at, spec in enumerate(specs):
        if spec.type not in _DTYPES:
            raise PublishFailed(
                f"the signature's column {_label(spec, at)} has the type {spec.type}, expected one of "
                f"{', '.join(_DTYPES)}"
            )
    return specs


def types(specs: tuple[Spec, ...] | None) -> dict[str, str]:
    """Return the dtypes that a signature gives the columns of a CSV file, by name.

    Numbers are left to be read as they are written: `apply_signature` gives them their width, or says what differs.
    """
    declared = {"string": "str", "datetime": "datetime64[ns]"}
    return {spec.name: declared[spec.type] for spec in specs or () if spec.name is not None and spec.type in declared}


def _of_tensor(inputs: list[_Input]) -> tuple[Spec, ...] | None:
    tensor = inputs[0].tensor
    if len(inputs) != 1 or tensor is None or len(tensor.shape) != 2:
        shapes = ", ".join(str(list(entry.tensor.shape)) if entry.tensor else "a column" for entry in inputs)
        raise PublishFailed(
            f"the signature has the inputs {shapes}, expected columns or one tensor of shape [-1, columns]"
        )
    if tensor.dtype not in _TENSOR_TYPES:
        raise PublishFailed(
            f"the signature's tensor has the dtype {tensor.dtype}, expected one of {', '.join(_TENSOR_TYPES)}"
        )
    width = tensor.shape[1]
    return None if width < 0 else (Spec(None, _TENSOR_TYPES[tensor.dtype]),) * width


def read_example(path: Path) -> pd.DataFrame:
    """Read `input_example.json` or `serving_input_example.json`.

    The formats are those that MLflow writes: the pandas orients `split` and `records`, a list of rows, columns, or one
    record; on their own or under one of _WRAPPER_KEYS. null and NaN are missing values. Raises PublishFailed.
    """
    try:
        content = json.loads(path.read_bytes())  # not msgspec, which rejects the NaN that MLflow writes
        if isinstance(content, dict):
            wrapped = [key for key in _WRAPPER_KEYS if isinstance(content.get(key), (dict, list))]
            if wrapped and set(content) <= {*_WRAPPER_KEYS, "params"}:
                content = content[wrapped[0]]
        frame = _frame(content)
    except (OSError, ValueError, TypeError, RecursionError) as problem:
        raise PublishFailed(
            f"{path} cannot be read as a table: {problem or type(problem).__name__}. Give the rows with --sample FILE"
        ) from problem
    if frame.empty:
        raise PublishFailed(f"{path} has no rows. Give some with --sample FILE")
    return frame


def _frame(content: Any) -> pd.DataFrame:
    if isinstance(content, dict):
        if isinstance(content.get("data"), list) and set(content) <= {"data", "columns", "index"}:
            return pd.DataFrame(content["data"], columns=content.get("columns"))
        if {"data", "indices", "indptr", "shape"} <= set(content):
            raise ValueError("sparse matrices are not supported")
        return pd.DataFrame(content if any(isinstance(v, list) for v in content.values()) else [content])
    if not isinstance(content, list):
        raise ValueError("it is neither a list of rows nor an object")
    return pd.DataFrame(content)


def integers_as_floats(frame: pd.DataFrame) -> pd.DataFrame:
    """Return the frame with integer columns as float64: without a signature, 5 in a JSON example may stand for 5.0."""
    integers = [at for at in frame.columns if pd.api.types.is_integer_dtype(frame[at].dtype)]
    return frame.astype(dict.fromkeys(integers, "float64"))


def apply_signature(frame: pd.DataFrame, specs: tuple[Spec, ...] | None, estimator: object) -> pd.DataFrame:
    """Return the sample with the names, order and dtypes of the signature.

    specs: from `parse`; with None the columns keep their dtypes. Raises PublishFailed that names the columns in which
    signature, estimator and sample disagree.
    """
    fitted_on = facts.feature_names(estimator, [spec.name for spec in specs or ()] or frame.columns) or []
    if specs is not None:
        _check_columns(specs, fitted_on, facts.n_features(estimator) or len(specs))
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
        columns[name] = _cast(frame[name], spec, _label(spec, at), none=any(value is None for value in groups))
    return pd.DataFrame(columns)


def _check_columns(specs: tuple[Spec, ...], fitted_on: Sequence[str], width: int) -> None:
    names = [spec.name for spec in specs if spec.name is not None]
    if names and fitted_on:
        differences = [
            f"{side} has {', '.join(only)}"
            for side, only in (
                ("only the signature", [name for name in names if name not in fitted_on]),
                ("only the estimator", [name for name in fitted_on if name not in names]),
            )
            if only
        ]
        if differences:
            raise PublishFailed(f"the signature and the estimator have different columns: {'; '.join(differences)}")
    if len(specs) != width:
        listed = f" ({', '.join(names)})" if names else ""
        raise PublishFailed(f"the signature has {len(specs)} columns{listed}, but the estimator takes {width}")


def _named(frame: pd.DataFrame, names: Sequence[str], width: int) -> pd.DataFrame:
    """Return the columns under `names`, in that order. A frame without column names is taken by position."""
    present = list(frame.columns)
    if len(set(present)) < len(present):
        raise PublishFailed("the sample has two columns with the same name")
    if not names or not all(isinstance(name, str) for name in present):
        if len(present) != width:
            raise PublishFailed(
                f"the sample has {len(present)} columns, but the model takes {width}. If one is the target, name it "
                "with --target"
            )
        return frame.set_axis(pd.Index(names), axis=1) if names else frame
    missing = [name for name in names if name not in present]
    extra = [name for name in present if name not in names]
    if missing:
        raise PublishFailed(f"the sample lacks columns that the model takes: {', '.join(missing)}")
    if extra:
        hint = f". If that is the target, add --target {extra[0]}" if len(extra) == 1 else ". Drop them"
        raise PublishFailed(f"the sample has columns that the model does not take: {', '.join(extra)}{hint}")
    return frame[list(names)]


def _label(spec: Spec, at: int) -> str:
    return repr(spec.name) if spec.name is not None else f"number {at + 1}"


def _cast(series: Series, spec: Spec, label: str, *, none: bool) -> Series:
    """Return the column with a dtype of its signature's type.

    none: use None for a missing value in an object column, because an encoder was fitted on None; else NaN.
    Raises PublishFailed when the cells have another type than the signature.
    """
    if str(series.dtype) in _DTYPES[spec.type]:
        return series
    if spec.type == "string":
        return _to_text(series, label, none)
    if spec.type == "datetime":
        return _to_dates(series, label)
    if spec.type == "boolean":
        return _to_booleans(series, label, none)
    return _to_numbers(series, spec.type, label)


def _type_mismatch(series: Series, label: str, wanted: str) -> PublishFailed:
    return PublishFailed(f"column {label} is {wanted} in the signature, but {series.dtype} in the sample")


def _to_text(series: Series, label: str, none: bool) -> Series:
    present = series.dropna()
    if not all(isinstance(value, str) for value in present):
        raise _type_mismatch(series, label, "text")
    if isinstance(series.dtype, pd.CategoricalDtype):
        return series
    if none:
        return _with_missing_as(None, series)
    return series.astype(pd.StringDtype(na_value=np.nan))


def _to_dates(series: Series, label: str) -> Series:
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        return series
    if not all(isinstance(value, str) for value in series.dropna()):
        raise _type_mismatch(series, label, "a date")
    cells = [None if is_missing else value for value, is_missing in zip(series, series.isna(), strict=True)]
    try:
        return column_types.of_text(cells, "datetime64[ns]", label).set_axis(series.index)
    except PublishFailed as problem:
        raise _type_mismatch(series, label, "a date") from problem


def _to_booleans(series: Series, label: str, none: bool) -> Series:
    present = series.dropna()
    if len(present) == 0:
        raise PublishFailed(
            f"column {label} is boolean in the signature, but the sample has only missing values there. Give rows with "
            "values with --sample FILE"
        )
    if not all(isinstance(value, (bool, np.bool_)) for value in present):
        raise _type_mismatch(series, label, "boolean")
    return _with_missing_as(None if none else np.nan, series)


def _with_missing_as(mark: float | None, series: Series) -> Series:
    values = np.empty(len(series), dtype=object)
    values[:] = [mark if is_missing else value for value, is_missing in zip(series, series.isna(), strict=True)]
    return pd.Series(values, index=series.index, name=series.name, dtype=object)


def _to_numbers(series: Series, kind: str, label: str) -> Series:
    """Return numbers of the type's width. Integers with missing values become float64, as pandas reads them."""
    wanted, present = _DTYPES[kind][0], series.dropna()
    is_number = pd.api.types.is_numeric_dtype(series.dtype) and not pd.api.types.is_bool_dtype(series.dtype)
    if len(present) and not is_number:
        raise _type_mismatch(series, label, _TYPES_IN_WORDS[kind])
    if kind in ("long", "integer"):
        limits = np.iinfo(wanted)
        if not all(float(value).is_integer() and limits.min <= value <= limits.max for value in present):
            raise PublishFailed(
                f"column {label} is {kind} in the signature, but the sample has fractions or larger numbers there"
            )
        if len(present) < len(series):
            wanted = "float64"
    return series.astype(np.dtype(wanted))
