"""The scrape endpoint."""

from __future__ import annotations

from flask import Blueprint, Response

from tableside.process import worker_slots
from tableside.telemetry.metrics import CONTENT_TYPE, folder, render
from tableside.web.auth import Access, allow
from tableside.web.extensions import extensions, settings

blueprint = Blueprint("metrics", __name__)
allow(blueprint, Access.CONTROL)


@blueprint.get("/metrics")
def metrics() -> Response:
    """Sums over every worker of this host, the dead ones' counts included."""
    text = render(extensions().metrics, folder(), worker_slots.held(settings().run_dir / "worker_slots"))
    return Response(text, content_type=CONTENT_TYPE)
