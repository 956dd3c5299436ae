"""`/metrics`, which a Prometheus server scrapes."""

from __future__ import annotations

from flask import Blueprint, Response

from tableside.process import worker_slots
from tableside.process.offload import run_native
from tableside.telemetry.metrics import CONTENT_TYPE, folder, render
from tableside.web.auth import Access, allow
from tableside.web.extensions import extensions, settings

blueprint = Blueprint("metrics", __name__)
allow(blueprint, Access.METRICS)


@blueprint.get("/metrics")
def metrics() -> Response:
    """The metrics of this host: sums over all workers. Counts of workers that have ended are included.

    The files of many models take up to a second to read, so that is done in a native thread.
    """
    parts, files, slots = extensions(), folder(), settings().run_dir / "worker_slots"
    if files is None:  # the live counters, whose locks native threads must not touch
        text = render(parts.metrics, None, ())
    else:
        text = run_native(lambda: render(parts.metrics, files, worker_slots.held(slots)))
    return Response(text, content_type=CONTENT_TYPE)
