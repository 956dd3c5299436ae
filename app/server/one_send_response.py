"""Send the head and the body of a response in one call.

A SIGKILL between two calls would truncate the response, and nginx cannot repeat a request whose response has begun. One
call also saves a system call, and wakes the client once. gunicorn does everything else.
"""

from __future__ import annotations

import time

import gevent
from gunicorn.http import wsgi

from tableside.server.gunicorn_types import Client, Request, Settings

ONE_SEND_BYTES = 1 << 20
"""A larger body is sent after its head, because joining the two would copy it."""
SLOW_S = 0.01
"""A connection from nginx is closed after a response that took longer than this. For its next request nginx then opens
another connection, which an idle worker accepts.
"""


class OneSendResponse(wsgi.Response):
    """gunicorn's response, which holds the head back until the first bytes of the body are written."""

    def __init__(self, req: Request, sock: Client, cfg: Settings) -> None:
        super().__init__(req, sock, cfg)
        self.headers_sent: bool = False
        self._head = b""
        self._began_s = time.monotonic()

    def send_headers(self) -> None:
        """Encode the head and keep it for the first bytes of the body. A second call has no effect."""
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
        # Each send wakes a client, which may then run on this core: first let the other ready requests compute.
        gevent.sleep(0)
        sent = self.sock.send(whole)  # gevent's sendall would first read the size of the kernel's buffer
        if sent < len(whole):
            self.sock.sendall(memoryview(whole)[sent:])

    def sendfile(self, respiter: object) -> bool:
        """Send the head, and then the file if the kernel can send it. Returns whether it did."""
        self.send_headers()
        self._send_head()
        return bool(super().sendfile(respiter))

    def close(self) -> None:
        """End the response. A head without a body is sent now."""
        self.send_headers()
        self._send_head()
        super().close()


def install() -> None:
    """Replace gunicorn's response class by this one. There is no setting for it."""
    wsgi.Response = OneSendResponse
