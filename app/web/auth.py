"""Access control: each blueprint declares the scope of key that its routes need (`tableside.web.guard` checks it).

A blueprint calls `allow` in its own module, so the declaration exists as soon as the module is imported. `create_app`
refuses to mount a blueprint that has none.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from enum import Enum
from pathlib import Path
from typing import Protocol
from wsgiref.types import WSGIEnvironment

from flask import Blueprint

from tableside.settings import Server, split_address

PLANE = "tableside.plane"
"""WSGI key that sets the plane, `data` or `control`, for tests and for servers other than gunicorn.

No client can set it: WSGI puts request headers under keys that begin with `HTTP_` (PEP 3333).
"""
KEY_NAME = "tableside.key"
"""WSGI key under which the guard leaves the name of the key that let a request in; for the audit log."""
CONTROL_SOCKET = "ctl.sock"
KEY_FILE = "admin.key"
_ALL_ADDRESSES = ("0.0.0.0", "::")  # noqa: S104 - compared, not listened on


class Access(Enum):
    """Which key a route needs.

    OPEN: none, whatever the settings say. PAGE: none, but only on the control plane: the status page asks for a key
    itself, and its session opens nothing else. PREDICT: where keys are needed, one with the scope predict. METRICS:
    the same with the scope metrics, and only on the control plane. ADMIN: always a key with the scope admin, and only
    on the control plane.
    """

    OPEN = "open"
    PAGE = "page"
    PREDICT = "predict"
    METRICS = "metrics"
    ADMIN = "admin"


PROBES = frozenset(("health.root", "health.live", "health.ready", "health.ping", "health.health"))
PAGE = frozenset(("docs.page", "docs.page_with_slash", "docs.static"))
OPEN_ENDPOINTS = PROBES | PAGE
"""The routes that need no key, because nobody can send one there: load balancers and supervisors with their probes, and
a browser that opens the page `/docs`. The page and its files are the same on each server; it asks for a key, and loads
what names models with it. Nothing else is open.
"""


class Connection(Protocol):
    """The socket that gunicorn puts in the environ as `gunicorn.socket`."""

    def getsockname(self) -> str | tuple[str, int]:
        """The address of the listener: a path for a Unix socket, (host, port) for TCP."""


ACCESS_BY_BLUEPRINT: MutableMapping[str, Access] = {}
"""What each blueprint declared, by its name."""


def allow(blueprint: Blueprint, access: Access) -> None:
    """Declare which key the routes of `blueprint` need, those of OPEN_ENDPOINTS aside."""
    ACCESS_BY_BLUEPRINT[blueprint.name] = access


def access_of(endpoint: str) -> Access:
    """Which key an endpoint needs. One whose blueprint has declared nothing needs the admin key."""
    if endpoint in OPEN_ENDPOINTS:
        return Access.OPEN
    return ACCESS_BY_BLUEPRINT.get(endpoint.partition(".")[0], Access.ADMIN)


def plane(environ: WSGIEnvironment, server: Server) -> str:
    """The plane of a request, `data` or `control`, by the listener that accepted its connection.

    A request without a known listener belongs to the data plane, which has fewer routes.
    """
    connection: Connection | None = environ.get("gunicorn.socket")
    if PLANE in environ or connection is None:
        return str(environ.get(PLANE, "data"))
    address = connection.getsockname()
    if isinstance(address, str):
        return "control" if address.rpartition("/")[2] == CONTROL_SOCKET else "data"
    host, port = split_address(server.admin_listen)
    if host in _ALL_ADDRESSES and port != split_address(server.listen)[1]:
        return "control" if address[1] == port else "data"
    return "control" if address[:2] == (host, port) else "data"


def read_key(run_dir: Path) -> str:
    """The admin key in the run folder; empty when there is none. An empty key admits no request."""
    try:
        return (run_dir / KEY_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
