"""After an answer, a connection waits in the event loop behind all other connections that are ready."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from types import SimpleNamespace

import gevent
import pytest

from tableside.server.keepalive import KeepaliveTimers
from tableside.server.scheduling import Connection

Pair = tuple[socket.socket, socket.socket]


class Worker:
    """A worker that serves or drains."""

    def __init__(self, alive: bool = True) -> None:
        self.alive = alive


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def connection(
    here: socket.socket,
    buffered: bytes | None,
    is_nginx: bool = True,
    worker: Worker | None = None,
    timers: KeepaliveTimers | None = None,
) -> Connection:
    """A connection with `buffered` bytes in gunicorn's buffer; None if its first request was not read yet."""
    made = Connection(here, worker or Worker(), is_nginx, timers or KeepaliveTimers(5.0))
    if buffered is not None:
        made.unreader = SimpleNamespace(buf=io.BytesIO(buffered))
        made.unreader.buf.seek(0, io.SEEK_END)
    return made


def is_entered_at_once(one: Connection) -> bool:
    """Whether gunicorn would read from the connection although no bytes arrive."""

    def enter() -> None:
        with one:
            pass

    greenlet = gevent.spawn(enter)
    for _ in range(5):  # iterations of the event loop
        gevent.sleep(0)
    entered = greenlet.ready()
    greenlet.kill()
    one.close()
    return bool(entered)


@pytest.mark.parametrize("is_nginx", [True, False])
def test_only_a_kept_alive_connection_waits(pair: Pair, is_nginx: bool) -> None:
    """A kept-alive connection waits for bytes. A new one, and one with a pipelined request, is read at once."""
    here, _ = pair
    assert is_entered_at_once(connection(here, None, is_nginx))
    assert is_entered_at_once(connection(here, b"GET / HTTP/1.1", is_nginx))
    assert not is_entered_at_once(connection(here, b"", is_nginx))


def test_a_ready_connection_gives_way_to_others(pair: Pair) -> None:
    """Other connections that are ready are served first, even if the next request has already arrived."""
    here, there = pair
    there.send(b"GET")
    order: list[str] = []

    def busy() -> None:
        one = connection(here, b"")
        for _ in range(3):
            with one:
                order.append("busy")
        one.close()

    def other() -> None:
        order.append("other")

    gevent.joinall([gevent.spawn(busy), gevent.spawn(other)])
    assert order == ["other", "busy", "busy", "busy"]


def test_draining_ends_connections_of_nginx(pair: Pair) -> None:
    """In a draining worker gunicorn closes a connection from nginx before its next request, but not one over TCP."""
    here, there = pair
    there.send(b"GET")
    worker = Worker(alive=False)
    with pytest.raises(StopIteration), connection(here, b"", True, worker):
        pass
    with connection(here, b"", False, worker):
        pass


def test_idle_connections_are_known_while_they_wait(pair: Pair) -> None:
    """A waiting connection from nginx is idle, so that a draining worker may end it, until its bytes arrive."""
    here, there = pair
    timers = KeepaliveTimers(5.0)
    one = connection(here, b"", timers=timers)
    seen: list[int] = []

    def serve() -> None:
        with one:
            seen.append(len(timers.idle))

    greenlet = gevent.spawn(serve)
    gevent.sleep(0)
    assert timers.idle == {here}
    there.send(b"GET")
    greenlet.join(10)
    assert seen == [0]
    one.close()


def test_a_killed_connection_is_no_longer_idle(pair: Pair) -> None:
    """gunicorn kills waiting greenlets at the end of a drain: the greenlet ends, and its connection is forgotten."""
    here, _ = pair
    timers, raised = KeepaliveTimers(5.0), list[str]()
    one = connection(here, b"", timers=timers)

    def serve() -> None:
        try:
            with one:
                raised.append("nothing")
        except (StopIteration, gevent.GreenletExit) as error:
            raised.append(type(error).__name__)

    greenlet = gevent.spawn(serve)
    gevent.sleep(0)
    greenlet.kill()
    assert raised == ["GreenletExit"]
    assert timers.idle == set()
    one.close()


def test_a_connection_killed_while_its_request_is_read_closes(pair: Pair) -> None:
    """A kill while gunicorn reads a request becomes StopIteration, which closes the connection; other errors stay."""
    one = connection(pair[0], None)
    with pytest.raises(StopIteration), one:
        raise gevent.GreenletExit
    with pytest.raises(ValueError, match="bad request"), one:
        raise ValueError("bad request")
    one.close()


def test_a_closed_connection_is_never_overdue(pair: Pair) -> None:
    """`close` stops the time of a connection that is closed before its request was read."""
    here, there = pair
    timers = KeepaliveTimers(0.0)
    one = connection(here, None, timers=timers)
    one.__enter__()
    one.close()
    timers.end_overdue(float("inf"))
    there.send(b"still open")
    assert here.recv(100) == b"still open"
