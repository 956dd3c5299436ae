"""Bodies that work as they are, made from a model's golden rows."""

from __future__ import annotations

from typing import Any

from tableside.contract.schema import Cell, Contract

Examples = dict[str, dict[str, Any]]


def _golden(contract: Contract, count: int = 2) -> list[list[Cell]]:
    return [list(found) for found in contract.golden.rows[:count]]


def _named(contract: Contract, found: list[Cell]) -> dict[str, Cell]:
    return dict(zip((column.name for column in contract.input.columns), found, strict=True))


def predict(contract: Contract) -> Examples:
    """V1 bodies that work as they are."""
    golden = _golden(contract)
    if not golden:
        return {}
    names = [column.name for column in contract.input.columns]
    by_columns = {name: [found[at] for found in golden] for at, name in enumerate(names)}
    return {
        "rows by name": {"value": {"instances": [_named(contract, found) for found in golden]}},
        "rows by position": {"value": {"instances": golden}},
        "columns": {"value": {"inputs": by_columns}},
    }


def infer(contract: Contract) -> Examples:
    """V2 bodies that work as they are."""
    golden = _golden(contract)
    if not golden:
        return {}
    tensors = [
        {"name": c.name, "shape": [len(golden)], "datatype": c.datatype, "data": [found[at] for found in golden]}
        for at, c in enumerate(contract.input.columns)
    ]
    outputs = [{"name": output.name} for output in contract.outputs]
    examples: Examples = {
        "one tensor a column": {"value": {"inputs": tensors}},
        "every output": {"value": {"id": "example", "inputs": tensors, "outputs": outputs}},
    }
    if contract.input.is_numeric and contract.input.columns:
        flat = [each for found in golden for each in found]
        shape = [len(golden), len(contract.input.columns)]
        matrix = {"name": "input-0", "shape": shape, "datatype": "FP64", "data": flat}
        examples["one matrix"] = {"value": {"inputs": [matrix]}}
    return examples


def invocations(contract: Contract) -> Examples:
    """MLflow bodies that work as they are."""
    golden = _golden(contract)
    if not golden:
        return {}
    names = [column.name for column in contract.input.columns]
    return {
        "dataframe_split": {"value": {"dataframe_split": {"columns": names, "data": golden}}},
        "dataframe_records": {"value": {"dataframe_records": [_named(contract, found) for found in golden]}},
        "instances": {"value": {"instances": golden}},
        "rows by themselves": {"value": golden},
    }
