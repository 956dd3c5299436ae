"""One answer of V1 or `/invocations` may have several outputs, and the class names beside them."""

from __future__ import annotations

import csv
import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient

from tableside_client.rows import answered
from tests.conftest import cells, error_of

Trained = dict[str, tuple[Any, pd.DataFrame]]
V1, MLFLOW = "/v1/models/iris:predict", "/models/iris/invocations"
BOTH = "?output=predict,predict_proba"
ROW = [5.1, 3.5, 1.4, 0.2]


def columns_of(frame: pd.DataFrame) -> dict[str, list[Any]]:
    return {str(name): frame[name].tolist() for name in frame.columns}


def methods_of(estimator: Any) -> list[str]:
    return [name for name in ("predict", "predict_proba", "decision_function", "transform")
            if hasattr(estimator, name)]  # fmt: skip


@pytest.mark.parametrize("name", ["breast-cancer", "diabetes", "iris", "wine"])
@pytest.mark.parametrize("path", ["/v1/models/{}:predict", "/models/{}/invocations"])
def test_every_output_of_every_model(client: FlaskClient, trained: Trained, name: str, path: str) -> None:
    """Each row is an object with the value of each requested output, in their order, equal to the estimator's."""
    estimator, frame = trained[name]
    frame = frame.iloc[:40]
    wanted = methods_of(estimator)[::-1]
    answer = client.post(f"{path.format(name)}?output={','.join(wanted)}", json={"instances": cells(frame)})
    assert answer.status_code == 200, answer.get_data(as_text=True)
    rows = answer.get_json()["predictions"]
    for method in wanted:
        expected = getattr(estimator, method)(frame)
        single = client.post(f"{path.format(name)}?output={method}", json={"instances": cells(frame)})
        np.testing.assert_array_equal(single.get_json()["predictions"], expected)
        found = single.get_json()["predictions"] if len(wanted) == 1 else [row[method] for row in rows]
        np.testing.assert_array_equal(found, expected)
    assert len(wanted) == 1 or list(rows[0]) == wanted


def test_by_columns(client: FlaskClient, trained: Trained) -> None:
    """V1's `inputs` is answered by columns: `outputs` is an object of outputs, as TensorFlow Serving answers."""
    estimator, frame = trained["iris"]
    found = client.post(V1 + BOTH, json={"inputs": columns_of(frame)}).get_json()["outputs"]
    assert list(found) == ["predict", "predict_proba"]
    assert found["predict"] == estimator.predict(frame).tolist()
    np.testing.assert_array_equal(found["predict_proba"], estimator.predict_proba(frame))
    assert answered(found)[3] == {"predict": found["predict"][3], "predict_proba": found["predict_proba"][3]}


def test_class_names_are_beside_the_rows(client: FlaskClient, trained: Trained) -> None:
    """`classes=true` adds the classes of each output that has them, in the order of its columns."""
    estimator, _ = trained["iris"]
    classes = {"predict_proba": estimator.classes_.tolist()}
    for path in (V1, MLFLOW):
        for query in (f"{BOTH}&classes=true", "?output=predict_proba&classes=true"):
            answer = client.post(path + query, json={"instances": [ROW]}).get_json()
            assert list(answer) == ["predictions", "classes"]
            assert answer["classes"] == classes
        assert list(client.post(f"{path}{BOTH}&classes=false", json={"instances": [ROW]}).get_json()) == ["predictions"]


@pytest.mark.parametrize("output", [["predict", "predict_proba"], "predict,predict_proba", "predict, predict_proba"])
def test_mlflow_s_params(client: FlaskClient, output: Any) -> None:
    """`params` of MLflow's body names the outputs as the query string does, or as an array, and asks for classes."""
    expected = client.post(f"{MLFLOW}{BOTH}&classes=true", json={"instances": [ROW]}).get_json()
    body = {"instances": [ROW], "params": {"output": output, "classes": True}}
    assert client.post(MLFLOW, json=body).get_json() == expected
    assert client.post(MLFLOW + BOTH, json=body).get_json() == expected


