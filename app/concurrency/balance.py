"""Connections shared out evenly among the workers.

All workers wait at one listening socket, and who wakes first takes the connection: of 64 that a client opened one after
the other the second of two workers got 3 to 27. Kept connections stay where they are, so one worker was busy and
requests waited for it beside one that was not. Now a worker that has more connections than another lets a new one
wait for a moment, and takes it only if it is still there then.
"""

from __future__ import annotations

import mmap
import select
import time
from typing import Any

from gevent.monkey import get_original
from gevent.server import StreamServer

MOST = 256
"""Workers that are told apart; of two with one place both would be counted as one, no worse than before."""
FRESH_S = 3.0
"""A worker that said nothing for so long is not waited for: it beats once a second."""
LOOK_S, LOOKS = 0.001, 3
"""A worker that is ahead takes a connection when one was waiting at each of so many looks: where another worker takes
them, there is none at some of those.
"""

_board = memoryview(mmap.mmap(-1, MOST * 16)).cast("d")
"""Made in the master and shared by all it forks: for each worker its connections, and when it last said that it serves
(monotonic clock).
"""


class Share:
    """One worker's place. age: gunicorn's number of it. To be made before the fork."""

    def __init__(self, age: int) -> None:
        self._board, self._mine = _board, 2 * (age % MOST)
        self._others: list[int] = []

    def join(self) -> None:
        """This worker begins to serve."""
        self._board[self._mine] = 0.0
        self.beat()

    def beat(self) -> None:
        """This worker serves; look who else does. To be called about once a second."""
        board, now_s = self._board, time.monotonic()
        board[self._mine + 1] = now_s
        self._others = [
            at for at in range(0, 2 * MOST, 2) if at != self._mine and 0.0 <= now_s - board[at + 1] < FRESH_S
        ]

    def leave(self) -> None:
        """This worker takes no more connections."""
        self._board[self._mine + 1] = -FRESH_S

    def opened(self) -> None:
        """It has a connection more."""
        self._board[self._mine] += 1.0

    def closed(self) -> None:
        """It has one less."""
        self._board[self._mine] -= 1.0

    @property
    def is_ahead(self) -> bool:
        """Whether another worker has fewer connections."""
        board = self._board
        mine = board[self._mine]
        return any(board[at] < mine for at in self._others)


class FairServer(StreamServer):  # type: ignore[misc]
    """gevent's server of one listening socket, which takes a connection when it is its turn."""

    def __init__(self, share: Share, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._share = share
        self._poll = get_original("select", "poll")()
        self._poll.register(self.socket.fileno(), select.POLLIN)
        self._looks = 0

    def _do_read(self) -> None:
        """A connection is there."""
        if not self._share.is_ahead:
            super()._do_read()
            return
        self._looks = 0
        self._wait()

    def _wait(self) -> None:
        self.stop_accepting()
        self._timer = self.loop.timer(LOOK_S)
        self._timer.start(self._look)

    def _look(self) -> None:
        self._looks += 1
        is_there = bool(self._poll.poll(0))
        if is_there and self._looks < LOOKS and self.started:
            self._wait()
            return
        self._start_accepting_if_started()
        if is_there and self._watcher is not None:
            super()._do_read()
