"""Begins a request's trace when the request arrives, and records the trace once when it is answered."""

from __future__ import annotations

import time
from wsgiref.types import WSGIEnvironment

import structlog
from flask import Flask, Response, g, request

from tableside.telemetry import correlation
from tableside.telemetry.request_trace import RequestTrace
from tableside.web.deadlines import age_s
from tableside.web.extensions import Extensions, extensions


def current_trace() -> RequestTrace:
    """The trace of the request that Flask dispatches now."""
    trace: RequestTrace = g.trace
    return trace


def begin(environ: WSGIEnvironment, parts: Extensions) -> RequestTrace:
    """A new trace. The request's time starts when nginx received it, where nginx is in front."""
    waited_s = age_s(environ, parts.settings.server)
    return parts.new_trace(parts.request_ids.of(environ), time.monotonic() - waited_s, waited_s, environ=environ)


def begin_request() -> None:
    """`before_request` hook: begin a trace, and bind the request's id to every log line until the request ends."""
    g.trace = begin(request.environ, extensions())
    structlog.contextvars.bind_contextvars(request_id=g.trace.request_id)


def end_request(response: Response) -> Response:
    """`after_request` hook: count and log the request, and send its id, the caller's own ids and what has answered."""
    trace: RequestTrace | None = g.get("trace")
    if trace is None:
        return response
    response.headers["X-Request-ID"] = trace.request_id
    response.headers.extend(trace.served())
    response.headers.extend(correlation.echoed(request.environ))
    seconds = time.monotonic() - trace.started_s
    extensions().request_metrics.record(trace, request.method, request.path, response.status_code, seconds)
    structlog.contextvars.clear_contextvars()
    return response


def install(app: Flask) -> None:
    """Register both hooks for every request that Flask dispatches."""
    app.before_request(begin_request)
    app.after_request(end_request)
