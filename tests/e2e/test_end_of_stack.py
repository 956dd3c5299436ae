"""The end of the whole stack: not ready first, then no new connections, then the last answers; nothing stays behind."""

from __future__ import annotations

import ctypes
import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from tableside.deployment import listener_close
from tableside.deployment.stack_processes import find
from tests.e2e.conftest import Stack, until
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e

LAME_DUCK_S = 3.0
_PR_SET_CHILD_SUBREAPER = 36


def wait_for_all_workers(stack: Stack) -> None:
    """Wait until every worker is ready: a stack counts as started when the first one is."""

    def all_ready() -> bool:
        reports = stack.admin_call("/admin/api/workers")["workers"]
        return len(reports) == 2 and all(stack.call("/v2/health/ready")[0] == 200 for _ in range(20))

    assert until(all_ready), stack.logs()


class Watch:
    """Notes the readiness of a stack, and what each new connection gets, until `stop`."""

    def __init__(self, stack: Stack) -> None:
        self.connections: Counter[str] = Counter()
        self.served_while_not_ready = 0
        self._readiness: list[tuple[float, int | str]] = []
        self._stack, self._stop = stack, threading.Event()
        self._threads = [threading.Thread(target=self._probe), threading.Thread(target=self._connect)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def changes(self) -> list[int | str]:
        """Return the states of readiness in their order, each once as long as it lasted."""
        return [state for state, _ in itertools.groupby(state for _, state in self._readiness)]

    def not_ready_s(self) -> float:
        """Return the time between the first and the last 503."""
        times = [at_s for at_s, state in self._readiness if state == 503]
        return times[-1] - times[0] if times else 0.0

    def _probe(self) -> None:
        while not self._stop.wait(0.05):
            try:
                state: int | str = self._stack.call("/v2/health/ready")[0]
            except OSError:
                state = "refused"
            self._readiness.append((time.monotonic(), state))

    def _connect(self) -> None:
        """Open a connection for each request, as fast as they are answered: one is in some queue at any time."""
        while not self._stop.is_set():
            try:
                with socket.create_connection(("127.0.0.1", self._stack.data), timeout=20) as connection:
                    connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    self.connections[connection.recv(12).decode() or "closed"] += 1
                if self._readiness and self._readiness[-1][1] == 503:
                    self.served_while_not_ready += 1
            except OSError as problem:
                self.connections[type(problem).__name__] += 1


@pytest.mark.parametrize("way", ["SIGTERM", "supervisord killed", "SIGTERM without nginx"])
def test_late_connections_are_refused_and_not_reset(
    make_stack: Callable[..., Stack], trained: dict[str, Any], way: str
) -> None:
    """At the end readiness answers 503 while requests are served; then each connection is answered or refused.

    The same holds for `tableside stop` after supervisord was killed. No process is left.
    """
    nginx = "off" if "without nginx" in way else "on"
    stack = make_stack(TABLESIDE__SERVER__LAME_DUCK_S=str(LAME_DUCK_S), TABLESIDE__SERVER__NGINX=nginx)
    assert stack.process is not None
    estimator, sample = trained["iris"]
    body = {"instances": sample.iloc[:1].values.tolist()}
    expected = {"predictions": estimator.predict(sample.iloc[:1]).tolist()}
    wait_for_all_workers(stack)
    watch = Watch(stack)
    with Traffic(stack.data, "/v1/models/iris:predict", body, expected, pause_s=0.02) as traffic:
        traffic.wait_for_more(50)
        os.kill(stack.process.pid, signal.SIGKILL if "killed" in way else signal.SIGTERM)
        stack.process.wait(120)
        if "killed" in way:
            assert stack.cli("stop").returncode == 0
        assert until(lambda: traffic.outcomes["ConnectionRefusedError"] > 20, 60), traffic.outcomes
    watch.stop()
    assert watch.changes() == [200, 503, "refused"]
    assert watch.not_ready_s() > LAME_DUCK_S / 2, "the ports closed before load balancers could notice"
    assert watch.served_while_not_ready > 10
    assert set(watch.connections) - resets() == {"HTTP/1.1 200", "ConnectionRefusedError"}, watch.connections
    others = [each for each in traffic.failures if "ConnectionRefusedError" not in each and each not in traffic.cut]
    assert len(others) <= 2 * len(resets()), "one for each address at most"
    assert all("reset" in each for each in others), others
    assert find(stack.run_dir) == []


def resets() -> set[str]:
    """What a client may meet where the kernel lets an ordinary user drop no packets: docs/decisions/0016."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return set() if listener_close.drop_new_connections(probe) else {"ConnectionResetError"}


def _become_subreaper() -> None:
    """Adopt orphaned descendants, as process 1 of a container does. It lasts through execve(2)."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def test_supervisord_that_adopts_orphans_ends_as_well(
    make_stack: Callable[..., Stack], trained: dict[str, Any]
) -> None:
    """Like process 1 of a container, supervisord inherits what guardians and killed masters leave. It still ends.

    Its service manager is told once that it serves: gunicorn, which knows that protocol too, says nothing.
    """
    stack = make_stack(start=False)
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(stack.environ.setdefault("NOTIFY_SOCKET", str(stack.folder / "notify")))
    manager.settimeout(60)
    command = [sys.executable, "-m", "tableside.cli", "run"]
    with (stack.folder / "run.out").open("wb") as log:
        stack.process = subprocess.Popen(
            command, cwd=stack.project, env=stack.environ, stdout=log, stderr=log, preexec_fn=_become_subreaper
        )
    stack.wait_ready()
    told = [manager.recv(4096), manager.recv(4096)]
    stack.ctl("restart", "nginx")
    stack.ctl("restart", "web:*")
    stack.wait_ready()
    os.kill(stack.process.pid, signal.SIGTERM)
    assert stack.process.wait(90) == 0
    assert until(lambda: find(stack.run_dir) == []), find(stack.run_dir)
    manager.setblocking(False)
    with manager, suppress(BlockingIOError):
        told.append(manager.recv(4096))
    assert told == [b"READY=1\nSTATUS=serves", b"BARRIER=1"]
