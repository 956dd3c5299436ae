"""Types of what gunicorn and gevent hand to the worker class; neither library has type hints."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol

Address = tuple[str, int] | str
"""A peer's address: a tuple over TCP, an empty string over a Unix socket."""


class Client(Protocol):
    """A connection: a socket of gevent."""

    def fileno(self) -> int:
        """The file descriptor."""

    def send(self, data: bytes) -> int:
        """Send some of the data and return how many bytes."""

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of the data."""

    def shutdown(self, how: int) -> None:
        """End one or both directions, see `socket.shutdown`."""


class Listener(Protocol):
    """A listening socket of gunicorn."""

    def getsockname(self) -> Address:
        """The address; a string for a Unix socket."""


class Unreader(Protocol):
    """gunicorn's buffer of bytes that were received and not parsed yet."""

    buf: BytesIO


class Request(Protocol):
    """gunicorn's parsed request."""

    method: str
    peer_addr: Address
    unreader: Unreader


class Settings(Protocol):
    """The settings of gunicorn that are read here."""

    timeout: int
    keepalive: int
    is_ssl: bool
    protocol: str
    proxy_protocol: str
    http_protocols: list[str]
    statsd_host: object


class Log(Protocol):
    """gunicorn's logger."""

    def error(self, msg: str, *args: object) -> None:
        """Log at level error."""


Handle = Callable[[Any, Any], None]
"""`handle(client, address)`: serves one connection to its end."""
