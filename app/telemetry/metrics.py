"""Prometheus metrics, summed over all workers, including those that have ended.

Call `use_worker_slot` before the first metric is made: it names the files of prometheus-client's multiprocess mode
after the worker's slot. Label values come from the repository and from fixed sets only, never from a client: each new
value takes memory for good.
"""

from __future__ import annotations

import math
import os
import platform
import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest, multiprocess, values

from tableside import __version__
from tableside.telemetry import logs
from tableside.telemetry.metric_files import MetricFiles
from tableside.telemetry.metric_totals import total_key

if TYPE_CHECKING:
    from tableside.telemetry.metric_reader import MetricReader

NO_MODEL = "-"
"""Label of a prediction that was refused before a version of the repository had taken it."""

STAGE_BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
ROW_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096, 16384, 65536)
BY_MODEL = ("model", "version")
CONTENT_TYPE = prometheus_client.CONTENT_TYPE_LATEST

Totals = Mapping[tuple[str, str, str], float]
"""Sums by (sample name, model, version), over all workers and the other labels.

Two labels stay apart, as a suffix of the name: `tableside_stage_seconds_sum:predict` for the stage and
`tableside_requests_total:200` for the code 200.
"""
log = logs.get_logger("metrics")


class Metrics:
    """All metrics of one process, on the given registry. docs/reference/metrics.md lists them."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.recent_totals: tuple[float, Totals] = (-math.inf, {})
        """When `totals` was last called, in seconds of the monotonic clock, and what it returned."""
        self.reader: MetricReader | None = None
        """What reads the files of all workers. gunicorn's master makes it, or else the first scrape."""
        self.reading = threading.Lock()
        """Held while `reader` is used. The caller takes it in the event loop's thread, never in a native one."""
        self._add_request_metrics(registry)
        self._add_queue_metrics(registry)
        self._add_state_metrics(registry)
        self._add_traffic_metrics(registry)

    def _add_request_metrics(self, registry: CollectorRegistry) -> None:
        self.requests = Counter(
            "tableside_requests", "Answered requests.", (*BY_MODEL, "protocol", "code"), registry=registry
        )
        self.stage_seconds = Histogram(
            "tableside_stage_seconds", "Seconds spent in each stage of a prediction.", (*BY_MODEL, "stage"),
            buckets=STAGE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.request_seconds = Histogram(
            "tableside_request_seconds", "Seconds from the moment at which nginx had read the request to its answer.",
            BY_MODEL, buckets=STAGE_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.rows = Counter("tableside_rows", "Rows that were predicted.", BY_MODEL, registry=registry)
        self.not_finite = Counter(
            "tableside_not_finite", "Predicted cells that were NaN or infinite.", BY_MODEL, registry=registry
        )
        self.input_anomalies = Counter(
            "tableside_input_anomalies", "Cells that were accepted although the model was not trained on such.",
            (*BY_MODEL, "column", "kind"), registry=registry,
        )  # fmt: skip
        self.verifications = Counter(
            "tableside_verifications", "Answers of a fast backend that were compared with the estimator.",
            (*BY_MODEL, "result"), registry=registry,
        )  # fmt: skip

    def _add_queue_metrics(self, registry: CollectorRegistry) -> None:
        self.batch_rows = Histogram(
            "tableside_batch_rows", "Rows in each call of the estimator.", BY_MODEL, buckets=ROW_BUCKETS,
            registry=registry,
        )  # fmt: skip
        self.queue_rows = Gauge(
            "tableside_queue_rows", "Rows that are waiting for their model now.", BY_MODEL, registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.dropped = Counter(
            "tableside_dropped", "Requests that were dropped before the estimator ran.", (*BY_MODEL, "reason"),
            registry=registry,
        )  # fmt: skip
        self.quarantined = Counter(
            "tableside_quarantined_requests",
            "Requests that were refused because they, or others of their model, have ended workers.", BY_MODEL,
            registry=registry,
        )  # fmt: skip
        self.cache_requests = Counter(
            "tableside_cache_requests", "Requests for models with a cache.", (*BY_MODEL, "result"), registry=registry
        )
        self.cache_bytes = Gauge(
            "tableside_cache_bytes", "Bytes of memory that cached answers take.", BY_MODEL, registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip
        self.in_flight = Gauge(
            "tableside_requests_in_flight", "Predictions being answered now.", ("model",), registry=registry,
            multiprocess_mode="livesum",
        )  # fmt: skip

    def _add_state_metrics(self, registry: CollectorRegistry) -> None:
        self.load_seconds = Gauge(
            "tableside_model_load_seconds", "Seconds the last load took, golden rows included.", BY_MODEL,
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.model_loads = Counter(
            "tableside_model_loads", "Loads of a version by the workers.", (*BY_MODEL, "result"), registry=registry
        )
        self.event_loop_lag = Histogram(
            "tableside_event_loop_lag_seconds", "Seconds that the event loops of the workers were late.",
            buckets=LAG_BUCKETS_S, registry=registry,
        )  # fmt: skip
        self.model_state = Gauge(
            "tableside_model_state", "Workers that hold the version in this state.", (*BY_MODEL, "state"),
            registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.model_problem = Gauge(
            "tableside_model_problem", "Workers that found this class of problem in the version.",
            (*BY_MODEL, "reason"), registry=registry, multiprocess_mode="livesum",
        )  # fmt: skip
        self.model_processes_up = Gauge(
            "tableside_model_processes_up", "Model processes of the environment that accept connections.",
            ("environment",), registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.model_process_retries = Counter(
            "tableside_model_process_retries", "Calls sent again because their model process ended before it answered.",
            ("environment",), registry=registry,
        )  # fmt: skip
        self.generation = Gauge(
            "tableside_generation", "Repository generation that is served: the lowest of all workers.",
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.log_lines_dropped = Counter(
            "tableside_log_lines_dropped", "Log lines that were dropped because they could not be written at once.",
            registry=registry,
        )  # fmt: skip
        self.spans_sent = Counter("tableside_spans_sent", "Spans of traces that the receiver took.", registry=registry)
        self.spans_dropped = Counter(
            "tableside_spans_dropped", "Spans of traces that the receiver did not get.", ("reason",), registry=registry
        )
        self.build_info = Gauge(
            "tableside_build_info", "Always 1; the labels are the running versions.", ("version", "python"),
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.build_info.labels(__version__, platform.python_version()).set(1)

    def _add_traffic_metrics(self, registry: CollectorRegistry) -> None:
        self.shadow_rows = Counter(
            "tableside_shadow_rows", "Rows that a shadow computed once more and compared.", BY_MODEL, registry=registry
        )
        self.shadow_flips = Counter(
            "tableside_shadow_flips", "Compared rows with another label.", BY_MODEL, registry=registry
        )
        self.shadow_errors = Counter(
            "tableside_shadow_errors", "Requests that the shadow could not compute.", BY_MODEL, registry=registry
        )
        self.shadow_dropped = Counter(
            "tableside_shadow_dropped", "Requests that were chosen for the shadow and not computed.",
            (*BY_MODEL, "reason"), registry=registry,
        )  # fmt: skip
        self.shadow_cpu_seconds = Counter(
            "tableside_shadow_cpu_seconds", "Seconds of CPU time that the shadow took.", BY_MODEL, registry=registry
        )
        self.canary_share = Gauge(
            "tableside_canary_ratio", "The share of requests that the canary is to answer.", BY_MODEL,
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.release_ready = Gauge(
            "tableside_release_ready", "Whether the version that is tried is ready to be promoted: 1 or 0.", BY_MODEL,
            registry=registry, multiprocess_mode="livemin",
        )  # fmt: skip
        self.release_failing = Gauge(
            "tableside_release_failing", "Whether a rule of the version that is tried fails: 1 or 0.", BY_MODEL,
            registry=registry, multiprocess_mode="livemax",
        )  # fmt: skip
        self.canary_rollbacks = Counter(
            "tableside_canary_rollbacks", "Canaries that were ended because their requests failed.", BY_MODEL,
            registry=registry,
        )  # fmt: skip


def use_worker_slot(slot: int, folder: Path) -> bool:
    """Keep this process's metrics in files of `folder` whose names end in `slot`. The folder is made if it is missing.

    Returns False if there is no space for the files. Metrics then stay in this process's memory: a full disk must not
    stop a worker from predicting.
    """
    files = MetricFiles(folder, slot)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _forget_live_gauges(folder, slot)
    except OSError:
        return False
    if not files.prepare():
        return False
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
    values.ValueClass = files.value
    return True


def make() -> Metrics:
    """Make the metrics of this process, on a registry of their own."""
    return Metrics(CollectorRegistry())


def _forget_live_gauges(folder: Path, slot: int) -> None:
    with suppress(FileNotFoundError):  # another worker has removed the same file
        multiprocess.mark_process_dead(slot, str(folder))  # type: ignore[no-untyped-call]


def render(metrics: Metrics, folder: Path | None, held_slots: Iterable[int]) -> bytes:
    """Return the metrics in Prometheus's text format (`CONTENT_TYPE`).

    folder: the metric files of all workers; None for the metrics of this process alone.
    held_slots: the slots of living workers. The live gauges of all other slots are left out; otherwise the requests in
    flight of a killed worker would be counted for ever. Gauges of files that do not end in a number are those of other
    programs, and always count.

    One thread at a time may call this or `totals` for a folder (`metrics.reading`). Files that cannot be read are left
    out: `log_problems` tells which.
    """
    if folder is None:
        return generate_latest(metrics.registry)
    return _reader(metrics, folder).render(held_slots)


def totals(metrics: Metrics, folder: Path | None, held_slots: Iterable[int]) -> Totals:
    """Sum up all samples that have the labels model and version. The arguments and rules are those of `render`."""
    if folder is not None:
        return _reader(metrics, folder).totals(held_slots)
    sums: dict[tuple[str, str, str], float] = {}
    for family in metrics.registry.collect():
        for sample in family.samples:
            if key := total_key(sample.name, sample.labels):
                sums[key] = sums.get(key, 0.0) + sample.value
    return sums


def log_problems(metrics: Metrics) -> None:
    """Log which metric files could not be read, each once. Call it in the event loop's thread."""
    for problem in metrics.reader.take_problems() if metrics.reader is not None else ():
        log.warning("metrics_left_out", file=str(problem.file), reason=problem.reason)


def _reader(metrics: Metrics, folder: Path) -> MetricReader:
    if metrics.reader is None or metrics.reader.folder != folder:
        from tableside.telemetry.metric_reader import MetricReader  # numpy: programs that only write need none

        metrics.reader = MetricReader(folder)
    return metrics.reader


def folder() -> Path | None:
    """Return the folder of the metric files of all workers; None if this process keeps its metrics in memory."""
    path = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    return Path(path) if path else None
