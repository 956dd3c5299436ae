"""The parts of the document that do not depend on a model: the error object, headers and metadata bodies."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tableside.blueprints.docs.openapi.cell_schemas import Schema

JSON = "application/json"
PROBLEM = "application/problem+json"
BINARY = "application/octet-stream"
CSV = "text/csv"
LINES = "application/jsonlines"
NPY = "application/x-npy"


class CellError(msgspec.Struct):
    """One error in a request and its place."""

    path: Annotated[str, Meta(description="The place in the request, such as `instances[3].age`.")]
    message: Annotated[str, Meta(description="What is wrong there, or what was expected.")]


class Error(msgspec.Struct):
    """The body of every error. `error` is the V2 protocol's member, the others are those of RFC 9457."""

    error: str
    type: str
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    instance: Annotated[str | UnsetType, Meta(description="The request's id.")] = UNSET
    id: Annotated[str | UnsetType, Meta(description="The `id` of a V2 request, once its JSON was read.")] = UNSET
    errors: Annotated[
        list[CellError] | UnsetType, Meta(description="With status 400: the errors of the request, by place.")
    ] = UNSET
    max_bytes: Annotated[int | UnsetType, Meta(description="With status 413: the limit in bytes.")] = UNSET
    error_code: Annotated[str | UnsetType, Meta(description="MLflow's error code, on MLflow's routes.")] = UNSET
    message: Annotated[str | UnsetType, Meta(description="The same as `detail`, on MLflow's routes.")] = UNSET


class ServerMetadata(msgspec.Struct):
    """The server's name, version and supported protocol extensions."""

    name: str
    version: str
    extensions: list[str]


class ModelNames(msgspec.Struct):
    """The names of all models."""

    models: list[str]


class TensorMetadata(msgspec.Struct):
    """A tensor's name, datatype and shape. A size of -1 is any number of rows."""

    name: str
    datatype: str
    shape: list[int]
    parameters: Annotated[
        dict[str, str | float | bool], Meta(description="What is known of the column or output; lists are JSON text.")
    ]


class ModelMetadata(msgspec.Struct):
    """A model's inputs, outputs and ready versions."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


class Alive(msgspec.Struct):
    """The body of `GET /`: the server is running."""

    status: Literal["alive"]


class Live(msgspec.Struct):
    """Liveness: the worker's event loop responds."""

    live: bool


class Ready(msgspec.Struct):
    """Readiness: at least one model is ready, and the worker is neither loading nor draining."""

    ready: bool


class NotReady(msgspec.Struct):
    """The reason why the worker or a model should receive no requests now."""

    ready: bool
    error: str
    reason: str
    name: str | UnsetType = UNSET


class ModelReady(msgspec.Struct):
    """Readiness of one model."""

    name: str
    ready: bool


class VersionState(msgspec.Struct):
    """The state of a version, with the names of TensorFlow Serving."""

    version: str
    state: Literal["AVAILABLE", "LOADING", "UNLOADING", "END"]
    status: dict[str, str]


class ModelStatus(msgspec.Struct):
    """The state of a model: `ready` for KServe clients, `model_version_status` for TensorFlow Serving clients."""

    name: str
    ready: bool
    model_version_status: list[VersionState]


_STRUCTS = (
    Error, ServerMetadata, ModelNames, ModelMetadata, Alive, Live, Ready, NotReady, ModelReady, ModelStatus,
)  # fmt: skip

ERRORS = {
    400: (
        "BadRequest",
        "The request does not match the contract; see `errors`. Or the model raised an error on its values.",
    ),
    401: ("Unauthorized", "The request has no valid key. A server that requires keys takes them as a bearer token."),
    403: ("Forbidden", "The key has another scope, or a page of another site sent the request."),
    404: ("NotFound", "The model, version or path does not exist."),
    406: ("NotAcceptable", "The Accept header allows no type that this operation can give."),
    413: ("ContentTooLarge", "The body exceeds `server.max_body_bytes` or, decompressed, `server.max_inflated_bytes`."),
    414: ("URITooLong", "The URL is longer than `server.max_url_bytes`."),
    415: ("UnsupportedMediaType", "The Content-Type or Content-Encoding is not supported."),
    421: ("MisdirectedRequest", "The Host header names a host that is not in `server.allowed_hosts`."),
    429: ("TooManyRequests", "The server has too much work, or this client too many connections. Retry later."),
    500: ("InternalServerError", "The model or the server failed. The log has the cause under the request's id."),
    502: ("BadGateway", "No worker accepted the request. Retry later."),
    503: ("ServiceUnavailable", "The model or the server is not ready. Retry later."),
    504: ("GatewayTimeout", "The request took longer than `server.request_timeout_s`."),
    507: ("InsufficientStorage", "The disk of the server has no room for the body or the answer. Retry later."),
}
"""The name of the response component and its description, by status."""
RETRYABLE = frozenset((429, 502, 503, 504, 507))
"""The statuses whose responses have a Retry-After header."""
READ_ERRORS = (401, 403, 404, 414, 421, 429, 500, 502, 503, 504, 507)
PREDICT_ERRORS = (400, 401, 403, 404, 406, 413, 414, 415, 421, 429, 500, 502, 503, 504, 507)
"""The error statuses of a GET of metadata or health (READ_ERRORS), and of a prediction."""


