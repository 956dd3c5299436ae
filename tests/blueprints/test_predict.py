"""Predictions over V1 and V2 are the answers of the trainer's own estimator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp, cells

NAMES = ["iris", "breast-cancer", "diabetes", "wine"]
DATATYPES = {"f": "FP64", "i": "INT64", "b": "BOOL"}
Trained = dict[str, tuple[Any, pd.DataFrame]]


def columns_of(sample: pd.DataFrame) -> dict[str, list[Any]]:
    rows = cells(sample)
    return {name: [row[at] for row in rows] for at, name in enumerate(sample.columns)}


def tensors_of(sample: pd.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": [len(sample)],
            "datatype": DATATYPES.get(sample[name].dtype.kind, "BYTES"),
            "data": values,
        }
        for name, values in columns_of(sample).items()
    ]


def ok(response: Any) -> Any:
    assert response.status_code == 200, response.get_data(as_text=True)
    assert response.content_type == "application/json"
    return response.get_json()


@pytest.mark.parametrize("name", NAMES)
def test_v2_answers_as_the_estimator(client: FlaskClient, trained: Trained, name: str) -> None:
    """With one tensor per column, every output of every row equals the estimator's, bit for bit."""
    estimator, sample = trained[name]
    wanted = [method for method in ("predict", "predict_proba") if hasattr(estimator, method)]
    body = {"id": "mine", "inputs": tensors_of(sample), "outputs": [{"name": method} for method in wanted]}
    got = ok(client.post(f"/v2/models/{name}/infer", json=body))
    assert (got["model_name"], got["model_version"], got["id"]) == (name, "1", "mine")
    assert [output["name"] for output in got["outputs"]] == wanted
    for output in got["outputs"]:
        expected = getattr(estimator, output["name"])(sample)
        answer = np.array(output["data"]).reshape(output["shape"])
        np.testing.assert_array_equal(answer, expected.reshape(len(sample), -1))


@pytest.mark.parametrize("name", ["iris", "breast-cancer", "diabetes"])
@pytest.mark.parametrize("nested", [True, False])
def test_v2_takes_one_matrix(client: FlaskClient, trained: Trained, name: str, nested: bool) -> None:
    """A numeric table can be sent as one tensor, nested or flat."""
    estimator, sample = trained[name]
    data = sample.to_numpy().tolist() if nested else sample.to_numpy().reshape(-1).tolist()
    tensor = {"name": "input-0", "shape": list(sample.shape), "datatype": "FP64", "data": data}
    got = ok(client.post(f"/v2/models/{name}/infer", json={"inputs": [tensor]}))
    assert "id" not in got
    np.testing.assert_array_equal(got["outputs"][0]["data"], estimator.predict(sample))


@pytest.mark.parametrize("name", NAMES)
def test_v1_answers_as_the_estimator(client: FlaskClient, trained: Trained, name: str) -> None:
    """Rows by position, rows by name in any order and columns answer as the estimator does."""
    estimator, sample = trained[name]
    expected = estimator.predict(sample)
    rows = cells(sample)
    named = [dict(reversed(list(zip(sample.columns, row, strict=True)))) for row in rows]
    url = f"/v1/models/{name}:predict"
    for body, member in (
        ({"instances": rows}, "predictions"),
        ({"instances": named}, "predictions"),
        ({"inputs": columns_of(sample)}, "outputs"),
        ({"inputs": named}, "outputs"),
        ({"inputs": rows, "signature_name": "serving_default"}, "outputs"),
    ):
        got = ok(client.post(url, json=body))
        assert list(got) == [member]
        np.testing.assert_array_equal(got[member], expected)


