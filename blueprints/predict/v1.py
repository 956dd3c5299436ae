"""V1, as KServe and TF-Serving speak it (tensorflow/serving, g3doc/api_rest.md)."""

from __future__ import annotations

import msgspec
from flask import Blueprint, Response
from werkzeug.routing import BaseConverter

from tableside.blueprints.predict.schemas import PredictRequest, narrow
from tableside.blueprints.predict.tables import inputs, instances
from tableside.blueprints.predict.v2 import models
from tableside.contract.schema import Input
from tableside.decoding.json_tables import from_numbers, require_rows
from tableside.decoding.rules import Rules
from tableside.decoding.tensors import rows_json
from tableside.errors import RequestRejected
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.web import response
from tableside.web.dispatch import view
from tableside.web.extensions import catalog
from tableside.web.predictions import PredictionRequest, PredictionResult, admit, predict, run_stage
from tableside.web.request import Body, RequestContext, parse_json
from tableside.web.response import Reply


def status(name: str, version: str | None = None) -> Response:
    """A model's state, in KServe's and TF-Serving's vocabularies at once."""
    serving = catalog()
    chosen = serving.find(name, version)
    shown = serving.model(chosen.name).servables if version is None else (chosen,)
    ready = chosen.state is State.READY
    content = {"name": chosen.name, "ready": ready, "model_version_status": [_version_status(each) for each in shown]}
    return response.json_response(content, 200 if ready else 503)


def _version_status(servable: Servable) -> dict[str, object]:
    names = {State.READY: "AVAILABLE", State.LOADING: "LOADING", State.UNLOADING: "UNLOADING", State.UNAVAILABLE: "END"}
    code = "OK" if servable.state is State.READY else "UNAVAILABLE"
    return {
        "version": str(servable.version),
        "state": names[servable.state],
        "status": {"error_code": code, "error_message": servable.reason},
    }


class _Request(PredictionRequest, frozen=True):
    by_columns: bool = False


def infer(context: RequestContext, name: str, version: str | None = None) -> Reply:
    """Predict: rows as `instances`, or columns as `inputs`. `signature_name` may name another output."""
    servable = context.extensions.servable(name, version)
    body = context.body()
    limits = admit(context, servable, "v1", body.weight)
    decoded = run_stage(context, "decode", body.weight, _decode, body, servable.input, servable.policy.rules)
    predicted = predict(context, servable, decoded, limits)
    return Reply(run_stage(context, "encode", predicted.size_bytes, _encode, decoded, predicted))


def _decode(body: Body, schema: Input, rules: Rules) -> _Request:
    request = parse_json(body.content(), PredictRequest, body.limit_bytes, narrow(schema))
    by_columns = request.instances is msgspec.UNSET
    if by_columns == (request.inputs is msgspec.UNSET):
        raise RequestRejected("expected exactly one of 'instances' (rows) and 'inputs' (columns)")
    wanted = request.signature_name
    named = (wanted,) if wanted and wanted != "serving_default" else ()
    if by_columns:
        return _Request(require_rows(inputs(request.inputs, schema, rules)), named, by_columns=True)
    table = None if type(request) is PredictRequest else from_numbers(request.instances, schema)
    return _Request(require_rows(instances(request.instances, schema, rules) if table is None else table), named)


def _encode(decoded: _Request, predicted: PredictionResult) -> bytes:
    output, array = predicted.outputs[0]
    return response.to_json({"outputs" if decoded.by_columns else "predictions": rows_json(output, array)})


class _Named(BaseConverter):
    """A name without a colon: `NAME:predict` is a path of its own, so that another method there is 405 and not 404."""

    regex = "[^/:]+"


def mount(blueprint: Blueprint) -> None:
    """Add the V1 routes."""
    blueprint.record_once(lambda state: state.app.url_map.converters.update(named=_Named))
    blueprint.add_url_rule("/v1/models", view_func=models, endpoint="v1_models")
    for prefix in ("", "/versions/<named:version>", "/labels/<named:version>"):
        blueprint.add_url_rule(f"/v1/models/<named:name>{prefix}", view_func=status, endpoint="v1_status")
        blueprint.add_url_rule(
            f"/v1/models/<named:name>{prefix}:predict", view_func=view(infer), endpoint="v1_predict", methods=["POST"]
        )
