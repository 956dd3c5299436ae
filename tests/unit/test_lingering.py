"""A client reads the error of a request that it has not finished sending, and is not reset."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import gevent
import pytest
from gevent import socket as green

from tableside.server import lingering
from tableside.server.lingering import linger

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[socket.AF_UNIX, socket.AF_INET], ids=["unix", "tcp"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    if request.param == socket.AF_UNIX:
        here, there = green.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:
            there = green.create_connection(server.getsockname())
            here = green.socket(fileno=server.accept()[0].detach())
    with here, there:
        yield here, there


def test_the_rest_of_a_large_body_is_dropped(pair: Pair) -> None:
    """The client can send all of it, and then reads the error to its end."""
    here, there = pair

    def refuse() -> None:
        here.sendall(b"error")
        linger(here)
        here.close()

    server = gevent.spawn(refuse)
    there.sendall(b"x" * 5_000_000)
    assert there.makefile("rb").read() == b"error"
    there.close()
    server.join(30)
    assert server.ready()


def test_a_client_that_goes_on_is_not_waited_for(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a time the connection is closed all the same; one that is closed already raises nothing."""
    here, there = pair
    monkeypatch.setattr(lingering, "LINGER_S", 0.05)
    began_s = time.monotonic()
    linger(here)
    assert time.monotonic() - began_s < 30
    there.close()
    here.close()
    linger(here)
