"""Numbers as `tableside top` writes them: few digits, and a dash for what is not known."""

from __future__ import annotations

from collections.abc import Sequence

from tableside import durations, sizes

UNKNOWN = "-"
_BARS = "▁▂▃▄▅▆▇█"


def number(value: float | None) -> str:
    """Return a number of three digits, or of more if it is 1000 or above: `0.43`, `4.3`, `43`, `4310`; 0 is `0`."""
    if value is None:
        return UNKNOWN
    decimals = 0 if value == 0 or value >= 99.95 else 1 if value >= 9.995 else 2
    return f"{value:.{decimals}f}"


def rate(per_s: float | None) -> str:
    """Return a rate: `0`, `0.5`, `12.3`, `431`. A rate that is not 0 is never shown as 0."""
    return _not_zero(per_s, 99.95)


def percent(share: float | None) -> str:
    """Return a share as a percentage: `0`, `0.2`, `12`. One that is not 0 is never shown as 0."""
    return _not_zero(None if share is None else share * 100, 9.95)


def _not_zero(value: float | None, whole_from: float) -> str:
    """Return a number with one decimal, and with none from `whole_from` on. Only 0 itself is shown as `0`."""
    if value is None:
        return UNKNOWN
    if 0 < value < 0.05:
        return "<0.1"
    return f"{value:.0f}" if value == 0 or value >= whole_from else f"{value:.1f}"


def milliseconds(seconds: float | None) -> str:
    """Return a time in milliseconds: `0.43`, `4.31`, `43.1`, `431`."""
    return number(None if seconds is None else seconds * 1000)


def whole(value: int | None) -> str:
    """Return a whole number."""
    return UNKNOWN if value is None else str(value)


def size(count: float | None) -> str:
    """Return a number of bytes: `812 MB`, `3.1 GB`."""
    return sizes.in_words(count) if count else UNKNOWN


def duration(seconds: float | None) -> str:
    """Return a time in the two largest units: `3 d 4 h`, `12 min 5 s`, `42 s`."""
    return UNKNOWN if seconds is None else durations.in_words(seconds)


def clock(seconds: float | None) -> str:
    """Return a time as hours, minutes and seconds, `0:12:05`, or as days if it is longer than four of them."""
    return UNKNOWN if seconds is None else durations.as_clock(seconds)


def bars(values: Sequence[float]) -> str:
    """Return one bar for each value. The highest one is as high as the line."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in values)
