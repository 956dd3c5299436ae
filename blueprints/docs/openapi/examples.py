"""Example request bodies, made from a model's golden rows. A client can send them unchanged."""

from __future__ import annotations

from typing import Any, TypeAlias

from tableside.blueprints.docs.openapi.wide_tables import is_wide
from tableside.contracts.schema import Cell, Contract

Examples: TypeAlias = dict[str, dict[str, Any]]
"""The `examples` of a media type: an object with a `value`, by name."""


def _golden(contract: Contract, count: int = 2) -> list[list[Cell]]:
    """The rows of the examples. A wide table has none: they would be most of the document."""
    if is_wide(contract):
        return []
    return [list(row) for row in contract.golden.rows[:count]]


def _named(contract: Contract, row: list[Cell]) -> dict[str, Cell]:
    return dict(zip((column.name for column in contract.input.columns), row, strict=True))


def predict(contract: Contract) -> Examples:
    """Return examples of V1 bodies; none if the contract has no golden rows."""
    golden = _golden(contract)
    if not golden:
        return {}
    names = [column.name for column in contract.input.columns]
    by_columns = {name: [row[at] for row in golden] for at, name in enumerate(names)}
    return {
        "rows by name": {"value": {"instances": [_named(contract, row) for row in golden]}},
        "rows by position": {"value": {"instances": golden}},
        "columns": {"value": {"inputs": by_columns}},
    }


def infer(contract: Contract) -> Examples:
    """Return examples of V2 bodies; none if the contract has no golden rows."""
    golden = _golden(contract)
    if not golden:
        return {}
    tensors = [
        {"name": c.name, "shape": [len(golden)], "datatype": c.datatype, "data": [row[at] for row in golden]}
        for at, c in enumerate(contract.input.columns)
    ]
    outputs = [{"name": output.name} for output in contract.outputs]
    examples: Examples = {
        "one tensor per column": {"value": {"inputs": tensors}},
        "every output": {"value": {"id": "example", "inputs": tensors, "outputs": outputs}},
    }
    if contract.input.is_numeric and contract.input.columns:
        flat = [value for row in golden for value in row]
        shape = [len(golden), len(contract.input.columns)]
        matrix = {"name": "input-0", "shape": shape, "datatype": "FP64", "data": flat}
        examples["one matrix"] = {"value": {"inputs": [matrix]}}
    return examples


def invocations(contract: Contract) -> Examples:
    """Return examples of MLflow bodies; none if the contract has no golden rows."""
    golden = _golden(contract)
    if not golden:
        return {}
    names = [column.name for column in contract.input.columns]
    return {
        "dataframe_split": {"value": {"dataframe_split": {"columns": names, "data": golden}}},
        "dataframe_records": {"value": {"dataframe_records": [_named(contract, row) for row in golden]}},
        "instances": {"value": {"instances": golden}},
        "bare rows": {"value": golden},
    }
