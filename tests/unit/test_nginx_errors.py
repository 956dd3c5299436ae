"""What nginx refuses before a worker sees it: the right status and a JSON error with the request's id, never a page."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest

from tableside.deployment import layout
from tests.nginx_fronts import Front, front, make_settings, run_folder
from tests.unit.test_nginx_answer_files import Worker
from tests.waiting import wait_until

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
HEAD = b"Host: localhost\r\nConnection: close\r\n\r\n"
TLS_HELLO = bytes.fromhex("160301002a010000260303") + bytes(32) + b"\x00\x00\x02\x13\x01\x01\x00"
PLACES = {
    "predictions": (0, b"/v1/models/a:predict"),
    "probes": (0, b"/v2/health/ready"),
    "control": (1, b"/admin/api/x"),
}
"""The number of the plane, and a path: each goes through another location of nginx."""
CHUNKED = b"\r\nTransfer-Encoding: chunked"


@pytest.fixture(scope="module")
def fronts() -> Iterator[list[Front]]:
    with run_folder() as run_dir, front(make_settings(run_dir), Worker, (layout.DATA, layout.ADMIN)) as found:
        yield found


def refused(received: bytes, status: int) -> dict[str, object]:
    """Check that the whole answer is one JSON error with that status and an id, and return it."""
    head, _, body = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), received[:500]
    assert b"\r\nContent-Type: application/json\r\n" in head
    content: dict[str, object] = json.loads(body)
    assert content["status"] == status
    request_id = re.search(rb"\r\nX-Request-ID: (\S+)", head + b"\r\n")
    assert request_id is not None
    assert request_id[1].decode() == content["instance"]
    return content


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("line", "status", "text"),
    [
        (b"GET PATH%00b HTTP/1.1", 400, "not valid HTTP"),
        (b"GET PATH% HTTP/1.1", 400, "not valid HTTP"),
        (b"GET PATH%zz HTTP/1.1", 400, "not valid HTTP"),
        (b"GET /../PATH HTTP/1.1", 400, "not valid HTTP"),
        (b"GET PATH\x01b HTTP/1.1", 400, "not valid HTTP"),
        (b"GET PATH\x00b HTTP/1.1", 400, "not valid HTTP"),
        (b"GET PATH\x7fb HTTP/1.1", 400, "not valid HTTP"),
        (b"GET PATH b HTTP/1.1", 400, "not valid HTTP"),
        (b"get PATH HTTP/1.1", 400, "not valid HTTP"),
        (b"GET PATH HTTQ/1.1", 400, "not valid HTTP"),
        (b"OPTIONS * HTTP/1.1", 400, "not valid HTTP"),
        (b"CONNECT localhost:443 HTTP/1.1", 400, "not valid HTTP"),
        (b"CONNECT PATH HTTP/1.1", 405, "Allow header"),
        (b"TRACE PATH HTTP/1.1", 405, "Allow header"),
        (b"GET PATH HTTP/3.0", 505, "HTTP version"),
        (b"POST PATH HTTP/1.1\r\nTransfer-Encoding: zip", 501, "Transfer-Encoding"),
        (b"POST PATH HTTP/1.1\r\nContent-Length: x", 400, "not valid HTTP"),
        (b"POST PATH HTTP/1.1\r\nContent-Length: -1", 400, "not valid HTTP"),
        (b"POST PATH HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1", 400, "not valid HTTP"),
        (b"POST PATH HTTP/1.1\r\nContent-Length: 1" + CHUNKED, 400, "not valid HTTP"),
        (b"GET PATH HTTP/1.1\r\nHost: other", 400, "not valid HTTP"),
        (b"GET PATH HTTP/1.1\r\nHost: a b", 400, "not valid HTTP"),
        (b"GET PATH HTTP/1.1\r\nX-Null: a\x00b", 400, "not valid HTTP"),
        (b"GET PATH?" + b"a" * 9000 + b" HTTP/1.1", 414, "server.max_url_bytes (8000 bytes)"),
        (b"GET PATH HTTP/1.1\r\nAuthorization: " + b"a" * 9000, 431, "server.max_header_bytes (8192 bytes)"),
        (b"GET PATH HTTP/1.1" + (b"\r\nX-Many: " + b"a" * 6000) * 9, 431, "32768 bytes"),
    ],
    ids=lambda value: value[:40].decode("latin-1") if isinstance(value, bytes) else None,
)  # fmt: skip
def test_a_clients_mistake_is_a_json_error(
    fronts: list[Front], place: str, line: bytes, status: int, text: str
) -> None:
    """On each plane its status is that of the mistake, in the status line and in the object."""
    plane, path = PLACES[place]
    sent = line.replace(b"PATH", path) + b"\r\nX-Request-ID: mine\r\n" + HEAD
    assert text in str(refused(fronts[plane].exchange(sent), status)["error"])


@pytest.mark.parametrize("place", PLACES)
def test_a_body_that_is_too_large_is_413(fronts: list[Front], place: str) -> None:
    """Before a byte of it has arrived, with limit and setting."""
    plane, path = PLACES[place]
    answer = fronts[plane].ask(path.decode(), "POST", b"", Content_Length="99999999999", X_Request_ID="mine")
    assert (answer.status, answer.json["status"], answer.json["max_bytes"]) == (413, 413, 67108864)
    assert "server.max_body_bytes (67108864 bytes)" in answer.json["error"]
    assert (answer.said["x-request-id"], answer.json["instance"]) == ("mine", "mine")


@pytest.mark.parametrize("place", PLACES)
def test_an_error_of_nginx_has_the_callers_ids(fronts: list[Front], place: str) -> None:
    """They come back as from a worker, and only if they are printable and not too long."""
    plane, path = PLACES[place]
    for sent, expected in (("c 1", "c 1"), ("a\tb", None), ("x" * 1025, None)):
        ids = {"X_Correlation_ID": sent, "X_Amzn_SageMaker_Custom_Attributes": sent}
        answer = fronts[plane].ask(path.decode(), "POST", b"", Content_Length="99999999999", **ids)
        assert answer.status == 413
        assert answer.said.get("x-correlation-id") == expected
        assert answer.said.get("x-amzn-sagemaker-custom-attributes") == expected


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("header", "status"), [("Transfer_Encoding", 501), ("Host", 400)])
def test_two_mistakes_are_one_error(fronts: list[Front], place: str, header: str, status: int) -> None:
    """The place of an error does not check the body again, which would be a page: nginx has one error for a request."""
    plane, path = PLACES[place]
    answer = fronts[plane].ask(path.decode(), "POST", b"", Content_Length="99999999999", **{header: "z p"})
    assert (answer.status, answer.said["content-type"]) == (status, "application/json"), answer.content
    assert answer.json["status"] == status


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("body", [b"zz\r\n", b"3\r\nabcX", b"-1\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n"])
def test_broken_chunks_are_400(fronts: list[Front], place: str, body: bytes) -> None:
    """nginx reads bodies before it passes them on."""
    plane, path = PLACES[place]
    head = b"POST " + path + b" HTTP/1.1" + CHUNKED + b"\r\n" + HEAD
    refused(fronts[plane].exchange(head + body), 400)


@pytest.mark.parametrize(
    "sent", [TLS_HELLO, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x00\x01\x02\r\n\r\n", b"GET /v2\r\n"]
)
def test_other_protocols_are_no_error_of_the_server(fronts: list[Front], sent: bytes) -> None:
    """A TLS hello, the beginning of HTTP/2, HTTP/0.9: an error object of a client's mistake, or nothing; no page."""
    for one in fronts:
        received = one.exchange(sent)
        assert b"<html" not in received.lower()
        assert not received or re.match(rb"HTTP/1.1 (400|505) ", received), received[:300]


