"""Counting in the files that all workers share, where their numbers lie.

prometheus-client takes a lock, asks for the process's number and packs bytes to add to a number in a mapped file: 4 us,
and a prediction adds a dozen times. A cell here is the number's place in the mapping: adding takes a tenth of one.
Two rules make that right:

- Only the hub's thread counts, so nothing comes between reading and writing. Elsewhere, and where metrics lie in the
  process's own memory, prometheus-client's own objects are handed out, which are safe for threads.
- What has cells is written to by cells only, however many: prometheus-client keeps a copy of each number it wrote, and
  would write that copy back. Cells keep none.

Other processes see no number half written: storing in a memoryview of doubles copies eight aligned bytes at once. (The
zero that prometheus-client warns of comes from struct.pack_into, which clears the place first.)
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Protocol

Later = Callable[[Callable[[], None]], None]
"""Runs a function soon, on the caller's hub. What it is given must not raise."""


def at_once(work: Callable[[], None]) -> None:
    """Without a hub there are no turns: it is done now."""
    work()


class Observer(Protocol):
    """A histogram."""

    def observe(self, amount: float) -> None:
        """Note a value."""


class Adder(Protocol):
    """A counter, or a gauge."""

    def inc(self, amount: float = 1) -> None:
        """Add to it."""


class Level(Adder, Protocol):
    """A gauge."""

    def set(self, value: float) -> None:
        """Make it this."""


class Tallies:
    """Hands out what is counted with: a metric's child of some labels. on_hub: whether one thread alone counts in this
    process.
    """

    def __init__(self, on_hub: bool = False) -> None:
        self._on_hub = on_hub

    def histogram(self, family: Any, *labels: str) -> Observer:
        """family: a histogram of prometheus-client."""
        child = family.labels(*labels)
        return _Histogram(child) if self._has_cells(child._sum) else child

    def counter(self, family: Any, *labels: str) -> Adder:
        """family: a counter of prometheus-client."""
        return self.gauge(family, *labels)

    def gauge(self, family: Any, *labels: str) -> Level:
        """family: a gauge of prometheus-client."""
        child = family.labels(*labels)
        return _Cell(child._value) if self._has_cells(child._value) else child

    def _has_cells(self, value: Any) -> bool:
        return self._on_hub and bool(value._multiprocess)


def _numbers(value: Any) -> memoryview[float]:
    """The file in which the value lies, as doubles. When prometheus-client makes the file larger it maps it anew; this
    mapping of the same pages stays.
    """
    return memoryview(value._file._m).cast("d")


def _place(value: Any) -> int:
    """Which of the file's doubles the value is."""
    return int(value._file._positions[value._key]) // 8


class _Cell:
    __slots__ = ("_at", "_numbers")

    def __init__(self, value: Any) -> None:
        self._numbers, self._at = _numbers(value), _place(value)

    def inc(self, amount: float = 1) -> None:
        """See Adder."""
        self._numbers[self._at] += amount

    def set(self, value: float) -> None:
        """See Level."""
        self._numbers[self._at] = value


class _Histogram:
    """Each bucket counts what fell into it alone; prometheus-client adds them up when it is asked."""

    __slots__ = ("_bounds", "_buckets", "_numbers", "_sum")

    def __init__(self, child: Any) -> None:
        self._bounds = child._upper_bounds
        self._numbers, self._sum = _numbers(child._sum), _place(child._sum)
        self._buckets = [_place(bucket) for bucket in child._buckets]

    def observe(self, amount: float) -> None:
        """See Observer."""
        numbers = self._numbers
        numbers[self._buckets[bisect_left(self._bounds, amount)]] += 1.0
        numbers[self._sum] += amount
