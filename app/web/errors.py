"""Every error leaves through here, as one JSON object: `error` for inference clients, RFC 9457 for the rest."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, g, request
from msgspec.structs import replace
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import get_path_info

from tableside import errors
from tableside.telemetry import logs
from tableside.telemetry.request_trace import RequestTrace
from tableside.web.extensions import Extensions, extensions
from tableside.web.request import Environ
from tableside.web.request_lifecycle import begin
from tableside.web.response import Reply, as_response

log = logs.get_logger("problems")

STATUS: dict[type[errors.TablesideError], int] = {
    errors.RequestRejected: 400,
    errors.Unauthorized: 401,
    errors.ModelNotFound: 404,
    errors.TooLarge: 413,
    errors.UnsupportedBody: 415,
    errors.Overloaded: 429,
    errors.ClientClosedRequest: 499,
    errors.InferenceFailed: 500,
    errors.NotFinite: 500,
    errors.ContractBroken: 500,
    errors.PublishFailed: 500,
    errors.SettingsError: 500,
    errors.StackError: 500,
    errors.ModelNotReady: 503,
    errors.DeadlineExceeded: 504,
}
PUBLIC = frozenset(
    (
        errors.RequestRejected, errors.Unauthorized, errors.ModelNotFound, errors.Overloaded, errors.InferenceFailed,
        errors.ClientClosedRequest,
        errors.ModelNotReady, errors.DeadlineExceeded, errors.TooLarge, errors.UnsupportedBody, errors.NotFinite,
    )
)  # fmt: skip
"""Errors whose text was written for clients."""
INTERNAL = "an internal error; the log has the cause under this request id"


def body(status: int, detail: str, **more: object) -> dict[str, object]:
    """The error object: `error` says it all in one string, the rest is for programs."""
    return {
        "error": detail,
        "type": "about:blank",
        "title": "Client Closed Request" if status == 499 else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }


def to_reply(problem: Exception, environ: Environ, app_extensions: Extensions, current: RequestTrace) -> Reply:
    """Any error as the reply the client gets, noted in the trace and, where it is ours, in the log."""
    if isinstance(problem, errors.TablesideError):
        return _from_tableside(problem, environ, app_extensions, current)
    if isinstance(problem, HTTPException):
        return _from_http(problem, environ, app_extensions, current)
    _record(type(problem).__name__, problem, app_extensions, current)
    return _reply(500, INTERNAL, environ, current)


def _reply(status: int, detail: str, environ: Environ, current: RequestTrace, **more: object) -> Reply:
    """The error as JSON, under this request's id."""
    more = {"instance": current.request_id, **more}
    if environ["PATH_INFO"].endswith(("/invocations", "/invoke")):
        more |= {"error_code": "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR", "message": detail}
    wants_problem = "application/problem+json" in environ.get("HTTP_ACCEPT", "")
    kind = "application/problem+json" if wants_problem else "application/json"
    return Reply(orjson.dumps(body(status, detail, **more)), kind, status)


def _from_tableside(
    error: errors.TablesideError, environ: Environ, app_extensions: Extensions, current: RequestTrace
) -> Reply:
    kind = type(error)
    status = STATUS[kind]
    detail = str(error) if kind in PUBLIC else INTERNAL
    _record(kind.__name__, error if status >= 500 and status not in (503, 504) else None, app_extensions, current)
    more: dict[str, Any] = {}
    if isinstance(error, errors.RequestRejected) and error.cells:
        more["errors"] = [{"path": cell.path, "message": cell.message} for cell in error.cells]
    if isinstance(error, errors.TooLarge):
        more["max_bytes"] = error.limit_bytes
    reply = _reply(status, detail, environ, current, **more)
    if isinstance(error, (errors.Overloaded, errors.ModelNotReady)):
        return replace(reply, headers=(("Retry-After", str(error.retry_after_s)),))
    if isinstance(error, errors.Unauthorized):
        return replace(reply, headers=(("WWW-Authenticate", "Bearer"),))
    return reply


def _from_http(error: HTTPException, environ: Environ, app_extensions: Extensions, current: RequestTrace) -> Reply:
    status = error.code or 500
    detail = error.description or HTTPStatus(status).phrase
    if isinstance(error, RequestEntityTooLarge):
        limit = app_extensions.settings.server.max_body_bytes
        return _from_tableside(errors.TooLarge("server.max_body_bytes", limit), environ, app_extensions, current)
    if status == 404:
        detail = f"nothing at {get_path_info(environ)[:200]}"
    elif status == 405:
        detail = f"{environ['REQUEST_METHOD']} is not allowed here; use {_allowed(error)}"
    reply = _reply(status, detail, environ, current)
    return replace(reply, headers=(("Allow", _allowed(error)),)) if status == 405 else reply


def _allowed(error: HTTPException) -> str:
    return ", ".join(sorted(getattr(error, "valid_methods", None) or ()))


def _record(name: str, cause: BaseException | None, app_extensions: Extensions, current: RequestTrace) -> None:
    current.error = name
    if cause is not None:
        cause_fields: dict[str, Any] = {"exception": logs.frames_without_values(cause)}
        if app_extensions.settings.predict.show_values:
            cause_fields = {"exc_info": cause}
        log.error("request_failed", error=name, request_id=current.request_id, **cause_fields)


def handle(problem: Exception) -> Response:
    """Flask's error handler: any error as a response."""
    if isinstance(problem, HTTPException) and 300 <= (problem.code or 500) < 400:
        return Response(status=problem.code, headers=problem.get_headers())
    app_extensions = extensions()
    current = g.get("trace") or begin(request.environ, app_extensions.request_ids)
    return as_response(to_reply(problem, request.environ, app_extensions, current))


def install(app: Flask) -> None:
    """Make every error of the application leave as JSON."""
    app.register_error_handler(Exception, handle)
    app.register_error_handler(HTTPException, handle)
