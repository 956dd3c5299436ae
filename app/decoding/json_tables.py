"""Every spelling of a table to one `Table`. Names decide where names are given; order never does then."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Column, Input
from tableside.contract.table import Table
from tableside.decoding import numpy_columns
from tableside.decoding.cells import NONE, to_array
from tableside.decoding.rules import STRICT, Problems, Rules
from tableside.errors import RequestRejected

Cells = Sequence[Any] | Array
CellPath = Callable[[str, int], str]


def from_rows(rows: Sequence[Any], schema: Input, rules: Rules = STRICT, label: str = "rows") -> Table:
    """Rows as lists (by position) or as objects (by name); a bare value is a row of a one-column table.

    Raises RequestRejected with every bad cell, up to `rules.most_errors`.
    """
    kinds = set(map(type, rows))
    if kinds == {dict}:
        return _from_named_rows(rows, schema, rules, label)
    if kinds <= {list, tuple}:
        return _from_lists(rows, schema, rules, label)
    if len(schema.columns) == 1 and not kinds & {dict, list, tuple}:
        return from_columns({schema.columns[0].name: rows}, schema, rules, lambda _, row: f"{label}[{row}]")
    problems = Problems(rules)
    for at, row in enumerate(rows):
        if not isinstance(row, (list, dict)) or kinds >= {dict, list}:
            problems.add(f"{label}[{at}]", "expected all rows as arrays, or all rows as objects")
    raise problems.refusal()


def _from_lists(rows: Sequence[Sequence[Any]], schema: Input, rules: Rules, label: str) -> Table:
    width = len(schema.columns)
    is_even = not rows or set(map(len, rows)) == {width}
    flat = list(chain.from_iterable(rows))
    matrix = _number_matrix(flat, len(rows), schema) if is_even else None
    if matrix is not None:
        return Table(schema, len(rows), None, matrix)
    columns = list(enumerate(schema.columns))
    positions = {column.name: at for at, column in columns}

    def path(name: str, row: int) -> str:
        return f"{label}[{row}][{positions[name]}] ({name})"

    if not is_even:
        problems = Problems(rules)
        for at, row in enumerate(rows):
            if len(row) != width:
                problems.add(f"{label}[{at}]", f"expected {width} values ({names(schema)}), got {len(row)}")
        whole = {c.name: [(at, row[i]) for at, row in enumerate(rows) if len(row) == width] for i, c in columns}
        name_cells(whole, schema, problems, path)
        raise problems.refusal()
    return from_columns({column.name: flat[at::width] for at, column in columns}, schema, rules, path)


def _number_matrix(flat: list[Any], rows: int, schema: Input) -> Array | None:
    """The whole table at once, when every column is FP64: the common case, decided in C."""
    if not schema.is_double:
        return None
    kinds = set(map(type, flat))
    if kinds <= {float, int} or (kinds <= {float, int, NONE} and schema.takes_missing):
        try:
            return np.array(flat, dtype=np.float64).reshape(rows, len(schema.columns))
        except OverflowError:  # an integer past the largest double: the column path names its cell
            return None
    return None


def from_numbers(rows: Sequence[Sequence[float | None]], schema: Input) -> Table | None:
    """Rows of a table of doubles, of which is known that every cell is a number, or None where the table takes missing
    values.

    None when there is no row, or one of another width: `from_rows` says which.
    """
    try:
        matrix = np.array(rows, dtype=np.float64)
    except ValueError:  # rows of unequal length
        return None
    return Table(schema, len(rows), None, matrix) if matrix.shape[1:] == (len(schema.columns),) else None


def from_matrix(matrix: Array, schema: Input, rules: Rules = STRICT, label: str = "rows") -> Table:
    """One numeric array of shape [rows, columns], in the contract's order, NaN where a cell is missing."""
    if matrix.shape[1] != len(schema.columns):
        detail = f"expected {len(schema.columns)} columns ({names(schema)}), got {matrix.shape[1]}"
        raise RequestRejected(detail)
    if matrix.dtype == np.float64 and schema.is_double:
        if schema.takes_missing or not _has_missing(matrix):
            return Table(schema, len(matrix), None, matrix)
        missing_cells: Any = np.isnan(matrix).any(axis=0)
        if all(
            column.nullable or not is_missing
            for column, is_missing in zip(schema.columns, missing_cells.tolist(), strict=True)
        ):
            return Table(schema, len(matrix), None, matrix)
    columns = {column.name: matrix[:, at] for at, column in enumerate(schema.columns)}
    positions = {column.name: at for at, column in enumerate(schema.columns)}
    return from_columns(columns, schema, rules, lambda name, row: f"{label}[{row}][{positions[name]}] ({name})")


