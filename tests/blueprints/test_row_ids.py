"""The id column: it comes back beside each row in every spelling and every answer format; the model never has it."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask import Flask
from hypothesis import given, settings
from hypothesis import strategies as st

from tableside.contracts import id_column
from tableside.contracts.schema import Column, Input
from tableside.repository.model_toml import ColumnConfig
from tests.blueprints.test_every_spelling import MATRIX, MIXED, TEXTS, WHOLE, bits, rows_of
from tests.conftest import QUICK, MakeApp, serve
from tests.fakes import RecordingRuntime
from tests.spellings import HEADER, INVOKE, V1, V2, Request, pack, spellings

ID = "user_id"
MODELS = {"mixed": MIXED, "matrix": MATRIX, "whole": WHOLE, "texts": TEXTS}
IDS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=9), min_size=6, max_size=6)
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def served(make_app: MakeApp) -> tuple[Flask, dict[str, RecordingRuntime]]:
    app = make_app(empty=True, **QUICK)
    runtimes = {name: RecordingRuntime() for name in MODELS}
    columns = ColumnConfig(id=ID)
    serve(app, {name: (schema, runtimes[name]) for name, schema in MODELS.items()}, columns)
    return app, runtimes


def post(app: Flask, model: str, request: Request, **headers: str) -> Any:
    return app.test_client().post(
        request.path.replace("MODEL", model), data=request.body, headers={**request.headers, **headers}
    )


def ids_in(response: Any) -> list[Any]:
    """The ids of an answer, whatever its protocol."""
    assert response.status_code == 200, response.get_data(as_text=True)
    if response.content_type.startswith("text/csv"):
        return [row[-1] for row in csv.reader(io.StringIO(response.get_data(as_text=True), newline=""))]
    content = response.get_json()
    if isinstance(content, dict) and "model_name" in content:
        return next(output["data"] for output in content["outputs"] if output["name"] == ID)  # type: ignore[no-any-return]
    rows = content if isinstance(content, list) else content.get("predictions", content.get("outputs"))
    return rows[ID] if isinstance(rows, dict) else [row[ID] for row in rows]  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=15)
@given(data=st.data(), ids=IDS, chance=st.randoms())
def test_every_spelling_brings_the_ids_back(
    served: Any, name: str, data: Any, ids: list[str], chance: random.Random
) -> None:
    """The answer has the ids as they were sent. The estimator is given what it is given without them, to the bit."""
    app, runtimes = served
    rows = data.draw(rows_of(MODELS[name]))
    plain = dict(spellings(MODELS[name], rows, chance))
    post(app, name, plain["V1 named rows"])
    expected = bits(runtimes[name].seen.pop())
    with_ids = [[ids[at], *row] for at, row in enumerate(rows)]
    for spelling, request in spellings(id_column.with_id(MODELS[name], ID), with_ids, chance):
        response = post(app, name, request)
        if name == "texts" and spelling == "CSV, header by content" and response.status_code == 400:
            assert "could be a header or a row" in response.get_json()["error"]  # two columns of text
            continue
        if response.status_code == 400 and any(set(row) == {None} for row in rows):
            assert "a row without a cell" in response.get_json()["error"]  # an id is no cell of the model
            continue
        assert ids_in(response) == ids[: len(rows)], spelling
        assert bits(runtimes[name].seen.pop()) == expected, spelling
        if request.path == INVOKE:  # an empty id is an empty cell, as null is
            as_csv = post(app, name, request, Accept="text/csv")
            assert ids_in(as_csv) == ids[: len(rows)], spelling


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=10)
@given(data=st.data(), chance=st.randoms())
def test_a_request_without_ids_is_answered_as_before(served: Any, name: str, data: Any, chance: random.Random) -> None:
    """Ids are optional: without them the answer has none, in every spelling."""
    app, runtimes = served
    rows = data.draw(rows_of(MODELS[name]))
    first: Any = None
    for spelling, request in spellings(MODELS[name], rows, chance):
        response = post(app, name, request)
        assert response.status_code == 200, (spelling, response.get_data(as_text=True))
        assert ID not in response.get_data(as_text=True)
        got = bits(runtimes[name].seen.pop())
        first = got if first is None else first
        assert got == first, spelling


ROWS = [[1.5, 2.5, 3.5], [4.5, 5.5, 6.5]]


@pytest.mark.parametrize("ids", [[7, 2**62], [1.5, 2.5], ["007", "8"], ["a", None], [7, None], [None, None]])
def test_ids_come_back_as_they_were_sent(served: Any, ids: list[Any]) -> None:
    """Text stays text and numbers stay numbers, in V1 and V2; a missing id is null."""
    app, _ = served
    rows = [{ID: each, "x0": 1.0, "x1": 2.0, "x2": 3.0} for each in ids]
    assert ids_in(post(app, "matrix", Request(V1, json.dumps({"instances": rows}).encode()))) == ids
    kind = "BYTES" if isinstance(ids[0], str) or ids[0] is None else "INT64" if isinstance(ids[0], int) else "FP64"
    tensors = [
        {"name": "input-0", "shape": [2, 3], "datatype": "FP64", "data": ROWS},
        {"name": ID, "shape": [2], "datatype": kind, "data": ids},
    ]
    for order in (tensors, tensors[::-1]):
        assert ids_in(post(app, "matrix", Request(V2, json.dumps({"inputs": order}).encode()))) == ids


def test_ids_beside_binary_tensors(served: Any) -> None:
    """They are read from raw tensors and answered as such; the model's outputs stay before them."""
    app, _ = served
    head, tail = [], b""
    for name, kind, shape, cells in (("input-0", "FP64", [2, 3], sum(ROWS, [])), (ID, "BYTES", [2, 1], ["a", "ö"])):
        raw = pack(kind, cells)
        head.append({"name": name, "shape": shape, "datatype": kind, "parameters": {"binary_data_size": len(raw)}})
        tail += raw
    text = json.dumps({"inputs": head, "parameters": {"binary_data_output": True}}).encode()
    response = post(app, "matrix", Request(V2, text + tail, {HEADER: str(len(text))}))
    size = int(response.headers[HEADER])
    outputs = json.loads(response.data[:size])["outputs"]
    assert [(output["name"], output["datatype"], output["shape"]) for output in outputs][1] == (ID, "BYTES", [2, 1])
    assert response.data[-9 - 2 :] == struct.pack("<I", 1) + b"a" + struct.pack("<I", 2) + "ö".encode()


