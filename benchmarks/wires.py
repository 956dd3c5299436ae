"""Encodes rows for each contestant's protocol and reads its answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.models import TABLE, Model

JSON = {"Content-Type": "application/json"}
HEADER = "Inference-Header-Content-Length"


@dataclass(frozen=True)
class Wire:
    """The requests for one server: path, bodies and headers.

    expected: for each body, the estimator's answers in order. read: returns the class numbers in an answer, called with
    its body and headers.
    """

    path: str
    bodies: list[bytes]
    expected: list[list[int]]
    read: Callable[[bytes, Mapping[str, str]], list[int]]
    headers: dict[str, str]


def _wire(path: str, contents: list[Any], expected: list[list[int]], read: Callable[[Any], Any]) -> Wire:
    bodies = [json.dumps(content, separators=(",", ":")).encode() for content in contents]
    return Wire(
        path, bodies, expected, lambda answer, headers: [int(label) for label in read(json.loads(answer))], JSON
    )


def _single(model: Model) -> list[list[int]]:
    return [[answer] for answer in model.answers]


def constant(model: Model) -> Wire:
    """Return the bodies that Tableside gets. The server answers a constant, so the answers are not checked."""
    return _wire("/predict", _instances(model), [[0]] * len(model.rows), lambda answer: answer["predictions"])


def tableside(model: Model) -> Wire:
    """Return V1 bodies: `instances` holds lists, or objects for a table."""
    return _wire(
        f"/v1/models/{model.name}:predict", _instances(model), _single(model), lambda answer: answer["predictions"]
    )


def by_hand(model: Model) -> Wire:
    """Return the same bodies as for Tableside, for the path /predict."""
    return _wire("/predict", _instances(model), _single(model), lambda answer: answer["predictions"])


def bento(model: Model) -> Wire:
    """Return bodies for BentoML: `rows`, the name of the service's argument, holds lists or objects."""
    return _wire("/predict", [{"rows": [row]} for row in model.rows], _single(model), lambda answer: answer)


def mlflow(model: Model) -> Wire:
    """Return bodies for MLflow: `inputs` for arrays, `dataframe_split` for a table."""
    contents: list[Any] = [{"inputs": [row]} for row in model.rows]
    if model.kind == TABLE:
        contents = [{"dataframe_split": {"columns": list(row), "data": [list(row.values())]}} for row in model.rows]
    return _wire("/invocations", contents, _single(model), lambda answer: answer["predictions"])


def mlserver(model: Model) -> Wire:
    """Return V2 bodies for MLServer: one tensor for arrays, one tensor per column (content type pd) for a table."""
    if model.kind == TABLE:
        contents = [
            {"parameters": {"content_type": "pd"}, "inputs": [_column(*cell) for cell in row.items()]}
            for row in model.rows
        ]
    else:
        contents = [
            {"inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP64", "data": row}]} for row in model.rows
        ]
    return _wire(f"/v2/models/{model.name}/infer", contents, _single(model), _v2_data)


def _column(name: str, cell: Any) -> dict[str, Any]:
    datatype = {bool: "BOOL", int: "INT64", float: "FP64", str: "BYTES"}[type(cell)]
    column = {"name": name, "shape": [1, 1], "datatype": datatype, "data": [cell]}
    return {**column, "parameters": {"content_type": "str"}} if datatype == "BYTES" else column


def _instances(model: Model) -> list[dict[str, list[Any]]]:
    return [{"instances": [row]} for row in model.rows]


def many_rows(model: Model, rows: int) -> dict[str, Wire]:
    """Return two wires with `rows` rows in one V2 body: as JSON, and as a binary tensor with a binary answer."""
    listed = [model.rows[at % len(model.rows)] for at in range(rows)]
    tensor = {"name": "x", "shape": [rows, len(listed[0])], "datatype": "FP64"}
    table = np.array(listed, dtype="<f8")
    output = {"name": "predict", "parameters": {"binary_data": True}}
    asked = {"inputs": [{**tensor, "parameters": {"binary_data_size": table.nbytes}}], "outputs": [output]}
    head = json.dumps(asked, separators=(",", ":")).encode()
    path, expected = f"/v2/models/{model.name}/infer", [[model.answers[at % len(model.rows)] for at in range(rows)]]
    as_json = _wire(path, [{"inputs": [{**tensor, "data": table.reshape(-1).tolist()}]}], expected, _v2_data)
    binary = {"Content-Type": "application/octet-stream", HEADER: str(len(head))}
    return {"json": as_json, "binary": Wire(path, [head + table.tobytes()], expected, _binary_data, binary)}


def _v2_data(answer: Any) -> list[Any]:
    return list(answer["outputs"][0]["data"])


def _binary_data(body: bytes, headers: Mapping[str, str]) -> list[int]:
    length = int(headers[HEADER])
    datatype = json.loads(body[:length])["outputs"][0]["datatype"]
    return [int(label) for label in np.frombuffer(body[length:], {"INT64": "<i8", "INT32": "<i4"}[datatype])]
