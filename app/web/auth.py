"""Access control: each blueprint declares who may call its routes.

A blueprint calls `allow` in its own module, so the declaration exists as soon as the module is imported. `create_app`
refuses to mount a blueprint that has none.
"""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from enum import Enum
from pathlib import Path
from typing import Protocol
from wsgiref.types import WSGIEnvironment

from flask import Blueprint, request
from werkzeug.exceptions import NotFound

from tableside.errors import Unauthorized
from tableside.settings import split_address
from tableside.web.extensions import settings

PLANE = "tableside.plane"
"""WSGI key that sets the plane, `data` or `control`, for tests and for servers other than gunicorn.

No client can set it: WSGI puts request headers under keys that begin with `HTTP_` (PEP 3333).
"""
CONTROL_SOCKET = "ctl.sock"
KEY_FILE = "admin.key"


class Access(Enum):
    """Who may call a blueprint.

    EVERYONE: clients of the data plane and of the control plane. CONTROL: clients of the control plane's listener.
    ADMIN: clients of the control plane's listener that send the admin key.
    """

    EVERYONE = "everyone"
    CONTROL = "control"
    ADMIN = "admin"


class Connection(Protocol):
    """The socket that gunicorn puts in the environ as `gunicorn.socket`."""

    def getsockname(self) -> str | tuple[str, int]:
        """The address of the listener: a path for a Unix socket, (host, port) for TCP."""


ACCESS_BY_BLUEPRINT: MutableMapping[str, Access] = {}
"""What each blueprint declared, by its name."""


def allow(blueprint: Blueprint, access: Access) -> None:
    """Declare who may call the routes of `blueprint`, and check it before each request."""
    ACCESS_BY_BLUEPRINT[blueprint.name] = access
    if access is not Access.EVERYONE:
        blueprint.before_request(_check_admin if access is Access.ADMIN else _check_plane)


def plane(environ: WSGIEnvironment) -> str:
    """The plane of a request, `data` or `control`, by the listener that accepted its connection.

    A request without a known listener belongs to the data plane, which has fewer routes.
    """
    connection: Connection | None = environ.get("gunicorn.socket")
    if PLANE in environ or connection is None:
        return str(environ.get(PLANE, "data"))
    address = connection.getsockname()
    if isinstance(address, str):
        return "control" if address.rpartition("/")[2] == CONTROL_SOCKET else "data"
    return "control" if address[:2] == split_address(settings().server.admin_listen) else "data"


def read_key(run_dir: Path) -> str:
    """The admin key in the run folder; empty when there is none. An empty key admits no request."""
    try:
        return (run_dir / KEY_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _check_plane() -> None:
    if plane(request.environ) != "control":
        raise NotFound  # 404 and not 403: the data plane does not reveal which control routes exist


def _check_admin() -> None:
    _check_plane()
    scheme, _, credentials = request.headers.get("Authorization", "").partition(" ")
    key, expected = credentials.strip(), read_key(settings().run_dir)
    if scheme.lower() != "bearer" or not expected or not hmac.compare_digest(key.encode(), expected.encode()):
        raise Unauthorized(bool(key))
