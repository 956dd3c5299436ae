"""Connections shared out evenly among the workers.

All workers wait at one listening socket, and who wakes first takes the connection: of 64 that a client opened one after
the other the second of two workers got 3 to 27. Kept connections stay where they are, so one worker was busy and
requests waited for it beside one that was not. Now a worker that has clearly more connections than another lets others
take the new ones for a moment, and takes them only if they are still there then.
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
MOST_AT_ONCE = 16
LOOKS_S = (0.0, 0.0, 0.001, 0.001)
"""A worker that is ahead takes a connection when one was waiting at each of so many looks: where another worker takes
them, there is none at some of those. The first two are turns of the hub: connections for one request each are over by
then, and nobody is ahead any more.
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

    @property
    def count(self) -> float:
        """Its connections."""
        return self._board[self._mine]

    def closed(self) -> None:
        """It has one less."""
        self._board[self._mine] -= 1.0

    @property
    def is_ahead(self) -> bool:
        """Whether another worker has clearly fewer connections: by more than two and an eighth."""
        board = self._board
        mine = board[self._mine]
        return any(mine > 2 + 1.125 * board[at] for at in self._others)


class FairServer(StreamServer):  # type: ignore[misc]
    """gevent's server of one listening socket, which takes a connection when it is its turn."""

    def __init__(self, share: Share, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        self._share = share
        self._poll = get_original("select", "poll")()
        self._poll.register(self.socket.fileno(), select.POLLIN)
        self._looks = 0

    def do_read(self) -> Any:
        """Take a connection, if one is there. Who handles it says when it is closed."""
        taken = super().do_read()
        if taken:
            self._share.opened()
        return taken

    def _do_read(self) -> None:
        """Connections are there: take them until it is another's turn.

        One a turn of the hub would leave the last of many waiting for long, where workers are busy.
        """
        for _ in range(MOST_AT_ONCE):
            if self._share.is_ahead:
                self._looks = 0
                self._wait()
                return
            before = self._share.count
            super()._do_read()
            if self._share.count == before:
                return

    def _wait(self) -> None:
        self.stop_accepting()
        self._timer = self.loop.timer(LOOKS_S[self._looks])
        self._timer.start(self._look)

    def _look(self) -> None:
        self._looks += 1
        is_there = bool(self._poll.poll(0))
        if is_there and self._looks < len(LOOKS_S) and self.started and self._share.is_ahead:
            self._wait()
            return
        self._start_accepting_if_started()
        if is_there and self._watcher is not None:
            super()._do_read()
