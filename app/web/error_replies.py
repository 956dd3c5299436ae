"""Turns every error into a response: one JSON object with the members of RFC 9457 and, for inference clients, `error`.

`STATUS` maps each class of `tableside.errors` to its HTTP status; a test holds the table complete.
"""

from __future__ import annotations

from http import HTTPStatus
from wsgiref.types import WSGIEnvironment

import orjson
from flask import Flask, Response, g, request
from msgspec.structs import replace
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge
from werkzeug.wsgi import get_path_info

from tableside import errors
from tableside.control_errors import Conflict, Forbidden, GenerationChanged
from tableside.disk_errors import DiskFull
from tableside.head_errors import UrlTooLong
from tableside.quarantine_errors import ModelQuarantined, RequestQuarantined, WorkersLost
from tableside.repository.refusals import BreaksClients, ReleaseRefused
from tableside.switch_errors import SwitchRefused
from tableside.telemetry import logs
from tableside.web import body_size, table_types
from tableside.web.extensions import extensions
from tableside.web.request import RequestContext
from tableside.web.request_lifecycle import begin
from tableside.web.response import Reply, as_response

log = logs.get_logger("problems")

STATUS: dict[type[errors.TablesideError], int] = {
    errors.RequestRejected: 400,
    errors.Unauthorized: 401,
    errors.WrongScope: 403,
    errors.CrossSite: 403,
    Forbidden: 403,
    errors.ModelNotFound: 404,
    errors.NotAcceptable: 406,
    Conflict: 409,
    ReleaseRefused: 409,
    SwitchRefused: 409,
    GenerationChanged: 412,
    errors.TooLarge: 413,
    errors.InflatesTooMuch: 413,
    errors.TooManyRows: 413,
    errors.AnswerTooLarge: 413,
    UrlTooLong: 414,
    errors.UnsupportedBody: 415,
    errors.WrongHost: 421,
    errors.Overloaded: 429,
    errors.ClientClosedRequest: 499,
    errors.InferenceFailed: 500,
    errors.NotFinite: 500,
    RequestQuarantined: 500,
    WorkersLost: 502,
    ModelQuarantined: 503,
    errors.ContractBroken: 500,
    errors.PublishFailed: 500,
    BreaksClients: 409,
    errors.EnvironmentFailed: 500,
    errors.KeysFailed: 500,
    errors.SettingsError: 500,
    errors.StackError: 500,
    errors.ModelNotReady: 503,
    errors.WaitedTooLong: 503,
    errors.DeadlineExceeded: 504,
    DiskFull: 507,
}
PUBLIC = frozenset(
    (
        errors.RequestRejected, errors.Unauthorized, errors.ModelNotFound, errors.Overloaded, errors.InferenceFailed,
        errors.ClientClosedRequest, errors.WaitedTooLong, errors.ModelNotReady, errors.DeadlineExceeded,
        errors.TooLarge, errors.InflatesTooMuch, errors.TooManyRows, errors.AnswerTooLarge, errors.UnsupportedBody,
        errors.NotFinite, errors.WrongScope, errors.CrossSite, errors.WrongHost, errors.NotAcceptable,
        RequestQuarantined, WorkersLost, ModelQuarantined, DiskFull, UrlTooLong,
        Forbidden, Conflict, GenerationChanged, BreaksClients, ReleaseRefused, SwitchRefused,
    )
)  # fmt: skip
"""Errors whose text is written for clients. The text of every other error stays in the log."""
_LOGGED_BEFORE = (RequestQuarantined, WorkersLost)
"""Errors whose cause was logged when the worker died; later requests must not fill the log."""
_RETRIABLE = (
    errors.Overloaded, errors.WaitedTooLong, errors.ModelNotReady, ModelQuarantined, RequestQuarantined,
    DiskFull,
)  # fmt: skip
INTERNAL = "internal server error; the server's log has the cause under this request's id (X-Request-ID)"
_MAX_CAUSE_CHARS = 300


def body(status: int, detail: str, **more: object) -> dict[str, object]:
    """The error object. more: further members.

    `error` and `detail` hold the same text: clients of V1 and V2 read `error`, clients of RFC 9457 read `detail`.
    """
    return {
        "error": detail,
        "type": "about:blank",
        "title": "Client Closed Request" if status == 499 else HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        **more,
    }


def to_reply(problem: Exception, context: RequestContext) -> Reply:
    """The reply for an error. Notes the error's class in the trace.

    Logs the cause when the server is at fault, or when the estimator raised it.
    """
    if isinstance(problem, errors.TablesideError):
        return _from_tableside(problem, context)
    if isinstance(problem, HTTPException):
        return _from_http(problem, context)
    _record(type(problem).__name__, problem, context)
    return _reply(500, INTERNAL, context)


