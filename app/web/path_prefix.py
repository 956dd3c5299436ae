"""The path below which a proxy in front publishes this server, such as `/ml`.

A proxy either removes the prefix, and may say so in X-Forwarded-Prefix, or passes the path on as it is; then
`server.path_prefix` names it, and it is removed here. Nothing that is answered names a scheme or a host: a redirect and
the OpenAPI document have paths only, which a browser completes with what it has called.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

from tableside.setting_front import PREFIX_PATTERN
from tableside.settings import Server
from tableside.web import peer

HEADER = "HTTP_X_FORWARDED_PREFIX"
MAX_CHARS = 200
"""Longer prefixes are ignored, as are those that `server.path_prefix` would refuse."""
_PREFIX = re.compile(PREFIX_PATTERN)


def strip(environ: WSGIEnvironment, prefix: str) -> None:
    """Move the prefix from PATH_INFO to SCRIPT_NAME (PEP 3333), if the path has it."""
    path: str = environ["PATH_INFO"]
    if path.startswith(prefix) and path[len(prefix) : len(prefix) + 1] in ("/", ""):
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = prefix, path[len(prefix) :] or "/"


def of(environ: WSGIEnvironment, server: Server) -> str:
    """Return the prefix of a request: what trusted proxies say, or else `server.path_prefix`; empty for none.

    Proxies in a row may each have added a part, separated by commas: the one that the client has called comes first.
    """
    stated = environ.get(HEADER)
    if stated and peer.is_trusted(environ, server):
        joined = "".join(part.strip().rstrip("/") for part in stated.split(","))
        if len(joined) <= MAX_CHARS and _PREFIX.match(joined):
            return joined
    return server.path_prefix


def location(url: str, environ: WSGIEnvironment, server: Server) -> str:
    """Return the Location of a redirect to a URL of this server: its path below the prefix, and its query."""
    parts = urlsplit(url)
    path = "/" + parts.path.removeprefix(environ.get("SCRIPT_NAME", "")).lstrip("/")
    return of(environ, server) + path + (f"?{parts.query}" if parts.query else "")
