"""Converts the text of a CSV column to a declared dtype, exactly or not at all. Compatible with Python 3.8."""

from __future__ import annotations

import re
from typing import Any, Sequence

import numpy as np
import pandas as pd

from tableside_contract.csv_types import MISSING_WORDS, Series, text_series
from tableside_contract.errors import RecordFailed

HELP = "int64, float64, bool, str, category, datetime64[ns] or another dtype of numpy or pandas"
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d([ T]\d\d:\d\d(:\d\d(\.\d+)?)?)?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII)
_ZONE = re.compile(r":\d\d.*([Zz]|[+-]\d\d:?\d\d)$", re.ASCII)
_DATES = re.compile(r"datetime64\[(s|ms|us|ns)(, ?[^\]]+)?\]")
_CATEGORY = re.compile(r"category(?:\[(\w+)\])?")
_NUMBER = re.compile(r"(u?int|u?Int|UInt|float|Float)(8|16|32|64)")
_FLAGS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
_TEXT = ("str", "object", "string")


def parse(text: str | None) -> dict[str, str]:
    """Return the dtypes of `COLUMN=DTYPE,...` by column. Raises RecordFailed."""
    types = {}
    for part in re.split(r",(?![^\[]*\])", text) if text else []:
        name, has_type, dtype = part.rpartition("=")
        if not has_type:
            raise RecordFailed(f"--types: {part!r} is not COLUMN=DTYPE. Write for instance --types zip=str,age=int64")
        types[name] = dtype.strip()
        if not is_known(types[name]):
            raise RecordFailed(f"--types: column {name!r} has the dtype {dtype!r}, expected {HELP}")
    return types


def is_known(dtype: str) -> bool:
    """Whether a column can be declared as this dtype."""
    category = _CATEGORY.fullmatch(dtype)
    inner = category[1] or "str" if category else dtype
    plain = inner in (*_TEXT, "bool", "boolean") or _NUMBER.fullmatch(inner) is not None
    return plain or _DATES.fullmatch(dtype) is not None


def convert(texts: Sequence[str | None], dtype: str, name: str) -> Series:
    """Return the cells with the declared dtype; None is a missing cell. Raises RecordFailed, which names the row."""
    category = _CATEGORY.fullmatch(dtype)
    if category:
        inner = convert(texts, category[1] or "str", name)
        return inner.astype(pd.CategoricalDtype(sorted(inner.dropna().unique().tolist())))
    if dtype in _TEXT:
        text = text_series(list(texts))
        return text if dtype == "str" else text.astype(dtype)
    texts = [None if text is None or text.strip() in ("", *MISSING_WORDS) else text.strip() for text in texts]
    if dtype in ("bool", "boolean"):
        return _flags(texts, dtype, name)
    return _dates(texts, dtype, name) if dtype.startswith("datetime64") else _numbers(texts, dtype, name)


def date_dtype(texts: Sequence[str | None]) -> str | None:
    """Return a dtype of dates if every cell is a date in ISO 8601; None if not."""
    present = [text for text in texts if text is not None]
    if not present or not all(_DATE.fullmatch(text) for text in present):
        return None
    zones = {_ZONE.search(text) is not None for text in present}
    return None if len(zones) > 1 else "datetime64[ns, UTC]" if zones.pop() else "datetime64[ns]"


def _bad(name: str, dtype: str, row: int) -> RecordFailed:
    return RecordFailed(f"column {name!r} is declared as {dtype}, but row {row + 1} of the sample is not one")


def _numbers(texts: Sequence[str | None], dtype: str, name: str) -> Series:
    is_whole = dtype.lower().startswith(("int", "uint"))
    if is_whole and dtype[0].islower() and None in texts:
        raise RecordFailed(
            f"column {name!r} is declared as {dtype}, but the sample has missing cells there. Declare it as float64, "
            f"which is how pandas reads it, or as {dtype.replace('u', 'U', 1).replace('int', 'Int')}"
        )
    values: list[Any] = []
    for row, text in enumerate(texts):
        try:
            if text is not None and is_whole and not _WHOLE.fullmatch(text):
                raise ValueError
            values.append(None if text is None else int(text.partition(".")[0]) if is_whole else float(text))
        except ValueError:
            raise _bad(name, dtype, row) from None
    try:
        if dtype[0].isupper():
            named: Any = dtype  # the stubs list every name of a dtype; this one is known at run time
            return pd.Series(pd.array(values, dtype=named))
        return pd.Series([np.nan if value is None else value for value in values], dtype=dtype)
    except (OverflowError, ValueError, TypeError) as problem:
        raise RecordFailed(f"column {name!r} is declared as {dtype}: {problem}") from problem


def _flags(texts: Sequence[str | None], dtype: str, name: str) -> Series:
    for row, text in enumerate(texts):
        if text is not None and text.lower() not in _FLAGS:
            raise _bad(name, dtype, row)
    values = [None if text is None else _FLAGS[text.lower()] for text in texts]
    if dtype == "boolean":
        return pd.Series(pd.array(values, dtype="boolean"))
    if None not in values:
        return pd.Series(values, dtype=bool)
    return pd.Series([np.nan if value is None else value for value in values], dtype=object)


def _dates(texts: Sequence[str | None], dtype: str, name: str) -> Series:
    for row, text in enumerate(texts):
        if text is not None and not _DATE.fullmatch(text):
            raise _bad(name, dtype, row)
    try:
        has_zone = "," in dtype
        values: Any = [pd.NaT if text is None else pd.Timestamp(text) for text in texts]
        series: Any = pd.Series(pd.to_datetime(values, utc=True) if has_zone else pd.to_datetime(values))
        return series.astype(dtype)
    except (ValueError, TypeError) as problem:
        raise RecordFailed(f"column {name!r} is declared as {dtype}: {problem}") from problem
