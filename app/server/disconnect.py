"""Check whether a client has disconnected or has sent bytes, without reading from the connection and without waiting.

The functions call the kernel's `poll` on the descriptor: a gevent socket waits even in non-blocking calls.
"""

from __future__ import annotations

import fcntl
import select
import sys
import termios
from collections.abc import Callable
from typing import Protocol

from gevent.monkey import get_original

_ENDED = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class Poll(Protocol):
    """The object that `select.poll()` makes."""

    def register(self, fd: int, eventmask: int, /) -> None:
        """Add a descriptor and the events of interest."""

    def poll(self, timeout_ms: float, /) -> list[tuple[int, int]]:
        """Return pairs of a descriptor and its events."""


_make_poll: Callable[[], Poll] = get_original("select", "poll")  # the one that gevent has not patched


class HasDescriptor(Protocol):
    """A socket of gevent or of the standard library."""

    def fileno(self) -> int:
        """Return the file descriptor; -1 if the socket is closed."""


def is_disconnected(connection: HasDescriptor | object) -> bool:
    """Whether the peer has closed the connection, or this side has.

    While there are unread bytes from the peer it counts as connected, unless the connection has an error. So does any
    object without a descriptor, such as None for a request without a connection.
    """
    if not hasattr(connection, "fileno"):
        return False
    events = _events(connection)
    if events & select.POLLNVAL:
        return True
    return bool(events & select.POLLERR) or (bool(events & _ENDED) and _unread_bytes(connection) == 0)


def has_bytes(connection: HasDescriptor) -> bool:
    """Whether a read would return at once: with bytes, with the end of the connection, or with an error.

    For a listening socket: whether a connection is waiting to be accepted.
    """
    return bool(_events(connection))


def _events(connection: HasDescriptor) -> int:
    number = connection.fileno()
    if number < 0:
        return select.POLLNVAL
    poll = _make_poll()
    poll.register(number, select.POLLIN | select.POLLRDHUP)
    ready = poll.poll(0)
    return ready[0][1] if ready else 0


def _unread_bytes(connection: HasDescriptor) -> int:
    try:
        count = fcntl.ioctl(connection.fileno(), termios.FIONREAD, bytes(4))
    except OSError:
        return 0
    return int.from_bytes(count, sys.byteorder)
