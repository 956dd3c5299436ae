"""The Flask application, with an express lane for predictions.

Flask's dispatch costs a prediction more than a linear model does: contexts, sessions, signals, hooks and a routing per
request. None of those is used on these routes, so a POST to a route whose view was made by `exchange.view` is routed
once per path (by Flask's own map, to the blueprint's own handler) and then called as plain WSGI. Whatever else comes,
goes Flask's way. What the handler raises is told by `app.web.problems` in both.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flask import Flask
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from app.web import problems, trace
from app.web.current import EXTENSION, Wiring
from app.web.exchange import Environ, Exchange, Handler, Reply

MOST_PATHS = 1024
"""Paths that are remembered; their number is the client's choice, so they are forgotten when it grows past this."""
Route = tuple[Handler, Mapping[str, Any]]
StartResponse = Callable[..., Any]


class ExpressFlask(Flask):
    """See the module."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._known_routes: dict[str, Route] = {}

    def wsgi_app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """See Flask."""
        path = environ["PATH_INFO"]
        route = self._known_routes.get(path)
        if environ["REQUEST_METHOD"] != "POST" or not (route or (route := self._route(path))):
            return super().wsgi_app(environ, start_response)
        handler, values = route
        parts: Wiring = self.extensions[EXTENSION]
        current = trace.begin(environ)
        try:
            reply = handler(Exchange(environ, parts, current), **values)
        except Exception as problem:  # noqa: BLE001 - told to the client and the log, as Flask's handlers do
            reply = problems.tell(problem, environ, parts, current)
        parts.journal.note(current, "POST", path, reply.status, time.monotonic() - current.started_s)
        start_response(reply.line, _headers(reply, current.request_id))
        return (reply.body,)

    def _route(self, path: str) -> Route | None:
        """The handler of a path; None where Flask has to look."""
        if not path.isascii():
            return None
        try:
            rule, values = self.url_map.bind("localhost", path_info=path, default_method="POST").match(return_rule=True)
        except (HTTPException, RequestRedirect):
            return None
        handler = getattr(self.view_functions[rule.endpoint], "handler", None)
        face = rule.endpoint.rpartition(".")[0]
        if handler is None or self.before_request_funcs.get(face):
            return None
        if len(self._known_routes) >= MOST_PATHS:
            self._known_routes.clear()
        self._known_routes[path] = (handler, values)
        return handler, values


def _headers(reply: Reply, request_id: str) -> list[tuple[str, str]]:
    return [
        ("Content-Type", reply.kind), ("Content-Length", str(len(reply.body))), ("X-Request-ID", request_id),
        *reply.headers,
    ]  # fmt: skip
