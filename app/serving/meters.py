"""What a servable's batcher and cache say of themselves, as metrics."""

from __future__ import annotations

from app.batching.queue import Dropped
from app.metrics import Metrics


class PromMeter:
    """Counts for one version. The children are looked up once."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        labels = (name, str(version))
        self._rows = metrics.batch_rows.labels(*labels)
        self._waiting = metrics.queue_rows.labels(*labels)
        self._dropped = {reason: metrics.dropped.labels(*labels, reason.value) for reason in Dropped}

    def ran(self, rows: int) -> None:
        """See Meter."""
        self._rows.observe(rows)

    def waiting(self, rows: int) -> None:
        """See Meter."""
        self._waiting.set(rows)

    def dropped(self, reason: Dropped) -> None:
        """See Meter."""
        self._dropped[reason].inc()


class PromCacheMeter:
    """Counts for one version that has a cache."""

    def __init__(self, metrics: Metrics, name: str, version: int) -> None:
        labels = (name, str(version))
        self._looked = {hit: metrics.cache_requests.labels(*labels, "hit" if hit else "miss") for hit in (False, True)}
        self._bytes = metrics.cache_bytes.labels(*labels)

    def looked(self, hit: bool) -> None:
        """See CacheMeter."""
        self._looked[hit].inc()

    def held(self, more_bytes: int) -> None:
        """See CacheMeter."""
        self._bytes.inc(more_bytes)
