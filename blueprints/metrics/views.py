"""`/metrics`, which a Prometheus server scrapes."""

from __future__ import annotations

from flask import Blueprint, Response

from tableside.telemetry.metrics import CONTENT_TYPE
from tableside.web import host_metrics
from tableside.web.auth import Access, allow
from tableside.web.extensions import extensions

blueprint = Blueprint("metrics", __name__)
allow(blueprint, Access.METRICS)


@blueprint.get("/metrics")
def metrics() -> Response:
    """The metrics of this host: sums over all workers. Counts of workers that have ended are included."""
    return Response(host_metrics.render(extensions()), content_type=CONTENT_TYPE)
