"""Model processes below a real supervisord: restarts, kills and stops, while a worker goes on calling them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.linear_model import LinearRegression

from tableside import settings as app_settings
from tableside.contracts.environment import sha256
from tableside.decoding.json_tables import from_rows
from tableside.deployment import model_programs
from tableside.deployment.layout import MODEL_PROGRAMS
from tableside.model_process.child import supervisor
from tableside.model_process.known_environments import CHILD, socket_path
from tableside.model_process.process_pool import SupervisedProcesses
from tableside.model_process.remote_runtime import RemoteRuntime, load_request
from tableside.runtimes.trusted_types import TRUSTED
from tests.fakes import numbers
from tests.waiting import wait_until

pytestmark = [pytest.mark.processes, pytest.mark.slow, pytest.mark.timeout(600)]

ROWS = [[1.0, 2.0], [3.0, 4.5]]
PROGRAMS = ("model_own:model_own_0", "model_own:model_own_1")
PROCESSES = len(PROGRAMS)
CONFIG = """
[supervisord]
nodaemon=true
silent=true
logfile={run}/supervisord.log
pidfile={run}/supervisord.pid
[unix_http_server]
file={run}/supervisor.sock
[rpcinterface:supervisor]
supervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface
[include]
files={programs}
"""


def _has_numpy(pid: int) -> bool:
    try:
        return "/numpy/" in Path(f"/proc/{pid}/maps").read_text()
    except OSError:
        return False


class Stack:
    """A supervisord that runs model processes only, and one worker's connections to them."""

    def __init__(self, folder: Path) -> None:
        self.run = folder
        (folder / "models").mkdir()
        (folder / "log").mkdir()
        settings = app_settings.load(
            {
                "TABLESIDE__SERVER__RUN_DIR": str(folder), "TABLESIDE__REPOSITORY__PATH": str(folder / "models"),
                "TABLESIDE__ENVIRONMENTS__OWN__PYTHON": sys.executable, "TABLESIDE__SERVER__WORKERS": str(PROCESSES),
            }
        )  # fmt: skip
        model_programs.write(settings)
        (folder / "s.conf").write_text(CONFIG.format(run=folder, programs=folder / MODEL_PROGRAMS))
        paths = [str(socket_path(settings.run_dir, "own", number)) for number in range(PROCESSES)]
        self.processes = SupervisedProcesses("own", paths, 0, 300.0)
        artifact = folder / "linear.skops"
        skops.io.dump(LinearRegression().fit(np.array(ROWS), [1.0, 2.0]), artifact)
        self.load = load_request("linear", artifact, sha256(artifact), numbers("a", "b"), TRUSTED)
        self.runtime = RemoteRuntime(self.processes, "linear", self.load)
        self.table = from_rows(ROWS, numbers("a", "b"))
        self.start()
        self.processes.load(self.load, time.monotonic() + 300)

    def start(self) -> None:
        self.supervisord = subprocess.Popen(
            [sys.executable, "-m", "supervisor.supervisord", "-c", str(self.run / "s.conf")]
        )
        assert wait_until(lambda: self.processes.running() == PROCESSES, 300)

    def ask_supervisord(self, method: str, *arguments: object) -> None:
        with supervisor.connect(str(self.run / "supervisor.sock")) as server:
            getattr(server.supervisor, method)(*arguments)

    def stop_processes(self) -> None:
        self.ask_supervisord("stopProcessGroup", "model_own")

    def start_processes(self) -> None:
        self.ask_supervisord("startProcessGroup", "model_own", False)

    def call(self) -> list[float]:
        answer: list[float] = np.asarray(self.runtime.run("predict", self.table)).tolist()
        return answer

    def keepers(self) -> list[int]:
        return [pid for pid, words in self._running() if b"--keep" in words]

    def servers(self) -> list[int]:
        """The model processes themselves, those that wait for their turn to load among them."""
        return [pid for pid, words in self._running() if b"--keeper" in words]

    def using_memory(self) -> list[int]:
        """The model processes that have imported numpy, or are about to: it is among the files in their memory."""
        return [pid for pid in self.servers() if _has_numpy(pid)]

    def _running(self) -> Iterator[tuple[int, list[bytes]]]:
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if os.fsencode(CHILD) in words and any(word.startswith(os.fsencode(self.run)) for word in words):
                yield int(entry.name), words

    def are_replaced(self, old: list[int]) -> bool:
        now = self.servers()
        return len(now) == PROCESSES and not {*now} & {*old} and self.processes.running() == PROCESSES

    def end(self) -> None:
        self.processes.close()
        self.supervisord.terminate()
        self.supervisord.wait(120)
        assert wait_until(lambda: not [*self._running()], 60)


