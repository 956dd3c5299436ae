"""Lengths of time in words, for people."""

from __future__ import annotations

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def in_words(seconds: float) -> str:
    """Return a length of time in its two largest units: `3 d 4 h`, `12 min 5 s`, `42 s`. A negative one is `0 s`."""
    left = max(0, int(seconds))
    words: list[str] = []
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or words:
            words.append(f"{count} {unit}")
        if len(words) == 2:
            break
    return " ".join(words) or "0 s"


def as_clock(seconds: float) -> str:
    """Return a time as hours, minutes and seconds, `0:12:05`, or as days if it is longer than four of them."""
    minutes, whole_s = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{whole_s:02}" if hours < 100 else f"{hours // 24} d"
