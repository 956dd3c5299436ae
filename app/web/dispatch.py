"""The Flask application, with a fast dispatch for predictions.

Flask's own dispatch takes about 70 us per request for contexts, sessions, signals, hooks and routing, which is more
than a linear model takes to predict. The fast dispatch routes a POST to a registered endpoint once per path, with
Flask's own URL map, and then calls the endpoint's handler as plain WSGI. Flask dispatches every other request.

The fast dispatch begins and ends a request as `tableside.web.request_lifecycle` does and turns errors into replies as
`tableside.web.error_replies` does. It runs no hooks. The application therefore raises FastDispatchError instead of
serving when another hook applies to a fast endpoint (`tableside.web.hook_check`) or when its view function was
replaced.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from functools import cache, wraps
from wsgiref.types import StartResponse, WSGIEnvironment

from flask import Flask, Response, request
from flask.typing import ResponseReturnValue
from structlog.contextvars import bind_contextvars, reset_contextvars
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException
from werkzeug.routing import RequestRedirect

from tableside.telemetry import correlation
from tableside.telemetry.request_trace import RequestTrace
from tableside.web import error_replies, hook_check, large_answers, path_prefix, request_lifecycle
from tableside.web.auth import Access, access_of
from tableside.web.extensions import EXTENSION_KEY, Extensions, extensions
from tableside.web.request import RequestContext
from tableside.web.request_lifecycle import current_trace
from tableside.web.response import Reply, as_response

Handler = Callable[..., Reply]
"""`handler(context, **values)`, where `values` are the variable parts of the path."""
Route = tuple[str, Handler, Mapping[str, str], Access]
"""An endpoint, its handler, the variable parts of one path, and which key it needs."""
MAX_CACHED_PATHS = 1024
"""How many paths are cached. Clients choose paths, so the cache is emptied when it has grown to this size."""


def call_handler(handler: Handler, context: RequestContext, values: Mapping[str, str]) -> Reply:
    """Call the handler. Whatever it raises is raised here, after the request has stopped counting as in flight."""
    try:
        return handler(context, **values)
    finally:
        context.leave()


@cache
def view(handler: Handler) -> Callable[..., Response]:
    """The handler as a Flask view function.

    Returns the same function each time, so that the fast dispatch can detect a view that was replaced.
    """

    @wraps(handler)
    def flask_view(**values: str) -> Response:
        context = RequestContext(request.environ, extensions(), current_trace())
        return as_response(call_handler(handler, context, values))

    return flask_view


class FastDispatchError(RuntimeError):
    """Something is registered for an endpoint that the fast dispatch would not call."""

    def __init__(self, endpoint: str, skipped: str) -> None:
        super().__init__(
            f"the fast dispatch of endpoint {endpoint!r} would skip the {skipped}. Remove it, or remove the endpoint "
            "from FAST_ENDPOINTS (blueprints/predict/views.py) so that Flask dispatches it"
        )


class FastDispatchFlask(Flask):
    """A Flask application that dispatches POST requests to the registered endpoints itself.

    prefix: the path that is removed from paths that begin with it (`server.path_prefix`); empty for none.
    """

    def __init__(self, import_name: str, static_folder: str | None = None, prefix: str = "") -> None:
        super().__init__(import_name, static_folder=static_folder)
        self._prefix = prefix
        self.cached_routes: dict[str, Route] = {}
        """The routes of paths that the fast dispatch has answered."""
        self._handlers: dict[str, Handler] = {}
        self._is_checked = False

    def register_fast(self, handlers: Mapping[str, Handler]) -> None:
        """Dispatch these endpoints fast. Call it after their blueprints are mounted.

        handlers: handler by endpoint; the endpoint's view function must be `view(handler)`. Raises FastDispatchError.
        """
        self._handlers.update(handlers)
        self._check()

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request (PEP 3333). Raises FastDispatchError when a hook or a replaced view would be skipped."""
        if self._prefix:
            path_prefix.strip(environ, self._prefix)
        if not self._is_checked:
            self._check()
            self._is_checked = True
            # Flask handles the first request whatever its path: from then on Flask rejects new hooks itself.
            return super().wsgi_app(environ, start_response)
        path = environ["PATH_INFO"]
        route = self.cached_routes.get(path)
        if environ["REQUEST_METHOD"] != "POST" or not (route or (route := self._find_route(path))):
            return super().wsgi_app(environ, start_response)
        self._check_view(route[0], route[1])
        reply, trace = self._answer(route, environ)
        start_response(reply.line, _headers(reply, trace, environ))
        return (reply.body,)

    def handle_http_exception(self, e: HTTPException) -> HTTPException | ResponseReturnValue:
        """Flask's own handling, but a redirect of its routing has a path and no scheme and host.

        Flask would take these from the request, and nobody knows which ones a client calls through proxies.
        """
        if isinstance(e, RequestRedirect):
            server = self.extensions[EXTENSION_KEY].settings.server
            response = Response(status=e.code)
            response.headers = Headers({"Location": path_prefix.location(e.new_url, request.environ, server)})
            return response
        return super().handle_http_exception(e)

    def _answer(self, route: Route, environ: WSGIEnvironment) -> tuple[Reply, RequestTrace]:
        """The reply, and the request's trace. Turns exceptions into replies, as Flask's error handlers do."""
        _, handler, values, access = route
        extensions: Extensions = self.extensions[EXTENSION_KEY]
        trace = request_lifecycle.begin(environ, extensions)
        context = RequestContext(environ, extensions, trace)
        tokens = bind_contextvars(request_id=trace.request_id)
        try:
            try:
                extensions.guard.check(environ, access)
                reply = large_answers.passed_on(call_handler(handler, context, values), environ, extensions)
            except Exception as problem:  # noqa: BLE001 - becomes a reply and a log line, as in Flask's error handlers
                reply = error_replies.to_reply(problem, context)
            seconds = time.monotonic() - trace.started_s
            extensions.request_metrics.record(trace, "POST", environ["PATH_INFO"], reply.status, seconds)
        finally:
            reset_contextvars(**tokens)
        return reply, trace

    def _find_route(self, path: str) -> Route | None:
        """The route of a path; None when Flask has to dispatch it."""
        if not path.isascii():
            return None
        try:
            rule, values = self.url_map.bind("localhost", path_info=path, default_method="POST").match(return_rule=True)
        except (HTTPException, RequestRedirect):
            return None
        handler = self._handlers.get(rule.endpoint)
        if handler is None:
            return None
        if len(self.cached_routes) >= MAX_CACHED_PATHS:
            self.cached_routes.clear()
        route = self.cached_routes[path] = (rule.endpoint, handler, values, access_of(rule.endpoint))
        return route

    def _check(self) -> None:
        for endpoint, handler in self._handlers.items():
            self._check_view(endpoint, handler)
            for hook in hook_check.foreign_hooks(self, endpoint):
                raise FastDispatchError(endpoint, hook)

    def _check_view(self, endpoint: str, handler: Handler) -> None:
        registered = self.view_functions.get(endpoint)
        if registered is not view(handler):
            name = getattr(registered, "__qualname__", registered)
            raise FastDispatchError(endpoint, f"view function {name!r}, which replaced the handler's own view")


def _headers(reply: Reply, trace: RequestTrace, environ: WSGIEnvironment) -> list[tuple[str, str]]:
    return [
        ("Content-Type", reply.kind), ("Content-Length", str(len(reply.body))), ("X-Request-ID", trace.request_id),
        *trace.served(), *reply.headers, *correlation.echoed(environ),
    ]  # fmt: skip
