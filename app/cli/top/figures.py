"""Numbers as `tableside top` writes them: few digits, and a dash for what is not known."""

from __future__ import annotations

from collections.abc import Sequence

from tableside import durations

UNKNOWN = "-"
_BARS = "▁▂▃▄▅▆▇█"
_SIZES = ((1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB"))


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
    """Return a number of bytes with factors of 1024: `812 MB`, `3.1 GB`."""
    if not count:
        return UNKNOWN
    for factor, unit in _SIZES:
        if count >= factor:
            return f"{count / factor:.{1 if count < 10 * factor else 0}f} {unit}"
    return f"{count:.0f} B"


def duration(seconds: float | None) -> str:
    """Return a time in the two largest units: `3 d 4 h`, `12 min 5 s`, `42 s`."""
    return UNKNOWN if seconds is None else durations.in_words(seconds)


def clock(seconds: float | None) -> str:
    """Return a time as hours, minutes and seconds, `0:12:05`, or as days if it is longer than four of them."""
    if seconds is None:
        return UNKNOWN
    minutes, whole_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_s:02}" if hours < 100 else f"{hours // 24} d"


def bars(values: Sequence[float]) -> str:
    """Return one bar for each value. The highest one is as high as the line."""
    highest = max(values, default=0.0)
    if highest <= 0:
        return _BARS[0] * len(values)
    return "".join(_BARS[round(value / highest * (len(_BARS) - 1))] for value in values)
