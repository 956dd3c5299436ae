"""Connections that keep a worker waiting are ended, and none that has just sent its request."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tableside.server.keepalive import GRACE_S, KeepaliveTimers

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == socket.AF_UNIX:
        here, there = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            there = socket.create_connection(server.getsockname())
            here = server.accept()[0]
    with here, there:
        yield here, there


def ended(here: socket.socket) -> bool:
    """Whether a read returns at once with the end, and not with bytes."""
    here.setblocking(False)
    try:
        return here.recv(100) == b""
    except BlockingIOError:
        return False
    finally:
        here.setblocking(True)


def test_ended_when_due_and_not_before(pair: Pair) -> None:
    """In time it is let be, and so it is once its request is there; overdue it reads its end."""
    here, _ = pair
    waits, now_s = KeepaliveTimers(5.0), time.monotonic()
    waits.begin(here)
    waits.end_overdue(now_s + 4.9)
    assert not ended(here)
    waits.end(here)
    waits.end(here)
    waits.end_overdue(now_s + 100)
    assert not ended(here)
    waits.begin(here)
    waits.end_overdue(time.monotonic() + 5.1)
    assert ended(here)


def test_what_has_just_come_is_read(pair: Pair) -> None:
    """A request that arrives at the last moment is read, answered, and its client is not taken for gone."""
    here, there = pair
    waits = KeepaliveTimers(5.0)
    waits.begin(here)
    waits.idle.add(here)
    there.sendall(b"GET")
    waits.end_overdue(time.monotonic() + 5.1)
    waits.end_idle()
    assert here.recv(100) == b"GET"
    assert not ended(here)
    here.sendall(b"answer")
    assert there.recv(100) == b"answer"


def test_who_never_ends_is_cut_off(pair: Pair) -> None:
    """A client that sends on and on past its time is cut off: it cannot send any more."""
    here, there = pair
    waits = KeepaliveTimers(5.0)
    waits.begin(here)
    there.sendall(b"GET")
    waits.end_overdue(time.monotonic() + 5.1 + GRACE_S)
    assert there.recv(100) == b""
    with pytest.raises(OSError):
        for _ in range(1000):
            there.sendall(b"x")
            time.sleep(0.001)


def test_idle_ones_end_at_once(pair: Pair) -> None:
    """When the worker drains, those that sent nothing read their end; a closed one is no trouble."""
    here, there = pair
    waits = KeepaliveTimers(5.0)
    waits.idle.add(here)
    waits.end_idle()
    assert ended(here)
    there.close()
    here.close()
    waits.end_idle()
    waits.begin(here)
    waits.end_overdue(time.monotonic() + 100)
