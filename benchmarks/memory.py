"""Measures the memory that a large forest takes in 2 and in 4 workers.

`python -m benchmarks.memory [MB] [TREES]` trains a forest of about so many MB, publishes it, starts the whole stack and
sends enough rows that every worker reads most of the nodes. Memory is PSS (a page that n processes share counts as 1/n
in each), minus the memory of the same stack with a forest of a few kB.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from benchmarks.free_ports import free_port
from benchmarks.many_rows import HEADER, memory
from benchmarks.processes import pss_mb
from benchmarks.single_row import start
from tableside.publishing.publish import publish

COLUMNS, CLASSES, SAMPLES = 10, 3, 200_000
ROWS, REQUESTS = 2000, 40
LOADED_S = 300
MB = 1_000_000


@dataclass(frozen=True)
class Taken:
    """What one stack used: PSS per worker and the largest peak (VmHWM) in MB; the longest load in seconds."""

    pss: list[float]
    peak: float
    load_s: float
    answers: Any


def make_forest(size_mb: float, trees: int = 0, samples: int = SAMPLES) -> tuple[RandomForestClassifier, Any]:
    """Return a forest of about `size_mb`, fitted on random labels so that its trees are large, and some of its rows."""
    chance = np.random.default_rng(3)
    table, labels = chance.normal(size=(samples, COLUMNS)), chance.integers(0, CLASSES, samples)
    forest = RandomForestClassifier(2, max_features=1, random_state=3, n_jobs=2, warm_start=True).fit(table, labels)
    wanted = trees or max(2, round(2 * size_mb / size_of(forest)))
    if wanted > 2:
        forest.set_params(n_estimators=wanted).fit(table, labels)
    return forest, table[:ROWS]


def size_of(forest: RandomForestClassifier) -> float:
    """Return the size of the nodes and values of a forest in MB."""
    states = [each.tree_.__getstate__() for each in forest.estimators_]
    return float(sum(state["nodes"].nbytes + state["values"].nbytes for state in states)) / MB


def loaded(run_dir: Path, workers: int) -> list[dict[str, Any]]:
    """Wait until every worker serves the model and return their status files. Raises SystemExit after LOADED_S."""
    give_up_at_s = time.monotonic() + LOADED_S
    while time.monotonic() < give_up_at_s:
        found = [json.loads(file.read_text()) for file in sorted((run_dir / "worker_slots").glob("*.json"))]
        states = [model["state"] for each in found for model in each["models"]]
        if len(found) == workers and len(states) == workers and set(states) == {"READY"}:
            return found
        time.sleep(0.2)
    raise SystemExit(f"not every worker serves the model after {LOADED_S} s: {found}")


def load_times(log: Path) -> Iterator[float]:
    """Yield the seconds that each worker took to load the model, from the log."""
    for line in log.read_text().splitlines():
        with suppress(json.JSONDecodeError):
            entry = json.loads(line)
            if entry.get("event") == "model_state" and entry.get("state") == "READY":
                yield float(entry["load_s"])


def ask(port: int, table: Any) -> Any:
    """Return the probabilities for the rows of `table`, from any worker."""
    head = json.dumps(
        {
            "inputs": [
                {
                    "name": "input-0", "shape": list(table.shape), "datatype": "FP64",
                    "parameters": {"binary_data_size": table.nbytes},
                }
            ],
            "outputs": [{"name": "predict_proba"}],
        }
    ).encode()  # fmt: skip
    url = f"http://127.0.0.1:{port}/v2/models/forest/infer"
    request = urllib.request.Request(url, data=head + table.tobytes(), headers={HEADER: str(len(head))})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return np.array(json.loads(answer.read())["outputs"][0]["data"]).reshape(len(table), -1)


def stack(repository: Path, workers: int, table: Any) -> Taken:
    """Start a stack, send it requests, measure its memory, stop it and return the figures."""
    folder, port = Path(tempfile.mkdtemp(prefix="tsbench-")), free_port()
    more = {
        "TABLESIDE__SERVER__WORKERS": str(workers),
        "TABLESIDE__REPOSITORY__PATH": str(repository),
        "TABLESIDE__LOG__FORMAT": "json",
    }
    process = start(folder, port, **more)
    try:
        statuses = loaded(folder / "run", workers)
        with ThreadPoolExecutor(workers) as clients:
            answers = list(clients.map(lambda _: ask(port, table), range(REQUESTS)))
        for row in table[:REQUESTS]:
            ask(port, row[None])
        pids = [int(status["pid"]) for status in statuses]
        load_s = max(load_times(folder / "run" / "log" / "web.log"))
        peak = max(memory(pid, "VmHWM") for pid in pids) / MB
        return Taken([pss_mb([pid]) * 1.048576 for pid in pids], peak, load_s, answers[0])
    finally:
        process.terminate()
        process.wait(90)
        shutil.rmtree(folder, ignore_errors=True)


def main() -> None:
    """Print a Markdown table."""
    size_mb, trees = float((sys.argv[1:] or ["500"])[0]), int((sys.argv[2:] or ["0"])[0])
    repository, small = (Path(tempfile.mkdtemp(prefix="tsbench-")) for _ in range(2))
    began_s = time.monotonic()
    forest, table = make_forest(size_mb, trees)
    copy, trained_s = size_of(forest), time.monotonic() - began_s
    contract = publish("forest", forest, table[:200], repository=repository)
    published_s = time.monotonic() - began_s - trained_s
    publish("forest", *make_forest(0, 2, 100), repository=small)
    nodes = sum(each.tree_.node_count for each in forest.estimators_)
    print(f"{len(forest.estimators_)} trees, {nodes / 1e6:.1f} million nodes, one copy {copy:.0f} MB;", end=" ")
    print(f"trained in {trained_s:.0f} s, published in {published_s:.0f} s")
    print(
        "fast backends:",
        "; ".join(
            f"{each.backend} {each.outcome} {each.reason} {each.speed_up}" for each in contract.equivalence_checks
        ),
    )
    expected = forest.set_params(n_jobs=1).predict_proba(table)
    del forest
    print("\n| workers | PSS a worker, MB | idle | total above idle | copies | peak of a worker | load, s | equal |")
    print("|---|---|---|---|---|---|---|---|")
    for workers in (2, 4):
        idle = stack(small, workers, table[:1])
        taken = stack(repository, workers, table)
        above = sum(taken.pss) - sum(idle.pss)
        each = ", ".join(f"{pss:.0f}" for pss in taken.pss)
        print(
            f"| {workers} | {each} | {statistics.mean(idle.pss):.0f} | {above:.0f} | {above / copy:.2f} "
            f"| {taken.peak:.0f} | {taken.load_s:.1f} | {bool((taken.answers == expected).all())} |",
            flush=True,
        )
    for folder in (repository, small):
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
