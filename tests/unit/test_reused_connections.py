"""A load balancer that uses its connections again around nginx's keep-alive time gets no error (502 for a caller)."""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.nginx_fronts import Front, front, make_settings, run_folder
from tests.unit.test_nginx_answer_files import Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
KEEPALIVE_S = 1
"""A minute, scaled down."""
CONNECTIONS, REUSES = 250, 1000


class Balancer:
    """Sends each request on a connection that was idle, unless it sees that the server has closed it.

    A request that was sent and got no answer is sent again only if that is safe: a POST is not. failures: those that a
    caller would have got as 502.
    """

    def __init__(self, target: Front, ends: ExitStack) -> None:
        self._target, self._ends = target, ends
        self.reused, self.opened, self.failures = 0, 0, list[str]()

    def open(self) -> socket.socket:
        self.opened += 1
        return self._ends.enter_context(self._target.connect())

    def send(self, connection: socket.socket, method: bytes) -> socket.socket:
        """Send a request, on another connection if this one was closed; return the connection that was used."""
        if select.select([connection], [], [], 0)[0]:  # the end of the connection: no answer is expected
            connection = self.open()
        else:
            self.reused += 1
        try:
            self._exchange(connection, method)
        except OSError as problem:
            if method != b"GET":
                self.failures.append(repr(problem))
            connection = self.open()
            self._exchange(connection, method)
        return connection

    @staticmethod
    def _exchange(connection: socket.socket, method: bytes) -> None:
        connection.sendall(method + b" /v2/x HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n")
        answer = connection.recv(1 << 16)
        if not answer.startswith(b"HTTP/1.1 404 "):
            raise ConnectionError(answer[:200])


@pytest.fixture
def balancer() -> Iterator[Balancer]:
    with run_folder() as run_dir, ExitStack() as ends:
        (data,) = ends.enter_context(front(make_settings(run_dir, keepalive_s=str(KEEPALIVE_S)), Worker))
        yield Balancer(data, ends)


@pytest.mark.slow
def test_a_request_within_the_told_time_always_finds_its_connection_open(balancer: Balancer) -> None:
    """1000 POSTs on connections that were idle for 0.9 to 1.1 of the time: none is lost.

    Then GETs around the moment at which nginx closes, five seconds later: a client that sends them again loses none.
    """
    connections = [balancer.open() for _ in range(CONNECTIONS)]
    connections = [balancer.send(each, b"GET") for each in connections]
    answered_s = [time.monotonic()] * CONNECTIONS
    give_up_at_s = time.monotonic() + 120

    def round_of(method: bytes, first_s: float, last_s: float) -> None:
        for at, connection in enumerate(connections):
            due_s = answered_s[at] + first_s + (last_s - first_s) * at / CONNECTIONS
            assert wait_until(lambda due_s=due_s: time.monotonic() >= due_s)
            connections[at] = balancer.send(connection, method)
            answered_s[at] = time.monotonic()

    balancer.reused = 0
    while balancer.reused < REUSES and time.monotonic() < give_up_at_s:
        round_of(b"POST", KEEPALIVE_S * 0.9, KEEPALIVE_S * 1.1)
    assert balancer.reused >= REUSES
    round_of(b"GET", KEEPALIVE_S + 4.9, KEEPALIVE_S + 5.1)
    assert balancer.failures == []


def test_the_time_is_told(balancer: Balancer) -> None:
    """In a header that clients read."""
    with balancer.open() as connection:
        connection.sendall(b"GET /v2/x HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"\r\nKeep-Alive: timeout=%d\r\n" % KEEPALIVE_S in connection.recv(1 << 16)
