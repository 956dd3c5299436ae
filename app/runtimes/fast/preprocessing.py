"""Converts a decoded table to the predictor's matrix: column selection, imputers, scalers and encoders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)  # fmt: skip

from tableside.contract.array_type import Array
from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.runtimes.fast.numerics import EstimatorRequired, Step, Unsupported, is_exactly, require

Gather = Callable[[Table], Array]
"""Converts a table to a float64 matrix of shape [rows, columns]."""

_NUMBERS = ("float64", "int64", "int32", "int16", "int8", "bool")
_NAN = object()
"""The key of NaN among the categories of a column; NaN itself is not equal to itself."""


@dataclass(frozen=True)
class Source:
    """The first stage of a backend.

    sparse: whether scikit-learn would pass a sparse matrix on; a product of it adds in another order.
    """

    gather: Gather
    sparse: bool = False


def numeric_columns(schema: Input, names: Sequence[str], order: str = "C") -> Gather:
    """A function that gathers columns of numbers into one matrix.

    order: "C", or "F" as in a DataFrame of separate columns. Raises Unsupported for a column that is not numeric.
    """
    known = {column.name: column for column in schema.columns}
    for name in names:
        require(known[name].dtype in _NUMBERS, f"a column of dtype {known[name].dtype} among the numbers")
    every = [column.name for column in schema.columns]
    whole, place_of = list(names) == every, {name: at for at, name in enumerate(every)}
    places = [place_of[name] for name in names]

    def gather(table: Table) -> Array:
        if table.arrays is None:
            assert table.matrix is not None
            matrix = table.matrix if whole else table.matrix[:, places]
        else:
            matrix = np.empty((table.rows, len(names)))
            for at, name in enumerate(names):
                matrix[:, at] = table.arrays[name]
        ordered: Array = np.asfortranarray(matrix) if order == "F" else np.ascontiguousarray(matrix)
        return ordered

    return gather


def step_of(transformer: Any) -> Step:
    """The transform of one fitted scaler or imputer as a function. Raises Unsupported for other transformers."""
    for kind, make in _STEPS.items():
        if is_exactly(transformer, kind):
            _plain_output(transformer)
            return make(transformer)
    raise Unsupported(f"no fast backend for {type(transformer).__name__}")


def _plain_output(transformer: Any) -> None:
    config = getattr(transformer, "_sklearn_output_config", {})
    require(config.get("transform", "default") == "default", "set_output")


def _standard(scaler: Any) -> Step:
    return _centred(scaler.mean_ if scaler.with_mean else None, scaler.scale_ if scaler.with_std else None)


def _centred(center: Any, scale: Any) -> Step:
    """Subtract `center` and divide by `scale`; None leaves that out.

    Both are stored with shape [1, columns], because numpy computes twice as fast on two arrays of the same dimension.
    """
    center, scale = (None if each is None else np.reshape(each, (1, -1)) for each in (center, scale))
    if center is None:
        return _unchanged if scale is None else (lambda matrix: matrix / scale)
    if scale is None:
        return lambda matrix: matrix - center

    def step(matrix: Array) -> Array:
        found: Array = matrix - center
        found /= scale
        return found

    return step


def _unchanged(matrix: Array) -> Array:
    return matrix


def _min_max(scaler: Any) -> Step:
    low, high = scaler.feature_range

    def step(matrix: Array) -> Array:
        found = matrix * scaler.scale_
        found += scaler.min_
        clipped: Array = np.clip(found, low, high) if scaler.clip else found
        return clipped

    return step


def _max_abs(scaler: Any) -> Step:
    require(not getattr(scaler, "clip", False), "a scaler that clips")
    return lambda matrix: matrix / scaler.scale_


def _robust(scaler: Any) -> Step:
    return _centred(scaler.center_ if scaler.with_centering else None, scaler.scale_ if scaler.with_scaling else None)


def _impute(imputer: Any) -> Step:
    require(not imputer.add_indicator, "an imputer with an indicator")
    require(_is_nan(imputer.missing_values), "missing_values other than NaN")
    values = np.asarray(imputer.statistics_)
    require(values.dtype.kind == "f" and not np.isnan(values).any(), "an imputer without a value for a column")

    def step(matrix: Array) -> Array:
        missing_cells = np.isnan(matrix)
        return np.where(missing_cells, values, matrix) if missing_cells.any() else matrix

    return step


_STEPS: dict[type, Callable[[Any], Step]] = {
    StandardScaler: _standard, MinMaxScaler: _min_max, MaxAbsScaler: _max_abs, RobustScaler: _robust,
    SimpleImputer: _impute,
}  # fmt: skip


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and value != value


def encoded_categories(schema: Input, names: Sequence[str], steps: Sequence[Any]) -> tuple[Gather, int, bool]:
    """Columns of categories, through an optional imputer and an encoder.

    Returns the function that gathers them, the width of its matrix, and whether scikit-learn's would be sparse. Raises
    Unsupported.
    """
    *before, encoder = steps
    require(is_exactly(encoder, OneHotEncoder, OrdinalEncoder), f"no fast backend for {type(encoder).__name__}")
    for step in (*before, encoder):
        _plain_output(step)
    fills: list[Any] = [None] * len(names)
    if before:
        require(len(before) == 1 and is_exactly(before[0], SimpleImputer), "steps before an encoder")
        require(not before[0].add_indicator and _is_nan(before[0].missing_values), "an imputer with an indicator")
        fills = list(before[0].statistics_)
        require(not any(fill is None or _is_nan(fill) for fill in fills), "an imputer without a value")
    codes = [_codes(encoder, at, fill) for at, fill in enumerate(fills)]
    if is_exactly(encoder, OrdinalEncoder):
        return _ordinal(encoder, names, codes), len(names), False
    return _one_hot(encoder, names, codes), sum(map(len, encoder.categories_)), bool(encoder.sparse_output)


def _codes(encoder: Any, at: int, fill: Any) -> dict[Any, int]:
    """Category to position for one column. None and NaN are different keys, as they are different categories."""
    categories = encoder.categories_[at].tolist()
    found: dict[Any, int] = {_key(category): position for position, category in enumerate(categories)}
    require(len(found) == len(categories), "a category that occurs twice")
    if fill is not None:
        require(fill in found, "an imputed value that is not a category")
        found[_NAN] = found[fill]
    return found


def _key(cell: Any) -> Any:
    return cell if cell == cell else _NAN


def _places(table: Table, name: str, codes: dict[Any, int]) -> list[int]:
    assert table.arrays is not None
    cells = table.arrays[name].tolist()
    return [codes.get(cell if cell == cell else _NAN, -1) for cell in cells]


def _one_hot(encoder: Any, names: Sequence[str], codes: Sequence[dict[Any, int]]) -> Gather:
    require(encoder.drop is None and encoder._drop_idx_after_grouping is None, "a dropped category")
    require(not getattr(encoder, "_infrequent_enabled", False), "infrequent categories")
    require(encoder.handle_unknown in ("error", "ignore", "infrequent_if_exist"), "a warning for unknown categories")
    refuses = encoder.handle_unknown == "error"
    widths = [len(categories) for categories in encoder.categories_]
    starts = np.cumsum([0, *widths])

    def gather(table: Table) -> Array:
        found = np.zeros((table.rows, starts[-1]))
        for at, name in enumerate(names):
            for row, place in enumerate(_places(table, name, codes[at])):
                if place >= 0:
                    found[row, starts[at] + place] = 1.0
                elif refuses:
                    raise EstimatorRequired
        return found

    return gather


def _ordinal(encoder: Any, names: Sequence[str], codes: Sequence[dict[Any, int]]) -> Gather:
    """Ordinals. A missing cell and an unknown category each have a number of their own, which may be NaN."""
    require(not getattr(encoder, "_infrequent_enabled", False), "infrequent categories")
    require(encoder.dtype is np.float64, "ordinals of another dtype")
    refuses = encoder.handle_unknown == "error"
    unknown = np.nan if refuses else float(encoder.unknown_value)
    numbers = [
        _numbers_of(each.tolist(), float(encoder.encoded_missing_value), unknown) for each in encoder.categories_
    ]

    def gather(table: Table) -> Array:
        found = np.empty((table.rows, len(names)))
        for at, name in enumerate(names):
            places = _places(table, name, codes[at])
            if refuses and -1 in places:
                raise EstimatorRequired
            found[:, at] = numbers[at][places]
        return found

    return gather


def _numbers_of(categories: list[Any], missing: float, unknown: float) -> Array:
    """The number of each place; the last one is that of unknown categories, whose place is -1.

    NaN alone is a missing value for the encoder: None is a category like others.
    """
    known = [missing if _is_nan(each) else float(at) for at, each in enumerate(categories)]
    return np.array([*known, unknown])


def source_of(schema: Input, transformer: Any, order: str) -> Source:
    """The output of a fitted ColumnTransformer for a table. Raises Unsupported."""
    require(is_exactly(transformer, ColumnTransformer), f"no fast backend for {type(transformer).__name__}")
    require(schema.form == "frame", "a ColumnTransformer over an array")
    _plain_output(transformer)
    require(not transformer.transformer_weights, "weights of transformers")
    names = [str(name) for name in transformer.feature_names_in_]
    blocks: list[tuple[Gather, list[Step], int]] = []
    for name, part, _ in transformer.transformers_:
        chosen = [names[at] for at in transformer._transformer_to_input_indices[name]]
        if isinstance(part, str) and part == "drop" or not chosen:
            continue
        blocks.append(_block(schema, part, chosen))
    width = sum(width for _, _, width in blocks)

    def gather(table: Table) -> Array:
        at = 0
        found: Array = np.empty((table.rows, width), order=order)  # type: ignore[call-overload]
        for collect, steps, wide in blocks:
            block = collect(table)
            for step in steps:
                block = step(block)
            found[:, at : at + wide] = block
            at += wide
        return found

    return Source(gather, bool(transformer.sparse_output_))


def is_passthrough(step: Any) -> bool:
    """Whether a step returns its input unchanged.

    A fitted ColumnTransformer holds a FunctionTransformer without a function for "passthrough".
    """
    if is_exactly(step, FunctionTransformer):
        return bool(step.func is None)
    return step is None or (isinstance(step, str) and step == "passthrough")


def _block(schema: Input, part: Any, chosen: list[str]) -> tuple[Gather, list[Step], int]:
    steps = [step for _, step in part.steps] if is_exactly(part, Pipeline) else [part]
    steps = [step for step in steps if not is_passthrough(step)]
    if any(is_exactly(step, OneHotEncoder, OrdinalEncoder) for step in steps):
        gather, width, _ = encoded_categories(schema, chosen, steps)
        return gather, [], width
    return numeric_columns(schema, chosen), [step_of(step) for step in steps], len(chosen)
