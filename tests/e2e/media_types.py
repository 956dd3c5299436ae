"""One table in the media types of SageMaker's clients, sent to a running stack and compared with the estimator."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np

from tests.e2e.conftest import Stack
from tests.spellings import npy

INVOKE = "/models/iris/invocations"
LINES, NPY, CSV = "application/jsonlines", "application/x-npy", "text/csv"
LARGE_REPEATS = 100
"""With so many copies of the sample an answer is too large for nginx's buffers, and leaves the worker in a file."""


def check(stack: Stack, trained: dict[str, Any]) -> None:
    """Send iris as JSON lines, npy and CSV, and compare the answers of each media type to the bit, large ones too."""
    estimator, frame = trained["iris"]
    expected = estimator.predict_proba(frame)
    table = frame.to_numpy()
    bodies = {
        LINES: "\n".join(map(json.dumps, table.tolist())).encode(),
        NPY: npy(table),
        CSV: frame.to_csv(index=False, header=False).encode(),
    }
    for kind, body in bodies.items():
        for accept in (LINES, NPY, CSV):
            found = _ask(stack, body, kind, accept)
            np.testing.assert_array_equal(_decoded(found, accept), expected, f"{kind} {accept}")
    large = _ask(stack, npy(np.tile(table, (LARGE_REPEATS, 1))), NPY, NPY)
    np.testing.assert_array_equal(_decoded(large, NPY), np.tile(expected, (LARGE_REPEATS, 1)))
    status, _, _ = stack.raw(_url(stack), bodies[NPY], {"Content-Type": NPY, "Accept": "image/png"})
    assert status == 406
    status, text, _ = stack.raw(_url(stack), b"[1,2,3,4]\n[1,", {"Content-Type": LINES})
    assert (status, b"line 2: not one JSON value" in text) == (400, True)


def _url(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.data}{INVOKE}?output=predict_proba"


def _ask(stack: Stack, body: bytes, kind: str, accept: str) -> bytes:
    status, answer, headers = stack.raw(_url(stack), body, {"Content-Type": kind, "Accept": accept})
    assert (status, headers["Content-Type"]) == (200, accept), answer
    return answer


def _decoded(answer: bytes, kind: str) -> Any:
    if kind == NPY:
        return np.load(io.BytesIO(answer), allow_pickle=False)
    lines = answer.decode().splitlines()
    return np.array([json.loads(line) if kind == LINES else list(map(float, line.split(","))) for line in lines])
