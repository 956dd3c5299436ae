"""Let a client read the answer to a request that it has not finished sending.

gunicorn closes the connection of a request that it cannot read, and at the end of a worker or where the client asks for
it that of a request whose body nobody has read. If bytes have arrived that are unread, the kernel then resets the
connection: the client may lose the answer, and nginx, which was sending the body, answers 502.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from gevent import Timeout

from tableside.server.disconnect import has_bytes
from tableside.server.gunicorn_types import Client

LINGER_S = 3.0
"""Seconds in which a client has to read its answer and to end the connection."""
_BLOCK_BYTES = 1 << 18


def linger(client: Client) -> None:
    """Tell the client that nothing follows, and drop what it still sends until it ends the connection, or in vain."""
    with Timeout(LINGER_S, False), suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while client.recv(_BLOCK_BYTES):
            pass


def linger_if_unread(client: Client) -> None:
    """Do the same if bytes of the client are unread. An end of its side counts as such, and costs no time."""
    if has_bytes(client):
        linger(client)
