"""Reads cells of the id column (tableside.contracts.id_column). They come back as they were sent, text or numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import NoneType
from typing import cast

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.id_column import InputWithId, RowIds
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.decoding.cells import INT64_MAX, INT64_MIN, MAX_EXACT_INTEGER, WORDS, PathOf
from tableside.decoding.numpy_columns import as_cells
from tableside.decoding.rules import Cells, Problems, Rules, malformed

MAX_CHARS = 256
"""The longest id. Each comes back, and one text of a Parquet file may be that of a million rows."""
DATATYPES = frozenset(
    ("BYTES", "INT8", "INT16", "INT32", "INT64", "UINT8", "UINT16", "UINT32", "UINT64", "FP16", "FP32", "FP64")
)
"""The datatypes of V2 tensors that may hold ids."""
_TOO_LONG = f"an id has at most {MAX_CHARS} characters"
_TOO_LARGE = "an id that is a number must be an integer of 64 bits with a sign; send it as text"
_INEXACT = "integers beyond 2^53 are not exact beside ids that are missing or have a fraction; send them as text"
_NUMBERS = frozenset((int, float))


def is_id(schema: Input, name: str) -> bool:
    """Whether a column of that name is the id column."""
    return isinstance(schema, InputWithId) and name == schema.id


def read(values: Cells, problems: Problems, path_of: PathOf) -> Array:
    """Return ids as an array of shape [rows]: of text and None, of int64, or of floats where NaN is a missing id.

    values: JSON values, or an array. Errors are added to `problems` under `path_of(row)`. If there are any, the array
    must not be used.
    """
    if isinstance(values, np.ndarray):
        if values.dtype.kind == "f":
            return values.astype(np.float64) if values.dtype.itemsize == 2 else values
        if values.dtype.kind == "i":
            return values.astype(np.int64)
        values = as_cells(values)
    kinds = set(map(type, values)) - {NoneType}
    if kinds <= {str}:
        return _texts(cast("Sequence[str | None]", values), problems, path_of)
    if kinds <= _NUMBERS:
        return _numbers(cast("Sequence[float | None]", values), kinds, problems, path_of)
    wanted = {str} if str in kinds and not kinds & _NUMBERS else _NUMBERS if str not in kinds else set()
    for row, value in enumerate(values):
        if value is not None and type(value) not in wanted:
            problems.add(partial(path_of, row), _not_alike(value), value)
    return np.empty(0)


def _not_alike(value: object) -> str:
    if type(value) in (str, int, float):
        return f"got {WORDS[type(value)]}; send all ids of a request as text, or all as numbers"
    return f"expected an id, as text or a number, got {WORDS.get(type(value), 'something else')}"


def _texts(values: Sequence[str | None], problems: Problems, path_of: PathOf) -> Array:
    for row, value in enumerate(values):
        if value is not None and len(value) > MAX_CHARS:
            problems.add(partial(path_of, row), _TOO_LONG)
    return np.array(values, dtype=object)


def _numbers(values: Sequence[float | None], kinds: set[type], problems: Problems, path_of: PathOf) -> Array:
    is_whole = kinds == {int} and None not in values
    low, high = (INT64_MIN, INT64_MAX) if is_whole else (-MAX_EXACT_INTEGER, MAX_EXACT_INTEGER)
    for row, value in enumerate(values):
        if isinstance(value, int) and not low <= value <= high:
            is_large = not INT64_MIN <= value <= INT64_MAX
            problems.add(partial(path_of, row), _TOO_LARGE if is_large else _INEXACT, value)
    if problems:
        return np.empty(0)
    return np.array(values, dtype=np.int64 if is_whole else np.float64)


def attach(table: Table, schema: Input, values: Cells, rules: Rules, place: str) -> Table:
    """Return the table with ids that stand beside it, as those of a V2 matrix do.

    place: where they are in the request. Raises RequestRejected if they are no ids, or not as many as there are rows.
    """
    assert isinstance(schema, InputWithId)
    if len(values) != table.rows:
        raise malformed(place, f"expected {table.rows} ids as there are rows, got {len(values)}")
    problems = Problems(rules)
    cells = read(values, problems, lambda row: f"{place}[{row}]")
    if problems:
        raise problems.refusal()
    table.ids = RowIds(schema.id, cells)
    return table
