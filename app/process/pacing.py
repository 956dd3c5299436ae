"""Runs work after a change, but not so often that it takes a large part of the time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SHARE = 20
"""After work that took t seconds, the next begins SHARE * t seconds later at the earliest."""
MAX_PAUSE_S = 1.0


class Paced:
    """Work that is done after each change at last: at once, or after a pause for all changes in between."""

    def __init__(self, work: Callable[[], None]) -> None:
        self._work = work
        self._not_before_s = 0.0
        self._later: threading.Timer | None = None
        self._lock = threading.RLock()

    def write(self, now: bool = False) -> None:
        """Do the work now if the pause is over or `now` is set, and otherwise after it."""
        with self._lock:
            wait_s = self._not_before_s - time.monotonic()
            if now or wait_s <= 0:
                self._do()
            elif self._later is None:
                self._later = threading.Timer(wait_s, self._do)
                self._later.daemon = True
                self._later.start()

    def _do(self) -> None:
        with self._lock:
            later, self._later = self._later, None
            if later is not None:
                later.cancel()
            started_s = time.monotonic()
            self._work()
            ended_s = time.monotonic()
            self._not_before_s = ended_s + min(MAX_PAUSE_S, SHARE * (ended_s - started_s))
