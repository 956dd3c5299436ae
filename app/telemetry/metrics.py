"""Prometheus metrics, right over all workers and over their deaths.

`use_slot` must run before the first metric is touched: it keys the multiprocess files by the worker's slot. Label
values come from the repository and from fixed sets only; a name a client invented never becomes a label.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values

from tableside import __version__

NO_MODEL = "-"
"""Label of a request that named no model we have."""

STAGE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)
LIVE_GAUGE_FILES = "gauge_live*_*.db"
"""How prometheus-client names the files of live gauges (undocumented); the last part is the slot."""
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST


class Metrics:
    """Every metric of one process. docs/reference/metrics.md lists them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        by_model = ("model", "version")
        self.requests = Counter(
            "tableside_requests", "Answered requests.", (*by_model, "protocol", "code"), registry=registry
        )
        self.stage_seconds = Histogram(
            "tableside_stage_seconds", "Seconds spent in each stage of a prediction.", (*by_model, "stage"),
            buckets=STAGE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "tableside_request_seconds", "Seconds from the request's first line to its answer.", by_model,
            buckets=STAGE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.rows = Counter("tableside_rows", "Rows predicted.", by_model, registry=registry)
        self.not_finite = Counter(
            "tableside_not_finite", "Predicted cells that were NaN or infinite.", by_model, registry=registry
        )
        self.verifications = Counter(
            "tableside_verifications", "Answers of a fast backend that were asked of the estimator again.",
            (*by_model, "result"), registry=registry,
        )  # fmt: skip
        self.batch_rows = Histogram(
            "tableside_batch_rows", "Rows in each call of the estimator.", by_model, buckets=ROW_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.queue_rows = Gauge(
            "tableside_queue_rows", "Rows that wait for their model now.", by_model, registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.dropped = Counter(
            "tableside_dropped", "Requests that were not given to the estimator.", (*by_model, "reason"),
            registry=registry,
        )  # fmt: skip
        self.cache_requests = Counter(
            "tableside_cache_requests", "Requests for models with a cache.", (*by_model, "result"), registry=registry
        )
        self.cache_bytes = Gauge(
            "tableside_cache_bytes", "Memory that kept answers take.", by_model, registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.in_flight = Gauge(
            "tableside_in_flight", "Predictions being answered now.", ("model",), registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.load_seconds = Gauge(
            "tableside_model_load_seconds", "Seconds the last load took, golden rows included.", by_model,
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.model_state = Gauge(
            "tableside_model_state", "Workers that hold the version in this state.", (*by_model, "state"),
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.model_problem = Gauge(
            "tableside_model_problem", "Workers that see this class of problem with the version.",
            (*by_model, "reason"), registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.generation = Gauge(
            "tableside_generation", "Repository generation this worker serves: the lowest over the workers.",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.build_info = Gauge(
            "tableside_build_info", "Always 1; the labels say what runs.", ("version", "python"), registry=registry,
            multiprocess_mode="livemax",
        )  # fmt: skip
        self.build_info.labels(__version__, platform.python_version()).set(1)


def use_worker_slot(slot: int, folder: Path) -> bool:
    """Key this process's metric files by `slot` below `folder`.

    Returns False, and leaves metrics in this process's memory, when the folder cannot be written: a full or missing
    folder must not stop a worker from predicting.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"x" * 65536)
        probe.unlink()
    except OSError:
        return False
    _forget_live_gauges(folder, slot)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    number = str(slot)
    values.ValueClass = values.MultiProcessValue(lambda: number)  # type: ignore[no-untyped-call]
    return True


def make() -> Metrics:
    """The metrics of this process, on a registry of their own."""
    return Metrics(CollectorRegistry())


def _forget_live_gauges(folder: Path, slot: int) -> None:
    with suppress(FileNotFoundError):  # another worker has removed the same file
        multiprocess.mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]


def render(metrics: Metrics, folder: Path | None, held_slots: Iterable[int]) -> bytes:
    """The exposition text over all workers (`folder`), or of this process alone (None).

    Live gauges of slots nobody holds are dropped first, so a killed worker's in-flight count does not stay.
    """
    return generate_latest(_merged(metrics, folder, held_slots))


Totals = Mapping[tuple[str, str, str], float]
"""(sample name, model, version) to a sum over all workers and the other labels, except the stage: `name:stage`."""


def totals(metrics: Metrics, folder: Path | None, held_slots: Iterable[int]) -> Totals:
    """Every sample that carries a model and a version, summed."""
    found: dict[tuple[str, str, str], float] = {}
    for family in _merged(metrics, folder, held_slots).collect():
        for sample in family.samples:
            labels = sample.labels
            if "model" in labels and "version" in labels and "le" not in labels:
                detail = labels.get("stage") or ("200" if labels.get("code") == "200" else "")
                name = f"{sample.name}:{detail}" if detail else sample.name
                key = (name, labels["model"], labels["version"])
                found[key] = found.get(key, 0.0) + sample.value
    return found


def _merged(metrics: Metrics, folder: Path | None, held_slots: Iterable[int]) -> CollectorRegistry:
    if folder is None:
        return metrics.registry
    alive = set(held_slots)
    for file in folder.glob(LIVE_GAUGE_FILES):
        slot = int(file.stem.rpartition("_")[2])
        if slot not in alive:
            _forget_live_gauges(folder, slot)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    return registry


def folder() -> Path | None:
    """Where all workers' metric files lie; None where this process keeps its own."""
    found = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(found) if found else None
