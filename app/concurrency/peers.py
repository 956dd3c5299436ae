"""Whether the other end of a connection has gone, seen without reading and without waiting."""

from __future__ import annotations

import socket
from typing import Any


def is_gone(connection: Any) -> bool:
    """Whether the peer has closed this socket. What it sent ahead stays unread; in doubt it is there.

    gevent's sockets wait even where they are told not to, so the socket inside is asked.
    """
    inner = getattr(connection, "_sock", connection)
    try:
        return bool(inner.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b"")
    except (BlockingIOError, InterruptedError):
        return False
    except (AttributeError, TypeError, ValueError):
        return False
    except OSError:
        return True
