"""Reads the tables of V1 and of MLflow's scoring server from decoded JSON.

V1 and MLflow share `instances` and `inputs`; `dataframe_split` and `dataframe_records` are MLflow's. Each function
raises RequestRejected, which names the places that do not fit.
"""

from __future__ import annotations

from typing import TypeGuard

from tableside.contracts.id_column import of_width
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_columns, from_rows, name_cells, names
from tableside.decoding.rules import Problems, Rules, malformed
from tableside.decoding.tensors import one_column


def instances(content: object, schema: Input, rules: Rules) -> Table:
    """Read rows; each row is an array or an object."""
    if not isinstance(content, list):
        raise malformed("instances", "expected an array of rows")
    return from_rows(content, schema, rules, "instances")


def inputs(content: object, schema: Input, rules: Rules) -> Table:
    """Read an object of columns, or an array of rows, which the clients of KServe and MLflow send under this name."""
    if isinstance(content, dict):
        columns = {name: one_column(values, f"inputs.{name}") for name, values in content.items()}
        return from_columns(columns, schema, rules)
    if not isinstance(content, list):
        raise malformed("inputs", "expected an array of rows, or an object of columns")
    return from_rows(content, schema, rules, "inputs")


def dataframe_records(content: object, schema: Input, rules: Rules) -> Table:
    """Read pandas' `to_dict("records")`: one object for each row."""
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise malformed("dataframe_records", "expected an array with one object for each row")
    return from_rows(content, schema, rules, "dataframe_records")


def dataframe_split(content: object, schema: Input, rules: Rules) -> Table:
    """Read pandas' `to_dict("split")`: `columns`, `data` and an optional `index`, which is ignored."""
    if not isinstance(content, dict):
        raise malformed("dataframe_split", "expected an object with the members columns and data")
    for key in content:
        if key not in ("columns", "data", "index"):
            raise malformed(f"dataframe_split.{key[:80]}", "unknown member; expected columns, data and index only")
    rows, columns, label = content.get("data"), content.get("columns"), "dataframe_split.data"
    if not _is_array_of_arrays(rows):
        raise malformed(label, "expected an array of rows, each an array")
    if columns is None or _is_default_index(columns, schema):
        return from_rows(rows, schema, rules, label)
    if not _is_array_of_names(columns, schema):
        raise malformed("dataframe_split.columns", f"expected an array of names ({names(schema)})")
    return _split_by_name([str(name) for name in columns], rows, schema, rules)


def _is_array_of_arrays(rows: object) -> TypeGuard[list[list[object]]]:
    return isinstance(rows, list) and all(isinstance(row, list) for row in rows)


def _is_array_of_names(columns: object, schema: Input) -> TypeGuard[list[str | int]]:
    """Whether these are names. Numbers are names only where the model has such, as the trainer's DataFrame had."""
    if not isinstance(columns, list) or not all(type(name) in (str, int) for name in columns):
        return False
    numbers = [name for name in columns if type(name) is int]
    return not numbers or any(str(name) in schema.names for name in numbers)


def _is_default_index(columns: object, schema: Input) -> bool:
    """Whether these are the numbers 0, 1, 2, ... that pandas gives to a table without names, and no names."""
    numbered = isinstance(columns, list) and all(type(name) is int for name in columns)
    width = len(of_width(schema, len(columns) if isinstance(columns, list) else 0).columns)
    return numbered and columns == list(range(width)) and "0" not in schema.names


def _split_by_name(columns: list[str], rows: list[list[object]], schema: Input, rules: Rules) -> Table:
    problems = Problems(rules)
    position: dict[str, int] = {}
    for at, name in enumerate(columns):
        if name in position and rules.duplicate == "refuse":
            problems.add(f"dataframe_split.columns[{at}]", "this column is given twice")
        position.setdefault(name, at)
    width = len(columns)
    for at, row in enumerate(rows):
        if len(row) != width:
            problems.add(f"dataframe_split.data[{at}]", f"expected {width} values, got {len(row)}")

    def path(name: str, row: int) -> str:
        return f"dataframe_split.data[{row}][{position[name]}] ({name})"

    if problems:
        whole = [(at, row) for at, row in enumerate(rows) if len(row) == width]
        name_cells({n: [(at, row[i]) for at, row in whole] for n, i in position.items()}, schema, problems, path)
        raise problems.refusal()
    cells = {name: [row[at] for row in rows] for name, at in position.items()}
    return from_columns(cells, schema, rules, path)
