"""Distribute connections evenly among workers; otherwise one worker gets most of them, and requests wait for it.

All workers accept from the same listening socket, and the worker that wakes up first gets the connection. Of 64
connections that a client opened one after the other, the second of two workers got 3 to 27, and a kept-alive connection
stays with its worker. Therefore a worker that has clearly more connections than another one stops accepting for a
moment. It accepts a connection only if no other worker has taken it by then.
"""

from __future__ import annotations

import mmap
import time

from gevent import get_hub, spawn
from gevent.pool import Pool
from gevent.server import StreamServer

from tableside.server.disconnect import has_bytes
from tableside.server.gunicorn_types import Address, Client, Handle, Listener

MAX_WORKERS = 256
"""Number of entries in the shared memory. With more workers, two share an entry and count as one worker."""
FRESH_S = 3.0
"""A worker whose last heartbeat is older than this is ignored. Workers send one per second."""
MAX_AT_ONCE = 16
"""Most connections that a worker accepts in one iteration of the event loop."""
RETRY_DELAYS_S = (0.0, 0.0, 0.001, 0.001)
"""Seconds before each check of a worker that is ahead. It accepts a connection if one was waiting at every check: if
another worker is accepting, there is a check at which none is waiting. The first two checks are in the next iterations
of the event loop: connections that carry only one request are closed by then, and the worker may no longer be ahead.
"""

_shared = memoryview(mmap.mmap(-1, MAX_WORKERS * 16)).cast("d")
"""Memory that the master allocates and all its workers share. Each worker has two numbers: its open connections, and
the time of its last heartbeat (monotonic clock).
"""


class ConnectionShare:
    """One worker's entry in the shared memory. age: gunicorn's number of the worker.

    Make it before the fork, in the master; the other methods are for the worker.
    """

    def __init__(self, age: int) -> None:
        self._entries, self._own = _shared, 2 * (age % MAX_WORKERS)
        self._others: list[int] = []

    def join(self) -> None:
        """Set the number of connections to 0 and send the first heartbeat. Call it when the worker starts."""
        self._entries[self._own] = 0.0
        self.beat()

    def beat(self) -> None:
        """Send a heartbeat, and find the other workers that are alive. Call it about once a second."""
        entries, now_s = self._entries, time.monotonic()
        entries[self._own + 1] = now_s
        self._others = [
            at for at in range(0, 2 * MAX_WORKERS, 2) if at != self._own and 0.0 <= now_s - entries[at + 1] < FRESH_S
        ]

    def leave(self) -> None:
        """Mark this worker as ended, so that the others no longer count on it. Call it when the worker drains."""
        self._entries[self._own + 1] = -FRESH_S

    def opened(self) -> None:
        """Add one connection."""
        self._entries[self._own] += 1.0

    def closed(self) -> None:
        """Subtract one connection."""
        self._entries[self._own] -= 1.0

    @property
    def is_ahead(self) -> bool:
        """Whether this worker has clearly more connections than another one: 2 and an eighth more."""
        entries = self._entries
        own = entries[self._own]
        return any(own > 2 + 1.125 * entries[at] for at in self._others)


class BalancedServer(StreamServer):
    """gevent's server of one listening socket. It leaves connections to other workers while this worker is ahead.

    `handle` must call `ConnectionShare.closed` when its connection has ended.
    """

    max_accept = MAX_AT_ONCE

    def __init__(self, share: ConnectionShare, listener: Listener, handle: Handle, pool: Pool) -> None:
        super().__init__(listener, handle=handle, spawn=pool)
        self._share = share
        self._is_retrying = self._may_accept_one = False

    def do_read(self) -> tuple[Client, Address] | None:
        """Accept a connection if one is waiting. Returns None if none is, or if this worker is ahead."""
        if self._share.is_ahead and not self._may_accept_one:
            self.stop_accepting()
            if not self._is_retrying:
                self._is_retrying = True
                spawn(self._retry)
            return None
        self._may_accept_one = False
        accepted: tuple[Client, Address] | None = super().do_read()
        if accepted:
            self._share.opened()
        return accepted

    def _retry(self) -> None:
        """Check several times whether another worker accepts the waiting connections, then accept again."""
        for delay_s in RETRY_DELAYS_S:
            with self.loop.timer(delay_s) as timer:
                get_hub().wait(timer)
            if not self.started:
                return
            self._may_accept_one = has_bytes(self.socket)
            if not (self._may_accept_one and self._share.is_ahead):
                break
        self._is_retrying = False
        self.start_accepting()
