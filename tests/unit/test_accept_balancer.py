"""Workers that have clearly more connections than another one leave new connections to the others."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import gevent
import gevent.socket
import pytest
from gevent.monkey import get_original
from gevent.pool import Pool

from tableside.server.accept_balancer import MAX_WORKERS, BalancedServer, ConnectionShare
from tableside.server.gunicorn_types import Address, Client
from tests.waiting import wait_until

FIRST, SECOND = 11, 12
"""gunicorn's numbers of two workers."""


@pytest.fixture
def shares() -> Iterator[tuple[ConnectionShare, ConnectionShare]]:
    """The entries of two living workers that know of each other. Other tests find them ended."""
    both = ConnectionShare(FIRST), ConnectionShare(SECOND)
    for share in both:
        share.join()
    both[0].beat()
    yield both
    for share in both:
        share.leave()


def open_connections(share: ConnectionShare, count: int) -> None:
    for _ in range(count):
        share.opened()


@pytest.mark.parametrize(("own", "other", "ahead"), [(2, 0, False), (3, 0, True), (11, 8, False), (12, 8, True)])
def test_a_worker_is_ahead_from_two_and_an_eighth_more(
    shares: tuple[ConnectionShare, ConnectionShare], own: int, other: int, ahead: bool
) -> None:
    """A worker is ahead if it has more than 2 + 1.125 times the connections of another worker."""
    open_connections(shares[0], own)
    open_connections(shares[1], other)
    assert shares[0].is_ahead is ahead
    assert not shares[1].is_ahead


def test_closed_connections_no_longer_count(shares: tuple[ConnectionShare, ConnectionShare]) -> None:
    """A worker that is ahead is not ahead any more once its connections have closed."""
    open_connections(shares[0], 3)
    assert shares[0].is_ahead
    shares[0].closed()
    assert not shares[0].is_ahead


def test_a_worker_alone_is_never_ahead() -> None:
    """Without another living worker, no connection is left to others."""
    alone = ConnectionShare(FIRST)
    alone.join()
    open_connections(alone, 1000)
    assert not alone.is_ahead
    alone.leave()


def test_a_worker_that_has_left_is_ignored(shares: tuple[ConnectionShare, ConnectionShare]) -> None:
    """After `leave`, the next heartbeat of the other worker no longer counts on the one that drains."""
    open_connections(shares[0], 3)
    shares[1].leave()
    shares[0].beat()
    assert not shares[0].is_ahead


def test_a_worker_without_heartbeat_is_ignored(
    shares: tuple[ConnectionShare, ConnectionShare], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker whose last heartbeat is more than 3 s old gets no connections left."""
    open_connections(shares[0], 3)
    now_s = time.monotonic()
    monkeypatch.setattr("time.monotonic", lambda: now_s + 2.5)
    shares[0].beat()
    assert shares[0].is_ahead
    monkeypatch.setattr("time.monotonic", lambda: now_s + 3.5)
    shares[0].beat()
    assert not shares[0].is_ahead


def test_a_new_worker_begins_with_no_connections(shares: tuple[ConnectionShare, ConnectionShare]) -> None:
    """A worker that gets the entry of a killed one does not inherit its count, even across the end of the table."""
    open_connections(shares[0], 3)
    successor = ConnectionShare(FIRST + MAX_WORKERS)
    successor.join()
    successor.beat()
    assert not successor.is_ahead


class Acceptor:
    """A server on a free port that keeps the connections it accepted."""

    def __init__(self, share: ConnectionShare) -> None:
        self.accepted: list[Client] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.server = BalancedServer(share, gevent_socket(self.listener), self.handle, Pool(10))

    def handle(self, client: Client, address: Address) -> None:
        self.accepted.append(client)


def gevent_socket(plain: socket.socket) -> socket.socket:
    """The listener as gevent's server needs it: a gevent socket."""
    return gevent.socket.socket(plain.family, plain.type, fileno=plain.detach())


@pytest.mark.parametrize("connections_of_this_worker", [0, 100], ids=["even", "ahead"])
def test_a_waiting_connection_is_accepted_in_the_end(
    shares: tuple[ConnectionShare, ConnectionShare], connections_of_this_worker: int
) -> None:
    """A worker that is ahead still accepts a connection that no other worker takes."""
    open_connections(shares[0], connections_of_this_worker)
    acceptor = Acceptor(shares[0])
    with acceptor.server as server:
        server.start()
        with socket.create_connection(("127.0.0.1", server.server_port)):
            assert wait_until(lambda: gevent.sleep(0.001) or acceptor.accepted)


def test_an_accepted_connection_is_counted(shares: tuple[ConnectionShare, ConnectionShare]) -> None:
    """Each accepted connection adds one to the worker's number: the third makes it be ahead."""
    acceptor = Acceptor(shares[0])
    with acceptor.server as server:
        server.start()
        clients = [socket.create_connection(("127.0.0.1", server.server_port)) for _ in range(3)]
        assert wait_until(lambda: gevent.sleep(0.001) or len(acceptor.accepted) == 3)
    assert shares[0].is_ahead
    for client in clients:
        client.close()


def test_a_worker_that_is_ahead_leaves_the_connection_to_another(
    shares: tuple[ConnectionShare, ConnectionShare],
) -> None:
    """A connection that another worker accepts meanwhile is not accepted here, and the server goes on."""
    open_connections(shares[0], 100)
    acceptor = Acceptor(shares[0])
    plain_socket = get_original("socket", "socket")
    with acceptor.server as server:
        server.start()
        client, other_worker = plain_socket(), plain_socket(fileno=server.socket.fileno())
        client.connect(("127.0.0.1", server.server_port))
        gevent.sleep(0)  # this worker sees the connection
        other_worker.accept()[0].close()
        other_worker.detach()
        for _ in range(10):
            gevent.sleep(0.002)
        assert acceptor.accepted == []
        with socket.create_connection(("127.0.0.1", server.server_port)):
            assert wait_until(lambda: gevent.sleep(0.001) or acceptor.accepted)
        client.close()
