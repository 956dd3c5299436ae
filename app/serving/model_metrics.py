"""What a servable's batcher and cache say of themselves, as metrics."""

from __future__ import annotations

from tableside.batching.queue import DropReason
from tableside.telemetry.metrics import Metrics


class PrometheusBatchMetrics:
    """Counts for one version. The children are looked up once."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        labels = (name, str(version))
        self._rows = metrics.batch_rows.labels(*labels)
        self._waiting = metrics.queue_rows.labels(*labels)
        self._dropped = {reason: metrics.dropped.labels(*labels, reason.value) for reason in DropReason}

    def ran(self, rows: int) -> None:
        """See BatchMetrics."""
        self._rows.observe(rows)

    def waiting(self, rows: int) -> None:
        """See BatchMetrics."""
        self._waiting.set(rows)

    def dropped(self, reason: DropReason) -> None:
        """See BatchMetrics."""
        self._dropped[reason].inc()


class PrometheusCacheMetrics:
    """Counts for one version that has a cache."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        labels = (name, str(version))
        self._looked = {hit: metrics.cache_requests.labels(*labels, "hit" if hit else "miss") for hit in (False, True)}
        self._bytes = metrics.cache_bytes.labels(*labels)

    def looked(self, hit: bool) -> None:
        """See CacheMetrics."""
        self._looked[hit].inc()

    def held(self, more_bytes: int) -> None:
        """See CacheMetrics."""
        self._bytes.inc(more_bytes)
