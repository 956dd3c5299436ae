"""The scrape endpoint."""

from __future__ import annotations

from flask import Blueprint, Response

from app.concurrency import slots
from app.metrics import CONTENT_TYPE, folder, render
from app.web.current import settings, wiring
from app.web.guard import Access, allow

face = Blueprint("metrics", __name__)
allow(face, Access.CONTROL)


@face.get("/metrics")
def metrics() -> Response:
    """Sums over every worker of this host, the dead ones' counts included."""
    text = render(wiring().metrics, folder(), slots.held(settings().run_dir / "slots"))
    return Response(text, content_type=CONTENT_TYPE)
