"""The categorical features of scikit-learn's histogram boosting, which it encodes by itself before its trees.

Its encoder puts the categorical columns first and numbers their categories; a missing or unknown one is NaN.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.runtimes.fast.columns import NUMBERS, Source, numeric_columns
from tableside.runtimes.fast.encoders import encoded_categories
from tableside.runtimes.fast.numerics import EstimatorRequired, Step, is_exactly, require
from tableside.runtimes.fast.trees import HISTOGRAM


def has_categories(estimator: Any) -> bool:
    """Whether the estimator is histogram boosting that was fitted with `categorical_features`."""
    return is_exactly(estimator, *HISTOGRAM) and estimator.is_categorical_ is not None


def has_text(schema: Input) -> bool:
    """Whether a column is not a number, so that its cells have to be encoded one by one."""
    return any(column.dtype not in NUMBERS for column in schema.columns)


def source_of(schema: Input, estimator: Any) -> Source:
    """The encoded matrix of a table whose columns are the estimator's own. Raises Unsupported."""
    names, chosen = [column.name for column in schema.columns], np.asarray(estimator.is_categorical_)
    require(len(names) == len(chosen), "columns that the estimator was not fitted on")
    coded, _, _ = encoded_categories(schema, [names[at] for at in np.flatnonzero(chosen)], [_encoder_of(estimator)])
    numbers = numeric_columns(schema, [names[at] for at in np.flatnonzero(~chosen)])

    def gather(table: Table) -> Array:
        return np.concatenate([coded(table), numbers(table)], axis=1)

    return Source(gather)


def step_of(estimator: Any) -> Step:
    """The same encoding of a matrix of numbers. Raises Unsupported where a category is not a number."""
    chosen = np.asarray(estimator.is_categorical_)
    places, others = np.flatnonzero(chosen), np.flatnonzero(~chosen)
    known = [np.asarray(each) for each in _encoder_of(estimator).categories_]
    require(all(each.dtype.kind in "fiub" for each in known), "categories that are not numbers")
    numbers = [each.astype(np.float64) for each in known]
    sorted_numbers = [each[~np.isnan(each)] for each in numbers]
    require(all(map(len, sorted_numbers)), "a column without categories")

    def step(matrix: Array) -> Array:
        found = np.empty(matrix.shape)
        for at, (place, categories) in enumerate(zip(places, sorted_numbers, strict=True)):
            cells = matrix[:, place]
            if np.isinf(cells).any():
                raise EstimatorRequired
            nearest = np.minimum(np.searchsorted(categories, cells), len(categories) - 1)
            found[:, at] = np.where(categories[nearest] == cells, nearest, np.nan)
        found[:, len(places) :] = matrix[:, others]
        return found

    return step


def _encoder_of(estimator: Any) -> Any:
    return estimator._preprocessor.named_transformers_["encoder"]
