"""Ids of the caller come back with answers and errors, by the fast dispatch and by Flask."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp

SENT = {
    "X-Correlation-ID": "c-1",
    "X-Amzn-SageMaker-Custom-Attributes": "trace=7",
    "X-Amzn-SageMaker-Inference-Id": "i-1",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "ce-id": "e-1",
}
GOOD = {"instances": [[5.1, 3.5, 1.4, 0.2]]}


def tensor(data: Any) -> dict[str, Any]:
    return {"id": "r-1", "inputs": [{"name": "input-0", "shape": [1, 4], "datatype": "FP64", "data": data}]}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/models/iris:predict", GOOD, 200),
        ("/models/iris/invocations", GOOD, 200),
        ("/models/iris/invocations", {"instances": [[1]]}, 400),
        ("/v1/models/none:predict", GOOD, 404),
        ("/v9", GOOD, 404),
        ("/v2", None, 200),
    ],
)
def test_headers_come_back(client: FlaskClient, path: str, body: Any, status: int) -> None:
    """The correlation id and SageMaker's attributes come back as they were sent; the others do not."""
    response = client.get(path, headers=SENT) if body is None else client.post(path, json=body, headers=SENT)
    assert response.status_code == status
    assert response.headers.getlist("X-Correlation-ID") == ["c-1"]
    assert response.headers["X-Amzn-SageMaker-Custom-Attributes"] == "trace=7"
    assert not {"traceparent", "ce-id", "x-amzn-sagemaker-inference-id"} & {
        name.lower() for name, _ in response.headers
    }


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (tensor([5.1, 3.5, 1.4, 0.2]), 200),
        (tensor([5.1, 3.5]), 400),
        ({"id": "r-1", "inputs": "none"}, 400),
        ({"id": "r-1", "inputs": [], "predict_method": "x"}, 400),
    ],
)
def test_the_id_of_v2_is_in_answers_and_errors(client: FlaskClient, body: Any, status: int) -> None:
    """An error has the request's id as soon as the JSON could be read."""
    response = client.post("/v2/models/iris/infer", json=body)
    assert (response.status_code, response.get_json()["id"]) == (status, "r-1")


def test_an_id_that_is_no_text_is_refused_without_an_id(client: FlaskClient) -> None:
    """Nor has the error of a body that is no JSON any id."""
    for body in (b'{"id": 7, "inputs": []}', b'{"id": "r-1"'):
        response = client.post("/v2/models/iris/infer", data=body)
        assert response.status_code == 400
        assert "id" not in response.get_json()


def test_the_access_line_has_them(make_app: MakeApp, capfd: pytest.CaptureFixture[str]) -> None:
    """One line for the request, with the ids of its headers and of its body."""
    client = make_app(log__format="json").test_client()
    capfd.readouterr()
    client.post("/v2/models/iris/infer", json=tensor([5.1, 3.5, 1.4, 0.2]), headers=SENT)
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines() if '"source":"access"' in line]
    assert [(line["id"], line["correlation_id"], line["inference_id"], line["ce_id"]) for line in lines] == [
        ("r-1", "c-1", "i-1", "e-1")
    ]
