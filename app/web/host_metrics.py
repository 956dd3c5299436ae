"""The metrics of all workers of this host, read without blocking the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from tableside.process import worker_slots
from tableside.process.offload import run_native
from tableside.telemetry import metrics
from tableside.telemetry.metrics import Metrics, Totals
from tableside.web.extensions import Extensions

T = TypeVar("T")


def render(parts: Extensions) -> bytes:
    """Return all metrics in Prometheus's text format."""
    return _read(parts, metrics.render)


def totals(parts: Extensions) -> Totals:
    """Return the sums of the metrics by model and version."""
    return _read(parts, metrics.totals)


def _read(parts: Extensions, read: Callable[[Metrics, Path | None, Iterable[int]], T]) -> T:
    """Read the files of all workers in a native thread, one reading after the other.

    A reading takes some 20 ms with 100 models and 8 workers. The first of all takes 200 ms: gunicorn's master does it
    before it forks a worker. A process that keeps its metrics in memory reads them on the event loop, because native
    threads must not touch their locks.
    """
    made, folder = parts.metrics, metrics.folder()
    if folder is None:
        return read(made, None, ())
    slots = parts.settings.run_dir / "worker_slots"
    with made.reading:
        found = run_native(lambda: read(made, folder, worker_slots.held(slots)))
        metrics.log_problems(made)
    return found
