"""The fast dispatch answers as Flask's own does, byte for byte; takes only what it may; and passes over no hook."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

import pytest
from flask import Blueprint, Flask, request_started
from structlog.contextvars import get_contextvars
from structlog.testing import capture_logs

from tableside.web import dispatch
from tableside.web.dispatch import FastDispatchError, FastDispatchFlask, view
from tableside.web.request import RequestContext
from tableside.web.response import Reply
from tests.conftest import CONTROL, MakeApp, registry_of

ROW = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]]}).encode()
V2 = {"inputs": [{"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": [5.1, 3.5, 1.4, 0.2]}]}
PREDICT = "/v1/models/iris:predict"
BINARY = {**V2, "parameters": {"binary_data_output": True}}
CASES: dict[str, tuple[str, bytes, dict[str, str]]] = {
    "v1": (PREDICT, ROW, {}),
    "v1 version": ("/v1/models/iris/versions/1:predict", ROW, {}),
    "v2": ("/v2/models/iris/infer", json.dumps(V2).encode(), {}),
    "v2 binary": ("/v2/models/iris/infer", json.dumps(BINARY).encode(), {}),
    "invocations": ("/models/iris/invocations", ROW, {"CONTENT_TYPE": "application/json"}),
    "query": ("/models/iris/invocations", ROW, {"QUERY_STRING": "output=predict_proba"}),
    "wrong query": ("/models/iris/invocations", ROW, {"QUERY_STRING": "out=predict_proba"}),
    "csv": ("/models/iris/invocations", b"5.1,3.5,1.4,0.2\n", {"CONTENT_TYPE": "text/csv", "HTTP_ACCEPT": "text/csv"}),
    "no JSON": (PREDICT, b"{", {}),
    "bad cell": (PREDICT, b'{"instances": [[1, 2, 3, "x"]]}', {}),
    "problem": (PREDICT, b"[]", {"HTTP_ACCEPT": "application/problem+json"}),
    "no model": ("/v1/models/none:predict", ROW, {}),
    "no version": ("/v1/models/iris/versions/9:predict", ROW, {}),
    "empty": (PREDICT, b"", {}),
    "cut": (PREDICT, ROW, {"CONTENT_LENGTH": "999"}),
    "too large": (PREDICT, ROW, {"CONTENT_LENGTH": "9999999999"}),
    "no length": (PREDICT, ROW, {"CONTENT_LENGTH": ""}),
    "chunked": (PREDICT, ROW, {"CONTENT_LENGTH": "", "wsgi.input_terminated": "yes"}),
    "strange length": (PREDICT, ROW, {"CONTENT_LENGTH": "+52"}),
    "other type": ("/models/iris/invocations", ROW, {"CONTENT_TYPE": "application/x-www-form-urlencoded"}),
    "unknown encoding": (PREDICT, ROW, {"HTTP_CONTENT_ENCODING": "br"}),
    "not gzip": (PREDICT, ROW, {"HTTP_CONTENT_ENCODING": "gzip"}),
    "soon": (PREDICT, ROW, {"HTTP_X_REQUEST_TIMEOUT_MS": "soon"}),
    "bad id": (PREDICT, ROW, {"HTTP_X_REQUEST_ID": "no spaces"}),
    "nothing there": ("/v1/models/iris:explain", ROW, {}),
    "no route": ("/v9", ROW, {}),
    "not ASCII": ("/v1/models/\xc3\xbc:predict", ROW, {}),
    "mended": ("/v2/models//iris/infer", ROW, {}),
}


def ask(app: Flask, flasks: bool, path: str, body: bytes, more: dict[str, str], method: str = "POST") -> Any:
    """(status line, headers, body) as the one lane or the other says it."""
    said: list[Any] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "h",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(), "CONTENT_LENGTH": str(len(body)), "HTTP_HOST": "h", "HTTP_X_REQUEST_ID": "same",
        **more,
    }  # fmt: skip
    run = (lambda *given: Flask.wsgi_app(app, *given)) if flasks else app.wsgi_app
    content = b"".join(run(environ, lambda status, headers, _=None: said.append((status, headers))))
    (status, headers), *more_calls = said
    assert not more_calls
    return status, sorted((name.lower(), value) for name, value in headers), content


@pytest.mark.parametrize("case", CASES)
def test_both_lanes_say_the_same(app: Flask, case: str) -> None:
    """Status line, every header, every byte; for answers, refusals and what only Flask knows."""
    path, body, more = CASES[case]
    ours, flasks = (ask(app, lane, path, body, more) for lane in (False, True))
    if case == "bad id":
        ours, flasks = (
            (status, [h for h in headers if h[0] != "x-request-id"], b"") for status, headers, _ in (ours, flasks)
        )
    assert ours == flasks
    assert ours[0].startswith(("200", "308", "400", "404", "413", "415"))


def test_other_methods_are_flasks(app: Flask) -> None:
    """GET of a path that was dispatched fast before is still 405, with what is allowed."""
    ask(app, False, PREDICT, ROW, {})
    assert ask(app, False, PREDICT, b"", {}, "GET") == ask(app, True, PREDICT, b"", {}, "GET")
    assert ask(app, False, PREDICT, b"", {}, "GET")[0] == "405 Method Not Allowed"


def test_guarded_faces_are_never_dispatched_fast(app: Flask) -> None:
    """A POST to the control plane's routes meets its guard, whatever was remembered."""
    for path in ("/admin/api/reload", "/v2/repository/models/iris/load", "/v2/repository/index"):
        assert ask(app, False, path, b"", {})[0].startswith("404")
        ask(app, False, path, b"", {**CONTROL})
        assert ask(app, False, path, b"", {})[0].startswith("404")
        assert path not in app._known_routes  # type: ignore[attr-defined]


