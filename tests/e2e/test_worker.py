"""What a client sees on its connection to the worker class, under gunicorn and with a small application."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from benchmarks.free_ports import free_port
from tests.e2e.conftest import PROJECT, until

pytestmark = pytest.mark.e2e
KEEPALIVE_S = 2
APPLICATION = '''
import os


def application(environ, start_response):
    """Answer PATH=BYTES. /lazy reads nothing, /some two bytes, other paths the whole body; /who gives the pid."""
    path, body = environ["PATH_INFO"], environ["wsgi.input"]
    read = b"" if path == "/lazy" else body.read(2) if path == "/some" else body.read()
    answer = path.encode() + b"=" + (read if path != "/who" else b"%d" % os.getpid())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(answer)))])
    return [answer]
'''


class Server:
    """One gunicorn that listens on a TCP port and on a Unix socket."""

    def __init__(
        self,
        folder: Path,
        workers: int = 1,
        worker_class: str = "tableside.server.worker.TablesideWorker",
        application: str = APPLICATION,
    ) -> None:
        (folder / "plain.py").write_text(application)
        (folder / "conf.py").write_text("from gevent import monkey\nmonkey.patch_all()\n")
        self.port, self.path = free_port(), str(folder / "socket")
        self.log = (folder / "log").open("wb")
        command = [
            sys.executable, "-m", "gunicorn", "-c", str(folder / "conf.py"), "-w", str(workers),
            "-k", worker_class,
            "-b", f"127.0.0.1:{self.port}", "-b", f"unix:{self.path}", "--pythonpath", str(folder),
            "--keep-alive", str(KEEPALIVE_S), "--graceful-timeout", "20", "--no-control-socket", "plain:application",
        ]  # fmt: skip
        self.process = subprocess.Popen(command, cwd=PROJECT, stdout=self.log, stderr=self.log)
        assert until(self.answers), (folder / "log").read_text()

    def answers(self) -> bool:
        try:
            return ask(self.connect(), get(b"/", b"Connection: close\r\n")).startswith(b"HTTP/1.1 200")
        except OSError:
            return False

    def connect(self, unix: bool = False) -> socket.socket:
        if not unix:
            return socket.create_connection(("127.0.0.1", self.port), timeout=10)
        one = socket.socket(socket.AF_UNIX)
        one.settimeout(10)
        one.connect(self.path)
        return one


def get(path: bytes, more: bytes = b"") -> bytes:
    return b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n"


def post(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    return b"POST %s HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n%s\r\n%s" % (path, len(body), more, body)


LAST = get(b"/last", b"Connection: close\r\n")


def rest_of(client: socket.socket) -> bytes:
    """All bytes that arrive until the server ends the connection."""
    received = b""
    try:
        while piece := client.recv(65536):
            received += piece
    except ConnectionResetError:
        pass
    return received


def is_silent(client: socket.socket, wait_s: float) -> bool:
    """Whether nothing arrives for that time: no byte, and no end of the connection."""
    return not select.select([client], [], [], wait_s)[0]


def is_read(client: socket.socket) -> bool:
    """Whether the server has read all bytes that were sent over a Unix socket."""
    return int.from_bytes(fcntl.ioctl(client.fileno(), termios.TIOCOUTQ, bytes(4)), sys.byteorder) == 0


def close_and_wait(client: socket.socket) -> None:
    """End the connection, and wait until the server has closed its side."""
    with closing(client):
        client.shutdown(socket.SHUT_WR)
        assert rest_of(client) == b""


def ask(client: socket.socket, *pieces: bytes) -> bytes:
    """Send the pieces, each in a segment of its own, and return all that arrives until the connection ends."""
    with closing(client):
        for at, piece in enumerate(pieces):
            if at:
                is_silent(client, 0.1)
            client.sendall(piece)
        return rest_of(client)


def bodies(answers: bytes) -> list[bytes]:
    return [part.rpartition(b"\r\n\r\n")[2] for part in answers.split(b"HTTP/1.1 ")[1:]]


def served(one: Server) -> Iterator[Server]:
    yield one
    one.process.terminate()
    one.process.wait(30)
    one.log.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    yield from served(Server(tmp_path_factory.mktemp("worker")))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Server]:
    yield from served(Server(tmp_path, workers=2))


def worker_of(client: socket.socket) -> int:
    """The process id of the worker that serves the connection."""
    client.sendall(get(b"/who"))
    return int(bodies(client.recv(65536))[0].removeprefix(b"/who="))


def both(pair: Server) -> set[int]:
    """The process ids of the two workers, when each of them has seen the other.

    Workers look for each other at their heartbeats, which also end idle connections. After a worker has ended one that
    was opened when both served, it has seen the other.
    """
    with ExitStack() as stack:
        connect_to_both(pair, stack)
        clients = connect_to_both(pair, stack)
        for client in clients.values():
            assert rest_of(client) == b""
        return set(clients)


def connect_to_both(pair: Server, stack: ExitStack) -> dict[int, socket.socket]:
    """A new connection to each of the two workers, by the worker's process id."""
    clients: dict[int, socket.socket] = {}

    def connect() -> bool:
        client = stack.enter_context(pair.connect())
        clients[worker_of(client)] = client
        return len(clients) == 2

    assert until(connect)
    return clients


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_connections_are_shared_out_evenly(pair: Server, unix: bool) -> None:
    """Each worker gets at least a third of the connections, also after one of them has lost all of its own.

    On a busy machine a worker may wake up too late to take the connections that the other one leaves to it.
    """
    clients: dict[socket.socket, int] = {}

    def add(count: int) -> None:
        for _ in range(count):
            one = pair.connect(unix)
            clients[one] = worker_of(one)

    def shares() -> list[int]:
        return sorted(Counter(clients.values()).values())

    try:
        both(pair)
        add(40)
        assert shares()[0] >= len(clients) // 3
        first = next(iter(clients.values()))
        for one in [one for one, worker in clients.items() if worker == first]:
            close_and_wait(one)
            del clients[one]
        add(20)
        assert shares()[0] >= len(clients) // 3
    finally:
        for one in clients:
            one.close()


