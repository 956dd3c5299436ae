"""For every estimator of scikit-learn, the answer over HTTP equals the estimator's own answer bit for bit."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tableside.contracts.schema import Contract
from tableside.errors import PublishFailed
from tableside.publishing import effort
from tableside.publishing.publish import publish
from tests import estimator_zoo
from tests.conftest import cells, publishing_with
from tests.e2e.conftest import Stack

HEADER = "Inference-Header-Content-Length"
NUMPY = {"BOOL": "?", "INT64": "<i8", "FP32": "<f4", "FP64": "<f8"}
Served = dict[str, tuple[estimator_zoo.Case, Contract]]


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Served, dict[str, str]]:
    """Publish every case. Return the repository, the published cases, and the reason for each that publish rejected.

    Speeds are measured shortly and no graph is converted: tests/unit/test_onnx.py and test_fast_backends.py do that.
    """
    root = tmp_path_factory.mktemp("zoo")
    served: Served = {}
    refused: dict[str, str] = {}
    with warnings.catch_warnings(), publishing_with(effort.QUICK._replace(timing_s=0.005)):
        warnings.simplefilter("ignore")
        cases = [*estimator_zoo.plain_cases(), *((case.name, case) for case in estimator_zoo.composed_cases())]
        for name, case in cases:
            if isinstance(case, Exception):
                refused[name] = str(case)
                continue
            try:
                model = re.sub("[^A-Za-z0-9-]", "", name)
                served[model] = (case, publish(model, case.estimator, case.rows, repository=root))
            except PublishFailed as refusal:
                refused[name] = str(refusal)
    return root, served, refused


@pytest.fixture(scope="module")
def zoo_stack(make_stack: Callable[..., Stack], zoo: Any) -> Iterator[Stack]:
    more = {"TABLESIDE__REPOSITORY__PATH": str(zoo[0]), "TABLESIDE__SERVER__WORKERS": "1"}
    stack = make_stack(**more)
    stack.wait_loaded()
    yield stack
    stack.stop()


def test_what_is_not_served_is_on_the_list(zoo: Any) -> None:
    """Publish rejects exactly the estimators that the documentation lists."""
    refused = zoo[2]
    assert sorted(refused) == sorted(estimator_zoo.NOT_SERVED), {
        n: refused[n] for n in set(refused) - set(estimator_zoo.NOT_SERVED)
    }


def test_every_method_is_an_output(zoo: Any) -> None:
    """Each of the five prediction methods that an estimator has is an output."""
    missing = {
        name: method
        for name, (case, contract) in zoo[1].items()
        for method in estimator_zoo.METHODS
        if hasattr(case.estimator, method) and method not in {output.source for output in contract.outputs}
    }
    assert not missing


def in_memory(case: estimator_zoo.Case, output: Any) -> Any:
    """Return the estimator's own answer for all rows in one call, as a dense array.

    The estimator gets a copy of the rows: numpy uses another BLAS routine for `X @ X.T` if both are the same memory,
    and its sums differ in the last bits. KernelRidge and the label spreaders keep their training rows, which are these.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        answer = getattr(case.estimator, output.source)(case.rows.copy())
    answer = answer if output.part is None else answer[output.part]
    answer = answer.toarray() if hasattr(answer, "toarray") else answer
    return np.asarray(answer)


def as_rows(case: estimator_zoo.Case) -> list[Any]:
    if isinstance(case.rows, pd.DataFrame):
        rows = cells(case.rows)
        return [dict(zip(case.rows.columns, row, strict=True)) for row in rows]
    return cells(pd.DataFrame(case.rows)) if isinstance(case.rows, np.ndarray) else list(case.rows)


def from_json(data: Any, like: Any) -> Any:
    """Return JSON values as an array with the dtype of `like`; null becomes NaN among floats."""
    if like.dtype.kind == "f":
        return np.array(data, dtype=np.float64).astype(like.dtype).reshape(like.shape)
    if like.dtype.kind in "OU":
        return np.array(data, dtype=object).reshape(like.shape)
    return np.array(data).astype(like.dtype).reshape(like.shape)


def same(got: Any, expected: Any) -> bool:
    """Return whether the arrays are equal bit for bit, including the sign of zero; text is compared by value."""
    if expected.dtype.kind in "OU":
        return bool((got.astype(str) == expected.astype(str)).all())
    return bool(np.ascontiguousarray(got).tobytes() == np.ascontiguousarray(expected).tobytes())