def test_a_bare_array_has_rows_of_objects(client: FlaskClient) -> None:
    """A bare array is answered with a bare array; each row has every output."""
    rows = client.post(MLFLOW + BOTH, json=[ROW, ROW]).get_json()
    assert [list(row) for row in rows] == [["predict", "predict_proba"]] * 2


def test_csv_has_the_outputs_side_by_side(client: FlaskClient, trained: Trained) -> None:
    """A line of CSV has the columns of every output; with classes, the first line names them."""
    estimator, frame = trained["iris"]
    frame = frame.iloc[::20]
    send = {"data": frame.to_csv(index=False).encode(), "headers": {"Content-Type": "text/csv", "Accept": "text/csv"}}
    answer = client.post(MLFLOW + BOTH, **send)
    assert answer.content_type == "text/csv"
    lines = list(csv.reader(answer.get_data(as_text=True).splitlines()))
    assert [line[0] for line in lines] == estimator.predict(frame).tolist()
    np.testing.assert_array_equal([[float(c) for c in line[1:]] for line in lines], estimator.predict_proba(frame))
    named = client.post(f"{MLFLOW}{BOTH}&classes=true", **send)
    assert named.content_type == "text/csv; header=present"
    header, *rest = csv.reader(named.get_data(as_text=True).splitlines())
    assert header == ["predict", *(f"predict_proba:{label}" for label in estimator.classes_)]
    assert rest == lines


@pytest.mark.parametrize("path", [V1, MLFLOW])
@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("?output=predict,proba", "model iris has no output 'proba'; it has predict, predict_proba"),
        ("?output=predict,predict", "the query parameter 'output' names 'predict' twice; name each output once"),
        ("?output=predict&output=predict", "names 'predict' twice"),
        ("?output=predict,", "the query parameter 'output' has an empty name"),
        ("?outputs=predict", "unknown query parameter 'outputs'; there are 'output' and 'classes'"),
        ("?output=predict_proba&classes=yes", "the query parameter 'classes' must be true or false"),
        (
            "?classes=true",
            "classes=true has no effect on predict, which has no class names; ask for one that has: predict_proba",
        ),
    ],
)
def test_a_query_that_does_not_fit(client: FlaskClient, path: str, query: str, text: str) -> None:
    """Unknown, repeated and empty names are 400, and so is a parameter that would have no effect."""
    content = error_of(client.post(path + query, json={"instances": [ROW]}))
    assert content["status"] == 400
    assert text in content["error"]


@pytest.mark.parametrize(
    ("path", "body", "text"),
    [
        (V1 + BOTH, {"instances": [ROW], "signature_name": "predict"}, "'output' and signature_name name different"),
        (MLFLOW, {"instances": [ROW], "params": {"output": []}}, "params.output: expected a string, or an array of"),
        (MLFLOW, {"instances": [ROW], "params": {"output": ["predict", 1]}}, "params.output: expected a string, or"),
        (MLFLOW, {"instances": [ROW], "params": {"output": ["predict"] * 2}}, "params.output names 'predict' twice"),
        (MLFLOW, {"instances": [ROW], "params": {"classes": 1}}, "params.classes: expected true or false, got a"),
        (f"{MLFLOW}{BOTH}&classes=true", [ROW], "a bare array, which has no place for class names"),
        (
            "/v1/models/diabetes:predict?classes=true",
            {"instances": [[0.0] * 10]},
            "classes=true has no effect on predict, which has no class names; the model has no output with class names",
        ),
    ],
)
def test_a_body_that_does_not_fit(client: FlaskClient, path: str, body: Any, text: str) -> None:
    """What the body asks for must agree with the query string and have a place in the answer."""
    content = error_of(client.post(path, data=json.dumps(body), content_type="application/json"))
    assert content["status"] == 400
    assert text in content["error"]


def test_repeated_parameters_are_joined(client: FlaskClient) -> None:
    """`?output=a&output=b`, as many clients write a list, is the same as `?output=a,b`."""
    one = client.post(V1 + BOTH, json={"instances": [ROW]}).get_json()
    assert client.post(f"{V1}?output=predict&output=predict_proba", json={"instances": [ROW]}).get_json() == one
    assert client.post(f"{V1}?output=", json={"instances": [ROW]}).get_json() == {"predictions": ["setosa"]}
