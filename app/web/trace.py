"""What is known of the request in hand: its id, its model, where its time went. Written once, when it is answered."""

from __future__ import annotations

import math
import re
import time
import uuid
from dataclasses import dataclass, field

import structlog
from flask import Flask, Response, g, request

from app import logs
from app.metrics import NO_MODEL, Metrics
from app.serving.servable import Servable
from app.web.current import wiring
from app.web.deadlines import age_s

REQUEST_ID = re.compile(r"^[A-Za-z0-9_.:-]{1,128}\Z")
log = logs.get("access")


@dataclass
class Trace:
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
    stages: dict[str, float] = field(default_factory=dict)
    error: str = ""

    def serves(self, servable: Servable, protocol: str) -> None:
        """From here on the request counts for this servable. Only names the repository has come this way."""
        self.model, self.version, self.protocol = servable.name, str(servable.version), protocol
        self.counted = True


def trace() -> Trace:
    """The current request's trace."""
    current: Trace = g.trace
    return current


def begin() -> None:
    """Give the request its id: the client's, if it is one, else a new one."""
    given = request.headers.get("X-Request-ID", "")
    request_id = given if REQUEST_ID.match(given) else uuid.uuid4().hex
    waited_s = age_s(request.environ)
    g.trace = Trace(request_id, time.monotonic() - waited_s, waited_s)
    structlog.contextvars.bind_contextvars(request_id=request_id)


def finish(response: Response) -> Response:
    """Count and log the request; send its id back."""
    current: Trace | None = g.get("trace")
    if current is None:
        return response
    response.headers["X-Request-ID"] = current.request_id
    seconds = time.monotonic() - current.started_s
    if current.counted:
        _count(wiring().metrics, current, response.status_code, seconds)
    _log(current, response, seconds)
    structlog.contextvars.clear_contextvars()
    return response


def _count(metrics: Metrics, current: Trace, status: int, seconds: float) -> None:
    labels = (current.model, current.version)
    metrics.requests.labels(*labels, current.protocol, str(status)).inc()
    metrics.request_seconds.labels(*labels).observe(seconds)
    for stage, spent_s in current.stages.items():
        metrics.stage_seconds.labels(*labels, stage).observe(spent_s)
    if status == 200 and current.rows:
        metrics.rows.labels(*labels).inc(current.rows)


def _log(current: Trace, response: Response, seconds: float) -> None:
    line: dict[str, object] = {
        "method": request.method,
        "path": request.path[:300],
        "status": response.status_code,
        "ms": round(seconds * 1000, 3),
    }
    if current.counted:
        line |= {"model": current.model, "version": current.version, "protocol": current.protocol, "rows": current.rows}
        line |= {f"{stage}_ms": round(spent_s * 1000, 3) for stage, spent_s in current.stages.items()}
    if current.error:
        line["error"] = current.error
    quiet = request.endpoint in ("health.live", "health.ready", "health.ping", "metrics.metrics")
    (log.debug if quiet and response.status_code == 200 else log.info)("request", **line)


def install(app: Flask) -> None:
    """Trace every request of the application."""
    app.before_request(begin)
    app.after_request(finish)
