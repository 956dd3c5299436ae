"""gunicorn's gevent worker, made to lose nothing and to speak JSON in its own errors.

Three changes, each for a loss that was measured (docs/decisions/0002): head and body leave in one send, so a SIGKILL
cannot cut an answer nginx could no longer retry; a worker whose master died drains instead of leaving mid-request; and
a hub that hangs with no master left to notice ends by SIGALRM.
"""

from __future__ import annotations

import os
import signal
from typing import Any

import orjson
from gunicorn import util
from gunicorn.http import wsgi
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

_ONE_SEND_BYTES = 1 << 20


class WholeResponse(wsgi.Response):
    """Keeps the head back until the first body bytes are there."""

    _head = b""
    headers_sent: bool

    def send_headers(self) -> None:
        """Hold the head; it leaves with the body."""
        if self.headers_sent:
            return
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _flush_head(self) -> None:
        head, self._head = self._head, b""
        if head:
            self.sock.sendall(head)

    def _emit_body(self, data: bytes) -> None:
        if self._head and not self.chunked and len(data) <= _ONE_SEND_BYTES:
            whole, self._head = self._head + data, b""
            self.sock.sendall(whole)
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


# gunicorn has no setting for either; both are the documented places where it looks the name up at run time.
wsgi.Response = WholeResponse
util.write_error = write_json_error


class TablesideWorker(GeventWorker):
    """The worker class of gunicorn.conf.py."""

    def notify(self) -> None:
        """Heartbeat. gunicorn's own exits at once when the master has died; this one drains."""
        Worker.notify(self)
        signal.alarm(int(self.cfg.timeout) + 15)
        if self.alive and self.ppid != os.getppid():
            self.log.warning("the master is gone, draining")
            self.begin_drain()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """SIGTERM: no new connections, finish what is in hand."""
        self.begin_drain()

    def begin_drain(self) -> None:
        """Turn readiness off and let the run loop stop accepting."""
        extensions = getattr(self.wsgi, "extensions", {}) if self.wsgi else {}
        if "tableside" in extensions:
            extensions["tableside"].registry.draining = True
        self.alive = False
