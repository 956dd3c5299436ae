"""The binary tensor extension, model configuration and statistics, as Triton's clients use them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from flask.testing import FlaskClient

from tests.conftest import MakeApp, cells, error_of

HEADER = "Inference-Header-Content-Length"
URL = "/v2/models/iris/infer"


def infer(client: FlaskClient, asked: dict[str, Any], raw: bytes = b"", header: str | None = "") -> Any:
    text = json.dumps(asked).encode()
    headers = {} if header is None else {HEADER: header or str(len(text))}
    return client.post(URL, data=text + raw, headers=headers)


def matrix(frame: Any, **more: Any) -> tuple[dict[str, Any], bytes]:
    table = np.ascontiguousarray(frame.to_numpy())
    head = {"name": "m", "shape": list(table.shape), "datatype": "FP64"}
    return {**head, "parameters": {"binary_data_size": table.nbytes}, **more}, table.tobytes()


def test_binary_both_ways(client: FlaskClient, trained: Any) -> None:
    """With one binary output and one in JSON, the header has the JSON's length and the parameter the tensor's."""
    estimator, frame = trained["iris"]
    tensor, raw = matrix(frame.iloc[:5])
    outputs = [{"name": "predict_proba", "parameters": {"binary_data": True}}, {"name": "predict"}]
    answer = infer(client, {"id": "a-1", "inputs": [tensor], "outputs": outputs}, raw)
    assert answer.content_type == "application/octet-stream"
    size = int(answer.headers[HEADER])
    head = json.loads(answer.data[:size])
    assert head["id"] == "a-1"
    probabilities, labels = head["outputs"]
    assert probabilities == {
        "name": "predict_proba", "datatype": "FP64", "shape": [5, 3], "parameters": {"binary_data_size": 120}
    }  # fmt: skip
    assert labels["data"] == estimator.predict(frame.iloc[:5]).tolist()
    assert answer.data[size:] == estimator.predict_proba(frame.iloc[:5]).tobytes()


def test_every_output_in_binary(client: FlaskClient, trained: Any) -> None:
    """`binary_data_output` applies to outputs without `binary_data`; a text is sent as its length and its bytes."""
    estimator, frame = trained["iris"]
    rows = {"name": "m", "shape": [1, 4], "datatype": "FP64", "data": cells(frame.iloc[:1])}
    both = {"inputs": [rows], "parameters": {"binary_data_output": True}}
    answer = infer(client, both, header=None)
    label = str(estimator.predict(frame.iloc[:1])[0]).encode()
    assert answer.data[int(answer.headers[HEADER]) :] == len(label).to_bytes(4, "little") + label
    named = {**both, "outputs": [{"name": "predict", "parameters": {"binary_data": False}}]}
    plain = infer(client, named, header=None)
    assert plain.content_type == "application/json"
    assert HEADER not in plain.headers


@pytest.mark.parametrize(
    ("change", "header", "raw", "text"),
    [
        ({}, "0", None, "Inference-Header-Content-Length: expected a number of bytes from 1 to"),
        ({}, "999999", None, "Inference-Header-Content-Length: expected a number of bytes"),
        ({}, "-5", None, "Inference-Header-Content-Length"),
        ({}, "12.5", None, "Inference-Header-Content-Length"),
        ({"parameters": {"binary_data_size": 8}}, "", None, "fewer than the"),
        ({"parameters": {"binary_data_size": 64}}, "", None, "more than the 32 bytes that follow"),
        ({"parameters": {"binary_data_size": "32"}}, "", None, "binary_data_size: expected a number of bytes"),
        ({"parameters": {"binary_data_size": True}}, "", None, "binary_data_size: expected a number of bytes"),
        ({"parameters": {"binary_data_size": int("9" * 4299)}}, "", None, "binary_data_size: more than the 32 bytes"),
        ({"shape": [int("9" * 4299), 4]}, "", None, "shape[0]: expected a size of at least 0, and at most 2^53"),
        ({"shape": [1] * 40}, "", None, "shape: more than 8 dimensions"),
        ({"shape": [2, 4]}, "", None, "binary_data_size: expected 64 bytes for this shape, got 32"),
        ({"shape": [-1, 4]}, "", None, "shape[0]: expected a size of at least 0"),
        ({"shape": [4]}, "", None, "no such column"),
        ({"shape": [1, 3]}, "", None, "shape: expected [rows, 4]"),
        ({"datatype": "FP8"}, "", None, "datatype: unknown; expected one of BOOL"),
        ({"datatype": "BOOL"}, "", None, "takes FP64, got BOOL"),
        ({"data": [1, 2, 3, 4]}, "", None, "given in JSON and as binary data"),
        ({"parameters": {}}, "", b"", "data: missing; send it here, or as bytes after the JSON"),
        ({"data": [1, 2, 3], "parameters": {}}, "", b"", "data: expected 4 elements for shape [1, 4], got 3"),
        ({"data": [[1, 2], [3]], "parameters": {}}, "", b"", "rows of unequal length or depth"),
    ],
)
def test_tensors_that_do_not_fit(
    client: FlaskClient, trained: Any, change: dict[str, Any], header: str, raw: bytes | None, text: str
) -> None:
    """A tensor that does not fit answers 400 with the member that is wrong and what was expected."""
    tensor, whole = matrix(trained["iris"][1].iloc[:1])
    answer = infer(client, {"inputs": [{**tensor, **change}]}, whole if raw is None else raw, header)
    assert answer.status_code == 400
    assert text in error_of(answer)["error"]


def test_classification_is_not_offered(client: FlaskClient, trained: Any) -> None:
    """Triton's classification extension would change the answer, so a request for it is refused and not ignored."""
    tensor, raw = matrix(trained["iris"][1].iloc[:1])
    outputs = [{"name": "predict", "parameters": {"classification": 2}}]
    answer = infer(client, {"inputs": [tensor], "outputs": outputs}, raw)
    place = "outputs[0].parameters.classification"
    message = "this extension is not supported; request the output predict_proba"
    assert error_of(answer)["errors"] == [{"path": place, "message": message}]


