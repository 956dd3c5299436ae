"""The spans of one traced request, made from its recorded times after it was answered.

Names and attributes follow OpenTelemetry's semantic conventions for HTTP servers
(https://opentelemetry.io/docs/specs/semconv/http/http-spans/); those of the model begin with `tableside.`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tableside.telemetry.access_log import MAX_PATH
from tableside.telemetry.correlation import printable
from tableside.telemetry.sampled_trace import SampledTrace
from tableside.telemetry.trace_context import new_span_id

Attributes = Mapping[str, str | int | float | bool]
METHODS = frozenset(("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"))
ACCEPT_ABOVE_S = 0.002
"""Shorter waits for a worker have no span: nginx states its times in whole milliseconds."""


class Span(NamedTuple):
    """One span. Times are nanoseconds since 1970. parent_id: 0 for none.

    is_server: whether its kind is SERVER; the others are INTERNAL.
    """

    name: str
    span_id: int
    parent_id: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    is_server: bool = False
    is_error: bool = False


class TracedRequest(NamedTuple):
    """All spans of one request, the server's span first. state: the caller's `tracestate`."""

    trace_id: int
    state: str
    spans: Sequence[Span]


class Answer(NamedTuple):
    """How a request was answered. seconds: how long it took. route: its URL rule, such as `/v2/models/{name}/infer`;
    empty if no rule fits. scheme: `http` or `https`.
    """

    method: str
    path: str
    route: str
    scheme: str
    status: int
    seconds: float


def of_request(trace: SampledTrace, answer: Answer, epoch_s: float) -> TracedRequest:
    """Return the spans of a request. epoch_s: the time since 1970 at which the monotonic clock was 0, in seconds."""
    context = trace.context
    started_s, ended_s = trace.started_s, trace.started_s + answer.seconds
    method = answer.method if answer.method in METHODS else "HTTP"
    server = Span(
        f"{method} {answer.route}" if answer.route else method, context.span_id, context.parent_id,
        _ns(started_s, epoch_s), _ns(ended_s, epoch_s), _attributes(trace, answer),
        is_server=True, is_error=answer.status >= 500,
    )  # fmt: skip
    stages = [
        Span(name, new_span_id(), context.span_id, _ns(start_s, epoch_s), _ns(end_s, epoch_s), {})
        for name, start_s, end_s in stage_times(trace, ended_s)
    ]
    return TracedRequest(context.trace_id, context.state, (server, *stages))


def stage_times(trace: SampledTrace, ended_s: float) -> list[tuple[str, float, float]]:
    """Return the stages in their order, each with its begin and end in seconds of the monotonic clock.

    `decode` and `encode` are noted when they end. `queue` and the call that follows are noted together, when the
    caller goes on: some time after the call, if the event loop was busy. They begin where `decode` ended.
    """
    found: list[tuple[str, float, float]] = []
    at_s = trace.started_s
    if trace.waited_s >= ACCEPT_ABOVE_S:
        found.append(("accept", at_s, at_s + trace.waited_s))
    for stage, spent_s in trace.stages.items():
        noted_s = trace.stages.noted_at_s[stage]
        start_s = noted_s - spent_s
        if stage == "queue":
            start_s = max(trace.stages.noted_at_s.get("decode", start_s), trace.started_s)
        elif stage in ("predict", "cache") and "queue" in trace.stages:
            start_s = at_s
        start_s = max(start_s, trace.started_s)
        at_s = min(start_s + spent_s, noted_s, ended_s)
        found.append((stage, min(start_s, at_s), at_s))
    return found


def _attributes(trace: SampledTrace, answer: Answer) -> dict[str, str | int | float | bool]:
    found: dict[str, str | int | float | bool] = {
        "http.request.method": answer.method if answer.method in METHODS else "_OTHER",
        "url.path": printable(answer.path[:MAX_PATH]),
        "url.scheme": answer.scheme,
        "http.response.status_code": answer.status,
        "tableside.request_id": trace.request_id,
    }
    if answer.route:
        found["http.route"] = answer.route
    if answer.status >= 500:
        found["error.type"] = trace.error or str(answer.status)
    if trace.counted:
        found |= {
            "tableside.model": trace.model,
            "tableside.version": trace.version,
            "tableside.generation": trace.generation,
            "tableside.protocol": trace.protocol,
            "tableside.rows": trace.rows,
        }
    return found


def _ns(moment_s: float, epoch_s: float) -> int:
    return int((moment_s + epoch_s) * 1e9)
