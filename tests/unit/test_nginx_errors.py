"""What nginx refuses before a worker sees it: the right status and a JSON error with the request's id, never a page."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import pytest

from tests.unit.test_nginx_answer_files import ask, nginx_front

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
HEAD = b"Host: localhost\r\nConnection: close\r\n\r\n"
TLS_HELLO = bytes.fromhex("160301002a010000260303") + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00"


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with nginx_front() as found:
        yield found


def exchange(port: int, sent: bytes) -> bytes:
    """Send bytes on a connection of their own, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as client:
        client.sendall(sent)
        client.shutdown(socket.SHUT_WR)
        received = b""
        while part := client.recv(1 << 16):
            received += part
    return received


@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        (b"GET /v2/models/a%00b HTTP/1.1", 400, "not valid HTTP"),
        (b"GET /v2/% HTTP/1.1", 400, "not valid HTTP"),
        (b"GET /%zz HTTP/1.1", 400, "not valid HTTP"),
        (b"GET /../x HTTP/1.1", 400, "not valid HTTP"),
        (b"GET /a\x01b HTTP/1.1", 400, "not valid HTTP"),
        (b"GET /a b HTTP/1.1", 400, "not valid HTTP"),
        (b"get / HTTP/1.1", 400, "not valid HTTP"),
        (b"OPTIONS * HTTP/1.1", 400, "not valid HTTP"),
        (b"GET / HTTP/3.0", 505, "HTTP version"),
        (b"GET / HTTP/1.1\r\nTransfer-Encoding: zip", 501, "Transfer-Encoding"),
        (b"GET / HTTP/1.1\r\nContent-Length: x", 400, "not valid HTTP"),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1", 414, "server.max_header_bytes (8192 bytes)"),
        (b"GET / HTTP/1.1\r\nAuthorization: " + b"a" * 9000, 431, "server.max_header_bytes (8192 bytes)"),
    ],
)  # fmt: skip
def test_a_clients_mistake_is_a_json_error(port: int, line: bytes, status: int, text: str) -> None:
    """Its status is that of the mistake, in the status line and in the object."""
    received = exchange(port, line + b"\r\nX-Request-ID: mine\r\n" + HEAD)
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received[:500]
    assert b"\r\nContent-Type: application/json\r\n" in head
    content = json.loads(body)
    assert content["status"] == status
    assert text in content["error"]
    request_id = re.search(rb"\r\nX-Request-ID: (\S+)", head + b"\r\n")
    assert request_id is not None
    assert request_id[1].decode() == content["instance"]


@pytest.mark.parametrize("sent", [TLS_HELLO, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_other_protocols_are_no_error_of_the_server(port: int, sent: bytes) -> None:
    """A TLS hello or the beginning of HTTP/2: an error object of a client's mistake, or nothing, and no page."""
    received = exchange(port, sent)
    assert b"<html" not in received
    assert not received or re.match(rb"HTTP/1.1 (400|505) ", received), received[:300]


def test_the_places_of_errors_are_no_paths(port: int) -> None:
    """A client that asks for them gets what any other unknown path gets."""
    for status in (400, 414, 431, 501, 505):
        assert ask(port, f"/.error/{status}", "GET")[0] == 404
