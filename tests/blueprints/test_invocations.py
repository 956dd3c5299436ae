"""`/invocations` answers the clients of MLflow and SageMaker as their own servers do; errors say what to send."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import MakeApp, cells, error_of, registry_of

URL = "/invocations"
JSON = {"Content-Type": "application/json"}
IRIS = {"X-Tableside-Model": "iris"}
ROW = [5.1, 3.5, 1.4, 0.2]


def post(client: FlaskClient, body: Any, path: str = URL, **headers: str) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    kinds = {"Content-Type": "application/json", **{key.replace("_", "-"): value for key, value in headers.items()}}
    return client.post(path, data=data, headers=kinds)


@pytest.mark.parametrize("path", ["/models/iris/invocations", "/models/iris/invoke", "/models/iris@latest/invocations"])
def test_the_path_names_the_model(client: FlaskClient, path: str) -> None:
    """The path names the model, with or without an alias."""
    assert post(client, {"instances": [ROW]}, path).get_json() == {"predictions": ["setosa"]}


def test_a_header_names_the_model(client: FlaskClient) -> None:
    """Tableside's header or SageMaker's names the model; SageMaker's may end with the archive's suffix."""
    for header, value in (("X_Tableside_Model", "iris"), ("X_Amzn_SageMaker_Target_Model", "iris.tar.gz")):
        assert post(client, [ROW], **{header: value}).get_json() == ["setosa"]
    assert "no model 'rose'" in error_of(post(client, [ROW], X_Tableside_Model="rose"))["error"]


def test_a_request_must_name_one_of_several_models(client: FlaskClient) -> None:
    """With several models and no name the request is refused; the error lists the models and where to name one."""
    content = error_of(post(client, [ROW]))
    assert content["status"] == 400
    assert content["error"] == (
        "the request does not name a model; there is breast-cancer, diabetes, iris, wine. Name one in the path "
        "(/models/NAME/invocations) or in the header X-Tableside-Model"
    )


def test_the_only_model_and_the_default_one(make_app: MakeApp, small_repository: Path, repository: Path) -> None:
    """A single model needs no name; with several, `predict.default_model` names the one that answers."""
    assert post(make_app().test_client(), [ROW]).get_json() == ["setosa"]
    shutil.copytree(repository / "wine", small_repository / "wine")
    assert post(make_app().test_client(), [ROW]).status_code == 400
    assert post(make_app(predict__default_model="iris/1").test_client(), [ROW]).get_json() == ["setosa"]


def test_mlflows_answer_and_error(client: FlaskClient, trained: Any) -> None:
    """The answer is `predictions`, row by row; an error has the members that MLflow's client reads."""
    estimator, frame = trained["iris"]
    split = {"columns": list(frame.columns), "index": [3, 4], "data": cells(frame.iloc[:2])}
    answer = post(client, {"dataframe_split": split}, "/models/iris/invocations")
    assert answer.get_json() == {"predictions": estimator.predict(frame.iloc[:2]).tolist()}
    assert answer.content_type == "application/json"
    content = error_of(post(client, {"dataframe_split": {"data": [[1]]}}, "/models/iris/invocations"))
    assert content["error_code"] == "BAD_REQUEST"
    assert content["message"] == content["error"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "expected exactly one of dataframe_split, dataframe_records, instances, inputs; the body has none"),
        ({"instances": [ROW], "inputs": [ROW]}, "the body has instances, inputs"),
        ("text", "expected an object or an array, got a string"),
        ({"dataframe_split": {"data": [ROW], "dtype": 1}}, "dataframe_split.dtype: unknown member; expected columns,"),
        ({"dataframe_split": {"data": [ROW, 5]}}, "dataframe_split.data: expected an array of rows, each an array"),
        ({"dataframe_split": {}}, "dataframe_split.data: expected an array of rows, each an array"),
        ({"dataframe_split": {"columns": [True, 1, 2, 3], "data": [ROW]}}, "columns: expected an array of names"),
        ({"dataframe_split": {"columns": [0, 1, 2], "data": [ROW]}}, "columns: expected an array of names"),
        (None, "body: expected an object or an array, got null"),
        ({"instances": [ROW], "params": []}, "params: expected an object, got an array"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}}, "expected 1 values, got 2"),
        (
            {"dataframe_split": {"columns": [0, "a"], "data": [ROW]}},
            "dataframe_split.columns: expected an array of names",
        ),
        ({"dataframe_split": [ROW]}, "dataframe_split: expected an object with the members columns and data"),
        ({"dataframe_records": [ROW]}, "dataframe_records: expected an array with one object for each row"),
        ({"instances": {"a": 1}}, "instances: expected an array of rows"),
        ({"inputs": 5}, "inputs: expected an array of rows, or an object of columns"),
        ({"instances": []}, "the request has no rows"),
        (
            {"instances": [ROW], "params": {"outputs": "predict"}},
            "params.outputs: not read here; name outputs in 'params'",
        ),
        ({"instances": [ROW], "params": {"output": 1}}, "params.output: expected a string"),
        ({"instances": [ROW], "params": {"output": "proba"}}, "no output 'proba'; it has predict, predict_proba"),
        ([], "the request has no rows"),
    ],
)
def test_a_body_that_does_not_fit(client: FlaskClient, body: Any, text: str) -> None:
    """A body that does not fit answers 400 with the place and what was expected there."""
    assert text in error_of(post(client, body, X_Tableside_Model="iris"))["error"]


