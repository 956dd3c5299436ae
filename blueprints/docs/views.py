"""`/openapi.json`, one document a model, and `/docs`, which needs nothing from outside this host."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flask import Blueprint, Response, redirect, render_template, request, send_from_directory
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Response as AnyResponse

from tableside.blueprints.docs.openapi.document import Described, document
from tableside.serving.catalog import EMPTY, Catalog
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.web import deadlines
from tableside.web.auth import Access, allow
from tableside.web.extensions import catalog, extensions, routes, settings
from tableside.web.request_lifecycle import current_trace
from tableside.web.response import text_response, to_json

FILES = Path(__file__).parent / "static"
SWAGGER = "swagger-ui-5.35.0"
"""The folder of the vendored files; its name is part of their address, so they may be kept for ever."""
A_YEAR_S = 365 * 24 * 3600
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

blueprint = Blueprint("docs", __name__, template_folder="templates")
allow(blueprint, Access.EVERYONE)


@dataclass(frozen=True)
class Written:
    """A document as JSON text, and the tag it is known by."""

    text: bytes
    tag: str


@dataclass
class _Cache:
    """Documents of one catalog, by what was asked for. Another catalog empties it."""

    catalog: Catalog
    documents: dict[str, Written]


_cache = _Cache(EMPTY, {})


@blueprint.before_request
def _offered() -> None:
    if not settings().server.docs:
        raise NotFound


@blueprint.get("/openapi.json")
def everything() -> Response:
    """Every model that can answer, each in the version that answers by default."""
    serving = catalog()
    found = [model.pick(None) for _, model in sorted(serving.models.items()) if model.servables]
    ready = [servable for servable in found if servable.state is State.READY]
    return _answer(serving, "", [_described(servable) for servable in ready])


@blueprint.get("/v2/models/<name>/openapi.json")
@blueprint.get("/v2/models/<name>/versions/<version>/openapi.json")
def one(name: str, version: str | None = None) -> Response:
    """One model. Where a version or an alias is asked for, its paths name that version."""
    serving = catalog()
    servable = serving.servable(name, version)
    versioned = version is not None or name != servable.name
    key = f"{servable.name}/{servable.version if versioned else ''}"
    return _answer(serving, key, [_described(servable, versioned)])


def _described(servable: Servable, versioned: bool = False) -> Described:
    assert servable.contract is not None
    return Described(servable.contract, servable.policy.rules, versioned)


def _answer(serving: Catalog, key: str, models: list[Described]) -> Response:
    found = _written(serving, key, models)
    response = text_response(found.text)
    response.headers["Cache-Control"] = "no-cache"
    response.set_etag(found.tag)
    response.make_conditional(request)
    return response


def _written(serving: Catalog, key: str, models: list[Described]) -> Written:
    """The document from the cache, or made anew in a native thread: with many models that takes a while."""
    if _cache.catalog is not serving:
        _cache.catalog, _cache.documents = serving, {}
    documents, paths = _cache.documents, routes()
    if key not in documents:
        deadline_at_s = deadlines.at_s(request.environ, current_trace().started_s, settings().server.request_timeout_s)
        text = extensions().codec_offload.call(lambda: to_json(document(models, paths)), deadline_at_s)
        documents[key] = Written(text, hashlib.sha256(text).hexdigest()[:32])
    return documents[key]


@blueprint.get("/docs")
def page() -> Response:
    """Swagger UI over `/openapi.json`, or over one model's document with `?model=NAME`."""
    response = Response(
        render_template("docs/swagger_ui.html", folder=SWAGGER), content_type="text/html; charset=utf-8"
    )
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["Cache-Control"] = "no-cache"
    response.headers["Referrer-Policy"] = "no-referrer"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


@blueprint.get("/docs/")
def page_with_slash() -> AnyResponse:
    """The page's links are relative, so it has one address."""
    return redirect("../docs", 308)


@blueprint.get("/docs/static/<path:name>")
def static(name: str) -> Response:
    """The page's files. Those of Swagger UI never change under their address; ours are asked for anew."""
    kept = name.startswith(f"{SWAGGER}/")
    response = send_from_directory(FILES, name, max_age=A_YEAR_S if kept else None)
    response.headers["Cache-Control"] = f"public, max-age={A_YEAR_S}, immutable" if kept else "no-cache"
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response
