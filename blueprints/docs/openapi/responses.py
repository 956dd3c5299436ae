"""JSON Schemas and examples of the response bodies of one model, in every protocol."""

from __future__ import annotations

from collections.abc import Sequence

from tableside.blueprints.docs.openapi import id_columns
from tableside.blueprints.docs.openapi.cell_schemas import MAX_LISTED, Schema, description, output_cell
from tableside.blueprints.docs.openapi.requests import model_ref
from tableside.blueprints.docs.openapi.wide_tables import is_wide
from tableside.contracts.schema import Cell, Contract, Output


def components(contract: Contract, id_column: str = "") -> dict[str, Schema]:
    """Return the schemas of a model's responses. Their names in the document are prefixed with the model's name.

    Each object is a schema of its own: generators do not take objects within alternatives. id_column: the name of the
    model's id column, if it has one; its ids stand beside the outputs.
    """
    kinds = [row(output, contract) for output in contract.outputs]
    rows: Schema = {"type": "array", "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds}}
    rows["description"] = outputs(contract)
    found = {
        "InferResponse": infer(contract, id_column),
        "RowsAnswer": _object("predictions", rows, contract),
        "ColumnsAnswer": _object("outputs", rows, contract),
    }
    bare = [{"title": "For bare rows", **rows, "items": {"anyOf": kinds}}]
    if len(contract.outputs) > 1 or id_column:
        found |= _several(contract, id_column)
        bare.append({"type": "array", "items": model_ref(contract, "SeveralOutputs")})
    if any(output.classes for output in contract.outputs):
        found["Classes"] = _classes(contract)
    answers = [model_ref(contract, name) for name in found if name.endswith("Answer")]
    by_rows = [model_ref(contract, name) for name in found if name.endswith("RowsAnswer")]
    return {**found, "PredictResponse": {"anyOf": answers}, "Predictions": {"anyOf": [*by_rows, *bare]}}


def _object(key: str, rows: Schema, contract: Contract) -> Schema:
    """Return the schema of an answer that is an object: the rows or columns, and the class names on request."""
    has_classes = any(output.classes for output in contract.outputs)
    properties = {key: rows, **({"classes": model_ref(contract, "Classes")} if has_classes else {})}
    return {"type": "object", "required": [key], "properties": properties}


def _classes(contract: Contract) -> Schema:
    return {
        "type": "object",
        "description": "The class of each column of an output, for classes=true.",
        "properties": {output.name: _names(output.classes) for output in contract.outputs if output.classes},
        "additionalProperties": False,
    }


def _names(classes: Sequence[Cell]) -> Schema:
    """Return the schema of an output's class names. Their order is that of the output's columns."""
    schema: Schema = {"type": "array", "minItems": len(classes), "maxItems": len(classes)}
    kinds = {type(each) for each in classes}
    if len(classes) <= MAX_LISTED and (kinds == {str} or kinds == {int}):
        schema["description"] = f"In this order: {', '.join(map(str, classes))}."
        schema["items"] = {"type": "string" if kinds == {str} else "integer", "enum": list(classes)}
    else:
        schema["items"] = {}
    return schema


def _several(contract: Contract, id_column: str) -> dict[str, Schema]:
    """Return the schemas of answers with several outputs, by rows and by columns, and of what is in them."""
    cells = {output.name: row(output, contract) for output in contract.outputs}
    if id_column:
        cells[id_column] = id_columns.CELL
    shape: Schema = {"type": "object", "minProperties": 2, "additionalProperties": False}
    rows = {"type": "array", "items": model_ref(contract, "SeveralOutputs")}
    return {
        "SeveralOutputs": {**shape, "properties": cells},
        "SeveralColumns": {
            **shape,
            "properties": {name: {"type": "array", "items": cell} for name, cell in cells.items()},
        },
        "SeveralRowsAnswer": _object("predictions", rows, contract),
        "SeveralColumnsAnswer": _object("outputs", model_ref(contract, "SeveralColumns"), contract),
    }


def row(output: Output, contract: Contract) -> Schema:
    """Return the schema of one row of an output: a value, or an array of `width` values."""
    cell = output_cell(output, contract)
    if output.flat:
        return {"title": output.name, **cell}
    return {
        "title": output.name,
        "description": description(output),
        "type": "array",
        "items": cell,
        "minItems": output.width,
        "maxItems": output.width,
    }


def outputs(contract: Contract) -> str:
    """Return a description of all outputs."""
    return ". ".join(description(output) for output in contract.outputs) + "."


def infer(contract: Contract, id_column: str = "") -> Schema:
    """Return the schema of a V2 response."""
    kinds = [tensor(output, contract) for output in contract.outputs]
    if id_column:
        kinds.append(id_columns.tensor(id_column))
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"type": "string", "const": contract.name},
            "model_version": {"type": "string"},
            "id": {"type": "string", "description": "The id of the request, if it had one."},
            "outputs": {
                "type": "array",
                "description": "The outputs in the order of the request.",
                "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds},
            },
        },
    }


def tensor(output: Output, contract: Contract) -> Schema:
    """Return the schema of an output as a tensor of shape [rows, width]."""
    return {
        "title": output.name,
        "description": description(output),
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"type": "string", "const": output.name},
            "datatype": {"type": "string", "const": output.datatype},
            "shape": {
                "type": "array",
                "description": f"[rows, {output.width}].",
                "items": {"type": "integer", "minimum": 1},
                "minItems": 2,
                "maxItems": 2,
            },
            "data": {"type": "array", "items": output_cell(output, contract), "minItems": 1},
        },
    }


def predict_example(contract: Contract, count: int = 2) -> Schema | None:
    """Return the V1 response to the first example of a request; None where the document is a summary."""
    default = contract.default_output
    if is_wide(contract) or default.width > MAX_LISTED:
        return None
    answers = contract.golden.answers[default.name][:count]
    rows: list[Cell | list[Cell]] = [row[0] if default.flat else list(row) for row in answers]
    return {"predictions": rows}


def infer_example(contract: Contract, count: int = 2) -> Schema | None:
    """Return the V2 response to the first example of a request; None where the document is a summary."""
    default = contract.default_output
    if is_wide(contract) or default.width > MAX_LISTED:
        return None
    answers = contract.golden.answers[default.name][:count]
    shape = [len(answers), default.width]
    data = [cell for row in answers for cell in row]
    head = {"model_name": contract.name, "model_version": str(contract.version)}
    return {**head, "outputs": [{"name": default.name, "datatype": default.datatype, "shape": shape, "data": data}]}
