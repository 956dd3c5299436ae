"""The metrics of all workers of this host, read without blocking the event loop."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
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


def read_ahead(parts: Extensions) -> None:
    """Begin to find where each value is in the metric files, and return at once.

    Without this, the first scrape that a new worker answers would take ten times as long as others.
    """

    def read() -> None:
        with suppress(OSError):  # a scrape will say so
            totals(parts)

    parts.codec_offload.spawn(read)


def _read(parts: Extensions, read: Callable[[Metrics, Path | None, Iterable[int]], T]) -> T:
    """Read the files of all workers in a native thread, one reading after the other.

    A reading takes some 20 ms with 100 models and 8 workers, the first of a process 200 ms. A process that keeps its
    metrics in memory reads them on the event loop, because native threads must not touch their locks.
    """
    made, folder = parts.metrics, metrics.folder()
    if folder is None:
        return read(made, None, ())
    slots = parts.settings.run_dir / "worker_slots"
    with made.reading:
        found = run_native(lambda: read(made, folder, worker_slots.held(slots)))
        metrics.log_problems(made)
    return found
