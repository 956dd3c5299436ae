"""Encoders of categories as functions of a table: their categories are looked up in dicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.runtimes.fast.columns import NAN, Gather, cells_of, is_nan, plain_output
from tableside.runtimes.fast.numerics import EstimatorRequired, is_exactly, require

ENCODERS = (OneHotEncoder, OrdinalEncoder)


def encoded_categories(schema: Input, names: Sequence[str], steps: Sequence[Any]) -> tuple[Gather, int, bool]:
    """Columns of categories, through an optional imputer and an encoder.

    Returns the function that gathers them, the width of its matrix, and whether scikit-learn's would be sparse. Raises
    Unsupported.
    """
    *before, encoder = steps
    require(is_exactly(encoder, *ENCODERS), f"no fast backend for {type(encoder).__name__}")
    for step in (*before, encoder):
        plain_output(step)
    fills: list[Any] = [None] * len(names)
    if before:
        require(len(before) == 1 and is_exactly(before[0], SimpleImputer), "steps before an encoder")
        require(not before[0].add_indicator and is_nan(before[0].missing_values), "an imputer with an indicator")
        fills = list(before[0].statistics_)
        require(not any(fill is None or is_nan(fill) for fill in fills), "an imputer without a value")
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
        found[NAN] = found[fill]
    return found


def _key(cell: Any) -> Any:
    return cell if cell == cell else NAN


def _places(table: Table, name: str, codes: dict[Any, int]) -> list[int]:
    """The place of each cell among the categories, -1 if it is none. The encoder itself refuses infinities."""
    cells = cells_of(table, name)
    found = [codes.get(cell, -1) for cell in cells]
    if -1 in found and any(isinstance(cell, float) and math.isinf(cell) for cell in cells):
        raise EstimatorRequired
    return found


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
    known = [missing if is_nan(each) else float(at) for at, each in enumerate(categories)]
    return np.array([*known, unknown])
