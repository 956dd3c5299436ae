"""Gathers the columns of a decoded table into the matrix that a fast backend computes on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.runtimes.fast.numerics import EstimatorRequired, require

Gather = Callable[[Table], Array]
"""Converts a table to a matrix of shape [rows, columns]."""
Codes = Mapping[Any, float]
"""Category to its number in one column. NAN is the key of NaN."""

NUMBERS = ("float64", "int64", "int32", "int16", "int8", "bool")
"""Column dtypes that a float64 matrix holds as scikit-learn would convert them."""
SINGLE_OR_NUMBERS = (*NUMBERS, "float32", "uint8", "uint16", "uint32")
"""The same for the libraries of boosters, which compute in single precision or compare in double precision."""
NAN = object()
"""The key of NaN among the categories of a column; NaN itself is not equal to itself."""


@dataclass(frozen=True)
class Source:
    """The first stage of a backend.

    sparse: whether scikit-learn would pass a sparse matrix on; a product of it adds in another order.
    """

    gather: Gather
    sparse: bool = False


def numeric_columns(
    schema: Input, names: Sequence[str], order: str = "C", dtypes: Sequence[str] = NUMBERS
) -> Gather:  # fmt: skip
    """A function that gathers columns of numbers into one matrix.

    order: "C", or "F" as in a DataFrame of separate columns. Raises Unsupported for a column whose dtype is not in
    `dtypes`.
    """
    known = {column.name: column for column in schema.columns}
    for name in names:
        require(known[name].dtype in dtypes, f"a column of dtype {known[name].dtype} among the numbers")
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


def cells_of(table: Table, name: str) -> list[Any]:
    """The cells of one column as Python objects; NaN becomes NAN, which a dict finds."""
    if table.arrays is not None:
        array = table.arrays[name]
    else:
        assert table.matrix is not None
        array = table.matrix[:, [column.name for column in table.schema.columns].index(name)]
    return [cell if cell == cell else NAN for cell in array.tolist()]


def coded_columns(schema: Input, codes: Mapping[str, Codes], refuses: bool) -> Gather:
    """A function that gathers all columns into one C-ordered matrix, those of `codes` as the numbers of their cells.

    A missing cell becomes NaN. So does a category that is not among the codes, unless `refuses`: then EstimatorRequired
    is raised for it. Raises Unsupported for another column that is not numeric.
    """
    names = [column.name for column in schema.columns]
    places = [at for at, name in enumerate(names) if name not in codes]
    numbers = numeric_columns(schema, [names[at] for at in places], dtypes=SINGLE_OR_NUMBERS)
    if not codes:
        return numbers
    coded = [(at, name, codes[name]) for at, name in enumerate(names) if name in codes]

    def gather(table: Table) -> Array:
        found = np.empty((table.rows, len(names)))
        found[:, places] = numbers(table)
        for at, name, known in coded:
            cells = cells_of(table, name)
            if refuses and any(cell not in known and cell is not NAN and cell is not None for cell in cells):
                raise EstimatorRequired
            found[:, at] = [known.get(cell, np.nan) for cell in cells]
        return found

    return gather


def is_nan(value: Any) -> bool:
    """Whether a fitted attribute is NaN."""
    return isinstance(value, float) and value != value


def plain_output(transformer: Any) -> None:
    """Raise Unsupported for a transformer whose output is neither an array nor a pandas table."""
    config = getattr(transformer, "_sklearn_output_config", {})
    require(config.get("transform", "default") in ("default", "pandas"), "set_output")
