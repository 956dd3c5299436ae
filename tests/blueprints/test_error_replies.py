"""Each error becomes one reply: its status, its text where clients may read it, its headers, and its log line."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from flask import Flask
from structlog.testing import capture_logs
from werkzeug.exceptions import BadRequest, HTTPException, MethodNotAllowed, RequestEntityTooLarge

from tableside import errors
from tableside.telemetry.request_trace import RequestTrace
from tableside.web.error_replies import INTERNAL, to_reply
from tableside.web.extensions import EXTENSION_KEY
from tableside.web.request import RequestContext
from tableside.web.response import Reply
from tests.conftest import MakeApp


def reply_for(app: Flask, problem: Exception, **environ: str) -> tuple[Reply, dict[str, Any]]:
    """The reply for an error, and its error object."""
    context = RequestContext({"PATH_INFO": "/v9", **environ}, app.extensions[EXTENSION_KEY], RequestTrace("id-1", 0.0))
    reply = to_reply(problem, context)
    assert context.trace.error == type(problem).__name__ or isinstance(problem, HTTPException)
    return reply, orjson.loads(reply.body)


@pytest.mark.parametrize(
    ("problem", "status", "text", "headers"),
    [
        (errors.Overloaded("full", 7), 429, "full", {"Retry-After": "7"}),
        (errors.ModelNotReady("iris/1 is LOADING"), 503, "iris/1 is LOADING", {"Retry-After": "1"}),
        (errors.Unauthorized(), 401, "Authorization: Bearer KEY", {"WWW-Authenticate": "Bearer"}),
        (errors.NotAcceptable(("a/b",)), 406, "there are a/b", {}),
        (errors.UnsupportedBody("send UTF-8"), 415, "send UTF-8", {}),
        (errors.DeadlineExceeded(0.5), 504, "0.5 s", {}),
        (errors.ClientClosedRequest(), 499, "closed the connection", {}),
        (errors.NotFinite(), 500, "predict.not_finite", {}),
        (errors.ContractBroken("secret path"), 500, INTERNAL, {}),
        (errors.SettingsError("secret path"), 500, INTERNAL, {}),
        (ZeroDivisionError("secret path"), 500, INTERNAL, {}),
        (BadRequest("cut"), 400, "cut", {}),
        (
            MethodNotAllowed(["PUT", "GET"]),
            405,
            "method DELETE is not allowed for /v9; use GET, PUT",
            {"Allow": "GET, PUT"},
        ),
    ],
)
def test_each_error_has_its_reply(
    app: Flask, problem: Exception, status: int, text: str, headers: dict[str, str]
) -> None:
    """An error becomes a reply with its status, its text where clients may read it, and the headers of its status."""
    reply, content = reply_for(app, problem, REQUEST_METHOD="DELETE")
    assert (reply.status, dict(reply.headers), reply.kind) == (status, headers, "application/json")
    assert (content["status"], content["instance"]) == (status, "id-1")
    assert text in content["error"]
    assert "secret" not in content["error"]
    assert reply.line.startswith(f"{status} ")


def test_a_body_over_the_limit_names_its_setting(app: Flask) -> None:
    """werkzeug's error for a large body has the same object as TooLarge, with the limit in `max_bytes`."""
    reply, content = reply_for(app, RequestEntityTooLarge())
    limit = app.extensions[EXTENSION_KEY].settings.server.max_body_bytes
    assert (reply.status, content["max_bytes"]) == (413, limit)
    assert "server.max_body_bytes" in content["error"]


@pytest.mark.parametrize(
    ("problem", "code"), [(errors.RequestRejected("a"), "BAD_REQUEST"), (OSError(), "INTERNAL_ERROR")]
)
def test_mlflow_s_routes_have_its_members(app: Flask, problem: Exception, code: str) -> None:
    """On `/invocations` and `/invoke` the error has the members that MLflow's client reads; elsewhere it has not."""
    for path in ("/invocations", "/models/iris/invoke"):
        _, content = reply_for(app, problem, PATH_INFO=path)
        assert (content["error_code"], content["message"]) == (code, content["error"])
    assert "error_code" not in reply_for(app, problem)[1]


@pytest.mark.parametrize(
    ("path", "kind", "hint"),
    [
        (
            "/v1/models/iris:predict",
            "text/csv; charset=utf-8",
            ". This path takes JSON; a body of the type text/csv is",
        ),
        ("/v2/models/iris/versions/1/infer", "application/x-npy", "is read at /models/NAME/invocations"),
        ("/v1/models/iris:predict", "application/json", ""),
        ("/v2/models/iris/infer", "application/x-www-form-urlencoded", ""),
        ("/models/iris/invocations", "text/csv", ""),
    ],
)
def test_a_table_sent_to_a_path_of_json_is_told_where_it_is_read(app: Flask, path: str, kind: str, hint: str) -> None:
    """V1 and V2 read JSON whatever the Content-Type says, as their clients expect."""
    _, found = reply_for(app, errors.RequestRejected("no JSON"), PATH_INFO=path, CONTENT_TYPE=kind)
    assert (hint in found["detail"]) if hint else found["detail"] == "no JSON"


def test_every_bad_cell_is_listed(app: Flask) -> None:
    """`errors` lists each place with its message; `error` names the first and counts the rest."""
    cells = (errors.CellError("rows[0].a", "expected a number"), errors.CellError("rows[1].b", "expected a string"))
    _, content = reply_for(app, errors.RequestRejected("bad input", cells))
    assert content["error"] == "bad input: rows[0].a: expected a number (and 1 more)"
    assert [cell["path"] for cell in content["errors"]] == ["rows[0].a", "rows[1].b"]


@pytest.mark.parametrize(("show", "event_has"), [("false", False), ("true", True)])
def test_values_are_logged_only_where_the_operator_allows_it(make_app: MakeApp, show: str, event_has: bool) -> None:
    """The log has the frames of a server error; its text, which may quote data, only with `predict.show_values`."""
    app = make_app(load=False, predict__show_values=show)
    with capture_logs() as lines:
        reply_for(app, ZeroDivisionError("secret-value"))
    (line,) = [line for line in lines if line["event"] == "request_failed"]
    assert (line["error"], line["request_id"]) == ("ZeroDivisionError", "id-1")
    assert ("exc_info" in line) is event_has
    assert ("secret-value" in str(line)) is event_has
