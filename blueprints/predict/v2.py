"""V2, the Open Inference Protocol over REST (kserve/open-inference-protocol, inference_rest.md)."""

from __future__ import annotations

import math
from typing import Any

from flask import Blueprint, Response

from tableside import __version__
from tableside.blueprints.predict.schemas import InferRequest
from tableside.contract.schema import Contract, Input
from tableside.decoding import binary
from tableside.decoding.json_tables import require_rows
from tableside.decoding.rules import Rules, malformed
from tableside.decoding.tensors import describe, from_tensors, inputs, metadata, to_tensor
from tableside.serving.catalog import Model
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.web import response
from tableside.web.dispatch import view
from tableside.web.extensions import catalog
from tableside.web.predictions import PredictionRequest, PredictionResult, admit, predict, run_stage
from tableside.web.request import Body, RequestContext, parse_json
from tableside.web.response import Reply

EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
HEADER = "Inference-Header-Content-Length"


def server() -> Response:
    """Server metadata."""
    return response.json_response({"name": "tableside", "version": __version__, "extensions": EXTENSIONS})


def models() -> Response:
    """The names of all models, as KServe adds to V2 and has in V1."""
    return response.json_response({"models": sorted(catalog().models)})


def model(name: str, version: str | None = None) -> Response:
    """Model metadata: real inputs and outputs, every version that can answer."""
    found = catalog().find(name, version)
    described = catalog().model(found.name)
    if found.contract is None:
        catalog().servable(found.name, str(found.version))
    return response.json_response(_describe(described, found.contract))


def _describe(model: Model, contract: Contract | None) -> dict[str, Any]:
    assert contract is not None
    versions = [str(servable.version) for servable in model.servables if servable.state is State.READY]
    return {
        "name": model.name,
        "versions": versions,
        "platform": "scikit-learn_skops",
        "inputs": inputs(contract.input),
        "outputs": [metadata(output.name, output.datatype, output.width) for output in contract.outputs],
        "properties": {
            "version": str(contract.version),
            "estimator": contract.estimator,
            "kind": contract.kind,
            "sha256": contract.artifact.sha256,
        },
    }


class _Request(PredictionRequest, frozen=True):
    id: str | None = None
    binary: frozenset[str] = frozenset()
    all_binary: bool = False


def infer(context: RequestContext, name: str, version: str | None = None) -> Reply:
    """Infer: one tensor a column or one numeric matrix; the outputs asked for, or the default one."""
    servable = context.extensions.servable(name, version)
    body, header = context.body(), context.environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    limits = admit(context, servable, "v2", body.weight)
    decoded = run_stage(context, "decode", body.weight, _decode, body, header, servable.input, servable.policy.rules)
    predicted = predict(context, servable, decoded, limits)
    text, header_bytes = run_stage(context, "encode", predicted.size_bytes, _encode, servable, decoded, predicted)
    if header_bytes is None:
        return Reply(text)
    return Reply(text, "application/octet-stream", headers=((HEADER, str(header_bytes)),))


def _decode(body: Body, header: str | None, schema: Input, rules: Rules) -> _Request:
    head, tail = binary.split(body.content(), header)
    sent = parse_json(head, InferRequest, body.limit_bytes)
    decoded = sent.outputs or []
    every = (sent.parameters or {}).get("binary_data_output", False) is True
    as_binary = []
    for at, output in enumerate(decoded):
        given = output.parameters or {}
        if given.get("classification"):
            raise malformed(f"outputs[{at}].parameters.classification", "not offered here; ask for predict_proba")
        if given.get("binary_data", every) is True:
            as_binary.append(output.name)
    table = require_rows(from_tensors(sent.inputs, schema, rules, tail))
    timeout_s = _timeout_s((sent.parameters or {}).get("timeout"))
    wanted = [output.name for output in decoded]
    return _Request(table, wanted, timeout_s, sent.id, frozenset(as_binary), every and not decoded)


def _timeout_s(given: object) -> float:
    """Triton's `timeout` in microseconds as seconds; 0 and none: the server's own."""
    if given is None:
        return math.inf
    if isinstance(given, bool) or not isinstance(given, int) or not 0 <= given < 2**63:
        raise malformed("parameters.timeout", "expected a whole number of microseconds")
    return given / 1e6 if given else math.inf


def _encode(servable: Servable, decoded: _Request, predicted: PredictionResult) -> tuple[bytes, int | None]:
    """The JSON, the raw tensors behind it, and the JSON's length when there are any."""
    content: dict[str, Any] = {"model_name": servable.name, "model_version": str(servable.version)}
    if decoded.id is not None:
        content["id"] = decoded.id
    outputs: list[dict[str, Any]] = []
    raw: list[bytes] = []
    for output, array in predicted.outputs:
        if decoded.all_binary or output.name in decoded.binary:
            raw.append(binary.write(array, output.datatype))
            described = {**describe(output, array), "parameters": {"binary_data_size": len(raw[-1])}}
            outputs.append(described)
        else:
            outputs.append(to_tensor(output, array))
    text = response.to_json({**content, "outputs": outputs})
    return (b"".join((text, *raw)), len(text)) if raw else (text, None)


def mount(blueprint: Blueprint) -> None:
    """Add the V2 routes."""
    blueprint.add_url_rule("/v2", view_func=server, endpoint="v2_server", strict_slashes=False)
    blueprint.add_url_rule("/v2/", view_func=server, endpoint="v2_server_slash")
    blueprint.add_url_rule("/v2/models", view_func=models, endpoint="v2_models")
    for prefix in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        blueprint.add_url_rule(prefix, view_func=model, endpoint="v2_model")
        blueprint.add_url_rule(f"{prefix}/infer", view_func=view(infer), endpoint="v2_infer", methods=["POST"])
