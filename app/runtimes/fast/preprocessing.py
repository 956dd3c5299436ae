"""The first steps of a pipeline as functions of a table: column selection, imputers, scalers and encoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)  # fmt: skip

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.runtimes.fast.columns import Gather, Source, is_nan, numeric_columns, plain_output
from tableside.runtimes.fast.encoders import ENCODERS, encoded_categories
from tableside.runtimes.fast.numerics import Step, Unsupported, is_exactly, require


def step_of(transformer: Any) -> Step:
    """The transform of one fitted scaler or imputer as a function. Raises Unsupported for other transformers."""
    for kind, make in _STEPS.items():
        if is_exactly(transformer, kind):
            plain_output(transformer)
            return make(transformer)
    raise Unsupported(f"no fast backend for {type(transformer).__name__}")


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
    require(is_nan(imputer.missing_values), "missing_values other than NaN")
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


def source_of(schema: Input, transformer: Any, order: str) -> Source:
    """The output of a fitted ColumnTransformer for a table. Raises Unsupported."""
    require(is_exactly(transformer, ColumnTransformer), f"no fast backend for {type(transformer).__name__}")
    require(schema.form == "frame", "a ColumnTransformer over an array")
    plain_output(transformer)
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
    if any(is_exactly(step, *ENCODERS) for step in steps):
        gather, width, _ = encoded_categories(schema, chosen, steps)
        return gather, [], width
    return numeric_columns(schema, chosen), [step_of(step) for step in steps], len(chosen)
