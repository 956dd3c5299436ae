"""gunicorn's own errors are JSON objects of the same form as all errors of this server."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator

import gunicorn.util
import pytest
from gunicorn.config import Config

from tableside.server import json_errors
from tableside.web.error_replies import body as error_body

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    here, there = socket.socketpair()
    with here, there:
        yield here, there


def sent(pair: Pair, status: int, reason: str, message: str) -> tuple[bytes, bytes]:
    """Head and body of the error that a client receives."""
    here, there = pair
    json_errors.writer(Config())(here, status, reason, message)
    here.shutdown(socket.SHUT_WR)
    head, _, body = there.makefile("rb").read().partition(b"\r\n\r\n")
    return head, body


def test_the_object_is_that_of_the_application(pair: Pair) -> None:
    """Its members are those of `tableside.web.error_replies.body`, and its detail says what gunicorn found wrong."""
    _, body = sent(pair, 400, "Bad Request", "Invalid HTTP header 'a b'")
    content = json.loads(body)
    assert re.fullmatch("[0-9a-f]{32}", content.pop("instance"))
    assert content == error_body(400, "Bad Request: Invalid HTTP header 'a b'")


def test_an_error_without_a_message_has_its_title_as_the_detail(pair: Pair) -> None:
    """gunicorn passes no message for some errors: the text is then the reason alone, without a colon."""
    _, body = sent(pair, 500, "Internal Server Error", "")
    assert json.loads(body)["detail"] == json.loads(body)["error"] == "Internal Server Error"


def test_the_head_frames_the_body_and_ends_the_connection(pair: Pair) -> None:
    """Content-Length counts bytes, not characters, and the client is told that the connection closes."""
    head, body = sent(pair, 431, "Request Header Fields Too Large", "header 'caf\xe9' is too long")
    lines = head.decode().split("\r\n")
    assert lines[0] == "HTTP/1.1 431 Request Header Fields Too Large"
    expected = {
        "Connection: close", "Content-Type: application/json", f"Content-Length: {len(body)}",
        f"X-Request-ID: {json.loads(body)['instance']}",
    }  # fmt: skip
    assert expected == set(lines[1:])
    assert len(body) > len(body.decode())


@pytest.mark.parametrize(
    ("status", "named"), [(431, "100 headers, see server.max_headers"), (414, "more than 4062 bytes"), (400, "x")]
)
def test_a_limit_is_named_with_its_setting(pair: Pair, status: int, named: str) -> None:
    """Whoever meets a limit reads its number and where it is set."""
    _, body = sent(pair, status, "Reason", "x")
    assert named in json.loads(body)["error"]
    assert ("see server.max_" in json.loads(body)["error"]) == (status != 400)


def test_gunicorn_calls_it_once_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """`install` replaces the function that gunicorn looks up for each error."""
    monkeypatch.setattr(gunicorn.util, "write_error", gunicorn.util.write_error)  # restores it afterwards
    json_errors.install(Config())
    assert gunicorn.util.write_error.__module__ == json_errors.__name__
