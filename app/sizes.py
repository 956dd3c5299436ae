"""Numbers of bytes in words, for people."""

from __future__ import annotations

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


def in_words(count: float) -> str:
    """Return a number of bytes in its largest unit, with factors of 1000: `812 B`, `54 kB`, `7.2 MB`, `3.1 GB`.

    It has one decimal below 10, and none from there on.
    """
    for factor, unit in _UNITS:
        if count >= factor * 0.9995:  # 999,950 is not shown as 1000 kB
            return f"{count / factor:.{1 if count < 9.95 * factor else 0}f} {unit}"
    return f"{count:.0f} B"
