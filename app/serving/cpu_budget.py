"""A share of one core for work that may wait: a token bucket over CPU time that was measured."""

from __future__ import annotations

import time
from collections.abc import Callable

BURST_S = 1.0
"""CPU seconds are saved up for as long as this gives them, so that a pause is no licence for a long burst."""


class CpuBudget:
    """Allows work while CPU seconds are left. Work of unknown length may overdraw it, and waits for that afterwards."""

    def __init__(self, share: float, clock: Callable[[], float] = time.monotonic) -> None:
        """share: of one core, more than 0. clock: the current time in seconds."""
        self._share, self._clock = share, clock
        self._left_s = self._most_s = share * BURST_S
        self._at_s = clock()

    @property
    def has_left(self) -> bool:
        """Whether work may begin now."""
        now_s = self._clock()
        self._left_s = min(self._most_s, self._left_s + self._share * (now_s - self._at_s))
        self._at_s = now_s
        return self._left_s > 0

    def spend(self, cpu_s: float) -> None:
        """Take what work has cost."""
        self._left_s -= cpu_s