def test_a_stopped_worker_does_not_delay_new_connections(pair: Server) -> None:
    """The other worker leaves connections to the stopped one, which has fewer, but only for milliseconds each."""
    workers = both(pair)
    stopped = workers.pop()
    os.kill(stopped, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        clients = [pair.connect() for _ in range(30)]
        assert {worker_of(one) for one in clients} == workers
        assert time.monotonic() - began_s < 5
    finally:
        os.kill(stopped, signal.SIGCONT)
    for one in clients:
        one.close()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_pipelined_requests_are_all_answered(server: Server, unix: bool) -> None:
    """The next request begins where the body ends, however much of it the application has read."""
    raw = (
        post(b"/all", b"one") + post(b"/lazy", b"GET /stolen HTTP/1.1\r\n\r\n") + post(b"/some", b"three") + get(b"/g")
    )
    raw += post(b"/all", b"") + LAST
    wanted = [b"/all=one", b"/lazy=", b"/some=th", b"/g=", b"/all=", b"/last="]
    assert bodies(ask(server.connect(unix), raw)) == wanted
    cuts = [raw[at : at + 37] for at in range(0, len(raw), 37)]
    assert bodies(ask(server.connect(unix), *cuts)) == wanted


def test_large_bodies_are_read_or_skipped(server: Server) -> None:
    """A body of a megabyte is read completely, or skipped completely if the application does not read it."""
    body = b"0123456789abcdef" * 65536
    answers = ask(server.connect(), post(b"/all", body) + post(b"/lazy", body) + post(b"/some", body) + LAST)
    assert bodies(answers) == [b"/all=" + body, b"/lazy=", b"/some=01", b"/last="]


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
@pytest.mark.parametrize("end", ["close", "a bad chunk", "a bad head"])
def test_a_client_that_is_still_sending_reads_its_answer(server: Server, unix: bool, end: str) -> None:
    """What it sends beyond the answer is dropped and does not reset the connection, before the answer or after it."""
    rest = b"x" * 20_000_000
    with server.connect(unix) as client:
        if end == "close":
            client.sendall(post(b"/lazy", rest, b"Connection: close\r\n"))
        elif end == "a bad chunk":
            client.sendall(b"POST /all HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n" + rest)
        else:
            client.sendall(b"POST /all HTTP/1.1\r\nHost: a\r\nX y\r\nContent-Length: 20000000\r\n\r\n" + rest)
        answer = client.makefile("rb").read()
    assert answer.startswith({"close": b"HTTP/1.1 200 OK", "a bad head": b"HTTP/1.1 400 "}.get(end, b"HTTP/1.1 "))


def test_chunks_heads_and_expectations(server: Server) -> None:
    """A chunked body is decoded, HEAD has no body, and `Expect: 100-continue` gets its interim response."""
    chunked = b"POST /all HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
    assert bodies(ask(server.connect(), chunked + LAST)) == [b"/all=one", b"/last="]
    answers = ask(server.connect(), b"HEAD /all HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
    assert bodies(answers) == [b"", b"/last="]
    waiting = post(b"/all", b"one", b"Expect: 100-continue\r\n")[:-3]
    answers = ask(server.connect(), waiting, b"one" + LAST)
    assert answers.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert bodies(answers)[1:] == [b"/all=one", b"/last="]


@pytest.mark.parametrize(
    "bad", [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused_and_ends_the_connection(server: Server, bad: bytes) -> None:
    """No further request is read, because it is unclear where the malformed one ends (request smuggling)."""
    answers = ask(server.connect(), get(b"/first") + bad + get(b"/smuggled"))
    assert answers.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400 Bad Request" in answers
    assert b"smuggled" not in answers


INCOMPLETE = {
    "nothing": b"",
    "a request": get(b"/"),
    "half a head": b"GET / HTTP/1.1\r\nHost:",
    "less than it promised": post(b"/lazy", b"x" * 99)[:-9],
}


def test_incomplete_requests_end_after_the_keepalive_time(server: Server) -> None:
    """A connection without a complete request ends after the keepalive time, and neither much earlier nor later.

    All connections wait at once.
    """

    def lasts(case: tuple[str, bool]) -> tuple[int, float]:
        sent, began_s = INCOMPLETE[case[0]], time.monotonic()
        answers = ask(server.connect(case[1]), *([sent] if sent else []))
        return answers.count(b"HTTP/1.1 "), time.monotonic() - began_s

    cases = [(name, unix) for name in INCOMPLETE for unix in (False, True)]
    with ThreadPoolExecutor(len(cases)) as pool:
        found = dict(zip(cases, pool.map(lasts, cases), strict=True))
    assert {case: count for case, (count, _) in found.items()} == {
        (name, unix): int(name in ("a request", "less than it promised")) for name, unix in cases
    }
    assert all(KEEPALIVE_S * 0.9 < lasted_s < KEEPALIVE_S + 4 for _, lasted_s in found.values()), found


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nX-", post(b"/lazy", b"x" * 10**6)[:90]], ids=["head", "body"])
def test_a_client_that_sends_byte_by_byte_is_disconnected(server: Server, sent: bytes) -> None:
    """A client that never completes a head, or a body that is not read, is disconnected as well."""
    with server.connect() as client:
        began_s = time.monotonic()
        client.sendall(sent)
        with pytest.raises(OSError):
            while time.monotonic() - began_s < KEEPALIVE_S + 10:
                client.sendall(b"x")
                is_silent(client, 0.05)
        assert KEEPALIVE_S * 0.9 < time.monotonic() - began_s < KEEPALIVE_S + 5


def test_a_busy_connection_is_kept(server: Server) -> None:
    """A connection that sends each request in time stays open for longer than the keepalive time."""
    with server.connect() as client:
        for _ in range(4):
            assert is_silent(client, KEEPALIVE_S * 0.6)
            client.sendall(get(b"/again"))
            assert client.recv(4096).endswith(b"/again=")


def test_draining_ends_idle_connections_of_nginx_at_once(tmp_path: Path) -> None:
    """After SIGTERM an idle connection over the Unix socket ends at once; one with a request ends after its answer."""
    one = Server(tmp_path)
    with one.connect(unix=True) as idle, one.connect(unix=True) as busy:
        for client in (idle, busy):
            client.sendall(get(b"/"))
            assert client.recv(4096).endswith(b"/=")
        raw = post(b"/all", b"one")
        busy.sendall(raw[:-1])
        assert until(lambda: is_read(busy))
        one.process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert rest_of(idle) == b""
        assert time.monotonic() - began_s < KEEPALIVE_S * 0.8
        busy.sendall(raw[-1:])
        answers = rest_of(busy)
        assert b"Connection: close\r\n" in answers
        assert answers.endswith(b"/all=one")
    assert one.process.wait(20) == 0
    one.log.close()
