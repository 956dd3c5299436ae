"""OpenTelemetry traces of one application. Only an application whose settings have `tracing.endpoint` imports this.

Spans are made from the recorded times when a request has been answered, so that a request that is not traced costs
the decision and nothing else.
"""

from __future__ import annotations

import os
import platform
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tableside import __version__
from tableside.settings import Settings
from tableside.telemetry import access_log, logs, otlp, spans
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.otlp_receiver import Receiver, read_headers
from tableside.telemetry.request_metrics import PROBE_PATHS, Answered, RequestMetrics
from tableside.telemetry.request_trace import RequestTrace
from tableside.telemetry.sampled_trace import SampledTrace
from tableside.telemetry.span_exporter import DROP_REASONS, END_S, SpanExporter
from tableside.telemetry.trace_context import Sampler

RouteOf = Callable[[str, str], str]
"""Returns the URL rule of a method and a path, such as `/v2/models/{name}/infer`; empty if none fits."""


class Tracing:
    """The traces of one application in one process.

    Raises SettingsError if the headers file cannot be used.
    """

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        tracing = settings.tracing
        headers = Path(tracing.headers_file).absolute() if tracing.headers_file else None
        if headers is not None:
            read_headers(headers)  # a mistake in it ends the start, and not the first message
        self.route_of: RouteOf = lambda method, path: ""
        """Set by the factory, when the routes are known."""
        self.slot = ""
        """The worker's slot; empty outside of the stack's workers."""
        self._settings = settings
        self._sampler = Sampler(tracing.sample_ratio, PROBE_PATHS.__contains__)
        self._scheme = "https" if settings.server.tls_certificate else "http"
        self._counts = _Counts(metrics)
        self._exporter = SpanExporter(
            Receiver(tracing.endpoint, headers, tracing.timeout_s), self._encode, self._counts,
            tracing.max_queue_requests,
        )  # fmt: skip
        self._resource: Mapping[str, str | int] | None = None

    def begin(self, request_id: str, started_s: float, waited_s: float, environ: Mapping[str, Any]) -> RequestTrace:
        """Return a new trace: a SampledTrace if the request is traced. The arguments are those of RequestTrace."""
        context = self._sampler.context_of(environ)
        if context is None:
            return RequestTrace(request_id, started_s, waited_s, environ=environ)
        self._exporter.start()
        return SampledTrace(request_id, started_s, waited_s, environ=environ, context=context)

    def finish(self, requests: Sequence[Answered]) -> None:
        """Export the spans of those requests that are traced. Never raises."""
        epoch_s = 0.0
        for request in requests:
            trace = request.trace
            if isinstance(trace, SampledTrace):
                epoch_s = epoch_s or time.time() - time.monotonic()
                try:
                    self._exporter.add(self._spans_of(trace, request, epoch_s))
                except Exception as problem:  # noqa: BLE001 - the request has its answer, and the others have theirs
                    self._exporter.lose(1, type(problem).__name__)

    def _spans_of(self, trace: SampledTrace, request: Answered, epoch_s: float) -> spans.TracedRequest:
        method, path = request.method, request.path
        answer = spans.Answer(method, path, self.route_of(method, path), self._scheme, request.status, request.seconds)
        return spans.of_request(trace, answer, epoch_s)

    def stop(self, timeout_s: float = END_S) -> None:
        """Send the spans that wait, for at most `timeout_s` seconds."""
        self._exporter.stop(timeout_s)

    def _encode(self, requests: Sequence[spans.TracedRequest]) -> bytes:
        if self._resource is None:
            self._resource = resource(self._settings, self.slot)
        return otlp.encode(self._resource, requests)


class TracedRequestMetrics(RequestMetrics):
    """Counts, logs and traces the requests of one application."""

    def __init__(
        self, metrics: Metrics, log_later: logs.CallLater | None, count_later: logs.CallLater | None, log_one_in: int,
        tracing: Tracing,
    ) -> None:  # fmt: skip
        super().__init__(metrics, log_later, count_later, log_one_in, fields=line_fields)
        self._tracing = tracing

    def flush(self) -> None:
        """Count, log and trace the requests that have been recorded since the last call."""
        answered = self._answered
        super().flush()
        self._tracing.finish(answered)


def line_fields(
    trace: RequestTrace, method: str, path: str, status: int, seconds: float, level: str
) -> dict[str, object]:
    """Return the fields of the access line, and the ids of the span if the request is traced."""
    line = access_log.fields(trace, method, path, status, seconds, level)
    if isinstance(trace, SampledTrace):
        line |= {"trace_id": f"{trace.context.trace_id:032x}", "span_id": f"{trace.context.span_id:016x}"}
    return line


def resource(settings: Settings, slot: str) -> Mapping[str, str | int]:
    """Return the attributes of this process, as OpenTelemetry's semantic conventions name them.

    slot: the worker's slot. The operator's attributes win over those of this server.
    """
    host = socket.gethostname()
    given = dict(each.split("=", 1) for each in settings.tracing.resource_attributes)
    return {
        "service.version": __version__,
        "service.instance.id": f"{host}:{settings.run_dir}:{slot or os.getpid()}",
        "host.name": host,
        "process.pid": os.getpid(),
        "process.runtime.name": platform.python_implementation().lower(),
        "process.runtime.version": platform.python_version(),
        **given,
        "service.name": settings.tracing.service_name,
    }


class _Counts:
    def __init__(self, metrics: Metrics) -> None:
        self.sent = metrics.spans_sent.inc
        self._dropped = {reason: metrics.spans_dropped.labels(reason) for reason in DROP_REASONS}

    def dropped(self, reason: str, spans: int) -> None:
        self._dropped[reason].inc(spans)
