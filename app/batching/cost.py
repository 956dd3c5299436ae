"""The cost model: how many seconds a call of the estimator takes, estimated from its number of rows."""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Callable
from dataclasses import dataclass

_SMOOTHING = 0.2
_LEAST_GROWTH = 1.02
"""The least cost grows by 2 % with each call, so that one lucky measurement is forgotten after some calls."""
_LEAST_SLOPE = 0.1
"""Above the largest measured size, each further row is assumed to cost at least this share of the mean row. Batches
then grow in steps, and each step is measured before the next one.
"""


@dataclass
class _SizeCost:
    """The measured calls of about the same number of rows.

    rows, typical_s: moving means. least_s: the least recent duration, which other work on the machine has not delayed.
    """

    rows: float
    typical_s: float
    least_s: float

    def learn(self, rows: int, seconds: float) -> None:
        self.rows += _SMOOTHING * (rows - self.rows)
        self.typical_s += _SMOOTHING * (seconds - self.typical_s)
        self.least_s = min(seconds, self.least_s * _LEAST_GROWTH)


class CostModel:
    """Estimates the duration of a call from the durations of earlier calls.

    Calls are grouped by size: 1 row, 2 to 3, 4 to 7, and so on by powers of two. Between two groups the estimate is
    interpolated linearly.
    """

    def __init__(self) -> None:
        self._by_size: dict[int, _SizeCost] = {}
        self._sorted: list[tuple[int, _SizeCost]] = []

    def learn(self, rows: int, seconds: float) -> None:
        """Record that a call with `rows` rows took `seconds`."""
        size = rows.bit_length()
        known = self._by_size.get(size)
        if known is not None:
            known.learn(rows, seconds)
            return
        known = self._by_size[size] = _SizeCost(float(rows), seconds, seconds)
        insort(self._sorted, (size, known), key=lambda pair: pair[0])

    @property
    def largest_size(self) -> int:
        """The group of the largest measured calls; it grows when a larger call is recorded. 0 before the first call."""
        return self._sorted[-1][0] if self._sorted else 0

    def typical_s(self, rows: int) -> float:
        """Return the expected duration in seconds of wall-clock time, which includes waiting for a processor.

        Returns infinity before the first call has been recorded.
        """
        return self._interpolate(rows, _typical_s)

    def proven_s(self, rows: int) -> float:
        """Return the expected duration in seconds, as far as it was measured; 0 before the first recorded call.

        Above the largest measured size it is the duration of that size. Requests are refused by this estimate: a size
        that was never tried may take less than a line through smaller ones says, and only trying shows it.
        """
        if not self._sorted:
            return 0.0
        return self.typical_s(min(rows, math.floor(self._sorted[-1][1].rows)))

    def least_s(self, rows: int) -> float:
        """Return the duration in seconds of a call that nothing delays; infinity before the first recorded call."""
        if self._sorted and rows <= self._sorted[0][1].rows:  # the result of `_interpolate` for most requests
            return self._sorted[0][1].least_s
        return self._interpolate(rows, _least_s)

    def _interpolate(self, rows: int, value_of: Callable[[_SizeCost], float]) -> float:
        """Below the smallest measured size, return the cost of that size, because a call costs time before its rows do.
        Above the largest size, continue the last line; with one measured size, in proportion to the rows.
        """
        low_rows, low_s, slope = 0.0, 0.0, math.inf
        for _, known in self._sorted:
            value = value_of(known)
            slope = (value - low_s) / (known.rows - low_rows)
            if rows <= known.rows:
                return low_s + slope * (rows - low_rows) if low_rows else value
            low_rows, low_s = known.rows, value
        if not low_rows:
            return math.inf
        return low_s + max(slope, _LEAST_SLOPE * low_s / low_rows) * (rows - low_rows)


def _typical_s(cost: _SizeCost) -> float:
    return cost.typical_s


def _least_s(cost: _SizeCost) -> float:
    return cost.least_s
