"""What a call of the estimator costs, by its rows: a moving estimate."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

_SMOOTHING = 0.2
_FORGETTING = 1.02
"""How fast the least cost seen is forgotten: by 2 % a call, so one lucky call does not stand for ever."""


@dataclass
class _Seen:
    """Calls of about as many rows. rows, typical_s: moving means. least_s: the least of late, free of others' noise."""

    rows: float
    typical_s: float
    least_s: float

    def learn(self, rows: int, seconds: float) -> None:
        self.rows += _SMOOTHING * (rows - self.rows)
        self.typical_s += _SMOOTHING * (seconds - self.typical_s)
        self.least_s = min(seconds, self.least_s * _FORGETTING)


class Cost:
    """Learns from each call; kept apart for 1, 2 to 3, 4 to 7, ... rows and drawn as a line between those."""

    def __init__(self) -> None:
        self._by_size: dict[int, _Seen] = {}
        self._known: list[tuple[int, _Seen]] = []

    def learn(self, rows: int, seconds: float) -> None:
        """A call of `rows` rows took that long."""
        size = rows.bit_length()
        seen = self._by_size.get(size)
        if seen is not None:
            seen.learn(rows, seconds)
            return
        seen = self._by_size[size] = _Seen(float(rows), seconds, seconds)
        insort(self._known, (size, seen), key=lambda pair: pair[0])

    def typical_s(self, rows: int) -> float:
        """What a call takes as a rule, in seconds of the clock, waits for the processor included; infinity: unknown."""
        return self._between(rows, "typical_s")

    def least_s(self, rows: int) -> float:
        """What a call takes when nothing disturbs it; infinity before the first."""
        return self._between(rows, "least_s")

    def _between(self, rows: int, which: str) -> float:
        """On the line between the two sizes around `rows`; below the smallest seen as much as that one, because a call
        has a cost before its rows; above the largest in proportion.
        """
        below: _Seen | None = None
        for _, seen in self._known:
            value: float = getattr(seen, which)
            if rows <= seen.rows:
                if below is None:
                    return value
                low: float = getattr(below, which)
                return low + (value - low) * (rows - below.rows) / (seen.rows - below.rows)
            below = seen
        if below is None:
            return math.inf
        value = getattr(below, which)
        return value * rows / below.rows