class Calls:
    """Calls the model without a pause, in a thread of its own, for the length of a `with` block."""

    def __init__(self, stack: Stack) -> None:
        self.stack, self.expected = stack, stack.call()
        self.count, self.wrong = 0, 0
        self.problems: list[str] = []
        self._is_over = False
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._is_over:
            try:
                self.wrong += self.stack.call() != self.expected
                self.count += 1
                time.sleep(0.001)
            except Exception as problem:
                self.problems.append(repr(problem))
                return

    def __enter__(self) -> Calls:
        self.setbacks = self.stack.processes.setbacks
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        count = self.count
        wait_until(lambda: self.problems or self.count > count + 10)
        self._is_over = True
        self._thread.join(300)
        self.setbacks = self.stack.processes.setbacks - self.setbacks
        assert not self.problems
        assert not self.wrong


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with tempfile.TemporaryDirectory(prefix="mps-") as folder:
        made = Stack(Path(folder))
        yield made
        made.end()


def test_a_restart_takes_no_process_away_before_the_next_one_serves(stack: Stack) -> None:
    """No call waits, not even a moment, and there is only one process more than usual at any time."""
    old, most = stack.servers(), 0
    with Calls(stack) as calls:
        stack.stop_processes()
        stack.start_processes()

        def is_done() -> bool:
            nonlocal most
            most = max(most, len(stack.using_memory()))
            return stack.are_replaced(old)

        assert wait_until(is_done, 300)
    assert calls.setbacks == 0
    assert most <= PROCESSES + 1


def test_a_killed_keeper_takes_nothing_away(stack: Stack) -> None:
    """The model process serves until supervisord has started the next keeper and that one's process listens."""
    old = stack.servers()
    with Calls(stack) as calls:
        for pid in stack.keepers():
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: stack.are_replaced(old), 300)
    assert calls.setbacks == 0


def test_keepers_killed_in_a_row_leave_no_process_behind(stack: Stack) -> None:
    """A keeper killed while its process loads leaves that one too. In the end each keeper has one process, and no
    more than one process more than usual has taken memory at any time.
    """
    old, most = stack.servers(), 0

    def are_others(killed: list[int]) -> bool:
        return len(stack.keepers()) == PROCESSES and not {*stack.keepers()} & {*killed}

    def is_settled() -> bool:
        nonlocal most
        most = max(most, len(stack.using_memory()))
        parents = sorted(parent_of(pid) for pid in stack.servers())
        return parents == sorted(stack.keepers()) and stack.are_replaced(old)

    with Calls(stack) as calls:
        for _ in range(3):
            keepers = stack.keepers()
            for pid in keepers:
                os.kill(pid, signal.SIGKILL)
            assert wait_until(partial(are_others, keepers), 60)
        assert wait_until(is_settled, 300), (old, stack.servers(), stack.keepers())
    assert calls.setbacks == 0
    assert most <= PROCESSES + 1


def test_what_killed_keepers_have_left_is_stopped_too(stack: Stack) -> None:
    """`supervisorctl stop` ends processes without a keeper, those that serve and those that wait to load."""
    for pid in stack.keepers():
        os.kill(pid, signal.SIGKILL)
    assert wait_until(lambda: len(stack.servers()) > PROCESSES, 60), "the next ones beside those that were left"
    stack.stop_processes()
    assert wait_until(lambda: not stack.servers(), 60)
    stack.start_processes()
    stack.call()


def parent_of(pid: int) -> int:
    """The parent of a process; 0 if it has ended."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


def test_killed_model_processes_come_back(stack: Stack) -> None:
    """Without any process calls wait for the next one, and none fails."""
    old = stack.servers()
    with Calls(stack):
        for pid in old:
            os.kill(pid, signal.SIGKILL)
        assert wait_until(lambda: stack.are_replaced(old), 300)


def test_a_terminated_model_process_answers_what_was_sent(stack: Stack) -> None:
    """SIGTERM to one model process: another one answers meanwhile, and its keeper's program starts again."""
    old = stack.servers()
    with Calls(stack) as calls:
        os.kill(old[0], signal.SIGTERM)
        assert wait_until(lambda: stack.processes.running() == PROCESSES and old[0] not in stack.servers(), 300)
    assert calls.setbacks == 0


def test_a_killed_supervisord_is_taken_over(stack: Stack) -> None:
    """Model processes go on while a worker is connected, and end when those of the next supervisord serve."""
    old, keepers = stack.servers(), stack.keepers()
    with Calls(stack) as calls:
        stack.supervisord.kill()
        stack.supervisord.wait()
        assert wait_until(lambda: not {*stack.keepers()} & {*keepers}, 60)
        assert stack.servers() == old
        stack.start()
        assert wait_until(lambda: stack.are_replaced(old), 300)
    assert calls.setbacks == 0


def test_stopped_model_processes_end(stack: Stack) -> None:
    """`supervisorctl stop` ends them although a worker is connected; after a start they answer again."""
    stack.call()
    stack.stop_processes()
    assert wait_until(lambda: not stack.servers(), 60)
    stack.start_processes()
    stack.call()
    assert wait_until(lambda: len(stack.servers()) == PROCESSES, 60)


def test_orphans_without_a_worker_end(stack: Stack) -> None:
    """After supervisord was killed, they do not stay for ever."""
    stack.supervisord.kill()
    stack.supervisord.wait()
    stack.processes.close()
    assert wait_until(lambda: not stack.servers() and not stack.keepers(), 60)
    stack.start()
    stack.call()
