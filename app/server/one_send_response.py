"""Send an answer's head and body in one call: a SIGKILL between two calls truncates an answer nginx can't retry.

It also saves a system call, and wakes the client once. Everything else about an answer is gunicorn's.
"""

from __future__ import annotations

import time

import gevent
from gunicorn.http import wsgi

from tableside.server.gunicorn_types import Client, Request, Settings

ONE_SEND_BYTES = 1 << 20
"""A larger body is sent after its head: joining the two would copy it."""
SLOW_S = 0.01
"""A connection of nginx ends with an answer that took longer: nginx opens another for the next request, which the
worker that is free accepts.
"""


class OneSendResponse(wsgi.Response):
    """gunicorn's response, which keeps the head back until the first bytes of the body are there."""

    def __init__(self, req: Request, sock: Client, cfg: Settings) -> None:
        super().__init__(req, sock, cfg)
        self.headers_sent: bool = False
        self._head = b""
        self._began_s = time.monotonic()

    def send_headers(self) -> None:
        """Encode the head and hold it."""
        if self.headers_sent:
            return
        if isinstance(self.req.peer_addr, str) and time.monotonic() - self._began_s > SLOW_S:
            self.force_close()
        lines = [*self.default_headers(), *(f"{name}: {value}\r\n" for name, value in self.headers), "\r\n"]
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def _send_head(self) -> None:
        head, self._head = self._head, b""
        if head:
            self.sock.sendall(head)

    def _emit_body(self, data: bytes) -> None:
        if not self._head or self.chunked or len(data) > ONE_SEND_BYTES:
            self._send_head()
            super()._emit_body(data)
            return
        whole, self._head = self._head + data, b""
        # Each send wakes a client, which takes this core: first compute the other answers that are due in this turn.
        gevent.sleep(0)
        sent = self.sock.send(whole)  # sendall of gevent asks for the size of the kernel's buffer first
        if sent < len(whole):
            self.sock.sendall(memoryview(whole)[sent:])

    def sendfile(self, respiter: object) -> bool:
        """Send the head before the kernel sends the file."""
        self.send_headers()
        self._send_head()
        return bool(super().sendfile(respiter))

    def close(self) -> None:
        """Send a head that had no body."""
        self.send_headers()
        self._send_head()
        super().close()


def install() -> None:
    """Let gunicorn make its responses of this class. It has no setting for that."""
    wsgi.Response = OneSendResponse
