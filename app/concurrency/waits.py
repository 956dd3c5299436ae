"""Connections whose next request has not come yet, or not wholly: they end when it is due, or when the worker drains.

One look a second at all of them instead of a timer for each request. A connection is ended by shutting its reading
side: what had arrived by then is still read, and then its end is.
"""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Any

GRACE_S = 1.0
"""A client that sends on and on without an end, although it is overdue, is cut off after this."""


class Waits:
    """A worker's."""

    def __init__(self, allowed_s: float) -> None:
        self.allowed_s = allowed_s
        self.idle: set[Any] = set()
        """Those nothing was read from, which may end at once when the worker drains."""
        self._due_at_s: dict[Any, float] = {}

    def begin(self, client: Any) -> None:
        """From now on the client has `allowed_s` for its request's head."""
        self._due_at_s[client] = time.monotonic() + self.allowed_s

    def end(self, client: Any) -> None:
        """Its request is there, or the connection gone."""
        self._due_at_s.pop(client, None)

    def end_overdue(self, now_s: float) -> None:
        """To be called about once a second."""
        for client, due_at_s in list(self._due_at_s.items()):
            if now_s > due_at_s + GRACE_S:
                _shut(client, socket.SHUT_RDWR)
            elif now_s > due_at_s and _is_silent(client):
                _shut(client, socket.SHUT_RD)

    def end_idle(self) -> None:
        """End those that sent nothing yet."""
        for client in list(self.idle):
            if _is_silent(client):
                _shut(client, socket.SHUT_RD)


def _is_silent(client: Any) -> bool:
    """Whether nothing is there to be read. gevent's sockets wait even if told not to, so the one inside is asked."""
    try:
        return not getattr(client, "_sock", client).recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except OSError:
        return True


def _shut(client: Any, side: int) -> None:
    with suppress(OSError):
        client.shutdown(side)
