"""A response has the bytes that gunicorn would send, and what gunicorn refuses to send is not sent."""

from __future__ import annotations

from typing import Any

import gevent
import pytest
from gunicorn.config import Config
from gunicorn.http import RequestParser, wsgi

from tableside.server import one_send_response
from tableside.server.one_send_response import OneSendResponse

JSON = ("Content-Type", "application/json")
STATUSES = ["200 OK", "200", "404 Not Found", "204 No Content", "304 Not Modified", "101 Switching Protocols", "100 C",
            "2000 OK", "20 OK", "abc OK", "200  OK", "200 OK\r\nX: y", "", "200\tOK", "503 caf\xe9", b"200 OK", None,
            "200 OK\n"]  # fmt: skip
HEADERS: list[list[Any]] = [
    [], [JSON], [JSON, ("content-length", "4")], [("Content-Length", " 4 ")], [("Content-Length", "2")],
    [("Content-Length", "0")], [("Content-Length", "x")], [("Content-Length", "4\n")], [("X", " a b\t")], [("X", "")],
    [("X", "\t a")], [("X", "caf\xe9")], [("X", "a\r\nSet-Cookie: b")], [("X", "a\nb")], [("X", "a\rb")], 
    [("X", "a\0")],
    [("X", "a\x7f")], [("X", "\u2028")], [("X", "\u0100")], [("X\r\nY", "a")], [("X Y", "a")], [("", "a")],
    [("X:", "a")], [("Caf\xe9", "a")], [(b"X", "a")], [("X", b"a")], [("X", None)], [(None, "a")], [(["X"], "a")],
    [("Connection", "close")], [("Connection", "Upgrade"), ("Upgrade", "WebSocket")], [("Upgrade", "h2c")],
    [("Transfer-Encoding", "chunked")], [("Keep-Alive", "5")], [("Server", "other")], [("X", "1"), ("X", "2")],
    [JSON, ("X", "a\nb")], [("X", "a", "b")], ["XY"],
]  # fmt: skip
BODIES = [(), (b"",), (b"body",), (b"bo", b"dy"), (b"", b"body"), ("text",)]
REQUESTS = [f"{method} / HTTP/{version}\r\n{more}\r\n".encode() for method, version, more in (
    ("GET", "1.1", "Host: a\r\n"), ("HEAD", "1.1", "Host: a\r\n"), ("GET", "1.0", "Host: a\r\n"),
    ("GET", "1.1", "Connection: close\r\n"), ("GET", "1.0", "Connection: keep-alive\r\n"),
)]  # fmt: skip
CFG = Config()


class Wire:
    """A socket that keeps the bytes that were sent."""

    def __init__(self) -> None:
        self.sent = b""

    def send(self, content: bytes) -> int:
        self.sent += bytes(content)
        return len(content)

    sendall = send


def answer(kind: Any, request: bytes, status: Any, headers: Any, body: Any) -> Any:
    """The lines that were sent, without the date, and whether the connection ends or how the response failed."""
    sock = Wire()
    response = kind(next(RequestParser(CFG, [request], ("127.0.0.1", 9))), sock, CFG)
    try:
        write = response.start_response(status, headers)
        assert write == response.write
        for piece in body:
            response.write(piece)
        response.close()
        ended: Any = response.should_close()
    except Exception as problem:
        ended = type(problem), str(problem)
        sock.sent = b""  # gunicorn's own class may have sent the head already
    return [line for line in sock.sent.split(b"\r\n") if not line.startswith(b"Date: ")], ended


@pytest.mark.parametrize("request_", REQUESTS, ids=str)
def test_responses_are_those_of_gunicorn(request_: bytes) -> None:
    """Each status and each header, with each body, gives the same bytes or the same error as gunicorn's class."""
    cases = [(status, [JSON], body) for status in STATUSES for body in BODIES]
    cases += [("200 OK", headers, body) for headers in HEADERS for body in BODIES]
    for status, headers, body in cases:
        wanted = answer(wsgi.Response, request_, status, headers, body)
        assert answer(OneSendResponse, request_, status, headers, body) == wanted, (status, headers, body)


@pytest.mark.parametrize("bad", ["a\r\nSet-Cookie: b", "a\nb", "a\rb", "a\0b"])
def test_a_line_end_in_a_header_sends_nothing(bad: str) -> None:
    """A line end in a value, a name or a status is an error, before any byte is sent."""
    for status, headers in (("200 OK", [("X-Request-ID", bad)]), ("200 OK", [(bad, "a")]), (f"200 {bad}", [])):
        sent, ended = answer(OneSendResponse, REQUESTS[0], status, headers, (b"body",))
        assert sent == [b""]
        assert isinstance(ended, tuple)


