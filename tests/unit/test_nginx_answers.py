"""The errors that the real nginx answers itself are counted, and those that a worker says are not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from tableside.deployment import layout, nginx_answers
from tableside.deployment.nginx_answers import MAX_BYTES
from tableside.process import file_holes
from tests.nginx_fronts import PROXY, Front, front, make_settings, run_folder
from tests.waiting import wait_until

pytestmark = [pytest.mark.no_greenlets, pytest.mark.processes]
SOURCE = "127.0.0.3"
"""An address of its own for the client that has too many connections."""


class Worker(BaseHTTPRequestHandler):
    """Does what the path says: answers with a status, ends without an answer, or lets the client wait."""

    protocol_version = "HTTP/1.1"
    go_on = threading.Event()
    begun: list[str] = []

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        word = self.path.rpartition("/")[2]
        type(self).begun.append(word)
        if word == "ends":
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        if word in ("waits", "live"):
            self.go_on.wait(30)
        self.send_response(int(word) if word.isdigit() else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def fronts() -> Iterator[list[Front]]:
    with run_folder() as run_dir:
        settings = make_settings(run_dir, max_connections_per_client="2")
        with front(settings, Worker, (layout.DATA, layout.ADMIN)) as found:
            yield found
            Worker.go_on.set()


def collected(run_dir: Path) -> dict[tuple[str, str], int]:
    nginx_answers.collect(run_dir)
    return {key: count for key, count in nginx_answers.counts(run_dir).items() if count}


def leave_while_waiting(data: Front) -> None:
    """Begin requests that wait for a worker, until nginx answers 429, and close them."""
    with ThreadPoolExecutor(4) as pool:
        opened = [data.connect(SOURCE) for _ in range(2)]
        for client in opened:
            client.sendall(b"POST /v1/waits HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        assert wait_until(lambda: Worker.begun.count("waits") == 2)
        assert [answer.status for answer in pool.map(lambda _: data.ask("/v1/a", source=SOURCE), range(3))] == [429] * 3
        for client in opened:
            client.close()


def test_what_nginx_answers_itself_is_counted(fronts: list[Front]) -> None:
    """Each status that a client can cause, on its plane. What a worker says does not count, whatever the status."""
    data, control = fronts
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(data.ask, "/v2/health/live")  # nginx waits 5 s for a probe
        for status in (400, 404, 413, 429, 499, 500, 502, 503, 504):
            assert data.ask(f"/v1/{status}", "POST", b"{}").status == status
            assert control.ask(f"/admin/{status}", "POST", b"{}").status == status
        assert data.ask("/v1/200").status == 200
        assert data.ask("/v1/ends").status == 502
        assert Worker.begun.count("ends") > 1, "it was tried again"
        assert control.ask("/admin/ends").status == 502
        for _ in range(2):
            assert data.ask("/v1/a", "POST", b"{}", Content_Length="99999999999").status == 413
        assert data.exchange(b"GET /% HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 400 ")
        assert data.exchange(b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n").startswith(b"HTTP/1.1 405 ")
        leave_while_waiting(data)
        assert slow.result().status == 504
    expected = {
        ("data", "400"): 1, ("data", "405"): 1, ("data", "413"): 2, ("data", "429"): 3, ("data", "499"): 2,
        ("data", "502"): 1, ("data", "504"): 1, ("control", "502"): 1,
    }  # fmt: skip
    assert wait_until(lambda: sum(collected(data.run_dir).values()) >= sum(expected.values()))
    assert collected(data.run_dir) == expected
    assert set(nginx_answers.counts(data.run_dir)) == {
        (plane, code) for plane in ("data", "control") for code in nginx_answers.CODES
    }


def test_a_probe_that_the_client_gives_up_is_counted(fronts: list[Front]) -> None:
    """Successful probes are in no log, but nginx's own answers to them are counted."""
    data = fronts[0]
    before = collected(data.run_dir).get(("data", "499"), 0)
    asked = Worker.begun.count("live")
    with data.connect(PROXY) as client:
        client.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert wait_until(lambda: Worker.begun.count("live") > asked)
    assert wait_until(lambda: collected(data.run_dir).get(("data", "499"), 0) == before + 1)


def written(run_dir: Path, *lines: str) -> Path:
    """Append lines to the file of the data plane, as nginx does."""
    file = run_dir / nginx_answers.FILES[layout.DATA]
    file.parent.mkdir(exist_ok=True)
    with file.open("a") as stream:
        stream.writelines(lines)
    return file


def test_counts_never_go_back(tmp_path: Path) -> None:
    """The file is emptied when it is large, or replaced, and half a line is read when the rest has come."""
    assert nginx_answers.counts(tmp_path) == {}
    file = written(tmp_path, *["429\n"] * 20_000, "5")
    assert file.stat().st_size > nginx_answers.MAX_BYTES
    assert collected(tmp_path) == {("data", "429"): 20_000}
    written(tmp_path, "02\n")
    assert collected(tmp_path) == {("data", "429"): 20_000, ("data", "502"): 1}
    assert collected(tmp_path) == {("data", "429"): 20_000, ("data", "502"): 1}
    assert file.stat().st_size == 0
    written(tmp_path, "502\n", "418\n")
    assert collected(tmp_path) == {("data", "429"): 20_000, ("data", "502"): 2, ("data", "other"): 1}
    file.rename(tmp_path / "old")
    written(tmp_path, "502\n")
    assert collected(tmp_path)["data", "502"] == 3


@pytest.mark.parametrize("has_holes", [True, False])
def test_a_flood_without_a_pause_takes_little_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_holes: bool
) -> None:
    """nginx writes between each two looks, and no line is lost. Without holes the file is emptied at its limit."""
    monkeypatch.setattr(nginx_answers, "LIMIT_BYTES", 1 << 20)
    if not has_holes:
        monkeypatch.setattr(file_holes, "free_before", lambda fd, end: os.truncate(-1, 0))  # raises OSError
    largest = count = 0
    for _ in range(40):
        file = written(tmp_path, "429\n" * 40_000, "50")
        nginx_answers.collect(tmp_path)
        largest = max(largest, file.stat().st_blocks * 512)
        written(tmp_path, "2\n")
        count += 1
    assert largest < (1 << 20 if has_holes else 2 << 20)
    found = collected(tmp_path)
    assert found["data", "429"] == 40_000 * count
    if has_holes:
        assert found["data", "502"] == count
        assert file.stat().st_size > MAX_BYTES
        nginx_answers.collect(tmp_path)
        assert file.stat().st_size == 0, "it is emptied when the flood pauses"


COLLECT = """
import sys
from pathlib import Path
from tableside.deployment import nginx_answers
for _ in range(300):
    nginx_answers.collect(Path(sys.argv[1]))
"""


def test_two_keepers_count_each_answer_once(tmp_path: Path) -> None:
    """While nginx is replaced, the old keeper's guardian and the new keeper may read at the same time."""
    written(tmp_path, "502\n")
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", COLLECT, str(tmp_path)]
    reading = [subprocess.Popen(command, env=environ) for _ in range(2)]
    count = 1
    while any(each.poll() is None for each in reading):
        written(tmp_path, "502\n" * 10)
        count += 10
    assert [each.returncode for each in reading] == [0, 0]
    assert collected(tmp_path) == {("data", "502"): count}
