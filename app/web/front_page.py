"""What a browser gets at `/` of the control plane. Everybody else gets what `/` answers on both planes."""

from __future__ import annotations

from collections.abc import Callable

from flask import Response, request

from tableside.web.auth import plane
from tableside.web.extensions import settings
from tableside.web.response import JSON

_HTML = "text/html"
_pages: list[Callable[[], Response]] = []


def provide(page: Callable[[], Response]) -> None:
    """Declare the view of the page. A blueprint calls this in its own module, as it calls `allow`."""
    _pages[:] = [page]


def for_browser() -> Response | None:
    """Return the page if this request is a browser's on the control plane; otherwise None.

    A browser names text/html in Accept, and prefers it. Probes and programs do not: most send `*/*` or nothing.
    """
    accepted = request.accept_mimetypes
    is_named = any(kind == _HTML for kind, quality in accepted if quality > 0)
    if not _pages or not is_named or accepted.quality(_HTML) < accepted.quality(JSON) or not is_control():
        return None
    return _pages[0]()


def is_control() -> bool:
    """Whether the request came in on the control plane."""
    return plane(request.environ, settings().server) == "control"
