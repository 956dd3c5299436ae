"""Models that are easily misread answer as in memory, in every spelling of their rows and from either sample."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tableside.publishing import sample_files
from tableside.runtimes.sklearn import SklearnRuntime
from tests import typed_models
from tests.conftest import QUICK, MakeApp, error_of, serve
from tests.learned import learned
from tests.spellings import INVOKE, V1, V2, Request, spellings
from tests.typed_models import TypedModel

ROWS = 30
JSON = {"Content-Type": "application/json"}


def makers() -> dict[str, Callable[[], TypedModel]]:
    texts = {name: lambda name=name: typed_models.text_models()[name] for name in typed_models.text_models()}
    return {
        **texts,
        "nan": lambda: typed_models.missing_model(np.nan),
        "none": lambda: typed_models.missing_model(None),
        "dummies": typed_models.dummies,
        "dates": typed_models.dates,
        "zoned-dates": lambda: typed_models.dates("Europe/Vienna", "us"),
        "unused-date": typed_models.unused_date,
        "integer-names": typed_models.integer_names,
    }


def cell(value: Any) -> Any:
    """A cell of the trainer's frame as JSON, written without Tableside's own code."""
    if value is None or value is pd.NaT or value != value:
        return None
    if isinstance(value, pd.Timestamp):
        return value.isoformat()
    return value.item() if hasattr(value, "item") else value


def rows_of(frame: pd.DataFrame) -> list[list[Any]]:
    return [[cell(value) for value in row] for row in frame.astype(object).itertuples(index=False)]


def own_spellings(frame: pd.DataFrame) -> Iterator[tuple[str, Request]]:
    """What pandas itself writes from the trainer's frame."""
    quoting = csv.QUOTE_NONNUMERIC if (frame == "").any(axis=None) else csv.QUOTE_MINIMAL  # an empty text needs quotes
    headed = frame.to_csv(index=False, quoting=quoting).encode()  # type: ignore[call-overload]
    yield "to_csv", Request(INVOKE, headed, {"Content-Type": "text/csv"})
    bare = frame.to_csv(index=False, header=False, quoting=quoting).encode()  # type: ignore[call-overload]
    yield "to_csv without a header", Request(INVOKE, bare, {"Content-Type": "text/csv; header=absent"})
    split = frame.to_json(orient="split", date_format="iso", date_unit="ns", double_precision=15)
    yield "to_json, split", Request(INVOKE, f'{{"dataframe_split": {split}}}'.encode(), JSON)
    records = frame.to_json(orient="records", date_format="iso", date_unit="ns", double_precision=15)
    yield "to_json, records", Request(INVOKE, f'{{"dataframe_records": {records}}}'.encode(), JSON)
    named = frame.rename(columns=str)
    sink = io.BytesIO()
    named.to_parquet(sink)
    yield "to_parquet", Request(INVOKE, sink.getvalue(), {"Content-Type": "application/vnd.apache.parquet"})
    table, sink = pa.Table.from_pandas(named), io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    yield "Arrow from pandas", Request(INVOKE, sink.getvalue(), {"Content-Type": "application/vnd.apache.arrow.stream"})


def sample_of(model: TypedModel, ending: str, folder: Path) -> pd.DataFrame:
    if ending == "frame":
        return model.frame
    named = TypedModel(model.name, model.estimator, model.frame.rename(columns=str))
    path = named.csv(folder) if ending == "csv" else named.parquet(folder)
    is_computed = ending == "csv" and model.name == "dates"
    types = {"when": str(model.frame["when"].dtype)} if is_computed else {}
    return sample_files.read(path, model.estimator, types=types)[0]


