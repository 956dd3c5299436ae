"""End connections whose next request does not arrive in time.

One check per second covers all connections, because a timer for each request took 4 us of each. To end a connection,
its reading side is shut down: bytes that have arrived are still read, followed by end-of-file. When the worker drains,
idle connections are ended the same way.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress

from tableside.server.disconnect import has_bytes
from tableside.server.gunicorn_types import Client

HEAD_S = 5.0
"""Seconds that a client has for the head of a request, also at the start of a connection."""
GRACE_S = 1.0
"""Seconds after which an overdue client is disconnected even if it is still sending bytes."""


class KeepaliveTimers:
    """Per-worker state of connections that wait for a request.

    allowed_s: seconds that a connection may be idle, counted from the previous answer. It also limits HEAD_S.
    """

    def __init__(self, allowed_s: float) -> None:
        self.allowed_s = allowed_s
        self._head_s = min(HEAD_S, allowed_s)
        self.idle: set[Client] = set()
        """Connections of which no byte of the next request was read. They end at once when the worker drains."""
        self._due_at_s: dict[Client, float] = {}

    def begin(self, client: Client) -> None:
        """Start the time for the head of the client's next request."""
        self._due_at_s[client] = time.monotonic() + self._head_s

    def begin_idle(self, client: Client) -> None:
        """Start the time of `allowed_s` until the client's next request begins to arrive."""
        self._due_at_s[client] = time.monotonic() + self.allowed_s

    def end(self, client: Client) -> None:
        """Stop the time: the request was read, or the connection is closed. A second call has no effect."""
        self._due_at_s.pop(client, None)

    def end_overdue(self, now_s: float) -> None:
        """End the overdue connections. Call it about once a second. now_s: seconds of the monotonic clock."""
        for client, due_at_s in list(self._due_at_s.items()):
            if now_s > due_at_s + GRACE_S:
                _shut(client, socket.SHUT_RDWR)
            elif now_s > due_at_s and not has_bytes(client):
                _shut(client, socket.SHUT_RD)

    def end_idle(self) -> None:
        """End the idle connections from nginx whose next request has not begun to arrive, as the worker drains.

        Others have the time of a head, because their clients may be sending a request that nobody would send again.
        """
        for client in list(self.idle):
            if not has_bytes(client):
                _shut(client, socket.SHUT_RD)
        self.allowed_s, latest_s = self._head_s, time.monotonic() + self._head_s
        self._due_at_s = {client: min(due_at_s, latest_s) for client, due_at_s in self._due_at_s.items()}


def _shut(client: Client, side: int) -> None:
    with suppress(OSError):
        client.shutdown(side)