def _reply(status: int, detail: str, context: RequestContext, **more: object) -> Reply:
    more = {"instance": context.trace.request_id, **more}
    if context.trace.v2_id is not None:
        more["id"] = context.trace.v2_id
    if context.environ["PATH_INFO"].endswith(("/invocations", "/invoke")):  # the members that MLflow's client reads
        more |= {"error_code": "BAD_REQUEST" if status < 500 else "INTERNAL_ERROR", "message": detail}
    wants_problem = "application/problem+json" in context.header("HTTP_ACCEPT")
    kind = "application/problem+json" if wants_problem else "application/json"
    return Reply(orjson.dumps(body(status, detail, **more)), kind, status)


def _from_tableside(error: errors.TablesideError, context: RequestContext) -> Reply:
    kind = type(error)
    status = STATUS[kind]
    if isinstance(error, errors.TooLarge):
        error = body_size.name_setting(error, context.extensions.settings.server)
    detail = str(error) if kind in PUBLIC else INTERNAL
    if isinstance(error, errors.RequestRejected):
        detail += _other_path(context)
    refused = isinstance(error, errors.RequestRejected) and error.by_estimator
    if refused and context.extensions.settings.predict.show_values:
        detail += f" ({str(error.__cause__)[:_MAX_CAUSE_CHARS]})"
    is_logged = refused or (status >= 500 and status not in (503, 504, 507) and not isinstance(error, _LOGGED_BEFORE))
    _record(kind.__name__, error if is_logged else None, context)
    reply = _reply(status, detail, context, **_members(error))
    if isinstance(error, _RETRIABLE):
        return replace(reply, headers=(("Retry-After", str(error.retry_after_s)),))
    if isinstance(error, errors.Unauthorized):
        return replace(reply, headers=(("WWW-Authenticate", "Bearer"),))
    return reply


def _members(error: errors.TablesideError) -> dict[str, object]:
    """Return the members of the error object that only this kind of error has."""
    more: dict[str, object] = {}
    if isinstance(error, errors.RequestRejected) and error.cells:
        more["errors"] = [{"path": cell.path, "message": cell.message} for cell in error.cells]
    if isinstance(error, errors.TooLarge):
        more["max_bytes"] = error.limit_bytes
    if isinstance(error, (RequestQuarantined, ModelQuarantined)):
        more["code"] = error.code
    if isinstance(error, (Conflict, SwitchRefused)) and error.reasons:
        more["reasons"] = [str(each) for each in error.reasons]
    if isinstance(error, GenerationChanged):
        more["generation"] = error.generation
    return more


def _other_path(context: RequestContext) -> str:
    """What to say of a table that was refused on a path that takes JSON whatever its Content-Type; often nothing."""
    kind = context.header("CONTENT_TYPE").partition(";")[0].strip().lower()
    if kind not in table_types.ALL or not context.environ["PATH_INFO"].endswith((":predict", "/infer")):
        return ""
    return f". This path takes JSON; a body of the type {kind} is read at /models/NAME/invocations"


def _from_http(error: HTTPException, context: RequestContext) -> Reply:
    status = error.code or 500
    if isinstance(error, RequestEntityTooLarge):
        limit = context.extensions.settings.server.max_body_bytes
        return _from_tableside(errors.TooLarge("server.max_body_bytes", limit), context)
    if status == 404:
        return _reply(status, f"unknown path: {_path(context.environ)}", context)
    if status == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        method = context.environ["REQUEST_METHOD"]
        reply = _reply(status, f"method {method} is not allowed for {_path(context.environ)}; use {allowed}", context)
        return replace(reply, headers=(("Allow", allowed),))
    return _reply(status, error.description or HTTPStatus(status).phrase, context)


def _path(environ: WSGIEnvironment) -> str:
    return get_path_info(environ)[:200]


def _record(name: str, cause: BaseException | None, context: RequestContext) -> None:
    context.trace.error = name
    if cause is not None:
        cause_fields: dict[str, object] = {"exception": logs.frames_without_values(cause)}
        if context.extensions.settings.predict.show_values:
            cause_fields = {"exc_info": cause}
        write = log.error if not isinstance(cause, errors.RequestRejected) else log.warning
        write("request_failed", error=name, request_id=context.trace.request_id, **cause_fields)


def handle(problem: Exception) -> Response:
    """Flask's error handler: the response for any error. A redirect keeps its own response."""
    if isinstance(problem, HTTPException) and 300 <= (problem.code or 500) < 400:
        return Response(status=problem.code, headers=problem.get_headers())
    app_extensions = extensions()
    trace = g.get("trace") or begin(request.environ, app_extensions)
    return as_response(to_reply(problem, RequestContext(request.environ, app_extensions, trace)))


def install(app: Flask) -> None:
    """Register `handle` for every error of the application."""
    app.register_error_handler(Exception, handle)
    app.register_error_handler(HTTPException, handle)
