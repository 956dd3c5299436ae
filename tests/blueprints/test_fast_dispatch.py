"""The fast dispatch answers as Flask's own does, byte for byte, handles predictions only, and skips no hook."""

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
from tableside.web.auth import ACCESS_BY_BLUEPRINT, Access
from tableside.web.dispatch import FastDispatchError, FastDispatchFlask, view
from tableside.web.hook_check import foreign_hooks
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


def ask(
    app: Flask, by_flask: bool, path: str, body: bytes, more: dict[str, str], method: str = "POST"
) -> tuple[str, list[tuple[str, str]], bytes]:
    """Send a request as plain WSGI, to Flask's own dispatch or to the application. Returns status, headers and body."""
    started: list[tuple[str, list[tuple[str, str]]]] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": "", "QUERY_STRING": "", "SERVER_NAME": "h",
        "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "wsgi.url_scheme": "http", "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(), "CONTENT_LENGTH": str(len(body)), "HTTP_HOST": "localhost",
        "HTTP_X_REQUEST_ID": "same", **more,
    }  # fmt: skip

    def start_response(status: str, headers: list[tuple[str, str]], _error: object = None) -> Any:
        started.append((status, headers))

    run = Flask.wsgi_app if by_flask else FastDispatchFlask.wsgi_app
    assert isinstance(app, FastDispatchFlask)
    content = b"".join(run(app, environ, start_response))
    ((status, headers),) = started
    return status, sorted((name.lower(), value) for name, value in headers), content


def is_cached(app: Flask, path: str) -> bool:
    assert isinstance(app, FastDispatchFlask)
    return path in app.cached_routes


@pytest.mark.parametrize("case", CASES)
def test_both_dispatches_answer_alike(app: Flask, case: str) -> None:
    """Status line, headers and body are equal for answers, refused requests and paths that only Flask handles."""
    path, body, more = CASES[case]
    fast, flasks = (ask(app, by_flask, path, body, more) for by_flask in (False, True))
    if case == "bad id":  # each dispatch makes a new id, which is in the header and in the body
        fast, flasks = (
            (status, [header for header in headers if header[0] != "x-request-id"], b"")
            for status, headers, _ in (fast, flasks)
        )
    assert fast == flasks
    assert fast[0].startswith(("200", "308", "400", "404", "413", "415"))


def test_other_methods_are_dispatched_by_flask(app: Flask) -> None:
    """A GET of a path whose POST was dispatched fast answers 405 and names the allowed method."""
    ask(app, False, PREDICT, ROW, {})
    fast, flasks = (ask(app, by_flask, PREDICT, b"", {}, "GET") for by_flask in (False, True))
    assert fast == flasks
    assert fast[0] == "405 Method Not Allowed"
    assert f"method GET is not allowed for {PREDICT}; use OPTIONS, POST" in json.loads(fast[2])["error"]


def test_control_routes_are_never_dispatched_fast(app: Flask) -> None:
    """A POST to a control route passes Flask's access check each time, and its path is never cached."""
    for path in ("/admin/api/reload", "/v2/repository/models/iris/load", "/v2/repository/index"):
        assert ask(app, False, path, b"", {})[0].startswith("404")
        ask(app, False, path, b"", {**CONTROL})
        assert ask(app, False, path, b"", {})[0].startswith("404")
        assert not is_cached(app, path)


