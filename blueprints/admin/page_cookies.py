"""The cookies of the status page: the session, and the secret of a form before there is a session."""

from __future__ import annotations

import hashlib
import socket
from functools import cache
from pathlib import Path

from flask import request
from werkzeug.wrappers import Response

from tableside.settings import Settings
from tableside.web import path_prefix
from tableside.web.extensions import settings

SESSION, FORM = "session", "form"
_ID_CHARACTERS = 12


def name(kind: str, of: Settings) -> str:
    """Return the name of a cookie. It tells stacks apart that a browser reaches under one host name.

    Cookies know no ports, and a tunnel or a proxy gives the servers behind it one name. So the name has a hash of what
    differs: the server's own host name and its run folder.
    """
    prefix = "__Host-" if is_secure(of) else ""
    return f"{prefix}tableside_{kind}_{_id(socket.gethostname(), of.run_dir)}"


@cache
def _id(host: str, run_dir: Path) -> str:
    return hashlib.sha256(f"{host}\0{run_dir.resolve()}".encode(errors="replace")).hexdigest()[:_ID_CHARACTERS]


def is_secure(of: Settings) -> bool:
    """Whether browsers may send the cookies over TLS only."""
    return bool(of.server.tls_certificate)


def get(kind: str) -> str:
    """Return what the browser has sent; empty without the cookie."""
    return request.cookies.get(name(kind, settings()), "")


def put(response: Response, kind: str, value: str, life_s: int) -> None:
    """Let the browser keep a value."""
    response.set_cookie(
        name(kind, settings()), value, max_age=life_s, path=_path(), secure=is_secure(settings()), httponly=True,
        samesite="Strict",
    )  # fmt: skip


def remove(response: Response, kind: str) -> None:
    """Let the browser forget the value."""
    response.delete_cookie(
        name(kind, settings()), path=_path(), secure=is_secure(settings()), httponly=True, samesite="Strict"
    )


def _path() -> str:
    """Below a prefix that is known, what else the host serves does not get the cookie. `__Host-` allows only `/`."""
    return "/" if is_secure(settings()) else path_prefix.of(request.environ, settings().server) or "/"
