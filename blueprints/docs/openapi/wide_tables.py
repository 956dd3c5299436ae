"""Wide tables in the document: the columns are summarized, so that its size does not depend on their number."""

from __future__ import annotations

from tableside.blueprints.docs.openapi.cell_schemas import MAX_LISTED, Schema, bare, listed
from tableside.contracts.schema import Contract
from tableside.decoding.rules import Rules

_MAX_KINDS = 20


def is_wide(contract: Contract) -> bool:
    """Whether the table has more than MAX_LISTED columns."""
    return len(contract.input.columns) > MAX_LISTED


def columns_of(contract: Contract) -> str:
    """Return a sentence with the first columns, and where all of them are."""
    names = listed([column.name for column in contract.input.columns])
    return f"The columns are {names}. `GET /v2/models/{contract.name}` lists all, with their types."


def any_cell(contract: Contract) -> Schema:
    """Return a schema of the cells of all columns; types alone where they differ in many ways."""
    kinds: list[Schema] = []
    for column in contract.input.columns:
        kind = bare(column)
        if kind not in kinds:
            kinds.append(kind)
        if len(kinds) > _MAX_KINDS:
            return {"type": ["string", "number", "boolean", "null"]}
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def by_name(contract: Contract, rules: Rules, cell: Schema, *, needs_all: bool) -> Schema:
    """Return the schema of an object with a member for each column.

    needs_all: whether each column that `rules` do not fill must be there; otherwise those that take no missing cell.
    """
    found = contract.input.columns
    needed = [column for column in found if (needs_all and rules.missing == "refuse") or not column.nullable]
    schema: Schema = {
        "type": "object",
        "description": columns_of(contract),
        "additionalProperties": cell,
        "minProperties": max(1, len(needed)),
    }
    return schema | ({"maxProperties": len(found)} if rules.extra == "refuse" else {})
