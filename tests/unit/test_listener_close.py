"""A listening socket is closed so that late clients are refused, and connected ones are answered."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator

import pytest

from tableside.deployment import listener_close
from tests.waiting import wait_until

pytestmark = pytest.mark.no_greenlets


@pytest.fixture(params=["127.0.0.1", "::1"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    """A socket that listens on a free port, over IPv4 and over IPv6."""
    family = socket.AF_INET6 if ":" in request.param else socket.AF_INET
    with socket.create_server((request.param, 0), family=family, backlog=16) as made:
        yield made


def connect(listener: socket.socket, timeout_s: float = 10) -> socket.socket:
    return socket.create_connection(listener.getsockname()[:2], timeout=timeout_s)


def test_the_length_of_the_queue_is_known(listener: socket.socket) -> None:
    """Connections that nothing has accepted are counted, and accepting one takes it off."""
    assert listener_close.queue_length(listener) == 0
    with connect(listener), connect(listener):
        assert listener_close.queue_length(listener) == 2
        listener.accept()[0].close()
        assert listener_close.queue_length(listener) == 1


def test_a_queue_that_nobody_empties_is_reported(listener: socket.socket) -> None:
    """`settle` returns False after its time if the servers accept nothing, and True if nothing is queued."""
    with connect(listener):
        assert not listener_close.settle([listener], timeout_s=0)
        listener.accept()[0].close()
        assert listener_close.settle([listener], timeout_s=0)


def test_after_settling_no_client_gets_in_and_connected_ones_are_served(listener: socket.socket) -> None:
    """A client that connects after `settle` waits, and is refused when the socket stops listening: it is never reset.

    A connection that was queued before is accepted, and one that is open goes on. Where the kernel lets an ordinary
    user drop no packets, the client gets in until then, and the rest holds all the same.
    """
    with socket.create_server(("127.0.0.1", 0)) as other:
        drops = listener_close.drop_new_connections(other)
    assert drops or os.geteuid() != 0
    early = connect(listener)
    served, _ = listener.accept()
    queued = connect(listener)
    accepted: list[socket.socket] = []
    server = threading.Thread(target=lambda: accepted.append(listener.accept()[0]))
    server.start()
    assert listener_close.settle([listener])
    server.join(10)
    outcome: list[str] = []

    def come_late() -> None:
        try:
            connect(listener).close()
            outcome.append("connected")
        except OSError as problem:
            outcome.append(type(problem).__name__)

    late = threading.Thread(target=come_late)
    late.start()
    gets_in = wait_until(lambda: outcome or listener_close.queue_length(listener), 0.3)
    assert bool(gets_in) == (not drops)
    copy = listener.dup()  # another process has the socket too
    listener_close.stop_listening([listener])
    late.join(20)
    assert outcome == ["ConnectionRefusedError" if drops else "connected"]
    with pytest.raises(ConnectionRefusedError):
        connect(copy)
    for client, server_side in ((early, served), (queued, accepted[0])):
        client.sendall(b"question")
        assert server_side.recv(8) == b"question"
        server_side.sendall(b"answer")
        assert client.recv(6) == b"answer"
    listener_close.stop_listening([listener])  # another process may do the same
    for each in (early, served, queued, *accepted, copy):
        each.close()


def test_a_socket_without_a_filter_is_no_error() -> None:
    """What is no TCP socket can still be closed: the filter and the queue's length are reported as missing."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix:
        assert listener_close.queue_length(unix) == 0
    assert not listener_close.drop_new_connections(unix), "it is closed"
