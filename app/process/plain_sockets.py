"""Unix sockets for exchanges with other processes of this host, on the event loop and in native threads alike.

gevent's patched sockets belong to the event loop of one thread. These are the standard library's, in non-blocking mode.
Where a call has to wait, the event loop's thread lets other greenlets run, and any other thread waits in the kernel.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

from tableside.process.offload import is_patched

_READ = 1
"""An event of gevent's watchers: the descriptor can be read."""


class PlainSocket(Protocol):
    """What is used of a socket of the standard library."""

    def fileno(self) -> int:
        """Return the file descriptor."""

    def connect(self, address: str, /) -> None:
        """Connect to the path of a unix socket."""

    def send(self, data: bytes | bytearray | memoryview, /) -> int:
        """Send some bytes and return their number."""

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return up to `size` bytes; no bytes at the end of the connection."""

    def recv_into(self, buffer: memoryview, /) -> int:
        """Read into a buffer and return the number of bytes."""

    def close(self) -> None:
        """Close the socket."""


class _Watcher(Protocol):
    """What is used of a watcher of gevent's event loop."""

    def close(self) -> None: ...


class _Poll(Protocol):
    def register(self, fd: int, eventmask: int, /) -> None: ...

    def poll(self, timeout_ms: float, /) -> list[tuple[int, int]]: ...


def _unpatched(module: str, name: str, default: object) -> object:
    if not is_patched():
        return default
    from gevent.monkey import get_original

    found: object = get_original(module, name)
    return found


def connect(path: str) -> PlainSocket:
    """Connect to a unix socket. Raises OSError if nothing listens there."""
    make: Callable[[int, int], PlainSocket] = _unpatched("socket", "socket", socket.socket)  # type: ignore[assignment]
    made = make(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.set_blocking(made.fileno(), False)
        made.connect(path)
    except BaseException:
        made.close()
        raise
    return made


def adopt(fd: int) -> PlainSocket:
    """Make a socket of the descriptor of a connected unix socket."""
    make: Callable[[int, int, int, int], PlainSocket] = _unpatched("socket", "socket", socket.socket)  # type: ignore[assignment]
    made = make(socket.AF_UNIX, socket.SOCK_STREAM, 0, fd)
    os.set_blocking(made.fileno(), False)
    return made


def _on_event_loop() -> bool:
    return is_patched() and threading.get_native_id() == os.getpid()


class Arrival:
    """Waits until something has arrived at one socket. One caller at a time.

    It keeps the kernel's poll object and the event loop's watcher: a prediction takes less time than making them.
    """

    def __init__(self, connection: PlainSocket) -> None:
        self._fd = connection.fileno()
        make_poll: Callable[[], _Poll] = _unpatched("select", "poll", select.poll)  # type: ignore[assignment]
        self._poll = make_poll()
        self._poll.register(self._fd, select.POLLIN)
        self._watcher: _Watcher | None = None

    def is_within(self, milliseconds: int) -> bool:
        """Whether it happens within this time. The event loop stands still meanwhile, as while it computes."""
        return bool(self._poll.poll(milliseconds))

    def wait(self, give_up_at_s: float) -> None:
        """Wait for it; on the event loop other greenlets run. Raises TimeoutError at `give_up_at_s` (of
        time.monotonic).
        """
        timeout_s = max(0.0, give_up_at_s - time.monotonic())
        if not _on_event_loop():
            if not self._poll.poll(timeout_s * 1000):
                raise TimeoutError("timed out")
            return
        import gevent
        from gevent.socket import wait

        if self._watcher is None:
            self._watcher = gevent.get_hub().loop.io(self._fd, _READ)
        wait(self._watcher, timeout=timeout_s)

    def close(self) -> None:
        """Release the watcher. Call it before the socket is closed."""
        if self._watcher is not None:
            self._watcher.close()
            self._watcher = None


def wait_until_ready(connection: PlainSocket, writing: bool, give_up_at_s: float) -> None:
    """Wait until the socket can be read, or written. Raises TimeoutError at `give_up_at_s` (of time.monotonic)."""
    timeout_s = max(0.0, give_up_at_s - time.monotonic())
    if _on_event_loop():
        from gevent.socket import wait_read, wait_write

        (wait_write if writing else wait_read)(connection.fileno(), timeout=timeout_s)
        return
    make_poll: Callable[[], _Poll] = _unpatched("select", "poll", select.poll)  # type: ignore[assignment]
    poll = make_poll()
    poll.register(connection.fileno(), select.POLLOUT if writing else select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        raise TimeoutError("timed out")


def pause(seconds: float) -> None:
    """Sleep: on the event loop other greenlets run meanwhile, and in another thread other threads."""
    sleep: Callable[[float], None] = (
        time.sleep if _on_event_loop() else _unpatched("time", "sleep", time.sleep)  # type: ignore[assignment]
    )
    sleep(seconds)
