"""Converts rows to JSON values: sequences, mappings, numpy arrays and DataFrames.

numpy and pandas are recognised by their methods and never imported, so the client works without them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Array(Protocol):
    """A numpy array, or anything else that `tolist()` turns into nested lists."""

    def tolist(self) -> Any: ...


@runtime_checkable
class Frame(Protocol):
    """A pandas DataFrame, or anything else with `columns` whose `to_dict("list")` gives cells by column name."""

    @property
    def columns(self) -> Any: ...

    def to_dict(self, orient: Any, /) -> Any: ...


def body(rows: object) -> dict[str, object]:
    """Return the part of a V1 body that holds the rows: `instances`, or `inputs` for the columns of a DataFrame.

    Missing cells (None, NaN, NaT, pandas.NA) become null. Raises TypeError if `rows` is not a table.
    """
    if isinstance(rows, Frame):
        columns: Mapping[object, Sequence[object]] = rows.to_dict("list")
        return {"inputs": {str(name): [cell(value) for value in cells] for name, cells in columns.items()}}
    if isinstance(rows, Array):
        rows = listed(rows)
    if isinstance(rows, (str, bytes, Mapping)) or not isinstance(rows, Sequence):
        raise TypeError(
            f"rows: expected a list of rows, an array or a DataFrame, got {type(rows).__name__}; send one row as [row]"
        )
    return {"instances": [row(entry) for entry in rows]}


def row(entry: object) -> object:
    """Return one row: an object by column name, a list by position, or a single value for a model with one column."""
    if isinstance(entry, Mapping):
        return {str(name): cell(value) for name, value in entry.items()}
    if isinstance(entry, Array):
        entry = listed(entry)
    if isinstance(entry, Sequence) and not isinstance(entry, (str, bytes)):
        return [cell(value) for value in entry]
    return cell(entry)


def listed(array: Any) -> Any:
    """Return an array as nested lists. Dates become text: `tolist()` would make numbers of nanoseconds of them."""
    is_dates = getattr(getattr(array, "dtype", None), "kind", "") == "M" and hasattr(array, "astype")
    return _null_for_nat(array.astype(str).tolist()) if is_dates else array.tolist()


def _null_for_nat(dates: Any) -> Any:
    if isinstance(dates, list):
        return [_null_for_nat(date) for date in dates]
    return None if dates == "NaT" else dates


def cell(value: Any) -> object:
    """Return one cell as a JSON value.

    A numpy scalar becomes a Python number, a date ISO 8601 text, and a missing value None.
    """
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if type(value).__name__ == "datetime64":
        return None if str(value) == "NaT" else str(value)
    if hasattr(value, "isoformat"):
        return value.isoformat()
    if hasattr(value, "item") and not isinstance(value, (str, bytes)):
        value = value.item()
    return None if isinstance(value, float) and math.isnan(value) else value


def nan_for_null(answers: list[Any]) -> list[Any]:
    """Return the answers with NaN in place of None, at any depth: JSON has no NaN, so the server sends null."""
    return [
        nan_for_null(answer) if isinstance(answer, list) else math.nan if answer is None else answer
        for answer in answers
    ]


def answered(content: Any, names: Sequence[str] = ()) -> list[Any]:
    """Return the predictions of an answer by row: with names of outputs, each row is a dict with a value for each.

    content: rows, or the columns of several outputs by name.
    """
    if len(names) == 1:
        return [{names[0]: value} for value in content]
    if not isinstance(content, dict):
        return list(content)
    return [dict(zip(content, row, strict=True)) for row in zip(*content.values(), strict=True)]
