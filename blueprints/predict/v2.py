"""V2: the Open Inference Protocol over REST (kserve/open-inference-protocol, inference_rest.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

from flask import Blueprint, Response

from tableside import __version__
from tableside.blueprints.predict import misplaced, model_info
from tableside.blueprints.predict.schemas import IdOnly, InferRequest, RequestedOutput
from tableside.contracts.id_column import InputWithId
from tableside.contracts.schema import Contract, Input
from tableside.decoding import binary, content_types
from tableside.decoding.json_tables import require_rows
from tableside.decoding.output_tensors import describe, to_tensor
from tableside.decoding.rules import Rules, malformed
from tableside.decoding.tensors import from_tensors
from tableside.errors import RequestRejected
from tableside.serving.catalog import Model
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.telemetry.request_trace import RequestTrace
from tableside.web import accept, response
from tableside.web.dispatch import view
from tableside.web.extensions import catalog
from tableside.web.predictions import PredictionRequest, PredictionResult, admit, answered, predict, run_stage
from tableside.web.request import Body, RequestContext, parse_json
from tableside.web.response import Reply

BINARY = "application/octet-stream"
OFFERED = (response.JSON, BINARY)
"""The media types of an answer. Which one it is, the request's parameters say; without these, the Accept header."""
EXTENSIONS = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
JSON_LENGTH_HEADER = "Inference-Header-Content-Length"
"""Header of the binary tensor data extension: the length of the JSON that precedes the raw tensors, in bytes."""


class _DecodedRequest(PredictionRequest, frozen=True):
    """binary: names of the outputs to send as raw tensors. all_binary: send every output so. texts: names of the
    outputs that the client calls text.
    """

    id: str | None = None
    binary: frozenset[str] = frozenset()
    all_binary: bool = False
    texts: Sequence[str] = ()


def server() -> Response:
    """Server metadata."""
    return response.json_response({"name": "tableside", "version": __version__, "extensions": EXTENSIONS})


def models() -> Response:
    """The names of all models. KServe has this route in V1 and adds it to V2."""
    return response.json_response({"models": sorted(catalog().models)})


def model(name: str, version: str | None = None) -> Response:
    """Model metadata: inputs and outputs of one version, and every version that can answer."""
    serving = catalog()
    servable = serving.find(name, version)
    if servable.contract is None:  # the version could not be read: raise ModelNotReady with the reason
        servable = serving.servable(servable.name, str(servable.version))
    assert servable.contract is not None
    return response.json_response(_describe(serving.model(servable.name), servable.contract, servable.input))


def _describe(model: Model, contract: Contract, columns: Input) -> dict[str, object]:
    versions = [str(servable.version) for servable in model.servables if servable.state is State.READY]
    return {
        "name": model.name,
        "versions": versions,
        "platform": "scikit-learn_skops",
        "inputs": model_info.v2_inputs(contract),
        "outputs": model_info.v2_outputs(contract),
        "properties": {
            "version": str(contract.version),
            "estimator": contract.estimator,
            "kind": contract.kind,
            "sha256": contract.artifact.sha256,
            **({"id_column": columns.id} if isinstance(columns, InputWithId) else {}),
            **model_info.v2_properties(contract),
        },
    }


def infer(context: RequestContext, name: str, version: str | None = None) -> Reply:
    """Predict for one tensor per column, or for one numeric matrix; answer the requested outputs or the default one."""
    context.trace.protocol = "v2"
    misplaced.refuse_query(context)
    servable = context.servable(name, version)
    body, json_length = context.body(), context.environ.get("HTTP_INFERENCE_HEADER_CONTENT_LENGTH")
    is_binary = accept.choose(context.header("HTTP_ACCEPT"), OFFERED).kind == BINARY
    size_bytes = body.max_content_bytes
    limits = admit(context, servable, "v2", size_bytes)
    decoded = run_stage(
        context,
        "decode",
        size_bytes,
        _decode,
        body,
        json_length,
        is_binary,
        servable.input,
        servable.policy.rules,
        context.trace,
    )
    if decoded.texts:
        _check_texts(servable, decoded)
    predicted = predict(context, servable, decoded, limits)
    return run_stage(context, "encode", predicted.size_bytes, _encode, servable, decoded, predicted)


def _check_texts(servable: Servable, decoded: _DecodedRequest) -> None:
    """Raise RequestRejected if an output that the client calls text is none."""
    for output in answered(servable, decoded):
        if output.name in decoded.texts and output.datatype != "BYTES":
            place = f"outputs[{list(decoded.outputs).index(output.name)}].parameters.{content_types.NAME}"
            raise malformed(place, f"'str' is for the datatype BYTES, and {output.name} is {output.datatype}")


