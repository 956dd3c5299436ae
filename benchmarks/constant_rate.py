"""Open-loop load at a constant rate. Latency counts from the moment a request was due (no coordinated omission).

The client is one thread on epoll. It spends 20 to 40 us of a core per request. Above about 10,000 requests/s, or when
all cores are busy, it sends late. `late_p99_ms` in the results is how late; this time is part of the latency.

CONNECTIONS are opened before the first request. The connection that was idle for the longest time is used next, because
each connection belongs to one worker of the server: a client that reuses the last connection would load one worker
only. At most MAX_CONNECTIONS are open. If all are in use, a due request waits for one, and this wait is part of its
latency too.
"""

from __future__ import annotations

import argparse
import json
import math
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONNECTIONS = 64
MAX_CONNECTIONS = 128
DRAIN_S = 3.0
_HEAD_END = b"\r\n\r\n"


def due_times(rate: float, seconds: float) -> list[float]:
    """Return, for each request, the seconds after the start at which it is due."""
    return [at / rate for at in range(int(rate * seconds))]


def percentile(ordered: list[float], share: float) -> float:
    """Return the smallest value that at least `share` of the sorted values do not exceed; NaN if there are none."""
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, max(0, math.ceil(len(ordered) * share) - 1))]


def answer_length(received: bytes) -> int | None:
    """Return the length of the whole answer in bytes, or None if `received` does not show it yet.

    The length of a chunked answer is known once its last chunk has arrived.
    """
    end = received.find(_HEAD_END)
    if end < 0:
        return None
    head = received[:end].lower()
    at = head.find(b"content-length:")
    if at >= 0:
        return end + 4 + int(head[at + 15 :].split(b"\r\n", 1)[0])
    if b"transfer-encoding: chunked" in head and received.endswith(b"0\r\n\r\n"):
        return len(received)
    return None


@dataclass
class _Connection:
    sock: socket.socket
    due_at_s: float = 0.0
    received: bytes = b""


