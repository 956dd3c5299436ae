"""The express lane answers as Flask's own dispatch does, byte for byte; and takes only what it may."""

from __future__ import annotations

import io
import json
import logging
from typing import Any

import pytest
from conftest import CONTROL, registry_of
from flask import Flask
from structlog.testing import capture_logs

from app.web import express

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
    """GET of a path that was taken by express before is still 405, with what is allowed."""
    ask(app, False, PREDICT, ROW, {})
    assert ask(app, False, PREDICT, b"", {}, "GET") == ask(app, True, PREDICT, b"", {}, "GET")
    assert ask(app, False, PREDICT, b"", {}, "GET")[0] == "405 Method Not Allowed"


def test_guarded_faces_never_go_express(app: Flask) -> None:
    """A POST to the control plane's routes meets its guard, whatever was remembered."""
    for path in ("/admin/api/reload", "/v2/repository/models/iris/load", "/v2/repository/index"):
        assert ask(app, False, path, b"", {})[0].startswith("404")
        ask(app, False, path, b"", {**CONTROL})
        assert ask(app, False, path, b"", {})[0].startswith("404")
        assert path not in app._known_routes  # type: ignore[attr-defined]


def test_a_flood_of_names_is_forgotten(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients choose paths; what is remembered of them stays bounded."""
    monkeypatch.setattr(express, "MOST_PATHS", 50)
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
        failed = [line for line in lines if line["event"] == "failed"]
        assert [(line["error"], line["request_id"]) for line in failed] == [("RuntimeError", "same")]
