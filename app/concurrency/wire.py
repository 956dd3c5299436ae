"""What gunicorn writes, and looks up, for each request: replaced where that was measured to matter.

Answers leave in one send and errors are JSON (docs/decisions/0002); the date, the peer's trust and the environ's
constant part are made once and not per request (0005). `install` replaces them.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Any

import orjson
from gunicorn import util
from gunicorn.http import message, wsgi

_ONE_SEND_BYTES = 1 << 20


class _Date:
    """The Date header's value, made once a second."""

    second = 0
    text = ""

    def now(self) -> str:
        second = int(time.time())
        if second != self.second:
            self.second, self.text = second, util.http_date(second)
        return self.text


_date = _Date()


SLOW_S = 0.01
"""nginx's connection ends with an answer that took longer: the next request goes to whoever is free to accept it."""


class WholeResponse(wsgi.Response):
    """Keeps the head back until the first body bytes are there."""

    _head = b""
    headers_sent: bool

    def __init__(self, request: Any, sock: Any, cfg: Any) -> None:
        super().__init__(request, sock, cfg)
        self._began_s = time.monotonic()

    def send_headers(self) -> None:
        """Hold the head; it leaves with the body."""
        if self.headers_sent:
            return
        if not isinstance(self.req.peer_addr, tuple) and time.monotonic() - self._began_s > SLOW_S:
            self.must_close = True
        version, connection = self.req.version, "close" if self.should_close() else "keep-alive"
        lines = [
            f"HTTP/{version[0]}.{version[1]} {self.status}\r\n"
            f"Server: {self.version}\r\nDate: {_date.now()}\r\nConnection: {connection}\r\n",
            "Transfer-Encoding: chunked\r\n" if self.chunked else "",
            *[f"{name}: {value}\r\n" for name, value in self.headers],
            "\r\n",
        ]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _flush_head(self) -> None:
        head, self._head = self._head, b""
        if head:
            self.sock.sendall(head)

    def _emit_body(self, data: bytes) -> None:
        if self._head and not self.chunked and len(data) <= _ONE_SEND_BYTES:
            whole, self._head = self._head + data, b""
            sent = self.sock.send(whole)  # gevent's sendall asks for the size of the kernel's buffer first
            if sent < len(whole):
                self.sock.sendall(memoryview(whole)[sent:])
            return
        self._flush_head()
        super()._emit_body(data)

    def sendfile(self, respiter: Any) -> bool:
        """Send the head before the kernel sends the file."""
        self.send_headers()
        self._flush_head()
        return bool(super().sendfile(respiter))

    def close(self) -> None:
        """Send a head that had no body."""
        self.send_headers()
        self._flush_head()
        super().close()


def write_json_error(sock: Any, status_int: int, reason: str, mesg: str) -> None:
    """gunicorn's own errors (a broken request line, a header too long) as the error object every other layer sends."""
    detail = f"{reason}: {mesg}" if mesg else reason
    body = orjson.dumps(
        {"error": detail, "type": "about:blank", "title": reason, "status": status_int, "detail": detail}
    )
    head = (
        f"HTTP/1.1 {status_int} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    util.write_nonblock(sock, head.encode("latin-1") + body)


_is_allowed = message._ip_in_allow_list


@lru_cache(1024)
def _remembered(ip: str, allowed: tuple[str, ...], networks: tuple[Any, ...]) -> bool:
    return bool(_is_allowed(ip, allowed, networks))


def _may_forward(ip: str, allowed: Any, networks: Any) -> bool:
    """gunicorn parses the peer's address for every request."""
    return _remembered(ip, tuple(allowed), tuple(networks))


_make_base = wsgi.base_environ
_base: dict[str, Any] = {}


def _base_environ(cfg: Any) -> dict[str, Any]:
    """What is the same in each request's environ, a stream for errors among it."""
    if not _base:
        _base.update(_make_base(cfg))
    return _base.copy()


def install() -> None:
    """Replace gunicorn's own. It has no setting for these; they are the places where it looks the name up each time."""
    wsgi.Response = WholeResponse
    util.write_error = write_json_error
    wsgi.base_environ = _base_environ
    message._ip_in_allow_list = _may_forward
