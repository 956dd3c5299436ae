"""The real nginx with the configuration of the stack, in front of a small server in this process."""

from __future__ import annotations

import http.client
import io
import os
import socket
import socketserver
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.types import WSGIApplication

import msgspec
from flask import Flask

from benchmarks.free_ports import free_port
from tableside import settings as app_settings
from tableside.deployment import layout, nginx
from tableside.factory import create_app
from tableside.process.offload import make_offload
from tableside.serving.registry import Registry
from tableside.serving.reloading import THREADS
from tableside.settings import Settings
from tableside.telemetry import metrics
from tests.conftest import registry_of, serve
from tests.fakes import SumRuntime, numbers
from tests.waiting import wait_until

PREDICT = "/v1/models/sums:predict"
PROXY, CALLER = "127.0.0.1", "127.0.0.2"
"""Two addresses of this machine from which requests may come: that of a proxy, and that of any other client."""


class Listener(socketserver.ThreadingUnixStreamServer):
    """Listens where nginx expects the workers."""

    daemon_threads = True
    request_queue_size = 1024

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        return self.socket.accept()[0], ("nginx", 0)

    def handle_error(self, *_: object) -> None:
        """Say nothing: a test has cut a connection."""


def serving(application: WSGIApplication) -> type[BaseHTTPRequestHandler]:
    """Return a handler that calls a WSGI application with what gunicorn would put into the environ."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            url = self.requestline.split(" ")[1]
            path, _, query = url.partition("?")
            length = self.headers.get("Content-Length", "0")
            environ: dict[str, Any] = {
                "REQUEST_METHOD": self.command, "SCRIPT_NAME": "",
                "PATH_INFO": unquote_to_bytes(path).decode("latin-1"), "QUERY_STRING": query, "RAW_URI": url,
                "SERVER_NAME": "localhost", "SERVER_PORT": "80", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "",
                "CONTENT_LENGTH": length,
                "CONTENT_TYPE": self.headers.get("Content-Type", ""), "wsgi.version": (1, 0), "wsgi.url_scheme": "http",
                "wsgi.input": io.BytesIO(self.rfile.read(int(length))), "wsgi.errors": sys.stderr,
                "wsgi.multithread": True, "wsgi.multiprocess": False, "wsgi.run_once": False,
                "gunicorn.socket": self.connection,
            }  # fmt: skip
            for name, value in self.headers.items():
                environ.setdefault(f"HTTP_{name.upper().replace('-', '_')}", value)
            body = application(environ, self.start)
            content = b"".join(body)
            getattr(body, "close", lambda: None)()
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def start(self, status: str, headers: list[tuple[str, str]], _: object = None) -> Callable[[bytes], object]:
            self.send_response(int(status[:3]), status[4:])
            for name, value in headers:
                self.send_header(name, value)
            return self.wfile.write

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = answer

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    return Handler


@dataclass(frozen=True)
class Answer:
    """A response. said: its headers in lower case, several of one name joined by commas."""

    status: int
    said: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.content)


@dataclass(frozen=True)
class Front:
    """A running nginx of one plane."""

    port: int
    run_dir: Path

    def connect(self, source: str = PROXY) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=60, source_address=(source, 0))

    def exchange(self, sent: bytes) -> bytes:
        """Send bytes on a connection of their own, and return all that comes back."""
        with self.connect() as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            received = b""
            while part := client.recv(1 << 16):
                received += part
        return received

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, source: str = PROXY, **headers: str
    ) -> Answer:
        """Send one request. headers: underscores in their names stand for hyphens."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60, source_address=(source, 0))
        connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        said: dict[str, str] = {}
        for name, value in answer.getheaders():
            said[name.lower()] = f"{said[name.lower()]}, {value}" if name.lower() in said else value
        return Answer(answer.status, said, content)

    def logged(self, request_id: str) -> dict[str, Any]:
        """Return the line of a request in nginx's access log. nginx writes it within a second."""
        log, found = self.run_dir / "log" / "nginx-access.log", []

        def is_there() -> bool:
            found[:] = [line for line in log.read_text().splitlines() if f'"{request_id}"' in line]
            return bool(found)

        assert wait_until(is_there), log.read_text()
        line: dict[str, Any] = msgspec.json.decode(found[0])
        return line


def make_settings(run_dir: Path, **server: str) -> Settings:
    """Return settings of a stack on free ports. server: settings of the section `[server]`, by name."""
    addresses = {"listen": f"127.0.0.1:{free_port()}", "admin_listen": f"127.0.0.1:{free_port()}"}
    given = {"run_dir": str(run_dir), **addresses, **server}
    return app_settings.load({
        f"TABLESIDE__SERVER__{key.upper()}": value for key, value in given.items()
    } | {"TABLESIDE__REPOSITORY__PATH": str(run_dir)})  # fmt: skip


def sums_app(run_dir: Path, **server: str) -> tuple[Settings, Flask]:
    """Return settings as `make_settings` does, and an application with the model `sums`, which adds up two numbers."""
    settings = make_settings(run_dir, **server)
    app = create_app(settings, Registry(settings, metrics.make(), make_offload(THREADS), None))
    registry_of(app).reload(1)
    serve(app, {"sums": (numbers("a", "b"), SumRuntime())})
    return settings, app


@contextmanager
def run_folder() -> Iterator[Path]:
    """A folder with a short path: that of a Unix socket has a limit."""
    with tempfile.TemporaryDirectory(prefix="ts-") as made:
        yield Path(made)


@contextmanager
def front(
    settings: Settings, handler: type[BaseHTTPRequestHandler], planes: Iterable[str] = (layout.DATA,)
) -> Iterator[list[Front]]:
    """Start the nginx of each plane, in front of handlers on both sockets of the workers."""
    run_dir, program = settings.run_dir, layout.find_nginx(os.environ)
    assert program
    with ExitStack() as ends:
        for name in (layout.WEB_SOCKET, layout.CONTROL_SOCKET):
            server = ends.enter_context(Listener(str(run_dir / name), handler))
            threading.Thread(target=server.serve_forever, daemon=True, kwargs={"poll_interval": 0.05}).start()
            ends.callback(server.shutdown)
        fronts = []
        for plane in planes:
            nginx.write(settings, program, plane, f"tmp/{plane}.pid")
            process = subprocess.Popen(nginx.command(run_dir, program, plane), cwd=run_dir)
            ends.callback(process.wait, 60)
            ends.callback(process.terminate)
            fronts.append(Front(layout.addresses(settings)[plane][1], run_dir))
        assert wait_until(lambda: all(map(_answers, fronts)))
        yield fronts


def _answers(one: Front) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", one.port)) == 0
