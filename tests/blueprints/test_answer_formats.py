"""Answers and bodies of every media type hold what the estimator gives in memory; what cannot be given is 406."""

from __future__ import annotations

import base64
import csv
import io
import json
import struct
from typing import Any

import numpy as np
import pandas as pd
import pytest
from flask.testing import FlaskClient

from tableside.contracts.schema import Column, Input
from tableside.contracts.table import Table
from tests.conftest import QUICK, MakeApp, cells, error_of, serve
from tests.fakes import SumRuntime
from tests.spellings import npy

Trained = dict[str, tuple[Any, pd.DataFrame]]
NAMES = ["breast-cancer", "diabetes", "iris", "wine"]
MLFLOW, V1, V2 = "/models/{}/invocations", "/v1/models/{}:predict", "/v2/models/{}/infer"
LINES, NPY = "application/jsonlines", "application/x-npy"
ROW = [5.1, 3.5, 1.4, 0.2]


def loaded(body: bytes) -> Any:
    return np.load(io.BytesIO(body), allow_pickle=False)


def from_lines(body: bytes) -> list[Any]:
    assert body.endswith(b"\n")
    return [json.loads(line) for line in body.decode().splitlines()]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("path", [MLFLOW, V1])
def test_every_format_of_every_output(client: FlaskClient, trained: Trained, name: str, path: str) -> None:
    """JSON lines, npy and CSV hold the estimator's answers to the bit, in both protocols by rows."""
    estimator, frame = trained[name]
    frame = frame.iloc[:30]
    for output in [each for each in ("predict", "predict_proba", "decision_function") if hasattr(estimator, each)]:
        expected = getattr(estimator, output)(frame)
        url, body = f"{path.format(name)}?output={output}", {"instances": cells(frame)}
        lines = client.post(url, json=body, headers={"Accept": LINES})
        assert lines.content_type == LINES
        np.testing.assert_array_equal(np.array(from_lines(lines.data)), expected)
        array = client.post(url, json=body, headers={"Accept": NPY})
        assert array.content_type == NPY
        found = loaded(array.data)
        assert found.shape == expected.shape
        assert found.dtype.kind == np.asarray(expected.tolist()).dtype.kind
        np.testing.assert_array_equal(found, expected)
        as_csv = client.post(url, json=body, headers={"Accept": "text/csv"})
        assert as_csv.content_type == "text/csv"
        rows = list(csv.reader(as_csv.get_data(as_text=True).splitlines()))
        flat = [str(cell) for row in np.asarray(expected).reshape(len(rows), -1) for cell in row]
        assert [cell for row in rows for cell in row] == flat


@pytest.mark.parametrize("name", NAMES)
def test_bodies_of_lines_and_npy(client: FlaskClient, trained: Trained, name: str) -> None:
    """Rows as JSON lines, and for tables of numbers as npy, get the estimator's answers."""
    estimator, frame = trained[name]
    frame = frame.iloc[:30]
    expected = estimator.predict(frame)
    text = "\n".join(json.dumps(row) for row in cells(frame))
    answer = client.post(MLFLOW.format(name), data=text, content_type=LINES)
    np.testing.assert_array_equal(answer.get_json()["predictions"], expected)
    if name != "wine":
        kinds = {"Content-Type": NPY, "Accept": NPY}  # what SKLearnPredictor of SageMaker sends
        answer = client.post(MLFLOW.format(name), data=npy(frame.to_numpy()), headers=kinds)
        np.testing.assert_array_equal(loaded(answer.data), expected)


@pytest.mark.parametrize(
    ("per_request", "accept"),
    [(1, "text/csv"), (100, "text/csv"), (100, LINES), pytest.param(1, NPY, marks=pytest.mark.slow)],
)
def test_a_batch_transform_of_sagemaker(client: FlaskClient, trained: Trained, per_request: int, accept: str) -> None:
    """1000 rows of CSV, split by line and assembled by line, give 1000 lines in the order of the rows."""
    estimator, sample = trained["iris"]
    frame = sample.sample(1000, replace=True, random_state=1)
    rows = frame.to_csv(index=False, header=False).splitlines(keepends=True)
    assembled: list[str] = []
    for at in range(0, 1000, per_request):
        headers = {"Content-Type": "text/csv", "Accept": accept}
        body = "".join(rows[at : at + per_request]).rstrip("\n") if at % 200 else "".join(rows[at : at + per_request])
        answer = client.post(MLFLOW.format("iris"), data=body, headers=headers)
        assert (answer.status_code, answer.content_type) == (200, accept)
        text = "\n".join(loaded(answer.data).tolist()) if accept == NPY else answer.get_data(as_text=True)
        assembled.append(text if text.endswith("\n") else text + "\n")
    lines = "".join(assembled).splitlines()
    expected = estimator.predict(frame).tolist()
    assert [json.loads(line) if accept == LINES else line for line in lines] == expected
    joined = [f"{row.rstrip()},{line}" for row, line in zip(rows, lines, strict=True)]
    assert len(joined) == 1000


