"""The end of a stack as its clients see it: not ready, then no new connections, then the last answers.

The program that accepts the clients' connections calls the steps in this order: nginx's keeper, or without nginx the
one of gunicorn.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from types import TracebackType

from tableside.deployment import listener_close
from tableside.deployment.layout import ADMIN, DATA
from tableside.process import lame_duck
from tableside.settings import Settings


class EndOfService:
    """Context manager in which readiness answers 503. Its methods close the listening TCP sockets.

    The servers must serve on until `settle` has returned, and must have closed their listening sockets before
    `stop_listening`: accepting from a socket that does not listen is an error.
    """

    def __init__(self, settings: Settings, descriptors: Mapping[str, int]) -> None:
        """descriptors: of the listening sockets, by name. The caller keeps them open."""
        self._run_dir, self._lock = settings.run_dir, -1
        self.lame_duck_s = settings.server.lame_duck_s
        """Seconds that the caller should go on serving, so that load balancers notice that the stack is not ready."""
        self._listeners = [socket.socket(fileno=os.dup(descriptors[name])) for name in (DATA, ADMIN)]

    def __enter__(self) -> EndOfService:
        """Make readiness answer 503. A file that cannot be locked is reported: the end must not fail because of it."""
        try:
            self._lock = lame_duck.announce(self._run_dir)
        except OSError as problem:
            sys.stderr.write(f"tableside: readiness cannot answer 503 before the end: {problem}\n")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close this process's copies of the sockets, and take the announcement back."""
        for listener in self._listeners:
            listener.close()
        if self._lock >= 0:
            os.close(self._lock)

    def settle(self) -> None:
        """Let no more clients connect, and wait until the servers have accepted all that have."""
        listener_close.settle(self._listeners)

    def stop_listening(self) -> None:
        """Make both ports refuse connections at once, although other processes keep the sockets open."""
        listener_close.stop_listening(self._listeners)
