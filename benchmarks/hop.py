"""Measures what a model process adds to the prediction of one row.

`python -m benchmarks.hop` publishes nothing and starts no stack: for each example model it calls the estimator in this
process and through a model process of the same interpreter, in turn, and prints the medians. `--over-http` starts a
stack and measures whole requests instead, of each model in the server's own process and in a model process.
"""

from __future__ import annotations

import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import single_row
from examples.train import EXAMPLES, publish_all
from tableside.contract.table import Table
from tableside.model_process.process_pool import PrivateProcess, load_version
from tableside.preflight.checks import check_version
from tableside.repository import integrity
from tableside.runtimes import golden
from tableside.runtimes.base import Runtime
from tableside.runtimes.router import RoutedRuntime
from tableside.runtimes.trusted_types import TRUSTED
from tableside.settings import Repository

ROUNDS, CALLS = 20, 100
HEADING = "| model | {} in process, us | through a model process, us | hop, us |\n|---|---|---|---|"


def seconds(runtime: Runtime, table: Table) -> list[float]:
    """Return the seconds of each call of `predict`."""
    spent = []
    for _ in range(CALLS):
        began = time.perf_counter()
        runtime.run("predict", runtime.prepare(table))
        spent.append(time.perf_counter() - began)
    return spent


@contextmanager
def repository() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="tsbench-"))
    try:
        publish_all(folder / "models")
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def row(name: str, here: list[float], there: list[float]) -> str:
    own, remote = statistics.median(here) * 1e6, statistics.median(there) * 1e6
    return f"| {name} | {own:.0f} | {remote:.0f} | {remote - own:.0f} |"


def alternate(first: Callable[[], list[float]], second: Callable[[], list[float]]) -> tuple[list[float], list[float]]:
    here: list[float] = []
    there: list[float] = []
    for _ in range(ROUNDS):
        here += first()
        there += second()
    return here, there


def calls(root: Path) -> None:
    """Print the medians of calls of the runtime, without HTTP and without the queue."""
    print(HEADING.format("predict"))
    process = PrivateProcess("bench", sys.executable, 60.0)
    for name in EXAMPLES:
        contract = integrity.read_contract(root, name, 1)
        own = check_version(root, name, 1, Repository())
        own = own.original if isinstance(own, RoutedRuntime) else own
        artifact = root / name / "1" / contract.artifact.file
        remote = load_version(process, contract, artifact, tuple(TRUSTED), time.monotonic() + 60)
        table = golden.golden_table(contract).take(0, 1)
        here, there = alternate(lambda own=own: seconds(own, table), lambda remote=remote: seconds(remote, table))  # type: ignore[misc]  # noqa: B023
        print(row(name, here, there))
    process.close()


def over_http(folder: Path) -> None:
    """Print the medians of whole requests over one kept connection."""
    root, port = folder / "models", single_row.free_port()
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
                lambda name=name, body=body: single_row.over_http(port, f"{name}-own", body),  # type: ignore[misc]
                lambda name=name, body=body: single_row.over_http(port, name, body),  # type: ignore[misc]
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
