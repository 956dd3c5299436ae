"""NVIDIA's Triton client works against the real stack: JSON, binary, compression, errors and the repository API."""

from __future__ import annotations

import asyncio
import json
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from tableside.blueprints.predict.triton import STATS_AGE_S
from tests.e2e.conftest import Stack, until

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import tritonclient.http as triton
    import tritonclient.http.aio as triton_aio
    from tritonclient.utils import InferenceServerException

OUTPUTS = ("predict", "predict_proba")


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


@pytest.fixture
def client(stack: Stack) -> Iterator[Any]:
    started = triton.InferenceServerClient(f"127.0.0.1:{stack.data}")
    yield started
    started.close()


def rows(trained: dict[str, Any], count: int = 9) -> Any:
    return np.ascontiguousarray(trained["iris"][1].iloc[:count].to_numpy())


def test_server_and_model(client: Any) -> None:
    """The client's questions about server and model, before it infers, are answered."""
    assert client.is_server_live()
    assert until(client.is_server_ready), "at a first start one worker may be ready before the other"
    assert until(lambda: client.is_model_ready("iris"))
    assert not client.is_model_ready("rose")
    assert client.get_server_metadata()["name"] == "tableside"
    found = client.get_model_metadata("iris", "1")
    assert found["inputs"][0]["parameters"]["nullable"] is False
    classes = {output["name"]: output["parameters"].get("classes") for output in found["outputs"]}
    assert json.loads(classes["predict_proba"]) == ["setosa", "versicolor", "virginica"]
    assert client.get_model_config("iris")["max_batch_size"] > 0


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_infer(client: Any, trained: Any, binary_in: bool, binary_out: bool, compression: str | None) -> None:
    """The client's arrays equal the estimator's bit for bit, in every encoding and compression."""
    table, estimator = rows(trained), trained["iris"][0]
    tensor = triton.InferInput("input-0", list(table.shape), "FP64")
    tensor.set_data_from_numpy(table, binary_data=binary_in)
    asked = [triton.InferRequestedOutput(name, binary_data=binary_out) for name in OUTPUTS]
    answer = client.infer(
        "iris", [tensor], outputs=asked, request_id="r-1", request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )  # fmt: skip
    assert answer.get_response()["id"] == "r-1"
    frame = trained["iris"][1].iloc[: len(table)]
    assert answer.as_numpy("predict_proba").tobytes() == estimator.predict_proba(frame).tobytes()
    labels = [label.decode() if isinstance(label, bytes) else label for label in answer.as_numpy("predict").ravel()]
    assert labels == estimator.predict(frame).tolist()


def test_text_and_numbers_by_column(client: Any, trained: Any) -> None:
    """A table of text and numbers is sent as one tensor per column, each with its own datatype."""
    estimator, sample = trained["wine"]
    frame = sample.dropna().iloc[:6]
    kinds = {"float64": "FP64", "int64": "INT64", "bool": "BOOL"}
    tensors = []
    for name in frame.columns:
        kind = kinds.get(str(frame[name].dtype), "BYTES")
        cells = frame[name].to_numpy(dtype=object if kind == "BYTES" else None)
        tensors.append(triton.InferInput(name, [len(frame)], kind))
        tensors[-1].set_data_from_numpy(cells)
    got = client.infer("wine", tensors, outputs=[triton.InferRequestedOutput("predict_proba")])
    assert got.as_numpy("predict_proba").tobytes() == estimator.predict_proba(frame).tobytes()


def test_errors_arrive_as_text(client: Any) -> None:
    """The client raises an exception with the text of the server's error."""
    tensor = triton.InferInput("input-0", [1, 3], "FP64")
    tensor.set_data_from_numpy(np.zeros((1, 3)))
    with pytest.raises(InferenceServerException, match=r"expected \[rows, 4\]"):
        client.infer("iris", [tensor])
    with pytest.raises(InferenceServerException, match="no model 'rose'"):
        client.infer("rose", [tensor])


def test_statistics_over_all_workers(client: Any, trained: Any) -> None:
    """Statistics count the rows that all workers answered; they are at most STATS_AGE_S old."""
    table = rows(trained, 3)
    tensor = triton.InferInput("input-0", list(table.shape), "FP64")
    tensor.set_data_from_numpy(table)

    def count() -> int:
        time.sleep(STATS_AGE_S)  # the age is from the end of the last reading: now each worker reads anew
        return int(client.get_inference_statistics("iris")["model_stats"][0]["inference_count"])

    before = count()
    for _ in range(10):
        client.infer("iris", [tensor])
    assert count() - before == 30


def test_the_repository(stack: Stack) -> None:
    """Index, unload and load work on the control plane with the admin key and are complete when they return."""
    client = triton.InferenceServerClient(f"127.0.0.1:{stack.admin}")
    key = {"Authorization": f"Bearer {stack.key}"}
    try:
        names = {entry["name"]: entry["state"] for entry in client.get_model_repository_index(headers=key)}
        assert names["iris"] == "READY"
        client.unload_model("iris", headers=key)
        assert [stack.call("/v2/models/iris/ready")[0] for _ in range(8)] == [503] * 8
        client.load_model("iris", headers=key)
        assert [stack.call("/v2/models/iris/ready")[0] for _ in range(8)] == [200] * 8
        with pytest.raises(InferenceServerException):
            client.get_model_repository_index()
    finally:
        client.close()


def test_the_asynchronous_client(stack: Stack, trained: Any) -> None:
    """The asynchronous client works: it labels JSON as application/octet-stream, and only the length header decides."""
    table = rows(trained)

    async def ask() -> list[Any]:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{stack.data}") as client:
            tensor = triton_aio.InferInput("input-0", list(table.shape), "FP64")
            tensor.set_data_from_numpy(table, binary_data=False)
            answers = await asyncio.gather(*(client.infer("iris", [tensor]) for _ in range(4)))
            return [answer.as_numpy("predict").ravel().tolist() for answer in answers]

    expected = trained["iris"][0].predict(trained["iris"][1].iloc[: len(table)]).tolist()
    for labels in asyncio.run(ask()):
        assert [label.decode() if isinstance(label, bytes) else label for label in labels] == expected
