"""Prometheus metrics of one version's batcher and cache, and of model processes."""

from __future__ import annotations

import time

from tableside.batching.queue import DropReason
from tableside.model_process.environment_pools import Environments
from tableside.model_process.process_pool import SupervisedProcesses
from tableside.runtimes.router import RoutedRuntime
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.telemetry.metrics import Metrics

PROCESSES_EVERY_S = 1.0
"""How often a worker looks which model processes are running."""


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


def count_from_zero(metrics: Metrics, servable: Servable) -> None:
    """Show 0 for what has not happened to a version, where an alert asks for an increase.

    A counter that begins at its first count shows no increase, so that a first burst of failures would not be seen.
    """
    labels = (servable.name, str(servable.version))
    metrics.not_finite.labels(*labels)
    metrics.quarantined.labels(*labels)
    if isinstance(servable.runtime, RoutedRuntime):
        metrics.verifications.labels(*labels, "differed")


def count_load(metrics: Metrics, loaded: Servable) -> None:
    """Count a version that was loaded, or that has a problem, in `tableside_model_loads_total`."""
    is_loaded = loaded.state is State.READY
    for result, more in (("loaded", int(is_loaded)), ("refused", int(not is_loaded))):
        metrics.model_loads.labels(loaded.name, str(loaded.version), result).inc(more)


class ProcessMetrics:
    """The metrics of the environments that this worker uses. `update` is called often, on the event loop's thread."""

    def __init__(self, metrics: Metrics, environments: Environments) -> None:
        self._metrics = metrics
        self._environments = environments
        self._counted: dict[str, int] = {}
        self._next_s = 0.0

    def update(self) -> None:
        """Set `tableside_model_processes_up` and count `tableside_model_process_retries_total`, every second."""
        now_s = time.monotonic()
        if now_s < self._next_s:
            return
        self._next_s = now_s + PROCESSES_EVERY_S
        for processes in self._environments.in_use:
            if isinstance(processes, SupervisedProcesses):
                retries = processes.retries
                new = retries - self._counted.get(processes.name, 0)
                self._counted[processes.name] = retries
                self._metrics.model_processes_up.labels(processes.name).set(processes.running())
                self._metrics.model_process_retries.labels(processes.name).inc(new)
