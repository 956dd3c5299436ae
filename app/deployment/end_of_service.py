"""The end of a stack as its clients see it: not ready, then no new connections, then the last answers.

The program that accepts the clients' connections calls the steps in this order: nginx's keeper, or without nginx the
web keeper.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Mapping
from types import TracebackType

from tableside.deployment import listener_close
from tableside.deployment.layout import ADMIN, DATA
from tableside.deployment.socket_holder import close, fetch
from tableside.deployment.stack_processes import Role, find, has_socket, wait_until
from tableside.process import lame_duck
from tableside.server.head_limits import is_behind_nginx
from tableside.settings import Settings

_CLOSE_TIMEOUT_S = 3.0
"""How long the servers may take to close their listening sockets when they have been told to end."""
_TICK_S = 0.1


class EndOfService:
    """Context manager in which readiness answers 503. Its methods close the listening TCP sockets.

    The servers must serve on until `settle` has returned, and must have been told to end before `stop_listening`.
    """

    def __init__(self, settings: Settings, descriptors: Mapping[str, int]) -> None:
        """descriptors: of the listening sockets, by name. The caller keeps them open."""
        self._run_dir, self._lame_duck_s, self._lock = settings.run_dir, settings.server.lame_duck_s, -1
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

    def serve_on(self, is_enough: Callable[[], bool] = lambda: False) -> None:
        """Wait for server.lame_duck_s, so that load balancers notice that the stack is not ready.

        is_enough: called again and again; returns True to end the wait.
        """
        wait_until(is_enough, self._lame_duck_s, poll_s=_TICK_S)

    def settle(self) -> None:
        """Let no more clients connect, and wait until the servers have accepted all that have."""
        listener_close.settle(self._listeners)

    def stop_listening(self, *servers: Role) -> None:
        """Make both ports refuse connections at once, although other processes keep the sockets open.

        servers: first wait until these have closed the sockets. To accept from a socket that does not listen would be
        an error for them.
        """
        inodes = [os.fstat(listener.fileno()).st_ino for listener in self._listeners]

        def is_closed() -> bool:
            return not any(has_socket(process, inodes) for process in find(self._run_dir, *servers))

        wait_until(is_closed, _CLOSE_TIMEOUT_S, poll_s=_TICK_S)
        listener_close.stop_listening(self._listeners)


def end_without_nginx(settings: Settings, terminate: Callable[[], None]) -> None:
    """Do all of it where gunicorn accepts the clients; nothing behind nginx.

    terminate: tells gunicorn to end, and returns at once.
    """
    if is_behind_nginx():
        return
    try:
        descriptors = fetch(settings.run_dir, timeout_s=0)
    except TimeoutError:
        return
    with EndOfService(settings, descriptors) as end:
        end.serve_on()
        end.settle()
        terminate()
        end.stop_listening(Role.GUNICORN)
    close(descriptors.values())