def test_another_output(client: FlaskClient, trained: Any) -> None:
    """The body or the query string may name another output; both together must name the same one."""
    estimator, frame = trained["iris"]
    expected = estimator.predict_proba(frame.iloc[:1]).tolist()
    named = {"instances": cells(frame.iloc[:1]), "params": {"output": "predict_proba"}}
    path = "/models/iris/invocations"
    assert post(client, named, path).get_json()["predictions"] == expected
    assert (
        post(client, {"instances": named["instances"]}, path + "?output=predict_proba").get_json()["predictions"]
        == expected
    )
    assert (
        "unknown query parameter 'outputs'; there are 'output' and 'classes'"
        in error_of(post(client, named, path + "?outputs=x"))["error"]
    )
    assert "different outputs" in error_of(post(client, named, path + "?output=predict"))["error"]
    assert post(client, named, path + "?output=predict_proba").get_json()["predictions"] == expected


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "application/x-www-form-urlencoded",
            "use application/json, text/csv, application/jsonlines, application/x-npy, ",
        ),
        ("application/x-www-form-urlencoded", ". To send JSON, add -H 'Content-Type: application/json' to curl -d, or"),
        ("application/x-npz", "Content-Type 'application/x-npz' is not supported; use application/json, text/csv"),
        ("application/x-npz", "'Content-Type: application/x-npy'"),
        ("application/octet-stream", "serializer=JSONSerializer()"),
        ("multipart/form-data", "in curl with --data-binary @FILE -H 'Content-Type: text/csv' in place of -F"),
        ("application/vnd.apache.arrow.file", "Write a stream with pyarrow.ipc.new_stream"),
        ("image/png", "application/vnd.apache.parquet"),
        ("application/json; charset=latin-1", "charset 'latin-1' is not supported; send UTF-8"),
        ("text/csv; header=perhaps", "the header parameter of text/csv must be 'present' or 'absent' (RFC 4180)"),
    ],
)
def test_another_content_type_is_415(client: FlaskClient, kind: str, text: str) -> None:
    """A Content-Type, charset or parameter that is not supported answers 415; the error lists what to send."""
    answer = post(client, [ROW], Content_Type=kind, X_Tableside_Model="iris")
    assert text in error_of(answer)["error"]
    assert answer.status_code == 415


