"""Small bodies that inflate to large ones are refused before they are inflated, in every format."""

from __future__ import annotations

import gzip
import io
import json
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient

from tableside.contracts.schema import Column, Input
from tests.conftest import QUICK, MakeApp, error_of, serve
from tests.fakes import RecordingRuntime

LIMIT = 8 << 20
TABLE = Input("frame", (Column("t", "BYTES", "str", nullable=True), Column("x", "FP64", "float64", nullable=True)))
LONG = "y" * 200_000
STREAM, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(
        empty=True, server__max_inflated_bytes=str(LIMIT), server__max_rows=str(2**30),
        server__max_inflation="10000", **QUICK,
    )  # fmt: skip
    serve(app, {"table": (TABLE, RecordingRuntime())})
    return app.test_client()


def arrow(table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(**options)) as writer:
        writer.write_table(table)
    return sink.getvalue()


def parquet(table: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd")
    return sink.getvalue()


def shared(rows: int = 2000) -> Any:
    """A dictionary array: one long text that many rows refer to."""
    return pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int8()), pa.array([LONG]))


def _columns(text: Any, **more: Any) -> Any:
    return pa.table({"t": text, "x": pa.array([1.0] * len(text)), **more})


BOMBS: dict[str, tuple[str, Callable[[], bytes], dict[str, str]]] = {
    "arrow dictionary": (STREAM, lambda: arrow(_columns(shared())), {}),
    "arrow zstd": (STREAM, lambda: arrow(_columns(pa.array([LONG] * 60)), compression="zstd"), {}),
    "arrow nulls": (STREAM, lambda: arrow(pa.table({"t": pa.nulls(3_000_000), "x": pa.nulls(3_000_000)})), {}),
    "parquet dictionary": (FILE, lambda: parquet(_columns(pa.array([LONG] * 500))), {}),
    "parquet rows": (FILE, lambda: parquet(_columns(pa.array(["a"] * 2_000_000))), {}),
    "gzip csv": ("text/csv; header=absent", lambda: gzip.compress(b",\n" * 2_000_000), {"Content-Encoding": "gzip"}),
    "gzip json": (
        "application/json",
        lambda: gzip.compress(json.dumps({"instances": [[None, 0]] * 2}).encode() + b"," * 6_000_000),
        {"Content-Encoding": "gzip"},
    ),
    "zstd zeros": (
        "text/csv",
        lambda: pa.compress(bytes(LIMIT * 4), "zstd", asbytes=True),
        {"Content-Encoding": "zstd"},
    ),
}


@pytest.mark.parametrize("name", sorted(BOMBS))
def test_a_bomb_is_413_and_stays_small(client: FlaskClient, name: str) -> None:
    """It answers 413 with the setting's name, and the memory in use stays below four times the limit."""
    kind, make, headers = BOMBS[name]
    body = make()
    assert len(body) < LIMIT
    tracemalloc.start()
    try:
        answer = client.post("/models/table/invocations", data=body, headers={"Content-Type": kind, **headers})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert answer.status_code == 413, answer.get_data(as_text=True)
    assert "server.max_inflated_bytes" in error_of(answer)["error"]
    assert peak < 4 * LIMIT, peak


def test_an_unknown_column_is_not_inflated(client: FlaskClient) -> None:
    """An unknown column is refused by its name before its data is inflated."""
    body = parquet(_columns(pa.array(["a"] * 500), z=pa.array([LONG.encode()] * 500)))
    answer = client.post("/models/table/invocations", data=body, headers={"Content-Type": FILE})
    assert answer.status_code == 400
    assert "columns.z: no such column" in error_of(answer)["error"]