def _has_missing(matrix: Array) -> bool:
    """Whether a cell is NaN: only then is the sum of all squares. Unlike `sum` and `dot`, `vdot` warns of nothing."""
    flat = matrix.ravel("K")
    return math.isnan(np.vdot(flat, flat))


def _from_named_rows(rows: Sequence[Mapping[str, Any]], schema: Input, rules: Rules, label: str) -> Table:
    """A key a row does not have is a missing cell of that row."""
    known, needed = schema.names, schema.needed
    problems = Problems(rules)
    for at, row in enumerate(rows):
        if row.keys() == known:
            continue
        for name in sorted(needed - row.keys()):
            problems.add(f"{label}[{at}].{name}", "missing; the column takes no missing cells")
        for name in sorted(row.keys() - known) if rules.extra == "refuse" else ():
            problems.add(f"{label}[{at}].{name}", f"no such column; expected {names(schema)}")

    def path(name: str, row: int) -> str:
        return f"{label}[{row}].{name}"

    if problems:
        given = {name: [(at, row[name]) for at, row in enumerate(rows) if name in row] for name in known}
        name_cells(given, schema, problems, path)
        raise problems.refusal()
    return from_columns({name: [row.get(name) for row in rows] for name in known}, schema, rules, path)


def name_cells(
    cells: Mapping[str, Sequence[tuple[int, Any]]], schema: Input, problems: Problems, path_of: CellPath
) -> None:
    """Note the bad cells of a table that is refused already, so that one answer names them all.

    cells: by column, those that are there, each with its row.
    """
    for column in schema.columns:
        given = cells.get(column.name, ())

        def path(at: int, name: str = column.name, given: Sequence[tuple[int, Any]] = given) -> str:
            return path_of(name, given[at][0])

        to_array([cell for _, cell in given], column, problems, path)


def from_columns(
    columns: Mapping[str, Cells], schema: Input, rules: Rules = STRICT, path_of: CellPath | None = None
) -> Table:
    """Columns by name, each a list of JSON cells or a numpy array of shape [rows].

    `path_of(name, row)` writes a cell's place as the client spelled it. Raises RequestRejected.
    """
    cell_path = path_of or (lambda name, row: f"inputs.{name}[{row}]")
    problems = Problems(rules)
    known = schema.names
    rows = max([len(values) for name, values in columns.items() if name in known], default=0)
    for name in sorted(columns.keys() - known) if rules.extra == "refuse" else ():
        problems.add(f"inputs.{name}", f"no such column; expected {names(schema)}")
    for name, values in columns.items():
        if len(values) != rows:
            problems.add(f"inputs.{name}", f"expected {rows} values as in the longest column, got {len(values)}")
    found = {c.name: _one_column(columns.get(c.name), c, rows, problems, cell_path) for c in schema.columns}
    if problems:
        raise problems.refusal()
    return Table(schema, rows, found)


def _one_column(values: Cells | None, column: Column, rows: int, problems: Problems, path_of: CellPath) -> Array:
    if values is None:
        if problems.rules.missing == "refuse" or not column.nullable:
            why = "" if column.nullable else ", and it takes no missing cells"
            problems.add(f"inputs.{column.name}", f"this column is missing{why}")
            return np.empty(0)
        values = [None] * rows

    def path(row: int) -> str:
        return path_of(column.name, row)

    if isinstance(values, np.ndarray):
        return numpy_columns.convert(values, column, problems, path)
    return to_array(values, column, problems, path)


def names(schema: Input) -> str:
    """The columns' names, for a message."""
    shown = ", ".join(column.name for column in schema.columns[:12])
    return shown + (f", ... {len(schema.columns)} in all" if len(schema.columns) > 12 else "")


def require_rows(table: Table) -> Table:
    """Refuse an empty table: scikit-learn has no answer for zero rows. Raises RequestRejected."""
    if table.rows == 0:
        raise RequestRejected("the request has no rows; at least one is needed")
    return table
