"""A name that chooses an output is honoured, or refused with the place where it belongs. It is never ignored."""

from __future__ import annotations

from typing import Any

import pytest
from flask.testing import FlaskClient

from tableside.contracts.schema import Column, Input
from tests.conftest import QUICK, MakeApp, error_of, serve
from tests.fakes import RecordingRuntime

V1, V2, MLFLOW = "/v1/models/m:predict", "/v2/models/m/infer", "/models/m/invocations"
ROWS = {"instances": [[1.0]]}
TENSORS = {"inputs": [{"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}]}


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(empty=True, **QUICK)
    serve(app, {"m": (Input("frame", (Column("a", "FP64", "float64"),)), RecordingRuntime())})
    return app.test_client()


@pytest.mark.parametrize(
    ("url", "body", "error"),
    [
        (V1, {**ROWS, "output": "predict_proba"}, "output: not read here; name outputs in the query, '?output=...'"),
        (V1, {**ROWS, "outputs": ["predict"]}, "outputs: not read here"),
        (V1, {**ROWS, "predict_method": "predict_proba"}, "predict_method: not read here"),
        (V1, {**ROWS, "params": {"output": "predict_proba"}}, "params: not read here"),
        (V1, {**ROWS, "parameters": {"predict_method": "x"}}, "parameters.predict_method: not read here"),
        (V2, {**TENSORS, "output": "predict_proba"}, "output: not read here; name outputs in the member 'outputs'"),
        (V2, {**TENSORS, "params": {"output": "predict"}}, "params: not read here"),
        (V2, {**TENSORS, "parameters": {"predict_method": "x"}}, "parameters.predict_method: not read here"),
        (V2, {**TENSORS, "parameters": {"output": "x"}}, "parameters.output: not read here"),
        (f"{V2}?output=predict_proba", TENSORS, "the query parameter 'output' is not read in V2"),
        (f"{V2}?classes=true", TENSORS, "the query parameter 'classes' is not read in V2"),
        (MLFLOW, {**ROWS, "predict_method": "x"}, "predict_method: not read here; name outputs in 'params'"),
        (MLFLOW, {**ROWS, "output": "x"}, "output: not read here"),
        (MLFLOW, {**ROWS, "signature_name": "x"}, "signature_name: not read here"),
        (MLFLOW, {**ROWS, "params": {"predict_method": "x"}}, "params.predict_method: not read here"),
        (MLFLOW, {**ROWS, "params": {"outputs": "x"}}, "params.outputs: not read here"),
    ],
)
def test_a_name_where_it_is_not_read(client: FlaskClient, url: str, body: dict[str, Any], error: str) -> None:
    """400 with the name's place and the right one."""
    assert error in error_of(client.post(url, json=body))["error"]


def test_what_a_protocol_allows_is_no_mistake(client: FlaskClient) -> None:
    """Parameters of V2, its `outputs`, and members that nobody reads are accepted as before."""
    assert client.post(V2, json={**TENSORS, "parameters": {"my_tag": 1}, "other": 2}).status_code == 200
    assert client.post(f"{V2}?trace=1", json={**TENSORS, "outputs": [{"name": "predict"}]}).status_code == 200
    assert client.post(V1, json={**ROWS, "other": 2, "parameters": {"my_tag": 1}}).status_code == 200


def test_params_without_use_are_named_in_a_warning(client: FlaskClient) -> None:
    """As MLflow ignores them. What a client wrote cannot break the header."""
    given = {"few": 0.5, 'a"b\r\nX-Y: z': 1, **{f"more_{at}": 1 for at in range(9)}}
    answer = client.post(MLFLOW, json={**ROWS, "params": given})
    assert answer.status_code == 200
    warning = answer.headers["Warning"]
    assert warning == (
        '299 - "params have no effect on this model: a?b??X-Y??z, few, more_0, more_1, more_2 and 6 more"'
    )
    answer = client.post(MLFLOW, json={**ROWS, "params": {"output": "predict"}})
    assert (answer.status_code, "Warning" in answer.headers) == (200, False)