def test_the_number_of_gzip_members_is_limited(client: FlaskClient) -> None:
    """A body of very many empty gzip members is refused after the first thousands, without inflating the rest."""
    body = gzip.compress(b"") * 200_000
    answer = client.post("/models/table/invocations", data=body, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 400
    assert "gzip files in a row" in error_of(answer)["error"]


def test_a_million_bad_cells_cost_little(client: FlaskClient) -> None:
    """All bad cells are counted; those with one message are one error."""
    body = b"t,x\n" + b"a,b\n" * 150_000
    answer = client.post("/models/table/invocations", data=body, headers={"Content-Type": "text/csv"})
    content = error_of(answer)
    assert [error["path"] for error in content["errors"]] == ["rows[0].x"]
    assert "150000 errors" in content["error"]


def v2(outputs: list[str], rows: int = 1) -> bytes:
    """A V2 request for the table."""
    tensors = [
        {"name": "t", "shape": [rows], "datatype": "BYTES", "data": ["a"] * rows},
        {"name": "x", "shape": [rows], "datatype": "FP64", "data": [0.5] * rows},
    ]
    return json.dumps({"inputs": tensors, "outputs": [{"name": name} for name in outputs]}).encode()


def test_an_output_is_requested_once(client: FlaskClient) -> None:
    """One output a thousand times would multiply the answer."""
    assert client.post("/v2/models/table/infer", data=v2(["predict"])).status_code == 200
    answer = client.post("/v2/models/table/infer", data=gzip.compress(v2(["predict"] * 1000)),
                         headers={"Content-Encoding": "gzip"})  # fmt: skip
    assert answer.status_code == 400
    assert "outputs[1].name: this output is requested twice" in error_of(answer)["error"]


@pytest.fixture
def strict(make_app: MakeApp) -> FlaskClient:
    """An application with small limits for rows and answers."""
    app = make_app(empty=True, server__max_rows="100", server__max_answer_bytes="600", **QUICK)
    serve(app, {"table": (TABLE, RecordingRuntime())})
    return app.test_client()


ROWS: dict[str, tuple[str, str, Callable[[int], bytes]]] = {
    "v1": (
        "/v1/models/table:predict",
        "application/json",
        lambda n: json.dumps({"instances": [["a", 0]] * n}).encode(),
    ),
    "v2": ("/v2/models/table/infer", "application/json", lambda n: v2([], n)),
    "csv": ("/models/table/invocations", "text/csv; header=absent", lambda n: b"a,0\n" * n),
    "arrow": ("/models/table/invocations", STREAM, lambda n: arrow(_columns(pa.array(["a"] * n)))),
    "parquet": ("/models/table/invocations", FILE, lambda n: parquet(_columns(pa.array(["a"] * n)))),
}


@pytest.mark.parametrize("name", sorted(ROWS))
def test_rows_and_answers_are_limited_in_every_format(strict: FlaskClient, name: str) -> None:
    """More rows than server.max_rows and a larger answer than server.max_answer_bytes are 413, by setting and value."""
    path, kind, make = ROWS[name]
    assert strict.post(path, data=make(50), headers={"Content-Type": kind}).status_code == 200
    for rows, setting in ((101, "server.max_rows allows 100"), (51, "server.max_answer_bytes allows 600")):
        answer = strict.post(path, data=make(rows), headers={"Content-Type": kind})
        assert answer.status_code == 413
        assert setting in error_of(answer)["error"]


def test_a_small_body_may_take_less(make_app: MakeApp) -> None:
    """A kilobyte that inflates to 20 MB is refused by server.max_inflation; with a higher setting it is read."""
    body = gzip.compress(b" " * 20_000_000 + json.dumps({"instances": [["a", 0]]}).encode())
    for ratio, status in (("32", 413), ("10000", 200)):
        app = make_app(empty=True, server__max_inflation=ratio, **QUICK)
        serve(app, {"table": (TABLE, RecordingRuntime())})
        answer = app.test_client().post("/v1/models/table:predict", data=body, headers={"Content-Encoding": "gzip"})
        assert answer.status_code == status
        assert status == 200 or "server.max_inflation" in error_of(answer)["error"]


def test_large_bodies_have_a_common_budget(make_app: MakeApp) -> None:
    """A body that would exceed server.max_bytes_in_hand is 429 while others are held; alone it is answered."""
    app = make_app(empty=True, server__max_bytes_in_hand="200000", **QUICK)
    serve(app, {"table": (TABLE, RecordingRuntime())})
    in_hand = app.extensions["tableside"].bytes_in_hand
    body = json.dumps({"instances": [["a" * 300_000, 0]]}).encode()
    for held, status in ((0, 200), (1, 429), (0, 200)):
        in_hand.take(held)
        answer = app.test_client().post("/v1/models/table:predict", data=body)
        in_hand.give_back(held)
        assert (answer.status_code, in_hand.bytes) == (status, 0)
    small = json.dumps({"instances": [["a", 0]]}).encode()
    for held, status in ((0, 200), (1, 429)):  # a chunked body counts as the largest that is allowed
        in_hand.take(held)
        chunked = {"wsgi.input": io.BytesIO(small), "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
        answer = app.test_client().post("/v1/models/table:predict", environ_overrides=chunked)
        in_hand.give_back(held)
        assert (answer.status_code, in_hand.bytes) == (status, 0)
    in_hand.take(200_000)
    more = {"wsgi.input_terminated": True}  # gunicorn says so of every request
    assert app.test_client().post("/v1/models/table:predict", data=small, environ_overrides=more).status_code == 200
    in_hand.give_back(200_000)
    assert app.test_client().post("/v1/models/table:predict", data=b"x" * 300_000).status_code == 400
    assert in_hand.bytes == 0


def test_integers_of_one_hash_are_looked_up_one_by_one(make_app: MakeApp) -> None:
    """Multiples of 2^61 - 1 have one hash in Python: a set of 20,000 of them would take many seconds of CPU."""
    table = Input("frame", (Column("c", "INT64", "int64", closed=True, categories=(1, 2, 3)),))
    app = make_app(empty=True, **QUICK)
    serve(app, {"table": (table, RecordingRuntime())})
    rows = [[at * (2**61 - 1)] for at in range(20_000)]
    body = json.dumps({"instances": rows}).encode()
    before_s = time.process_time()
    answer = app.test_client().post("/v1/models/table:predict", data=body)
    assert time.process_time() - before_s < 3
    assert answer.status_code == 400
    assert "not a category of this column" in error_of(answer)["error"]
