"""Errors: each is one JSON object with its status and the place that is wrong; bad input never causes a 500."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from tableside.web.auth import ACCESS_BY_BLUEPRINT, Access
from tests.conftest import BEARER, CONTROL, MakeApp, registry_of
from tests.fakes import FailingRuntime

V1, V2 = "/v1/models/wine:predict", "/v2/models/wine/infer"
GOOD = [13.2, None, 100, 1050.0, "deep", True]


def error(response: Any, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.get_data(as_text=True)
    assert response.content_type == "application/json"
    content: dict[str, Any] = response.get_json()
    assert content["status"] == status
    assert content["error"] == content["detail"] != ""
    assert content["type"] == "about:blank"
    assert content["instance"] == response.headers["X-Request-ID"]
    return content


def test_the_exact_error_object(client: FlaskClient) -> None:
    """The error object has exactly these members, and `instance` is the client's request id."""
    response = client.post(V1, json={"instances": [[*GOOD[:5], 2]]}, headers={"X-Request-ID": "abc-1"})
    detail = "the input does not fit the model's contract"
    cell = {"path": "instances[0][5] (aromatic)", "message": "expected true, false, 1 or 0, got an integer"}
    shown = f"{detail}: {cell['path']}: {cell['message']}"
    assert error(response, 400) == {
        "error": shown, "type": "about:blank", "title": "Bad Request", "status": 400, "detail": shown,
        "instance": "abc-1", "errors": [cell],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("url", "body", "paths"),
    [
        (V1, {"instances": [GOOD, ["x", None, 1.5, 1, "deep", True]]}, ["instances[1][0] (alcohol)"]),
        (V1, {"instances": [{"alcohol": 1, "grape": 2}]}, ["instances[0].grape"]),
        (V1, {"instances": [[1]]}, ["instances[0]"]),
        (V1, {"instances": 5}, ["instances"]),
        (V1, {"inputs": {"shade": ["blue"]}}, ["inputs.shade[0]"]),
        (V1, {"inputs": 5}, ["inputs"]),
        (V1, {"inputs": {"shade": 5}}, ["inputs.shade"]),
        (V1, {"instances": [GOOD], "signature_name": 5}, ["signature_name"]),
        (V1, [1], ["body"]),
        (V2, {}, ["body"]),
        (V2, {"inputs": [{"name": "a"}]}, ["inputs[0]"]),
        (V2, {"inputs": [{"name": "a", "shape": ["1"], "datatype": "FP64", "data": []}]}, ["inputs[0].shape[0]"]),
        (V2, {"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1]}]}, ["inputs[0].name"]),
        (V2, {"inputs": [{"name": "proline", "shape": [9], "datatype": "FP64", "data": [1]}]}, ["inputs[0].data"]),
        (V2, {"inputs": [{"name": "shade", "shape": [1], "datatype": "FP64", "data": [1]}]}, ["inputs[0].datatype"]),
        (V2, {"id": 7, "inputs": []}, ["id"]),
    ],
)
def test_a_bad_request_names_its_places(client: FlaskClient, url: str, body: Any, paths: list[str]) -> None:
    """A request that does not fit the model answers 400 and lists every place that is wrong."""
    got = error(client.post(url, json=body), 400)
    listed = [each["path"] for each in got["errors"]]
    assert [path for path in paths if path not in listed] == []


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is empty; send a JSON object"),
        (b"{", "the body is not valid JSON"),
        (b"\xff\xfe", "the body is not valid JSON"),
        (b'{"instances": [[1, 1, 1, 1, NaN, NaN]]}', "got null"),
        (b'{"instances": [[Infinity, 1, 1, 1, "deep", true]]}', "too large"),
        (b'{"instances": [[1e999]]}', "out of range"),
        (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"instances": []}', "no rows"),
        (b"{}", "exactly one of"),
        (b'{"instances": [], "inputs": []}', "exactly one of"),
        (b'{"instances": [[' + b"9" * 400 + b', 1, 1, 1, "deep", true]]}', "too large"),
        (b'{"instances": ["\\ud800"]}', ""),
    ],
)
def test_a_bad_body_is_explained(client: FlaskClient, body: bytes, text: str) -> None:
    """A body that is not JSON, or not a body of the protocol, answers 400 with what is wrong."""
    assert text in error(client.post(V1, data=body), 400)["error"]


@pytest.mark.parametrize(
    ("method", "url", "text"),
    [
        ("POST", "/v2/models/nope/infer", "no model 'nope'; there is breast-cancer, diabetes, iris, wine"),
        ("GET", "/v2/models/nope", "no model 'nope'"),
        ("GET", "/v2/models/nope/ready", "no model 'nope'"),
        ("POST", "/v1/models/nope:predict", "no model 'nope'"),
        ("POST", "/v2/models/wine/versions/9/infer", "no version or alias '9'; it has 1, champion"),
        ("POST", "/v1/models/wine/labels/x:predict", "no version or alias 'x'"),
        ("GET", "/nothing/here", "unknown path: /nothing/here"),
        ("GET", "/%ff%fe", "unknown path: /"),
        ("GET", "/" + "x" * 300, "unknown path: /" + "x" * 199),
        ("GET", "/v2/models/%ff", "no model"),
        ("GET", "/v2/models/..%2f..%2fetc", ""),
    ],
)
def test_what_is_not_there_is_404(client: FlaskClient, method: str, url: str, text: str) -> None:
    """An unknown model, version or alias answers 404 and lists the known ones; so does an unknown path, by its name."""
    assert text in error(client.open(url, method=method, json={}), 404)["error"]


