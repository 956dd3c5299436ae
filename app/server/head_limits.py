"""The limits of a request's line and headers: those of the settings, those that gunicorn is given, and what is told."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tableside.server.gunicorn_types import Settings
from tableside.settings import Server

LINE_SPARE_BYTES = 32
"""What a request line has beside the URL at most: method, version and spaces."""
MOST_LINE_BYTES = 8190
"""The largest limit of a request line that gunicorn has."""
NGINX_HEADERS = 2
"""Headers that nginx may add to those of the client: X-Request-ID and X-Request-Start."""


def is_behind_nginx(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether nginx is in front of this process."""
    return environ.get("TABLESIDE_NGINX") == "true"


def of_gunicorn(server: Server, behind_nginx: bool) -> dict[str, int]:
    """Return gunicorn's settings. Its limit of the request line is above that of the URL, which the guard checks.

    gunicorn has no limit between MOST_LINE_BYTES and none (0). Behind nginx a longer line is nginx's to refuse.
    """
    line = server.max_url_bytes + LINE_SPARE_BYTES
    return {
        "limit_request_line": line if line <= MOST_LINE_BYTES else 0 if behind_nginx else MOST_LINE_BYTES,
        "limit_request_fields": server.max_headers + (NGINX_HEADERS if behind_nginx else 0),
        "limit_request_field_size": server.max_header_bytes,
    }


def hints(limits: Settings, behind_nginx: bool) -> dict[int, str]:
    """Return, for the status of an error of gunicorn, what the client is told about the limit. limits: gunicorn's."""
    most_headers = limits.limit_request_fields - (NGINX_HEADERS if behind_nginx else 0)
    return {
        414: f"the URL has more than {limits.limit_request_line - LINE_SPARE_BYTES} bytes, see server.max_url_bytes",
        431: f"more than {most_headers} headers, see server.max_headers, or one of more than "
        f"{limits.limit_request_field_size} bytes, see server.max_header_bytes",
    }
