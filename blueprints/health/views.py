"""Health probes: whether the worker runs, whether it is ready, and whether one model is ready.

They read state that is in memory, so a probe may be sent every second.
"""

from __future__ import annotations

from flask import Blueprint, Response

from tableside import __version__
from tableside.errors import FailureKind
from tableside.serving import readiness
from tableside.serving.lifecycle import State
from tableside.web import front_page
from tableside.web.auth import Access, allow
from tableside.web.extensions import registry
from tableside.web.response import json_response, text_response

blueprint = Blueprint("health", __name__)
allow(blueprint, Access.PREDICT)


@blueprint.get("/")
def root() -> Response:
    """Liveness, at the path that KServe's V1 client uses. On the control plane a browser gets the status page."""
    if (page := front_page.for_browser()) is not None:
        return page
    response = json_response({"status": "alive"})
    if front_page.is_control():
        response.vary.add("Accept")
    return response


@blueprint.get("/v2/health/live")
def live() -> Response:
    """Liveness: 200 whenever the worker's event loop runs."""
    return json_response({"live": True})


@blueprint.get("/v2/health/ready")
def ready() -> Response:
    """Readiness: 200 when all that is to serve serves, and the worker is not draining. 503 lists what is missing."""
    return _ready()


@blueprint.get("/ping")
def ping() -> Response:
    """Readiness, at the path that SageMaker and MLflow use."""
    return _ready()


@blueprint.get("/health")
def health() -> Response:
    """Readiness, at the other path that MLflow's scoring server has for it."""
    return _ready()


@blueprint.get("/version")
def version() -> Response:
    """The version of the server as text, as MLflow's scoring server gives its own."""
    return text_response(__version__.encode(), "text/plain; charset=utf-8")


def _ready() -> Response:
    reason = registry().not_ready()
    if not reason:
        return json_response({"ready": True})
    content: dict[str, object] = {"ready": False, "error": f"not ready: {reason}", "reason": reason}
    missing = registry().missing()[: readiness.LISTED]
    response = json_response({**content, "missing": missing} if missing else content, 503)
    response.headers["Retry-After"] = "1"
    return response


@blueprint.get("/v2/models/<name>/ready")
@blueprint.get("/v2/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> Response:
    """Readiness of one model, or of one version: 200 when it can answer, otherwise 503 with its state and reason."""
    if not registry().is_scanned or registry().is_stopping:
        return _ready()
    servable = registry().current().find(name, version)
    if servable.state is State.READY and servable.failure_kind is not FailureKind.QUARANTINED:
        return json_response({"name": servable.name, "ready": True})
    content = {"name": servable.name, "ready": False, "reason": servable.reason}
    return json_response({**content, "error": f"{servable.name}/{servable.version} is {servable.state}"}, 503)