@pytest.mark.parametrize(
    "ending", ["frame", pytest.param("csv", marks=pytest.mark.slow), pytest.param("parquet", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("name", list(makers()))
def test_every_spelling_is_answered_as_in_memory(name: str, ending: str, make_app: MakeApp, tmp_path: Path) -> None:
    """From CSV, Parquet or a DataFrame, and in every spelling, the answers are those of the trainer's own rows."""
    model = makers()[name]()
    contract = learned(model.estimator, sample_of(model, ending, tmp_path))
    app = make_app(empty=True, **QUICK)
    serve(app, {"m": (contract.input, SklearnRuntime(model.estimator))})
    client = app.test_client()
    frame = model.frame.iloc[:ROWS]
    expected = model.estimator.predict(frame)
    rows = rows_of(frame)
    asked = 0
    for spelling, request in [*spellings(contract.input, rows, random.Random(7)), *own_spellings(frame)]:
        if name == "integer-names" and spelling == "CSV, header by content":
            continue  # the names in another order could be a row, which is refused
        answer = client.post(request.path.replace("MODEL", "m"), data=request.body, headers=request.headers)
        assert answer.status_code == 200, (spelling, answer.get_data(as_text=True)[:500])
        content = answer.get_json()
        given = content if isinstance(content, list) else content.get("predictions") or content.get("outputs")
        given = given[0]["data"] if isinstance(given[0], dict) else given
        np.testing.assert_array_equal(np.array(given), expected, err_msg=spelling)
        asked += 1
    assert asked > 25


@pytest.mark.parametrize(("yes", "no"), [(1, 0), (1.0, 0.0), (True, False)])
def test_dummies_take_ones_and_zeros(yes: Any, no: Any, make_app: MakeApp) -> None:
    """300 columns of booleans take 1 and 0, whole or not, in JSON, tensors, CSV and Arrow."""
    model = typed_models.dummies()
    contract = learned(model.estimator, model.frame)
    app = make_app(empty=True, **QUICK)
    serve(app, {"m": (contract.input, SklearnRuntime(model.estimator))})
    frame = model.frame.iloc[:ROWS]
    rows = [[yes if flag else no for flag in row] for row in frame.to_numpy().tolist()]
    names = [column.name for column in contract.input.columns]
    kind = {bool: "BOOL", int: "INT64", float: "FP64"}[type(yes)]
    matrix = {"name": "x", "shape": [ROWS, len(names)], "datatype": kind, "data": rows}
    table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(names)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    lines = "\n".join([",".join(names), *(",".join(map(str, row)) for row in rows)])
    requests = [
        Request(V1, json.dumps({"instances": rows}).encode()),
        Request(V2, json.dumps({"inputs": [matrix]}).encode()),
        Request(INVOKE, lines.encode(), {"Content-Type": "text/csv"}),
        Request(INVOKE, sink.getvalue(), {"Content-Type": "application/vnd.apache.arrow.stream"}),
    ]
    for request in requests:
        answer = app.test_client().post(request.path.replace("MODEL", "m"), data=request.body, headers=request.headers)
        content = answer.get_json()
        assert answer.status_code == 200, content
        given = content.get("predictions") or content["outputs"][0]["data"]
        np.testing.assert_array_equal(np.array(given), model.estimator.predict(frame))


def test_one_mistake_in_every_cell_is_one_sentence(make_app: MakeApp) -> None:
    """300 columns of 30 rows with one mistake are one error with their number, not 9,000."""
    model = typed_models.dummies()
    contract = learned(model.estimator, model.frame)
    app = make_app(empty=True, **QUICK)
    serve(app, {"m": (contract.input, SklearnRuntime(model.estimator))})
    answer = app.test_client().post("/v1/models/m:predict", json={"instances": [["yes"] * 300] * ROWS})
    content = error_of(answer)
    (error,) = content["errors"]
    assert error["path"] == "instances[0][0] (zip_00000)"
    assert error["message"] == (
        "expected true, false, 1 or 0, got a string (9000 cells of zip_00000, zip_00001, zip_00002 "
        "and 297 more; this is "
        "the first)"
    )


def test_names_that_are_numbers_decide(make_app: MakeApp) -> None:
    """The trainer's own names in their order are a header; in another order they could be a row, and must be stated."""
    model = typed_models.integer_names()
    contract = learned(model.estimator, model.frame)
    assert [(column.name, column.integer_name) for column in contract.input.columns] == [
        ("2", True),
        ("0", True),
        ("1", True),
    ]
    app = make_app(empty=True, **QUICK)
    serve(app, {"m": (contract.input, SklearnRuntime(model.estimator))})
    client = app.test_client()
    frame = model.frame.iloc[:ROWS]
    moved = frame[[0, 1, 2]].to_csv(index=False)
    stated = client.post("/models/m/invocations", data=moved, content_type="text/csv; header=present")
    np.testing.assert_array_equal(np.array(stated.get_json()["predictions"]), model.estimator.predict(frame))
    refused = error_of(client.post("/models/m/invocations", data=moved, content_type="text/csv"))
    assert "could be a header or a row; send 'Content-Type: text/csv; header=present'" in refused["error"]
    split = {"columns": [0, 1, 2], "data": frame[[0, 1, 2]].to_numpy().tolist()}
    answer = client.post("/models/m/invocations", json={"dataframe_split": split})
    np.testing.assert_array_equal(np.array(answer.get_json()["predictions"]), model.estimator.predict(frame))
