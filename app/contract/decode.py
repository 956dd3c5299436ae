"""Every spelling of a table to one `Table`. Names decide where names are given; order never does then."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from app.contract.cells import NONE, Array, Problems, to_array
from app.contract.schema import Column, Input
from app.contract.table import Table
from app.errors import RequestRejected

DEFAULT_LIMIT = 20


def _refuse(problems: Problems, detail: str = "the input does not fit the model's contract") -> RequestRejected:
    more = f"; {problems.extra} more not shown" if problems.extra else ""
    return RequestRejected(detail + more, tuple(problems.found))


def from_rows(rows: Sequence[Any], schema: Input, limit: int = DEFAULT_LIMIT, label: str = "rows") -> Table:
    """Rows as lists (by position) or as objects (by name). Raises RequestRejected with every bad cell up to `limit`."""
    kinds = set(map(type, rows))
    if kinds == {dict}:
        return _from_named_rows(rows, schema, limit, label)
    if kinds <= {list, tuple}:
        return _from_lists(rows, schema, limit, label)
    if len(schema.columns) == 1 and not kinds & {dict, list, tuple}:
        return from_columns({schema.columns[0].name: rows}, schema, limit, lambda _, row: f"{label}[{row}]")
    problems = Problems(limit)
    for at, row in enumerate(rows):
        if not isinstance(row, (list, dict)) or kinds >= {dict, list}:
            problems.add(f"{label}[{at}]", "expected all rows as arrays, or all rows as objects")
    raise _refuse(problems)


def _from_lists(rows: Sequence[Sequence[Any]], schema: Input, limit: int, label: str) -> Table:
    width = len(schema.columns)
    problems = Problems(limit)
    if rows and set(map(len, rows)) != {width}:
        for at, row in enumerate(rows):
            if len(row) != width:
                problems.add(f"{label}[{at}]", f"expected {width} values ({_names(schema)}), got {len(row)}")
        raise _refuse(problems)
    flat = list(chain.from_iterable(rows))
    matrix = _number_matrix(flat, len(rows), schema)
    if matrix is not None:
        return Table(schema, len(rows), None, matrix)
    columns = {column.name: flat[at::width] for at, column in enumerate(schema.columns)}
    positions = {column.name: at for at, column in enumerate(schema.columns)}

    def path(name: str, row: int) -> str:
        return f"{label}[{row}][{positions[name]}] ({name})"

    return from_columns(columns, schema, limit, path)


def _number_matrix(flat: list[Any], rows: int, schema: Input) -> Array | None:
    """The whole table at once, when every column is FP64: the common case, decided in C."""
    if not schema.columns or any(column.dtype != "float64" for column in schema.columns):
        return None
    kinds = set(map(type, flat))
    if kinds <= {float, int} or (kinds <= {float, int, NONE} and all(column.nullable for column in schema.columns)):
        try:
            return np.array(flat, dtype=np.float64).reshape(rows, len(schema.columns))
        except OverflowError:  # an integer past the largest double; the slow path names it
            return None
    return None


def _from_named_rows(rows: Sequence[Mapping[str, Any]], schema: Input, limit: int, label: str) -> Table:
    names = {column.name for column in schema.columns}
    nullable = {column.name for column in schema.columns if column.nullable}
    problems = Problems(limit)
    for at, row in enumerate(rows):
        if row.keys() == names:
            continue
        for name in sorted(names - row.keys() - nullable):
            problems.add(f"{label}[{at}].{name}", "missing; the column takes no missing cells")
        for name in sorted(row.keys() - names):
            problems.add(f"{label}[{at}].{name}", f"no such column; expected {_names(schema)}")
    if problems:
        raise _refuse(problems)
    columns = {name: [row.get(name) for row in rows] for name in names}
    return from_columns(columns, schema, limit, lambda name, row: f"{label}[{row}].{name}")


def from_columns(
    columns: Mapping[str, Sequence[Any]], schema: Input, limit: int = DEFAULT_LIMIT, path_of: Any = None
) -> Table:
    """Columns by name. `path_of(name, row)` writes a cell's place as the client spelled it."""
    path_of = path_of or (lambda name, row: f"inputs.{name}[{row}]")
    problems = Problems(limit)
    known = {column.name for column in schema.columns}
    lengths = {len(values) for values in columns.values()}
    rows = max(lengths, default=0)
    for name in sorted(columns.keys() - known):
        problems.add(f"inputs.{name}", f"no such column; expected {_names(schema)}")
    for name, values in columns.items():
        if len(values) != rows:
            problems.add(f"inputs.{name}", f"expected {rows} values as in the longest column, got {len(values)}")
    if problems:
        raise _refuse(problems)
    arrays = {c.name: _one_column(columns, c, rows, problems, path_of) for c in schema.columns}
    if problems:
        raise _refuse(problems)
    return Table(schema, rows, arrays)


def _one_column(
    columns: Mapping[str, Sequence[Any]], column: Column, rows: int, problems: Problems, path_of: Any
) -> Array:
    values = columns.get(column.name)
    if values is None:
        if not column.nullable:
            problems.add(f"inputs.{column.name}", "missing; the column takes no missing cells")
            return np.empty(0)
        values = [None] * rows
    return to_array(values, column, problems, lambda row: path_of(column.name, row))


def _names(schema: Input) -> str:
    shown = ", ".join(column.name for column in schema.columns[:12])
    return shown + (f", ... {len(schema.columns)} in all" if len(schema.columns) > 12 else "")


def require_rows(table: Table) -> Table:
    """Refuse an empty table: scikit-learn has no answer for zero rows. Raises RequestRejected."""
    if table.rows == 0:
        raise RequestRejected("the request has no rows; at least one is needed")
    return table
