"""A socket shows whether its peer has disconnected or sent bytes, without reading and without waiting."""

from __future__ import annotations

import os
import select
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.server.disconnect import has_bytes, is_disconnected

CODE = """
from gevent import monkey
monkey.patch_all()
import socket
from tableside.server.disconnect import is_disconnected
here, there = socket.socketpair()
assert not is_disconnected(here)
there.send(b"x")
assert not is_disconnected(here)
assert here.recv(1) == b"x"
there.close()
assert is_disconnected(here)
print("seen")
"""


def test_a_peer_is_connected_until_it_closes() -> None:
    """A silent peer and one with unread bytes are connected; one that has closed is not; any other object is."""
    here, there = socket.socketpair()
    assert not is_disconnected(here)
    there.send(b"x")
    assert not is_disconnected(here)
    assert here.recv(1) == b"x"
    there.send(b"y")
    there.close()
    assert not is_disconnected(here)
    assert here.recv(1) == b"y"
    assert is_disconnected(here)
    here.close()
    assert is_disconnected(here)
    assert not is_disconnected(None)
    assert not is_disconnected("no connection")


@pytest.mark.processes
def test_a_gevent_socket_does_not_wait() -> None:
    """The check returns at once in a process that gevent has patched, where a non-blocking recv would wait."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, env=environ, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.stdout.strip() == "seen", run.stderr


def test_a_reset_connection_is_disconnected() -> None:
    """A peer that resets the connection is disconnected, even if bytes from it are unread."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here = server.accept()[0]
    with here:
        there.sendall(b"x")
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        there.close()
        assert select.select([here], [], [], 10)[0]
        assert is_disconnected(here)


def test_has_bytes_does_not_read() -> None:
    """A connection has bytes if a read would return at once, with bytes or with end-of-file."""
    here, there = socket.socketpair()
    with here, there:
        assert not has_bytes(here)
        there.send(b"x")
        assert has_bytes(here)
        assert here.recv(1) == b"x"
        assert not has_bytes(here)
        there.close()
        assert has_bytes(here)


def test_a_closed_socket_is_disconnected_and_readable() -> None:
    """A socket that this side has closed raises no error: a read of it would return at once."""
    here, there = socket.socketpair()
    here.close()
    assert is_disconnected(here)
    assert has_bytes(here)
    there.close()


def test_a_half_closed_peer_counts_as_disconnected() -> None:
    """A peer that only ends its own direction can still read, but it sends no request any more."""
    here, there = socket.socketpair()
    with here, there:
        there.shutdown(socket.SHUT_WR)
        assert is_disconnected(here)


def test_a_listener_has_bytes_if_a_connection_is_waiting() -> None:
    """The accept balancer uses this to see whether another worker has accepted the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert not has_bytes(server)
        with socket.create_connection(server.getsockname()):
            assert has_bytes(server)
            server.accept()[0].close()
            assert not has_bytes(server)
