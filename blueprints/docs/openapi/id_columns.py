"""The id column of a model in the document: a member beside the columns of a request, and beside each answer."""

from __future__ import annotations

from typing import Any

from tableside.blueprints.docs.openapi.cell_schemas import Schema
from tableside.decoding.row_ids import DATATYPES, MAX_CHARS

CELL: Schema = {
    "type": ["string", "number", "null"],
    "maxLength": MAX_CHARS,
    "description": "The caller's id, as text or a number. It comes back with the answer; the model is not given it.",
}
_SIZE = {"type": "integer", "minimum": 1}


def add_to_requests(parts: dict[str, Schema], name: str) -> None:
    """Add the id column to the schemas of a model's requests (`requests.components`)."""
    cells = {"type": "array", "items": CELL, "minItems": 1}
    for part, schema in (("Row", CELL), ("Columns", cells)):
        object_schema = parts[part]
        object_schema["properties"] = {name: schema, **object_schema.get("properties", {})}
        if "maxProperties" in object_schema:
            object_schema["maxProperties"] += 1
    values = parts["Values"]
    parts["Values"] = {"anyOf": [values, _longer(values, name)]}
    if "DataframeSplit" in parts:
        _add_to_split(parts["DataframeSplit"], name)
    tensors = parts["InferRequest"]["properties"]["inputs"]
    for form in tensors.get("anyOf", [tensors]):
        items = form["items"]
        form["items"] = {"anyOf": [*items.get("anyOf", [items]), tensor(name)]}
        if "maxItems" in form:
            form["maxItems"] += 1


def _add_to_split(split: Schema, name: str) -> None:
    """Let `dataframe_split` have the id column among its columns."""
    columns, rows = split["properties"]["columns"], split["properties"]["data"]["items"]
    columns["maxItems"] += 1
    if "enum" in columns["items"]:
        columns["items"] = {**columns["items"], "enum": [*columns["items"]["enum"], name]}
    if "maxItems" in rows:
        rows["maxItems"] += 1
        rows["items"] = {"anyOf": [*rows["items"].get("anyOf", [rows["items"]]), CELL]}


def _longer(values: Schema, name: str) -> Schema:
    """Return the schema of a row by position whose first cell is the id."""
    width = values["minItems"] + 1
    cells = values.get("prefixItems") or [values.get("items", {})] * values["minItems"]
    described = f"The id ({name}) first, and then the columns."
    return {
        "type": "array",
        "description": described,
        "prefixItems": [CELL, *cells],
        "minItems": width,
        "maxItems": width,
    }


def tensor(name: str) -> Schema:
    """Return the schema of a tensor of ids, in a request and in an answer."""
    properties: dict[str, Any] = {
        "name": {"type": "string", "const": name},
        "shape": {"type": "array", "items": _SIZE, "minItems": 1, "maxItems": 2},
        "datatype": {"type": "string", "enum": sorted(DATATYPES)},
        "data": {"type": "array", "items": CELL, "minItems": 1},
    }
    return {"title": "ids", "type": "object", "required": [*properties], "properties": properties}
