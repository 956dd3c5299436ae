"""Figures of the status page in words."""

from __future__ import annotations

from tableside.serving.request_history import SAMPLE_S

LATELY_SAMPLES = 6
"""How many samples the current rate is made of: one minute."""
NONE = "none"
"""What is shown where nothing was counted."""


def rate(requests: int, samples: int) -> str:
    """Return requests per second."""
    return f"{number(requests / (samples * SAMPLE_S))}/s"


def number(value: float) -> str:
    """Return a number with two or three digits, such as `0.25`, `3.2`, `480` or `12 000`."""
    if value == 0:
        return "0"
    if value < 0.01:
        return "<0.01"
    if value < 1:
        return f"{value:.2g}"
    if value < 9.95:
        return f"{value:.1f}"
    return f"{value:,.0f}".replace(",", " ")


def share(part: int, whole: int) -> str:
    """Return a share in percent; `none` without requests."""
    if not whole:
        return NONE
    return f"{number(100 * part / whole)} %"


def milliseconds(seconds: float | None) -> str:
    """Return a time in milliseconds, or in seconds from 10 on; `none` for None."""
    if seconds is None:
        return NONE
    return f"{number(seconds)} s" if seconds >= 10 else f"{number(seconds * 1000)} ms"
