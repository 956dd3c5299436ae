"""A proxy between a client and the stack: it keeps what the client sent, byte for byte, and what came back."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

CASE = "/__case__"
"""The path at which a driver says what it sends next: `?spelling=...&kind=...`."""
HOP = frozenset(("connection", "keep-alive", "transfer-encoding", "content-length", "host", "date", "server", "expect"))


@dataclass
class Exchange:
    """One request and its answer. kind_of_answer: its Content-Type. json_length: of a V2 answer with raw tensors."""

    spelling: str
    kind: str
    path: str
    headers: list[tuple[str, str]]
    body: bytes
    status: int
    answer: bytes
    kind_of_answer: str
    json_length: int


@dataclass
class Recorder:
    """port: where clients connect. exchanges: all POSTs so far. label: what is being sent."""

    port: int = 0
    exchanges: list[Exchange] = field(default_factory=list)
    label: tuple[str, str] = ("", "")

    def last(self, spelling: str, kind: str) -> Exchange | None:
        """The last prediction that was asked under that label, None if the client sent nothing."""
        found = [each for each in self.exchanges if (each.spelling, each.kind) == (spelling, kind)]
        return found[-1] if found else None


class _Handler(BaseHTTPRequestHandler):
    """Passes each request on to the port `target`. Both attributes are set by `recording`, in a class of its own."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    recorder = Recorder()
    target = 0

    def log_message(self, *_: object) -> None:
        """Write nothing."""

    def do_GET(self) -> None:
        """Note what comes next, or pass on."""
        parts = urlsplit(self.path)
        if parts.path != CASE:
            self._pass_on(b"")
            return
        query = parse_qs(parts.query)
        self.recorder.label = (query["spelling"][0], query["kind"][0])
        self._send(204, [], b"")

    def do_POST(self) -> None:
        """Pass on, and keep the exchange."""
        body = self._body()
        status, answer, headers = self._pass_on(body)
        kind, size = headers.get("content-type", ""), int(headers.get("inference-header-content-length", 0))
        kept = [(name, value) for name, value in self.headers.items() if name.lower() not in HOP]
        self.recorder.exchanges.append(
            Exchange(*self.recorder.label, self.path, kept, body, status, answer, kind, size)
        )

    def _body(self) -> bytes:
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _pass_on(self, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP}
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=60)
        try:
            connection.request(self.command, self.path, body or None, headers)
            response = connection.getresponse()
            answer = response.read()
        finally:
            connection.close()
        self._send(response.status, response.getheaders(), answer)
        return response.status, answer, {name.lower(): value for name, value in response.getheaders()}

    def _send(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP:
                self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def recording(target: int) -> Iterator[Recorder]:
    """Record what is sent to a port of this machine."""
    recorder = Recorder()
    handler = type("Handler", (_Handler,), {"recorder": recorder, "target": target})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    recorder.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield recorder
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
