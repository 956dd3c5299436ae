"""Types of the objects that gunicorn and gevent pass to the worker class. Neither library has type hints."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Protocol

Address = tuple[str, int] | str
"""Address of a peer: host and port over TCP, an empty string over a Unix socket."""


class Client(Protocol):
    """A connection: a gevent socket."""

    def fileno(self) -> int:
        """Return the file descriptor; -1 if the socket is closed."""

    def recv(self, bufsize: int) -> bytes:
        """Return the bytes that have arrived, at most so many; none if the client has ended its side."""

    def send(self, data: bytes) -> int:
        """Send a part of the data, and return the number of bytes sent."""

    def sendall(self, data: bytes | memoryview) -> None:
        """Send all of the data."""

    def shutdown(self, how: int) -> None:
        """End one or both directions, as `socket.shutdown` does."""


class Listener(Protocol):
    """A listening socket."""

    def getsockname(self) -> Address:
        """Return the address: a string for a Unix socket."""


class Unreader(Protocol):
    """gunicorn's buffer of bytes that were received and are not parsed yet."""

    buf: BytesIO


class Request(Protocol):
    """gunicorn's parsed request."""

    method: str
    peer_addr: Address
    unreader: Unreader


class Settings(Protocol):
    """The gunicorn settings that the worker class reads."""

    timeout: int
    keepalive: int
    is_ssl: bool
    protocol: str
    proxy_protocol: str
    http_protocols: list[str]
    statsd_host: object
    limit_request_line: int
    limit_request_fields: int
    limit_request_field_size: int


class Log(Protocol):
    """gunicorn's logger."""

    def error(self, msg: str, *args: object) -> None:
        """Log at level error; `args` are formatted into `msg`."""


Handle = Callable[[Client, Address], None]
"""A function that serves one connection to its end."""
