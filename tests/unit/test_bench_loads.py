"""The benchmark's load generators: wrk's output is read, and the open loop measures from when a request was due."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from benchmarks import constant_rate, wrk
from benchmarks.constant_rate import Client, answer_length, due_times, http_request, open_loop, percentile
from benchmarks.wires import JSON, Wire

pytestmark = pytest.mark.no_greenlets

LINE = (
    '{"requests": 3000, "duration_us": 2000000, "p50_us": 500, "p99_us": 4200, "max_us": 9000, "connect": 0, '
    '"read": 2, "write": 0, "status": 0, "timeout": 5, "late": [40, 44, 3, 0]}'
)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_wrks_line_becomes_a_load() -> None:
    """The script's line is found in wrk's output, and only faults that happened are kept."""
    load = wrk.parse(f"Running 2s test @ http://127.0.0.1\n  2 threads\n{LINE}\n")
    assert (load.requests, load.rate) == (3000, 1500)
    assert (load.p50_ms, load.p99_ms, load.max_ms) == (0.5, 4.2, 9)
    assert load.faults == {"read": 2, "timeout": 5}


def test_wrk_without_a_result_raises_with_its_output() -> None:
    """If wrk printed no result line, the error holds what it printed."""
    with pytest.raises(ValueError, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1 Connection refused")


@pytest.mark.parametrize(
    ("late", "hungry"),
    [([40, 44, 3, 0], 1), ([40, 44, 2, 0], 2), ([10, 10, 10, 10], 0), ([9, 0, 0, 0], 3), ([3, 1, 1, 1], 0)],
)
def test_connections_far_below_the_mean_are_starved(late: list[int], hungry: int) -> None:
    """A connection below a tenth of the mean is starved, if there are at least two answers per connection."""
    assert wrk.count_starved(LINE.replace("[40, 44, 3, 0]", str(late))) == hungry


def test_slow_servers_get_time_to_accept() -> None:
    """The time to settle lasts n * n / 4 answers and the count 6 * n answers, each at most LONGEST_S."""
    assert wrk.fairness_times(64, 200) == (6, 2)
    assert wrk.fairness_times(64, 20_000) == (1, 2)
    assert wrk.fairness_times(64, 0) == (wrk.LONGEST_S, wrk.LONGEST_S)


def test_the_script_sends_every_body(tmp_path: Path) -> None:
    """Each body is in its own file, byte for byte, and the script reads as many files as there are bodies."""
    wire = Wire("/predict", [b'{"a":1}', b"\x00\xff"], [[0], [0]], lambda body, headers: [0], JSON)
    text = wrk.script(wire, tmp_path)
    assert [(tmp_path / str(at)).read_bytes() for at in (1, 2)] == wire.bodies
    assert "for at = 1, 2 do" in text
    assert '"/predict"' in text
    assert "@" not in text
    assert "os.time() - began >= 3" in wrk.script(wire, tmp_path, 3)


def test_due_times_and_percentiles() -> None:
    """Due times are evenly spaced from zero; a percentile is the nearest rank and never above the largest value."""
    assert due_times(4, 1) == [0, 0.25, 0.5, 0.75]
    values = [float(value) for value in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1.0)] == [50, 99, 100]
    assert percentile([7.0], 0.01) == 7


@pytest.mark.parametrize(
    ("received", "length"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Le", None),
        (OK[:-1], len(OK)),
        (OK, len(OK)),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", 59),
    ],
)
def test_the_length_of_an_answer(received: bytes, length: int | None) -> None:
    """The length of an answer is known by its Content-Length or after its last chunk."""
    assert answer_length(received) == length


@contextmanager
def server(answer: Callable[[int, bytes], bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Start a server. Yield its port and the list of bodies that it receives.

    answer: returns the bytes to send for (number of earlier requests, body); for no bytes the connection is closed.
    """
    bodies: list[bytes] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while head := b"".join(iter(stream.readline, b"\r\n")) if stream.peek(1) else b"":
                body = stream.read(int(head.split(b"Content-Length: ")[1].split(b"\r\n")[0]))
                bodies.append(body)
                sent = answer(len(bodies) - 1, body)
                if not sent:
                    return
                connection.sendall(sent)

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    accepting = threading.Thread(target=accept, daemon=True)
    accepting.start()
    try:
        yield listening.getsockname()[1], bodies
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        accepting.join(5)


REQUESTS = [http_request("/predict", JSON, body) for body in (b"one", b"two")]


@pytest.mark.processes
def test_every_request_is_sent_in_turn_and_counted() -> None:
    """The open loop in its own process sends rate * seconds requests with the bodies in rotation."""
    with server(lambda at, body: OK) as (port, bodies):
        found = open_loop(port, "/predict", JSON, [b"one", b"two"], 100, 0.3)
    assert found["requests"] == 30
    assert found["faults"] == {}
    assert sorted(bodies) == [b"one"] * 15 + [b"two"] * 15
    assert 0 < found["p50_ms"] <= found["p99_ms"] <= found["max_ms"]


@pytest.mark.processes
def test_connections_are_used_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """CONNECTIONS connections share the requests equally, so that every worker of the server is loaded."""
    monkeypatch.setattr(constant_rate, "CONNECTIONS", 4)
    users: list[int] = []

    def remember_user(at: int, body: bytes) -> bytes:
        users.append(threading.get_ident())
        return OK

    with server(remember_user) as (port, _):
        assert Client(port, REQUESTS).run(100, 0.2)["requests"] == 20
    assert [users.count(each) for each in set(users)] == [5, 5, 5, 5]


@pytest.mark.processes
def test_waiting_for_a_stalled_server_is_part_of_the_latency(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests that become due while the only connection waits count their latency from when they were due."""
    monkeypatch.setattr(constant_rate, "MAX_CONNECTIONS", 1)

    def stall_once(at: int, body: bytes) -> bytes:
        if at == 0:
            time.sleep(0.4)
        return OK

    with server(stall_once) as (port, _):
        client = Client(port, REQUESTS)
        found = client.run(50, 0.2)
    assert found["requests"] == 10
    assert sorted(client.latencies_s)[0] >= 0.4 - 0.18  # the last was due at 0.18
    assert sum(client.latencies_s) >= sum(0.4 - due_s for due_s in due_times(50, 0.2))


@pytest.mark.processes
@pytest.mark.slow
def test_faults_are_counted_by_kind() -> None:
    """Another status than 200, a connection closed without an answer, and a refused connection are counted apart."""
    with server(lambda at, body: OK.replace(b"200 OK", b"503 No") if at % 2 else OK) as (port, _):
        assert Client(port, REQUESTS).run(100, 0.1)["faults"] == {"status": 5}
    with server(lambda at, body: b"") as (port, _):
        assert Client(port, REQUESTS).run(100, 0.05)["faults"] == {"read": 5}
    assert Client(port, REQUESTS).run(100, 0.05)["faults"] == {"connect": 5}


@pytest.mark.processes
def test_a_request_that_is_never_answered_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """DRAIN_S after the last due time the client stops and counts the open requests as `unanswered`."""
    monkeypatch.setattr(constant_rate, "DRAIN_S", 0.1)
    with server(lambda at, body: OK[:20]) as (port, _):
        found = Client(port, REQUESTS).run(100, 0.05)
    assert found["faults"] == {"unanswered": 5}
    assert found["requests"] == 0
