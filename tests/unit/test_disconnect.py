"""Whether a client has gone is seen on its socket, without reading and without waiting."""

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


def test_a_peer_is_there_until_it_closes() -> None:
    """A peer that is silent or has unread bytes is present; one that has closed is gone; nothing else is gone."""
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
def test_gevent_s_sockets_do_not_wait() -> None:
    """The same in a patched process, where an ordinary recv would wait for ever."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, env=environ, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.stdout.strip() == "seen", run.stderr


def test_a_reset_connection_is_gone() -> None:
    """A peer that aborts is gone at once, whatever it sent before."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        there = socket.create_connection(server.getsockname())
        here = server.accept()[0]
    with here:
        there.sendall(b"x")
        there.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        there.close()
        assert select.select([here], [], [], 10)[0]
        assert is_disconnected(here)


def test_bytes_are_seen_and_not_read() -> None:
    """A connection has bytes as soon as a read would return: with bytes or with the end."""
    here, there = socket.socketpair()
    with here, there:
        assert not has_bytes(here)
        there.send(b"x")
        assert has_bytes(here)
        assert here.recv(1) == b"x"
        assert not has_bytes(here)
        there.close()
        assert has_bytes(here)
