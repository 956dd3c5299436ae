"""Conversion of dates to the trained dtype, such as `datetime64[ns]` or `datetime64[us, Europe/Vienna]`.

A date is ISO 8601 text, a whole number of milliseconds since 1970-01-01T00:00 (in UTC for a column with a time zone),
or a numpy datetime64. A decoded column is an array of datetime64 in the trained unit; with a time zone it is in UTC.
Every date is converted exactly or refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Column
from tableside.decoding.rules import Problems, describe

PATTERN = r"(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(?:(Z|z)|([+-])(\d\d):?(\d\d))?)?"
"""ISO 8601 in its extended form: a date, or a date and a time with or without a time zone."""
_ISO = re.compile(PATTERN, re.ASCII)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_UNITS = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}
_SECONDS = {"D": 86400, "h": 3600, "m": 60}
_INT64_MAX = 2**63 - 1
_EXAMPLE = "2026-05-31T12:00:00"

PathOf = Callable[[int], str]


class _NotADate(ValueError):
    """A cell that is no date of the column. The text says what was expected."""


def unit_of(dtype: str) -> str:
    """The unit of a dtype: `ns` of `datetime64[ns, UTC]`."""
    return dtype.removeprefix("datetime64[").rstrip("]").partition(",")[0]


def has_zone(dtype: str) -> bool:
    """Whether the dtype has a time zone."""
    return "," in dtype


def is_date(text: str) -> bool:
    """Whether a text has the form of a date. Its day and hour may still not exist."""
    return _ISO.fullmatch(text) is not None


def from_cells(values: Sequence[str | float | None], column: Column, problems: Problems, path_of: PathOf) -> Array:
    """Convert texts, numbers of milliseconds and None to an array of shape [rows] of the trained unit.

    Errors are added to `problems` under `path_of(row)`. If there are any, the returned array must not be used.
    """
    counts = np.empty(len(values), dtype=np.int64)
    per_second, zoned = _PER_SECOND[unit_of(column.dtype)], has_zone(column.dtype)
    missing = np.iinfo(np.int64).min  # NaT
    for row, value in enumerate(values):
        try:
            counts[row] = missing if value is None else _count(value, per_second, zoned, column.dtype)
        except _NotADate as problem:
            problems.add(partial(path_of, row), str(problem), value)
    dates: Array = counts.view(f"datetime64[{unit_of(column.dtype)}]")
    return dates


def _count(value: str | float, per_second: int, zoned: bool, dtype: str) -> int:
    """The number of the trained units since 1970."""
    seconds, nanoseconds = _parse(value, zoned) if isinstance(value, str) else _milliseconds(value)
    fraction, rest = divmod(nanoseconds * per_second, 10**9)
    if rest:
        raise _NotADate(f"the column holds whole {_UNITS[unit_of(dtype)]}")
    count = seconds * per_second + fraction
    if abs(count) > _INT64_MAX:
        raise _NotADate(f"outside of the range of {dtype}")
    return count


def _milliseconds(value: float) -> tuple[int, int]:
    if not math.isfinite(value) or value != int(value):
        raise _NotADate("expected a whole number of milliseconds since 1970")
    seconds, milliseconds = divmod(int(value), 1000)
    return seconds, milliseconds * 10**6


def _parse(text: str, zoned: bool) -> tuple[int, int]:
    """Return the seconds since 1970 and the nanoseconds of ISO 8601 text."""
    found = _ISO.fullmatch(text)
    if found is None:
        raise _NotADate(f"expected a date in ISO 8601, such as {_EXAMPLE}{'Z' if zoned else ''}")
    year, month, day, hour, minute, second, digits, utc, sign, zone_hours, zone_minutes = found.groups()
    if zoned != bool(utc or sign):
        expected = "a time zone, such as Z or +02:00" if zoned else "no time zone; the column has none"
        raise _NotADate(f"expected {expected}")
    try:
        days = date(int(year), int(month), int(day)).toordinal() - _EPOCH_DAY
    except ValueError:
        raise _NotADate("no such day") from None
    clock = int(hour or 0), int(minute or 0), int(second or 0)
    offset = int(zone_hours or 0), int(zone_minutes or 0), 0
    if clock > (23, 59, 59) or max(clock[1:]) > 59 or offset > (23, 59, 0) or offset[1] > 59:
        raise _NotADate("no such time")
    ahead = _in_seconds(*offset) * (-1 if sign == "-" else 1)
    return days * 86400 + _in_seconds(*clock) - ahead, int((digits or "0").ljust(9, "0"))


def _in_seconds(hours: int, minutes: int, seconds: int) -> int:
    return hours * 3600 + minutes * 60 + seconds


def from_numpy(array: Array, column: Column, problems: Problems, path_of: PathOf) -> Array:
    """Convert a numpy array of datetime64, from Arrow or Parquet, to the trained unit; NaT is a missing value."""
    missing = np.isnat(array)
    if not column.nullable and missing.any():
        problems.add_rows(path_of, np.flatnonzero(missing), f"expected {describe(column)}, got null")
    unit = unit_of(column.dtype)
    numerator, denominator = _ratio(str(np.datetime_data(array.dtype)[0]), unit)
    counts = array.view(np.int64)
    uneven = np.flatnonzero(~missing & (counts % denominator != 0))
    problems.add_rows(path_of, uneven, f"the column holds whole {_UNITS[unit]}", array)
    too_far = np.flatnonzero(~missing & (np.abs(counts // denominator) > _INT64_MAX // numerator))
    problems.add_rows(path_of, too_far, f"outside of the range of {column.dtype}", array)
    if denominator == numerator:
        return array
    return np.where(missing, counts, counts // denominator * numerator).view(f"datetime64[{unit}]")


def _ratio(unit: str, trained: str) -> tuple[int, int]:
    """By what a number of units is multiplied and divided to become one of trained units. One of them is 1."""
    per_second = _PER_SECOND[trained]
    if unit in _SECONDS:
        return _SECONDS[unit] * per_second, 1
    return max(1, per_second // _PER_SECOND[unit]), max(1, _PER_SECOND[unit] // per_second)
