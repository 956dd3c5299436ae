"""V1, as KServe and TF-Serving speak it (tensorflow/serving, g3doc/api_rest.md)."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response
from werkzeug.routing import BaseConverter

from app.contract.decode import from_numbers, require_rows
from app.contract.rules import Rules
from app.contract.schema import Input
from app.contract.tensors import rows_json
from app.errors import RequestRejected
from app.serving.lifecycle import State
from app.serving.servable import Servable
from app.web import bodies
from app.web.current import catalog
from app.web.exchange import Exchange, Reply, view
from app.web.predicting import Asked, Predicted, admit, predict, run_stage
from blueprints.predict.schemas import PredictRequest, narrow
from blueprints.predict.tables import inputs, instances
from blueprints.predict.v2 import models


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


class _Asked(Asked, frozen=True):
    by_columns: bool = False


def infer(exchange: Exchange, name: str, version: str | None = None) -> Reply:
    """Predict: rows as `instances`, or columns as `inputs`. `signature_name` may name another output."""
    servable = exchange.parts.servable(name, version)
    body = exchange.body()
    limits = admit(exchange, servable, "v1", body.weight)
    asked = run_stage(exchange, "decode", body.weight, _decode, body, servable.input, servable.policy.rules)
    predicted = predict(exchange, servable, asked, limits)
    return Reply(run_stage(exchange, "encode", predicted.size_bytes, _encode, asked, predicted))


def _decode(body: bodies.Body, schema: Input, rules: Rules) -> _Asked:
    request = bodies.parse(body.content(), PredictRequest, body.limit_bytes, narrow(schema))
    by_columns = request.instances is msgspec.UNSET
    if by_columns == (request.inputs is msgspec.UNSET):
        raise RequestRejected("expected exactly one of 'instances' (rows) and 'inputs' (columns)")
    wanted = request.signature_name
    named = (wanted,) if wanted and wanted != "serving_default" else ()
    if by_columns:
        return _Asked(require_rows(inputs(request.inputs, schema, rules)), named, by_columns=True)
    table = None if type(request) is PredictRequest else from_numbers(request.instances, schema)
    return _Asked(require_rows(instances(request.instances, schema, rules) if table is None else table), named)


def _encode(asked: _Asked, predicted: Predicted) -> bytes:
    output, array = predicted.outputs[0]
    return bodies.dumps({"outputs" if asked.by_columns else "predictions": rows_json(output, array)})


class _Named(BaseConverter):
    """A name without a colon: `NAME:predict` is a path of its own, so that another method there is 405 and not 404."""

    regex = "[^/:]+"


def mount(face: Blueprint) -> None:
    """Add the V1 routes."""
    face.record_once(lambda state: state.app.url_map.converters.update(named=_Named))
    face.add_url_rule("/v1/models", view_func=models, endpoint="v1_models")
    for prefix in ("", "/versions/<named:version>", "/labels/<named:version>"):
        face.add_url_rule(f"/v1/models/<named:name>{prefix}", view_func=status, endpoint="v1_status")
        face.add_url_rule(
            f"/v1/models/<named:name>{prefix}:predict", view_func=view(infer), endpoint="v1_predict", methods=["POST"]
        )
