"""A receiver of OTLP over HTTP, which decodes what it gets and remembers the spans."""

from __future__ import annotations

import gzip
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


@dataclass
class Received:
    """One span, with the resource of its process."""

    name: str
    trace: str
    span: str
    parent: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    is_error: bool
    state: str
    resource: dict[str, Any]
    scope: str


@dataclass
class SpanReceiver:
    """What has arrived. answer: makes the answer of the n-th message (from 0): status, headers, rejected spans."""

    port: int = 0
    spans: list[Received] = field(default_factory=list)
    messages: list[dict[str, str]] = field(default_factory=list)
    answer: Callable[[int], tuple[int, dict[str, str], int]] = lambda at: (200, {}, 0)
    tried: int = 0
    connections: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def of_trace(self, trace: str) -> list[Received]:
        """The spans of a trace, the server's span first, then by their begin."""
        found = [span for span in self.spans if span.trace == trace]
        return sorted(found, key=lambda span: (span.kind != 2, span.start_ns))

    def wait(self, look: Callable[[], Any], timeout_s: float = 30) -> Any:
        """Return what `look` returns, as soon as it is true."""
        give_up_at = time.monotonic() + timeout_s
        while not (found := look()) and time.monotonic() < give_up_at:
            time.sleep(0.02)
        return found

    def take(self, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        """Take one message. Raises DecodeError if it is none."""
        message = ExportTraceServiceRequest.FromString(body)
        status, more, rejected = self.answer(self.tried)
        self.tried += 1
        if status == 200:
            self.messages.append(headers)
            self.spans.extend(_spans(message))
        answer = ExportTraceServiceResponse()
        if rejected:
            answer.partial_success.rejected_spans = rejected
            answer.partial_success.error_message = "too old"
        return status, more, answer.SerializeToString()


def _spans(message: ExportTraceServiceRequest) -> Iterator[Received]:
    for group in message.resource_spans:
        resource = values(group.resource.attributes)
        for scope in group.scope_spans:
            for span in scope.spans:
                yield Received(
                    span.name, span.trace_id.hex(), span.span_id.hex(), span.parent_span_id.hex(), span.kind,
                    span.start_time_unix_nano, span.end_time_unix_nano, values(span.attributes),
                    span.status.code == 2, span.trace_state, resource, scope.scope.name,
                )  # fmt: skip


def values(attributes: Sequence[Any]) -> dict[str, Any]:
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in attributes}


@contextmanager
def receiving(port: int = 0, receiver: SpanReceiver | None = None) -> Iterator[SpanReceiver]:
    """Receive on a port of 127.0.0.1 until the end of the context; 0: on a free one. receiver: the one that goes on."""
    receiver = receiver or SpanReceiver()
    connected: list[socket.socket] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            receiver.connections += 1
            connected.append(self.connection)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces", self.path
            assert self.headers["Content-Type"] == "application/x-protobuf"
            status, more, answer = receiver.take(body, {k.lower(): v for k, v in self.headers.items()})
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    receiver.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        server.shutdown()
        for connection in connected:  # kept connections too: a receiver that has ended takes nothing more
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.server_close()
