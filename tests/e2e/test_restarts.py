"""Nothing lost: under a constant stream of POSTs, no event below fails a request."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e


def workers(stack: Stack) -> list[int]:
    """Pids of the workers that have loaded their models."""
    return [worker["pid"] for worker in stack.admin_call("/admin/api/workers")["workers"] if worker.get("models")]


def under_traffic(stack: Stack, trained: dict[str, Any], event: Callable[[], Any], gone: Callable[[], bool]) -> Traffic:
    """Run `event` in the middle of the stream, wait until it has happened (`gone`) and the stack is whole again."""
    estimator, sample = trained["iris"]
    rows = sample.iloc[:3]
    body, expected = {"instances": rows.values.tolist()}, {"predictions": estimator.predict(rows).tolist()}
    with Traffic(stack.data, "/v1/models/iris:predict", body, expected) as traffic:
        traffic.wait_for_more(50)
        event()
        give_up_at = time.monotonic() + 60
        while not gone() or len(workers(stack)) != 2:
            assert time.monotonic() < give_up_at, stack.logs()
            time.sleep(0.1)
        traffic.wait_for_more(200)
    assert traffic.failures == []
    return traffic


def pid_of(stack: Stack, program: str) -> int:
    return int(stack.ctl("pid", program).strip())


def test_restart_of_web_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """`supervisorctl restart 'web:*'` replaces master and workers while the kernel queues connections."""
    old = set(workers(stack))
    under_traffic(stack, trained, lambda: stack.ctl("restart", "web:*"), lambda: not old & set(workers(stack)))


def test_hup_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """`supervisorctl signal HUP 'web:*'` replaces every worker, the master stays."""
    old, master = set(workers(stack)), pid_of(stack, "web")
    under_traffic(stack, trained, lambda: stack.ctl("signal", "HUP", "web:*"), lambda: not old & set(workers(stack)))
    assert pid_of(stack, "web") == master


def test_killed_worker_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """SIGKILL of a worker: nginx sends what was in flight again, to another."""
    victim = workers(stack)[0]
    under_traffic(stack, trained, lambda: os.kill(victim, signal.SIGKILL), lambda: victim not in workers(stack))


def test_killed_master_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """SIGKILL of the gunicorn master: its orphans finish, supervisor starts another on the same sockets."""
    master, old = pid_of(stack, "web"), set(workers(stack))

    def gone() -> bool:
        return not old & set(workers(stack)) and pid_of(stack, "web") not in (0, master)

    under_traffic(stack, trained, lambda: os.kill(master, signal.SIGKILL), gone)


def test_killed_socket_holder_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """SIGKILL of a socket holder: the other gives the sockets back to its successor, also for the next restart."""
    victim, old = pid_of(stack, "sockets:sockets_0"), set(workers(stack))

    def event() -> None:
        os.kill(victim, signal.SIGKILL)
        stack.ctl("restart", "web:*")

    under_traffic(stack, trained, event, lambda: not old & set(workers(stack)))


def test_metrics_count_every_request_through_the_deaths(stack: Stack, trained: dict[str, Any]) -> None:
    """Counters are keyed by slot: a SIGKILL takes nothing away, and the sum equals what clients saw."""

    def total() -> float:
        _, text, _ = stack.call("/metrics", admin=True)
        lines = [line for line in text.splitlines() if line.startswith("tableside_requests_total") and '"iris"' in line]
        return sum(float(line.rpartition(" ")[2]) for line in lines)

    before = total()
    victim = workers(stack)[0]
    traffic = under_traffic(
        stack, trained, lambda: os.kill(victim, signal.SIGKILL), lambda: victim not in workers(stack)
    )
    # A request whose worker was killed after counting and before answering counts once more on its retry.
    assert 0 <= total() - before - traffic.answered <= 4