@pytest.mark.parametrize("spelling", [LINES, "application/x-jsonlines", "application/x-ndjson"])
def test_lines_have_the_name_that_was_asked_for(client: FlaskClient, spelling: str) -> None:
    """Three names are in use for one format. Several outputs are an object in each line."""
    url = f"{MLFLOW.format('iris')}?output=predict,predict_proba"
    answer = client.post(url, json=[ROW, ROW], headers={"Accept": spelling})
    assert answer.content_type == spelling
    assert [list(line) for line in from_lines(answer.data)] == [["predict", "predict_proba"]] * 2
    assert client.post(url, data=json.dumps(ROW), content_type=spelling).status_code == 200


@pytest.mark.parametrize("path", [MLFLOW, V1])
def test_a_type_that_cannot_be_given_is_406(client: FlaskClient, path: str) -> None:
    """Before anything is decoded or predicted; the error is JSON and lists the types."""
    answer = client.post(path.format("iris"), data=b"no json", headers={"Accept": "text/html, image/png"})
    assert error_of(answer)["status"] == 406
    assert error_of(answer)["error"] == (
        "the Accept header allows no type that this route can give; there are application/json, text/csv, "
        "application/jsonlines, application/x-jsonlines, application/x-ndjson, application/x-npy"
    )
    body = {"instances": [ROW]}
    for accept in ("application/problem+json", "text/html, */*;q=0.1", "*; q=.2", "application/*"):
        answer = client.post(path.format("iris"), json=body, headers={"Accept": accept})
        assert answer.get_json() == {"predictions": ["setosa"]}


TENSOR = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": ROW}


def test_accept_on_v2(client: FlaskClient) -> None:
    """JSON, and raw tensors where the client prefers them or its body asks for them; nothing else."""

    def post(accept: str, **more: Any) -> Any:
        return client.post(V2.format("iris"), json={"inputs": [TENSOR], **more}, headers={"Accept": accept})

    for accept in ("application/json", "*/*", "application/json, application/octet-stream", "application/*"):
        assert post(accept).content_type == "application/json"
    for accept in ("application/octet-stream", "application/octet-stream, application/json;q=0.5"):
        answer = post(accept)
        assert answer.content_type == "application/octet-stream"
        assert answer.data.endswith(struct.pack("<I", 6) + b"setosa")
    assert post("application/octet-stream", parameters={"binary_data_output": False}).content_type == "application/json"
    asked = post("application/json", parameters={"binary_data_output": True})
    assert asked.content_type == "application/octet-stream"
    refused = error_of(post("text/csv"))
    assert (refused["status"], "there are application/json, application/octet-stream" in refused["error"]) == (
        406,
        True,
    )


@pytest.mark.parametrize(
    ("query", "accept", "text"),
    [
        ("?output=predict_proba&classes=true", LINES, "application/jsonlines has one row after the other and no place"),
        ("?output=predict_proba&classes=true", NPY, "application/x-npy has one row after the other"),
        ("?output=predict,predict_proba", NPY, "application/x-npy holds one array; ask for one output"),
        ("?output=predict_proba&classes=true", "text/csv; header=absent", "class names are the header line of CSV"),
    ],
)
@pytest.mark.parametrize("path", [MLFLOW, V1])
def test_what_a_format_cannot_hold_is_refused(
    client: FlaskClient, path: str, query: str, accept: str, text: str
) -> None:
    """400, with what to ask for instead."""
    answer = client.post(path.format("iris") + query, json={"instances": [ROW]}, headers={"Accept": accept})
    assert (answer.status_code, text in error_of(answer)["error"]) == (400, True)


def test_the_header_line_of_csv(client: FlaskClient) -> None:
    """It is there for class names, and where Accept asks for it; the charset is named where Accept names it."""
    for accept, kind in (
        ("text/csv; header=present", "text/csv; header=present"),
        ("text/csv; charset=utf-8; header=present", "text/csv; charset=utf-8; header=present"),
    ):
        answer = client.post(MLFLOW.format("iris"), json=[ROW], headers={"Accept": accept})
        assert (answer.content_type, answer.data) == (kind, b"predict\nsetosa\n")
    answer = client.post(MLFLOW.format("iris"), json=[ROW], headers={"Accept": "text/csv; charset=utf-8"})
    assert (answer.content_type, answer.data) == ("text/csv; charset=utf-8", b"setosa\n")


