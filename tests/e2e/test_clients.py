"""The curl commands and typed modules that the command line writes work unchanged against the real stack."""

from __future__ import annotations

import importlib.util
import json
import shlex
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tableside_client import Client, RequestFailed, ServerFailed, Unreachable
from tests.e2e.conftest import PROJECT, Stack, until

pytestmark = pytest.mark.e2e
EXAMPLES = ["iris", "breast-cancer", "diabetes", "wine"]


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


@pytest.fixture
def client(stack: Stack) -> Client:
    return Client(f"http://127.0.0.1:{stack.data}", timeout_s=30)


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_printed_curl_line_works(stack: Stack, name: str) -> None:
    """`tableside show NAME --curl` prints one shell command, which returns the answer of the first golden row."""
    line = stack.cli("show", name, "--curl").stdout.strip()
    assert len(line.splitlines()) == 1
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=600)
    contract = json.loads((PROJECT / "models" / name / "1" / "contract.json").read_text())
    shown = json.loads(stack.cli("show", name, "--json").stdout)
    assert shown["input"]["columns"] == contract["input"]["columns"]
    assert json.loads(done.stdout) == {"predictions": [shown["golden"]["answers"]["predict"][0][0]]}
    assert shlex.split(line)[0] == "curl"


def test_typed_modules_check_and_answer(stack: Stack, client: Client, trained: dict[str, Any], tmp_path: Path) -> None:
    """The module of every example passes mypy --strict and returns the estimator's answers."""
    names = {name: f"{name.replace('-', '_')}_client" for name in EXAMPLES}
    for name, module in names.items():
        done = stack.cli("client", name)
        assert done.returncode == 0, done.stderr
        (tmp_path / f"{module}.py").write_text(done.stdout)
    caller = """
from typing import Literal, assert_type

from iris_client import Iris, Label, Row
from tableside_client import Client

row: Row = {"sepal length (cm)": 5.1, "sepal width (cm)": 3.5, "petal length (cm)": 1.4, "petal width (cm)": 0.2}
labels = Iris(Client("http://127.0.0.1:1")).predict([row])
assert_type(labels, list[Literal["setosa", "versicolor", "virginica"]])
"""
    (tmp_path / "caller.py").write_text(caller)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-incremental", "--config-file=", "."]
    environ = {"MYPYPATH": str(PROJECT / "client"), "PATH": ""}
    checked = subprocess.run(command, cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=600)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    for name, module in names.items():
        estimator, sample = trained[name]
        rows = [
            {column: None if cell != cell else cell for column, cell in row.items()}
            for row in sample.iloc[:20].to_dict("records")
        ]
        typed = load(tmp_path / f"{module}.py")
        model = getattr(typed, {"breast-cancer": "BreastCancer"}.get(name, name.capitalize()))(client)
        assert model.predict(rows) == estimator.predict(sample.iloc[:20]).tolist()
        if hasattr(estimator, "predict_proba"):
            np.testing.assert_array_equal(model.predict_proba(rows), estimator.predict_proba(sample.iloc[:20]))
            assert list(typed.CLASSES) == estimator.classes_.tolist()


def load(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", EXAMPLES)
def test_frames_and_arrays_are_answered(client: Client, trained: dict[str, Any], name: str) -> None:
    """A DataFrame with columns in any order, and an array for models of numbers only, get the estimator's answers."""
    estimator, sample = trained[name]
    expected = estimator.predict(sample).tolist()
    assert client.predict(name, sample) == expected
    assert client.predict(name, sample.iloc[::-1, ::-1]) == expected[::-1]
    if name != "wine":
        assert client.predict(name, sample.to_numpy()) == expected
    assert client.predict(name, sample.iloc[:3], version="champion") == expected[:3]


def test_metadata_and_readiness(client: Client) -> None:
    """The client returns model names, readiness, metadata and the OpenAPI document of a running server."""
    assert set(EXAMPLES) <= set(client.models())
    assert client.ready()
    assert client.ready("iris")
    assert client.metadata("iris")["inputs"][0]["name"] == "sepal length (cm)"
    assert "/v1/models/iris:predict" in client.openapi("iris")["paths"]


def test_errors_carry_the_server_s_explanation(stack: Stack, client: Client) -> None:
    """An invalid cell and an unknown model raise RequestFailed with the request id of the server's log."""
    row = {"alcohol": "strong", "magnesium": 1, "shade": "ruby", "aromatic": True}
    with pytest.raises(RequestFailed) as caught:
        client.predict("wine", [row])
    assert caught.value.status == 400
    assert [each.path for each in caught.value.errors] == ["instances[0].alcohol"]
    request_id = caught.value.request_id
    assert until(lambda: "wine" in stack.cli("logs", "--request-id", request_id).stdout)
    with pytest.raises(RequestFailed) as caught:
        client.predict("nope", [[1]])
    assert caught.value.status == 404


def test_a_restart_loses_no_call(stack: Stack, client: Client) -> None:
    """Every call is answered correctly while supervisor restarts the web processes."""
    wrong: list[object] = []
    stop = threading.Event()
    answered = 0

    def ask() -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                found: object = client.predict("iris", [[5.1, 3.5, 1.4, 0.2]])
            except (Unreachable, RequestFailed, ServerFailed) as problem:
                found = problem
            answered += 1
            if found != ["setosa"]:
                wrong.append(found)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        stack.ctl("restart", "web:*")
        stack.restart()
    finally:
        stop.set()
        thread.join(60)
    assert wrong == []
    assert answered > 0
