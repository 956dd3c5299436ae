"""Whether a client has gone is seen on its socket, without reading and without waiting."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from app.concurrency.peers import is_gone

CODE = """
from gevent import monkey
monkey.patch_all()
import socket
from app.concurrency.peers import is_gone
here, there = socket.socketpair()
assert not is_gone(here)
there.send(b"x")
assert not is_gone(here)
assert here.recv(1) == b"x"
there.close()
assert is_gone(here)
print("seen")
"""


def test_a_peer_is_there_until_it_closes() -> None:
    """Silent or with unread bytes it is there; closed it is gone; what is no connection says nothing."""
    here, there = socket.socketpair()
    assert not is_gone(here)
    there.send(b"x")
    assert not is_gone(here)
    assert here.recv(1) == b"x"
    there.close()
    assert is_gone(here)
    here.close()
    assert is_gone(here)
    assert not is_gone(None)


@pytest.mark.processes
def test_gevent_s_sockets_do_not_wait() -> None:
    """The same in a patched process, where an ordinary recv would wait for ever."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    run = subprocess.run(
        [sys.executable, "-c", CODE], capture_output=True, text=True, timeout=60, env=environ, check=False,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert run.stdout.strip() == "seen", run.stderr
