"""TCP ports that no other test or benchmark of this user takes, for servers that are started a moment later."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path

FIRST, LAST = 12000, 32000
"""Below the ports that Linux gives to connections of clients (32768 to 60999, net.ipv4.ip_local_port_range): a port of
those may be in use again before the server has started."""
_TRIES = 1000
_locks: list[int] = []
_given: set[int] = set()


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that is free now. No process that asks here gets it until this one ends.

    Raises OSError if none was found.
    """
    if not _locks:
        path = Path(tempfile.gettempdir(), f"tableside-ports-{os.getuid()}")
        _locks.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    for _ in range(_TRIES):
        port = random.randrange(FIRST, LAST)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise OSError(f"no free port from {FIRST} to {LAST}")


def _is_free(port: int) -> bool:
    try:
        fcntl.lockf(_locks[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)  # one byte of the file for each port
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
    except OSError:
        return False
    return True
