"""Prometheus metrics of one version's batcher and cache."""

from __future__ import annotations

from tableside.batching.queue import DropReason
from tableside.telemetry.metrics import Metrics


class PrometheusBatchMetrics:
    """The BatchMetrics of one version. The labelled children are looked up once, not for each request."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        labels = (name, str(version))
        self._rows = metrics.batch_rows.labels(*labels)
        self._waiting = metrics.queue_rows.labels(*labels)
        self._dropped = {reason: metrics.dropped.labels(*labels, reason.value) for reason in DropReason}

    def ran(self, rows: int) -> None:
        """Observe the rows of a call in `tableside_batch_rows`."""
        self._rows.observe(rows)

    def waiting(self, rows: int) -> None:
        """Set `tableside_queue_rows`."""
        self._waiting.set(rows)

    def dropped(self, reason: DropReason) -> None:
        """Count a request in `tableside_dropped_total`."""
        self._dropped[reason].inc()


class PrometheusCacheMetrics:
    """The CacheMetrics of one version. Made only for versions that have a cache."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        labels = (name, str(version))
        self._looked = {hit: metrics.cache_requests.labels(*labels, "hit" if hit else "miss") for hit in (False, True)}
        self._bytes = metrics.cache_bytes.labels(*labels)

    def looked(self, hit: bool) -> None:
        """Count a request in `tableside_cache_requests_total`, as a hit or a miss."""
        self._looked[hit].inc()

    def held(self, more_bytes: int) -> None:
        """Add to `tableside_cache_bytes`."""
        self._bytes.inc(more_bytes)