def test_a_numeric_matrix_may_begin_with_ids(served: Any) -> None:
    """A matrix that is one column wider holds the ids first: in JSON rows, V2, CSV and a bare row."""
    app, runtimes = served
    wide = [[7.0, *ROWS[0]], [8.0, *ROWS[1]]]
    matrix = {"inputs": [{"name": "any", "shape": [2, 4], "datatype": "FP64", "data": wide}]}
    for request in (
        Request(V1, json.dumps({"instances": wide}).encode()),
        Request(V2, json.dumps(matrix).encode()),
        Request(INVOKE, json.dumps({"dataframe_split": {"columns": [0, 1, 2, 3], "data": wide}}).encode(), JSON),
    ):
        assert ids_in(post(app, "matrix", request)) == [7.0, 8.0]
        assert runtimes["matrix"].seen.pop().tolist() == ROWS
    assert ids_in(post(app, "matrix", Request(INVOKE, json.dumps(wide[0]).encode(), JSON))) == [7.0]
    lines = Request(INVOKE, b"007,1.5,2.5,3.5\n008,4.5,5.5,6.5\n", {"Content-Type": "text/csv"})
    assert ids_in(post(app, "matrix", lines)) == ["007", "008"]
    assert ids_in(post(app, "matrix", lines, Accept="text/csv")) == ["007", "008"]


def test_an_answer_that_has_no_place_for_ids_is_refused(served: Any) -> None:
    """An npy file holds one array: with ids it is 400, and says what to do; without them it is answered."""
    app, _ = served
    for path in (V1, INVOKE):
        for rows, status in ((ROWS, 200), ([[7, *ROWS[0]], [8, *ROWS[1]]], 400)):
            request = Request(path, json.dumps({"instances": rows}).encode(), JSON)
            response = post(app, "matrix", request, Accept="application/x-npy")
            assert response.status_code == status
            assert status == 200 or "send no ids, or accept application/json" in response.get_json()["error"]
            lines = post(app, "matrix", request, Accept="application/jsonlines").get_data(as_text=True).splitlines()
            assert [json.loads(line).get(ID) for line in lines if status == 400] == [7, 8][: 2 * (status == 400)]


def test_the_index_of_a_frame_can_hold_the_ids(served: Any) -> None:
    """A pandas index with the name of the id column is that column, in Arrow and Parquet."""
    import pandas as pd

    app, _ = served
    frame = pd.DataFrame(ROWS, columns=["x0", "x1", "x2"], index=pd.Index([11, 12], name=ID))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(frame), sink)
    kind = {"Content-Type": "application/vnd.apache.parquet"}
    assert ids_in(post(app, "matrix", Request(INVOKE, sink.getvalue(), kind))) == [11, 12]


@pytest.mark.parametrize(
    ("ids", "says"),
    [
        ([7, "a"], "send all ids of a request as text, or all as numbers"),
        ([[1], "a"], "expected an id, as text or a number, got an array"),
        ([True, False], "expected an id, as text or a number, got a boolean"),
        (["x" * 257, "a"], "an id has at most 256 characters"),
        ([2**63, 1], "send it as text"),
        ([2**60 + 1, None], "not exact beside ids that are missing"),
    ],
)
def test_what_is_no_id_is_refused_by_its_cell(served: Any, ids: list[Any], says: str) -> None:
    """The error names the cell and what to send."""
    app, _ = served
    rows = [[each, *row] for each, row in zip(ids, ROWS, strict=True)]
    response = post(app, "matrix", Request(V1, json.dumps({"instances": rows}).encode()))
    assert response.status_code == 400
    assert any(says in each["message"] and each["path"].endswith(f"({ID})") for each in response.get_json()["errors"])


