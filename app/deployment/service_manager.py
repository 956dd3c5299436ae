"""Tells the service manager when the stack is ready: the protocol of sd_notify(3).

systemd names a datagram socket in NOTIFY_SOCKET for a unit with `Type=notify`. `tableside run` takes the variable out
of the environment of what it starts: gunicorn knows this protocol too, and says that it is ready before its workers
are.
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Mapping
from contextlib import suppress

VARIABLE = "NOTIFY_SOCKET"
_BARRIER_WAIT_MS = 5000
_MARGIN_S = 30.0
"""What a process of the stack may need beyond its own time limits, on a busy machine."""


def ready(status: str, environ: Mapping[str, str]) -> bool:
    """Say that the stack has started. status: one line for `systemctl status`.

    Return whether a service manager was told. Never raises: without one, or if it does not listen, the stack serves.
    """
    return _send(f"READY=1\nSTATUS={' '.join(status.split())}", environ)


def wait_longer(seconds: float, environ: Mapping[str, str]) -> bool:
    """Say that the stack may need so many seconds more until it is ready. Return and raise as `ready` does."""
    return _send(f"EXTEND_TIMEOUT_USEC={int((seconds + _MARGIN_S) * 1e6)}", environ)


def _send(message: str, environ: Mapping[str, str]) -> bool:
    address = environ.get(VARIABLE, "")
    if not address.startswith(("/", "@")):
        return False
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(_BARRIER_WAIT_MS / 1000)
        sender.connect("\0" + address[1:] if address.startswith("@") else address)  # @: the abstract namespace, unix(7)
        sender.sendall(message.encode())
        _wait_until_read(sender)
        return True
    return False


def _wait_until_read(sender: socket.socket) -> None:
    """Wait until the message was read. systemd finds a sender by its process, which may end right after this."""
    reading, writing = os.pipe()
    try:
        try:
            socket.send_fds(sender, [b"BARRIER=1"], [writing])
        finally:
            os.close(writing)
        waiting = select.poll()
        waiting.register(reading, select.POLLHUP)
        waiting.poll(_BARRIER_WAIT_MS)  # the other end was closed: what came before was read
    finally:
        os.close(reading)
