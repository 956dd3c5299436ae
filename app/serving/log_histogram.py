"""A histogram with logarithmic buckets, for latencies and differences: small, mergeable, exact to 5 %."""

from __future__ import annotations

import math

import msgspec
import numpy as np

from tableside.contracts.array_type import Array

_GROWTH = 1.1
"""A bucket's upper end divided by its lower end: a quantile is off by 5 % at most."""
_LOG_GROWTH = math.log(_GROWTH)
_SMALLEST = 1e-12
"""Smaller numbers count as this one."""


class LogHistogram(msgspec.Struct, omit_defaults=True):
    """How many numbers fell into each bucket. zeros: those that were zero. buckets: the others, by the logarithm."""

    zeros: int = 0
    buckets: dict[int, int] = {}

    @property
    def count(self) -> int:
        """How many numbers were added."""
        return self.zeros + sum(self.buckets.values())

    def add(self, number: float) -> None:
        """Add a number that is not negative."""
        if number <= 0:
            self.zeros += 1
            return
        at = math.floor(math.log(max(number, _SMALLEST)) / _LOG_GROWTH)
        self.buckets[at] = self.buckets.get(at, 0) + 1

    def add_all(self, numbers: Array) -> None:
        """Add an array of finite numbers that are not negative, of any shape."""
        numbers = np.asarray(numbers, dtype=np.float64).ravel()
        positive = numbers[numbers > 0]
        self.zeros += len(numbers) - len(positive)
        places, counts = np.unique(np.floor(np.log(np.maximum(positive, _SMALLEST)) / _LOG_GROWTH), return_counts=True)
        for at, count in zip(places.tolist(), counts.tolist(), strict=True):
            self.buckets[int(at)] = self.buckets.get(int(at), 0) + count

    def merge(self, other: LogHistogram) -> None:
        """Add what another histogram has counted."""
        self.zeros += other.zeros
        for at, count in other.buckets.items():
            self.buckets[at] = self.buckets.get(at, 0) + count

    def quantile(self, share: float) -> float | None:
        """Return the number below which this share of all numbers lies; None if there are none."""
        total = self.count
        if not total:
            return None
        left = share * total - self.zeros
        if left <= 0:
            return 0.0
        for at in sorted(self.buckets):
            left -= self.buckets[at]
            if left <= 0:
                return math.exp((at + 0.5) * _LOG_GROWTH)
        return math.exp((max(self.buckets) + 0.5) * _LOG_GROWTH)