def test_an_error_after_the_start() -> None:
    """With exc_info (PEP 3333) a second start replaces the first, until bytes were sent; without it, it is an error."""
    response = OneSendResponse(next(RequestParser(CFG, [REQUESTS[0]], "")), Wire(), CFG)
    response.start_response("200 OK", [JSON])
    with pytest.raises(AssertionError):
        response.start_response("200 OK", [JSON])
    mistake = ValueError("late")
    response.start_response("500 Wrong", [], (ValueError, mistake, None))
    assert response.status == "500 Wrong"
    response.write(b"x")
    with pytest.raises(ValueError, match="late"):
        response.start_response("500 Wrong", [], (ValueError, mistake, None))


class Counting(Wire):
    """A socket that counts its calls. `send` takes at most `most` bytes."""

    def __init__(self, most: int = 1 << 30) -> None:
        super().__init__()
        self.calls, self.most = 0, most

    def send(self, content: bytes) -> int:
        self.calls += 1
        return super().send(content[: self.most])

    def sendall(self, content: bytes) -> None:
        self.calls += 1
        super().send(content)


@pytest.mark.parametrize("most", [1 << 30, 10], ids=["whole", "in part"])
def test_head_and_body_leave_in_one_send(most: int) -> None:
    """One call sends both; if the kernel takes a part, another sends the rest. Later pieces are sent alone."""
    sock = Counting(most)
    response = OneSendResponse(next(RequestParser(CFG, [REQUESTS[0]], "")), sock, CFG)
    response.start_response("200 OK", [JSON, ("Content-Length", "8")])
    assert sock.calls == 0
    response.write(b"body")
    assert sock.calls == (1 if most > 10 else 2)
    assert sock.sent.endswith(b"\r\n\r\nbody")
    response.write(b"more")
    assert sock.sent.endswith(b"bodymore")


def test_a_slow_answer_ends_a_connection_of_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a slow response a connection over a Unix socket is closed, and one over TCP is kept."""
    monkeypatch.setattr(one_send_response, "SLOW_S", -1.0)
    for peer, kept in (("", b"close"), (("127.0.0.1", 9), b"keep-alive")):
        sock = Wire()
        response = OneSendResponse(next(RequestParser(CFG, [REQUESTS[0]], peer)), sock, CFG)
        response.start_response("200 OK", [("Content-Length", "0")])
        response.close()
        assert b"Connection: " + kept in sock.sent
        assert response.should_close() == (kept == b"close")


def test_a_fast_answer_keeps_a_connection_of_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    """A response within `SLOW_S` does not close the connection."""
    monkeypatch.setattr(one_send_response, "SLOW_S", 1000.0)
    sock = Wire()
    response = OneSendResponse(next(RequestParser(CFG, [REQUESTS[0]], "")), sock, CFG)
    response.start_response("200 OK", [("Content-Length", "0")])
    response.close()
    assert b"Connection: keep-alive" in sock.sent
    assert not response.should_close()


def test_a_large_body_is_not_copied() -> None:
    """A body above `ONE_SEND_BYTES` is sent after its head: the same bytes in more than one call."""
    sock = Counting()
    body = b"x" * (one_send_response.ONE_SEND_BYTES + 1)
    response = OneSendResponse(next(RequestParser(CFG, [REQUESTS[0]], "")), sock, CFG)
    response.start_response("200 OK", [("Content-Length", str(len(body)))])
    response.write(body)
    response.close()
    assert sock.calls > 1
    assert sock.sent.partition(b"\r\n\r\n")[2] == body


def test_other_requests_run_before_an_answer_is_sent() -> None:
    """A send wakes a client, which competes for the core: greenlets that are ready run first."""
    sock, sent_before = Wire(), list[bytes]()
    response = OneSendResponse(next(RequestParser(CFG, [REQUESTS[0]], "")), sock, CFG)
    response.start_response("200 OK", [("Content-Length", "4")])
    gevent.spawn(lambda: sent_before.append(sock.sent))
    response.write(b"body")
    assert sent_before == [b""]
    assert sock.sent.endswith(b"body")


def test_gunicorn_makes_it_once_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`install` replaces the class that gunicorn looks up for each request."""
    monkeypatch.setattr(wsgi, "Response", wsgi.Response)  # restores it afterwards
    one_send_response.install()
    response, _ = wsgi.create(next(RequestParser(CFG, [REQUESTS[0]], ("127.0.0.1", 9))), Wire(), ("", 9), ("", 80), CFG)
    assert type(response) is OneSendResponse
