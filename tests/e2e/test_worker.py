"""The worker class under gunicorn itself, with an application of a few lines: what a client sees on its connection."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.e2e.conftest import PROJECT, free_port, until

pytestmark = pytest.mark.e2e
KEEPALIVE_S = 2
APPLICATION = '''
import os


def application(environ, start_response):
    """/lazy reads nothing, /some two bytes, others all; they tell what they read, or at /who who reads."""
    path, body = environ["PATH_INFO"], environ["wsgi.input"]
    read = b"" if path == "/lazy" else body.read(2) if path == "/some" else body.read()
    said = path.encode() + b"=" + (read if path != "/who" else b"%d" % os.getpid())
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(said)))])
    return [said]
'''


class Server:
    """One gunicorn on a TCP port and on a Unix socket."""

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
            "-k", "tableside.server.worker.TablesideWorker",
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
    """What comes until the server ends the connection."""
    said = b""
    try:
        while piece := client.recv(65536):
            said += piece
    except ConnectionResetError:
        pass
    return said


def ask(client: socket.socket, *pieces: bytes) -> bytes:
    """All that comes back until the server ends the connection, for what is sent piece by piece."""
    with closing(client):
        for at, piece in enumerate(pieces):
            time.sleep(0.1 if at else 0)
            client.sendall(piece)
        return rest_of(client)


def bodies(said: bytes) -> list[bytes]:
    return [part.rpartition(b"\r\n\r\n")[2] for part in said.split(b"HTTP/1.1 ")[1:]]


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
    """Whose connection it is."""
    client.sendall(get(b"/who"))
    return int(bodies(client.recv(65536))[0].removeprefix(b"/who="))


def both(pair: Server) -> set[int]:
    """The two workers, when both have begun."""
    seen: set[int] = set()

    def look() -> bool:
        with ExitStack() as stack:
            seen.update(worker_of(stack.enter_context(pair.connect())) for _ in range(10))
        return len(seen) == 2

    assert until(look)
    time.sleep(1.5)  # those connections have ended, and each has looked who else serves
    return seen


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_connections_are_shared_out_evenly(pair: Server, unix: bool) -> None:
    """Opened one after the other, each worker has about half of them; when one has lost its own, new ones are its."""
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
        assert shares()[0] >= 16
        first = next(iter(clients.values()))
        for one in [one for one, worker in clients.items() if worker == first]:
            one.close()
            del clients[one]
        time.sleep(0.2)
        add(20)
        assert shares()[0] >= 16
    finally:
        for one in clients:
            one.close()


def test_a_worker_that_stands_still_leaves_new_connections_to_the_other(pair: Server) -> None:
    """It has fewer, and is waited for, but for milliseconds only."""
    workers = both(pair)
    still = workers.pop()
    os.kill(still, signal.SIGSTOP)
    try:
        began_s = time.monotonic()
        clients = [pair.connect() for _ in range(30)]
        assert {worker_of(one) for one in clients} == workers
        assert time.monotonic() - began_s < 5
    finally:
        os.kill(still, signal.SIGCONT)
    for one in clients:
        one.close()


@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_pipelined_requests_are_all_answered(server: Server, unix: bool) -> None:
    """Whatever the application reads of each body: the next request begins where the body ends."""
    raw = (
        post(b"/all", b"one") + post(b"/lazy", b"GET /stolen HTTP/1.1\r\n\r\n") + post(b"/some", b"three") + get(b"/g")
    )
    raw += post(b"/all", b"") + LAST
    wanted = [b"/all=one", b"/lazy=", b"/some=th", b"/g=", b"/all=", b"/last="]
    assert bodies(ask(server.connect(unix), raw)) == wanted
    cuts = [raw[at : at + 37] for at in range(0, len(raw), 37)]
    assert bodies(ask(server.connect(unix), *cuts)) == wanted


def test_large_bodies_arrive_in_many_segments(server: Server) -> None:
    """A body of a megabyte is read whole, and skipped whole where it is not read."""
    body = b"0123456789abcdef" * 65536
    said = ask(server.connect(), post(b"/all", body) + post(b"/lazy", body) + post(b"/some", body) + LAST)
    assert bodies(said) == [b"/all=" + body, b"/lazy=", b"/some=01", b"/last="]


def test_chunks_heads_and_expectations(server: Server) -> None:
    """Chunked bodies, HEAD, and a client that waits to be told to go on."""
    chunked = b"POST /all HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n"
    assert bodies(ask(server.connect(), chunked + LAST)) == [b"/all=one", b"/last="]
    said = ask(server.connect(), b"HEAD /all HTTP/1.1\r\nHost: a\r\n\r\n" + LAST)
    assert bodies(said) == [b"", b"/last="]
    waiting = post(b"/all", b"one", b"Expect: 100-continue\r\n")[:-3]
    said = ask(server.connect(), waiting, b"one" + LAST)
    assert said.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n")
    assert bodies(said)[1:] == [b"/all=one", b"/last="]


@pytest.mark.parametrize(
    "bad", [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX : b\r\n\r\n",
    ],
)  # fmt: skip
def test_what_is_not_clear_is_refused_and_ends_the_connection(server: Server, bad: bytes) -> None:
    """No request is read behind one whose end is in doubt."""
    said = ask(server.connect(), get(b"/first") + bad + get(b"/smuggled"))
    assert said.count(b"HTTP/1.1 ") == 2
    assert b"HTTP/1.1 400 Bad Request" in said
    assert b"smuggled" not in said


@pytest.mark.parametrize(
    "sent", [b"", get(b"/"), b"GET / HTTP/1.1\r\nHost:", post(b"/lazy", b"x" * 99)[:-9]],
    ids=["nothing", "a request", "half a head", "less than it promised"],
)  # fmt: skip
@pytest.mark.parametrize("unix", [False, True], ids=["tcp", "unix"])
def test_who_keeps_it_waiting_is_left(server: Server, sent: bytes, unix: bool) -> None:
    """A connection that sends no whole request ends after the keepalive time, not much before and not much after."""
    began_s = time.monotonic()
    said = ask(server.connect(unix), *([sent] if sent else []))
    assert said.count(b"HTTP/1.1 ") == (b"/ HTTP/1.1\r\nHost: a" in sent or b"/lazy" in sent)
    assert KEEPALIVE_S * 0.9 < time.monotonic() - began_s < KEEPALIVE_S + 4


@pytest.mark.parametrize("sent", [b"GET / HTTP/1.1\r\nX-", post(b"/lazy", b"x" * 10**6)[:90]], ids=["head", "body"])
def test_drop_by_drop(server: Server, sent: bytes) -> None:
    """A client that always sends a little more, of a head or of a body nobody reads, is cut off too."""
    with server.connect() as client:
        began_s = time.monotonic()
        client.sendall(sent)
        with pytest.raises(OSError):
            while time.monotonic() - began_s < KEEPALIVE_S + 10:
                client.sendall(b"x")
                time.sleep(0.05)
        assert KEEPALIVE_S * 0.9 < time.monotonic() - began_s < KEEPALIVE_S + 5


def test_a_busy_connection_is_kept(server: Server) -> None:
    """One that sends its next request in time stays, for longer than it may be idle."""
    with server.connect() as client:
        for _ in range(4):
            time.sleep(KEEPALIVE_S * 0.6)
            client.sendall(get(b"/again"))
            assert client.recv(4096).endswith(b"/again=")


def test_draining_ends_idle_connections_of_nginx_at_once(tmp_path: Path) -> None:
    """SIGTERM: what waits on the Unix socket ends at once; a request in hand is answered, and told it is the last."""
    one = Server(tmp_path)
    with one.connect(unix=True) as idle, one.connect(unix=True) as busy:
        for client in (idle, busy):
            client.sendall(get(b"/"))
            assert client.recv(4096).endswith(b"/=")
        raw = post(b"/all", b"one")
        busy.sendall(raw[:-1])
        time.sleep(0.3)
        one.process.send_signal(signal.SIGTERM)
        began_s = time.monotonic()
        assert rest_of(idle) == b""
        assert time.monotonic() - began_s < KEEPALIVE_S * 0.8
        busy.sendall(raw[-1:])
        said = rest_of(busy)
        assert b"Connection: close\r\n" in said
        assert said.endswith(b"/all=one")
    assert one.process.wait(20) == 0
    one.log.close()
