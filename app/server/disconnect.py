"""Look at a connection without reading from it and without waiting: whether its client has gone, or has sent bytes.

The kernel's `poll` is asked about the descriptor: a socket of gevent waits even in calls that are told not to.
"""

from __future__ import annotations

import fcntl
import select
import sys
import termios
from typing import Any, Protocol

from gevent.monkey import get_original

_ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR
_make_poll: Any = get_original("select", "poll")


class HasDescriptor(Protocol):
    """A socket, of gevent or of the standard library."""

    def fileno(self) -> int:
        """The file descriptor."""


def is_disconnected(connection: HasDescriptor | object) -> bool:
    """Whether the peer has closed the connection.

    Bytes that it sent before stay unread, and as long as there are some the peer counts as present. So does anything
    that is not a connection.
    """
    if not hasattr(connection, "fileno"):
        return False
    events = _events(connection)
    if events & select.POLLNVAL:
        return True
    return bool(events & select.POLLERR) or (bool(events & _ENDED) and _unread_bytes(connection) == 0)


def has_bytes(connection: HasDescriptor) -> bool:
    """Whether a read would return at once: with bytes, with the end of the connection, or with an error."""
    return bool(_events(connection))


def _events(connection: HasDescriptor) -> int:
    number = connection.fileno()
    if number < 0:
        return select.POLLNVAL
    poll = _make_poll()
    poll.register(number, select.POLLIN | select.POLLRDHUP)
    found: list[tuple[int, int]] = poll.poll(0)
    return found[0][1] if found else 0


def _unread_bytes(connection: HasDescriptor) -> int:
    try:
        counted = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(counted, sys.byteorder)