@pytest.mark.parametrize("name", NAMES)
def test_a_single_row_answers_as_the_estimator(client: FlaskClient, trained: Trained, name: str) -> None:
    """A request with one row has the estimator's answer for that row."""
    estimator, sample = trained[name]
    for at in range(0, len(sample), len(sample) // 7):
        one = sample.iloc[[at]]
        got = ok(client.post(f"/v1/models/{name}:predict", json={"instances": cells(one)}))
        np.testing.assert_array_equal(got["predictions"], estimator.predict(one))


def test_v1_answers_another_output(client: FlaskClient, trained: Trained) -> None:
    """`signature_name` selects another output, with the shape that the estimator gives it."""
    estimator, sample = trained["iris"]
    body = {"instances": cells(sample), "signature_name": "predict_proba"}
    got = ok(client.post("/v1/models/iris:predict", json=body))
    np.testing.assert_array_equal(got["predictions"], estimator.predict_proba(sample))


@pytest.mark.parametrize("spot", ["iris", "iris/versions/1", "iris/versions/champion", "iris@champion"])
def test_v2_finds_by_version_and_alias(client: FlaskClient, trained: Trained, spot: str) -> None:
    """A version, an alias as a version, and `name@alias` find the same servable."""
    estimator, sample = trained["iris"]
    body = {"inputs": tensors_of(sample[:3])}
    got = ok(client.post(f"/v2/models/{spot}/infer", json=body))
    assert (got["model_name"], got["model_version"]) == ("iris", "1")
    np.testing.assert_array_equal(got["outputs"][0]["data"], estimator.predict(sample[:3]))


@pytest.mark.parametrize("spot", ["iris/versions/1", "iris/labels/champion", "iris@champion"])
def test_v1_finds_by_version_and_label(client: FlaskClient, trained: Trained, spot: str) -> None:
    """TF-Serving's spellings of a version and a label find the servable."""
    estimator, sample = trained["iris"]
    got = ok(client.post(f"/v1/models/{spot}:predict", json={"instances": cells(sample[:2])}))
    np.testing.assert_array_equal(got["predictions"], estimator.predict(sample[:2]))


@pytest.mark.parametrize("name", NAMES)
def test_metadata_describes_the_model(client: FlaskClient, trained: Trained, name: str) -> None:
    """The metadata's inputs are the sample's columns, and a request that is made from the metadata is answered."""
    estimator, sample = trained[name]
    got = ok(client.get(f"/v2/models/{name}"))
    assert (got["name"], got["versions"], got["platform"]) == (name, ["1"], "scikit-learn_skops")
    assert [tensor["name"] for tensor in got["inputs"]] == list(sample.columns)
    assert all(tensor["shape"] == [-1, 1] for tensor in got["inputs"])
    assert "predict" in [tensor["name"] for tensor in got["outputs"]]
    columns = columns_of(sample[:4])
    inputs = [{**tensor, "shape": [4, 1], "data": columns[tensor["name"]]} for tensor in got["inputs"]]
    answer = ok(client.post(f"/v2/models/{name}/infer", json={"inputs": inputs}))
    np.testing.assert_array_equal(answer["outputs"][0]["data"], estimator.predict(sample[:4]))


def test_the_server_names_itself(client: FlaskClient) -> None:
    """The server metadata has the server's name; both protocols list all models."""
    for url in ("/v2", "/v2/"):
        assert ok(client.get(url))["name"] == "tableside"
    for url in ("/v1/models", "/v2/models"):
        assert ok(client.get(url)) == {"models": sorted(NAMES)}


@pytest.mark.parametrize("spot", ["iris", "iris/versions/1", "iris/labels/champion"])
def test_v1_status(client: FlaskClient, spot: str) -> None:
    """A model's V1 status has the members of KServe and of TF-Serving."""
    got = ok(client.get(f"/v1/models/{spot}"))
    status = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    assert got == {"name": "iris", "ready": True, "model_version_status": [status]}


def test_a_version_that_failed_is_unavailable(make_app: MakeApp, small_repository: Any) -> None:
    """A version that failed its checks answers 503 with the reason; other versions still answer."""
    (small_repository / "iris" / "2").mkdir()
    (small_repository / "iris" / "2" / "contract.json").write_bytes(b"{}")
    client = make_app().test_client()
    assert client.get("/v2/models/iris/ready").status_code == 200
    assert ok(client.get("/v2/models/iris"))["versions"] == ["1"]
    for url in ("/v2/models/iris/versions/2", "/v1/models/iris/versions/2", "/v2/models/iris/versions/2/ready"):
        assert client.get(url).status_code == 503
    refused = client.post("/v2/models/iris/versions/2/infer", json={"inputs": []})
    assert refused.status_code == 503
    assert refused.headers["Retry-After"] == "1"
    assert "iris/2 is UNAVAILABLE: iris/2/contract.json" in refused.get_json()["error"]
    states = [status["state"] for status in ok(client.get("/v1/models/iris"))["model_version_status"]]
    assert states == ["AVAILABLE", "END"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"inputs": [], "id": 5}, "id: Expected"),
        ({"inputs": [], "outputs": [{}]}, "outputs[0]: Object missing required field `name`"),
        ({"inputs": [], "outputs": "predict"}, "outputs: Expected `array"),
        ({"inputs": [], "parameters": []}, "parameters: Expected `object"),
        ({"inputs": [], "outputs": [{"name": "p", "parameters": 1}]}, "outputs[0].parameters: Expected `object"),
    ],
)
def test_a_member_of_the_wrong_type_is_named(client: FlaskClient, body: Any, text: str) -> None:
    """A member of a V2 body with the wrong type answers 400 with its place."""
    response = client.post("/v2/models/iris/infer", json=body)
    assert response.status_code == 400
    assert f"the request is malformed: {text}" in response.get_json()["error"]


def test_unknown_members_are_ignored(client: FlaskClient, trained: Trained) -> None:
    """Members that the protocols do not have are ignored in both, as other servers do."""
    estimator, sample = trained["iris"]
    expected = estimator.predict(sample[:2]).tolist()
    v1 = client.post("/v1/models/iris:predict", json={"instances": cells(sample[:2]), "comment": {}})
    v2 = client.post("/v2/models/iris/infer", json={"inputs": tensors_of(sample[:2]), "comment": []})
    assert ok(v1)["predictions"] == expected
    assert ok(v2)["outputs"][0]["data"] == expected


def test_v1_needs_exactly_one_table(client: FlaskClient) -> None:
    """A V1 body with both `instances` and `inputs`, or with neither, answers 400; null is a value, not an absence."""
    text = "expected exactly one of 'instances' (rows) and 'inputs' (columns)"
    for body in ({}, {"instances": [], "inputs": []}, {"instances": None, "inputs": None}):
        response = client.post("/v1/models/iris:predict", json=body)
        assert (response.status_code, response.get_json()["error"]) == (400, text)
    response = client.post("/v1/models/iris:predict", json={"instances": None})
    assert "instances: expected an array of rows" in response.get_json()["error"]