@pytest.mark.parametrize(
    ("program", "kind", "change"),
    [
        ("curl/8.5.0", "application/x-www-form-urlencoded", "add -H 'Content-Type: application/json'"),
        ("python-requests/2.32.3", "application/x-www-form-urlencoded", "write requests.post(URL, json=BODY)"),
        ("Python-urllib/3.12", "application/x-www-form-urlencoded", "add headers={'Content-Type': 'application/json'}"),
        ("Python/3.12 aiohttp/3.11", "application/octet-stream", "write json=BODY in place of data=BODY"),
        ("node", "text/plain;charset=UTF-8", "add headers: { 'Content-Type': 'application/json' } to fetch()"),
        ("Java-http-client/21", "application/octet-stream", 'add .header("Content-Type", "application/json")'),
        ("Wget/1.21", "application/x-www-form-urlencoded", "add --header='Content-Type: application/json'"),
        ("Boto3/1.38 md/Botocore", "application/octet-stream", "add ContentType='application/json'"),
    ],
)
def test_a_415_has_the_change_for_the_program_that_sent_it(
    client: FlaskClient, program: str, kind: str, change: str
) -> None:
    """The User-Agent says in whose words the change is."""
    text = error_of(post(client, [ROW], CSV, Content_Type=kind, User_Agent=program))["error"]
    assert f". To send JSON, {change}" in text


class Planted:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder),)


def test_a_pickle_in_a_request_is_never_loaded(client: FlaskClient, tmp_path: Path) -> None:
    """By no route and under no Content-Type, nor within a numpy file."""
    planted = Planted(tmp_path / "loaded")
    array = io.BytesIO()
    np.save(array, np.array([planted], dtype=object))
    kinds = ("application/json", "text/csv", "application/octet-stream", "application/x-npy", "application/x-pickle")
    kinds += ("application/vnd.apache.arrow.stream", "application/vnd.apache.parquet")
    for path in ("/models/iris/invocations", "/v1/models/iris:predict", "/v2/models/iris/infer"):
        for body in (pickle.dumps(planted), array.getvalue()):
            for kind in kinds:
                assert client.post(path, data=body, content_type=kind).status_code in (400, 415), (path, kind)
    assert not planted.folder.exists()
    pickle.loads(pickle.dumps(planted))
    assert planted.folder.exists(), "a pickle that is loaded makes the folder"


def test_no_content_type_is_json(client: FlaskClient) -> None:
    """A body without a Content-Type is read as JSON, as on the other routes."""
    answer = client.post("/models/iris/invocations", data=json.dumps([ROW]).encode())
    assert answer.get_json() == ["setosa"]


CSV = "/models/iris/invocations"
NAMES = "sepal length (cm),sepal width (cm),petal length (cm),petal width (cm)"


@pytest.mark.parametrize(
    ("text", "status", "found"),
    [
        ("5.1,3.5,1.4,0.2\n", 200, ["setosa"]),
        ("5.1,3.5,1.4,0.2\n6.3,3.3,6.0,2.5", 200, ["setosa", "virginica"]),
        (f"{NAMES}\n5.1,3.5,1.4,0.2\n", 200, ["setosa"]),
        ("petal width (cm),petal length (cm),sepal length (cm),sepal width (cm)\n0.2,1.4,5.1,3.5\n", 200, ["setosa"]),
        ("0,1,2,3\n5.1,3.5,1.4,0.2\n", 400, "line 1: could be a header or a row"),
        ("a,b,c,d\n5.1,3.5,1.4,0.2\n", 400, "line 1: neither the names"),
        ("5.1,3.5,1.4\n", 400, "expected the names or 4 values"),
        (f"{NAMES}\n5.1,3.5,1.4\n", 400, "rows[0]: expected 4 values, got 3"),
        (f"{NAMES}\n5.1,3.5,x,\n", 400, "rows[0].petal length (cm): expected a number, got a string"),
        (f"{NAMES}\n", 400, "the request has no rows"),
        (f"\n{NAMES}\n\n5.1,3.5,1.4,0.2\n", 200, ["setosa"]),
        ('5.1,3.5,1.4,"0.2\n6.3,3.3,6.0,2.5\n', 400, "body: not CSV: a quote is not closed"),
        ('5.1,3.5,1.4,"0"2\n', 400, "body: not CSV: a quote is not closed, or text follows it"),
        ('"5.1",3.5,"1.4",0.2\n', 200, ["setosa"]),
        ("", 400, "the body is empty"),
    ],
)
def test_csv_with_and_without_a_header(client: FlaskClient, text: str, status: int, found: Any) -> None:
    """The first line decides whether there is a header; no row is lost, so N lines of numbers are N predictions."""
    answer = post(client, text.encode(), CSV, Content_Type="text/csv")
    assert answer.status_code == status
    if status == 200:
        assert answer.get_json() == {"predictions": found}
    else:
        assert found in error_of(answer)["error"]


