"""What may be asked of one model, in every spelling.

A schema cannot say that sizes agree (a tensor's shape with its data, columns with each other); the descriptions do.
"""

from __future__ import annotations

from collections.abc import Sequence

from tableside.blueprints.docs.openapi.cell_schemas import Schema, bare, cell
from tableside.contract.schema import Column, Contract
from tableside.decoding.rules import Rules
from tableside.decoding.tensors import ACCEPTED_DATATYPES

_ANYTHING: Schema = {"type": ["object", "null"]}


def components(contract: Contract, rules: Rules) -> dict[str, Schema]:
    """The request's schemas, by the name they have below the model's own."""
    return {
        "Row": row(contract, rules),
        "Values": values(contract),
        "Columns": columns(contract, rules),
        "InferRequest": infer(contract, rules),
        "PredictRequest": predict(contract),
    }


def ref(contract: Contract, part: str) -> Schema:
    """A reference to one of a model's schemas."""
    return {"$ref": f"#/components/schemas/{contract.name}.{part}"}


def row(contract: Contract, rules: Rules) -> Schema:
    """A row as an object by column name. A key that is not there is a missing cell."""
    found = contract.input.columns
    schema: Schema = {"type": "object", "properties": {column.name: cell(column) for column in found}}
    needed = [column.name for column in found if not column.nullable]
    if needed:
        schema["required"] = needed
    return schema | ({"additionalProperties": False} if rules.extra == "refuse" else {})


def values(contract: Contract) -> Schema:
    """A row as an array, in the contract's order of columns."""
    found = contract.input.columns
    names = ", ".join(column.name for column in found)
    return {"description": f"In this order: {names}", **exactly([bare(column) for column in found])}


def exactly(cells: Sequence[Schema]) -> Schema:
    """An array of just these cells."""
    size = {"type": "array", "minItems": len(cells), "maxItems": len(cells)}
    if cells and all(each == cells[0] for each in cells):
        return {"items": cells[0], **size}
    return {"prefixItems": list(cells), "items": False, **size}


def columns(contract: Contract, rules: Rules) -> Schema:
    """A table as an object of columns, each an array of cells."""
    found = contract.input.columns
    schema: Schema = {
        "type": "object",
        "description": "Every column has as many cells.",
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
    """A column's cells, each as it is or as an array of one."""
    schema = cell(column)
    words = {"description": schema.pop("description")} if "description" in schema else {}
    return {**words, **_flat_or_nested(schema, exactly([bare(column)]))}


def _flat_or_nested(one: Schema, row: Schema, least: int = 1) -> Schema:
    """An array of cells, or of rows of them."""
    flat = {"type": "array", "items": one, "minItems": least}
    return {"anyOf": [flat, {"type": "array", "items": row, "minItems": 1}]}


def rows(contract: Contract) -> Schema:
    """Rows, all of one kind: by name, by position or, for a model of one column, as bare values."""
    kinds = [ref(contract, "Row"), ref(contract, "Values")]
    if len(contract.input.columns) == 1:
        kinds.append(bare(contract.input.columns[0]))
    return {"anyOf": [{"type": "array", "items": kind, "minItems": 1} for kind in kinds]}


def predict(contract: Contract) -> Schema:
    """V1: `instances` or `inputs`, never both."""
    wanted = {"signature_name": signature(contract)}
    by_rows = {"type": "object", "required": ["instances"], "properties": {"instances": rows(contract), **wanted}}
    spelled = {"anyOf": [ref(contract, "Columns"), *rows(contract)["anyOf"]]}
    by_columns = {"type": "object", "required": ["inputs"], "properties": {"inputs": spelled, **wanted}}
    return {
        "anyOf": [
            {"title": "Rows", **by_rows, "not": {"required": ["inputs"]}},
            {"title": "Columns", **by_columns, "not": {"required": ["instances"]}},
        ]
    }


def signature(contract: Contract) -> Schema:
    """The output V1 asks for. An empty name is the default, as in TF-Serving."""
    names = [output.name for output in contract.outputs]
    return {
        "type": ["string", "null"],
        "enum": [*names, "serving_default", "", None],
        "description": f"The output asked for; `{contract.default_output.name}` if none is named.",
    }


def infer(contract: Contract, rules: Rules) -> Schema:
    """V2: tensors, one a column, or one numeric matrix."""
    spelled = [_by_column(contract, rules)]
    if contract.input.is_numeric and contract.input.columns:
        spelled.append({"title": "One matrix", **exactly([_matrix(contract)])})
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
            "id": {"type": ["string", "null"], "description": "Comes back in the answer."},
            "parameters": _BINARY_OUTPUTS,
            "inputs": {"anyOf": spelled} if len(spelled) > 1 else spelled[0],
            "outputs": {
                "type": ["array", "null"],
                "items": wanted,
                "description": f"The outputs asked for; `{names[0]}` if none is named.",
            },
        },
    }