def test_as_many_ids_as_rows(served: Any) -> None:
    """Another number of ids than rows is refused, by columns and beside a matrix; a row that is an id alone too."""
    app, _ = served
    columns = {"inputs": {"x0": [1.0, 2.0], "x1": [1.0, 2.0], "x2": [1.0, 2.0], ID: ["a"]}}
    tensors = [
        {"name": "input-0", "shape": [2, 3], "datatype": "FP64", "data": ROWS},
        {"name": ID, "shape": [1], "datatype": "BYTES", "data": ["a"]},
    ]
    alone = {"instances": [{ID: "a"}]}
    for path, body in ((V1, columns), (V2, {"inputs": tensors}), (V1, alone)):
        assert post(app, "matrix", Request(path, json.dumps(body).encode())).status_code == 400


def test_ids_count_for_the_size_of_an_answer(make_app: MakeApp) -> None:
    """Long ids make an answer too large, as its numbers would."""
    app = make_app(empty=True, server__max_answer_bytes="900", **QUICK)
    serve(app, {"matrix": (MATRIX, RecordingRuntime())}, ColumnConfig(id=ID))
    rows = [["x" * 200, *row] for row in ROWS]
    assert post(app, "matrix", Request(V1, json.dumps({"instances": ROWS}).encode())).status_code == 200
    assert post(app, "matrix", Request(V1, json.dumps({"instances": rows}).encode())).status_code == 413


@pytest.mark.parametrize("is_logged", [False, True])
def test_ids_are_logged_only_if_the_operator_says_so(
    make_app: MakeApp, capfd: pytest.CaptureFixture[str], is_logged: bool
) -> None:
    """With `log_id` the first ten ids of a request are in its access line; otherwise no line has any."""
    app = make_app(empty=True, **{**QUICK, "log__level": "info", "log__format": "json"})
    serve(app, {"matrix": (MATRIX, RecordingRuntime())}, ColumnConfig(id=ID, log_id=is_logged))
    capfd.readouterr()
    rows = [[f"mark-{at}", *ROWS[0]] for at in range(12)]
    post(app, "matrix", Request(V1, json.dumps({"instances": rows}).encode()))
    out = capfd.readouterr().out
    assert ("mark-0" in out) == is_logged
    if is_logged:
        (line,) = [json.loads(each) for each in out.splitlines() if '"source":"access"' in each]
        assert line["row_ids"] == [f"mark-{at}" for at in range(10)]


def test_an_answer_from_the_cache_has_the_ids_of_its_own_request(make_app: MakeApp, small_repository: Any) -> None:
    """The cache keeps answers of the model; ids are none of them. Metadata and OpenAPI name the column."""
    (small_repository / "iris" / "model.toml").write_text(f'[columns]\nid = "{ID}"\n[cache]\nmax_bytes = 100_000\n')
    client = make_app().test_client()
    rows = [[5.1, 3.5, 1.4, 0.2]]
    for each in ("a", "b", "b"):
        answer = client.post("/v1/models/iris:predict", json={"instances": [[each, *rows[0]]]}).get_json()
        assert answer == {"predictions": [{"predict": "setosa", ID: each}]}
    assert client.post("/v1/models/iris:predict", json={"instances": rows}).get_json() == {"predictions": ["setosa"]}
    assert client.get("/v2/models/iris").get_json()["properties"]["id_column"] == ID
    schemas = client.get("/openapi.json").get_json()["components"]["schemas"]
    assert ID in schemas["iris.Row"]["properties"]
    assert "required" not in schemas["iris.Row"] or ID not in schemas["iris.Row"]["required"]


@pytest.mark.parametrize("name", ["sepal length (cm)", "predict"])
def test_a_column_or_output_of_the_model_is_no_id_column(make_app: MakeApp, small_repository: Any, name: str) -> None:
    """The version goes on answering without ids, and its status says why."""
    (small_repository / "iris" / "model.toml").write_text(f'[columns]\nid = "{name}"\n')
    app = make_app()
    answer = app.test_client().post("/v1/models/iris:predict", json={"instances": [[5.1, 3.5, 1.4, 0.2]]})
    assert answer.get_json() == {"predictions": ["setosa"]}
    from tests.conftest import registry_of

    (servable,) = registry_of(app).catalog.models["iris"].servables
    assert "ids do not come back" in servable.reason
    registry_of(app).reload(2)
    assert "ids do not come back" in registry_of(app).catalog.models["iris"].servables[0].reason


def test_an_unnamed_id_is_any_column() -> None:
    """The id column is no part of the contract: it is the operator's, and a schema with it knows the model's own."""
    schema = id_column.with_id(Input("frame", (Column("a", "FP64", "float64"),)), ID)
    assert id_column.model_of(schema).names == {"a"}
    assert schema.names == {"a", ID}
    assert np.array_equal([column.kind for column in schema.columns], ["ID", "FP64"])