def _decode(
    body: Body, json_length: str | None, is_binary: bool, schema: Input, rules: Rules, trace: RequestTrace
) -> _DecodedRequest:
    """Decode a request. Its id is in the trace before anything else is checked, because errors have it too.

    is_binary: whether outputs are raw tensors where the request does not say.
    """
    text, raw_tensors = binary.split(body.content(), json_length)
    try:
        request = parse_json(text, InferRequest, body.json_limit_bytes, is_strict=rules.strict_json)
    except RequestRejected:
        with suppress(RequestRejected):
            trace.v2_id = parse_json(text, IdOnly, is_strict=rules.strict_json).id
        raise
    trace.v2_id = request.id
    misplaced.refuse_fields(request, request.misplaced, misplaced.V2_PLACE)
    parameters, outputs = request.parameters or {}, request.outputs or []
    if parameters:
        misplaced.refuse(parameters, misplaced.V2_PLACE, "parameters.")
        if content_types.NAME in parameters:
            content_types.check_request(parameters, [(each.datatype, each.parameters) for each in request.inputs])
    all_binary = parameters.get("binary_data_output", is_binary) is True
    as_binary = _binary_outputs(outputs, all_binary)
    table = require_rows(from_tensors(request.inputs, schema, rules, raw_tensors, body.limit_bytes), rules)
    timeout_s = _timeout_s(parameters.get("timeout"))
    names = [output.name for output in outputs]
    texts = _texts(outputs) if outputs else ()
    return _DecodedRequest(table, names, timeout_s, request.id, as_binary, all_binary and not outputs, texts)


def _texts(outputs: Sequence[RequestedOutput]) -> list[str]:
    """The names of the outputs whose content type is text. Raises RequestRejected for a type that outputs have not."""
    return [
        output.name
        for at, output in enumerate(outputs)
        if output.parameters
        and content_types.read(output.parameters, content_types.OF_OUTPUT, f"outputs[{at}].parameters") == "str"
    ]


def _binary_outputs(outputs: Sequence[RequestedOutput], by_default: bool) -> frozenset[str]:
    """The names of the outputs to send as raw tensors. Raises RequestRejected for Triton's classification extension."""
    names: set[str] = set()
    seen: set[str] = set()
    for at, output in enumerate(outputs):
        if output.name in seen:
            raise malformed(f"outputs[{at}].name", "this output is requested twice; name each output once")
        seen.add(output.name)
        parameters = output.parameters or {}
        if parameters.get("classification"):
            place = f"outputs[{at}].parameters.classification"
            raise malformed(place, "this extension is not supported; request the output predict_proba")
        if parameters.get("binary_data", by_default) is True:
            names.add(output.name)
    return frozenset(names)


def _timeout_s(microseconds: object) -> float:
    """Triton's `timeout` parameter in seconds. 0 or no value means no limit beside the server's."""
    if microseconds is None:
        return math.inf
    if isinstance(microseconds, bool) or not isinstance(microseconds, int) or not 0 <= microseconds < 2**63:
        raise malformed("parameters.timeout", "expected a whole number of microseconds, from 0 to 2^63 - 1")
    return microseconds / 1e6 if microseconds else math.inf


def _encode(servable: Servable, decoded: _DecodedRequest, predicted: PredictionResult) -> Reply:
    """JSON; with binary outputs, JSON and the raw tensors behind it, and the JSON's length in a header."""
    content: dict[str, object] = {"model_name": servable.name, "model_version": str(servable.version)}
    if decoded.id is not None:
        content["id"] = decoded.id
    outputs: list[dict[str, object]] = []
    raw: list[bytes] = []
    for output, array in predicted.outputs:
        if decoded.all_binary or output.name in decoded.binary:
            raw.append(binary.write(array, output.datatype))
            outputs.append({**describe(output, array), "parameters": {"binary_data_size": len(raw[-1])}})
        else:
            outputs.append(to_tensor(output, array))
    text = response.to_json({**content, "outputs": outputs})
    if not raw:
        return Reply(text)
    headers = ((JSON_LENGTH_HEADER, str(len(text))),)
    return Reply(b"".join((text, *raw)), BINARY, headers=headers)


def mount(blueprint: Blueprint) -> None:
    """Add the V2 routes to the blueprint."""
    blueprint.add_url_rule("/v2", view_func=server, endpoint="v2_server", strict_slashes=False)
    blueprint.add_url_rule("/v2/", view_func=server, endpoint="v2_server_slash")
    blueprint.add_url_rule("/v2/models", view_func=models, endpoint="v2_models")
    for prefix in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        blueprint.add_url_rule(prefix, view_func=model, endpoint="v2_model")
        blueprint.add_url_rule(f"{prefix}/infer", view_func=view(infer), endpoint="v2_infer", methods=["POST"])
