"""What is known of the request in hand: its id, its model, where its time went. Noted once, when it is answered."""

from __future__ import annotations

import time
from typing import Any

import structlog
from flask import Flask, Response, g, request

from tableside.telemetry.request_trace import RequestTrace
from tableside.web.deadlines import age_s
from tableside.web.extensions import extensions
from tableside.web.request_ids import RequestIds


def current_trace() -> RequestTrace:
    """The current request's trace."""
    current: RequestTrace = g.trace
    return current


def begin(environ: dict[str, Any], ids: RequestIds) -> RequestTrace:
    """The trace of a request that begins now."""
    waited_s = age_s(environ)
    return RequestTrace(ids.of(environ), time.monotonic() - waited_s, waited_s)


def begin_request() -> None:
    """Trace a request that Flask dispatches; what is logged meanwhile bears its id."""
    g.trace = begin(request.environ, extensions().request_ids)
    structlog.contextvars.bind_contextvars(request_id=g.trace.request_id)


def end_request(response: Response) -> Response:
    """Note a request that Flask dispatched."""
    current: RequestTrace | None = g.get("trace")
    if current is None:
        return response
    response.headers["X-Request-ID"] = current.request_id
    seconds = time.monotonic() - current.started_s
    extensions().request_metrics.record(current, request.method, request.path, response.status_code, seconds)
    structlog.contextvars.clear_contextvars()
    return response


def install(app: Flask) -> None:
    """Trace every request that Flask dispatches."""
    app.before_request(begin_request)
    app.after_request(end_request)
