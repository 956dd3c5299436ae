"""Counts gathered in memory and written to the shared metric files once a turn of the hub, for many requests at once.

One observation is two writes into a mapped file, each under a lock; a prediction makes a dozen. A SIGKILL loses what
the current turn gathered. Without a hub nothing is gathered: prometheus-client's own objects are handed out.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
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


class _Tally(Protocol):
    def write(self) -> None:
        """Hand over what was gathered."""


class Tallies:
    """Hands out gathering histograms and counters, and has them written by `later`."""

    def __init__(self, later: Later = at_once) -> None:
        self._later = later
        self._dirty: list[_Tally] = []

    def histogram(self, child: Any) -> Observer:
        """child: a histogram of prometheus-client with its labels given."""
        return child if self._later is at_once else _Histogram(child, self)

    def counter(self, child: Any) -> Adder:
        """child: a counter or gauge of prometheus-client with its labels given."""
        return child if self._later is at_once else _Counter(child, self)

    def note(self, tally: _Tally) -> None:
        """This one has something to write."""
        self._dirty.append(tally)
        if len(self._dirty) == 1:
            self._later(self.write)

    def write(self) -> None:
        """Write all that was gathered."""
        dirty, self._dirty = self._dirty, []
        for tally in dirty:
            with suppress(Exception):  # a metric that cannot be written must not end the hub's turn
                tally.write()


class _Histogram:
    __slots__ = ("_bounds", "_child", "_counts", "_owner", "_sum")

    def __init__(self, child: Any, owner: Tallies) -> None:
        self._child, self._owner = child, owner
        self._bounds = child._upper_bounds
        self._counts: dict[int, int] = {}
        self._sum = 0.0

    def observe(self, amount: float) -> None:
        """See Observer."""
        counts, at = self._counts, bisect_left(self._bounds, amount)
        is_first = not counts
        counts[at] = counts.get(at, 0) + 1
        self._sum += amount
        if is_first:
            self._owner.note(self)

    def write(self) -> None:
        """See _Tally."""
        counts, total, self._counts, self._sum = self._counts, self._sum, {}, 0.0
        self._child._sum.inc(total)
        for at, count in counts.items():
            self._child._buckets[at].inc(count)


class _Counter:
    __slots__ = ("_child", "_is_noted", "_owner", "_sum")

    def __init__(self, child: Any, owner: Tallies) -> None:
        self._child, self._owner = child, owner
        self._sum = 0.0
        self._is_noted = False

    def inc(self, amount: float = 1) -> None:
        """See Adder."""
        self._sum += amount
        if not self._is_noted:
            self._is_noted = True
            self._owner.note(self)

    def write(self) -> None:
        """See _Tally."""
        total, self._sum, self._is_noted = self._sum, 0.0, False
        if total:
            self._child.inc(total)
