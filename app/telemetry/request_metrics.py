"""Count and log each answered request."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from prometheus_client import Counter, Histogram

from tableside.telemetry import access_log, logs
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.request_trace import RequestTrace

PROBE_PATHS = frozenset(("/v2/health/live", "/v2/health/ready", "/ping", "/metrics"))
"""Paths that monitoring requests every few seconds. Their successful answers are logged at level debug."""

K = TypeVar("K")
V = TypeVar("V")


class VersionMetrics:
    """The metrics of one version. Their labels are resolved once, because each lookup takes microseconds."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        labels = (model, version)
        self._requests: _LabelCache[tuple[str, int], Counter] = _LabelCache(
            lambda key: metrics.requests.labels(*labels, key[0], str(key[1]))
        )
        self._stages: _LabelCache[str, Histogram] = _LabelCache(
            lambda stage: metrics.stage_seconds.labels(*labels, stage)
        )
        self._seconds = metrics.request_seconds.labels(*labels)
        self._rows = metrics.rows.labels(*labels)
        self.in_flight = metrics.in_flight.labels(model)

    def add(self, request: Answered) -> None:
        """Count one answered request. Rows count only if it succeeded."""
        trace, stages = request.trace, self._stages
        self._requests[trace.protocol, request.status].inc()
        self._seconds.observe(request.seconds)
        for stage, spent_s in trace.stages.items():
            stages[stage].observe(spent_s)
        if request.status == 200 and trace.rows:
            self._rows.inc(trace.rows)


class _LabelCache(dict[K, V]):
    """A dictionary that makes the value of a missing key and keeps it."""

    def __init__(self, make: Callable[[K], V]) -> None:
        self._make = make

    def __missing__(self, key: K) -> V:
        value = self[key] = self._make(key)
        return value


class Answered(NamedTuple):
    """A request that has been answered. seconds: how long it took."""

    trace: RequestTrace
    method: str
    path: str
    status: int
    seconds: float


class RequestMetrics:
    """Counts and logs the requests of one application.

    log_later: runs a function some milliseconds later on the event loop, so that several log lines are written at once.
    count_later: runs a function at the event loop's next turn. The requests that are answered in one turn are then
    counted and encoded in one go, which takes about half the time of doing it between two predictions, because code and
    data stay in the processor's caches. Both are None in a process without an event loop.
    """

    def __init__(
        self, metrics: Metrics, log_later: logs.CallLater | None, count_later: logs.CallLater | None = None
    ) -> None:
        self._metrics = metrics
        self._counts: dict[tuple[str, str], VersionMetrics] = {}
        self._lines = logs.LineBuffer(log_later)
        self._count_later = count_later
        self._answered: list[Answered] = []

    def counts(self, model: str, version: str) -> VersionMetrics:
        """Return the metrics of a version. The repository must have it, see `RequestTrace.serves`."""
        metrics = self._counts.get((model, version))
        if metrics is None:
            metrics = self._counts[model, version] = VersionMetrics(self._metrics, model, version)
        return metrics

    def record(self, trace: RequestTrace, method: str, path: str, status: int, seconds: float) -> None:
        """Count and log one answered request, at the event loop's next turn if there is one."""
        self._answered.append(Answered(trace, method, path, status, seconds))
        if self._count_later is None:
            self.flush()
        elif len(self._answered) == 1:
            self._count_later(self.flush)

    def flush(self) -> None:
        """Count and log the requests that have been recorded since the last call."""
        answered, self._answered = self._answered, []
        for request in answered:
            if request.trace.counted:
                self.counts(request.trace.model, request.trace.version).add(request)
        for request in answered:
            level = "debug" if request.status == 200 and request.path in PROBE_PATHS else "info"
            if self._lines.is_enabled(level):
                self._lines.write(level, access_log.fields(*request, level))
