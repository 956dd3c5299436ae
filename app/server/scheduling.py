"""Take turns between connections: without it, a few busy kept-alive connections starve all others.

A socket of gevent tries to read before it waits. The greenlet of a client that answers quickly therefore never waits,
and is served again and again. Here a connection that was answered waits in the event loop for its next request even if
that is there already, behind all other connections that are ready.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from gevent import GreenletExit, get_hub

from tableside.server.gunicorn_types import Client, Unreader
from tableside.server.keepalive import KeepaliveTimers

_READ = 1


class Alive(Protocol):
    """A worker of gunicorn."""

    alive: bool
    """False from the beginning of its drain on."""


class Connection:
    """State of one connection. As a context manager it goes around the reading of each request.

    is_nginx: whether it came by a Unix socket. When the worker drains, such a connection ends before its next request:
    nginx sends that request to another worker.
    """

    def __init__(self, client: Client, worker: Alive, is_nginx: bool, keepalive: KeepaliveTimers) -> None:
        self.unreader: Unreader | None = None
        """Set when the first request was read."""
        self._client, self._worker, self._is_nginx, self._keepalive = client, worker, is_nginx, keepalive
        self._readable = get_hub().loop.io(client.fileno(), _READ)

    def __enter__(self) -> None:
        """Start the time the client has for its next request, and wait for this connection's turn.

        Raises StopIteration, at which gunicorn closes the connection, when the worker drains.
        """
        self._keepalive.begin(self._client)
        # A pipelined request is in the buffer already: waiting for more bytes would be waiting in vain.
        if self.unreader is None or self.unreader.buf.tell():
            return
        if not self._is_nginx:
            get_hub().wait(self._readable)
            return
        if not self._worker.alive:
            raise StopIteration
        self._keepalive.idle.add(self._client)
        try:
            get_hub().wait(self._readable)
        finally:
            self._keepalive.idle.discard(self._client)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """The request is there, or the connection at its end. An idle one that is killed closes without an answer."""
        self._keepalive.end(self._client)
        if kind is GreenletExit:
            raise StopIteration

    def close(self) -> None:
        """Free the event loop's watcher."""
        self._keepalive.end(self._client)
        self._readable.stop()
        self._readable.close()