def columns_of(case: estimator_zoo.Case, contract: Contract) -> list[tuple[dict[str, Any], bytes]]:
    """Return the rows as binary tensors: one matrix for an array, one tensor per column for a frame or texts."""
    if isinstance(case.rows, np.ndarray):
        kind = "FP32" if case.rows.dtype == np.float32 else "FP64"
        return [_tensor("input-0", kind, case.rows)]
    frame = pd.DataFrame({contract.input.columns[0].name: case.rows}) if isinstance(case.rows, list) else case.rows
    return [_tensor(column.name, column.datatype, frame[column.name].to_numpy()) for column in contract.input.columns]


def _tensor(name: str, datatype: str, array: Any) -> tuple[dict[str, Any], bytes]:
    if datatype == "BYTES":
        texts = [str(cell).encode() for cell in array]
        raw = b"".join(len(text).to_bytes(4, "little") + text for text in texts)
    else:
        raw = np.ascontiguousarray(array).astype(NUMPY[datatype]).tobytes()
    head = {
        "name": name,
        "shape": list(array.shape),
        "datatype": datatype,
        "parameters": {"binary_data_size": len(raw)},
    }
    return head, raw


def ask_in_binary(stack: Stack, name: str, case: estimator_zoo.Case, contract: Contract) -> dict[str, Any]:
    """Request every output with binary tensors in both directions. Return (description, bytes) by output name."""
    parts = columns_of(case, contract)
    asked = {"inputs": [head for head, _ in parts], "parameters": {"binary_data_output": True}}
    asked["outputs"] = [{"name": output.name} for output in contract.outputs]
    text = json.dumps(asked).encode()
    url = f"http://127.0.0.1:{stack.data}/v2/models/{name}/infer"
    status, raw, headers = stack.raw(url, text + b"".join(raw for _, raw in parts), {HEADER: str(len(text))})
    assert status == 200, raw
    head = json.loads(raw[: int(headers[HEADER])])
    at, found = int(headers[HEADER]), {}
    for output in head["outputs"]:
        size = output["parameters"]["binary_data_size"]
        found[output["name"]] = (output, raw[at : at + size])
        at += size
    assert at == len(raw)
    return found


def _read(output: dict[str, Any], raw: bytes) -> Any:
    if output["datatype"] != "BYTES":
        return np.frombuffer(raw, dtype=NUMPY[output["datatype"]])
    texts, at = [], 0
    while at < len(raw):
        size = int.from_bytes(raw[at : at + 4], "little")
        texts.append(raw[at + 4 : at + 4 + size].decode())
        at += 4 + size
    return np.array(texts, dtype=object)


def differences(stack: Stack, name: str, case: estimator_zoo.Case, contract: Contract) -> list[str]:
    """Return one line for each output whose answer over HTTP differs from the estimator's own."""
    found: list[str] = []
    binary = ask_in_binary(stack, name, case, contract)
    for output in contract.outputs:
        expected = in_memory(case, output)
        asked = {"instances": as_rows(case), "signature_name": output.name}
        status, content, _ = stack.call(f"/v1/models/{name}:predict", asked)
        if status != 200:
            found.append(f"{output.name}: {status} {content}")
        elif not same(from_json(content["predictions"], expected), expected):
            found.append(f"{output.name} in JSON: {content['predictions'][:2]} for {expected[:2]}")
        got = _read(*binary[output.name]).reshape(expected.shape)
        wide = expected if expected.dtype.kind in "fOU" else expected.astype(got.dtype)
        if not same(got, wide):
            found.append(f"{output.name} in binary: {got[:2]} for {expected[:2]}")
    return found


def test_every_answer_is_the_estimators_own(zoo_stack: Stack, zoo: Any) -> None:
    """Each output of each estimator, in JSON by row and in binary by column, is bit for bit equal."""
    served = zoo[1]
    wrong = {name: differences(zoo_stack, name, *pair) for name, pair in served.items()}
    wrong = {name: found for name, found in wrong.items() if found}
    assert not wrong, json.dumps(wrong, indent=1)
    assert (len(served), sum(len(contract.outputs) for _, contract in served.values())) == (228, 385), (
        "see docs/explanation/estimators.md"
    )
