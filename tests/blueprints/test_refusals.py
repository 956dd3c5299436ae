"""Errors: one JSON object, the right status, the place that is wrong; never a 500 for what a client sent."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MakeApp, registry_of
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
    """An error is exactly this object, under the client's request id."""
    response = client.post(V1, json={"instances": [[*GOOD[:5], 1]]}, headers={"X-Request-ID": "abc-1"})
    detail = "the input does not fit the model's contract"
    cell = {"path": "instances[0][5] (aromatic)", "message": "expected true or false or null, got an integer"}
    if b"or null" not in response.data:
        cell["message"] = "expected true or false, got an integer"
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
    """A request that does not fit answers 400 and lists the bad places."""
    got = error(client.post(url, json=body), 400)
    listed = [each["path"] for each in got["errors"]]
    assert [path for path in paths if path not in listed] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "empty"),
        (b"{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b'{"instances": [[NaN, 1, 1, 1, "deep", true]]}', "not JSON"),
        (b'{"instances": [[Infinity]]}', "not JSON"),
        (b'{"instances": [[1e999]]}', "out of range"),
        (b'{"instances": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
        (b'{"instances": []}', "no rows"),
        (b"{}", "exactly one of"),
        (b'{"instances": [], "inputs": []}', "exactly one of"),
        (b'{"instances": [[' + b"9" * 400 + b', 1, 1, 1, "deep", true]]}', "too large"),
        (b'{"instances": ["\\ud800"]}', ""),
    ],
)
def test_a_bad_body_is_explained(client: FlaskClient, body: bytes, said: str) -> None:
    """A body that is no JSON, or not what the protocol has, answers 400 and says which."""
    assert said in error(client.post(V1, data=body), 400)["error"]


@pytest.mark.parametrize(
    ("method", "url", "said"),
    [
        ("POST", "/v2/models/nope/infer", "no model 'nope'; there is breast-cancer, diabetes, iris, wine"),
        ("GET", "/v2/models/nope", "no model 'nope'"),
        ("GET", "/v2/models/nope/ready", "no model 'nope'"),
        ("POST", "/v1/models/nope:predict", "no model 'nope'"),
        ("POST", "/v2/models/wine/versions/9/infer", "no version or alias '9'; it has 1, champion"),
        ("POST", "/v1/models/wine/labels/x:predict", "no version or alias 'x'"),
        ("GET", "/nothing/here", "nothing at /nothing/here"),
        ("GET", "/%ff%fe", "nothing at"),
        ("GET", "/v2/models/%ff", "no model"),
        ("GET", "/v2/models/..%2f..%2fetc", ""),
    ],
)
def test_what_is_not_there_is_404(client: FlaskClient, method: str, url: str, said: str) -> None:
    """An unknown model, version, alias or path answers 404 and says what there is."""
    assert said in error(client.open(url, method=method, json={}), 404)["error"]


def test_an_unknown_output_is_400(client: FlaskClient) -> None:
    """An output the model has not is the client's error, with those it has."""
    said = error(client.post(V1, json={"instances": [GOOD], "signature_name": "proba"}), 400)["error"]
    assert "has no output 'proba'; it has predict, predict_proba" in said


@pytest.mark.parametrize(
    ("method", "url", "allow"), [("GET", V2, "POST"), ("GET", V1, "POST"), ("PUT", V1, "POST"), ("POST", "/v2", "GET")]
)
def test_a_wrong_method_is_405(client: FlaskClient, method: str, url: str, allow: str) -> None:
    """A wrong method answers 405, with the right ones in Allow."""
    response = client.open(url, method=method)
    error(response, 405)
    assert allow in response.headers["Allow"].split(", ")


def test_a_body_over_the_limit_is_413(make_app: MakeApp) -> None:
    """A body larger than the limit answers 413 and names the setting; one just as large is read."""
    client = make_app(server__max_body_bytes="1000").test_client()
    got = error(client.post("/v1/models/iris:predict", data=b"x" * 1001), 413)
    assert "server.max_body_bytes (1000 bytes)" in got["error"]
    assert got["max_bytes"] == 1000
    error(client.post("/v1/models/iris:predict", data=b"x" * 1000), 400)


def test_a_problem_may_be_asked_for(client: FlaskClient) -> None:
    """Who accepts application/problem+json gets the same object under that type."""
    response = client.get("/nothing", headers={"Accept": "application/problem+json"})
    assert response.content_type == "application/problem+json"
    assert response.get_json()["status"] == 404


def test_a_request_id_comes_back(client: FlaskClient) -> None:
    """A client's request id is kept; without one, or with a bad one, there is a new one."""
    assert client.get("/", headers={"X-Request-ID": "a.b:c-1"}).headers["X-Request-ID"] == "a.b:c-1"
    for headers in ({}, {"X-Request-ID": "no spaces"}, {"X-Request-ID": "x" * 129}):
        assert re.fullmatch("[0-9a-f]{32}", client.get("/", headers=headers).headers["X-Request-ID"])


@pytest.mark.parametrize(
    ("fault", "status"), [(RuntimeError("secret-value"), 500), (ValueError("secret-value"), 400), (KeyError("s"), 500)]
)
def test_a_model_s_own_words_stay_here(make_app: MakeApp, fault: Exception, status: int) -> None:
    """What the estimator raises answers by its kind, and its text is never sent."""
    app = make_app()
    registry_of(app).catalog.servable("iris").runtime = FailingRuntime(fault)
    response = app.test_client().post("/v1/models/iris:predict", json={"instances": [[1, 2, 3, 4]]})
    assert "secret" not in error(response, status)["error"]


def test_a_late_answer_is_504(make_app: MakeApp) -> None:
    """An answer that is not there in time is 504."""
    app = make_app(server__request_timeout_s="0.000001")
    response = app.test_client().post("/v1/models/iris:predict", json={"instances": [[1, 2, 3, 4]]})
    assert "deadline" in error(response, 504)["error"]


def test_a_bug_of_ours_is_500_without_words(make_app: MakeApp) -> None:
    """An error nobody foresaw answers 500 in the same shape, without its text."""
    app = make_app()

    def broken() -> str:
        raise LookupError("secret-value")

    app.add_url_rule("/broken", view_func=broken)
    assert "secret" not in error(app.test_client().get("/broken"), 500)["error"]


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
    """Any JSON at all, to either protocol, is answered or refused with 400."""
    client = app.test_client()
    for url, body in ((V1, junk), (V2, junk), (V1, {"instances": junk}), (V1, {"inputs": junk}), (V2, {"inputs": junk}),
                      (V1, {"instances": cells})):  # fmt: skip
        response = client.post(url, data=orjson.dumps(body))
        assert response.status_code in (200, 400), response.get_data(as_text=True)


@given(body=st.binary(max_size=40))
def test_bytes_are_never_a_500(app: Flask, body: bytes) -> None:
    """Any bytes at all are refused with 400."""
    client = app.test_client()
    assert {client.post(url, data=body).status_code for url in (V1, V2)} == {400}
