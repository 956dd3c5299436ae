"""What every operation shares: the error object, headers, and the bodies that are the same for every model."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from tableside.blueprints.docs.openapi.cell_schemas import Schema

JSON = "application/json"
PROBLEM = "application/problem+json"
BINARY = "application/octet-stream"
CSV = "text/csv"


class BadPlace(msgspec.Struct):
    """One bad place in a request."""

    path: Annotated[str, Meta(description="Where, as the client wrote it: instances[3].age")]
    message: Annotated[str, Meta(description="What was expected there.")]


class Error(msgspec.Struct):
    """Every error: `error` is what inference clients read, the rest are RFC 9457's members."""

    error: str
    type: str
    title: str
    status: Annotated[int, Meta(ge=400, le=599)]
    detail: str
    instance: Annotated[str | UnsetType, Meta(description="The request's id.")] = UNSET
    errors: Annotated[list[BadPlace] | UnsetType, Meta(description="The bad places of a 400.")] = UNSET
    max_bytes: Annotated[int | UnsetType, Meta(description="Of a 413: the limit.")] = UNSET
    error_code: Annotated[str | UnsetType, Meta(description="MLflow's word, on its routes.")] = UNSET
    message: Annotated[str | UnsetType, Meta(description="`detail` under MLflow's name, on its routes.")] = UNSET


class ServerMetadata(msgspec.Struct):
    """Name, version and protocol extensions of the server."""

    name: str
    version: str
    extensions: list[str]


class ModelNames(msgspec.Struct):
    """The names of all models."""

    models: list[str]


class TensorMetadata(msgspec.Struct):
    """A tensor's name, datatype and shape; -1 is the number of rows."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct):
    """A model's inputs, outputs and versions that can answer."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    properties: dict[str, str]


class Alive(msgspec.Struct):
    """The server answers."""

    status: Literal["alive"]


class Live(msgspec.Struct):
    """The event loop answers."""

    live: bool


class Ready(msgspec.Struct):
    """At least one model is served, and the worker is neither loading nor draining."""

    ready: bool


class NotReady(msgspec.Struct):
    """Why the worker, or a model, should get no requests now."""

    ready: Literal[False]
    error: str
    reason: str
    name: str | UnsetType = UNSET


class ModelReady(msgspec.Struct):
    """The model can answer."""

    name: str
    ready: bool


class VersionState(msgspec.Struct):
    """A version's state in TF-Serving's words."""

    version: str
    state: Literal["AVAILABLE", "LOADING", "UNLOADING", "END"]
    status: dict[str, str]


class ModelStatus(msgspec.Struct):
    """A model's state in KServe's and TF-Serving's words at once."""

    name: str
    ready: bool
    model_version_status: list[VersionState]


_STRUCTS = (
    Error, ServerMetadata, ModelNames, ModelMetadata, Alive, Live, Ready, NotReady, ModelReady, ModelStatus,
)  # fmt: skip

ERRORS = {
    400: ("BadRequest", "The request does not fit: `errors` names each bad place. Or the model refuses its values."),
    404: ("NotFound", "No such model, version or path."),
    413: ("TooLarge", "More bytes than `server.max_body_bytes` or, inflated, `server.max_inflated_bytes`."),
    415: ("Unsupported", "A Content-Type or Content-Encoding that is not read here."),
    429: ("Overloaded", "More work, or more connections from this client, than is allowed. Retry after some time."),
    500: ("Failed", "The model or the server failed; the log has the cause under the request's id."),
    502: ("NoWorker", "No worker could answer. Retry after some time."),
    503: ("NotReady", "The model or the server cannot answer now. Retry after some time."),
    504: ("Late", "No answer within `server.request_timeout_s`."),
}
RETRIED = frozenset((429, 502, 503, 504))
READING = (404, 429, 500, 502, 503, 504)
PREDICTING = (400, 404, 413, 415, 429, 500, 502, 503, 504)


def schemas() -> dict[str, Schema]:
    """The shared schemas, by name."""
    _, found = msgspec.json.schema_components(_STRUCTS, ref_template="#/components/schemas/{name}")
    return dict(found)


def to(name: str) -> Schema:
    """A reference to a shared schema."""
    return {"$ref": f"#/components/schemas/{name}"}


HEADERS: dict[str, Schema] = {
    "RequestId": {
        "description": "The request's id, in the log and in errors too.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_.:-]{1,128}$"},
    },
    "RetryAfter": {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}},
    "BinaryHeader": {
        "description": "Of an answer with binary data: the bytes of JSON before it.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
PARAMETERS: dict[str, Schema] = {
    "RequestId": {
        "name": "X-Request-ID",
        "in": "header",
        "description": "Taken as the request's id if it is 1 to 128 letters, digits, `_ . : -`; else one is made.",
        "schema": {"type": "string"},
    },
    "BinaryHeader": {
        "name": "Inference-Header-Content-Length",
        "in": "header",
        "description": "The bytes of JSON at the start of the body, when tensors follow as binary data.",
        "schema": {"type": "integer", "minimum": 1},
    },
}
REQUEST_ID = {"X-Request-ID": {"$ref": "#/components/headers/RequestId"}}


def error_responses() -> dict[str, Schema]:
    """One response an error status, all with the one error object."""
    return {name: _error(status, words) for status, (name, words) in ERRORS.items()}


def _error(status: int, words: str) -> Schema:
    retried = {"Retry-After": {"$ref": "#/components/headers/RetryAfter"}} if status in RETRIED else {}
    example = {
        "error": words,
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": words,
        "instance": "the-request-s-id",
    }
    content = {kind: {"schema": to("Error"), "example": example} for kind in (JSON, PROBLEM)}
    return {"description": words, "headers": {**REQUEST_ID, **retried}, "content": content}


def ok(schema: Schema, description: str, example: Any = None) -> Schema:
    """A 200 in JSON."""
    content: Schema = {"schema": schema} | ({} if example is None else {"example": example})
    return {"description": description, "headers": dict(REQUEST_ID), "content": {JSON: content}}


def failures(statuses: tuple[int, ...]) -> dict[str, Schema]:
    """References to the error responses of these statuses."""
    return {str(status): {"$ref": f"#/components/responses/{ERRORS[status][0]}"} for status in statuses}


def reading(
    operation: str, tag: str, summary: str, schema: Schema, *, unready: str = "", example: Any = None
) -> dict[str, Schema]:
    """A path that is only read. `unready`: the schema its 503 may have besides the error object."""
    responses = {"200": ok(schema, summary, example), **failures(READING)}
    if unready:
        other = {"anyOf": [to(unready), to("Error")]}
        responses["503"] = {**_error(503, ERRORS[503][1]), "content": {JSON: {"schema": other}}}
    return {
        "get": {
            "operationId": operation,
            "tags": [tag],
            "summary": summary,
            "parameters": [{"$ref": "#/components/parameters/RequestId"}],
            "responses": responses,
        }
    }