def test_a_flood_of_names_is_forgotten(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose paths; what is remembered of them stays bounded."""
    monkeypatch.setattr(dispatch, "MOST_PATHS", 50)
    for number in range(120):
        ask(app, False, f"/v1/models/m{number}:predict", ROW, {})
    assert len(app._known_routes) <= 50  # type: ignore[attr-defined]
    assert ask(app, False, PREDICT, ROW, {})[0] == "200 OK"


def test_what_breaks_inside_is_told_and_logged(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error nobody expected: 500 without its text, the log has it under the request's id."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(registry_of(app), "wait_servable", broken)
    logging.disable(logging.NOTSET)
    for flasks in (False, True):
        with capture_logs() as lines:
            status, headers, content = ask(app, flasks, PREDICT, ROW, {})
        assert status.startswith("500")
        assert ("x-request-id", "same") in headers
        assert b"secret" not in content
        failed = [line for line in lines if line["event"] == "request_failed"]
        assert [(line["error"], line["request_id"]) for line in failed] == [("RuntimeError", "same")]


def hook(*_: Any) -> Any:
    """Any hook of somebody else; given back what it is given where Flask wants that."""
    return _[0] if _ else None


def hello(exchange: RequestContext) -> Reply:
    """The smallest handler: says what is bound for logs."""
    return Reply(json.dumps(get_contextvars()).encode())


def with_hello(app: Flask, change: Callable[[Blueprint], Any] = hook) -> FastDispatchFlask:
    """The application with a fast endpoint of a blueprint of its own. change: done to the blueprint before."""
    assert isinstance(app, FastDispatchFlask)
    blueprint = Blueprint("mine", __name__)
    blueprint.add_url_rule("/mine", view_func=view(hello), endpoint="hello", methods=["POST"])
    change(blueprint)
    app.register_blueprint(blueprint)
    app.register_fast({"mine.hello": hello})
    return app


HOOKS: dict[str, Callable[[Any], Any]] = {
    "before_request": lambda scope: scope.before_request(hook),
    "after_request": lambda scope: scope.after_request(hook),
    "teardown_request": lambda scope: scope.teardown_request(hook),
    "url_value_preprocessor": lambda scope: scope.url_value_preprocessor(hook),
    "error handler": lambda scope: scope.register_error_handler(ValueError, hook),
    "error handler of a status": lambda scope: scope.register_error_handler(413, hook),
    "error handler in place of ours": lambda scope: scope.register_error_handler(Exception, hook),
}
OF_THE_APP: dict[str, Callable[[Flask], Any]] = HOOKS | {
    "teardown_appcontext": lambda app: app.teardown_appcontext(hook),
    "request_started": lambda app: request_started.connect(hook, app),
    "before_request of its blueprint": lambda app: app.before_request_funcs.setdefault("predict", []).append(hook),
}
BY_A_BLUEPRINT: dict[str, Callable[[Blueprint], Any]] = {
    "before_request": lambda blueprint: blueprint.before_app_request(hook),
    "after_request": lambda blueprint: blueprint.after_app_request(hook),
    "teardown_request": lambda blueprint: blueprint.teardown_app_request(hook),
    "url_value_preprocessor": lambda blueprint: blueprint.app_url_value_preprocessor(hook),
    "error handler": lambda blueprint: blueprint.app_errorhandler(ValueError)(hook),
}


@pytest.mark.parametrize("kind", OF_THE_APP)
def test_a_hook_of_the_application_is_not_passed_over(make_app: MakeApp, kind: str) -> None:
    """Whatever would apply to a prediction and be skipped: no request is served, and the error names hook and endpoint,
    and says what to do.
    """
    app = make_app(load=False)
    OF_THE_APP[kind](app)
    for path, method in ((PREDICT, "POST"), ("/v2/health/live", "GET"), (PREDICT, "POST")):
        with pytest.raises(FastDispatchError) as refused:
            ask(app, False, path, ROW, {}, method)
        said = str(refused.value)
        assert f"{kind.partition(' ')[0]} " in said
        assert "'hook'" in said
        assert "endpoint 'predict." in said
        assert "take the endpoint out of FAST_ENDPOINTS" in said


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_of_the_blueprint_is_not_passed_over(make_app: MakeApp, kind: str) -> None:
    """A blueprint with a fast endpoint and a hook is refused at start."""
    with pytest.raises(FastDispatchError, match="'mine.hello' would pass over the .* 'hook' of blueprint 'mine'"):
        with_hello(make_app(load=False), HOOKS[kind])


@pytest.mark.parametrize("kind", BY_A_BLUEPRINT)
def test_a_hook_that_a_blueprint_gives_the_application_is_not_passed_over(make_app: MakeApp, kind: str) -> None:
    """`before_app_request` and its like of any blueprint apply to predictions as well."""
    app, other = make_app(load=False), Blueprint("other", __name__)
    BY_A_BLUEPRINT[kind](other)
    app.register_blueprint(other)
    with pytest.raises(FastDispatchError, match=f"the {kind}.* 'hook' of the application"):
        ask(app, False, PREDICT, ROW, {})


def test_hooks_of_other_blueprints_are_their_own_affair(make_app: MakeApp) -> None:
    """What cannot apply to a fast endpoint is not refused."""
    app, other = make_app(), Blueprint("other", __name__)
    other.before_request(hook)
    app.register_blueprint(other)
    assert [ask(app, False, PREDICT, ROW, {})[0] for _ in range(2)] == ["200 OK"] * 2


def test_hooks_that_come_too_late_are_refused_by_flask(make_app: MakeApp) -> None:
    """Once a prediction was served, whichever way, no further hook can be registered."""
    app = make_app()
    ask(app, False, PREDICT, ROW, {})
    with pytest.raises(AssertionError, match="before_request"):
        app.before_request(hook)


@pytest.mark.parametrize("served_before", [0, 1, 2])
def test_a_wrapped_view_is_not_passed_over(make_app: MakeApp, served_before: int) -> None:
    """A view function that was replaced, before the first request or later, is named rather than skipped."""
    app = make_app()
    for _ in range(served_before):
        assert ask(app, False, PREDICT, ROW, {})[0] == "200 OK"
    inner = app.view_functions["predict.v1_predict"]

    @wraps(inner)
    def wrapped(**values: Any) -> Any:
        return inner(**values)

    app.view_functions["predict.v1_predict"] = wrapped
    with pytest.raises(FastDispatchError, match="'predict.v1_predict' would pass over the view function 'infer'"):
        ask(app, False, PREDICT, ROW, {})


def test_what_is_logged_meanwhile_bears_the_request_s_id(make_app: MakeApp) -> None:
    """Both ways bind the id for every logger while the request is handled, and for nothing after it."""
    app = with_hello(make_app(load=False))
    for flasks in (True, False):
        assert json.loads(ask(app, flasks, "/mine", b"", {})[2]) == {"request_id": "same"}
        assert get_contextvars() == {}
    assert "/mine" not in app._known_routes  # the first request of an application is always Flask's
    assert json.loads(ask(app, False, "/mine", b"", {})[2]) == {"request_id": "same"}
    assert "/mine" in app._known_routes
    assert get_contextvars() == {}