class Client:
    """Sends `requests` in rotation to 127.0.0.1:`port`, each when it is due."""

    def __init__(self, port: int, requests: list[bytes]) -> None:
        self._port, self._requests = port, requests
        self._poll = select.epoll()
        self._idle: deque[_Connection] = deque()
        self._busy: dict[int, _Connection] = {}
        self.latencies_s: list[float] = []
        self.late_s: list[float] = []
        self.faults: dict[str, int] = {}
        self._sent = 0

    def run(self, rate: float, seconds: float) -> dict[str, Any]:
        """Send `rate` requests per second for `seconds` and return counts, rates and percentiles in milliseconds.

        The fault `unanswered` counts requests without an answer DRAIN_S after the last one was due.
        """
        self._open()
        waiting = deque(due_times(rate, seconds))
        began_at_s = time.perf_counter()
        until_s = seconds + DRAIN_S
        while waiting or self._busy:
            now_s = time.perf_counter() - began_at_s
            if now_s > until_s:
                break
            while waiting and waiting[0] <= now_s and self._send(waiting[0], began_at_s):
                waiting.popleft()
            can_send = self._idle or len(self._busy) < MAX_CONNECTIONS
            next_s = waiting[0] if waiting and can_send else until_s
            self._receive(max(0.0, next_s - (time.perf_counter() - began_at_s)), began_at_s)
        unanswered = len(waiting) + len(self._busy)
        self._close()
        if unanswered:
            self.faults["unanswered"] = unanswered
        return self._result(rate, seconds)

    def _send(self, due_s: float, began_at_s: float) -> bool:
        """Send the next request. Return False if every connection is in use."""
        if not self._idle and len(self._busy) >= MAX_CONNECTIONS:
            return False
        connection = self._idle.popleft() if self._idle else self._connect()
        if connection is None:
            return True
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        connection.due_at_s, connection.received = due_s, b""
        try:
            connection.sock.sendall(request)
        except OSError:
            self._lose(connection, "write")
            return True
        self.late_s.append(time.perf_counter() - began_at_s - due_s)
        self._busy[connection.sock.fileno()] = connection
        return True

    def _open(self) -> None:
        """Open all connections. A failure is not counted here: the first requests fail too and are counted."""
        for _ in range(min(CONNECTIONS, MAX_CONNECTIONS)):
            connection = self._connect()
            if connection is None:
                self.faults.clear()
                return
            self._idle.append(connection)

    def _connect(self) -> _Connection | None:
        try:
            sock = socket.create_connection(("127.0.0.1", self._port), timeout=5)
        except OSError:
            self._fault("connect")
            return None
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._poll.register(sock.fileno(), select.EPOLLIN)
        return _Connection(sock)

    def _receive(self, wait_s: float, began_at_s: float) -> None:
        # select() on the epoll descriptor has a finer timeout than epoll, whose timeout is in whole milliseconds.
        select.select([self._poll.fileno()], [], [], wait_s)
        for number, _ in self._poll.poll(0):
            connection = self._busy.get(number)
            if connection is None:
                self._forget_idle(number)
                continue
            try:
                data = connection.sock.recv(65536)
            except OSError:
                data = b""
            if data:
                self._feed(connection, data, began_at_s)
            else:
                self._busy.pop(number)
                self._lose(connection, "read")

    def _feed(self, connection: _Connection, data: bytes, began_at_s: float) -> None:
        connection.received += data
        length = answer_length(connection.received)
        if length is None or len(connection.received) < length:
            return
        self._busy.pop(connection.sock.fileno())
        self.latencies_s.append(time.perf_counter() - began_at_s - connection.due_at_s)
        if not connection.received.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
            self._fault("status")
        if b"connection: close" in connection.received[:1024].lower():
            self._drop(connection)
        else:
            self._idle.append(connection)

    def _forget_idle(self, number: int) -> None:
        """Drop an idle connection that the server has closed."""
        for connection in [each for each in self._idle if each.sock.fileno() == number]:
            self._idle.remove(connection)
            self._drop(connection)

    def _lose(self, connection: _Connection, kind: str) -> None:
        self._fault(kind)
        self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        self._poll.unregister(connection.sock.fileno())
        connection.sock.close()

    def _fault(self, kind: str) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1

    def _close(self) -> None:
        for connection in [*self._idle, *self._busy.values()]:
            connection.sock.close()
        self._poll.close()

    def _result(self, rate: float, seconds: float) -> dict[str, Any]:
        ordered, late = sorted(self.latencies_s), sorted(self.late_s)
        return {
            "requests": len(ordered),
            "asked_rate": rate,
            "rate": len(ordered) / seconds,
            "p50_ms": percentile(ordered, 0.5) * 1e3,
            "p99_ms": percentile(ordered, 0.99) * 1e3,
            "max_ms": ordered[-1] * 1e3 if ordered else float("nan"),
            "late_p99_ms": percentile(late, 0.99) * 1e3,
            "faults": self.faults,
        }


def http_request(path: str, headers: dict[str, str], body: bytes) -> bytes:
    """Return the bytes of a POST request."""
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", *(f"{key}: {value}" for key, value in headers.items())]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def open_loop(port: int, path: str, headers: dict[str, str], bodies: list[bytes], rate: float, seconds: float) -> Any:
    """Run Client.run in a separate process, so that the other work of the harness does not delay it."""
    requests = [http_request(path, headers, body).decode("latin-1") for body in bodies]
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(requests, file)
        file.flush()
        command = [sys.executable, str(Path(__file__).resolve()), "--requests", file.name, "--port", str(port)]
        command += ["--rate", str(rate), "--seconds", str(seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=seconds + DRAIN_S + 60)
    return json.loads(done.stdout)


def main() -> None:
    """Read the requests from a JSON file, run the load and print the result as JSON."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--port", type=int, required=True)
    arguments.add_argument("--rate", type=float, required=True)
    arguments.add_argument("--seconds", type=float, required=True)
    arguments.add_argument("--requests", type=Path, required=True)
    chosen = arguments.parse_args()
    requests = [request.encode("latin-1") for request in json.loads(chosen.requests.read_text())]
    client = Client(chosen.port, requests)
    sys.stdout.write(json.dumps(client.run(chosen.rate, chosen.seconds)))


if __name__ == "__main__":
    main()
