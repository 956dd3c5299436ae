"""`/admin/api/openapi.json`: the OpenAPI 3.1 document of the admin API, made from its routes.

Paths and methods are those of the application, summaries the first sentences of the views. What a route takes besides
is in `QUERIES` and `BODIES`; a test holds both to the routes that exist.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from http import HTTPStatus
from typing import Any

import msgspec
from flask import Blueprint, Response, current_app
from werkzeug.routing import Rule

from tableside import __version__
from tableside.blueprints.admin import schemas
from tableside.blueprints.admin.diff_views import SUFFIXES
from tableside.process.operations import Operation
from tableside.web import response

Schema = dict[str, Any]
TAR, JSON = "application/x-tar", "application/json"
BODIES: Mapping[str, type[msgspec.Struct] | None] = {
    "promote": schemas.Promote, "rollback": schemas.Nothing, "alias": schemas.Alias, "retire": schemas.Retire,
    "delete": schemas.Delete, "load": schemas.Nothing, "unload": schemas.Nothing, "set_traffic": schemas.Traffic,
    "set_shadow": schemas.Shadow, "publish": None, "reload": None, "drain": None, "resume": None, "diff_rows": None,
}  # fmt: skip
"""The JSON body of each route that changes something; None for no body, or for one of another type."""
OPERATIONS = frozenset(name for name, kind in BODIES.items() if kind is not None) | {"publish"}
"""Routes that begin an operation."""
FILES: Mapping[str, Collection[str]] = {"publish": (TAR,), "diff_rows": SUFFIXES}
"""The media types of the bodies that are files."""
_TEXT: Schema = {"type": "string"}
_FLAG: Schema = {"type": "boolean", "default": False}
_WAIT = ("wait", {"type": "number", "minimum": 0, "maximum": 100, "default": 0}, "Seconds to wait for the result.")
_LIMIT = ("limit", {"type": "integer", "minimum": 1}, "How many.")
_VERSION: Schema = {"type": "string", "description": "A version's number, or an alias."}
_SIDES = (("old", _VERSION, "The version that clients use now."), ("new", _VERSION, "The other one."))
QUERIES: Mapping[str, tuple[tuple[str, Schema, str], ...]] = {
    "publish": (
        ("sha256", {"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}, "The SHA-256 of the body."),
        ("number", {"enum": ["keep", "next"], "default": "keep"}, "Which number a version gets."),
        ("breaking", _FLAG, "Publish also what breaks clients of the version that answers now."),
        ("target", _TEXT, "A column of the sample to drop."),
        ("runtime", {"enum": ["auto", "sklearn"], "default": "auto"}, "Whether fast backends are used."),
        ("tolerance", {"type": "number", "default": 0}, "Largest relative difference of a fast backend."),
        ("nullable", _TEXT, "Columns that accept missing cells, with commas between them."),
        ("quick", _FLAG, "Compare fast backends on fewer rows."),
    ),
    "operation": (_WAIT,),
    "operations": (_LIMIT,),
    "audit": (_LIMIT,),
    "workers": (("models", {"type": "boolean", "default": True}, "Whether to list what each worker serves."),),
    "diff": (*_SIDES, ("answers", _FLAG, "Compare the answers to the golden rows, too.")),
    "diff_rows": _SIDES,
}  # fmt: skip
"""Parameters of the query by route, beside `wait` of those that begin an operation."""
_REQUIRED = frozenset((endpoint, side) for endpoint in ("diff", "diff_rows") for side in ("old", "new"))
_ERRORS = {
    400: "The request is not valid.", 401: "The key is missing, wrong or expired.", 403: "This is not allowed.",
    404: "There is no such model, version or operation.", 409: "The change does not fit what the server has.",
    412: "If-Match names another generation.", 413: "The body is too large.", 503: "It cannot be done now.",
    507: "The audit log or the disk has no room; nothing was done.",
}  # fmt: skip


class Error(msgspec.Struct):
    """The body of every error. reasons: a line for each worker that refuses a change. generation: with status 412."""

    error: str
    type: str
    title: str
    status: int
    detail: str
    instance: str = ""
    reasons: list[str] = []
    generation: int = 0
    max_bytes: int = 0


class Answer(msgspec.Struct):
    """The answer to a request that has begun an operation: the operation, and if it is done, its result beside it."""

    operation: Operation


def mount(blueprint: Blueprint) -> None:
    """Add the route."""
    blueprint.add_url_rule("/openapi.json", "openapi", show)


def show() -> Response:
    """The OpenAPI 3.1 document of the admin API."""
    return response.json_response(document(current_app.url_map.iter_rules()))


def document(rules: Iterable[Rule]) -> Schema:
    """Return the document of those rules that are the admin API's."""
    paths: dict[str, Schema] = {}
    for rule in sorted(rules, key=lambda each: each.rule):
        blueprint, _, endpoint = rule.endpoint.partition(".")
        if blueprint == "admin":
            path = paths.setdefault(re.sub(r"<(\w+)>", r"{\1}", rule.rule), {})
            for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
                path[method.lower()] = _operation(rule, endpoint)
    kinds = [Error, Answer, *(kind for kind in BODIES.values() if kind is not None)]
    _, components = msgspec.json.schema_components(
        kinds, schema_hook=lambda kind: {"description": "Any value."}, ref_template="#/components/schemas/{name}"
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Tableside admin API", "version": __version__,
            "description": "Operates the models of one host. It is on the control plane.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "tags": [{"name": "models"}, {"name": "host"}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "A key with the scope `admin`."}
            },
        },
    }  # fmt: skip


