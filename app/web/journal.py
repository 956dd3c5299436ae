"""What is counted and logged of each answered request."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from app import logs
from app.metrics import Metrics
from app.tallies import Adder, Later, Observer
from app.web.trace import Trace

QUIET = frozenset(("/v2/health/live", "/v2/health/ready", "/ping", "/metrics"))
"""Paths that are asked every few seconds; their good answers are logged as debug."""


class Counts:
    """The metrics of one version, looked up once."""

    def __init__(self, metrics: Metrics, model: str, version: str) -> None:
        self._metrics, self._labels = metrics, (model, version)
        self._requests: dict[tuple[str, int], Any] = {}
        self._stages: dict[str, Observer] = {}
        tallies = metrics.tallies
        self._seconds = tallies.histogram(metrics.request_seconds.labels(model, version))
        self._rows = tallies.counter(metrics.rows.labels(model, version))
        self.in_flight: Adder = tallies.counter(metrics.in_flight.labels(model))

    def add(self, trace: Trace, status: int, seconds: float) -> None:
        """Count one answered request."""
        key = (trace.protocol, status)
        requests = self._requests.get(key)
        if requests is None:
            labels = (*self._labels, trace.protocol, str(status))
            requests = self._requests[key] = self._metrics.requests.labels(*labels)
        requests.inc()  # at once: who was answered was counted, whatever happens next
        self._seconds.observe(seconds)
        for stage, spent_s in trace.stages.items():
            self._stage(stage).observe(spent_s)
        if status == 200 and trace.rows:
            self._rows.inc(trace.rows)

    def _stage(self, stage: str) -> Observer:
        found = self._stages.get(stage)
        if found is None:
            child = self._metrics.stage_seconds.labels(*self._labels, stage)
            found = self._stages[stage] = self._metrics.tallies.histogram(child)
        return found


class Journal:
    """Counts and logs of one application."""

    def __init__(self, metrics: Metrics, later: Later) -> None:
        self._metrics = metrics
        self._counts: dict[tuple[str, str], Counts] = {}
        self._lines = logs.Lines(later)

    def counts(self, model: str, version: str) -> Counts:
        """The metrics of a version the repository has."""
        found = self._counts.get((model, version))
        if found is None:
            found = self._counts[model, version] = Counts(self._metrics, model, version)
        return found

    def note(self, trace: Trace, method: str, path: str, status: int, seconds: float) -> None:
        """Count and log one answered request."""
        if trace.counted:
            self.counts(trace.model, trace.version).add(trace, status, seconds)
        level = "debug" if status == 200 and path in QUIET else "info"
        if self._lines.wants(level):
            self._lines.write(level, _fields(trace, method, path, status, seconds, level))


def _fields(trace: Trace, method: str, path: str, status: int, seconds: float, level: str) -> dict[str, object]:
    line: dict[str, object] = {
        "event": "request", "source": "access", "method": method, "path": path[:300], "status": status,
        "ms": round(seconds * 1000, 3),
    }  # fmt: skip
    if trace.counted:
        line["model"], line["version"] = trace.model, trace.version
        line["protocol"], line["rows"] = trace.protocol, trace.rows
        for stage, spent_s in trace.stages.items():
            line[f"{stage}_ms"] = round(spent_s * 1000, 3)
    if trace.error:
        line["error"] = trace.error
    line["request_id"], line["level"], line["time"] = trace.request_id, level, datetime.now(UTC)
    return line
