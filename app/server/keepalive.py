"""End connections whose next request does not arrive in time: a timer for each request cost 4 us of each.

All of them are checked once a second instead. A connection is ended by shutting down its reading side: bytes that had
arrived by then are still read, and end-of-file after them. When the worker drains, idle connections end the same way.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tableside.server.disconnect import has_bytes
from tableside.server.gunicorn_types import Client

GRACE_S = 1.0
"""A client that sends on and on without an end, although it is overdue, is cut off after this."""


class KeepaliveTimers:
    """Per-worker state of connections that wait for a request.

    allowed_s: how long a client may take for a request's head, from the answer before it or from its connection on.
    """

    def __init__(self, allowed_s: float) -> None:
        self.allowed_s = allowed_s
        self.idle: set[Client] = set()
        """Connections from which nothing of the next request was read: they end at once when the worker drains."""
        self._due_at_s: dict[Client, float] = {}

    def begin(self, client: Client) -> None:
        """From now on the client has `allowed_s` for its request's head."""
        self._due_at_s[client] = time.monotonic() + self.allowed_s

    def end(self, client: Client) -> None:
        """The client's request was read, or its connection is closed."""
        self._due_at_s.pop(client, None)

    def end_overdue(self, now_s: float) -> None:
        """End the connections that are overdue. Call it about once a second, with the monotonic clock."""
        for client, due_at_s in list(self._due_at_s.items()):
            if now_s > due_at_s + GRACE_S:
                _shut(client, socket.SHUT_RDWR)
            elif now_s > due_at_s and not has_bytes(client):
                _shut(client, socket.SHUT_RD)

    def end_idle(self) -> None:
        """End the idle connections that have sent nothing."""
        for client in list(self.idle):
            if not has_bytes(client):
                _shut(client, socket.SHUT_RD)


def _shut(client: Client, side: int) -> None:
    with suppress(OSError):
        client.shutdown(side)
