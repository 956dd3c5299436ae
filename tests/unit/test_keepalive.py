"""A connection whose next request is overdue is ended; one whose request has just arrived is not."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from tableside.server.keepalive import GRACE_S, HEAD_S, KeepaliveTimers
from tests.waiting import wait_until

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
    """Whether a read returns end-of-file at once."""
    here.setblocking(False)
    try:
        return here.recv(100) == b""
    except BlockingIOError:
        return False
    finally:
        here.setblocking(True)


def test_ended_when_due_and_not_before(pair: Pair) -> None:
    """A connection is ended after `allowed_s`, but not before, and not after its request was read."""
    here, _ = pair
    timers, now_s = KeepaliveTimers(5.0), time.monotonic()
    timers.begin(here)
    timers.end_overdue(now_s + 4.9)
    assert not ended(here)
    timers.end(here)
    timers.end(here)
    timers.end_overdue(now_s + 100)
    assert not ended(here)
    timers.begin(here)
    timers.end_overdue(time.monotonic() + 5.1)
    assert ended(here)


def test_a_request_that_has_just_arrived_is_read(pair: Pair) -> None:
    """A connection with unread bytes is not ended when it is overdue, nor when the worker drains."""
    here, there = pair
    timers = KeepaliveTimers(5.0)
    timers.begin(here)
    timers.idle.add(here)
    there.sendall(b"GET")
    timers.end_overdue(time.monotonic() + 5.1)
    timers.end_idle()
    assert here.recv(100) == b"GET"
    assert not ended(here)
    here.sendall(b"answer")
    assert there.recv(100) == b"answer"


def test_a_client_that_keeps_sending_is_disconnected(pair: Pair) -> None:
    """A client that sends bytes without ever completing a request can send no more after the grace period."""
    here, there = pair
    timers = KeepaliveTimers(5.0)
    timers.begin(here)
    there.sendall(b"GET")
    timers.end_overdue(time.monotonic() + 5.1 + GRACE_S)
    assert there.recv(100) == b""

    def is_refused() -> bool:
        try:
            there.sendall(b"x")
        except OSError:
            return True
        return False

    assert wait_until(is_refused)


def test_a_client_that_sends_within_the_grace_period_is_not_disconnected(pair: Pair) -> None:
    """An overdue connection with unread bytes stays open until the grace period has passed, too."""
    here, there = pair
    timers, now_s = KeepaliveTimers(5.0), time.monotonic()
    timers.begin(here)
    there.sendall(b"GET")
    timers.end_overdue(now_s + 5.0 + GRACE_S * 0.9)
    there.sendall(b" /")
    assert here.recv(100) == b"GET /"


def test_a_new_request_gets_the_whole_time(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """`begin` starts the time anew: the time of the request before does not count."""
    here, _ = pair
    timers, now_s = KeepaliveTimers(5.0), time.monotonic()
    timers.begin(here)
    monkeypatch.setattr("time.monotonic", lambda: now_s + 4.0)
    timers.begin(here)
    timers.end_overdue(now_s + 8.9)
    assert not ended(here)
    timers.end_overdue(now_s + 9.1)
    assert ended(here)


def test_an_idle_connection_has_longer_than_a_head(pair: Pair) -> None:
    """Between two requests the whole time, at the start of a connection and for a head five seconds at most."""
    here, _ = pair
    timers, now_s = KeepaliveTimers(70.0), time.monotonic()
    timers.begin_idle(here)
    timers.end_overdue(now_s + 69.9)
    assert not ended(here)
    timers.begin(here)
    timers.end_overdue(now_s + HEAD_S - 0.1)
    assert not ended(here)
    timers.end_overdue(time.monotonic() + HEAD_S + 0.1)
    assert ended(here)


def test_a_worker_that_drains_waits_for_no_idle_connection(pair: Pair) -> None:
    """Connections of clients have the time of a head left, those that become idle later too."""
    here, there = pair
    timers = KeepaliveTimers(70.0)
    timers.begin_idle(here)
    timers.end_idle()
    timers.end_overdue(time.monotonic() + HEAD_S - 0.5)
    assert not ended(here)
    timers.begin_idle(there)
    timers.end_overdue(time.monotonic() + HEAD_S + 0.1)
    assert ended(here)
    assert ended(there)


def test_idle_connections_end_at_once(pair: Pair) -> None:
    """When the worker drains, idle connections are ended; one that is closed already raises no error."""
    here, there = pair
    timers = KeepaliveTimers(5.0)
    timers.idle.add(here)
    timers.end_idle()
    assert ended(here)
    there.close()
    here.close()
    timers.end_idle()
    timers.begin(here)
    timers.end_overdue(time.monotonic() + 100)
