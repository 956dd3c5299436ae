"""`/metrics`, which a Prometheus server scrapes."""

from __future__ import annotations

from functools import partial

from flask import Blueprint, Response

from tableside.deployment import stack_metrics
from tableside.process.offload import run_native
from tableside.telemetry.metrics import CONTENT_TYPE
from tableside.web import host_metrics
from tableside.web.auth import Access, allow
from tableside.web.extensions import extensions, settings

blueprint = Blueprint("metrics", __name__)
allow(blueprint, Access.METRICS)


@blueprint.get("/metrics")
def metrics() -> Response:
    """The metrics of this host: sums over all workers, and what is looked up now (`stack_metrics`).

    Counts of workers that have ended are included.
    """
    stack = run_native(partial(stack_metrics.render, settings()))
    return Response(host_metrics.render(extensions()) + stack, content_type=CONTENT_TYPE)
