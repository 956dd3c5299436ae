"""Rows as the caller has them, to JSON: sequences, mappings, numpy arrays, DataFrames; none of which is imported."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any


def body(rows: Any) -> dict[str, Any]:
    """The part of a V1 body that holds the rows: `instances`, or `inputs` for a DataFrame's columns.

    Missing cells (None, NaN, pandas' NA) become null. Raises TypeError for what is no table.
    """
    if hasattr(rows, "columns") and hasattr(rows, "to_dict"):
        found = rows.to_dict("list")
        return {"inputs": {str(name): [cell(each) for each in cells] for name, cells in found.items()}}
    if hasattr(rows, "tolist"):
        rows = rows.tolist()
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Sequence):
        raise TypeError(f"expected rows, an array or a DataFrame, got {type(rows).__name__}; one row is [row]")
    return {"instances": [row(each) for each in rows]}


def row(given: Any) -> Any:
    """One row: an object by column name, an array by position, or a bare value of a one-column model."""
    if isinstance(given, Mapping):
        return {str(name): cell(each) for name, each in given.items()}
    if hasattr(given, "tolist"):
        given = given.tolist()
    if isinstance(given, Sequence) and not isinstance(given, (str, bytes)):
        return [cell(each) for each in given]
    return cell(given)


def cell(value: Any) -> Any:
    """One cell as JSON has it."""
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    if (
        value is None
        or (isinstance(value, float) and math.isnan(value))
        or type(value).__name__ in ("NAType", "NaTType")
    ):
        return None
    return value


def nan_for_null(answers: list[Any]) -> list[Any]:
    """Numbers as they were before JSON, which has no NaN: null is nan."""
    return [nan_for_null(each) if isinstance(each, list) else math.nan if each is None else each for each in answers]
