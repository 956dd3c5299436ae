"""`/metrics`, which a Prometheus server scrapes."""

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
    """The metrics of this host: sums over all workers. Counts of workers that have ended are included."""
    text = render(extensions().metrics, folder(), worker_slots.held(settings().run_dir / "worker_slots"))
    return Response(text, content_type=CONTENT_TYPE)
