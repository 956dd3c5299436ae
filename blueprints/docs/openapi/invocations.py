"""JSON Schema of the JSON bodies of `/invocations`: those of MLflow's scoring server and of SageMaker's containers."""

from __future__ import annotations

from tableside.blueprints.docs.openapi import wide_tables
from tableside.blueprints.docs.openapi.cell_schemas import Schema
from tableside.blueprints.docs.openapi.requests import model_ref, rows, values
from tableside.contracts.schema import Contract


def components(contract: Contract) -> dict[str, Schema]:
    """Return the schemas of a body and of the objects in it: generators take no objects within alternatives."""
    return {
        "InvocationsRequest": _request(contract),
        "DataframeSplit": _split(contract),
        "InvocationsParams": _params(contract),
    }


def _request(contract: Contract) -> Schema:
    """Return the schema of a body of MLflow, which has one of four keys, or of SageMaker, which is the rows alone."""
    names = [column.name for column in contract.input.columns]
    by_columns = {"anyOf": [model_ref(contract, "Columns"), *rows(contract)["anyOf"]]}
    keys: dict[str, Schema] = {
        "dataframe_split": model_ref(contract, "DataframeSplit"),
        "dataframe_records": {"type": "array", "items": model_ref(contract, "Row"), "minItems": 1},
        "instances": rows(contract),
        "inputs": by_columns,
    }
    bare_rows = [{"title": "Rows", **each} for each in rows(contract)["anyOf"]]
    if len(names) > 1:
        bare_rows.append({**values(contract), "title": "One row"})
    return {"anyOf": [*(_only(name, schema, contract, list(keys)) for name, schema in keys.items()), *bare_rows]}


def _split(contract: Contract) -> Schema:
    """Return the schema of `dataframe_split`. The columns may have any order, and the rows have the same."""
    found = contract.input.columns
    labels = [*dict.fromkeys([*(column.name for column in found), *(column.label for column in found)])]
    label: Schema = {"type": "string" if all(isinstance(each, str) for each in labels) else ["string", "integer"]}
    if not wide_tables.is_wide(contract):
        label["enum"] = labels
    size = {"minItems": len(found), "maxItems": len(found)}
    cells = values(contract)
    row = model_ref(contract, "Values")
    if "prefixItems" in cells:  # cells of several kinds: which stands where depends on `columns`
        row = {"type": "array", "items": wide_tables.any_cell(contract), **size}
    return {
        "type": "object",
        "description": "The result of pandas' `to_dict('split')`. The rows of `data` have the order of `columns` or, "
        "without them or with pandas' own 0, 1, 2, ..., that of the contract.",
        "required": ["data"],
        "properties": {
            "columns": {"type": ["array", "null"], "description": "Each once, in any order.", "items": label, **size},
            "data": {"type": "array", "items": row, "minItems": 1},
            "index": {"description": "It is ignored."},
        },
        "additionalProperties": False,
    }


def _params(contract: Contract) -> Schema:
    """Return the schema of `params`."""
    outputs = [output.name for output in contract.outputs]
    several = {"type": "array", "items": {"type": "string", "enum": outputs}, "minItems": 1, "uniqueItems": True}
    params: Schema = {"output": {"anyOf": [{"type": ["string", "null"], "enum": [*outputs, "", None]}, several]}}
    if any(output.classes for output in contract.outputs):
        params["classes"] = {"type": "boolean", "description": "Whether the answer has the class names."}
    return {"type": "object", "description": "Other members have no effect.", "properties": params}


def _only(name: str, schema: Schema, contract: Contract, names: list[str]) -> Schema:
    others = [{"required": [other]} for other in names if other != name]
    params = {"anyOf": [model_ref(contract, "InvocationsParams"), {"type": "null"}]}
    return {
        "title": name,
        "type": "object",
        "required": [name],
        "properties": {name: schema, "params": params},
        "not": {"anyOf": others},
    }