def test_csv_for_csv(client: FlaskClient, trained: Any) -> None:
    """A client that accepts text/csv, as SageMaker's do, receives one line for each row and no header."""
    estimator, frame = trained["iris"]
    probabilities = estimator.predict_proba(frame.iloc[:3])
    text = frame.iloc[:3].to_csv(index=False).encode()
    answer = post(client, text, CSV + "?output=predict_proba", Content_Type="text/csv", Accept="text/csv")
    assert answer.content_type == "text/csv"
    lines = answer.get_data(as_text=True).splitlines()
    assert [[float(cell) for cell in line.split(",")] for line in lines] == probabilities.tolist()


def test_one_row_by_itself(client: FlaskClient) -> None:
    """A bare array of numbers is one row where the table has several columns."""
    assert post(client, ROW, CSV).get_json() == ["setosa"]


def test_an_unknown_encoding_is_415(client: FlaskClient) -> None:
    """An unknown Content-Encoding answers 415 and lists the known ones."""
    answer = post(client, [ROW], CSV, Content_Encoding="br")
    assert answer.status_code == 415
    assert "use gzip, deflate, zstd or none" in error_of(answer)["error"]


def test_requests_are_counted_under_their_protocol(app: Flask, client: FlaskClient) -> None:
    """Requests to MLflow's routes are counted with the protocol `invocations`."""
    post(client, [ROW], CSV)
    assert registry_of(app).loaded
    text = client.get("/metrics", environ_overrides={"tableside.plane": "control"}).get_data(as_text=True)
    assert 'tableside_requests_total{code="200",model="iris",protocol="invocations",version="1"}' in text


@pytest.mark.parametrize(
    ("accept", "as_csv"),
    [
        ("text/csv", True),
        ("TEXT/CSV; q=0.9", True),
        ("text/html, text/csv;header=absent", True),
        ("text/csv, application/json", False),
        ("application/json;q=0.1, text/csv;q=0.9", True),
        ("text/csv;q=0.9, */*;q=0.1", True),
        ("*/*", False),
        ("", False),
    ],
)
def test_csv_is_sent_where_it_is_preferred(client: FlaskClient, accept: str, as_csv: bool) -> None:
    """The answer is CSV when Accept prefers it; of two that are accepted alike, JSON is sent."""
    answer = post(client, [ROW], CSV, Accept=accept)
    assert answer.get_data() == (b"setosa\n" if as_csv else b'["setosa"]')
    assert answer.content_type == ("text/csv" if as_csv else "application/json")


def test_repeated_columns_of_a_split_are_each_named(client: FlaskClient) -> None:
    """A column that is given twice and a row of the wrong length are both listed, with their places."""
    names = NAMES.split(",")
    split = {"columns": [*names[:3], names[0]], "data": [ROW, ROW[:2]]}
    content = error_of(post(client, {"dataframe_split": split}, CSV))
    listed = {error["path"]: error["message"] for error in content["errors"]}
    assert listed["dataframe_split.columns[3]"] == "this column is given twice"
    assert listed["dataframe_split.data[1]"] == "expected 4 values, got 2"


def test_numbered_columns_are_positions(client: FlaskClient) -> None:
    """pandas numbers the columns of a table without names; such a split is read by position."""
    split = {"columns": [0, 1, 2, 3], "index": [0], "data": [ROW]}
    assert post(client, {"dataframe_split": split}, CSV).get_json() == {"predictions": ["setosa"]}


def test_a_model_header_that_names_no_model_is_404(client: FlaskClient) -> None:
    """The archive's suffix is removed once, so that an unknown archive is named as the client sent it without it."""
    answer = post(client, [ROW], X_Amzn_SageMaker_Target_Model="rose.tar.gz")
    assert answer.status_code == 404
    assert error_of(answer)["error"].startswith("no model 'rose'; there is breast-cancer")