def test_the_places_of_errors_are_no_paths(fronts: list[Front]) -> None:
    """A client that asks for them gets what any other unknown path gets: the answer of a worker, and no page."""
    for one in fronts:
        for status in (400, 414, 431, 501, 505):
            answer = one.ask(f"/.error/{status}")
            assert (answer.status, answer.content, answer.said["x-started"]) == (404, b"", "files")


@pytest.mark.parametrize("place", PLACES)
def test_without_workers_it_is_502(place: str) -> None:
    """When nothing listens on the sockets of the workers."""
    plane, path = PLACES[place]
    with run_folder() as run_dir, front(make_settings(run_dir), Worker, (layout.DATA, layout.ADMIN)) as found:
        for name in (layout.WEB_SOCKET, layout.CONTROL_SOCKET):
            (run_dir / name).unlink()
        refused(found[plane].exchange(b"GET " + path + b" HTTP/1.1\r\n" + HEAD), 502)


class Silent(Worker):
    """Takes requests, and answers none while the test runs."""

    ended = threading.Event()

    def do_POST(self) -> None:
        self.ended.wait(120)

    do_GET = do_POST


@pytest.mark.slow
def test_a_worker_that_does_not_answer_is_504() -> None:
    """On each plane, when nginx's own timeout is over, which is longer than that of the request."""
    with run_folder() as run_dir, ExitStack() as ends:
        settings = make_settings(run_dir, request_timeout_s="0.5")
        found = ends.enter_context(front(settings, Silent, (layout.DATA, layout.ADMIN)))
        ends.callback(Silent.ended.set)
        pool = ends.enter_context(ThreadPoolExecutor(2))
        waiting = [pool.submit(found[0].ask, PLACES[place][1].decode()) for place in ("predictions", "probes")]
        for answer in [each.result() for each in waiting]:
            assert (answer.status, answer.json["status"], answer.said["content-type"]) == (504, 504, "application/json")
            assert answer.json["instance"] == answer.said["x-request-id"]


def test_a_client_with_too_many_requests_is_told_when_to_come_back() -> None:
    """429 with Retry-After, as soon as it has as many open requests as it may."""
    _, path = PLACES["predictions"]
    head = b"POST " + path + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n"
    with run_folder() as run_dir, ExitStack() as opened:
        settings = make_settings(run_dir, max_connections_per_client="2")
        (data,) = opened.enter_context(front(settings, Worker))
        for _ in range(2):
            connection: socket.socket = opened.enter_context(data.connect())
            connection.sendall(head)
        assert wait_until(lambda: data.ask(path.decode(), "POST", b"{}").status == 429)
        answer = data.ask(path.decode(), "POST", b"{}")
        assert (answer.status, answer.json["status"], answer.said["retry-after"]) == (429, 429, "1")
        assert "server.max_connections_per_client" in answer.json["error"]
