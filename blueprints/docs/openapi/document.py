"""The OpenAPI document: paths, components and tags."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tableside import __version__
from tableside.blueprints.docs.openapi import (
    components,
    examples,
    id_columns,
    invocations,
    keys,
    queries,
    requests,
    responses,
)  # fmt: skip
from tableside.blueprints.docs.openapi.cell_schemas import Schema
from tableside.blueprints.docs.openapi.components import (
    BINARY,
    CSV,
    JSON,
    LINES,
    NPY,
    PREDICTED,
    error_refs,
    predicted,
    read_path,
    shared_ref,
)
from tableside.blueprints.docs.openapi.requests import model_ref
from tableside.blueprints.docs.openapi.responses import infer_example, outputs, predict_example
from tableside.contracts.schema import Contract
from tableside.decoding.rules import STRICT, Rules

_NO_IDENTIFIER = re.compile(r"[^A-Za-z0-9_]")
INVOCATIONS = "/models/<name>/invocations"
"""The URL rule of MLflow's route. The document has its paths only if the application has the rule."""
TITLE = "Tableside models"
"""The title of the document. Generators name the package of a client after it; `tableside_client` is our own client."""
SERVER = "the server"
"""The tag of operations without a model. It has a space, which no model name can have."""


@dataclass(frozen=True)
class Described:
    """A model to describe, and the rules of its tables. versioned: whether its paths include the version number.

    id_column: the name of its id column, if it has one. identifier: its name in operationIds.
    """

    contract: Contract
    rules: Rules = STRICT
    versioned: bool = False
    id_column: str = ""
    identifier: str = ""

    @property
    def name(self) -> str:
        """The model's name."""
        return self.contract.name

    @property
    def path(self) -> str:
        """The model's part of a path, after `/v1/models/` and `/v2/models/`."""
        return f"{self.name}/versions/{self.contract.version}" if self.versioned else self.name

    def operation(self, verb: str) -> str:
        """The operationId of one of the model's operations."""
        return f"{verb}_{self.identifier or self.name}"


