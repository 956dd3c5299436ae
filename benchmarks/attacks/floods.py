"""Many connections: half-sent heads, slow bodies, and large bodies at once."""

from __future__ import annotations

import resource
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

from benchmarks.attacks import bodies, workers
from benchmarks.attacks.rows import Limits, mb
from benchmarks.attacks.stage import Outcome, Stage

HEADS, SLOW_BODIES, LARGE_BODIES = 8400, 600, 24
FLOOD_S = 12.0
"""nginx closes an unfinished head after 10 s."""
LARGE_ROWS = 25_000
IN_HAND_BYTES = 512 << 20
"""`server.max_bytes_in_hand` of a worker, by default."""
KEPT_BYTES, RELEASE_S = 128 << 20, 60.0
"""What a worker may keep afterwards, and how long it may take until it keeps no more."""
TEST = "tests/e2e/test_floods.py"
_HEAD = b"GET /v2 HTTP/1.1\r\nHo"
_SLOW = b"POST /v1/models/iris:predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000000\r\n\r\n{"


def attack(stage: Stage) -> None:
    """Half-sent heads, slow bodies, and large bodies."""
    stage.attack(
        f"{HEADS} half-sent heads", "both planes reset for 10 s", lambda: _heads(stage),
        lambda _: Limits(neighbours_may_fail=True), "tests/e2e/test_faults.py",
    )  # fmt: skip
    stage.attack(
        f"{SLOW_BODIES} slow bodies of one client", "every place taken, others got 429", lambda: _slow(stage),
        lambda _: Limits(), TEST,
    )  # fmt: skip
    stage.attack(
        f"{LARGE_BODIES} bodies of 60 MB at once", "1.35 GB in each worker", lambda: _large(stage),
        lambda _: Limits(2 * IN_HAND_BYTES), bodies.BOMBS,
    )  # fmt: skip


def raise_limit() -> int:
    """Allow this process, and what it starts, as many files as the system does. Return the number."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _open(opened: ExitStack, stage: Stage, number: int, client: str, content: bytes) -> None:
    connection = opened.enter_context(socket.socket())
    connection.bind((client, 0))
    connection.settimeout(10)
    connection.connect(("127.0.0.1", stage.stack.port))
    connection.sendall(content)


def _heads(stage: Stage) -> Outcome:
    """Ask the control plane all the time while the heads are held."""
    free = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - len(list(Path("/proc/self/fd").iterdir())) - 200
    count, failed = min(HEADS, free), 0
    answers: Counter[int] = Counter()
    with ExitStack() as opened:
        until_s = time.monotonic() + FLOOD_S
        for number in range(count):
            try:
                _open(opened, stage, number, f"127.0.0.{30 + number % 8}", _HEAD)
            except OSError:
                failed += 1
            if number % 200 == 0:
                _look(stage, answers)
        while time.monotonic() < until_s:
            _look(stage, answers)
            time.sleep(0.1)
    status = (
        f"control plane: {answers[200]} of {answers.total()} probes and metrics answered; {count - failed} heads held"
    )
    return Outcome(count * len(_HEAD), status, set(answers) == {200})


def _look(stage: Stage, answers: Counter[int]) -> None:
    for path in ("/v2/health/ready", "/metrics"):
        answers[stage.ask(path, admin=True, client="127.0.0.9").status] += 1


def _slow(stage: Stage) -> Outcome:
    """One address holds more unfinished bodies than a client may; another one is answered."""
    with ExitStack() as opened:
        for number in range(SLOW_BODIES):
            _open(opened, stage, number, "127.0.0.2", _SLOW)
        own = stage.ask("/v1/models/iris:predict", b'{"instances": [[1, 1, 1, 1]]}', client="127.0.0.2")
        probe = stage.ask("/v2/health/ready", client="127.0.0.2")
    status = f"its further requests {own.text}, its probes {probe.status}"
    return Outcome(SLOW_BODIES * len(_SLOW), status, (own.status, probe.status) == (429, 200))


def _large(stage: Stage) -> Outcome:
    """All are sent at once; then the workers have to give the memory back."""
    body, headers = bodies.raw("FP64", 8, LARGE_ROWS)
    answers: Counter[int] = Counter()
    peaks = workers.Peaks(stage.all_workers())

    def send() -> None:
        answers[stage.ask("/v2/models/wide/infer", body, headers).status] += 1

    threads = [threading.Thread(target=send) for _ in range(LARGE_BODIES)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ended_s = time.monotonic()
    while (kept := peaks.growth("VmRSS")) > KEPT_BYTES and time.monotonic() < ended_s + RELEASE_S:
        time.sleep(0.5)
    said = ", ".join(f"{number} times {status}" for status, number in sorted(answers.items()))
    said += f"; {mb(max(0, kept))} MB kept after {time.monotonic() - ended_s:.0f} s"
    is_right = set(answers) <= {200, 429, 503, 504} and kept <= KEPT_BYTES
    return Outcome(LARGE_BODIES * len(body), said, is_right, LARGE_BODIES)
