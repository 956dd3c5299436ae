"""A column, or an output, as the JSON Schema of one cell: what the decoder takes, and nothing it refuses."""

from __future__ import annotations

from typing import Any

import numpy as np

from tableside.contract.schema import Cell, Column, Contract, Output
from tableside.decoding.cells import MAX_EXACT_INTEGER, limits

Schema = dict[str, Any]
SHOWN = 40
"""Categories named as examples where others are taken as well."""

TYPES = {"FP64": "number", "FP32": "number", "INT64": "integer", "BOOL": "boolean", "BYTES": "string"}
_FP32_MAX = float(np.finfo(np.float32).max)


def bare(column: Column) -> Schema:
    """What a cell may be, without words: equal for columns that take the same."""
    name = TYPES[column.datatype]
    schema: Schema = {"type": [name, "null"] if column.nullable else name}
    if column.closed and column.categories is not None:
        return schema | {"enum": [*column.categories, *([None] if column.nullable else [])]}
    if column.datatype == "FP32":
        return schema | {"minimum": -_FP32_MAX, "maximum": _FP32_MAX}
    if column.datatype == "INT64":
        low, high, _ = limits(column)
        return schema | {"minimum": low, "maximum": high}
    return schema


def cell(column: Column) -> Schema:
    """The same with what people want to know: the range and the categories seen at publish, which bind nobody."""
    schema = bare(column)
    words = _words(column)
    if words:
        schema["description"] = ". ".join(words) + "."
    if column.categories and not column.closed:
        schema["examples"] = list(column.categories[:SHOWN])
    return schema


def _words(column: Column) -> list[str]:
    words = []
    if column.minimum is not None and column.maximum is not None:
        words.append(f"Seen in training data: {column.minimum:g} to {column.maximum:g}; others are answered too")
    if column.categories and not column.closed:
        words.append("The examples were seen in training data; others are answered too")
    if column.nullable:
        words.append("null is a missing cell")
    if column.nullable and column.datatype == "INT64" and limits(column)[1] > MAX_EXACT_INTEGER:
        words.append("Beside a missing cell of the column, integers lie within 2^53")
    return words


def output_cell(output: Output, contract: Contract) -> Schema:
    """One number or label of an answer. A number that is not finite is null."""
    name = TYPES[output.datatype]
    known = labels(contract)
    if output.name == "predict" and output.flat and known:
        return {"type": name, "enum": list(known)}
    return {"type": [name, "null"] if name == "number" else name}


def labels(contract: Contract) -> tuple[Cell, ...] | None:
    """What a classifier's `predict` can answer, where another output names its classes."""
    if contract.kind != "classifier":
        return None
    return next((output.classes for output in contract.outputs if output.classes), None)


def description(output: Output) -> str:
    """An output in a sentence, with the classes its columns stand for."""
    shape = "one value a row" if output.flat else f"{output.width} values a row"
    classes = ", ".join(str(each) for each in output.classes or ())
    return f"`{output.name}`: {shape}, {output.datatype}" + (f"; classes in this order: {classes}" if classes else "")
