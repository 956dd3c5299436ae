"""Small plots as SVG: a line for the last minutes, made by the server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tableside.blueprints.admin.page_words import number

_MARGIN = 2.0
"""Space for the width of the line."""


@dataclass(frozen=True)
class Plot:
    """A plot. title, text: what it shows, for those who do not see it. line, area: points of SVG. top: its highest."""

    title: str
    text: str
    width: int
    height: int
    line: str
    area: str
    top: str


def plot(rates: Sequence[float], title: str, sample_s: int, *, width: int = 132, height: int = 28) -> Plot:
    """Draw rates, the earliest first. The highest one is at the top, and zero at the bottom."""
    highest = max(rates, default=0.0)
    step = width / max(1, len(rates) - 1)
    inner = height - 2 * _MARGIN
    points = [
        f"{at * step:.1f},{height - _MARGIN - (inner * each / highest if highest else 0):.1f}"
        for at, each in enumerate(rates)
    ]
    line = " ".join(points)
    minutes = len(rates) * sample_s // 60
    text = f"No request in the last {minutes} minutes."
    if highest:
        text = f"The last {minutes} minutes: at most {number(highest)} per second, now {number(rates[-1])}."
    return Plot(title, text, width, height, line, f"0,{height} {line} {width},{height}", f"{number(highest)}/s")
