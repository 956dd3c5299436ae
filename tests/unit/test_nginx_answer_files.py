"""The real nginx sends answer files: with the headers of the response that named them, and not without them."""

from __future__ import annotations

import http.client
import json
import os
import socket
import socketserver
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tableside import settings as app_settings
from tableside.deployment import layout, nginx
from tableside.process.answer_files import FOLDER
from tableside.web.large_answers import HEADER, LOCATION
from tests.waiting import wait_until

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
CONTENT = json.dumps({"predictions": ["setosa"] * 1000}).encode()


class Worker(BaseHTTPRequestHandler):
    """Names the file that a path ends with, as a worker does, and answers other paths with 404."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = self.path.rpartition("/")[2]
        is_named = self.path.startswith("/v1/")
        self.send_response(200 if is_named else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Request-ID", self.headers["X-Request-ID"])
        self.send_header("X-Started", self.headers["X-Request-Start"].partition(";")[2])
        if is_named:
            self.send_header(HEADER, LOCATION + name)
            self.send_header("ETag", '"tag"')
            self.send_header("Warning", '299 - "unused"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Listener(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        return self.socket.accept()[0], ("nginx", 0)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with nginx_front() as found:
        yield found


@contextmanager
def nginx_front() -> Iterator[int]:
    """The port of an nginx of the data plane, in front of a worker that names files. Its folder has a short path."""
    with tempfile.TemporaryDirectory(prefix="ts-") as made, socket.socket() as probe, socket.socket() as other:
        run_dir = Path(made)
        probe.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        found = int(probe.getsockname()[1])
        settings = app_settings.load({
            "TABLESIDE__SERVER__RUN_DIR": made, "TABLESIDE__SERVER__LISTEN": f"127.0.0.1:{found}",
            "TABLESIDE__SERVER__ADMIN_LISTEN": f"127.0.0.1:{other.getsockname()[1]}",
        })  # fmt: skip
        (run_dir / FOLDER).mkdir(parents=True)
        (run_dir / FOLDER / "file").write_bytes(CONTENT)
        program = layout.find_nginx(os.environ)
        assert program
        nginx.write(settings, program)
        probe.close()
        with Listener(str(run_dir / layout.WEB_SOCKET), Worker) as worker:
            threading.Thread(target=worker.serve_forever, daemon=True).start()
            process = subprocess.Popen(nginx.command(run_dir, program, layout.DATA), cwd=run_dir)
            try:
                assert wait_until(lambda: _answers(found))
                yield found
            finally:
                process.terminate()
                process.wait(60)
                worker.shutdown()


def _answers(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int, path: str, method: str = "POST", **headers: str) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, b"{}" if method == "POST" else None, {"X-Request-ID": "one", **headers})
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, dict(answer.getheaders()), content


def test_a_file_is_sent_whole_with_the_headers_of_its_response(port: int) -> None:
    """Whatever the client asks for: a range or a condition on a prediction must not change it."""
    wishes = {"Range": "bytes=0-9", "If-Modified-Since": "Fri, 01 Jan 2100 00:00:00 GMT", "If-None-Match": '"other"'}
    for headers in ({}, wishes):
        status, got, content = ask(port, "/v1/file", **headers)
        assert (status, content) == (200, CONTENT)
        assert (got["Content-Type"], got["X-Request-ID"], got["ETag"]) == ("application/json", "one", '"tag"')
        assert got["Warning"] == '299 - "unused"'
        assert {"Last-Modified", "Accept-Ranges", HEADER} & set(got) == set()


def test_a_file_that_is_gone_is_an_error_to_repeat(port: int) -> None:
    """An error object with Retry-After, and no page of nginx."""
    status, got, content = ask(port, "/v1/gone")
    assert (status, got["Retry-After"], got["X-Request-ID"]) == (503, "1", "one")
    assert "try again later" in json.loads(content)["error"]


def test_clients_cannot_ask_for_files(port: int) -> None:
    """The path is passed on as any other, and the application does not know it. nginx says that it sends files."""
    for method in ("GET", "POST"):
        status, got, content = ask(port, f"{LOCATION}file", method)
        assert (status, content, got["X-Started"]) == (404, b"", "files")