def test_the_extensions_are_advertised(client: FlaskClient) -> None:
    """The server metadata lists the extensions, which clients read before they use one."""
    found = client.get("/v2").get_json()["extensions"]
    assert {"binary_tensor_data", "model_configuration", "statistics"} <= set(found)


def test_the_configuration(client: FlaskClient) -> None:
    """The configuration has the dimensions of one row, for a matrix or for each column, and Triton's type names."""
    iris = client.get("/v2/models/iris/config").get_json()
    assert iris["max_batch_size"] > 0
    assert {"name": "predict_proba", "data_type": "TYPE_FP64", "dims": [3]} in iris["output"]
    wine = client.get("/v2/models/wine/versions/1/config").get_json()
    assert {"name": "shade", "data_type": "TYPE_STRING", "dims": [1]} in wine["input"]
    assert error_of(client.get("/v2/models/rose/config"))["status"] == 404


def test_the_statistics_grow(client: FlaskClient, trained: Any) -> None:
    """Statistics count the requests of all protocols, with successes and failures apart."""
    tensor, raw = matrix(trained["iris"][1].iloc[:7])
    before = client.get("/v2/models/iris/stats").get_json()["model_stats"][0]
    infer(client, {"inputs": [tensor]}, raw)
    infer(client, {"inputs": []})
    after = client.get("/v2/models/iris/versions/1/stats").get_json()["model_stats"][0]
    assert (after["name"], after["version"]) == ("iris", "1")
    assert after["inference_count"] - before["inference_count"] == 7
    assert after["execution_count"] - before["execution_count"] == 1
    for key, more in (("success", 1), ("fail", 1), ("queue", 1), ("compute_infer", 1)):
        assert after["inference_stats"][key]["count"] - before["inference_stats"][key]["count"] == more, key
    assert after["inference_stats"]["compute_infer"]["ns"] > before["inference_stats"]["compute_infer"]["ns"]
    all_models = client.get("/v2/models/stats").get_json()["model_stats"]
    assert {"wine", "iris"} <= {model["name"] for model in all_models}
    assert error_of(client.get("/v2/models/iris/versions/9/stats"))["status"] == 404


def test_statistics_of_an_unused_model_are_zero(make_app: MakeApp) -> None:
    """A model without requests has every member, each with count 0 and 0 ns."""
    found = make_app().test_client().get("/v2/models/iris/stats").get_json()["model_stats"][0]
    assert (found["inference_count"], found["execution_count"], found["batch_stats"]) == (0, 0, [])
    assert set(found["inference_stats"]) == {
        "success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss",
    }  # fmt: skip
    assert all(duration == {"count": 0, "ns": 0} for duration in found["inference_stats"].values())


def test_an_output_can_leave_the_binary_default(client: FlaskClient, trained: Any) -> None:
    """With `binary_data_output`, an output whose `binary_data` is false is JSON and the others are raw tensors."""
    estimator, frame = trained["iris"]
    tensor, raw = matrix(frame.iloc[:2])
    outputs = [{"name": "predict", "parameters": {"binary_data": False}}, {"name": "predict_proba"}]
    body = {"inputs": [tensor], "outputs": outputs, "parameters": {"binary_data_output": True}}
    answer = infer(client, body, raw)
    size = int(answer.headers[HEADER])
    labels, probabilities = json.loads(answer.data[:size])["outputs"]
    assert labels["data"] == estimator.predict(frame.iloc[:2]).tolist()
    assert probabilities["parameters"] == {"binary_data_size": 48}
    assert answer.data[size:] == estimator.predict_proba(frame.iloc[:2]).tobytes()
