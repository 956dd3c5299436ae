"""The query parameters of predictions in the OpenAPI documents."""

from __future__ import annotations

from tableside.blueprints.docs.openapi.cell_schemas import Schema
from tableside.contracts.schema import Contract


def output_query(contract: Contract) -> list[Schema]:
    """Return the query parameters of V1 and `/invocations`: the outputs, and whether the answer has the class names."""
    names = [output.name for output in contract.outputs]
    wanted: Schema = {"type": "array", "items": {"type": "string", "enum": names}, "uniqueItems": True}
    parameters: list[Schema] = [
        {
            "name": "output",
            "in": "query",
            "description": f"The requested outputs, separated by commas; `{names[0]}` if it is missing or empty.",
            "schema": wanted,
            "style": "form",
            "explode": False,
        }
    ]
    having = [output.name for output in contract.outputs if output.classes]
    if having:
        described = f"Whether the answer has the class names of {', '.join(having)}; one of these must be requested."
        parameters.append(
            {
                "name": "classes",
                "in": "query",
                "description": described,
                "schema": {"type": "boolean", "default": False},
            }
        )
    return parameters
