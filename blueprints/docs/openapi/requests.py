"""JSON Schemas of the request bodies of one model, in every protocol.

A schema cannot require that sizes agree (a tensor's shape with its data, or columns with each other), so the
descriptions state it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tableside.blueprints.docs.openapi import wide_tables
from tableside.blueprints.docs.openapi.cell_schemas import Schema, bare, cell
from tableside.contracts.schema import Column, Contract
from tableside.decoding.rules import Rules
from tableside.decoding.tensors import ACCEPTED_DATATYPES

_ANYTHING: Schema = {"type": ["object", "null"]}


def components(contract: Contract, rules: Rules) -> dict[str, Schema]:
    """Return the schemas of a model's requests. Their names in the document are prefixed with the model's name."""
    return {
        "Row": row(contract, rules),
        "Values": values(contract),
        "Columns": columns(contract, rules),
        "InferRequest": infer(contract, rules),
        "PredictRequest": predict(contract),
    }


def model_ref(contract: Contract, part: str) -> Schema:
    """Return a reference to one of a model's schemas."""
    return {"$ref": f"#/components/schemas/{contract.name}.{part}"}


def row(contract: Contract, rules: Rules) -> Schema:
    """Return the schema of a row as an object by column name. An absent key is a missing value."""
    if wide_tables.is_wide(contract):
        return wide_tables.by_name(contract, rules, wide_tables.any_cell(contract), needs_all=False)
    found = contract.input.columns
    schema: Schema = {"type": "object", "properties": {column.name: cell(column) for column in found}}
    needed = [column.name for column in found if not column.nullable]
    if needed:
        schema["required"] = needed
    if rules.extra == "refuse":
        return schema | {"additionalProperties": False} | ({} if needed else {"minProperties": 1})
    return schema | ({} if needed else {"anyOf": [{"required": [column.name]} for column in found]})


def values(contract: Contract) -> Schema:
    """Return the schema of a row as an array, in the contract's order of columns."""
    found = contract.input.columns
    if wide_tables.is_wide(contract):
        cells = [wide_tables.any_cell(contract)] * len(found)
        return {"description": f"In their order. {wide_tables.columns_of(contract)}", **exactly(cells)}
    names = ", ".join(column.name for column in found)
    return {"description": f"In this order: {names}", **exactly([bare(column) for column in found])}


def exactly(cells: Sequence[Schema]) -> Schema:
    """Return the schema of an array with exactly these cells."""
    size = {"type": "array", "minItems": len(cells), "maxItems": len(cells)}
    if cells and all(each == cells[0] for each in cells):
        return {"items": cells[0], **size}
    return {"prefixItems": list(cells), **size}


def columns(contract: Contract, rules: Rules) -> Schema:
    """Return the schema of a table as an object of columns, each an array of cells."""
    if wide_tables.is_wide(contract):
        any_cell = wide_tables.any_cell(contract)
        cells = _flat_or_nested(any_cell, exactly([any_cell]))
        return wide_tables.by_name(contract, rules, cells, needs_all=True)
    found = contract.input.columns
    schema: Schema = {
        "type": "object",
        "description": "All columns must have the same number of cells.",
        "properties": {column.name: _cells(column) for column in found},
    }
    needed = [column.name for column in found if rules.missing == "refuse" or not column.nullable]
    if needed:
        schema["required"] = needed
    if rules.extra == "refuse":
        return schema | {"additionalProperties": False}
    return schema | {"minProperties": 1, "additionalProperties": _flat_or_nested(_ANY_CELL, exactly([_ANY_CELL]))}


_ANY_CELL: Schema = {"type": ["string", "number", "boolean", "null", "object"]}


def _cells(column: Column) -> Schema:
    """Return the schema of a column: an array of cells, or of arrays with one cell."""
    schema = cell(column)
    described = {"description": schema.pop("description")} if "description" in schema else {}
    return {**described, **_flat_or_nested(schema, exactly([bare(column)]))}


def _flat_or_nested(cell_schema: Schema, row_schema: Schema, min_cells: int = 1) -> Schema:
    flat = {"type": "array", "items": cell_schema, "minItems": min_cells}
    return {"anyOf": [flat, {"type": "array", "items": row_schema, "minItems": 1}]}


def rows(contract: Contract) -> Schema:
    """Return the schema of rows: all as objects, all as arrays or, for a model with one column, all as bare values."""
    kinds = [model_ref(contract, "Row"), model_ref(contract, "Values")]
    if len(contract.input.columns) == 1:
        kinds.append(bare(contract.input.columns[0]))
    return {"anyOf": [{"type": "array", "items": kind, "minItems": 1} for kind in kinds]}


def predict(contract: Contract) -> Schema:
    """Return the schema of a V1 body, which has either `instances` or `inputs`."""
    wanted = {"signature_name": signature(contract)}
    by_rows = {"type": "object", "required": ["instances"], "properties": {"instances": rows(contract), **wanted}}
    rows_or_columns = {"anyOf": [model_ref(contract, "Columns"), *rows(contract)["anyOf"]]}
    by_columns = {"type": "object", "required": ["inputs"], "properties": {"inputs": rows_or_columns, **wanted}}
    return {
        "anyOf": [
            {"title": "Rows", **by_rows, "not": {"required": ["inputs"]}},
            {"title": "Columns", **by_columns, "not": {"required": ["instances"]}},
        ]
    }


