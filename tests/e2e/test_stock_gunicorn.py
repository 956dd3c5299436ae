"""Tableside's worker class answers every request as gunicorn's gevent worker does, apart from errors in JSON."""

from __future__ import annotations

import html
import json
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.free_ports import free_port
from tests.e2e.conftest import PROJECT
from tests.e2e.test_worker import Server, get, post, rest_of, served

pytestmark = pytest.mark.e2e
APPLICATION = '''
def application(environ, start_response):
    """Answers with the environ and the body, without what differs from server to server."""
    body = environ["wsgi.input"].read()
    left_out = ("REMOTE_PORT", "SERVER_PORT")
    kept = sorted((k, v) for k, v in environ.items() if isinstance(v, str) and k not in left_out)
    answer = repr((kept, body)).encode()
    path = environ["PATH_INFO"]
    if path == "/fails":
        raise ValueError("fails")
    if path == "/bad-header":
        start_response("200 OK", [("X", "a\\r\\nb")])
    elif path == "/empty":
        start_response("204 No Content", [])
        return []
    elif path == "/pieces":
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [answer[:10], answer[10:]]
    else:
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
'''
CHUNKED = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n"
GOOD = {
    "get": get(b"/a"),
    "post": post(b"/a?b=%20c", b"body", b"Content-Type: application/json\r\nX-Many: 1\r\nX-Many: 2\r\n"),
    "head": b"HEAD /a HTTP/1.1\r\nHost: a\r\n\r\n",
    "http 1.0": b"GET /a HTTP/1.0\r\n\r\n",
    "http 1.0, kept": b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "closing": get(b"/a", b"Connection: close\r\n"),
    "pipelined": post(b"/a", b"one") + get(b"/b") + post(b"/pieces", b"two") + get(b"/empty") + get(b"/c"),
    "chunked": CHUNKED + b"\r\n3;ext=1\r\none\r\n0\r\nX-Trailer: y\r\n\r\n" + get(b"/b"),
    "an expectation": post(b"/a", b"one", b"Expect: 100-continue\r\n"),
    "escapes and dots": get(b"/caf%C3%A9/..//%2f?x=1#y"),
    "absolute": get(b"http://b:80/x"),
    "asterisk": b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
    "forwarded": get(b"/a", b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 1.2.3.4\r\n"),
    "an underscore": get(b"/a", b"X_Y: 1\r\nContent_Length: 9\r\n"),
    "obs-text": get(b"/a", b"X: caf\xc3\xa9 \xff\r\n"),
    "an upgrade": get(b"/a", b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAAA\r\n"),
    "an error of the application": get(b"/fails") + get(b"/b"),
    "a bad header of the application": get(b"/bad-header") + get(b"/b"),
}
BAD = {
    "nothing": b"",
    "half a head": b"GET / HTTP/1.1\r\nHo",
    "half a body": post(b"/a", b"body")[:-2],
    "empty lines first": b"\r\n\r\n" + get(b"/a"),
    "two lengths": post(b"/a", b"body", b"Content-Length: 4\r\n") + get(b"/b"),
    "two unlike lengths": post(b"/a", b"body", b"Content-Length: 5\r\n") + get(b"/b"),
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4, 4\r\n\r\nbody",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +4\r\n\r\nbody",
    "a length of other digits": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: \xb2\r\n\r\nbody",
    "chunked and a length": CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + get(b"/b"),
    "chunked twice": CHUNKED + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + get(b"/b"),
    "an unknown coding": post(b"/a", b"body", b"Transfer-Encoding: br\r\n") + get(b"/b"),
    "a bad chunk": CHUNKED + b"\r\nzz\r\n" + get(b"/b"),
    "a chunk without an end": CHUNKED + b"\r\n3\r\noneX" + get(b"/b"),
    "two hosts": get(b"/a", b"Host: b\r\n"),
    "folded": get(b"/a", b"X: a\r\n b\r\n"),
    "a space before the colon": get(b"/a", b"X : a\r\n"),
    "no colon": get(b"/a", b"X\r\n"),
    "a bad name": get(b"/a", b"X(y): a\r\n"),
    "a bare carriage return": get(b"/a", b"X: a\rb\r\n"),
    "a bare line feed": get(b"/a", b"X: a\nContent-Length: 5\r\n"),
    "a null": get(b"/a", b"X: a\0b\r\n"),
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "too many fields": get(b"/a", b"".join(b"X-%d: y\r\n" % at for at in range(200))),
    "too long a field": get(b"/a", b"X: " + b"y" * 9000 + b"\r\n"),
    "too long a line": get(b"/" + b"y" * 5000),
    "a small method": b"get / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version 2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a space in the path": get(b"/a b"),
    "a bad address": get(b"http://[b/"),
    "a bad expectation": get(b"/a", b"Expect: more\r\n"),
    "two schemes": get(b"/a", b"X-Forwarded-Proto: https\r\nX-Forwarded-Ssl: off\r\n"),
    "a script name": get(b"/a/b", b"Script_Name: /a\r\n"),
    "what follows is no request": post(b"/a", b"bo") + b"dy" + get(b"/b"),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
}
ERROR = re.compile(
    r"Content-Type: text/html\r\nContent-Length: \d+\r\n\r\n.*?<h1><p>(.*?)</p></h1>\s*(.*?)\s*</body>.*?</html>\n",
    re.S,
)
JSON_ERROR = re.compile(
    r"Content-Type: application/json\r\nX-Request-ID: \w+\r\nContent-Length: \d+\r\n\r\n(\{.*\})$", re.S
)
LIMITS = re.compile(r" \((more than|the URL has more than) \d+ .*, see server\.max_.*\)$")
"""What this server's errors add: the limits, and where they are set."""


def comparable(answer: bytes) -> str:
    """Return an answer with the texts of error pages in place of their HTML or JSON, and without dates."""
    text = re.sub(r"Date: .*?\r\n", "", answer.decode("latin-1"))
    text = ERROR.sub(lambda found: ": ".join(filter(None, (found[1], html.unescape(found[2])))), text)
    return JSON_ERROR.sub(lambda found: LIMITS.sub("", json.loads(found[1])["detail"]), text)


def reply(server: Server, raw: bytes, unix: bool, pieces: int = 1) -> str:
    """Send `raw` in so many pieces and return all answers until the server closes the connection."""
    with server.connect(unix) as client:
        try:
            for at in range(pieces):
                client.sendall(raw[len(raw) * at // pieces : len(raw) * (at + 1) // pieces])
            client.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server closed the connection before everything was sent
        return comparable(rest_of(client)).replace(server.path, "THE SOCKET")


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(Server(tmp_path_factory.mktemp("plain"), application=APPLICATION))


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(Server(tmp_path_factory.mktemp("stock"), worker_class="gevent", application=APPLICATION))


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("name", GOOD | BAD)
def test_the_same_bytes_get_the_same_answer(ours: Server, stock: Server, name: str, unix: bool) -> None:
    """Both worker classes give the same answers: status, headers, environ, body, count and end of connection."""
    raw = (GOOD | BAD)[name]
    wanted = reply(stock, raw, unix)
    assert reply(ours, raw, unix) == wanted
    if name in GOOD:
        assert wanted
        assert reply(ours, raw, unix, pieces=5) == wanted


def test_errors_are_json(ours: Server) -> None:
    """An error of gunicorn itself is the same JSON error object as every other error."""
    with ours.connect() as client:
        client.sendall(get(b"/a", b"X : a\r\n"))
        head, _, body = rest_of(client).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"Content-Type: application/json" in head
    error = json.loads(body)
    assert (error["status"], error["title"], error["type"]) == (400, "Bad Request", "about:blank")
    assert error["error"] == error["detail"]


@pytest.mark.parametrize(
    ("option", "value", "setting"),
    [
        ("--proxy-protocol", "auto", "proxy_protocol"),
        ("--keep-alive", "0", "keepalive"),
        ("--protocol", "uwsgi", "protocol"),
    ],
)
def test_settings_that_cannot_be_honoured_stop_the_boot(tmp_path: Path, option: str, value: str, setting: str) -> None:
    """A setting that the worker class cannot honour ends gunicorn before it forks, and one line names it."""
    (tmp_path / "plain.py").write_text(APPLICATION)
    (tmp_path / "conf.py").write_text("")
    command = [
        sys.executable, "-m", "gunicorn", "-c", str(tmp_path / "conf.py"), "--pythonpath", str(tmp_path),
        "-k", "tableside.server.worker.TablesideWorker", "-b", f"127.0.0.1:{free_port()}", "--no-control-socket",
        option, value, "plain:application",
    ]  # fmt: skip
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 1
    refused = [line for line in ended.stderr.splitlines() if f"setting '{setting}' is refused: " in line]
    assert len(refused) == 1, ended.stderr
    assert "Booting worker" not in ended.stderr
