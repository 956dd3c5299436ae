"""No body causes a 500: damaged, cut, forged and random bodies are answered or refused."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st

from tableside.contracts.schema import Column, Input
from tests.conftest import QUICK, MakeApp, error_of, serve
from tests.fakes import SumRuntime
from tests.spellings import HEADER, Request, spellings

TABLE = Input(
    "frame",
    (
        Column("real", "FP64", "float64", nullable=True),
        Column("count", "INT64", "int64", nullable=True),
        Column("word", "BYTES", "object", nullable=True),
        Column("shade", "BYTES", "object", categories=("red", "pale"), closed=True),
        Column("flag", "BOOL", "bool"),
    ),
)
ROWS: list[list[Any]] = [
    [1.5, 3, "a", "red", True],
    [None, None, None, "pale", False],
    [-0.0, -9, 'ü,\n"', "red", True],
]
VALID = dict(spellings(TABLE, ROWS, random.Random(3)))
TYPES = ["application/json", "text/csv", "text/csv; header=present", "application/vnd.apache.arrow.stream", "text/html"]
TYPES += ["application/jsonlines", "application/x-npy"]
BOUNDED = settings(max_examples=150)


class MissingCellsRuntime(SumRuntime):
    """Answers the number of missing cells in each row."""

    def run(self, method: str, data: Any) -> Any:
        return data.isna().sum(axis=1).to_numpy(dtype=float)


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(empty=True, server__max_inflated_bytes=str(2**20), **QUICK)
    serve(app, {"table": (TABLE, MissingCellsRuntime())})
    return app.test_client()


def send(client: FlaskClient, request: Request) -> None:
    """Send a request, and check that it is answered or refused with a status for bad requests."""
    answer = client.post(request.path.replace("MODEL", "table"), data=request.body, headers=request.headers)
    assert answer.status_code in (200, 400, 413, 415), answer.get_data(as_text=True)
    if answer.status_code != 200:
        assert error_of(answer)["error"]


def test_the_valid_ones_are_answered(client: FlaskClient) -> None:
    """What is broken below was whole before."""
    for name, request in VALID.items():
        answer = client.post(request.path.replace("MODEL", "table"), data=request.body, headers=request.headers)
        assert answer.status_code == 200, (name, answer.get_data(as_text=True))


@BOUNDED
@given(
    name=st.sampled_from(sorted(VALID)),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 3), st.binary(min_size=1, max_size=6)), min_size=1, max_size=4
    ),
)
def test_a_broken_body(client: FlaskClient, name: str, edits: list[tuple[float, int, bytes]]) -> None:
    """Bytes changed, cut out, put in, or all after them lost, in every spelling."""
    request = VALID[name]
    body = request.body
    for place, kind, given_bytes in edits:
        at = int(place * len(body))
        after = {0: at + len(given_bytes), 1: at, 2: at + len(given_bytes), 3: len(body)}[kind]
        body = body[:at] + (given_bytes if kind < 2 else b"") + body[after:]
    send(client, Request(request.path, body, request.headers))


@BOUNDED
@given(
    body=st.binary(max_size=200),
    kind=st.sampled_from(TYPES),
    encoding=st.sampled_from(["", "gzip", "zstd", "br", "deflate"]),
)
def test_random_bytes(client: FlaskClient, body: bytes, kind: str, encoding: str) -> None:
    """Random bytes never cause a 500, under any Content-Type and Content-Encoding."""
    headers = {"Content-Type": kind, "Content-Encoding": encoding}
    for path in ("/models/MODEL/invocations", "/v1/models/MODEL:predict", "/v2/models/MODEL/infer"):
        send(client, Request(path, body, headers))


@BOUNDED
@given(
    header=st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8) | st.integers().map(str),
    size=st.none() | st.integers(-(2**70), 2**70) | st.text(max_size=3),
    shape=st.lists(st.integers(-2, 5) | st.integers(), max_size=3),
    datatype=st.sampled_from(["FP64", "FP32", "FP16", "INT8", "UINT64", "BOOL", "BYTES", "BF16"]),
    tail=st.binary(max_size=40),
)
def test_forged_tensors(client: FlaskClient, header: str, size: Any, shape: Any, datatype: str, tail: bytes) -> None:
    """Tensors whose sizes, shapes and lengths contradict each other never cause a 500."""
    tensor = {"name": "real", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    text = json.dumps({"inputs": [tensor]}).encode()
    send(client, Request("/v2/models/MODEL/infer", text + tail, {HEADER: str(len(text))}))
    send(client, Request("/v2/models/MODEL/infer", text + tail, {HEADER: header}))


KEYS = [
    "dataframe_split",
    "dataframe_records",
    "instances",
    "inputs",
    "params",
    "columns",
    "data",
    "index",
    "real",
    "flag",
]
JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=12,
)


@BOUNDED
@given(junk=JUNK)
def test_junk_in_json(client: FlaskClient, junk: Any) -> None:
    """Any JSON, NaN and Infinity included, never causes a 500 under the keys that the protocols use."""
    for body in (
        junk,
        {"instances": junk},
        {"inputs": junk},
        {"dataframe_split": junk},
        {"params": junk, "inputs": [[1]]},
    ):
        send(client, Request("/models/MODEL/invocations", json.dumps(body).encode()))
