"""What gunicorn writes, and looks up, for each request: replaced where that was measured to matter.

Answers leave in one send and errors are JSON (docs/decisions/0002); the date, the peer's trust and the environ's
constant part are made once and not per request (0005). `install` replaces them.
"""

from __future__ import annotations

import os
import time
from functools import lru_cache
from typing import Any

import orjson
from gunicorn import SERVER, util
from gunicorn.http import message, wsgi
from gunicorn.http.message import TOKEN_RE

from app.concurrency import environs
from app.concurrency.turns import after_the_others

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


_SIMPLE, _LENGTH, _OTHER = range(3)


@lru_cache(256)
def _kind(name: str) -> int:
    """What to do with a header the application sends; _OTHER is for gunicorn to see: refuse, drop or act on."""
    if not TOKEN_RE.fullmatch(name) or util.is_hoppish(name):
        return _OTHER
    return _LENGTH if name.lower() == "content-length" else _SIMPLE


@lru_cache(256)
def _with_body(status: str) -> int | None:
    """The code of a good status line of an answer that has a body; None: gunicorn has to see."""
    if not wsgi.STATUS_RE.fullmatch(status):
        return None
    code = int(status[:3])
    return None if code < 200 or code in (204, 304) else code


class WholeResponse(wsgi.Response):
    """Keeps the head back until the first body bytes are there."""

    # What gunicorn's own begins with, once and not for each answer.
    version = SERVER
    status = None
    chunked = must_close = headers_sent = upgrade = False
    response_length = None
    sent = 0
    _omits_body = _omits_body_warned = False
    _head = b""

    def __init__(self, request: Any, sock: Any, cfg: Any) -> None:
        self.req, self.sock, self.cfg = request, sock, cfg
        self.headers: list[tuple[str, str]] = []
        self._began_s = time.monotonic()

    def start_response(self, status: Any, headers: Any, exc_info: Any = None) -> Any:
        """See PEP 3333. An answer that has no body by its status or method, or follows an error, is gunicorn's."""
        code = _with_body(status) if isinstance(status, str) else None
        if exc_info or self.status is not None or code is None or self.req.method == "HEAD":
            return super().start_response(status, headers, exc_info)
        self.status, self.status_code = status, code
        self.process_headers(headers)
        self.chunked = self.is_chunked()
        return self.write

    def process_headers(self, headers: Any) -> None:
        """Check the application's headers: values at each answer, names once."""
        for name, value in headers:
            kind = _kind(name) if isinstance(name, str) else _OTHER
            if kind is _OTHER or not (isinstance(value, str) and value.isascii() and value.isprintable()):
                super().process_headers([(name, value)])
                continue
            value = value.strip(" ")
            if kind is _LENGTH:
                self.response_length = int(value)
            self.headers.append((name, value))

    def send_headers(self) -> None:
        """Hold the head; it leaves with the body."""
        if self.headers_sent:
            return
        if not isinstance(self.req.peer_addr, tuple) and time.monotonic() - self._began_s > SLOW_S:
            self.must_close = True
        version = self.req.version
        connection = "upgrade" if self.upgrade else "close" if self.should_close() else "keep-alive"
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
            after_the_others()
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


def install() -> None:
    """Replace gunicorn's own. It has no setting for these; they are the places where it looks the name up each time."""
    wsgi.Response = WholeResponse
    util.write_error = write_json_error
    wsgi.base_environ = environs.base_environ
    if not os.environ.get("SCRIPT_NAME"):
        wsgi.create = environs.create
    message._ip_in_allow_list = _may_forward
