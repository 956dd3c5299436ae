"""The Flask application, with a fast dispatch for predictions.

Flask's own dispatch costs a prediction more than a linear model does: contexts, sessions, signals, hooks and a routing
per request, 70 us in all. A POST to an endpoint of the table that `register_fast` was given is routed once per path (by
Flask's own map) and its handler is then called as plain WSGI. Every other request takes Flask's way.

The fast dispatch begins and ends the request as `tableside.web.request_lifecycle` does and answers errors as
`tableside.web.errors` does. It calls no hook, so the application refuses to serve while another hook applies to a fast
endpoint (`tableside.web.hook_check`) or another function has taken the place of its view.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from typing import Any

from flask import Flask, Response, request
from structlog.contextvars import bind_contextvars, reset_contextvars
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from tableside.web import errors, hook_check, request_lifecycle
from tableside.web.extensions import EXTENSION_KEY, Extensions, extensions
from tableside.web.request import Environ, RequestContext
from tableside.web.request_lifecycle import current_trace
from tableside.web.response import Reply, as_response

Handler = Callable[..., Reply]
"""`handler(context, **values of the route)`."""


def call_handler(handler: Handler, context: RequestContext, values: Mapping[str, Any]) -> Reply:
    """What the handler replies. Raises what it raises; the request is no longer in flight then."""
    try:
        return handler(context, **values)
    finally:
        context.leave()


@cache
def view(handler: Handler) -> Callable[..., Response]:
    """A handler as a Flask view. The same one each time, so that the fast dispatch sees when another took its place."""

    @wraps(handler)
    def flask_view(**values: str) -> Response:
        return as_response(
            call_handler(handler, RequestContext(request.environ, extensions(), current_trace()), values)
        )

    return flask_view


MOST_PATHS = 1024
"""Paths that are remembered; their number is the client's choice, so they are forgotten when it grows past this."""
DispatchEntry = tuple[str, Handler, Mapping[str, Any]]
"""Endpoint, its handler, and the values of the path."""
StartResponse = Callable[..., Any]


class FastDispatchError(RuntimeError):
    """The fast dispatch would pass over something that was registered for one of its endpoints."""

    def __init__(self, endpoint: str, what: str) -> None:
        super().__init__(
            f"the fast dispatch of endpoint {endpoint!r} would pass over the {what}. Remove it, or take the endpoint "
            "out of FAST_ENDPOINTS (blueprints/predict/views.py), so that Flask dispatches it"
        )


class FastDispatchFlask(Flask):
    """A Flask application that dispatches the endpoints of its fast table itself."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._fast: dict[str, Handler] = {}
        self._known_routes: dict[str, DispatchEntry] = {}
        self._is_checked = False

    def register_fast(self, handlers: Mapping[str, Handler]) -> None:
        """Dispatch these endpoints fast; each one's view must be `view(handler)`. After the blueprints are mounted.

        Raises FastDispatchError.
        """
        self._fast.update(handlers)
        self._check()

    def wsgi_app(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333). Raises FastDispatchError where a hook would be passed over."""
        if not self._is_checked:
            self._check()
            self._is_checked = True
            # The first request is Flask's, whatever it is: from then on Flask itself refuses further hooks.
            return super().wsgi_app(environ, start_response)
        path = environ["PATH_INFO"]
        route = self._known_routes.get(path)
        if environ["REQUEST_METHOD"] != "POST" or not (route or (route := self._route(path))):
            return super().wsgi_app(environ, start_response)
        self._check_view(route[0], route[1])
        reply, request_id = self._answer(route, environ)
        start_response(reply.line, _headers(reply, request_id))
        return (reply.body,)

    def _answer(self, route: DispatchEntry, environ: Environ) -> tuple[Reply, str]:
        """The reply, and the request's id. What the handler raises is told as Flask's error handlers would."""
        _, handler, values = route
        extensions: Extensions = self.extensions[EXTENSION_KEY]
        current = request_lifecycle.begin(environ, extensions.request_ids)
        bound = bind_contextvars(request_id=current.request_id)
        try:
            try:
                reply = call_handler(handler, RequestContext(environ, extensions, current), values)
            except Exception as problem:  # noqa: BLE001 - told to the client and the log, as Flask's handlers do
                reply = errors.to_reply(problem, environ, extensions, current)
            seconds = time.monotonic() - current.started_s
            extensions.request_metrics.record(current, "POST", environ["PATH_INFO"], reply.status, seconds)
        finally:
            reset_contextvars(**bound)
        return reply, current.request_id

    def _route(self, path: str) -> DispatchEntry | None:
        """The route of a path; None where Flask has to look."""
        if not path.isascii():
            return None
        try:
            rule, values = self.url_map.bind("localhost", path_info=path, default_method="POST").match(return_rule=True)
        except (HTTPException, RequestRedirect):
            return None
        handler = self._fast.get(rule.endpoint)
        if handler is None:
            return None
        if len(self._known_routes) >= MOST_PATHS:
            self._known_routes.clear()
        route = self._known_routes[path] = (rule.endpoint, handler, values)
        return route

    def _check(self) -> None:
        for endpoint, handler in self._fast.items():
            self._check_view(endpoint, handler)
            for hook in hook_check.foreign(self, endpoint):
                raise FastDispatchError(endpoint, hook)

    def _check_view(self, endpoint: str, handler: Handler) -> None:
        found = self.view_functions.get(endpoint)
        if found is not view(handler):
            name = getattr(found, "__qualname__", found)
            raise FastDispatchError(endpoint, f"view function {name!r} that took the place of its own")


def _headers(reply: Reply, request_id: str) -> list[tuple[str, str]]:
    return [
        ("Content-Type", reply.kind), ("Content-Length", str(len(reply.body))), ("X-Request-ID", request_id),
        *reply.headers,
    ]  # fmt: skip
