"""`instances` and `inputs`, which V1 and MLflow spell alike."""

from __future__ import annotations

from tableside.contract.schema import Input
from tableside.contract.table import Table
from tableside.decoding.json_tables import from_columns, from_rows
from tableside.decoding.rules import Rules, malformed
from tableside.decoding.tensors import one_column


def instances(content: object, schema: Input, rules: Rules) -> Table:
    """Rows, as arrays or as objects. Raises RequestRejected."""
    if not isinstance(content, list):
        raise malformed("instances", "expected an array of rows")
    return from_rows(content, schema, rules, "instances")


def inputs(content: object, schema: Input, rules: Rules) -> Table:
    """Columns by name; or rows, which KServe's and MLflow's clients send under this name. Raises RequestRejected."""
    if isinstance(content, dict):
        columns = {name: one_column(values, f"inputs.{name}") for name, values in content.items()}
        return from_columns(columns, schema, rules)
    if not isinstance(content, list):
        raise malformed("inputs", "expected an array of rows, or an object of columns")
    return from_rows(content, schema, rules, "inputs")
