"""What is known of the request in hand: its id, its model, where its time went. Noted once, when it is answered."""

from __future__ import annotations

import math
import time
from typing import Any

import msgspec
import structlog
from flask import Flask, Response, g, request

from app.metrics import NO_MODEL
from app.serving.servable import Servable
from app.web.current import wiring
from app.web.deadlines import age_s
from app.web.request_ids import RequestIds


class Trace(msgspec.Struct):
    """One request. started_s: when nginx had it, or else the worker, on the monotonic clock; waited_s: between the two.

    stages: stage name to seconds. error: the class of what went wrong, for the log.
    """

    request_id: str
    started_s: float
    waited_s: float = 0.0
    deadline_at_s: float = math.inf
    model: str = NO_MODEL
    version: str = NO_MODEL
    protocol: str = "-"
    rows: int = 0
    counted: bool = False
    stages: dict[str, float] = msgspec.field(default_factory=dict)
    error: str = ""

    def serves(self, servable: Servable, protocol: str) -> None:
        """From here on the request counts for this servable. Only names the repository has come this way."""
        self.model, self.version, self.protocol = servable.name, str(servable.version), protocol
        self.counted = True


def trace() -> Trace:
    """The current request's trace."""
    current: Trace = g.trace
    return current


def begin(environ: dict[str, Any], ids: RequestIds) -> Trace:
    """The trace of a request that begins now."""
    waited_s = age_s(environ)
    return Trace(ids.of(environ), time.monotonic() - waited_s, waited_s)


def begin_request() -> None:
    """Trace a request that Flask dispatches; what is logged meanwhile bears its id."""
    g.trace = begin(request.environ, wiring().request_ids)
    structlog.contextvars.bind_contextvars(request_id=g.trace.request_id)


def end_request(response: Response) -> Response:
    """Note a request that Flask dispatched."""
    current: Trace | None = g.get("trace")
    if current is None:
        return response
    response.headers["X-Request-ID"] = current.request_id
    seconds = time.monotonic() - current.started_s
    wiring().journal.note(current, request.method, request.path, response.status_code, seconds)
    structlog.contextvars.clear_contextvars()
    return response


def install(app: Flask) -> None:
    """Trace every request that Flask dispatches."""
    app.before_request(begin_request)
    app.after_request(end_request)
