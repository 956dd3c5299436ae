"""Small bodies that inflate to large ones are refused before they are inflated, in every format."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from flask.testing import FlaskClient

from tableside.contract.schema import Column, Input
from tests.conftest import QUICK, MakeApp, error_of, serve
from tests.fakes import RecordingRuntime

LIMIT = 8 << 20
TABLE = Input("frame", (Column("t", "BYTES", "str", nullable=True), Column("x", "FP64", "float64", nullable=True)))
LONG = "y" * 200_000
STREAM, FILE = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(empty=True, server__max_inflated_bytes=str(LIMIT), **QUICK)
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
    body = b"t,x\n" + b"a,b\n" * 200_000
    answer = client.post("/models/table/invocations", data=body, headers={"Content-Type": "text/csv"})
    content = error_of(answer)
    assert [error["path"] for error in content["errors"]] == ["rows[0].x"]
    assert "200000 errors" in content["error"]