def document(
    models: Sequence[Described],
    routes: Collection[str] = (),
    open_routes: Collection[str] | None = None,
    base: str = "/",
) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document of these models.

    routes: the URL rules of the application, for the paths that only some applications have. open_routes: those that
    need no key, where the others need one; None if no key is required. base: the path below which the paths are.
    """
    paths: dict[str, Schema] = _server_paths()
    schemas: dict[str, Schema] = components.schemas()
    for model in _identified(models):
        paths |= _model_paths(model, routes)
        schemas |= _model_schemas(model, routes)
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": TITLE,
            "version": __version__,
            "description": "Predictions of the models on this server. Every error has the same JSON body.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": base}],
        "tags": [*(_tag(model) for model in models), {"name": SERVER, "description": "Metadata and health"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": components.error_responses(),
            "headers": components.HEADERS,
            "parameters": components.PARAMETERS,
        },
    }
    if open_routes is not None:
        keys.require(found, open_routes)
    return found


def _identified(models: Sequence[Described]) -> list[Described]:
    """Return the models with identifiers that programming languages take: generators name functions after them.

    Names of models have hyphens, which become underscores. Where two names then look alike, the changed one gets a
    digest of the name behind it.
    """
    plain = {model.name: _NO_IDENTIFIER.sub("_", model.name) for model in models}
    counts = Counter(plain.values())
    return [replace(model, identifier=_identifier(model.name, plain[model.name], counts)) for model in models]


def _identifier(name: str, plain: str, counts: Counter[str]) -> str:
    is_own = plain == name or counts[plain] == 1
    return plain if is_own else f"{plain}_{hashlib.sha256(name.encode()).hexdigest()[:6]}"


def _tag(model: Described) -> Schema:
    contract = model.contract
    return {"name": model.name, "description": f"{contract.estimator} ({_kind(contract)}), version {contract.version}"}


def _kind(contract: Contract) -> str:
    return "estimator" if contract.kind == "other" else contract.kind.replace("_", " ")


def _server_paths() -> dict[str, Schema]:
    unready = "NotReady"
    return {
        "/": read_path("alive", SERVER, "Liveness, for KServe V1 clients", shared_ref("Alive")),
        "/v2": read_path("server_metadata", SERVER, "Server metadata", shared_ref("ServerMetadata")),
        "/v2/models": read_path("models", SERVER, "Names of all models", shared_ref("ModelNames")),
        "/v1/models": read_path("models_v1", SERVER, "Names of all models", shared_ref("ModelNames")),
        "/v2/health/live": read_path("live", SERVER, "Liveness", shared_ref("Live")),
        "/v2/health/ready": read_path("ready", SERVER, "Readiness", shared_ref("Ready"), unready=unready),
        "/ping": read_path("ping", SERVER, "Readiness, for SageMaker", shared_ref("Ready"), unready=unready),
        "/health": read_path("health", SERVER, "Readiness, for MLflow", shared_ref("Ready"), unready=unready),
    }


def _model_paths(model: Described, routes: Collection[str]) -> dict[str, Schema]:
    name, v1, v2 = model.name, f"/v1/models/{model.path}", f"/v2/models/{model.path}"
    paths: dict[str, Schema] = {
        f"{v1}:predict": {"post": _predict(model)},
        f"{v2}/infer": {"post": _infer(model)},
        v2: read_path(model.operation("metadata"), name, "Model metadata", shared_ref("ModelMetadata")),
        f"{v2}/ready": read_path(
            model.operation("ready"), name, "Model readiness", shared_ref("ModelReady"), unready="NotReady"
        ),
        v1: read_path(
            model.operation("status"), name, "Model status", shared_ref("ModelStatus"), unready="ModelStatus"
        ),
    }
    if INVOCATIONS in routes and not model.versioned:
        paths[f"/models/{name}/invocations"] = {"post": _invocations(model)}
    return paths


def _model_schemas(model: Described, routes: Collection[str]) -> dict[str, Schema]:
    parts = requests.components(model.contract, model.rules)
    if INVOCATIONS in routes and not model.versioned:
        parts |= invocations.components(model.contract)
    if model.id_column:
        id_columns.add_to_requests(parts, model.id_column)
    parts |= responses.components(model.contract, model.id_column)
    names = {part: f"{model.name}.{part}" for part in parts}
    return {names[part]: _titled(schema, names[part]) for part, schema in parts.items()}


def _titled(part: Any, name: str) -> Any:
    """Return a copy of a schema in which each title begins with the component's name.

    Generators name types after titles, and a type of one model would take the place of another's.
    """
    if isinstance(part, list):
        return [_titled(each, name) for each in part]
    if not isinstance(part, dict):
        return part
    found = {key: _titled(each, name) for key, each in part.items()}
    return found | {"title": f"{name} {found['title']}"} if isinstance(found.get("title"), str) else found


def _posting(model: Described, operation: str, summary: str) -> Schema:
    return {
        "operationId": model.operation(operation),
        "tags": [model.name],
        "summary": summary,
        "description": f"Outputs: {outputs(model.contract)}",
        "parameters": [{"$ref": "#/components/parameters/RequestId"}],
    }


def _predict(model: Described) -> Schema:
    contract = model.contract
    content = {JSON: {"schema": model_ref(contract, "PredictRequest"), "examples": examples.predict(contract)}}
    response = predicted(model_ref(contract, "PredictResponse"), "One prediction per row", predict_example(contract))
    response["content"] |= _BY_ACCEPT
    operation = _posting(model, "predict", "Predict (V1)")
    operation["parameters"] += queries.output_query(contract)
    return {
        **operation,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": response, **error_refs(components.PREDICT_ERRORS)},
    }


def _infer(model: Described) -> Schema:
    contract = model.contract
    content: Schema = {
        JSON: {"schema": model_ref(contract, "InferRequest"), "examples": examples.infer(contract)},
        BINARY: {"schema": {"type": "string", "format": "binary", "description": _BINARY_BODY}},
    }
    response = predicted(model_ref(contract, "InferResponse"), "The requested outputs", infer_example(contract))
    response["headers"] = {
        **PREDICTED,
        "Inference-Header-Content-Length": {"$ref": "#/components/headers/BinaryHeader"},
    }
    response["content"][BINARY] = {"schema": {"type": "string", "format": "binary", "description": _BINARY_ANSWER}}
    operation = _posting(model, "infer", "Infer (V2, Open Inference Protocol)")
    operation["parameters"].append({"$ref": "#/components/parameters/BinaryHeader"})
    return {
        **operation,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": response, **error_refs(components.PREDICT_ERRORS)},
    }


_BINARY_BODY = (
    "The same JSON, whose size in bytes is in Inference-Header-Content-Length, followed by the raw tensors of the "
    "inputs that have `parameters.binary_data_size` instead of `data`. They are little-endian and row-major, in the "
    "order of `inputs`."
)
_BINARY_ANSWER = (
    "JSON, whose size in bytes is in Inference-Header-Content-Length, followed by the raw tensors of the binary outputs"
)


def _invocations(model: Described) -> Schema:
    contract = model.contract
    content: Schema = {
        JSON: {"schema": model_ref(contract, "InvocationsRequest"), "examples": examples.invocations(contract)},
        CSV: {"schema": {"type": "string", "description": "Rows, with or without a header line of column names."}},
        LINES: {"schema": {**_BYTES, "description": "One row in each line, as JSON."}},
        NPY: {"schema": {**_BYTES, "description": "One array of shape [rows, columns], as numpy.save writes it."}},
        "application/vnd.apache.arrow.stream": {"schema": _BYTES},
        "application/vnd.apache.parquet": {"schema": _BYTES},
    }
    response = predicted(model_ref(contract, "Predictions"), "One prediction per row", predict_example(contract))
    response["content"] |= _BY_ACCEPT
    operation = _posting(model, "invocations", "Predict (MLflow and SageMaker)")
    operation["parameters"] += queries.output_query(contract)
    return {
        **operation,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": response, **error_refs(components.PREDICT_ERRORS)},
    }


_BYTES = {"type": "string", "format": "binary"}
_BY_ACCEPT: Schema = {
    CSV: {"schema": {"type": "string", "description": "One line per row, if Accept prefers it."}},
    LINES: {"schema": {**_BYTES, "description": "One JSON value per row and line, if Accept prefers it."}},
    NPY: {"schema": {**_BYTES, "description": "The array of one output, if Accept prefers it."}},
}
"""The answers of V1 and `/invocations` other than JSON."""
