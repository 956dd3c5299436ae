"""V2, the Open Inference Protocol over REST (kserve/open-inference-protocol, inference_rest.md)."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response

from app import __version__
from app.contract.schema import Contract
from app.contract.tensors import from_tensors, metadata, to_tensor
from app.serving.catalog import Model
from app.serving.lifecycle import State
from app.web import bodies
from app.web.current import catalog
from app.web.predicting import answer
from app.web.trace import trace
from blueprints.predict.schemas import InferRequest

EXTENSIONS: list[str] = []


def server() -> Response:
    """Server metadata."""
    return bodies.answer({"name": "tableside", "version": __version__, "extensions": EXTENSIONS})


def models() -> Response:
    """The names of all models, as KServe adds to V2 and has in V1."""
    return bodies.answer({"models": sorted(catalog().models)})


def model(name: str, version: str | None = None) -> Response:
    """Model metadata: real inputs and outputs, every version that can answer."""
    found = catalog().find(name, version)
    described = catalog().model(found.name)
    if found.contract is None:
        catalog().servable(found.name, str(found.version))
    return bodies.answer(_describe(described, found.contract))


def _describe(model: Model, contract: Contract | None) -> dict[str, Any]:
    assert contract is not None
    versions = [str(servable.version) for servable in model.servables if servable.state is State.READY]
    return {
        "name": model.name,
        "versions": versions,
        "platform": "scikit-learn_skops",
        "inputs": _inputs(contract),
        "outputs": [metadata(output.name, output.datatype, output.width) for output in contract.outputs],
        "properties": {
            "version": str(contract.version),
            "estimator": contract.estimator,
            "kind": contract.kind,
            "sha256": contract.artifact.sha256,
        },
    }


def _inputs(contract: Contract) -> list[dict[str, Any]]:
    """One input a column; a model without named columns of its own has one matrix."""
    columns = contract.input.columns
    if contract.input.form == "matrix":
        return [metadata("input-0", "FP64", len(columns))]
    return [{"name": column.name, "datatype": column.datatype, "shape": [-1, 1]} for column in columns]


def infer(name: str, version: str | None = None) -> Response:
    """Infer: one tensor a column or one numeric matrix; the outputs asked for, or the default one."""
    servable = catalog().servable(name, version)
    current = trace()
    current.serves(servable, "v2")
    request = bodies.parse(bodies.read(), InferRequest)
    wanted = [output.name for output in request.outputs or ()]
    result = answer(servable, wanted, lambda schema, limit: from_tensors(request.inputs, schema, limit))
    started_s = bodies.now_s()
    content: dict[str, Any] = {"model_name": servable.name, "model_version": str(servable.version)}
    if request.id is not None:
        content["id"] = request.id
    content["outputs"] = [to_tensor(output, array) for output, array in result.outputs]
    response = bodies.answer(content)
    current.stages["encode"] = bodies.now_s() - started_s
    return response


def mount(face: Blueprint) -> None:
    """Add the V2 routes."""
    face.add_url_rule("/v2", view_func=server, endpoint="v2_server", strict_slashes=False)
    face.add_url_rule("/v2/", view_func=server, endpoint="v2_server_slash")
    face.add_url_rule("/v2/models", view_func=models, endpoint="v2_models")
    for prefix in ("/v2/models/<name>", "/v2/models/<name>/versions/<version>"):
        face.add_url_rule(prefix, view_func=model, endpoint="v2_model")
        face.add_url_rule(f"{prefix}/infer", view_func=infer, endpoint="v2_infer", methods=["POST"])
