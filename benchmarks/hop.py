"""Measures what a model process adds to the prediction of one row.

`python -m benchmarks.hop` starts no stack: for each example model, and for one that computes nothing, it calls the
estimator in this process and through a model process of the same interpreter, in turn. As in a worker, gevent has
patched this process. It prints the medians, the difference of the fastest tenth, and the processor time of both
processes together. A bare process (benchmarks.bare_process) calls the same estimator without a table on the wire: what
it costs more than a call in this process is the kernel's and the caches', and the rest of the hop is Tableside's.
`--over-http` starts a stack and measures whole requests instead, of each model in the server's own process and in a
model process.
"""

from gevent import monkey

monkey.patch_all()

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from gevent.monkey import get_original
from sklearn.dummy import DummyRegressor

from benchmarks import single_row
from benchmarks.free_ports import free_port
from examples.train import EXAMPLES
from tableside.contracts.table import Table
from tableside.model_process.process_pool import HELLO, PrivateProcess, load_version
from tableside.preflight.checks import check_version
from tableside.publishing.publish import publish
from tableside.repository import integrity
from tableside.runtimes import golden
from tableside.runtimes.base import Runtime
from tableside.runtimes.trusted_types import TRUSTED
from tableside.settings import Repository

ROUNDS, CALLS = 10, 40
CONSTANT = "constant"
"""A model that computes nothing: what its row shows is the hop alone."""
HEADING = (
    "| model | {0} in process, us | through a model process, us | hop, us | hop of the fastest tenth, us | "
    "of that, a bare process, us | more processor time, us |\n|---|---|---|---|---|---|---|"
)
Measured = tuple[list[float], float]
"""The seconds of each call, and the processor time of all calls in this process and the model process."""


def constant() -> tuple[Any, Any]:
    rows = np.arange(40.0).reshape(20, 2)
    return DummyRegressor().fit(rows, rows[:, 0]), rows


MODELS = {CONSTANT: constant, **EXAMPLES}


def processor_s(children: list[int]) -> float:
    """Return the processor time of this process and of its children (proc(5), /proc/PID/task/TID/schedstat)."""
    total = 0
    for pid in (os.getpid(), *children):
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def measure(runtime: Runtime, table: Table, children: list[int]) -> Measured:
    """Call `predict` CALLS times."""
    spent, before = [], processor_s(children)
    for _ in range(CALLS):
        began = time.perf_counter()
        runtime.run("predict", runtime.prepare(table))
        spent.append(time.perf_counter() - began)
    return spent, processor_s(children) - before


@contextmanager
def repository() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tsbench-"))
    try:
        for name, train in MODELS.items():
            estimator, sample = train()
            publish(
                name, estimator, sample, repository=folder / "models", nullable="all", runtime="sklearn", quick=True
            )
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def row(name: str, here: list[Measured], there: list[Measured], bare: list[Measured] | None = None) -> str:
    own, remote = (sorted(spent for calls, _ in found for spent in calls) for found in (here, there))
    median, far = statistics.median(own) * 1e6, statistics.median(remote) * 1e6
    fastest = own[len(own) // 10]
    tenth = (remote[len(remote) // 10] - fastest) * 1e6
    least = sorted(spent for calls, _ in bare or () for spent in calls)
    floor = f"{(least[len(least) // 10] - fastest) * 1e6:.0f}" if least else "-"
    processor = sum(cpu for _, cpu in there) - sum(cpu for _, cpu in here)
    more = f"{processor / len(own) * 1e6:.0f}" if processor else "-"
    return f"| `{name}` | {median:.0f} | {far:.0f} | {far - median:.0f} | {tenth:.0f} | {floor} | {more} |"


def alternate(*ways: Callable[[], Measured]) -> list[list[Measured]]:
    """Measure each way ROUNDS times, in turn."""
    found: list[list[Measured]] = [[] for _ in ways]
    for _ in range(ROUNDS):
        for measured, way in zip(found, ways, strict=True):
            measured.append(way())
    return found


class BareProcess:
    """A process of benchmarks.bare_process for one model."""

    def __init__(self, root: Path, name: str) -> None:
        make: Any = get_original("socket", "socketpair")
        self._connection, theirs = make()
        self._connection.setblocking(True)
        words = [sys.executable, "-m", "benchmarks.bare_process", str(root), name, str(theirs.fileno())]
        self._process = subprocess.Popen(words, pass_fds=[theirs.fileno()])
        theirs.close()
        self.call()

    def call(self) -> None:
        self._connection.send(b"x")
        if not self._connection.recv(1):
            raise SystemExit("the bare process has ended")

    def measure(self) -> Measured:
        spent = []
        for _ in range(CALLS):
            began = time.perf_counter()
            self.call()
            spent.append(time.perf_counter() - began)
        return spent, 0.0

    def close(self) -> None:
        self._connection.close()
        self._process.wait(10)


def calls(root: Path) -> None:
    """Print the medians of calls of the runtime, without HTTP and without the queue."""
    print(HEADING.format("predict"))
    process = PrivateProcess("bench", sys.executable, 60.0)
    children = [int(process.call(HELLO, (), time.monotonic() + 60).header["pid"])]
    for name in MODELS:
        contract = integrity.read_contract(root, name, 1)
        own = check_version(root, name, 1, Repository())
        artifact = root / name / "1" / contract.artifact.file
        remote = load_version(process, contract, artifact, tuple(TRUSTED), time.monotonic() + 60)
        remote.is_brief = lambda rows: True
        table = golden.golden_table(contract).take(0, 1)
        bare = BareProcess(root, name)
        here, there, least = alternate(
            lambda own=own, table=table: measure(own, table, children),  # type: ignore[misc]
            lambda remote=remote, table=table: measure(remote, table, children),  # type: ignore[misc]
            bare.measure,
        )
        bare.close()
        print(row(name, here, there, least), flush=True)
    process.close()


def over_http(folder: Path) -> None:
    """Print the medians of whole requests over one kept connection."""
    root, port = folder / "models", free_port()
    for name in EXAMPLES:
        shutil.copytree(root / name, root / f"{name}-own")
        contract = root / f"{name}-own" / "1" / "contract.json"
        contract.chmod(0o644)
        contract.write_text(contract.read_text().replace(f'"name": "{name}"', f'"name": "{name}-own"', 1))
        (root / f"{name}-own" / "model.toml").write_text('runtime = "sklearn"\n')
        (root / name / "model.toml").write_text('environment = "bench"\n')
    process = single_row.start(folder, port, TABLESIDE__ENVIRONMENTS__BENCH__PYTHON=sys.executable)
    try:
        print(HEADING.format("request"))
        for name, train in EXAMPLES.items():
            example = train()[1].dropna().iloc[0].to_dict()
            body = {key: value.item() if hasattr(value, "item") else value for key, value in example.items()}
            here, there = alternate(
                lambda name=name, body=body: (single_row.over_http(port, f"{name}-own", body), 0.0),  # type: ignore[misc]
                lambda name=name, body=body: (single_row.over_http(port, name, body), 0.0),  # type: ignore[misc]
            )
            print(row(name, here, there))
    finally:
        process.terminate()
        process.wait(90)


def main() -> None:
    """Print a Markdown table."""
    with repository() as folder:
        if "--over-http" in sys.argv:
            over_http(folder)
        else:
            calls(folder / "models")


if __name__ == "__main__":
    main()
