"""What a call of the estimator costs, by its rows: a moving estimate."""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass

_SMOOTHING = 0.2
_FORGETTING = 1.02
"""How fast the least cost seen is forgotten: by 2 % a call, so one lucky call does not stand for ever."""
_FLATTEST = 0.1
"""Beyond what was seen each row costs at least this share of the mean row: a guess that lets batches grow by steps."""


@dataclass
class _SizeCost:
    """Calls of about as many rows. rows, typical_s: moving means. least_s: the least of late, free of others' noise."""

    rows: float
    typical_s: float
    least_s: float

    def learn(self, rows: int, seconds: float) -> None:
        self.rows += _SMOOTHING * (rows - self.rows)
        self.typical_s += _SMOOTHING * (seconds - self.typical_s)
        self.least_s = min(seconds, self.least_s * _FORGETTING)


class CostModel:
    """Learns from each call; kept apart for 1, 2 to 3, 4 to 7, ... rows and drawn as a line between those."""

    def __init__(self) -> None:
        self._by_size: dict[int, _SizeCost] = {}
        self._known: list[tuple[int, _SizeCost]] = []

    def learn(self, rows: int, seconds: float) -> None:
        """A call of `rows` rows took that long."""
        size = rows.bit_length()
        seen = self._by_size.get(size)
        if seen is not None:
            seen.learn(rows, seconds)
            return
        seen = self._by_size[size] = _SizeCost(float(rows), seconds, seconds)
        insort(self._known, (size, seen), key=lambda pair: pair[0])

    def typical_s(self, rows: int) -> float:
        """What a call takes as a rule, in seconds of the clock, waits for the processor included; infinity: unknown."""
        return self._between(rows, "typical_s")

    def least_s(self, rows: int) -> float:
        """What a call takes when nothing disturbs it; infinity before the first."""
        if self._known and rows <= self._known[0][1].rows:  # as `_between` has it: most requests are that small
            return self._known[0][1].least_s
        return self._between(rows, "least_s")

    def _between(self, rows: int, which: str) -> float:
        """On the line between the two sizes around `rows`; below the smallest seen as much as that one, because a call
        has a cost before its rows; above the largest on as the line comes, or in proportion where only one was seen.
        """
        low_rows, low_s, slope = 0.0, 0.0, math.inf
        for _, seen in self._known:
            value: float = getattr(seen, which)
            slope = (value - low_s) / (seen.rows - low_rows)
            if rows <= seen.rows:
                return low_s + slope * (rows - low_rows) if low_rows else value
            low_rows, low_s = seen.rows, value
        if not low_rows:
            return math.inf
        return low_s + max(slope, _FLATTEST * low_s / low_rows) * (rows - low_rows)
