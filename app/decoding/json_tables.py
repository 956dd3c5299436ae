"""Conversion of rows and columns of JSON values to a `Table`.

Columns with names are matched by name, in any order. Rows without names follow the contract's order of columns.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import chain
from types import NoneType
from typing import cast

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.id_column import IdColumn, InputWithId, RowIds, model_of, of_width
from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tableside.decoding import anomalies, missing_words, numpy_columns, row_ids
from tableside.decoding.cells import to_array
from tableside.decoding.rules import STRICT, Cells, Problems, Rules
from tableside.errors import RequestRejected

CellPath = Callable[[str, int], str]
"""Returns the place of a cell in the request, by column name and row number."""
_MAX_SHOWN_NAMES = 12


def from_rows(rows: Sequence[object], schema: Input, rules: Rules = STRICT, label: str = "rows") -> Table:
    """Convert rows to a table. A row is a list (values by position) or a dict (values by column name).

    If the contract has one column, a row may also be the bare value. `label` is the name of the rows in error paths.
    Raises RequestRejected, which lists up to `rules.most_errors` bad cells.
    """
    types = set(map(type, rows))
    if isinstance(schema, InputWithId) and not _have_ids(rows, schema):
        schema = schema.model
    if types == {dict}:
        return _from_named_rows(cast("Sequence[Mapping[str, object]]", rows), schema, rules, label)
    if types <= {list, tuple}:
        return _from_lists(cast("Sequence[Sequence[object]]", rows), schema, rules, label)
    if len(schema.columns) == 1 and not types & {dict, list, tuple}:
        return from_columns({schema.columns[0].name: rows}, schema, rules, lambda _, row: f"{label}[{row}]")
    problems = Problems(rules)
    for at, row in enumerate(rows):
        if not isinstance(row, (list, dict)) or types >= {dict, list}:
            problems.add(f"{label}[{at}]", "expected all rows as arrays, or all rows as objects")
    raise problems.refusal()


def _have_ids(rows: Sequence[object], schema: InputWithId) -> bool:
    """Whether a row has an id: a key of that name or, by position, as many cells as there are columns with it."""
    width = len(schema.columns)
    return any(
        schema.id in row if isinstance(row, dict) else isinstance(row, list) and len(row) == width for row in rows
    )


def _from_lists(rows: Sequence[Sequence[object]], schema: Input, rules: Rules, label: str) -> Table:
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


def _number_matrix(flat: list[object], rows: int, schema: Input) -> Array | None:
    """Convert the whole table in one numpy call if every column is float64, which is the most common table."""
    if not schema.is_double:
        return None
    types = set(map(type, flat))
    if types <= {float, int} or (types <= {float, int, NoneType} and schema.takes_missing):
        try:
            return np.array(flat, dtype=np.float64).reshape(rows, len(schema.columns))
        except OverflowError:  # an integer larger than float64: the conversion by column finds its cell
            return None
    return None


def from_numbers(rows: Sequence[Sequence[float | None]], schema: Input) -> Table | None:
    """Convert rows to a table of float64 columns without checking the cells.

    Every cell must be a number, or None if every column is nullable. Returns None if there are no rows or if a row has
    another width; `from_rows` then raises the error that describes the row.
    """
    try:
        matrix = np.array(rows, dtype=np.float64)
    except ValueError:  # rows of unequal length
        return None
    return Table(schema, len(rows), None, matrix) if matrix.shape[1:] == (len(schema.columns),) else None


def from_matrix(matrix: Array, schema: Input, rules: Rules = STRICT, label: str = "rows") -> Table:
    """Convert a numeric array of shape [rows, columns], in the contract's order; NaN is a missing value.

    Raises RequestRejected for another number of columns or a bad cell.
    """
    schema = of_width(schema, matrix.shape[1])
    if matrix.shape[1] != len(schema.columns):
        raise RequestRejected(f"expected {len(schema.columns)} columns ({names(schema)}), got {matrix.shape[1]}")
    if matrix.dtype == np.float64 and schema.is_double and _missing_is_allowed(matrix, schema):
        return Table(schema, len(matrix), None, matrix)
    columns = {column.name: matrix[:, at] for at, column in enumerate(schema.columns)}
    positions = {column.name: at for at, column in enumerate(schema.columns)}
    return from_columns(columns, schema, rules, lambda name, row: f"{label}[{row}][{positions[name]}] ({name})")


def _missing_is_allowed(matrix: Array, schema: Input) -> bool:
    if schema.takes_missing or not _has_missing(matrix):
        return True
    return not any(np.isnan(matrix[:, at]).any() for at, column in enumerate(schema.columns) if not column.nullable)


def _has_missing(matrix: Array) -> bool:
    """Whether a cell is NaN: only then is the sum of all squares NaN. Unlike `sum` and `dot`, `vdot` never warns."""
    flat = matrix.ravel("K")
    return math.isnan(np.vdot(flat, flat))


def _from_named_rows(rows: Sequence[Mapping[str, object]], schema: Input, rules: Rules, label: str) -> Table:
    """Rows as objects. A key that a row does not have is a missing value there; a row without a cell is refused."""
    known, needed, cells = schema.names, schema.needed, model_of(schema).names
    problems = Problems(rules)
    for at, row in enumerate(rows):
        if row.keys() == known:
            continue
        if row.keys().isdisjoint(cells) and (row.keys() <= known or rules.extra == "ignore"):
            problems.add(f"{label}[{at}]", f"a row without a cell; expected {names(schema)}")
            continue
        for name in sorted(needed - row.keys()):
            problems.add(f"{label}[{at}].{name}", "missing; the column does not accept missing values")
        for name in sorted(row.keys() - known) if rules.extra == "refuse" else ():
            problems.add(f"{label}[{at}].{name}", f"no such column; expected {names(schema)}")

    def path(name: str, row: int) -> str:
        return f"{label}[{row}].{name}"

    if problems:
        present = {name: [(at, row[name]) for at, row in enumerate(rows) if name in row] for name in known}
        name_cells(present, schema, problems, path)
        raise problems.refusal()
    return from_columns({name: [row.get(name) for row in rows] for name in known}, schema, rules, path)


def name_cells(
    cells: Mapping[str, Sequence[tuple[int, object]]], schema: Input, problems: Problems, path_of: CellPath
) -> None:
    """Add the errors of the cells of a table that is refused for another reason, so that one response lists them all.

    cells: for each column, the row number and value of each cell that is present.
    """
    for column in schema.columns:
        present = cells.get(column.name, ())

        def path(at: int, name: str = column.name, present: Sequence[tuple[int, object]] = present) -> str:
            return path_of(name, present[at][0])

        problems.column = column.name
        found = [cell for _, cell in present]
        if isinstance(column, IdColumn):
            row_ids.read(found, problems, path)
        else:
            to_array(found, column, problems, path)


def from_columns(
    columns: Mapping[str, Cells], schema: Input, rules: Rules = STRICT, path_of: CellPath | None = None
) -> Table:
    """Convert columns by name, each a list of JSON values or a numpy array of shape [rows], to a table.

    `path_of(name, row)` returns the place of a cell in the request, for errors. Raises RequestRejected.
    """
    cell_path = path_of or (lambda name, row: f"inputs.{name}[{row}]")
    problems = Problems(rules)
    known, model = schema.names, model_of(schema)
    rows = max([len(values) for name, values in columns.items() if name in model.names], default=0)
    for name in sorted(columns.keys() - known) if rules.extra == "refuse" else ():
        problems.add(f"inputs.{name}", f"no such column; expected {names(schema)}")
    for name, values in columns.items():
        if len(values) != rows:
            problems.add(f"inputs.{name}", f"expected {rows} values as in the longest column, got {len(values)}")
    arrays = {c.name: _one_column(columns.get(c.name), c, rows, problems, cell_path) for c in model.columns}
    ids = None
    if isinstance(schema, InputWithId) and schema.id in columns:
        ids = RowIds(schema.id, row_ids.read(columns[schema.id], problems, partial(cell_path, schema.id)))
    if problems:
        raise problems.refusal()
    table = Table(model, rows, arrays)
    table.anomalies, table.ids = problems.anomalies, ids
    return table


def _one_column(values: Cells | None, column: Column, rows: int, problems: Problems, path_of: CellPath) -> Array:
    problems.column = column.name
    if values is None:
        if problems.rules.missing == "refuse" or not column.nullable:
            reason = "" if column.nullable else ", and it does not accept missing values"
            problems.add(f"inputs.{column.name}", f"this column is missing{reason}")
            return np.empty(0)
        values = [None] * rows

    def path(row: int) -> str:
        return path_of(column.name, row)

    if problems.rules.has_missing_words:
        values = missing_words.without_words(values, column, problems)
    if isinstance(values, np.ndarray):
        return numpy_columns.convert(values, column, problems, path)
    return to_array(values, column, problems, path)


def names(schema: Input) -> str:
    """The first column names as text for an error message, with the number of all columns if some are left out."""
    shown = ", ".join(column.name for column in schema.columns[:_MAX_SHOWN_NAMES])
    total = len(schema.columns)
    return shown + (f", ... ({total} columns)" if total > _MAX_SHOWN_NAMES else "")


def require_rows(table: Table, rules: Rules = STRICT) -> Table:
    """Return the table with its anomalies, if it has rows, and not too many.

    Raises RequestRejected for none, because scikit-learn cannot predict zero rows, and TooManyRows.
    """
    rules.check_rows(table.rows)
    if table.rows == 0:
        raise RequestRejected("the request has no rows; at least one is needed")
    table.anomalies = anomalies.of(table, table.anomalies)
    return table
