"""Full and read-only disks, few open files, an unknown user: predictions are answered, or the start says why not."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Stack, until
from tests.e2e.test_floods import ask, slow_bodies
from tests.small_disks import fill, on_small_disks, seen_by

pytestmark = pytest.mark.e2e
ROW = {"instances": [[5.1, 3.5, 1.4, 0.2]]}
LARGE = json.dumps({"instances": [[5.1, 3.5, 1.4, 0.2]] * 60_000}).encode()
SHM = Path("/dev/shm")
UNKNOWN_USER = 54321
PLACES = 2
"""Requests that the workers of the stack on small disks may have in hand."""
MANY = 110_000
"""Rows of a small compressed body whose answer has some 5 MB."""


def answers(stack: Stack) -> list[int]:
    return [stack.call("/v1/models/iris:predict", ROW)[0] for _ in range(20)]


class SmallDisks:
    """A stack whose run folder, repository and /dev/shm are file systems of a few MB in a mount namespace."""

    def __init__(self, stack: Stack, disks: Path) -> None:
        self.stack, self._disks = stack, disks
        assert stack.process
        self.pid = stack.process.pid

    @property
    def run_dir(self) -> Path:
        return seen_by(self.pid, self._disks / "r")

    def folders(self) -> list[Path]:
        return [self.run_dir, seen_by(self.pid, self._disks / "m"), seen_by(self.pid, SHM)]

    def ready_workers(self) -> set[int]:
        found = set()
        for file in (self.run_dir / "worker_slots").glob("*.json"):
            with suppress(ValueError, OSError):
                status = json.loads(file.read_bytes())
                if status.get("ready") and Path(f"/proc/{status['pid']}").exists():
                    found.add(status["pid"])
        return found

    def audit_lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.run_dir / "log" / "audit.log").read_text().splitlines()]

    def reload(self) -> int:
        key = {"Authorization": f"Bearer {(self.run_dir / 'admin.key').read_text().strip()}"}
        return self.stack.call("/admin/api/reload", admin=True, method="POST", headers=key)[0]


@pytest.fixture(scope="module")
def small(make_stack: Callable[..., Stack]) -> Iterator[SmallDisks]:
    disks = Path(tempfile.mkdtemp(prefix="ts-"))
    for name in ("r", "m"):
        (disks / name).mkdir()
    stack = make_stack(
        start=False,
        TABLESIDE__SERVER__RUN_DIR=str(disks / "r"),
        TABLESIDE__REPOSITORY__PATH=str(disks / "m"),
        TABLESIDE__REPOSITORY__CONSENT_FILE=str(disks / "r" / "consent.jsonl"),
        TABLESIDE__SERVER__MAX_REQUESTS_IN_FLIGHT=str(PLACES),
    )
    copy = f'cp -r "{stack.folder}/models/." "{disks / "m"}" && exec "$@"'
    sizes = {disks / "r": "32m", disks / "m": "8m", SHM: "1m"}
    stack.around = lambda command: on_small_disks(["sh", "-ec", copy, "sh", *command], sizes)
    stack.start()
    made = SmallDisks(stack, disks)
    assert until(lambda: len(made.ready_workers()) == 2, 90), stack.logs(made.run_dir)
    assert until(lambda: answers(stack) == [200] * 20, 60), stack.logs(made.run_dir)
    yield made
    os.kill(made.pid, signal.SIGTERM)
    assert stack.process
    stack.process.wait(90)
    shutil.rmtree(disks)


def test_full_disks_change_no_answer(small: SmallDisks) -> None:
    """With run folder, repository and /dev/shm full to the last byte: answers, metrics, reload, and killed workers."""
    stack = small.stack
    fillers = [fill(folder) for folder in small.folders()]
    try:
        assert answers(stack) == [200] * 20
        before = small.ready_workers()
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        assert until(lambda: len(small.ready_workers() - before) == 2, 60), stack.logs(small.run_dir)
        assert answers(stack) == [200] * 20
        assert stack.call("/v1/models/wine:predict", {"instances": [{"alcohol": "x"}]})[0] == 400
        status, text, _ = stack.call("/metrics", admin=True)
        assert (status, 'tableside_requests_total{code="200",model="iris"' in text) == (200, True)
        assert 'tableside_worker_ends_total{cause="killed"} 2.0' in text
        assert "tableside_workers_ready 2.0" in text
        assert float(text.partition('tableside_disk_free_bytes{folder="run"} ')[2].split()[0]) < 1 << 20
        status, content, headers = stack.call("/v1/models/iris:predict", LARGE)
        assert (status, content["status"], headers["Retry-After"]) == (507, 507, "1")
        assert "disk of the run folder is full" in content["error"]
        recorded = len(small.audit_lines())
        assert small.reload() == 200
        begun, done = small.audit_lines()[recorded:]
        assert (begun["event"], begun["key"], begun["state"], done["state"]) == ("reload", "admin.key", "begun", "done")
        assert answers(stack) == [200] * 20
    finally:
        for file in fillers:
            file.unlink()
    assert stack.call("/v1/models/iris:predict", LARGE)[0] == 200


def slow_reader(stack: Stack, opened: ExitStack) -> tuple[socket.socket, bytes]:
    """Ask for an answer of some 5 MB. Return the connection, and the first bytes that it got."""
    rows = ", ".join(["[5.1, 3.5, 1.4, 0.2]"] * MANY)
    body = gzip.compress(f'{{"instances": [{rows}]}}'.encode())
    head = (
        "POST /v1/models/iris:predict?output=predict_proba HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Encoding: gzip\r\n"
        f"X-Request-ID: slow\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    connection = opened.enter_context(socket.socket())
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)  # the kernel must not hold the answer
    connection.settimeout(60)
    connection.connect(("127.0.0.1", stack.data))
    connection.sendall(head.encode() + body)
    return connection, connection.recv(2000)


def rest_of(connection: socket.socket, begun: bytes) -> tuple[str, Any]:
    """Read to the end. Return the head, and the JSON that has the length that the head says."""
    while piece := connection.recv(1 << 20):
        begun += piece
    head, _, content = begun.partition(b"\r\n\r\n")
    assert f"\r\nContent-Length: {len(content)}\r\n".encode() in head + b"\r\n"
    return head.decode(), json.loads(content)


def logged_as_slow(run_dir: Path) -> set[tuple[str, str]]:
    """Method and path of the slow readers' requests in nginx's log, which is written once a second."""
    found = set()
    for text in (run_dir / "log" / "nginx-access.log").read_text().splitlines():
        with suppress(json.JSONDecodeError):  # the full disk cut lines of the log
            line = json.loads(text)
            if line["request_id"] == "slow":
                found.add((line["method"], line["path"]))
    return found


class SlowReaders:
    """Clients that read a little every few seconds: nginx ends a connection of which nothing is read for 15 s."""

    def __init__(self, stack: Stack, opened: ExitStack, count: int) -> None:
        self.readers = [slow_reader(stack, opened) for _ in range(count)]
        self._next_s = time.monotonic() + 4

    def go_on(self) -> bool:
        """Read a little if it is time. Returns True."""
        if time.monotonic() >= self._next_s:
            self.readers = [(connection, begun + connection.recv(1 << 17)) for connection, begun in self.readers]
            self._next_s = time.monotonic() + 4
        return True


def test_a_full_disk_cuts_no_answer(small: SmallDisks) -> None:
    """Slow readers of 5 MB hold no place of a worker, and get it all from a full disk; no new answer is begun there."""
    stack, files = small.stack, small.run_dir / "tmp" / "answers"
    with ExitStack() as opened:
        slow = SlowReaders(stack, opened, PLACES + 1)
        assert all(begun.startswith(b"HTTP/1.1 200 OK\r\n") for _, begun in slow.readers), slow.readers
        assert until(lambda: slow.go_on() and not list(files.iterdir()), 60), "nginx has opened them: no name is needed"
        assert answers(stack) == [200] * 20
        filler = fill(small.run_dir)
        try:
            before = small.ready_workers()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            ready = until(lambda: slow.go_on() and len(small.ready_workers() - before) == 2, 60)
            assert ready, stack.logs(small.run_dir)
            head, problem = rest_of(*slow_reader(stack, opened))
            assert head.startswith("HTTP/1.1 507 ")
            assert "\r\nRetry-After: " in head
            assert (problem["status"], "the disk of the run folder" in problem["error"]) == (507, True)
            assert list(files.iterdir()) == []
            for connection, begun in slow.readers:
                head, content = rest_of(connection, begun)
                assert "\r\nX-Request-ID: slow" in head
                assert "\r\nContent-Type: application/json\r\n" in head
                assert len(content["predictions"]) == MANY
                assert content["predictions"][0] == content["predictions"][-1]
        finally:
            filler.unlink()
        head, content = rest_of(*slow_reader(stack, opened))
        assert (head.split()[1], len(content["predictions"])) == ("200", MANY)
    assert until(lambda: logged_as_slow(small.run_dir) == {("POST", "/v1/models/iris:predict")}, 30)


@pytest.mark.parametrize("options", ["size=4k", "ro"])
def test_a_start_that_cannot_write_says_so_in_one_line(make_stack: Callable[..., Stack], options: str) -> None:
    """A run folder that is full or read-only stops the start, with the folder and the reason."""
    folder = Path(tempfile.mkdtemp(prefix="ts-"))
    stack = make_stack(start=False, TABLESIDE__SERVER__RUN_DIR=str(folder / "r"))
    (folder / "r").mkdir()
    script = f'mount -t tmpfs -o {options} tmpfs "{folder}/r"; exec "$@"'
    command = [sys.executable, "-m", "tableside.cli", "run"]
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    done = subprocess.run(
        ["unshare", "--mount", *user, "sh", "-ec", script, "sh", *command],
        env=stack.environ, cwd=stack.project, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("tableside: server.run_dir: cannot ")
    assert done.stderr.count("\n") == 1
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def cramped(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Stack:
    """A stack of a user without a name and home, with 256 open files, one processor and little memory.

    The user exists in a user namespace only; outside of it the processes have the user id of this test.
    """
    kernel = tmp_path_factory.mktemp("kernel")
    (kernel / "proc/self").mkdir(parents=True)
    (kernel / "sys/fs/cgroup").mkdir(parents=True)
    (kernel / "proc/self/cgroup").write_text("0::/\n")
    (kernel / "sys/fs/cgroup/cpu.max").write_text("100000 100000\n")
    (kernel / "sys/fs/cgroup/memory.max").write_text("60000000\n")
    stack = make_stack(
        start=False, HOME="/", TABLESIDE_CGROUP_ROOT=str(kernel), TABLESIDE__SERVER__REQUEST_TIMEOUT_S="5"
    )
    del stack.environ["TABLESIDE__SERVER__WORKERS"]
    stack.environ.pop("USER", None)
    user = ["unshare", "--user", f"--map-user={UNKNOWN_USER}", f"--map-group={UNKNOWN_USER}"]
    stack.around = lambda command: ["prlimit", "--nofile=256:256", *user, *command]
    before = set(os.listdir("/"))
    stack.start()
    assert set(os.listdir("/")) == before, "nothing is written into the home directory"
    return stack


def test_workers_and_nginx_follow_the_control_group(cramped: Stack) -> None:
    """With a quota of one processor there is one worker and one process of nginx; the start says what does not fit."""
    assert len(cramped.admin_call("/admin/api/workers")["workers"]) == 1
    assert "worker_processes 1;" in (cramped.run_dir / "nginx.conf").read_text()
    assert answers(cramped) == [200] * 20
    text = (cramped.folder / "run.out").read_text()
    assert "memory.max of this control group is 0.06 GB: no number of workers fits" in text


def test_slow_clients_that_fill_nginx_lock_nobody_out(cramped: Stack) -> None:
    """Slow bodies from many addresses take all connections: nginx gets new workers, and closes the old connections."""
    held: list[socket.socket] = []
    stop = threading.Event()

    def send_slowly() -> None:
        while not stop.wait(2):
            for connection in held:
                with suppress(OSError):
                    connection.send(b" ")

    sender = threading.Thread(target=send_slowly)
    sender.start()
    try:
        with ExitStack() as opened:
            for number in range(6):
                with suppress(OSError):  # nginx closes what it has no connection for
                    for _ in range(60):
                        held += slow_bodies(opened, cramped.data, 1, f"127.0.0.{20 + number}")
            slow = [connection for connection in held if not is_closed(connection)]
            assert len(slow) > 100
            assert until(lambda: ask(cramped.data, client="127.0.0.9")[0] == 200, 30), cramped.logs()
            assert until(lambda: ask(cramped.admin, "/metrics", None, "127.0.0.9")[0] == 200, 30)
            assert until(lambda: all(map(is_closed, slow)), 60), "bodies have a deadline as a whole"
    finally:
        stop.set()
        sender.join()
    assert answers(cramped) == [200] * 20


def test_half_sent_heads_do_not_reach_the_control_plane(cramped: Stack) -> None:
    """Twice as many unfinished heads as the data plane has connections: probes and metrics are answered each time."""
    with ExitStack() as opened:
        for number in range(400):
            with suppress(OSError):  # the data plane closes what it has no connection for
                head = opened.enter_context(socket.socket())
                head.bind((f"127.0.0.{30 + number % 8}", 0))
                head.settimeout(5)
                head.connect(("127.0.0.1", cramped.data))
                head.sendall(b"GET /v2 HTTP/1.1\r\nHo")
            if number >= 200 and number % 10 == 0:
                for path in ("/v2/health/ready", "/metrics"):
                    assert ask(cramped.admin, path, None, "127.0.0.9")[0] == 200, cramped.logs()
    assert until(lambda: ask(cramped.data, client="127.0.0.9")[0] == 200, 60), cramped.logs()


def is_closed(connection: socket.socket) -> bool:
    """Whether nginx has closed the connection, or answered on it: it answers 408 before it closes."""
    connection.setblocking(False)
    try:
        connection.recv(4096, socket.MSG_PEEK)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return True


def test_a_run_folder_that_cannot_be_written_changes_no_answer(cramped: Stack) -> None:
    """As after an error of the disk. A worker that is killed is replaced, and reload says what is wrong."""
    folders = [cramped.run_dir, *(path for path in cramped.run_dir.rglob("*") if path.is_dir())]
    files = [file for pattern in ("*/*.json", "*/*.db", "*/*.lock", "*/lock") for file in cramped.run_dir.glob(pattern)]
    (worker,) = cramped.admin_call("/admin/api/workers")["workers"]
    for path in (*files, *folders):
        path.chmod(path.stat().st_mode & ~0o222)
    try:
        assert answers(cramped) == [200] * 20
        os.kill(worker["pid"], signal.SIGKILL)
        assert until(lambda: not Path(f"/proc/{worker['pid']}").exists())
        assert until(lambda: answers(cramped) == [200] * 20, 60), cramped.logs()
        assert cramped.call("/metrics", admin=True)[0] == 200
        key = {"Authorization": f"Bearer {cramped.key}"}
        status, content, _ = cramped.call("/admin/api/reload", admin=True, method="POST", headers=key)
        assert (status, "cannot be written" in content["error"]) == (503, True)
    finally:
        for path in (*folders, *files):
            path.chmod(path.stat().st_mode | 0o200)
    assert answers(cramped) == [200] * 20
