"""Let a client read the error of a request that it has not finished sending.

gunicorn closes the connection of a request that it cannot read. If bytes of its body are unread then, the kernel resets
the connection: the client may lose the error, and nginx, which was sending the body, answers 502 for a mistake of the
client.
"""

from __future__ import annotations

import socket
from contextlib import suppress

from gevent import Timeout

from tableside.server.gunicorn_types import Client

LINGER_S = 3.0
"""Seconds in which a client has to read its error and to end the connection."""
_BLOCK_BYTES = 1 << 18


def linger(client: Client) -> None:
    """Tell the client that nothing follows, and drop what it still sends until it ends the connection, or in vain."""
    with Timeout(LINGER_S, False), suppress(OSError):
        client.shutdown(socket.SHUT_WR)
        while client.recv(_BLOCK_BYTES):
            pass
