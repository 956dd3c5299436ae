"""One request and its answer as the prediction routes see them: plain WSGI.

Flask's `request`, `g` and `current_app` look their context up at every access, a microsecond each; these routes are
handed what they need instead, by Flask's dispatch and by the fast dispatch (`app.web.express`) alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache, wraps
from http import HTTPStatus
from typing import Any, Protocol

import msgspec
from flask import Response, request
from werkzeug.datastructures import MultiDict
from werkzeug.wrappers import Request

from app.web import bodies
from app.web.bodies import JSON, Body
from app.web.current import Wiring, wiring
from app.web.trace import Trace, trace

Environ = dict[str, Any]


class InFlight(Protocol):
    """The gauge of one model's requests in flight."""

    def inc(self, amount: float = 1) -> None:
        """Add `amount`."""


class Exchange(msgspec.Struct):
    """environ: the request (PEP 3333). parts: what was wired in the factory. trace: what is known of the request.

    in_flight: where the request counts as in flight; None before it is admitted and after it is answered.
    """

    environ: Environ
    parts: Wiring
    trace: Trace
    in_flight: InFlight | None = None

    def enter(self, gauge: InFlight) -> None:
        """Count the request as in flight until `leave`."""
        gauge.inc()
        self.in_flight = gauge

    def leave(self) -> None:
        """The request is answered, or has failed."""
        if self.in_flight is not None:
            self.in_flight.inc(-1)
            self.in_flight = None

    def header(self, key: str) -> str:
        """A header by its WSGI key (`HTTP_ACCEPT`, `CONTENT_TYPE`); empty when it was not sent."""
        value: str = self.environ.get(key, "")
        return value

    def body(self) -> Body:
        """The whole body. Raises werkzeug's RequestEntityTooLarge over the limit, ClientDisconnected when it is cut."""
        return bodies.read(self.environ, self.parts.settings.server)

    def query(self) -> MultiDict[str, str]:
        """The parameters of the address."""
        return Request(self.environ).args if self.environ.get("QUERY_STRING") else MultiDict()


class Reply(msgspec.Struct, frozen=True):
    """kind: the Content-Type. headers: further ones."""

    body: bytes
    kind: str = JSON
    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()

    @property
    def line(self) -> str:
        """The status with its words, as WSGI wants it."""
        return STATUS_LINES.get(self.status) or f"{self.status} {HTTPStatus(self.status).phrase}"


STATUS_LINES = {200: "200 OK", 499: "499 Client Closed Request"}
Handler = Callable[..., Reply]
"""`handler(exchange, **values of the route)`."""


def answer(handler: Handler, exchange: Exchange, values: Mapping[str, Any]) -> Reply:
    """What the handler replies. Raises what it raises; the request is no longer in flight then."""
    try:
        return handler(exchange, **values)
    finally:
        exchange.leave()


@cache
def view(handler: Handler) -> Callable[..., Response]:
    """A handler as a Flask view. The same one each time, so that the fast dispatch sees when another took its place."""

    @wraps(handler)
    def flask_view(**values: str) -> Response:
        return as_response(answer(handler, Exchange(request.environ, wiring(), trace()), values))

    return flask_view


def as_response(reply: Reply) -> Response:
    """The reply as Flask has it."""
    return Response(reply.body, reply.line, reply.headers, content_type=reply.kind)
