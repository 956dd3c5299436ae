"""Cells of a table as JSON values from which the same cell can be made again.

None, booleans, integers, text and finite floats stand for themselves. Every other cell is an object with its type, such
as `{"type": "nan"}`, so that None, NaN, pandas.NA and NaT stay apart.
"""

from __future__ import annotations

import datetime
import math
from typing import Any, Dict, Union

Cell = Union[None, bool, int, float, str, Dict[str, str]]
"""A cell in JSON."""

_FLOATS = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


def to_json(value: Any) -> Cell:
    """Return a Python, numpy or pandas scalar as a JSON value. A value of any other type becomes its text."""
    if value is None or isinstance(value, (bool, int)) or type(value) is str:
        return value
    special = {"NAType": "NA", "NaTType": "NaT"}.get(type(value).__name__)
    if special is not None:
        return {"type": special}
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("M", "m"):  # numpy's datetime64 and timedelta64; item() would make integers of nanoseconds
        return (
            {"type": "NaT"}
            if str(value) == "NaT"
            else {"type": "datetime" if kind == "M" else "other", "value": str(value)}
        )
    if kind:
        value = value.item()
    if isinstance(value, float):
        return value if math.isfinite(value) else {"type": "nan" if value != value else "inf" if value > 0 else "-inf"}
    if isinstance(value, (bool, int, str)):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, datetime.datetime):
        return {"type": "datetime", "value": value.isoformat()}
    if isinstance(value, datetime.date):
        return {"type": "date", "value": value.isoformat()}
    return None if value is None else {"type": "other", "value": str(value)}


def from_json(cell: Cell) -> Any:
    """Return the value that `to_json` was given; text for a value of a type that it does not know.

    A numpy scalar comes back as the Python value, a date with time as a pandas.Timestamp.
    """
    if not isinstance(cell, dict):
        return cell
    kind, text = cell["type"], cell.get("value", "")
    if kind in _FLOATS:
        return _FLOATS[kind]
    if kind == "date":
        return datetime.date.fromisoformat(text)
    if kind not in ("NA", "NaT", "datetime"):
        return text
    import pandas as pd

    return pd.Timestamp(text) if kind == "datetime" else pd.NA if kind == "NA" else pd.NaT
