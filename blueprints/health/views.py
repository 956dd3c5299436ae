"""Is the worker alive, is it ready, is a model ready? Cheap enough for any probe interval."""

from __future__ import annotations

from flask import Blueprint, Response

from app.serving.lifecycle import State
from app.web import bodies
from app.web.current import registry
from app.web.guard import Access, allow

PATIENCE_S = 3.0
"""How long a worker that was just born lets a readiness probe wait for its models, rather than say no."""

face = Blueprint("health", __name__)
allow(face, Access.EVERYONE)


@face.get("/")
def root() -> Response:
    """What KServe's V1 client asks for liveness."""
    return bodies.answer({"status": "alive"})


@face.get("/v2/health/live")
def live() -> Response:
    """The event loop answers."""
    return bodies.answer({"live": True})


@face.get("/v2/health/ready")
def ready() -> Response:
    """At least one model is served, and the worker is neither loading nor draining."""
    return _ready()


@face.get("/ping")
def ping() -> Response:
    """The same, under SageMaker's and MLflow's name."""
    return _ready()


def _ready() -> Response:
    registry().wait_first(PATIENCE_S)
    reason = registry().not_ready()
    if not reason:
        return bodies.answer({"ready": True})
    response = bodies.answer({"ready": False, "error": f"not ready: {reason}", "reason": reason}, 503)
    response.headers["Retry-After"] = "1"
    return response


@face.get("/v2/models/<name>/ready")
@face.get("/v2/models/<name>/versions/<version>/ready")
def model_ready(name: str, version: str | None = None) -> Response:
    """Whether one model, or one version of it, can answer."""
    if not registry().wait_first(PATIENCE_S):
        return _ready()
    servable = registry().catalog.find(name, version)
    if servable.state is State.READY:
        return bodies.answer({"name": servable.name, "ready": True})
    content = {"name": servable.name, "ready": False, "reason": servable.reason}
    return bodies.answer({**content, "error": f"{servable.name}/{servable.version} is {servable.state}"}, 503)
