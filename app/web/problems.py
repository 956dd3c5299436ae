"""Every error leaves through here, as one JSON object: `error` for inference clients, RFC 9457 for the rest."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from flask import Flask, Response, g, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

from app import errors, logs
from app.web.current import settings
from app.web.trace import Trace

log = logs.get("problems")

STATUS: dict[type[errors.TablesideError], int] = {
    errors.RequestRejected: 400,
    errors.NotAllowed: 401,
    errors.ModelNotFound: 404,
    errors.TooLarge: 413,
    errors.UnsupportedBody: 415,
    errors.Overloaded: 429,
    errors.ClientGone: 499,
    errors.InferenceFailed: 500,
    errors.NotFinite: 500,
    errors.ContractBroken: 500,
    errors.PublishFailed: 500,
    errors.SettingsError: 500,
    errors.StackError: 500,
    errors.ModelNotReady: 503,
    errors.DeadlineExceeded: 504,
}
SHOWN = frozenset(
    (
        errors.RequestRejected, errors.NotAllowed, errors.ModelNotFound, errors.Overloaded, errors.InferenceFailed,
        errors.ClientGone,
        errors.ModelNotReady, errors.DeadlineExceeded, errors.TooLarge, errors.UnsupportedBody, errors.NotFinite,
    )
)  # fmt: skip
"""Errors whose text was written for clients."""


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


def respond(status: int, detail: str, **more: object) -> Response:
    """The error as a response in JSON, under this request's id."""
    current: Trace | None = g.get("trace")
    if current is not None:
        more = {"instance": current.request_id, **more}
    if request.path.endswith(("/invocations", "/invoke")):
        more |= {"error_code": "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR", "message": detail}
    wants_problem = "application/problem+json" in request.headers.get("Accept", "")
    kind = "application/problem+json" if wants_problem else "application/json"
    return Response(orjson.dumps(body(status, detail, **more)), status, content_type=kind)


def _ours(error: errors.TablesideError) -> Response:
    kind = type(error)
    status = STATUS[kind]
    detail = str(error) if kind in SHOWN else "an internal error; the log has the cause under this request id"
    _note(kind.__name__, error if status >= 500 and status not in (503, 504) else None)
    more: dict[str, Any] = {}
    if isinstance(error, errors.RequestRejected) and error.cells:
        more["errors"] = [{"path": cell.path, "message": cell.message} for cell in error.cells]
    if isinstance(error, errors.TooLarge):
        more["max_bytes"] = error.limit_bytes
    response = respond(status, detail, **more)
    if isinstance(error, (errors.Overloaded, errors.ModelNotReady)):
        response.headers["Retry-After"] = str(error.retry_after_s)
    if isinstance(error, errors.NotAllowed):
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http(error: HTTPException) -> Response:
    status = error.code or 500
    detail = error.description or HTTPStatus(status).phrase
    if isinstance(error, RequestEntityTooLarge):
        return _ours(errors.TooLarge("server.max_body_bytes", settings().server.max_body_bytes))
    if status == 404:
        detail = f"nothing at {request.path[:200]}"
    elif status == 405:
        detail = f"{request.method} is not allowed here; use {_allowed(error)}"
    if 300 <= status < 400:
        return Response(status=status, headers=error.get_headers())
    response = respond(status, detail)
    if status == 405:
        response.headers["Allow"] = _allowed(error)
    return response


def _allowed(error: HTTPException) -> str:
    return ", ".join(sorted(getattr(error, "valid_methods", None) or ()))


def _unexpected(error: Exception) -> Response:
    _note(type(error).__name__, error)
    return respond(500, "an internal error; the log has the cause under this request id")


def _note(name: str, cause: BaseException | None) -> None:
    current: Trace | None = g.get("trace")
    if current is not None:
        current.error = name
    if cause is not None:
        shown = settings().predict.show_values
        log.error("failed", error=name, **({"exc_info": cause} if shown else {"exception": logs.frames(cause)}))


def install(app: Flask) -> None:
    """Make every error of the application leave as JSON."""
    app.register_error_handler(errors.TablesideError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)