_BINARY_OUTPUT = {**_ANYTHING, "properties": {"binary_data": {"description": "true: this output as binary data."}}}
_BINARY_OUTPUTS = {
    **_ANYTHING,
    "properties": {"binary_data_output": {"description": "true: every output as binary data."}},
}


def _by_column(contract: Contract, rules: Rules) -> Schema:
    """An array of tensors. Columns that take the same cells share a schema."""
    groups: dict[str, list[Column]] = {}
    for column in contract.input.columns:
        groups.setdefault(repr((bare(column), column.datatype)), []).append(column)
    kinds = [_tensor(found) for found in groups.values()]
    if rules.extra == "ignore":
        kinds.append(_any_tensor())
    needed = [c for c in contract.input.columns if rules.missing == "refuse" or not c.nullable]
    schema: Schema = {"title": "One tensor a column", "type": "array"}
    schema["description"] = "One tensor for each column, in any order, all with as many rows."
    schema["items"] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    schema["minItems"] = max(1, len(needed))
    if rules.duplicate == "refuse" and rules.extra == "refuse":
        schema["maxItems"] = len(contract.input.columns)
    return schema


def _tensor(found: Sequence[Column]) -> Schema:
    one = bare(found[0])
    shape = {"prefixItems": [_SIZE, {"const": 1}], "items": False, "minItems": 1, "maxItems": 2}
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string", "enum": [column.name for column in found]},
            "shape": {"type": "array", "description": "[rows] or [rows, 1].", **shape},
            "datatype": _datatype(found),
            "data": {**_flat_or_nested(one, exactly([one])), "description": _DATA},
            "parameters": _ANYTHING,
        },
    }


_SIZE = {"type": "integer", "minimum": 1}
_DATA = "As many cells as the shape has, flat or nested, each within the tensor's own datatype."


def _datatype(found: Sequence[Column]) -> Schema:
    """The column's own datatype first; narrower or wider ones of the same kind are taken as well."""
    fits = frozenset.intersection(*(ACCEPTED_DATATYPES[column.datatype] for column in found))
    own = found[0].datatype
    return {"type": "string", "enum": [own, *sorted(fits - {own})]}


def _any_tensor() -> Schema:
    return {
        "type": "object",
        "description": "A column the model does not know; it is ignored.",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string"},
            "shape": {"type": "array", "items": _SIZE, "minItems": 1, "maxItems": 1},
            "datatype": {"type": "string", "enum": ["FP64", "INT64", "BOOL", "BYTES"]},
            "data": {"type": "array"},
            "parameters": _ANYTHING,
        },
    }


def _matrix(contract: Contract) -> Schema:
    found = contract.input.columns
    kinds: list[Schema] = []
    for column in found:
        if bare(column) not in kinds:
            kinds.append(bare(column))
    one = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    width = {"const": len(found)}
    return {
        "type": "object",
        "required": ["name", "shape", "datatype", "data"],
        "properties": {
            "name": {"type": "string", "description": "Any name."},
            "shape": {"description": f"[rows, {len(found)}].", **exactly([_SIZE, width])},
            "datatype": _datatype(found),
            "data": {**_flat_or_nested(one, ref(contract, "Values"), len(found)), "description": _DATA},
            "parameters": _ANYTHING,
        },
    }


def invocations(contract: Contract, rules: Rules) -> Schema:
    """MLflow's JSON, exactly one of four spellings; or rows by themselves, as SageMaker's clients send them."""
    names = [column.name for column in contract.input.columns]
    split = {
        "type": "object",
        "description": "pandas' `to_dict('split')`. `columns` may have any order; the cells of `data` follow it.",
        "required": ["data"],
        "properties": {
            "columns": {"anyOf": [{"const": names}, {"const": list(range(len(names)))}, {"type": "null"}]},
            "data": {"type": "array", "items": ref(contract, "Values"), "minItems": 1},
            "index": {"description": "Not looked at."},
        },
        "additionalProperties": False,
    }
    by_columns = {"anyOf": [ref(contract, "Columns"), *rows(contract)["anyOf"]]}
    spelled: dict[str, Schema] = {
        "dataframe_split": split,
        "dataframe_records": {"type": "array", "items": ref(contract, "Row"), "minItems": 1},
        "instances": rows(contract),
        "inputs": by_columns,
    }
    bare_rows = [{"title": "Rows", **each} for each in rows(contract)["anyOf"]]
    if len(names) > 1:
        bare_rows.append({**values(contract), "title": "One row"})
    return {"anyOf": [*(_only(name, schema, contract, list(spelled)) for name, schema in spelled.items()), *bare_rows]}


def _only(name: str, schema: Schema, contract: Contract, names: list[str]) -> Schema:
    others = [{"required": [other]} for other in names if other != name]
    outputs = [output.name for output in contract.outputs]
    params = {"output": {"type": ["string", "null"], "enum": [*outputs, "", None]}}
    return {
        "title": name,
        "type": "object",
        "required": [name],
        "properties": {
            name: schema,
            "params": {"type": ["object", "null"], "properties": params, "additionalProperties": False},
        },
        "not": {"anyOf": others},
    }
