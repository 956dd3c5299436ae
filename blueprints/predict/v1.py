"""V1, as KServe and TF-Serving speak it (tensorflow/serving, g3doc/api_rest.md)."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from flask import Blueprint, Response

from app.contract.cells import Array
from app.contract.decode import from_columns, from_rows
from app.contract.schema import Input, Output
from app.contract.table import Table
from app.contract.tensors import flatten
from app.errors import CellError, RequestRejected
from app.serving.lifecycle import State
from app.serving.servable import Servable
from app.web import bodies
from app.web.current import catalog
from app.web.predicting import Answer, answer
from app.web.trace import trace
from blueprints.predict.schemas import PredictRequest


def models() -> Response:
    """The names of all models."""
    return bodies.answer({"models": sorted(catalog().models)})


def status(name: str, version: str | None = None) -> Response:
    """A model's state, in KServe's and TF-Serving's vocabularies at once."""
    serving = catalog()
    chosen = serving.find(name, version)
    shown = serving.model(chosen.name).servables if version is None else (chosen,)
    ready = chosen.state is State.READY
    content = {"name": chosen.name, "ready": ready, "model_version_status": [_version_status(each) for each in shown]}
    return bodies.answer(content, 200 if ready else 503)


def _version_status(servable: Servable) -> dict[str, object]:
    names = {State.READY: "AVAILABLE", State.LOADING: "LOADING", State.UNLOADING: "UNLOADING", State.UNAVAILABLE: "END"}
    code = "OK" if servable.state is State.READY else "UNAVAILABLE"
    return {
        "version": str(servable.version),
        "state": names[servable.state],
        "status": {"error_code": code, "error_message": servable.reason},
    }


def predict(name: str, version: str | None = None) -> Response:
    """Predict: rows as `instances`, or columns as `inputs`. `signature_name` may name another output."""
    servable = catalog().servable(name, version)
    current = trace()
    current.serves(servable, "v1")
    request = bodies.parse(bodies.read(), PredictRequest)
    by_columns = request.instances is msgspec.UNSET
    if by_columns == (request.inputs is msgspec.UNSET):
        raise RequestRejected("expected exactly one of 'instances' (rows) and 'inputs' (columns)")
    wanted = [request.signature_name] if request.signature_name not in (None, "serving_default") else []
    result = answer(
        servable, [name for name in wanted if name], lambda schema, limit: _table(request, by_columns, schema, limit)
    )
    started_s = bodies.now_s()
    response = bodies.answer(_encode(result, by_columns))
    current.stages["encode"] = bodies.now_s() - started_s
    return response


def _table(request: PredictRequest, by_columns: bool, schema: Input, limit: int) -> Table:
    if not by_columns:
        if not isinstance(request.instances, list):
            raise RequestRejected("the request is malformed", (CellError("instances", "expected an array of rows"),))
        return from_rows(request.instances, schema, limit, "instances")
    if isinstance(request.inputs, dict):
        columns = {name: flatten(values, f"inputs.{name}") for name, values in request.inputs.items()}
        return from_columns(columns, schema, limit)
    if isinstance(request.inputs, list):  # KServe's clients send rows under this name, too
        return from_rows(request.inputs, schema, limit, "inputs")
    raise RequestRejected("the request is malformed", (CellError("inputs", "expected an object of columns"),))


def _encode(result: Answer, by_columns: bool) -> dict[str, Any]:
    output, array = result.outputs[0]
    return {"outputs" if by_columns else "predictions": _values(output, array)}


def _values(output: Output, array: Array) -> Any:
    shaped = np.ascontiguousarray(array.reshape(-1) if output.flat else array)
    return shaped.tolist() if shaped.dtype.kind in "OUSM" else shaped


def mount(face: Blueprint) -> None:
    """Add the V1 routes."""
    face.add_url_rule("/v1/models", view_func=models, endpoint="v1_models")
    for prefix in ("", "/versions/<version>", "/labels/<version>"):
        face.add_url_rule(f"/v1/models/<name>{prefix}", view_func=status, endpoint="v1_status")
        face.add_url_rule(
            f"/v1/models/<name>{prefix}:predict", view_func=predict, endpoint="v1_predict", methods=["POST"]
        )
