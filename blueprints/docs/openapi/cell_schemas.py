"""JSON Schemas of one cell of a column or an output.

A column's schema accepts exactly the values that the decoder accepts, but for closed categories that are fractions or
booleans, where it is wider; a test compares the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from tableside.contracts.schema import Cell, Column, Contract, Output
from tableside.decoding import dates
from tableside.decoding.cells import INT64_MAX, INT64_MIN, MAX_EXACT_INTEGER, limits

Schema: TypeAlias = dict[str, Any]
"""A JSON Schema, or another object of the OpenAPI document."""
MAX_EXAMPLES = 40
"""The number of categories that are listed as examples if others are accepted too."""

MAX_LISTED = 200
"""A table of more columns, or an output of more classes or values in a row, is summarized."""
_SHOWN = 10

JSON_TYPES = {"FP64": "number", "FP32": "number", "INT64": "integer", "BOOL": "boolean", "BYTES": "string"}
_FP32_MAX = float(np.finfo(np.float32).max)


def bare(column: Column) -> Schema:
    """Return the schema of a cell without descriptions, so that columns that accept the same have equal schemas."""
    if column.is_date:
        return _date(column)
    name = JSON_TYPES[column.datatype]
    kinds = [name, *(["integer"] if name == "boolean" else []), *(["null"] if column.nullable else [])]
    schema: Schema = {"type": kinds if len(kinds) > 1 else name}
    if column.closed and column.categories:
        return schema | _closed(column, column.categories)
    if column.datatype == "BOOL":
        return schema | {"minimum": 0, "maximum": 1}
    if column.datatype == "FP32":
        return schema | {"minimum": -_FP32_MAX, "maximum": _FP32_MAX}
    if column.datatype == "INT64":
        low, high, _ = limits(column)
        return schema | {"minimum": low, "maximum": high}
    return schema


def _closed(column: Column, categories: Sequence[Cell]) -> Schema:
    """Return what limits a cell to these categories. Of booleans and fractions it is their range only.

    Generators make types of strings and integers, and drop whole operations with other enumerations.
    """
    if _is_listed(categories):
        return {"enum": [*categories, *([None] if column.nullable else [])]}
    numbers = [float(each) for each in categories if isinstance(each, (bool, int, float))]
    return {"minimum": min(numbers), "maximum": max(numbers)} if numbers else {}


def _is_listed(categories: Sequence[Cell]) -> bool:
    return {type(each) for each in categories} in ({str}, {int})


def _date(column: Column) -> Schema:
    kinds = ["string", "integer", *(["null"] if column.nullable else [])]
    return {"type": kinds, "pattern": f"^{dates.PATTERN}$", "minimum": INT64_MIN, "maximum": INT64_MAX}


def cell(column: Column) -> Schema:
    """Return the schema of a cell with a description of the range and categories seen at publish.

    They are no limits: other values are valid too, unless the categories are closed.
    """
    schema = bare(column)
    sentences = _sentences(column)
    if sentences:
        schema["description"] = " ".join(sentences)
    if column.categories and not column.closed:
        schema["examples"] = list(column.categories[:MAX_EXAMPLES])
    return schema


def _sentences(column: Column) -> list[str]:
    sentences = []
    if column.is_date:
        zone = "with" if dates.has_zone(column.dtype) else "without"
        sentences.append(f"A date in ISO 8601 {zone} a time zone, or in milliseconds since 1970.")
    if column.datatype == "BOOL":
        sentences.append("1 and 0 are true and false.")
    if column.minimum is not None and column.maximum is not None:
        seen = f"{column.minimum:g} to {column.maximum:g}"
        sentences.append(f"The training data had values from {seen}; other values are accepted.")
    if column.categories and not column.closed:
        sentences.append("The examples are from the training data; other values are accepted.")
    if column.categories and column.closed and not _is_listed(column.categories):
        shown = ", ".join(map(str, column.categories[:MAX_EXAMPLES]))
        sentences.append(f"Accepted: {shown}{', ...' if len(column.categories) > MAX_EXAMPLES else ''}.")
    if column.nullable:
        sentences.append("null is a missing value.")
    if column.nullable and column.datatype == "INT64" and limits(column)[1] > MAX_EXACT_INTEGER:
        sentences.append("If a value of the column is missing, integers must lie within 2^53.")
    return sentences


def output_cell(output: Output, contract: Contract) -> Schema:
    """Return the schema of one number or label of an output. A number that is not finite is null."""
    name = JSON_TYPES[output.datatype]
    known = labels(contract)
    # Generators make types of strings and integers only.
    if output.name == "predict" and output.flat and known and _is_listed(known) and len(known) <= MAX_LISTED:
        return {"type": name, "enum": list(known)}
    return {"type": [name, "null"] if name == "number" else name}


def labels(contract: Contract) -> tuple[Cell, ...] | None:
    """Return the labels that a classifier's `predict` can return; None if no output lists its classes."""
    if contract.kind != "classifier":
        return None
    return next((output.classes for output in contract.outputs if output.classes), None)


def listed(found: Sequence[object]) -> str:
    """Return names separated by commas; of more than MAX_LISTED the first ones and their number."""
    if len(found) <= MAX_LISTED:
        return ", ".join(map(str, found))
    return f"{', '.join(map(str, found[:_SHOWN]))}, ... ({len(found)} in all)"


def description(output: Output) -> str:
    """Return a sentence about an output: its shape, datatype and the class of each column."""
    shape = "one value per row" if output.flat else f"{output.width} values per row"
    classes = listed(output.classes or ())
    return f"`{output.name}`: {shape}, {output.datatype}" + (f"; classes in this order: {classes}" if classes else "")