def schemas() -> dict[str, Schema]:
    """Return the schemas of the structs above, by name."""
    _, components = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    for component in components.values():
        for schema in component.get("properties", {}).values():
            if "enum" in schema:
                schema["type"] = "string"  # msgspec leaves it out, and generators then know no type
    return dict(components)


def shared_ref(name: str) -> Schema:
    """Return a reference to a schema of this module."""
    return {"$ref": f"#/components/schemas/{name}"}


HEADERS: dict[str, Schema] = {
    "RequestId": {
        "description": "The request's id, which log lines and error bodies also have.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$"},
    },
    "Served": {
        "description": "The version that has answered, as NAME/VERSION.",
        "required": True,
        "schema": {"type": "string"},
    },
    "Generation": {
        "description": "The generation of the models that the answer is of. It grows with each change of them.",
        "required": True,
        "schema": {"type": "integer", "minimum": 0},
    },
    "RetryAfter": {"description": "Seconds to wait before a retry.", "schema": {"type": "integer", "minimum": 0}},
    "BinaryHeader": {
        "description": "In a response with binary data: the size in bytes of the JSON before it.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
PARAMETERS: dict[str, Schema] = {
    "RequestId": {
        "name": "X-Request-ID",
        "in": "header",
        "description": "The request's id: 1 to 128 letters, digits or `_ . : -`. Otherwise, the server creates one.",
        "schema": {"type": "string"},
    },
    "BinaryHeader": {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "The size in bytes of the JSON at the start of the body, if binary tensor data follows it.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
REQUEST_ID = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}
PREDICTED = {
    **REQUEST_ID,
    "X-Tableside-Served": {"$ref": "#/components/headers/Served"},
    "X-Tableside-Generation": {"$ref": "#/components/headers/Generation"},
}
"""The headers of an answer with predictions."""


def error_responses() -> dict[str, Schema]:
    """Return one response component for each error status. All have the same body, `Error`."""
    return {name: _error(status, text) for status, (name, text) in ERRORS.items()}


def _error(status: int, text: str) -> Schema:
    retry_after = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}} if status in RETRYABLE else {}
    example = {
        "error": text,
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": text,
        "instance": "the-request-s-id",
    }
    content = {kind: {"schema": shared_ref("Error"), "example": example} for kind in (JSON, PROBLEM)}
    return {"description": text, "headers": {**REQUEST_ID, **retry_after}, "content": content}


def success(
    schema: Schema, description: str, example: object = None, headers: Mapping[str, Schema] = REQUEST_ID
) -> Schema:
    """Return a response with status 200 and a JSON body."""
    content: Schema = {"schema": schema} | ({} if example is None else {"example": example})
    return {"description": description, "headers": dict(headers), "content": {JSON: content}}


def predicted(schema: Schema, description: str, example: object = None) -> Schema:
    """Return a response with predictions, and with the headers that say what has predicted."""
    return success(schema, description, example, PREDICTED)


def error_refs(statuses: tuple[int, ...]) -> dict[str, Schema]:
    """Return references to the response components of these error statuses."""
    return {str(status): {"$ref": f"#/components/responses/{ERRORS[status][0]}"} for status in statuses}


def read_path(
    operation: str, tag: str, summary: str, schema: Schema, *, unready: str = "", example: object = None
) -> dict[str, Schema]:
    """Return the path item of a GET without a body. unready: the schema that its 503 may have instead of `Error`."""
    responses = {"200": success(schema, summary, example), **error_refs(READ_ERRORS)}
    if unready:
        schemas_503 = {"anyOf": [shared_ref(unready), shared_ref("Error")]}
        responses["503"] = {**_error(503, ERRORS[503][1]), "content": {JSON: {"schema": schemas_503}}}
    return {
        "get": {
            "operationId": operation,
            "tags": [tag],
            "summary": summary,
            "parameters": [{"$ref": "#/components/parameters/RequestId"}],
            "responses": responses,
        }
    }
