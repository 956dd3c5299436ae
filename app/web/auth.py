"""Who may call a blueprint. Each blueprint says so in its own file, at import; the factory refuses one that does
not.
"""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from enum import Enum
from pathlib import Path
from typing import Any

from flask import Blueprint, request
from werkzeug.exceptions import NotFound

from tableside.errors import Unauthorized
from tableside.settings import split_address
from tableside.web.extensions import settings

PLANE = "tableside.plane"
"""WSGI key that says `data` or `control` outright, for tests and other servers; no request header can set it."""
CONTROL_SOCKET = "ctl.sock"
KEY_FILE = "admin.key"


class Access(Enum):
    """everyone: both planes. control: the control plane's listener only. admin: that, with the admin key."""

    EVERYONE = "everyone"
    CONTROL = "control"
    ADMIN = "admin"


ACCESS_BY_BLUEPRINT: MutableMapping[str, Access] = {}


def allow(blueprint: Blueprint, access: Access) -> None:
    """Declare who may call every route of `blueprint`."""
    ACCESS_BY_BLUEPRINT[blueprint.name] = access
    if access is not Access.EVERYONE:
        blueprint.before_request(_check_admin if access is Access.ADMIN else _check_plane)


def plane(environ: dict[str, Any]) -> str:
    """The plane a request came in by, from the listener of its connection; `data`, the narrow one, in doubt."""
    connection = environ.get("gunicorn.socket")
    if PLANE in environ or connection is None:
        return str(environ.get(PLANE, "data"))
    name = connection.getsockname()
    if isinstance(name, str):
        return "control" if name.rpartition("/")[2] == CONTROL_SOCKET else "data"
    return "control" if name[:2] == split_address(settings().server.admin_listen) else "data"


def _check_plane() -> None:
    if plane(request.environ) != "control":
        raise NotFound


def _check_admin() -> None:
    _check_plane()
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    expected = read_key(settings().run_dir)
    if scheme.lower() != "bearer" or not expected or not hmac.compare_digest(given.strip().encode(), expected.encode()):
        raise Unauthorized(given=bool(given.strip()))


def read_key(run_dir: Path) -> str:
    """The admin key; empty (nobody gets in) when there is none."""
    try:
        return (run_dir / KEY_FILE).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
