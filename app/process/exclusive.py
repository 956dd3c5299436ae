"""Lets one request of a worker run while no other is in hand."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

GATE_S = 2.0
"""How long the requests of a worker wait for one that runs alone, or that waits until it can."""


class Exclusive:
    """Counts the requests in hand. Moments are seconds of the monotonic clock.

    Only the greenlets of one event loop may use it: nothing is locked, because each request passes here twice.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.inside = 0
        """How many requests are in hand. Who adds one without `enter` must have seen that `wanted` is 0."""
        self.wanted = 0
        """How many requests run alone or wait for it. While it is 0, no request waits."""

    def enter(self, deadline_at_s: float) -> None:
        """Count a request. Waits first while another one is to run alone, at most GATE_S."""
        if self.wanted:
            self._wait(min(time.monotonic() + GATE_S, deadline_at_s), lambda: not self.wanted)
        self.inside += 1

    def enter_alone(self, deadline_at_s: float) -> bool:
        """Wait until no request is in hand, and count this one. Return False if the deadline passes before."""
        self.wanted += 1
        if not self._wait(deadline_at_s, lambda: not self.inside):
            self.wanted -= 1
            self._tell()
            return False
        self.inside += 1
        return True

    def leave(self, alone: bool) -> None:
        """Count a request no longer. alone: whether it came in by `enter_alone`."""
        self.inside -= 1
        if self.wanted:
            self.wanted -= alone
            self._tell()

    def _wait(self, give_up_at_s: float, condition: Callable[[], bool]) -> bool:
        with self._changed:
            while not condition():
                left_s = give_up_at_s - time.monotonic()
                if left_s <= 0:
                    return False
                self._changed.wait(left_s)
        return True

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