def test_an_unknown_output_is_400(client: FlaskClient) -> None:
    """An output that the model does not have answers 400 and lists the outputs that it has."""
    text = error(client.post(V1, json={"instances": [GOOD], "signature_name": "proba"}), 400)["error"]
    assert "has no output 'proba'; it has predict, predict_proba" in text


@pytest.mark.parametrize(
    ("method", "url", "allow"), [("GET", V2, "POST"), ("GET", V1, "POST"), ("PUT", V1, "POST"), ("POST", "/v2", "GET")]
)
def test_a_wrong_method_is_405(client: FlaskClient, method: str, url: str, allow: str) -> None:
    """A wrong method answers 405, with the allowed methods in the error and in the Allow header."""
    response = client.open(url, method=method)
    text = error(response, 405)["error"]
    assert text == f"method {method} is not allowed for {url}; use {response.headers['Allow']}"
    assert allow in response.headers["Allow"].split(", ")


def test_a_body_over_the_limit_is_413(make_app: MakeApp) -> None:
    """A body above `server.max_body_bytes` answers 413 with the setting's name; a body of that size is read."""
    client = make_app(server__max_body_bytes="1000").test_client()
    got = error(client.post("/v1/models/iris:predict", data=b"x" * 1001), 413)
    assert "server.max_body_bytes (1000 bytes)" in got["error"]
    assert got["max_bytes"] == 1000
    error(client.post("/v1/models/iris:predict", data=b"x" * 1000), 400)


def test_an_error_can_be_a_problem_document(client: FlaskClient) -> None:
    """A client that accepts application/problem+json receives the same object with that Content-Type."""
    response = client.get("/nothing", headers={"Accept": "application/problem+json"})
    assert response.content_type == "application/problem+json"
    assert response.get_json()["status"] == 404


def test_a_request_id_comes_back(client: FlaskClient) -> None:
    """A valid request id is sent back; a request without one, or with an invalid one, receives a new id."""
    assert client.get("/", headers={"X-Request-ID": "a.b:c-1"}).headers["X-Request-ID"] == "a.b:c-1"
    for headers in ({}, {"X-Request-ID": "no spaces"}, {"X-Request-ID": "x" * 129}):
        assert re.fullmatch("[0-9a-f]{32}", client.get("/", headers=headers).headers["X-Request-ID"])


@pytest.mark.parametrize(
    ("fault", "status"), [(RuntimeError("secret-value"), 500), (ValueError("secret-value"), 400), (KeyError("s"), 500)]
)
def test_the_text_of_an_estimator_s_error_is_not_sent(make_app: MakeApp, fault: Exception, status: int) -> None:
    """An estimator's ValueError answers 400 and other errors 500; the error's text is never sent."""
    app = make_app()
    registry_of(app).catalog.servable("iris").runtime = FailingRuntime(fault)
    response = app.test_client().post("/v1/models/iris:predict", json={"instances": [[1, 2, 3, 4]]})
    assert "secret" not in error(response, status)["error"]


def test_a_late_answer_is_504(make_app: MakeApp) -> None:
    """A request that is not answered within its deadline answers 504."""
    app = make_app(server__request_timeout_s="0.000001")
    response = app.test_client().post("/v1/models/iris:predict", json={"instances": [[1, 2, 3, 4]]})
    assert "deadline" in error(response, 504)["error"]


def test_an_unexpected_error_is_a_500_without_its_text(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of no known class answers 500 with the same object, without the error's text."""
    monkeypatch.setitem(ACCESS_BY_BLUEPRINT, "broken", Access.PREDICT)
    app = make_app()

    def broken() -> str:
        raise LookupError("secret-value")

    app.add_url_rule("/broken", view_func=broken)
    assert "secret" not in error(app.test_client().get("/broken"), 500)["error"]


def test_a_control_route_is_unknown_on_the_data_plane(client: FlaskClient) -> None:
    """An unknown path and a control route answer alike on the data plane, which therefore reveals no control route."""
    for path in ("/metrics", "/admin/api/workers", "/nothing"):
        assert error(client.get(path, headers=BEARER), 404)["error"] == f"unknown path: {path}"
    assert client.get("/nothing", headers=BEARER, environ_overrides=CONTROL).status_code == 404


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["deep", "FP64", "INT64", "BYTES", "proline", "magnesium", "predict"]),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(
                ["instances", "inputs", "outputs", "name", "shape", "datatype", "data", "id", "proline", "shade"]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=25,
)


@given(junk=JUNK, cells=st.lists(st.lists(JUNK, min_size=6, max_size=6), min_size=1, max_size=2))
def test_junk_is_never_a_500(app: Flask, junk: Any, cells: Any) -> None:
    """Any JSON document, sent to either protocol, answers 200 or 400."""
    client = app.test_client()
    for url, body in ((V1, junk), (V2, junk), (V1, {"instances": junk}), (V1, {"inputs": junk}), (V2, {"inputs": junk}),
                      (V1, {"instances": cells})):  # fmt: skip
        response = client.post(url, data=orjson.dumps(body))
        assert response.status_code in (200, 400), response.get_data(as_text=True)


@given(body=st.binary(max_size=40))
def test_bytes_are_never_a_500(app: Flask, body: bytes) -> None:
    """Random bytes answer 400."""
    client = app.test_client()
    assert {client.post(url, data=body).status_code for url in (V1, V2)} == {400}