def signature(contract: Contract) -> Schema:
    """Return the schema of `signature_name`, the requested output. As in TensorFlow Serving, "" is the default."""
    names = [output.name for output in contract.outputs]
    return {
        "type": ["string", "null"],
        "enum": [*names, "serving_default", "", None],
        "description": f"The requested output; `{contract.default_output.name}` if it is missing or empty.",
    }


def infer(contract: Contract, rules: Rules) -> Schema:
    """Return the schema of a V2 body: one tensor per column or, for numeric tables, one matrix."""
    forms = [_by_column(contract, rules)]
    if contract.input.is_numeric and contract.input.columns:
        forms.append({"title": "One matrix", **exactly([_matrix(contract)])})
    names = [output.name for output in contract.outputs]
    wanted = {
        "type": "object",
        "required": ["name"],
        "properties": {"name": {"type": "string", "enum": names}, "parameters": _BINARY_OUTPUT},
    }
    return {
        "type": "object",
        "required": ["inputs"],
        "properties": {
            "id": {"type": ["string", "null"], "description": "It is copied to the response."},
            "parameters": _BINARY_OUTPUTS,
            "inputs": {"anyOf": forms} if len(forms) > 1 else forms[0],
            "outputs": {
                "type": ["array", "null"],
                "items": wanted,
                "description": f"The requested outputs; `{names[0]}` if there are none.",
            },
        },
    }


_BINARY_OUTPUT = {
    **_ANYTHING,
    "properties": {"binary_data": {"description": "If true, this output is sent as binary data."}},
}
_BINARY_OUTPUTS = {
    **_ANYTHING,
    "properties": {"binary_data_output": {"description": "If true, all outputs are sent as binary data."}},
}


def _by_column(contract: Contract, rules: Rules) -> Schema:
    """Return the schema of one tensor per column. Columns that accept the same cells share a schema."""
    groups: dict[str, list[Column]] = {}
    for column in contract.input.columns:
        groups.setdefault(repr((bare(column), column.kind)), []).append(column)
    kinds = [_tensor(found) for found in groups.values()]
    if wide_tables.is_wide(contract):
        kinds = [_any_tensor(f"One column. {wide_tables.columns_of(contract)}")]
    if rules.extra == "ignore":
        kinds.append(_any_tensor("A column that the model does not have. It is ignored."))
    needed = [c for c in contract.input.columns if rules.missing == "refuse" or not c.nullable]
    schema: Schema = {"title": "One tensor per column", "type": "array"}
    schema["description"] = "One tensor for each column, in any order, all with the same number of rows."
    schema["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    schema["minItems"] = max(1, len(needed))
    if rules.duplicate == "refuse" and rules.extra == "refuse":
        schema["maxItems"] = len(contract.input.columns)
    return schema


def _tensor(found: Sequence[Column]) -> Schema:
    cell_schema = bare(found[0])
    shape = {"items": _SIZE, "minItems": 1, "maxItems": 2}
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string", "enum": [column.name for column in found]},
            "shape": {"type": "array", "description": "[rows] or [rows, 1].", **shape},
            "datatype": _datatype(found),
            "data": {**_flat_or_nested(cell_schema, exactly([cell_schema])), "description": _DATA},
            "parameters": _ANYTHING,
        },
    }


_SIZE = {"type": "integer", "minimum": 1}
_DATA = "Flat or nested. The number of cells must match the shape, and each cell must fit the tensor's datatype."


def _datatype(found: Sequence[Column]) -> Schema:
    """Return the schema of a tensor's datatype: the column's own first, then others that are converted to it."""
    accepted = frozenset.intersection(*(ACCEPTED_DATATYPES[column.kind] for column in found))
    own = found[0].datatype
    return {"type": "string", "enum": [own, *sorted(accepted - {own})]}


def _any_tensor(description: str) -> Schema:
    return {
        "type": "object",
        "description": description,
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": _SIZE, "minItems": 1, "maxItems": 1},
            "datatype": {"type": "string", "enum": ["FP64", "INT64", "BOOL", "BYTES"]},
            "data": {"type": "array", "items": {}},
            "parameters": _ANYTHING,
        },
    }


def _matrix(contract: Contract) -> Schema:
    found = contract.input.columns
    cell_schema = wide_tables.any_cell(contract)
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string", "description": "It can have any name."},
            "shape": {"type": "array", "description": f"[rows, {len(found)}].", **_sizes(len(found))},
            "datatype": _datatype(found),
            "data": {**_flat_or_nested(cell_schema, model_ref(contract, "Values"), len(found)), "description": _DATA},
            "parameters": _ANYTHING,
        },
    }


def _sizes(width: int) -> Schema:
    """Return the schema of [rows, width]. `items` says nothing more; generators that know no `prefixItems` read it."""
    return {"prefixItems": [_SIZE, {"type": "integer", "const": width}], "items": _SIZE, "minItems": 2, "maxItems": 2}
