"""Measures a scrape of `/metrics` over the metric files of many workers and models.

`python -m benchmarks.scrapes [MODELS] [WORKERS]` makes the files that workers of a stack leave which has been restarted
once: twice as many worker slots as workers, half of them ended. Every model has the label sets that a served model
gets. Between two scrapes the workers count requests of every model. The table compares scrapes of Tableside's reader
with prometheus-client's MultiProcessCollector, in turn. No HTTP is measured.

A new worker has made the metrics of all its models, and goes on with what the process that forked it has read before.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, generate_latest, multiprocess

from tableside.batching.queue import DropReason
from tableside.serving.lifecycle import State
from tableside.serving.model_metrics import PrometheusBatchMetrics, PrometheusCacheMetrics
from tableside.telemetry import metrics
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.request_metrics import Answered, VersionMetrics
from tableside.telemetry.request_trace import RequestTrace

ROUNDS = 15
COLUMNS = ("age", "income", "region")
STAGES = ("decode", "queue", "predict", "encode")
CODES = (("v1", 200), ("v2", 200), ("v1", 400), ("v2", 429))


class CountingModel:
    """The metrics of one model in one worker. Every tenth model has a cache, a shadow and a canary."""

    def __init__(self, made: Metrics, number: int) -> None:
        name, self._is_tried = f"customer-churn-{number:03d}", number % 10 == 0
        self._name, self._made = name, made
        self._counts = VersionMetrics(made, name, "1")
        self._batches = PrometheusBatchMetrics(made, name, 1)
        for state in State:
            made.model_state.labels(name, "1", state.value).set(float(state is State.READY))
        made.load_seconds.labels(name, "1").set(random.uniform(0.1, 2))
        self._cache = PrometheusCacheMetrics(made, name, 1) if self._is_tried else None
        if self._is_tried:
            made.canary_share.labels(name, "1").set(0.1)
            made.shadow_rows.labels(name, "1").inc(5)
            made.shadow_cpu_seconds.labels(name, "1").inc(0.5)

    def count(self, requests: int) -> None:
        """Count some requests, as they are counted when they have been answered."""
        answered = []
        for number in range(requests):
            protocol, code = CODES[number % len(CODES)]
            trace = RequestTrace("", 0.0, model=self._name, version="1", protocol=protocol, rows=3, counted=True)
            trace.stages = {stage: random.expovariate(200) for stage in STAGES}
            if self._cache is not None:
                trace.stages["cache"] = random.expovariate(2000)
                self._cache.looked(number % 2 == 0)
            trace.anomalies = {(column, "outside_range"): 1 for column in COLUMNS}
            answered.append(Answered(trace, "POST", "/", code, random.expovariate(100)))
            self._batches.ran(random.randint(1, 200))
        self._counts.add(answered)
        self._batches.waiting(random.randint(0, 5))
        self._batches.dropped(DropReason.EXPIRED)
        self._made.in_flight.labels(self._name).set(random.randint(0, 3))
        self._made.verifications.labels(self._name, "1", "agreed").inc()


def worker(slot: int, folder: Path, models: int) -> Callable[[], None]:
    """Start a process that counts in a slot. Return what makes it count again; it ends with the caller."""
    (heard, tell), (done, say) = os.pipe(), os.pipe()
    if not os.fork():
        os.close(tell)
        assert metrics.use_worker_slot(slot, folder)
        made = metrics.make()
        made.generation.set(7)
        counting = [CountingModel(made, number) for number in random.sample(range(models), models)]
        while True:
            for model in counting:
                model.count(20)
            os.write(say, b".")
            if not os.read(heard, 1):
                os._exit(0)
    os.close(heard)
    os.close(say)
    os.read(done, 1)

    def count() -> None:
        os.write(tell, b".")
        os.read(done, 1)

    return count


def of_new_worker(slot: int, folder: Path, models: int, read: Metrics, alive: list[int]) -> tuple[float, float]:
    """Fork a worker. Return the wall and CPU time of its first scrape in ms. read: what its master has read before."""
    found, tell = os.pipe()
    pid = os.fork()
    if not pid:
        assert metrics.use_worker_slot(slot, folder)
        made = metrics.make()
        for number in range(models):
            CountingModel(made, number)
        wall_ms, cpu_ms, _ = timed(lambda: metrics.render(read, folder, [*alive, slot]))
        os.write(tell, f"{wall_ms} {cpu_ms}".encode())
        os._exit(0)
    os.close(tell)
    assert os.waitpid(pid, 0)[1] == 0
    wall_ms, cpu_ms = map(float, os.read(found, 100).split())
    os.close(found)
    return wall_ms, cpu_ms


def by_library(folder: Path) -> bytes:
    """Scrape with prometheus-client's own collector."""
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return generate_latest(registry)


def timed(scrape: Callable[[], bytes]) -> tuple[float, float, bytes]:
    """Return the wall and CPU time of a scrape in ms, and its text."""
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    text = scrape()
    return (time.perf_counter() - wall_s) * 1000, (time.process_time() - cpu_s) * 1000, text


def main() -> None:
    """Print a Markdown table."""
    models, workers = int((sys.argv[1:] or ["100"])[0]), int((sys.argv[2:] or ["8"])[0])
    folder = Path(tempfile.mkdtemp(prefix="tsbench-"))
    counters = [worker(slot, folder, models) for slot in range(2 * workers)]
    alive = list(range(workers, 2 * workers))
    made = Metrics(CollectorRegistry())
    kept: dict[str, list[tuple[float, float]]] = {}

    def keep(name: str, scrape: Callable[[], bytes]) -> bytes:
        wall_ms, cpu_ms, text = timed(scrape)
        kept.setdefault(name, []).append((wall_ms, cpu_ms))
        return text

    def ours() -> bytes:
        return metrics.render(made, folder, alive)

    tracemalloc.start()
    ours()
    held_mb, peak_mb = (size / 1e6 for size in tracemalloc.get_traced_memory())
    tracemalloc.stop()
    for _ in range(ROUNDS):
        keep(
            "Tableside, first reading in the master",
            lambda: metrics.render(Metrics(CollectorRegistry()), folder, alive),
        )
        keep("Tableside, nothing has changed", ours)
        for count in counters[workers:]:
            count()
        text = keep("Tableside, every model was used", ours)
        kept.setdefault("Tableside, first scrape of a new worker", []).append(
            of_new_worker(2 * workers, folder, models, made, alive)
        )
        keep("MultiProcessCollector", lambda: by_library(folder))
    files = [file for file in folder.glob("*.db") if file.stat().st_size]
    samples = sum(not line.startswith(b"#") for line in text.splitlines())
    print(f"{models} models, {workers} workers and as many that have ended: {len(files)} files of", end=" ")
    print(f"{sum(file.stat().st_size for file in files) / 1e6:.0f} MB; {samples} samples, {len(text) / 1e6:.1f} MB.")
    print(f"The reader holds {held_mb:.1f} MB, at its first scrape at most {peak_mb:.1f} MB (tracemalloc);", end=" ")
    print(f"the process took at most {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000:.0f} MB.")
    print(f"Load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores, {ROUNDS} rounds.\n")
    print("| scrape | wall, ms: median | worst | CPU, ms: median | worst |\n|---|---|---|---|---|")
    shutil.rmtree(folder)
    for name, found in kept.items():
        walls, cpus = zip(*found, strict=True)
        print(f"| {name} | {statistics.median(walls):.1f} | {max(walls):.1f} |", end=" ")
        print(f"{statistics.median(cpus):.1f} | {max(cpus):.1f} |")


if __name__ == "__main__":
    main()
