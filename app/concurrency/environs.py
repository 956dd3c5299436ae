"""The environ of a plain request, put together from parts that are known: gunicorn's `create` makes each anew."""

from __future__ import annotations

from typing import Any

from gunicorn.http import wsgi

from app.concurrency.heads import PlainRequest
from app.concurrency.lines import MOST_KEPT

_make_base = wsgi.base_environ
_create = wsgi.create
_PORTS = {"http": "80", "https": "443"}
_base: dict[str, Any] = {}


def base_environ(cfg: Any) -> dict[str, Any]:
    """What is the same in each request's environ, a stream for errors among it."""
    if not _base:
        _base.update(_make_base(cfg))
    return _base.copy()


class _Keys(dict[str, str]):
    """The environ's key for a header's name. At most MOST_KEPT."""

    def __missing__(self, name: str) -> str:
        key = name.replace("-", "_")
        if name not in ("CONTENT-TYPE", "CONTENT-LENGTH"):
            key = "HTTP_" + key
        if len(self) >= MOST_KEPT:
            self.clear()
        self[name] = key
        return key


_keys = _Keys()


def create(request: Any, sock: Any, client: Any, server: Any, cfg: Any, *more: Any, **named: Any) -> tuple[Any, Any]:
    """The response and the environ; gunicorn's own way for what is not plain."""
    if type(request) is not PlainRequest or more or named:
        made: tuple[Any, Any] = _create(request, sock, client, server, cfg, *more, **named)
        return made
    response = wsgi.Response(request, sock, cfg)
    environ = base_environ(cfg)
    environ.update(request.target.environ)
    for name, value in request.headers:
        environ[_keys[name]] = value
    environ["wsgi.input"] = request.body
    environ["gunicorn.socket"] = sock
    environ["wsgi.url_scheme"] = request.scheme
    if isinstance(client, tuple):
        environ["REMOTE_ADDR"], environ["REMOTE_PORT"] = client[0], str(client[1])
    else:
        environ["REMOTE_ADDR"] = client.decode() if isinstance(client, bytes) else client
    environ["SERVER_NAME"], environ["SERVER_PORT"] = _server(server, request)
    environ["wsgi.early_hints"] = wsgi._make_early_hints_callback(request, sock, response)
    return response, environ


def _server(server: Any, request: Any) -> tuple[str, str]:
    """Where the listener is; behind a Unix socket where the client thinks it is."""
    if not isinstance(server, str):
        return server[0], str(server[1])
    named = server.split(":")
    if len(named) == 1:
        host = request.by_name.get("HOST")
        named = host.split(":") if host else named
        if len(named) == 1:
            named.append(_PORTS[request.scheme] if host else "")
    return named[0], named[1]
