"""A connection that was answered waits in the event loop for its next request, behind all others that are ready."""

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
    """A worker that serves until it is told to drain."""

    alive = True


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def connection(
    here: socket.socket, buffered: bytes | None, is_nginx: bool = True, worker: Worker | None = None
) -> Connection:
    """A connection of which `buffered` was read ahead; None: nothing was read from it yet."""
    made = Connection(here, worker or Worker(), is_nginx, KeepaliveTimers(5.0))
    if buffered is not None:
        made.unreader = SimpleNamespace(buf=io.BytesIO(buffered))
        made.unreader.buf.seek(0, io.SEEK_END)
    return made


def is_entered_at_once(one: Connection) -> bool:
    """Whether it is ready to read although nothing arrives."""

    def enter() -> None:
        with one:
            pass

    greenlet = gevent.spawn(enter)
    gevent.sleep(0.01)
    entered = greenlet.ready()
    greenlet.kill()
    one.close()
    return bool(entered)


@pytest.mark.parametrize("is_nginx", [True, False])
def test_who_waits(pair: Pair, is_nginx: bool) -> None:
    """A kept connection waits for its next bytes; a new one and one with a pipelined request are read at once."""
    here, _ = pair
    assert is_entered_at_once(connection(here, None, is_nginx))
    assert is_entered_at_once(connection(here, b"GET / HTTP/1.1", is_nginx))
    assert not is_entered_at_once(connection(here, b"", is_nginx))


def test_a_ready_connection_gives_way_to_others(pair: Pair) -> None:
    """Even if its next request is there already, every other connection that is ready is served first."""
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
    """When the worker drains, gunicorn is told to close one before its next request, and not one of another client."""
    here, there = pair
    there.send(b"GET")
    worker = Worker()
    worker.alive = False
    with pytest.raises(StopIteration), connection(here, b"", True, worker):
        pass
    with connection(here, b"", False, worker):
        pass


def test_idle_connections_are_known_while_they_wait(pair: Pair) -> None:
    """One from which nothing was read may be ended; as soon as bytes arrive it may not."""
    here, there = pair
    one = connection(here, b"")
    seen: list[int] = []

    def serve() -> None:
        with one:
            seen.append(len(one._waits.idle))

    greenlet = gevent.spawn(serve)
    gevent.sleep(0)
    assert one._waits.idle == {here}
    there.send(b"GET")
    greenlet.join(10)
    assert seen == [0]
    one.close()