def test_params_without_use_are_named_beside_other_formats(client: FlaskClient) -> None:
    """The Warning header does not depend on the format."""
    body = {"instances": [ROW], "params": {"temperature": 1}}
    answer = client.post(MLFLOW.format("iris"), json=body, headers={"Accept": "text/csv"})
    assert (answer.data, "temperature" in answer.headers["Warning"]) == (b"setosa\n", True)


class EchoRuntime(SumRuntime):
    """Answers the cells of its only column of text."""

    def prepare(self, table: Table) -> Any:
        return table.to_input()

    def run(self, method: str, data: Any) -> Any:
        array = np.empty((len(data), 2), dtype=object)
        array[:] = [[each, each] for each in data.iloc[:, 0].tolist()]
        return array if method == "transform" else array[:, 0]


def test_text_that_npy_cannot_hold(make_app: MakeApp) -> None:
    """A missing cell, and text that ends with NUL, would be another one in an array of text; long text takes much."""
    app = make_app(empty=True, server__max_answer_bytes="1000000", **QUICK)
    serve(app, {"echo": (Input("frame", (Column("s", "BYTES", "object", nullable=True),)), EchoRuntime())})
    client = app.test_client()

    def ask(rows: list[Any]) -> Any:
        return client.post(MLFLOW.format("echo"), json={"instances": rows}, headers={"Accept": NPY})

    assert loaded(ask(["a", "bcd", ""]).data).tolist() == ["a", "bcd", ""]
    for rows in ([None, "a"], ["a\0"]):
        assert "cannot hold every cell of this answer" in error_of(ask(rows))["error"]
    assert error_of(ask(["x" * 1000] + ["a"] * 1000))["status"] == 413


def test_mlservers_base64_and_the_plain_text_are_one_answer(client: FlaskClient, trained: Trained) -> None:
    """Base64Codec's bytes are scored as the text that they hold, and not as an unknown category."""
    estimator, frame = trained["wine"]
    frame = frame.iloc[:5]
    expected = estimator.predict_proba(frame)
    inputs = []
    for name in frame.columns:
        values = [
            None if value != value else value.item() if hasattr(value, "item") else value for value in frame[name]
        ]
        column: dict[str, Any] = {"name": name, "shape": [5, 1], "datatype": "FP64", "data": values}
        if name == "shade":
            coded = [base64.b64encode(each.encode()).decode() for each in values]
            column |= {"datatype": "BYTES", "data": coded, "parameters": {"content_type": "base64"}}
        inputs.append(column)
    body = {"inputs": inputs, "parameters": {"content_type": "pd"}, "outputs": [{"name": "predict_proba"}]}
    answer = client.post(V2.format("wine"), json=body)
    assert answer.status_code == 200, answer.get_json()
    np.testing.assert_array_equal(np.array(answer.get_json()["outputs"][0]["data"]).reshape(5, -1), expected)


@pytest.mark.parametrize(
    ("output", "kind", "text"),
    [
        (
            "predict_proba",
            "str",
            "outputs[0].parameters.content_type: 'str' is for the datatype BYTES, and predict_proba",
        ),
        ("predict", "base64", "outputs[0].parameters.content_type: 'base64' is for one input"),
        ("predict", "hologram", "unknown content type; known here: np, str"),
        ("predict", "str", None),
        ("predict_proba", "np", None),
    ],
)
def test_content_types_of_outputs(client: FlaskClient, output: str, kind: str, text: str | None) -> None:
    """np is any array, and str is text; others are refused."""
    outputs = [{"name": output, "parameters": {"content_type": kind}}]
    answer = client.post(V2.format("iris"), json={"inputs": [TENSOR], "outputs": outputs})
    assert answer.status_code == (200 if text is None else 400)
    assert text is None or text in error_of(answer)["error"]


def test_a_content_type_of_the_request_that_contradicts(client: FlaskClient) -> None:
    """By its place, on the route."""
    for kind, text in (("str", "'str' is for inputs of datatype BYTES"), ("x", "known here: np, pd, str")):
        answer = client.post(V2.format("iris"), json={"inputs": [TENSOR], "parameters": {"content_type": kind}})
        assert "parameters.content_type: " in error_of(answer)["error"]
        assert text in error_of(answer)["error"]
