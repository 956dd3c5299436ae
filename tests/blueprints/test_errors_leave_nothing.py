"""An error frees its request's body and table at once, and does not wait for a garbage collection."""

from __future__ import annotations

import gc
import gzip
import types
from collections.abc import Iterator

import numpy as np
import pytest
from flask.testing import FlaskClient

from tableside.contracts.schema import Column, Input
from tests.conftest import MakeApp, serve
from tests.fakes import RecordingRuntime
from tests.spellings import npy

TIMES = 10
LARGE = 20_000
"""Bytes of a body that is decoded in a native thread."""
COLUMNS = Input("frame", (Column("x", "FP64", "float64"),))


@pytest.fixture
def client(make_app: MakeApp) -> FlaskClient:
    app = make_app(empty=True)
    serve(app, {"good": (COLUMNS, RecordingRuntime())})
    return app.test_client()


LINES, NPY = {"Content-Type": "application/jsonlines"}, {"Content-Type": "application/x-npy"}
BODIES: dict[str, tuple[str, int, bytes, dict[str, str]]] = {
    "a bad cell": ("good:predict", 400, b'{"instances": [["a"], ' + b"[0], " * LARGE + b"[0]]}", {}),
    "nested": ("good:predict", 400, gzip.compress(b"[" * 16_000_000, 1), {"Content-Encoding": "gzip"}),
    "no JSON": ("good:predict", 400, b"[" + b"x" * LARGE, {}),
    "a bad line": ("/models/good/invocations", 400, b"[0]\n" * LARGE + b"[", LINES),
    "a bad cell in a line": ("/models/good/invocations", 400, b"[0]\n" * LARGE + b'["a"]', LINES),
    "a bad array": ("/models/good/invocations", 400, npy(np.zeros((LARGE, 1))) + b"0", NPY),
    "a bad cell of an array": ("/models/good/invocations", 400, npy(np.full((LARGE, 1), np.nan)), NPY),
}  # fmt: skip


def tracebacks() -> Iterator[types.TracebackType]:
    return (each for each in gc.get_objects() if isinstance(each, types.TracebackType))


@pytest.mark.parametrize("name", BODIES)
def test_an_error_frees_what_its_frames_hold(client: FlaskClient, name: str) -> None:
    """As many tracebacks are left after ten such requests as after two."""
    path, status, body, headers = BODIES[name]
    path = path if path.startswith("/") else f"/v1/models/{path}"
    left = []
    gc.collect()
    gc.disable()
    try:
        for times in (2, TIMES):
            for _ in range(times):
                assert client.post(path, data=body, headers=headers).status_code == status
            left.append(sum(1 for _ in tracebacks()))
    finally:
        gc.enable()
    assert left[1] - left[0] < TIMES, left
