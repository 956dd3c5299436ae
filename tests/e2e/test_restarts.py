"""Restarts and killed processes fail no request of a constant stream of POSTs."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import PROJECT, Stack, until
from tests.e2e.traffic import Traffic

pytestmark = pytest.mark.e2e


def workers(stack: Stack) -> list[int]:
    """Return the pids of the workers that have loaded their models."""
    return [worker["pid"] for worker in stack.admin_call("/admin/api/workers")["workers"] if worker.get("models")]


def under_traffic(stack: Stack, trained: dict[str, Any], event: Callable[[], Any], gone: Callable[[], bool]) -> Traffic:
    """Run `event` during the stream; wait until `gone()` is true and two workers serve. No request may fail."""
    estimator, sample = trained["iris"]
    rows = sample.iloc[:3]
    body, expected = {"instances": rows.values.tolist()}, {"predictions": estimator.predict(rows).tolist()}
    with Traffic(stack.data, "/v1/models/iris:predict", body, expected) as traffic:
        traffic.wait_for_more(50)
        event()
        assert until(lambda: gone() and len(workers(stack)) == 2, 60), stack.logs()
        traffic.wait_for_more(200)
    assert traffic.failures == []
    return traffic


def pid_of(stack: Stack, program: str) -> int:
    return int(stack.ctl("pid", program).strip())


def test_restart_of_web_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """`supervisorctl restart 'web:*'` replaces master and workers without a failed request."""
    old = set(workers(stack))
    under_traffic(stack, trained, lambda: stack.ctl("restart", "web:*"), lambda: not old & set(workers(stack)))


def test_hup_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """`supervisorctl signal HUP 'web:*'` replaces every worker and keeps the master, without a failed request."""
    old, master = set(workers(stack)), pid_of(stack, "web")
    under_traffic(stack, trained, lambda: stack.ctl("signal", "HUP", "web:*"), lambda: not old & set(workers(stack)))
    assert pid_of(stack, "web") == master


def test_killed_worker_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """After SIGKILL of a worker nginx sends its requests again to another worker."""
    victim = workers(stack)[0]
    under_traffic(stack, trained, lambda: os.kill(victim, signal.SIGKILL), lambda: victim not in workers(stack))


def test_killed_master_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """After SIGKILL of the gunicorn master its workers finish, and supervisor starts another on the same sockets."""
    master, old = pid_of(stack, "web"), set(workers(stack))

    def gone() -> bool:
        return not old & set(workers(stack)) and pid_of(stack, "web") not in (0, master)

    under_traffic(stack, trained, lambda: os.kill(master, signal.SIGKILL), gone)


def test_killed_socket_holder_fails_no_request(stack: Stack, trained: dict[str, Any]) -> None:
    """After SIGKILL of a socket holder the next one gets the sockets from the other holder."""
    victim, old = pid_of(stack, "sockets:sockets_0"), set(workers(stack))

    def event() -> None:
        os.kill(victim, signal.SIGKILL)
        stack.ctl("restart", "web:*")

    under_traffic(stack, trained, event, lambda: not old & set(workers(stack)))


def test_metrics_count_every_request_through_the_deaths(stack: Stack, trained: dict[str, Any]) -> None:
    """A SIGKILL of a worker loses no count: the sum of the counters equals the answers that clients saw."""

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


PROBE = '''
import gc, json, os, sys, types

_inner = application.wsgi_app


def probed(environ, start_response):
    """Answers with the names of this worker's modules that are marked, and of modules that are loaded twice."""
    if "HTTP_X_CODE" not in environ:
        return _inner(environ, start_response)
    gc.unfreeze()
    ours = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "tableside"}
    everything = gc.get_objects()
    modules = [each for each in everything if isinstance(each, types.ModuleType)]
    classes = [each for each in everything if isinstance(each, type) and each.__name__ == "TablesideWorker"]
    report = {
        "pid": os.getpid(),
        "marked": sorted(name for name, module in ours.items() if hasattr(module, "MARKED_BY_TEST")),
        "unmarked": sorted(name for name, module in ours.items() if not hasattr(module, "MARKED_BY_TEST")),
        "serves": sorted({sys.modules[type(each).__module__].__dict__ is type(each).handle.__globals__
                          for each in everything if type(each).__name__ == "TablesideWorker"}),
        "classes": len(classes),
        "twice": sorted(each.__name__ for each in modules if each is not ours.get(each.__name__, each)),
    }
    body = json.dumps(report).encode()
    start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
    return [body]


application.wsgi_app = probed
'''


def code_of_workers(stack: Stack) -> list[dict[str, Any]]:
    """Return the probe's report of each of the two workers, which must hold one copy of the code."""
    found: dict[int, dict[str, Any]] = {}
    pids = set(until(lambda: loaded if len(loaded := workers(stack)) == 2 else []))

    def is_complete() -> bool:
        report = stack.call("/v2/health/live", headers={"X-Code": "?"})[1]
        found[report["pid"]] = report
        return pids <= set(found)

    assert until(is_complete), (pids, found)
    for pid in pids:
        assert (found[pid]["classes"], found[pid]["twice"], found[pid]["serves"]) == (1, [], [True]), found[pid]
    return [found[pid] for pid in pids]


@pytest.fixture
def copied(make_stack: Callable[..., Stack], tmp_path: Path) -> Stack:
    """A stack that runs a copy of the code; its workers report which version of each module they run."""
    stack = make_stack(start=False)
    stack.project = tmp_path / "code"
    for name in ("app", "blueprints", "deploy", "src"):  # src/tableside is a link to app
        ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(PROJECT / name, stack.project / name, symlinks=True, ignore=ignored)
    stack.environ["PYTHONPATH"] = str(stack.project / "src")
    for name in ("gunicorn.conf.py", "supervisord.conf", "wsgi.py"):
        shutil.copy(PROJECT / name, stack.project / name)
    with (stack.project / "wsgi.py").open("a") as code:
        code.write(PROBE)
    stack.start()
    return stack


def test_hup_serves_the_code_on_disk_of_every_package(copied: Stack) -> None:
    """Workers run the code from the start until a HUP, also those that start later; after it they run the code on disk.

    This includes the worker class. Each worker holds one copy of the code.
    """
    for file in [*(copied.project / "app").rglob("*.py"), *(copied.project / "blueprints").rglob("*.py")]:
        file.write_text(file.read_text() + "\nMARKED_BY_TEST = True\n")
    assert [report["marked"] for report in code_of_workers(copied)] == [[], []]
    victim = workers(copied)[0]
    os.kill(victim, signal.SIGKILL)
    assert until(lambda: victim not in workers(copied) and len(workers(copied)) == 2)
    assert [report["marked"] for report in code_of_workers(copied)] == [[], []]
    for _ in range(2):
        old = set(workers(copied))
        copied.ctl("signal", "HUP", "web:*")
        assert until(lambda old=old: not old & set(workers(copied)) and len(workers(copied)) == 2, 60), copied.logs()
        for report in code_of_workers(copied):
            assert report["unmarked"] == []
            assert {
                "tableside.server.worker",
                "tableside.settings",
                "tableside.web.dispatch",
                "tableside.blueprints",
            } <= set(report["marked"])
