"""The scrape endpoint."""

from __future__ import annotations

import os
from pathlib import Path

from flask import Blueprint, Response

from app.concurrency import slots
from app.metrics import CONTENT_TYPE, render
from app.web.current import settings, wiring
from app.web.guard import Access, allow

face = Blueprint("metrics", __name__)
allow(face, Access.CONTROL)


@face.get("/metrics")
def metrics() -> Response:
    """Sums over every worker of this host, the dead ones' counts included."""
    folder = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    held = slots.held(settings().run_dir / "slots")
    text = render(wiring().metrics, Path(folder) if folder else None, held)
    return Response(text, content_type=CONTENT_TYPE)
