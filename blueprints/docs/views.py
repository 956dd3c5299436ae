"""`/openapi.json`, one OpenAPI document for each model, and the page `/docs`.

Where keys are required, the documents need one, because they name models and columns. The page and its files do not: a
browser could not open them. The page asks for the key, and loads the document with it.

The page loads Swagger UI from this server and makes no request to another host.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flask import Blueprint, Response, redirect, render_template, request, send_from_directory
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as WerkzeugResponse

from tableside.blueprints.docs.openapi.document import Described, document
from tableside.contracts.id_column import InputWithId
from tableside.serving.catalog import EMPTY, Catalog
from tableside.serving.servable import Servable
from tableside.web import deadlines, path_prefix
from tableside.web.auth import Access, allow
from tableside.web.extensions import catalog, extensions, open_routes, routes, settings
from tableside.web.request_lifecycle import current_trace
from tableside.web.response import text_response, to_json

STATIC = Path(__file__).parent / "static"
SWAGGER = "swagger-ui-5.35.0"
"""The folder of Swagger UI's files. The version is part of their URLs, so browsers may cache them forever."""
MAX_CACHED_DOCUMENTS = 512
"""How many documents are kept. A proxy in front chooses the prefix that is in them, so that their number is bounded."""
A_YEAR_S = 365 * 24 * 3600
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

blueprint = Blueprint("docs", __name__, template_folder="templates")
allow(blueprint, Access.PREDICT)


@dataclass(frozen=True)
class CachedDocument:
    """A document as JSON text, and its ETag."""

    text: bytes
    etag: str


@dataclass
class _Cache:
    """The documents of one catalog, by what they describe. A new catalog empties the cache."""

    catalog: Catalog
    documents: dict[str, CachedDocument]


_cache = _Cache(EMPTY, {})


@blueprint.before_request
def _check_enabled() -> None:
    if not settings().server.docs:
        raise NotFound


@blueprint.get("/openapi.json")
def all_models() -> Response:
    """The document of every model that can answer, each in its default version."""
    serving = catalog()
    return _document_response(serving, "", [_described(servable) for servable in serving.answering()])


@blueprint.get("/v2/models/<name>/openapi.json")
@blueprint.get("/v2/models/<name>/versions/<version>/openapi.json")
def one_model(name: str, version: str | None = None) -> Response:
    """The document of one model. When the request names a version or an alias, the paths in it name that version."""
    serving = catalog()
    servable = serving.servable(name, version)
    versioned = version is not None or name != servable.name
    key = f"{servable.name}/{servable.version if versioned else ''}"
    return _document_response(serving, key, [_described(servable, versioned)])


def _described(servable: Servable, versioned: bool = False) -> Described:
    assert servable.contract is not None  # a servable that can answer has one
    columns = servable.input
    id_column = columns.id if isinstance(columns, InputWithId) else ""
    return Described(servable.contract, servable.policy.rules, versioned, id_column)


def _document_response(serving: Catalog, key: str, models: list[Described]) -> Response:
    cached = _cached_document(serving, key, models)
    response = text_response(cached.text)
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(cached.etag)
    response.make_conditional(request)
    return response


def _cached_document(serving: Catalog, key: str, models: list[Described]) -> CachedDocument:
    """The document, from the cache or new. It is made in a native thread, because many models take a while."""
    if _cache.catalog is not serving or len(_cache.documents) >= MAX_CACHED_DOCUMENTS:
        _cache.catalog, _cache.documents = serving, {}
    documents, paths, open_paths = _cache.documents, routes(), open_routes()
    base = path_prefix.of(request.environ, settings().server) or "/"
    key = f"{base} {key}"
    if key not in documents:
        deadline_at_s = deadlines.at_s(request.environ, current_trace().started_s, settings().server.request_timeout_s)
        text = extensions().codec_offload.call(
            lambda: to_json(document(models, paths, open_paths, base)), deadline_at_s
        )
        documents[key] = CachedDocument(text, hashlib.sha256(text).hexdigest()[:32])
    return documents[key]


@blueprint.get("/docs")
def page() -> Response:
    """Swagger UI for `/openapi.json`, or for one model's document with `?model=NAME`."""
    response = Response(
        render_template("docs/swagger_ui.html", folder=SWAGGER), content_type="text/html; charset=utf-8"
    )
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@blueprint.get("/docs/")
def page_with_slash() -> WerkzeugResponse:
    """Redirect to `/docs`: the page's links are relative to that path."""
    return redirect("../docs", 308)


@blueprint.get("/docs/static/<path:name>")
def static(name: str) -> Response:
    """The page's files. Swagger UI's files may be cached for a year; the browser revalidates Tableside's own."""
    request.environ.pop("HTTP_RANGE", None)  # a part of a file would not leave through an answer file
    is_versioned = name.startswith(f"{SWAGGER}/")
    response = send_from_directory(STATIC, name, max_age=A_YEAR_S if is_versioned else None)
    response.headers["Cache-Control"] = f"public, max-age={A_YEAR_S}, immutable" if is_versioned else "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
