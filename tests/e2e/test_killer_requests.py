"""Requests that end their worker: by a fault, by the OOM killer, and by a call that never returns. Each beside traffic.

The models bring a transformer of their own, which reads the number of its misdeed from the row. The OOM killer is
played by SIGKILL and a copy of /proc/vmstat: a real one would choose among all processes of the host.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from benchmarks.attacks.killers import MODELS, publish_words, train
from tests.e2e.conftest import Stack, until
from tests.e2e.test_restarts import workers

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def killers(make_stack: Callable[..., Stack], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("killers")
    stack = make_stack(start=False, **train(folder), TABLESIDE__SERVER__REQUEST_TIMEOUT_S="20")
    for name in MODELS:
        done = stack.cli(*publish_words(folder, name), "--quick")
        assert done.returncode == 0, done.stderr
    stack.start()
    stack.wait_loaded()
    yield stack
    stack.stop()


class Traffic:
    """About 200 requests a second for good rows of a model, from 4 clients that keep their connections."""

    def __init__(self, stack: Stack, model: str) -> None:
        self.answers: Counter[int | str] = Counter()
        self._stack, self._model, self._stop = stack, model, threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(4)]

    def _run(self, number: int) -> None:
        path, body = f"/v1/models/{self._model}:predict", json.dumps({"instances": [[float(number)]]})
        connection = http.client.HTTPConnection("127.0.0.1", self._stack.data, timeout=60)
        while not self._stop.is_set():
            try:
                connection.request("POST", path, body)
                answer = connection.getresponse()
                content = json.loads(answer.read())
                good = answer.status == 200 and abs(content["predictions"][0] - 2.0 * number) < 1e-6
                self.answers[200 if good else f"{answer.status} {content}"] += 1
            except (OSError, http.client.HTTPException) as problem:
                self.answers[repr(problem)] += 1
                connection.close()
            self._stop.wait(0.02)
        connection.close()

    def __enter__(self) -> Traffic:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *problem: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)


class Pids:
    """All workers that were seen since it was made."""

    def __init__(self, stack: Stack) -> None:
        self._stack, self.before = stack, set(workers(stack))

    def lost(self) -> int:
        return len(self.before - set(workers(self._stack)))


def send(stack: Stack, model: str, row: float) -> tuple[int, Any]:
    status, content, _ = stack.call(f"/v1/models/{model}:predict", {"instances": [[row]]})
    return status, content


def ready_again(stack: Stack) -> None:
    assert until(lambda: len(workers(stack)) == 2 and stack.call("/v2/health/ready")[0] == 200, 60), stack.logs()


def problems(stack: Stack) -> str:
    """Return the warnings and errors of the workers."""
    log = (stack.run_dir / "log" / "web.log").read_text().splitlines()
    return "\n".join(line for line in log if '"level":"info"' not in line)[-6000:]


def ends(stack: Stack) -> dict[str, int]:
    """Return the workers that have ended so far, by cause. They and those that run are all that were started."""
    text, found = stack.call("/metrics", admin=True)[1], {}
    for cause, count in re.findall(r'^tableside_worker_ends_total\{cause="(\w+)"\} (\d+)', text, re.MULTILINE):
        found[cause] = int(count)
    return found


def quarantine_lines(stack: Stack) -> list[str]:
    log = (stack.run_dir / "log" / "web.log").read_text()
    return [line for line in log.splitlines() if "quarantined: it has ended two workers" in line]


@pytest.mark.parametrize(("model", "row", "cause"), [("faulty", 150.0, "crashed"), ("hungry", 250.0, "memory")])
def test_a_request_that_kills_takes_two_workers_and_no_neighbour(
    killers: Stack, model: str, row: float, cause: str
) -> None:
    """The client gets 502 with its id, later 500; every other request of the same model is answered rightly."""
    ready_again(killers)
    pids, counted = Pids(killers), ends(killers)
    with Traffic(killers, model) as traffic:
        assert until(lambda: traffic.answers[200] >= 100, 60)
        status, content = send(killers, model, row)
        assert (status, "ended two workers" in content["error"]) == (502, True), f"{content}\n{problems(killers)}"
        assert content["instance"]
        status, content = send(killers, model, row)
        assert (status, content["code"]) == (500, "quarantined"), content
        assert until(lambda: len(workers(killers)) == 2, 60)
        before = traffic.answers[200]
        assert until(lambda: traffic.answers[200] >= before + 100, 60)
    assert set(traffic.answers) == {200}, traffic.answers
    assert pids.lost() <= 2
    assert ends(killers) == {**counted, cause: counted[cause] + 2}, problems(killers)
    assert re.search(rf"has ended: {cause}, SIG\w+[.] Requests in hand: [1-9]", problems(killers)), problems(killers)
    assert until(lambda: f"model {model}/1" in "".join(quarantine_lines(killers)), 30), problems(killers)
    lines = quarantine_lines(killers)
    assert len([line for line in lines if f"model {model}/1" in line]) == 1, lines
    words = re.split(r"[^0-9.]+", " ".join(re.sub(r"[0-9a-f]{32}|[0-9T:.-]{19,}Z", "", line) for line in lines))
    assert not {f"{row:g}", str(row)} & set(words), lines
    assert send(killers, model, 3.0)[0] == 200


def test_an_operators_kill_is_no_reason(killers: Stack) -> None:
    """A worker that is killed while it serves: nothing fails, nothing is quarantined."""
    ready_again(killers)
    lines, counted = quarantine_lines(killers), ends(killers)
    with Traffic(killers, "faulty") as traffic:
        assert until(lambda: traffic.answers[200] >= 50, 60)
        victim = workers(killers)[0]
        os.kill(victim, signal.SIGKILL)
        assert until(lambda: victim not in workers(killers) and len(workers(killers)) == 2, 60)
    assert set(traffic.answers) == {200}, traffic.answers
    assert quarantine_lines(killers) == lines
    assert ends(killers) == {**counted, "killed": counted["killed"] + 1}, problems(killers)


def test_a_call_that_never_returns_takes_two_workers_and_no_neighbour(killers: Stack) -> None:
    """On the event loop it ends its worker by the heartbeat; alone, in a thread, it ends at its deadline with 504."""
    ready_again(killers)
    pids, counted = Pids(killers), ends(killers)
    with Traffic(killers, "stuck") as traffic:
        assert until(lambda: traffic.answers[200] >= 100, 60)
        began_s = time.monotonic()
        status, content = send(killers, "stuck", 350.0)
        assert status == 504, f"{content}\n{problems(killers)}"
        assert time.monotonic() - began_s < 60
        assert until(lambda: "model stuck/1" in "".join(quarantine_lines(killers)), 60), problems(killers)
        assert send(killers, "stuck", 350.0)[0] == 500
    assert set(traffic.answers) == {200}, traffic.answers
    assert pids.lost() <= 2
    assert ends(killers)["timeout"] > counted["timeout"], problems(killers)


def test_three_requests_stop_their_model_until_a_reload(killers: Stack) -> None:
    """One changed byte is another request: the third stops the model, other models serve on, and a reload ends it."""
    ready_again(killers)
    statuses = []
    for row in (151.0, 152.0, 153.0):
        statuses.append(send(killers, "faulty", row)[0])
        ready_again(killers)
    status, content, headers = killers.call("/v1/models/faulty:predict", {"instances": [[1.0]]})
    assert (status, content.get("code")) == (503, "model_quarantined"), f"{statuses} {content}\n{problems(killers)}"
    assert int(headers["Retry-After"]) > 1
    assert send(killers, "stuck", 1.0)[0] == 200
    assert until(lambda: killers.call("/v2/models/faulty/ready")[0] == 503, 30)
    assert until(lambda: "ended two workers" in killers.cli("list", "--json").stdout, 30), killers.logs()
    metrics = killers.call("/metrics", admin=True)[1]
    assert 'tableside_quarantined_requests_total{model="faulty",version="1"}' in metrics
    reload = killers.cli("reload")
    assert reload.returncode == 0, reload
    assert "stopped" not in reload.stdout
    assert until(lambda: send(killers, "faulty", 1.0)[0] == 200, 60)
    assert until(lambda: killers.call("/v2/models/faulty/ready")[0] == 200, 30)
