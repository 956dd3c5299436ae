"""Share connections evenly among workers: otherwise one worker gets most of them, and requests wait for it.

All workers wait at one listening socket, and the one that wakes first takes the connection: of 64 that a client opened
one after the other, the second of two workers got 3 to 27. Kept connections stay where they are. Now a worker that has
clearly more connections than another leaves new ones to the others for a moment, and takes them only if they are still
there then.
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
"""Workers that have a place of their own. Two that share one are counted as one worker."""
FRESH_S = 3.0
"""A worker whose last beat is older than this is not waited for. Workers beat once a second."""
MOST_AT_ONCE = 16
"""Connections that a worker accepts in one turn of the event loop."""
RETRY_DELAYS_S = (0.0, 0.0, 0.001, 0.001)
"""Seconds before each look of a worker that is ahead. It accepts a connection if one was waiting at every look: where
another worker accepts them, none is waiting at some. The first two looks are the next turns of the event loop:
connections that carry one request each are closed by then, and the worker may not be ahead any more.
"""

_board = memoryview(mmap.mmap(-1, MAX_WORKERS * 16)).cast("d")
"""Memory that the master makes and all its workers share: for each worker its number of connections, and the time of
its last beat (monotonic clock).
"""


class ConnectionShare:
    """One worker's place in the shared memory. Make it before the fork. age: the worker's number in gunicorn."""

    def __init__(self, age: int) -> None:
        self._board, self._mine = _board, 2 * (age % MAX_WORKERS)
        self._others: list[int] = []

    def join(self) -> None:
        """This worker begins to serve."""
        self._board[self._mine] = 0.0
        self.beat()

    def beat(self) -> None:
        """Say that this worker serves, and look who else does. Call it about once a second."""
        board, now_s = self._board, time.monotonic()
        board[self._mine + 1] = now_s
        self._others = [
            at for at in range(0, 2 * MAX_WORKERS, 2) if at != self._mine and 0.0 <= now_s - board[at + 1] < FRESH_S
        ]

    def leave(self) -> None:
        """This worker takes no more connections."""
        self._board[self._mine + 1] = -FRESH_S

    def opened(self) -> None:
        """Count one connection more."""
        self._board[self._mine] += 1.0

    def closed(self) -> None:
        """Count one connection less."""
        self._board[self._mine] -= 1.0

    @property
    def is_ahead(self) -> bool:
        """Whether another worker has clearly fewer connections: by more than two and an eighth."""
        board = self._board
        mine = board[self._mine]
        return any(mine > 2 + 1.125 * board[at] for at in self._others)


class BalancedServer(StreamServer):
    """gevent's server of one listening socket, which leaves connections to other workers while this one is ahead.

    `handle` has to call `Share.closed` when its connection has ended.
    """

    max_accept = MOST_AT_ONCE

    def __init__(self, share: ConnectionShare, listener: Listener, handle: Handle, pool: Pool) -> None:
        super().__init__(listener, handle=handle, spawn=pool)
        self._share = share
        self._is_looking = self._may_take_one = False

    def do_read(self) -> tuple[Client, Address] | None:
        """Accept a connection if one is waiting and this worker may have it."""
        if self._share.is_ahead and not self._may_take_one:
            self.stop_accepting()
            if not self._is_looking:
                self._is_looking = True
                spawn(self._retry)
            return None
        self._may_take_one = False
        taken: tuple[Client, Address] | None = super().do_read()
        if taken:
            self._share.opened()
        return taken

    def _retry(self) -> None:
        """Look several times whether another worker takes what is waiting, then accept again."""
        for delay_s in RETRY_DELAYS_S:
            with self.loop.timer(delay_s) as timer:
                get_hub().wait(timer)
            if not self.started:
                return
            self._may_take_one = has_bytes(self.socket)
            if not (self._may_take_one and self._share.is_ahead):
                break
        self._is_looking = False
        self.start_accepting()