def test_the_cache_of_paths_is_bounded(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose the paths, so the cache is emptied at its limit, and requests are answered all the same."""
    monkeypatch.setattr(dispatch, "MAX_CACHED_PATHS", 50)
    for number in range(120):
        ask(app, False, f"/v1/models/m{number}:predict", ROW, {})
    assert sum(is_cached(app, f"/v1/models/m{number}:predict") for number in range(120)) <= 50
    assert is_cached(app, "/v1/models/m119:predict")
    assert ask(app, False, PREDICT, ROW, {})[0] == "200 OK"


def test_an_unexpected_error_is_logged_and_not_sent(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of no known class answers 500 without its text; the log has it under the request's id."""

    def broken(*_: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr(registry_of(app), "answering", broken)
    logging.disable(logging.NOTSET)
    for by_flask in (False, True):
        with capture_logs() as lines:
            status, headers, content = ask(app, by_flask, PREDICT, ROW, {})
        assert status.startswith("500")
        assert ("x-request-id", "same") in headers
        assert b"secret" not in content
        assert json.loads(content)["error"].startswith("internal server error; the server's log has the cause")
        failed = [line for line in lines if line["event"] == "request_failed"]
        assert [(line["error"], line["request_id"]) for line in failed] == [("RuntimeError", "same")]


def hook(*_: Any) -> Any:
    """A hook that is not Tableside's. Returns its first argument, as an after_request hook must."""
    return _[0] if _ else None


def hello(_context: RequestContext) -> Reply:
    """A small handler that answers the context variables bound for the log."""
    return Reply(json.dumps(get_contextvars()).encode())


def with_hello(app: Flask, change: Callable[[Blueprint], Any] = hook) -> FastDispatchFlask:
    """The application with one more blueprint, which has a fast endpoint. change: called with the blueprint first."""
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
    "error handler that replaces Tableside's": lambda scope: scope.register_error_handler(Exception, hook),
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
def test_a_hook_of_the_application_is_not_skipped(make_app: MakeApp, kind: str) -> None:
    """While the application has a foreign hook, every request raises an error that names it and its remedy."""
    app = make_app(load=False)
    OF_THE_APP[kind](app)
    for path, method in ((PREDICT, "POST"), ("/v2/health/live", "GET"), (PREDICT, "POST")):
        with pytest.raises(FastDispatchError) as refused:
            ask(app, False, path, ROW, {}, method)
        text = str(refused.value)
        assert f"{kind.partition(' ')[0]} " in text
        assert "'hook'" in text
        assert "endpoint 'predict." in text
        assert "remove the endpoint from FAST_ENDPOINTS (blueprints/predict/views.py)" in text


@pytest.mark.parametrize("kind", HOOKS)
def test_a_hook_of_the_blueprint_is_not_skipped(make_app: MakeApp, kind: str) -> None:
    """Registering a fast endpoint whose blueprint has a hook raises an error."""
    with pytest.raises(FastDispatchError, match="'mine.hello' would skip the .* 'hook' of blueprint 'mine'"):
        with_hello(make_app(load=False), HOOKS[kind])


@pytest.mark.parametrize("kind", BY_A_BLUEPRINT)
def test_a_hook_that_a_blueprint_adds_to_the_application_is_not_skipped(make_app: MakeApp, kind: str) -> None:
    """`before_app_request` and similar hooks of any blueprint apply to predictions, so they raise the error too."""
    app, other = make_app(load=False), Blueprint("other", __name__)
    BY_A_BLUEPRINT[kind](other)
    app.register_blueprint(other)
    with pytest.raises(FastDispatchError, match=f"the {kind}.* 'hook' of the application"):
        ask(app, False, PREDICT, ROW, {})


def test_hooks_of_other_blueprints_are_allowed(make_app: MakeApp) -> None:
    """A hook that cannot apply to a fast endpoint raises no error."""
    app, other = make_app(), Blueprint("other", __name__)
    other.before_request(hook)
    app.register_blueprint(other)
    assert [ask(app, False, PREDICT, ROW, {})[0] for _ in range(2)] == ["200 OK"] * 2


def test_a_hook_after_the_first_request_is_rejected(make_app: MakeApp) -> None:
    """After the first request, even a prediction, Flask rejects new hooks."""
    app = make_app()
    ask(app, False, PREDICT, ROW, {})
    with pytest.raises(AssertionError, match="before_request"):
        app.before_request(hook)


@pytest.mark.parametrize("served_before", [0, 1, 2])
def test_a_replaced_view_is_not_skipped(make_app: MakeApp, served_before: int) -> None:
    """A view function that was replaced, before the first request or later, raises an error that names it."""
    app = make_app()
    for _ in range(served_before):
        assert ask(app, False, PREDICT, ROW, {})[0] == "200 OK"
    inner = app.view_functions["predict.v1_predict"]

    @wraps(inner)
    def wrapped(**values: Any) -> Any:
        return inner(**values)

    app.view_functions["predict.v1_predict"] = wrapped
    with pytest.raises(
        FastDispatchError, match="'predict.v1_predict' would skip the view function 'infer', which replaced"
    ):
        ask(app, False, PREDICT, ROW, {})


def test_log_lines_carry_the_request_id(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both dispatches bind the request's id for the log while the handler runs, and unbind it afterwards."""
    monkeypatch.setitem(ACCESS_BY_BLUEPRINT, "mine", Access.PREDICT)
    app = with_hello(make_app(load=False))
    for by_flask in (True, False):
        assert json.loads(ask(app, by_flask, "/mine", b"", {})[2]) == {"request_id": "same"}
        assert get_contextvars() == {}
    assert not is_cached(app, "/mine")  # Flask dispatches the first request of an application
    assert json.loads(ask(app, False, "/mine", b"", {})[2]) == {"request_id": "same"}
    assert is_cached(app, "/mine")
    assert get_contextvars() == {}


def test_a_handler_has_one_view() -> None:
    """`view` returns the same function for the same handler: that is how a replaced view is detected."""
    assert view(hello) is view(hello)
    assert view(hello).__name__ == "hello"


def test_foreign_hooks_are_described(make_app: MakeApp) -> None:
    """Each hook is described with its kind, its name and its owner; Tableside's own hooks are not listed."""
    app, nested, outer = make_app(load=False), Blueprint("inner", __name__), Blueprint("outer", __name__)
    assert list(foreign_hooks(app, "predict.v1_predict")) == []
    outer.before_request(hook)
    outer.register_blueprint(nested)
    app.register_blueprint(outer)
    app.teardown_appcontext(hook)
    of_app = "teardown_appcontext hook 'hook' of the application"
    assert list(foreign_hooks(app, "predict.v1_predict")) == [of_app]
    assert list(foreign_hooks(app, "outer.inner.page")) == [of_app, "before_request hook 'hook' of blueprint 'outer'"]
