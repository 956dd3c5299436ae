"""Lets one request of a worker run while no other is in hand."""

from __future__ import annotations

import threading
import time

GATE_S = 2.0
"""How long the requests of a worker wait for one that runs alone, or that waits until it can."""


class Exclusive:
    """Counts the requests in hand. Moments are seconds of the monotonic clock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._wanted = 0
        """How many requests run alone or wait for it. While it is 0, no request waits."""

    def enter(self, deadline_at_s: float) -> None:
        """Count a request. Waits first while another one is to run alone, at most GATE_S."""
        with self._changed:
            if self._wanted:
                give_up_at_s = min(time.monotonic() + GATE_S, deadline_at_s)
                while self._wanted and (left_s := give_up_at_s - time.monotonic()) > 0:
                    self._changed.wait(left_s)
            self._inside += 1

    def enter_alone(self, deadline_at_s: float) -> bool:
        """Wait until no request is in hand, and count this one. Return False if the deadline passes before."""
        with self._changed:
            self._wanted += 1
            while self._inside:
                left_s = deadline_at_s - time.monotonic()
                if left_s <= 0:
                    self._wanted -= 1
                    self._changed.notify_all()
                    return False
                self._changed.wait(left_s)
            self._inside += 1
        return True

    def leave(self, alone: bool) -> None:
        """Count a request no longer. alone: whether it came in by `enter_alone`."""
        with self._changed:
            self._inside -= 1
            self._wanted -= alone
            if self._wanted or alone:
                self._changed.notify_all()
