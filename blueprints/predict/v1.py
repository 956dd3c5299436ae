"""V1: the REST protocol of TF-Serving (tensorflow/serving, g3doc/api_rest.md) and KServe."""

from __future__ import annotations

from typing import cast

import msgspec
from flask import Blueprint, Response
from werkzeug.routing import BaseConverter

from tableside.blueprints.predict import answer_formats, misplaced, several_outputs
from tableside.blueprints.predict.schemas import PredictRequest, narrow
from tableside.blueprints.predict.several_outputs import NO_QUERY, OutputQuery
from tableside.blueprints.predict.tables import inputs, instances
from tableside.blueprints.predict.v2 import models
from tableside.contracts.schema import Input
from tableside.contracts.table import Table
from tableside.decoding.json_tables import from_numbers, require_rows
from tableside.decoding.rules import Rules
from tableside.errors import RequestRejected
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.web import accept, response
from tableside.web.dispatch import view
from tableside.web.extensions import catalog
from tableside.web.predictions import PredictionRequest, PredictionResult, admit, answered, predict, run_stage
from tableside.web.request import Body, RequestContext, parse_json
from tableside.web.response import Reply

STATES = {State.READY: "AVAILABLE", State.LOADING: "LOADING", State.UNLOADING: "UNLOADING", State.UNAVAILABLE: "END"}
"""TF-Serving's name for each state."""


class DecodedRequest(PredictionRequest, frozen=True):
    """by_columns: the body had `inputs`, so the answer is named `outputs` and not `predictions`.

    classes: the answer has the class names.
    """

    by_columns: bool = False
    classes: bool = False


def status(name: str, version: str | None = None) -> Response:
    """A model's state: `ready` for KServe's clients, `model_version_status` for TF-Serving's."""
    serving = catalog()
    servable = serving.find(name, version)
    servables = serving.model(servable.name).servables if version is None else (servable,)
    ready = servable.state is State.READY
    versions = [_version_status(each) for each in servables]
    content = {"name": servable.name, "ready": ready, "model_version_status": versions}
    return response.json_response(content, 200 if ready else 503)


def _version_status(servable: Servable) -> dict[str, object]:
    code = "OK" if servable.state is State.READY else "UNAVAILABLE"
    return {
        "version": str(servable.version),
        "state": STATES[servable.state],
        "status": {"error_code": code, "error_message": servable.reason},
    }


def infer(context: RequestContext, name: str, version: str | None = None) -> Reply:
    """Predict for rows (`instances`) or columns (`inputs`). The query, or `signature_name`, may name outputs."""
    context.trace.protocol = "v1"
    servable = context.servable(name, version)
    body, query = context.body(), several_outputs.read_query(context)
    choice = accept.choose(context.header("HTTP_ACCEPT"), answer_formats.OFFERED)
    limits = admit(context, servable, "v1", body.max_content_bytes)
    decoded = run_stage(
        context, "decode", body.max_content_bytes, decode, body, servable.input, servable.policy.rules, query
    )
    if decoded.classes:
        several_outputs.check_classes(servable, decoded.outputs)
    if choice is not accept.DEFAULT:
        answer_formats.check(choice, answered(servable, decoded), decoded.classes)
    predicted = predict(context, servable, decoded, limits)
    if choice.kind != response.JSON:
        return answer_formats.reply(context, choice, predicted, decoded.classes)
    return Reply(run_stage(context, "encode", predicted.size_bytes, _encode, decoded, predicted))


def decode(body: Body, schema: Input, rules: Rules, query: OutputQuery = NO_QUERY) -> DecodedRequest:
    """Decode a predict request. query: what the query string asks for.

    Raises RequestRejected, TooLarge or UnsupportedBody.
    """
    request = parse_json(body.content(), PredictRequest, body.json_limit_bytes, narrow(schema), rules.strict_json)
    if not (request.output is request.outputs is request.predict_method is request.params is msgspec.UNSET):
        misplaced.refuse_fields(request, request.misplaced, misplaced.V1_PLACE)
    if isinstance(request.parameters, dict):
        misplaced.refuse(request.parameters, misplaced.V1_PLACE, "parameters.")
    by_columns = request.instances is msgspec.UNSET
    if by_columns == (request.inputs is msgspec.UNSET):
        raise RequestRejected("expected exactly one of 'instances' (rows) and 'inputs' (columns)")
    signature = request.signature_name
    named = (signature,) if signature and signature != "serving_default" else ()
    outputs = several_outputs.joined(query, named, "signature_name")
    table = inputs(request.inputs, schema, rules) if by_columns else _rows(request, schema, rules)
    return DecodedRequest(require_rows(table, rules), outputs, by_columns=by_columns, classes=query.classes)


def _rows(request: PredictRequest, schema: Input, rules: Rules) -> Table:
    table = None
    if type(request) is not PredictRequest:  # one of its subclasses: msgspec has checked that all cells are numbers
        table = from_numbers(cast("list[list[float | None]]", request.instances), schema)
    return instances(request.instances, schema, rules) if table is None else table


def _encode(decoded: DecodedRequest, predicted: PredictionResult) -> bytes:
    content: dict[str, object] = (
        {"outputs": several_outputs.columns(predicted)}
        if decoded.by_columns
        else {"predictions": several_outputs.rows(predicted)}
    )
    if decoded.classes:
        content["classes"] = several_outputs.class_names(predicted)
    return response.to_json(content)


class _NameConverter(BaseConverter):
    """A path segment without a colon. It keeps `NAME:predict` a path of its own, so that a GET of it answers 405."""

    regex = "[^/:]+"


def mount(blueprint: Blueprint) -> None:
    """Add the V1 routes to the blueprint."""
    blueprint.record_once(lambda state: state.app.url_map.converters.update(named=_NameConverter))
    blueprint.add_url_rule("/v1/models", view_func=models, endpoint="v1_models")
    for prefix in ("", "/versions/<named:version>", "/labels/<named:version>"):
        blueprint.add_url_rule(f"/v1/models/<named:name>{prefix}", view_func=status, endpoint="v1_status")
        blueprint.add_url_rule(
            f"/v1/models/<named:name>{prefix}:predict", view_func=view(infer), endpoint="v1_predict", methods=["POST"]
        )
