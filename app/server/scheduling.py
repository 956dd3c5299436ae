"""Serve connections in turn; otherwise a few busy kept-alive connections starve all others.

A gevent socket tries to read before it waits. A client that sends its next request quickly therefore never makes its
greenlet wait, and is served again and again. Here, after each answer, a connection waits in the event loop behind all
other connections that are ready, even if its next request has already arrived.
"""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from gevent import GreenletExit, get_hub

from tableside.server.gunicorn_types import Client, Unreader
from tableside.server.keepalive import KeepaliveTimers
from tableside.server.lingering import linger_if_unread

_READ = 1


class Alive(Protocol):
    """A gunicorn worker."""

    alive: bool
    """False as soon as the worker drains."""


class Connection:
    """State of one connection, and the context manager in which gunicorn reads each of its requests.

    is_nginx: whether the connection came over a Unix socket. When the worker drains, such a connection ends before its
    next request, which nginx then sends to another worker.
    """

    def __init__(self, client: Client, worker: Alive, is_nginx: bool, keepalive: KeepaliveTimers) -> None:
        self.unreader: Unreader | None = None
        """gunicorn's buffer of received bytes; None until the first request was read."""
        self._client, self._worker, self._is_nginx, self._keepalive = client, worker, is_nginx, keepalive
        self._readable = get_hub().loop.io(client.fileno(), _READ)

    def __enter__(self) -> None:
        """Start the time that the client has for its next request, and wait for this connection's turn.

        Raises StopIteration if the worker drains and the connection is from nginx: gunicorn then closes it.
        """
        self._keepalive.begin(self._client)
        # A pipelined request is in the buffer already, so that no further bytes may arrive.
        if self.unreader is None or self.unreader.buf.tell():
            return
        if not self._is_nginx:
            self._keepalive.begin_idle(self._client)
            get_hub().wait(self._readable)
            self._keepalive.begin(self._client)
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
        """Stop the time: the request was read, or the connection has ended.

        Raises StopIteration if the greenlet was killed while it read: gunicorn then closes the connection without an
        answer.
        """
        self._keepalive.end(self._client)
        if kind is GreenletExit:
            raise StopIteration
        if kind is StopIteration:  # no further request is read
            linger_if_unread(self._client)

    def close(self) -> None:
        """Free the event loop's watcher. Call it once, when the connection has ended."""
        self._keepalive.end(self._client)
        self._readable.stop()
        self._readable.close()