def _operation(rule: Rule, endpoint: str) -> Schema:
    changes = endpoint in BODIES
    summary = (current_app.view_functions[rule.endpoint].__doc__ or "").strip().partition("\n")[0]
    made: Schema = {
        "operationId": endpoint, "summary": summary, "tags": ["models" if "/models" in rule.rule else "host"],
        "parameters": [*_path_parameters(rule), *_query(endpoint), *_headers(endpoint)],
        "responses": _responses(endpoint, changes),
    }  # fmt: skip
    kind = BODIES.get(endpoint)
    if kind is not None:
        schema = {"$ref": f"#/components/schemas/{kind.__name__}"}
        made["requestBody"] = {"required": bool(kind.__struct_fields__), "content": {JSON: {"schema": schema}}}
    if endpoint in FILES:
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in FILES[endpoint]}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _path_parameters(rule: Rule) -> list[Schema]:
    return [{"name": name, "in": "path", "required": True, "schema": _TEXT} for name in sorted(rule.arguments)]


def _query(endpoint: str) -> list[Schema]:
    given = (*QUERIES.get(endpoint, ()), *((_WAIT,) if endpoint in OPERATIONS else ()))
    return [
        {"name": name, "in": "query", "required": (endpoint, name) in _REQUIRED, "schema": schema, "description": text}
        for name, schema, text in given
    ]


def _headers(endpoint: str) -> list[Schema]:
    if endpoint not in OPERATIONS:
        return []
    text = "The generation that was seen, as ETag has it. Another one that is served is 412."
    return [{"name": "If-Match", "in": "header", "required": False, "schema": _TEXT, "description": text}]


def _responses(endpoint: str, changes: bool) -> dict[str, Schema]:
    body: Schema = {"$ref": "#/components/schemas/Answer"} if endpoint in OPERATIONS else {"type": "object"}
    if endpoint == "operation":
        body = {"$ref": "#/components/schemas/Operation"}
    found = {"200": {"description": "Done.", "content": {JSON: {"schema": body}}}}
    if endpoint in OPERATIONS or endpoint == "reload":
        found["202"] = {"description": "It is being done.", "content": {JSON: {"schema": body}}}
    error = {JSON: {"schema": {"$ref": "#/components/schemas/Error"}}}
    for status, text in _ERRORS.items():
        if changes or status in (400, 401, 404, 503):
            found[str(status)] = {"description": f"{HTTPStatus(status).phrase}. {text}", "content": error}
    return found
