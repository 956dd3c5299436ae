"""Measures what loading small models costs, and when a stack is ready: `python -m benchmarks.loading`.

A scaled logistic regression, a forest of 100 trees and a histogram boosting are published once and copied, each copy
with an artifact of its own. First one process loads copies and counts the CPU time of each part: as on a host that has
never loaded them, and as in a worker after that. Then a stack with that many models is started twice: for the first
time, with preflights, and again, as after a restart. `--models 60 200 1000` sets the numbers of models, `--no-stack`
leaves the stack out.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.soak.stack import Stack
from tableside.contracts import schema
from tableside.contracts.schema import Contract
from tableside.preflight import checks
from tableside.publishing.publish import publish
from tableside.repository import integrity
from tableside.runtimes.checked_artifacts import CheckedArtifacts
from tableside.runtimes.sklearn import warm_up
from tableside.settings import Repository

KINDS = ("logistic", "forest", "boosting")
MEASURED = 6
"""How many copies of each kind are loaded for the CPU times, after one that imports what the kind needs."""
LIMIT_S = 1800.0
PARTS: dict[str, tuple[Any, str]] = {
    "hash": (integrity, "check_artifact"),
    "estimator": (checks, "load_sklearn"),
    "golden rows": (checks.golden, "compare"),
    "fast backends": (checks, "build_router"),
}
"""Part of a load, and the function that does it. The rest is the contract, and the backends' golden answers."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", 1)[0] if __doc__ else "")
    parser.add_argument("--models", type=int, nargs="+", default=[60, 200])
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--no-stack", action="store_true")
    chosen = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tableside-loading-"))
    try:
        published = publish_kinds(folder / "published")
        cpu_times(folder, published)
        for count in [] if chosen.no_stack else chosen.models:
            stack_times(folder / f"stack-{count}", published, count, chosen.workers)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish_kinds(root: Path) -> list[Contract]:
    """Publish one model of each kind."""
    features, classes = load_breast_cancer(return_X_y=True, as_frame=True)
    estimators = (
        make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        RandomForestClassifier(100, random_state=0),
        HistGradientBoostingClassifier(random_state=0),
    )
    return [
        publish(kind, estimator.fit(features, classes), features, repository=root, quick=True)
        for kind, estimator in zip(KINDS, estimators, strict=True)
    ]


def copy_model(published: Path, contract: Contract, root: Path, name: str) -> None:
    """Copy a version under another name. A comment in the archive gives its artifact another hash."""
    folder = root / name / "1"
    folder.mkdir(parents=True)
    artifact = folder / contract.artifact.file
    shutil.copyfile(published / contract.name / "1" / contract.artifact.file, artifact)
    with zipfile.ZipFile(artifact, "a") as archive:
        archive.comment = name.encode()
    content = artifact.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    changed = msgspec.structs.replace(contract.artifact, sha256=digest, size_bytes=len(content))
    copied = msgspec.structs.replace(contract, name=name, artifact=changed)
    (folder / "contract.json").write_bytes(schema.encode(copied))
    (folder / "checksums.sha256").write_text(integrity.checksum_lines(copied), encoding="ascii")


def cpu_times(folder: Path, published: list[Contract]) -> None:
    """Print the CPU milliseconds of a load by kind and part: without an entry, and with one."""
    warm_up()
    root = folder / "parts"
    for contract in published:
        for number in range(MEASURED + 1):
            copy_model(folder / "published", contract, root, f"{contract.name}-{number}")
    checked = CheckedArtifacts(folder / "checked")
    spent: dict[str, float] = dict.fromkeys(PARTS, 0.0)
    print(f"CPU ms per model and process, mean of {MEASURED} (load of the machine: {os.getloadavg()[0]:.1f})")
    print("| kind | load | " + " | ".join(PARTS) + " | rest | sum |")
    print("|" + "---|" * (len(PARTS) + 4))
    with instrumented(spent):
        for title in ("first on a host", "in a worker"):
            for kind in KINDS:
                checks.check_version(root, f"{kind}-0", 1, Repository(), checked=checked)
                spent.update(dict.fromkeys(PARTS, 0.0))
                began_s = time.process_time()
                for number in range(1, MEASURED + 1):
                    checks.check_version(root, f"{kind}-{number}", 1, Repository(), checked=checked)
                total = time.process_time() - began_s
                each = [*spent.values(), total - sum(spent.values()), total]
                cells = " | ".join(f"{seconds / MEASURED * 1000:.1f}" for seconds in each)
                print(f"| {kind} | {title} | {cells} |", flush=True)


@contextmanager
def instrumented(spent: dict[str, float]) -> Iterator[None]:
    """Add up the CPU time of each of PARTS."""

    def timed(part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            began_s = time.process_time()
            try:
                return call(*args, **kwargs)
            finally:
                spent[part] += time.process_time() - began_s

        return run

    kept = {part: getattr(owner, name) for part, (owner, name) in PARTS.items()}
    for part, (owner, name) in PARTS.items():
        setattr(owner, name, timed(part, kept[part]))
    try:
        yield
    finally:
        for part, (owner, name) in PARTS.items():
            setattr(owner, name, kept[part])


def stack_times(folder: Path, published: list[Contract], count: int, workers: int) -> None:
    """Print the seconds until a stack is ready, and the CPU time of its workers by then."""
    for number in range(count):
        contract = published[number % len(published)]
        copy_model(folder.parent / "published", contract, folder / "models", f"m{number:04d}")
    stack = Stack(folder, folder / "models", workers)
    for title in ("first start", "started again"):
        load = os.getloadavg()[0]
        seconds = stack.start(LIMIT_S)
        stack.wait(lambda: len(stack.ready_workers()) >= workers, "every worker is ready", 600)
        cpu = [cpu_s(pid) for pid in stack.ready_workers()]
        print(
            f"{count} models, {title}: ready after {seconds:.1f} s; CPU of the {workers} workers "
            f"{', '.join(f'{each:.1f}' for each in cpu)} s (load of the machine: {load:.1f})",
            flush=True,
        )
        stack.stop()


def cpu_s(pid: int) -> float:
    """The CPU seconds that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
