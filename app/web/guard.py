"""The guard: every request passes it before its view or handler runs, in Flask's dispatch and in the fast dispatch.

It checks, in this order: the length of the URL, the host that the request names, whether a page of another site sent
it, the plane, the key.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from urllib.parse import urlsplit
from wsgiref.types import WSGIEnvironment

from flask import Flask, request
from werkzeug.exceptions import NotFound

from tableside.access_keys import KeysFile, Scope, digest
from tableside.errors import CrossSite, Unauthorized, WrongHost, WrongScope
from tableside.head_errors import UrlTooLong
from tableside.process.offload import run_native
from tableside.settings import Settings
from tableside.web.auth import KEY_FILE, KEY_NAME, Access, access_of, plane, read_key
from tableside.web.extensions import extensions
from tableside.web.hosts import AllowedHosts, machine_names, without_default_port
from tableside.web.keyring import Keyring

MAX_KNOWN_HOSTS = 256
"""How many Host headers that are allowed are remembered. Clients choose the port in it, so the number is bounded."""
_SITE = "HTTP_SEC_FETCH_SITE"
_SAFE_METHODS = frozenset(("GET", "HEAD", "OPTIONS"))
_OWN_SITES = frozenset(("same-origin", "none"))
_SCOPES = {Access.PREDICT: Scope.PREDICT, Access.METRICS: Scope.METRICS, Access.ADMIN: Scope.ADMIN}


class Guard:
    """Decides for one application whether a request may be answered."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._hosts = AllowedHosts(settings.server, machine_names())
        self._known_hosts = {""}
        self._max_url_bytes = settings.server.max_url_bytes
        self._needs_keys = settings.needs_keys  # it parses addresses, which would cost each prediction 7 us
        self._keyring = Keyring(KeysFile(settings.keys_path, settings.repository_path))

    def check(self, environ: WSGIEnvironment, access: Access) -> None:
        """Raise UrlTooLong, WrongHost, CrossSite, NotFound (the wrong plane), Unauthorized or WrongScope, or return."""
        self.check_sender(environ)
        if access is Access.OPEN or (access is Access.PREDICT and not self._needs_keys):
            return
        if access is not Access.PREDICT and plane(environ, self._settings.server) != "control":
            raise NotFound  # 404 and not 403: the data plane does not reveal which control routes exist
        if access is Access.PAGE:
            return
        if access is not Access.METRICS or self._needs_keys:
            self._check_key(environ, _SCOPES[access])

    def check_sender(self, environ: WSGIEnvironment) -> None:
        """Raise UrlTooLong, WrongHost or CrossSite. This is all that is checked of a request without a route."""
        if len(environ.get("RAW_URI", "")) > self._max_url_bytes:
            raise UrlTooLong(self._max_url_bytes)
        host = environ.get("HTTP_HOST", "")
        if host not in self._known_hosts:
            self._check_host(host)
        if "HTTP_ORIGIN" in environ or _SITE in environ:
            self._check_site(environ)

    def _check_host(self, host: str) -> None:
        if not self._hosts.allows(host):
            raise WrongHost
        if len(self._known_hosts) < MAX_KNOWN_HOSTS:
            self._known_hosts.add(host)

    def _check_site(self, environ: WSGIEnvironment) -> None:
        """Refuse what a page of another site sends to the control plane. Programs send neither of the two headers."""
        if environ["REQUEST_METHOD"] in _SAFE_METHODS or plane(environ, self._settings.server) != "control":
            return
        origin = environ.get("HTTP_ORIGIN")
        host = without_default_port(environ.get("HTTP_HOST", ""))
        if environ.get(_SITE, "none") not in _OWN_SITES or (
            origin is not None and without_default_port(urlsplit(origin).netloc) != host
        ):
            raise CrossSite

    def _check_key(self, environ: WSGIEnvironment, scope: Scope) -> None:
        scheme, _, credentials = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = credentials.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized(scope)
        environ[KEY_NAME] = self.key_name(token, scope)

    def key_name(self, token: str, scope: Scope) -> str:
        """Return the name of the key that this text is. Raises Unauthorized, or WrongScope for another scope's key."""
        key = self._keyring.find(token)
        if key is None:
            if not self._is_admin_key(token):
                raise Unauthorized(scope, "wrong")
            return KEY_FILE
        if key.has_expired(datetime.now(UTC)):
            raise Unauthorized(scope, "expired")
        if not key.allows(scope):
            raise WrongScope(key.scope, scope)
        return key.name

    def admin_keys(self) -> dict[str, str]:
        """Return the keys that open the admin routes now: the name of each by its SHA-256."""
        now = datetime.now(UTC)
        found = {
            key.sha256: key.name for key in self._keyring.all() if key.scope is Scope.ADMIN and not key.has_expired(now)
        }
        if own := run_native(lambda: read_key(self._settings.run_dir)):
            found[digest(own)] = KEY_FILE
        return found

    def _is_admin_key(self, token: str) -> bool:
        """Whether the text is the key in the run folder, which is read each time: an operator may write another one."""
        expected = run_native(lambda: read_key(self._settings.run_dir))
        return bool(expected) and hmac.compare_digest(token.encode(), expected.encode())


def check_request() -> None:
    """`before_request` hook: check a request that Flask dispatches."""
    guard = extensions().guard
    if request.endpoint is None:
        guard.check_sender(request.environ)
    else:
        guard.check(request.environ, access_of(request.endpoint))


def install(app: Flask) -> None:
    """Check every request that Flask dispatches."""
    app.before_request(check_request)
