"""Count and log each answered request."""

from __future__ import annotations

from array import array
from collections import Counter as Counting
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from prometheus_client import Counter, Gauge, Histogram

from tableside.telemetry import access_log, logs
from tableside.telemetry.metrics import NO_MODEL, Metrics
from tableside.telemetry.request_trace import NO_PROTOCOL, RequestTrace
from tableside.telemetry.sampling import Sampling

PROBE_PATHS = frozenset(("/v2/health/live", "/v2/health/ready", "/ping", "/health", "/metrics"))
"""Paths that monitoring requests every few seconds. Their successful answers are logged at level debug."""
MAX_SECONDS_KEPT = 100_000
"""Times of requests that wait for `take_activity`, of all models together: 800 kB."""

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
        self._anomalies: _LabelCache[tuple[str, str], Counter] = _LabelCache(
            lambda column_kind: metrics.input_anomalies.labels(*labels, *column_kind)
        )
        self._seconds = metrics.request_seconds.labels(*labels)
        self._rows = metrics.rows.labels(*labels)

    def add(self, requests: Sequence[Answered]) -> None:
        """Count answered requests. The rows of a request count only if it succeeded."""
        stages, rows = self._stages, 0
        codes: Counting[tuple[str, int]] = Counting()
        anomalies: Counting[tuple[str, str]] = Counting()
        for request in requests:
            trace = request.trace
            codes[trace.protocol, request.status] += 1
            self._seconds.observe(request.seconds)
            for stage, spent_s in trace.stages.items():
                stages[stage].observe(spent_s)
            if request.status == 200:
                rows += trace.rows
            if trace.anomalies:
                anomalies.update(trace.anomalies)
            if trace.watch is not None and trace.counted:
                trace.watch.answered(trace, request.status, request.seconds)
        for code, count in codes.items():
            self._requests[code].inc(count)
        for column_kind, cells in anomalies.items():
            self._anomalies[column_kind].inc(cells)
        if rows:
            self._rows.inc(rows)


class InFlight:
    """The requests of one model that are being answered now.

    The gauge is set once at the event loop's next turn, not twice for each request.
    """

    def __init__(self, gauge: Gauge, set_later: Callable[[InFlight], None]) -> None:
        self._gauge = gauge
        self._set_later = set_later
        self._count = 0

    @property
    def count(self) -> int:
        """How many requests of the model are in flight."""
        return self._count

    def enter(self) -> None:
        """Count one request more."""
        self._count += 1
        self._set_later(self)

    def leave(self) -> None:
        """Count one request less."""
        self._count -= 1
        self._set_later(self)

    def set_gauge(self) -> None:
        """Set `tableside_requests_in_flight` to the count."""
        self._gauge.set(self._count)


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


@dataclass
class Activity:
    """The requests of one model since the last `take_activity`.

    errors: those answered with 5xx. seconds: how long each took; the first ones if there were too many.
    """

    requests: int = 0
    errors: int = 0
    seconds: array[float] = field(default_factory=lambda: array("d"))

    def add(self, requests: Sequence[Answered], most_seconds: int) -> int:
        """Count answered requests, and keep at most so many of their times. Return how many were kept."""
        self.requests += len(requests)
        for request in requests:
            if request.status >= 500:
                self.errors += 1
        kept = requests[:most_seconds]
        self.seconds.extend([request.seconds for request in kept])
        return len(kept)


class RequestMetrics:
    """Counts and logs the requests of one application.

    log_later: runs a function some milliseconds later on the event loop, so that several log lines are written at once.
    count_later: runs a function at the event loop's next turn. The requests that are answered in one turn are then
    counted and encoded in one go, which takes about half the time of doing it between two predictions, because code and
    data stay in the processor's caches. Both are None in a process without an event loop.
    log_one_in: one in this many requests gets an access line (`log.access_one_in`). fields: makes the fields of a line.
    """

    def __init__(
        self, metrics: Metrics, log_later: logs.CallLater | None, count_later: logs.CallLater | None = None,
        log_one_in: int = 1, fields: Callable[..., dict[str, object]] = access_log.fields,
    ) -> None:  # fmt: skip
        self._metrics = metrics
        self._fields = fields
        self._sampling = Sampling(log_one_in)
        self._counts: dict[tuple[str, str], VersionMetrics] = {}
        self._activity: dict[str, Activity] | None = None
        self._room_for_seconds = MAX_SECONDS_KEPT
        self._in_flight: dict[str, InFlight] = {}
        self._entered_or_left: set[InFlight] = set()
        self._lines = logs.LineBuffer(log_later)
        self._count_later = count_later
        self._answered: list[Answered] = []
        self._is_flush_due = False

    def in_flight(self, model: str) -> InFlight:
        """Return the count of a model's requests in flight. The repository must have it, see `RequestTrace.serves`."""
        found = self._in_flight.get(model)
        if found is None:
            gauge = self._metrics.in_flight.labels(model)
            found = self._in_flight[model] = InFlight(gauge, self._set_later)
        return found

    def is_busy(self) -> bool:
        """Whether a prediction is in flight: it waits, is decoded, computed or encoded."""
        return any(each.count for each in self._in_flight.values())

    def record(self, trace: RequestTrace, method: str, path: str, status: int, seconds: float) -> None:
        """Count and log one answered request, at the event loop's next turn if there is one."""
        self._answered.append(Answered(trace, method, path, status, seconds))
        self._flush_later()

    def flush(self) -> None:
        """Count and log the requests that have been recorded since the last call."""
        self._is_flush_due = False
        answered, self._answered = self._answered, []
        changed, self._entered_or_left = self._entered_or_left, set()
        for in_flight in changed:
            in_flight.set_gauge()
        by_version: defaultdict[tuple[str, str], list[Answered]] = defaultdict(list)
        for request in answered:
            if request.trace.protocol != NO_PROTOCOL:
                by_version[request.trace.model, request.trace.version].append(request)
        for version, requests in by_version.items():
            self._version_metrics(*version).add(requests)
            if self._activity is not None and version[0] != NO_MODEL:
                activity = self._activity.setdefault(version[0], Activity())
                self._room_for_seconds -= activity.add(requests, self._room_for_seconds)
        for request in answered:
            level = "debug" if request.status == 200 and request.path in PROBE_PATHS else "info"
            if self._lines.is_enabled(level) and self._is_sampled(request):
                self._lines.write(level, self._fields(*request, level))
        if lost := logs.dropped_lines():
            self._metrics.log_lines_dropped.inc(lost)

    def take_activity(self) -> dict[str, Activity]:
        """Return what each model has answered since the last call; nothing at the first one, which begins to count.

        Whoever has called it once has to go on. While the disk keeps it from doing so, the times of MAX_SECONDS_KEPT
        requests are kept, and further ones are counted without.
        """
        self._room_for_seconds = MAX_SECONDS_KEPT
        taken, self._activity = self._activity or {}, {}
        return taken

    def _is_sampled(self, request: Answered) -> bool:
        sampling = self._sampling
        return sampling.is_complete or sampling.includes(request.trace.request_id, request.status)

    def _set_later(self, in_flight: InFlight) -> None:
        self._entered_or_left.add(in_flight)
        self._flush_later()

    def _flush_later(self) -> None:
        if self._count_later is None:
            self.flush()
        elif not self._is_flush_due:
            self._is_flush_due = True
            self._count_later(self.flush)

    def _version_metrics(self, model: str, version: str) -> VersionMetrics:
        metrics = self._counts.get((model, version))
        if metrics is None:
            metrics = self._counts[model, version] = VersionMetrics(self._metrics, model, version)
        return metrics
