"""Looks at a stack again and again, in a thread of its own, so that keys are answered while a server is slow."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from queue import Empty, Queue

from tableside.cli.remote import Remote
from tableside.cli.top import samples
from tableside.cli.top.samples import Sample
from tableside.errors import StackError

Server = Callable[[], Remote]
"""Makes the connection anew for each look: the stack on this host has another key after a new start."""


class Looker:
    """Takes a sample every so many seconds. After `start`, `newest` returns what came last.

    Only the last one is kept: a terminal that takes no output, after Ctrl-S or over a connection that hangs, stops the
    thread that reads them.
    """

    def __init__(self, server: Server, interval_s: float) -> None:
        self._server, self._interval_s = server, interval_s
        self._found: Queue[Sample | StackError] = Queue(maxsize=1)
        self._thread = threading.Thread(target=self._look, name="looker", daemon=True)

    def start(self) -> None:
        """Take the first sample at once. The thread ends with the process."""
        self._thread.start()

    def newest(self) -> Sample | StackError | None:
        """Return the newest sample, or why there is none; None if nothing has come since the last call."""
        try:
            return self._found.get_nowait()
        except Empty:
            return None

    def _keep(self, found: Sample | StackError) -> None:
        with suppress(Empty):
            self._found.get_nowait()  # nobody has taken it
        self._found.put(found)  # only this thread puts

    def _look(self) -> None:
        due_s = time.monotonic()
        while True:
            try:
                self._keep(samples.take(self._server()))
            except StackError as problem:
                self._keep(problem)
            due_s = max(due_s + self._interval_s, time.monotonic())
            time.sleep(max(0.0, due_s - time.monotonic()))
