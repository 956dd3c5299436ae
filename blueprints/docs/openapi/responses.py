"""What one model answers, in every protocol."""

from __future__ import annotations

from typing import Any

from tableside.blueprints.docs.openapi.cell_schemas import Schema, description, output_cell
from tableside.contract.schema import Cell, Contract, Output


def components(contract: Contract) -> dict[str, Schema]:
    """The response's schemas, by the name they have below the model's own."""
    rows: Schema = {"type": "array", "items": {"anyOf": [row(output, contract) for output in contract.outputs]}}
    rows["description"] = outputs(contract)
    by = {key: {"type": "object", "required": [key], "properties": {key: rows}} for key in ("predictions", "outputs")}
    return {
        "InferResponse": infer(contract),
        "PredictResponse": {"anyOf": [{"title": f"For {title}", **by[key]} for title, key in _ANSWERED]},
        "Predictions": {"anyOf": [by["predictions"], {"title": "For rows by themselves", **rows}]},
    }


_ANSWERED = (("instances", "predictions"), ("inputs", "outputs"))


def row(output: Output, contract: Contract) -> Schema:
    """A row of one output: a value, or an array of `width` of them."""
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
    """Every output in a sentence each, for a description."""
    return ". ".join(description(output) for output in contract.outputs) + "."


def infer(contract: Contract) -> Schema:
    """V2's answer in JSON."""
    kinds = [tensor(output, contract) for output in contract.outputs]
    return {
        "type": "object",
        "required": ["model_name", "model_version", "outputs"],
        "properties": {
            "model_name": {"const": contract.name},
            "model_version": {"type": "string"},
            "id": {"type": "string", "description": "The request's, if it had one."},
            "outputs": {
                "type": "array",
                "description": "In the order asked for.",
                "items": kinds[0] if len(kinds) == 1 else {"anyOf": kinds},
            },
        },
    }


def tensor(output: Output, contract: Contract) -> Schema:
    """One output as a tensor of shape [rows, width]."""
    return {
        "title": output.name,
        "description": description(output),
        "type": "object",
        "required": ["name", "datatype", "shape", "data"],
        "properties": {
            "name": {"const": output.name},
            "datatype": {"const": output.datatype},
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


def predict_example(contract: Contract, count: int = 2) -> dict[str, Any]:
    """What V1 answers to the first example of the request."""
    default = contract.default_output
    answers = contract.golden.answers[default.name][:count]
    found: list[Cell | list[Cell]] = [each[0] if default.flat else list(each) for each in answers]
    return {"predictions": found}


def infer_example(contract: Contract, count: int = 2) -> dict[str, Any]:
    """What V2 answers to the first example of the request."""
    default = contract.default_output
    answers = contract.golden.answers[default.name][:count]
    shape = [len(answers), default.width]
    data = [each for found in answers for each in found]
    head = {"model_name": contract.name, "model_version": str(contract.version)}
    return {**head, "outputs": [{"name": default.name, "datatype": default.datatype, "shape": shape, "data": data}]}
