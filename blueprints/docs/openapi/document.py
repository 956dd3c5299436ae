"""The document of some models: paths, components and tags."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from tableside import __version__
from tableside.blueprints.docs.openapi import components, examples, requests, responses
from tableside.blueprints.docs.openapi.cell_schemas import Schema
from tableside.blueprints.docs.openapi.components import BINARY, CSV, JSON, REQUEST_ID, failures, ok, reading, to
from tableside.blueprints.docs.openapi.requests import ref
from tableside.blueprints.docs.openapi.responses import infer_example, outputs, predict_example
from tableside.contract.schema import Contract
from tableside.decoding.rules import STRICT, Rules

INVOCATIONS = "/models/<name>/invocations"
"""The rule of MLflow's route of one model: described where the application has it."""
SERVER = "the server"
"""A tag that no model can be named."""


@dataclass(frozen=True)
class Described:
    """A model to describe. versioned: its paths name the version, rather than ask for the one served by default."""

    contract: Contract
    rules: Rules = STRICT
    versioned: bool = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self.contract.name

    @property
    def path(self) -> str:
        """The model's part of a path, below `/v1/models` and `/v2/models`."""
        return f"{self.name}/versions/{self.contract.version}" if self.versioned else self.name


def document(models: Sequence[Described], routes: Collection[str] = ()) -> dict[str, Any]:
    """The OpenAPI 3.1 document of these models. routes: the application's rules, for what is there only sometimes."""
    paths: dict[str, Schema] = _server_paths()
    schemas: dict[str, Schema] = components.schemas()
    for model in models:
        paths |= _model_paths(model, routes)
        parts = requests.components(model.contract, model.rules) | responses.components(model.contract)
        schemas |= {f"{model.name}.{part}": schema for part, schema in parts.items()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tableside",
            "version": __version__,
            "description": "Predictions of the models served here. Every error is one JSON object.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [*(_tag(model) for model in models), {"name": SERVER, "description": "Metadata and health"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": components.error_responses(),
            "headers": components.HEADERS,
            "parameters": components.PARAMETERS,
        },
    }


def _tag(model: Described) -> Schema:
    contract = model.contract
    return {"name": model.name, "description": f"{contract.estimator} ({_kind(contract)}), version {contract.version}"}


def _kind(contract: Contract) -> str:
    return "estimator" if contract.kind == "other" else contract.kind.replace("_", " ")


def _server_paths() -> dict[str, Schema]:
    unready = "NotReady"
    return {
        "/": reading("alive", SERVER, "Alive, as KServe's V1 clients ask", to("Alive")),
        "/v2": reading("server_metadata", SERVER, "Server metadata", to("ServerMetadata")),
        "/v2/models": reading("models", SERVER, "Names of all models", to("ModelNames")),
        "/v1/models": reading("models_v1", SERVER, "Names of all models", to("ModelNames")),
        "/v2/health/live": reading("live", SERVER, "Liveness", to("Live")),
        "/v2/health/ready": reading("ready", SERVER, "Readiness", to("Ready"), unready=unready),
        "/ping": reading("ping", SERVER, "Readiness, as SageMaker asks", to("Ready"), unready=unready),
    }


def _model_paths(model: Described, routes: Collection[str]) -> dict[str, Schema]:
    name, v1, v2 = model.name, f"/v1/models/{model.path}", f"/v2/models/{model.path}"
    paths: dict[str, Schema] = {
        f"{v1}:predict": {"post": _predict(model)},
        f"{v2}/infer": {"post": _infer(model)},
        v2: reading(f"metadata_{name}", name, "Model metadata", to("ModelMetadata")),
        f"{v2}/ready": reading(f"ready_{name}", name, "Model readiness", to("ModelReady"), unready="NotReady"),
        v1: reading(f"status_{name}", name, "Model status", to("ModelStatus"), unready="ModelStatus"),
    }
    if INVOCATIONS in routes and not model.versioned:
        paths[f"/models/{name}/invocations"] = {"post": _invocations(model)}
    return paths


def _posting(model: Described, operation: str, summary: str) -> Schema:
    return {
        "operationId": f"{operation}_{model.name}",
        "tags": [model.name],
        "summary": summary,
        "description": f"Outputs: {outputs(model.contract)}",
        "parameters": [{"$ref": "#/components/parameters/RequestId"}],
    }


def _predict(model: Described) -> Schema:
    contract = model.contract
    content = {JSON: {"schema": ref(contract, "PredictRequest"), "examples": examples.predict(contract)}}
    found = ok(ref(contract, "PredictResponse"), "One prediction a row", predict_example(contract))
    return {
        **_posting(model, "predict", "Predict (V1)"),
        "requestBody": {"required": True, "content": content},
        "responses": {"200": found, **failures(components.PREDICTING)},
    }


def _infer(model: Described) -> Schema:
    contract = model.contract
    content: Schema = {
        JSON: {"schema": ref(contract, "InferRequest"), "examples": examples.infer(contract)},
        BINARY: {"schema": {"type": "string", "format": "binary", "description": _BINARY_BODY}},
    }
    found = ok(ref(contract, "InferResponse"), "The outputs asked for", infer_example(contract))
    found["headers"] = {
        **REQUEST_ID,
        "Inference-Header-Content-Length": {"$ref": "#/components/headers/BinaryHeader"},
    }
    found["content"][BINARY] = {"schema": {"type": "string", "format": "binary", "description": _BINARY_ANSWER}}
    operation = _posting(model, "infer", "Infer (V2, Open Inference Protocol)")
    operation["parameters"].append({"$ref": "#/components/parameters/BinaryHeader"})
    return {
        **operation,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": found, **failures(components.PREDICTING)},
    }


_BINARY_BODY = (
    "The same JSON, as long as Inference-Header-Content-Length says, then the raw tensors of those inputs that have "
    "`parameters.binary_data_size` instead of `data`: little-endian, row-major, in the order of `inputs`."
)
_BINARY_ANSWER = "JSON, as long as Inference-Header-Content-Length says, then the raw tensors of the binary outputs."


def _invocations(model: Described) -> Schema:
    contract = model.contract
    schema = requests.invocations(contract, model.rules)
    content: Schema = {
        JSON: {"schema": schema, "examples": examples.invocations(contract)},
        CSV: {"schema": {"type": "string", "description": "Rows, with or without a line of column names."}},
        "application/vnd.apache.arrow.stream": {"schema": _BYTES},
        "application/vnd.apache.parquet": {"schema": _BYTES},
    }
    found = ok(ref(contract, "Predictions"), "One prediction a row", predict_example(contract))
    found["content"][CSV] = {"schema": {"type": "string", "description": "A line a row, where Accept asks for it."}}
    operation = _posting(model, "invocations", "Predict (MLflow's and SageMaker's protocol)")
    names = [output.name for output in contract.outputs]
    wanted = {"type": "string", "enum": [*names, ""]}
    described = f"The output asked for; `{names[0]}` if none is named."
    operation["parameters"].append({"name": "output", "in": "query", "description": described, "schema": wanted})
    return {
        **operation,
        "requestBody": {"required": True, "content": content},
        "responses": {"200": found, **failures(components.PREDICTING)},
    }


_BYTES = {"type": "string", "format": "binary"}
