"""The stage of the attacks: the stack, its models, the steady client, and how one attack is measured."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.attacks import workers
from benchmarks.attacks.rows import Limits, Row
from benchmarks.soak import client_process
from benchmarks.soak.measured import Window
from benchmarks.soak.models import Target
from benchmarks.soak.stack import Stack

PROJECT = Path(__file__).resolve().parents[2]
RATE = 20.0
"""Requests a second of the steady client."""
SETTLE_S = 1.5
"""Seconds after an attack that count to it."""
WORKERS = 2
TIMEOUT_S = 90.0
STEADY = {
    "iris": [[5.1, 3.5, 1.4, 0.2], [6.7, 3.0, 5.2, 2.3]],
    "diabetes": [[0.04, 0.05, 0.06, 0.02, -0.04, -0.03, -0.04, 0.0, 0.02, -0.02]],
}
"""The rows that the steady client sends."""


@dataclass(frozen=True)
class Answer:
    """status: 0 if the connection was closed without an answer. code: the member of the error object, or its start."""

    status: int
    content: bytes = b""

    @property
    def text(self) -> str:
        """The status, with the error code or the reason."""
        try:
            said = json.loads(self.content)
            reason = said.get("code") or said.get("title") or "" if self.status >= 400 else ""
        except (ValueError, AttributeError):
            reason = ""
        return f"{self.status} {reason}".strip() if self.status else f"closed: {self.content.decode()}"


@dataclass(frozen=True)
class Outcome:
    """What an attack got, and whether that is right.

    times: how many equal requests its CPU time is divided by. peak_bytes: the growth of a worker's memory during one
    request; None: during all of the attack.
    """

    bytes_sent: int
    status: str
    is_right: bool
    times: int = 1
    peak_bytes: int | None = None


@dataclass
class Stage:
    """A running stack. kept: where files of attacks may lie. idle_cpu: CPU seconds a second of workers at rest."""

    stack: Stack
    kept: Path
    models: Path
    idle_cpu: float = 0.0
    rows: list[Row] = field(default_factory=list)
    tell: Callable[[str], None] = print

    def ask(
        self, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *,
        method: str | None = None, admin: bool = False, client: str = "127.0.0.1",
    ) -> Answer:  # fmt: skip
        """Send one request through nginx from a loopback address, on a new connection."""
        port = self.stack.admin_port if admin else self.stack.port
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S, source_address=(client, 0))
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers or {}))
            answer = connection.getresponse()
            return Answer(answer.status, answer.read())
        except (OSError, http.client.HTTPException) as problem:
            return Answer(0, repr(problem).encode())
        finally:
            connection.close()

    def admin_key(self) -> dict[str, str]:
        """Return the header with the admin key."""
        return {"Authorization": f"Bearer {(self.stack.run_dir / 'admin.key').read_text().strip()}"}

    def all_workers(self) -> list[int]:
        """Wait until all workers are ready. Return their pids."""
        self.stack.wait(lambda: len(self.stack.ready_workers()) == WORKERS, "all workers are ready")
        return sorted(self.stack.ready_workers())

    def attack(
        self, name: str, before: str, act: Callable[[], Outcome], limits: Callable[[Outcome], Limits], test: str = ""
    ) -> Row:
        """Attack once: measure the workers around `act`, and note the row."""
        pids = self.all_workers()
        peaks = workers.Peaks(pids)
        used_s, began_s = workers.cpu_s(pids), time.time()
        outcome = act()
        lasted_s, used_s = time.time() - began_s, workers.cpu_s(pids) - used_s
        time.sleep(SETTLE_S)
        peak_bytes = peaks.growth() if outcome.peak_bytes is None else outcome.peak_bytes
        kept_bytes = peaks.growth("VmRSS")
        lost = len(set(pids) - set(self.all_workers()))
        own_s = max(0.0, used_s - self.idle_cpu * lasted_s) / outcome.times
        row = Row(
            name, outcome.bytes_sent, before, outcome.status, outcome.is_right,
            Window(name, 1, began_s, time.time()), limits(outcome), test,
            cpu_ms=None if lost else own_s * 1e3, peak_bytes=peak_bytes,
            kept_bytes=kept_bytes, lost=lost,
        )  # fmt: skip
        self.rows.append(row)
        cost = f"{own_s * 1e3:.1f} ms, {peak_bytes / 1e6:.1f} MB, {kept_bytes / 1e6:.1f} MB kept, {lost} lost"
        self.tell(f"{name}: {row.status}, {cost}")
        return row

    def rest(self, seconds: float = 5.0) -> Row:
        """Measure what the workers use beside the steady client alone. It is the first row."""
        pids = self.all_workers()
        used_s, began_s = workers.cpu_s(pids), time.time()
        row = self.attack("nothing, to compare", "", lambda: _wait(seconds), lambda _: Limits())
        self.idle_cpu = (workers.cpu_s(pids) - used_s) / (time.time() - began_s)
        row.cpu_ms = None
        return row


def _wait(seconds: float) -> Outcome:
    time.sleep(seconds)
    return Outcome(0, "", True)


@contextmanager
def steady_client(stage: Stage, out: Path) -> Iterator[None]:
    """Send good requests at a constant rate while this is entered; `out` gets a line for each."""
    targets = []
    for model, rows in STEADY.items():
        body = json.dumps({"instances": rows})
        answer = stage.ask(f"/v1/models/{model}:predict", body.encode())
        targets.append(Target(model, body, json.loads(answer.content)["predictions"]))
    with client_process.steady_client(stage.stack.port, targets, RATE, out):
        yield
