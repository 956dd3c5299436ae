"""The interface through which a batcher reports its calls, its queue and its dropped requests."""

from __future__ import annotations

from typing import Protocol

from tableside.batching.queue import DropReason


class BatchMetrics(Protocol):
    """Receives the events of one batcher. Called on the event loop's thread, never from native threads."""

    def ran(self, rows: int) -> None:
        """Record one call of the estimator with `rows` rows."""

    def waiting(self, rows: int) -> None:
        """Record that `rows` rows are in the queue now."""

    def dropped(self, reason: DropReason) -> None:
        """Record a request that never reached the estimator, with the reason."""


class NoBatchMetrics:
    """Ignores every event. It is the default of a batcher that no application has wired to metrics."""

    def ran(self, rows: int) -> None:
        """Ignore the call."""

    def waiting(self, rows: int) -> None:
        """Ignore the length of the queue."""

    def dropped(self, reason: DropReason) -> None:
        """Ignore the dropped request."""
