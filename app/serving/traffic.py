"""Divides the traffic of a model: its canary answers a part of the requests, and its shadow computes a part once more.

Only requests that name no version are divided and compared. A model without either pays one look at
`Servable.traffic`.
"""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from tableside.contracts.schema import Output
from tableside.contracts.table import Table
from tableside.repository.model_toml import ModelConfig
from tableside.repository.traffic_config import CanaryConfig, ShadowConfig
from tableside.serving.catalog import Catalog
from tableside.serving.comparisons import Counts, Kind
from tableside.serving.cpu_budget import CpuBudget
from tableside.serving.lifecycle import State
from tableside.serving.servable import Prediction, Servable
from tableside.serving.shadow import Drop, InputFit, Job, Record, Replayed, Replays, Sample, sample_of
from tableside.telemetry import logs
from tableside.telemetry.metrics import Metrics
from tableside.telemetry.request_trace import RequestTrace

BUCKETS = 10_000
"""Callers are divided into so many parts: one is a hundredth of a per cent."""
Find = Callable[[int], Servable | None]
"""Returns the servable of a version of the model; None if there is none."""
log = logs.get_logger("traffic")


def find(catalog: Catalog, name: str, version: int) -> Servable | None:
    """Return a version of a model; None if it is not there."""
    model = catalog.models.get(name)
    return next((each for each in model.servables if each.version == version), None) if model is not None else None


def bucket(name: str, value: str) -> int:
    """Return the part, from 0 to BUCKETS - 1, of those that send this value. It is the same on every host, for ever."""
    digest = hashlib.blake2b(f"{name}\0{value}".encode(errors="surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % BUCKETS


class CanaryPick:
    """Which requests a canary answers. Those that it answered before, it answers with a larger percentage too."""

    def __init__(self, name: str, config: CanaryConfig) -> None:
        self.version = config.version
        self._name = name
        self._below = round(config.percent * BUCKETS / 100)

    def takes(self, value: str) -> bool:
        """Whether the canary answers a request with this value of the sticky header; without a value, by chance."""
        if value:
            return bucket(self._name, value) < self._below
        return random.random() * BUCKETS < self._below  # noqa: S311 - nothing is kept secret by it


class ModelTraffic:
    """How the requests of one model are divided in this worker, and what is counted of it.

    header: the WSGI key of the sticky header; empty if there is none.
    """

    def __init__(
        self, name: str, config: ModelConfig, counts: Mapping[Kind, Counts], find: Find, replays: Replays,
        metrics: Metrics, changed: Callable[[], None],
    ) -> None:  # fmt: skip
        """find: a version of the model. changed: called when something was counted."""
        canary, shadow = config.canary, config.shadow
        self.config = config
        self.header = "HTTP_" + canary.sticky.upper().replace("-", "_") if canary is not None and canary.sticky else ""
        self._canary = CanaryPick(name, canary) if canary is not None else None
        self._canary_text = str(canary.version) if canary is not None else ""
        self._beside = counts.get("canary")
        self._find, self._replays, self._changed = find, replays, changed
        behind = counts.get("shadow")
        self._shadow = (
            ShadowTraffic(name, shadow, behind, metrics, changed) if shadow is not None and behind is not None else None
        )

    def pick(self, default: Servable, value: str, catalog: Catalog) -> Servable:
        """Return what answers a request that names no version: `default`, or the canary while it is READY.

        value: of the sticky header, if there is one. catalog: that of `default`; no request sees parts of two.
        """
        canary = self._canary
        if canary is None or canary.version == default.version or not canary.takes(value):
            return default
        found = find(catalog, default.name, canary.version)
        return found if found is not None and found.state is State.READY else default

    def sample(
        self, servable: Servable, table: Table, outputs: Sequence[Output], prediction: Prediction
    ) -> Sample | None:
        """Return what the shadow is to compute once more, if it is to. Answers of the canary are not compared."""
        shadow = self._shadow
        if shadow is None or str(servable.version) == self._canary_text or servable.contract is None:
            return None
        if not shadow.takes(servable.version):
            return None
        call_s = None if prediction.cached else prediction.predict_s
        return sample_of(table, outputs, prediction.arrays, servable.contract, call_s)

    def answered(self, trace: RequestTrace, status: int, seconds: float) -> None:
        """Count an answered request, and give its sample to the shadow. See `request_trace.Watch`."""
        if self._beside is not None:
            self._count(self._beside, trace, status, seconds)
        sample, trace.sample = trace.sample, None
        if self._shadow is not None and isinstance(sample, Sample) and status == 200:
            self._replays.add(self._shadow.job(sample, self._find))

    def _count(self, counts: Counts, trace: RequestTrace, status: int, seconds: float) -> None:
        side = counts.candidate if trace.version == self._canary_text else counts.others
        side.requests += 1
        if status == 200:
            side.rows += trace.rows
            side.seconds.add(seconds)
        elif status >= 500:
            side.errors += 1
        self._changed()


class ShadowTraffic:
    """The shadow of one model in this worker: which requests it computes, and what came out."""

    def __init__(
        self, name: str, config: ShadowConfig, counts: Counts, metrics: Metrics, changed: Callable[[], None]
    ) -> None:
        self._name, self._config, self._counts, self._changed = name, config, counts, changed
        self._fit, self._budget = InputFit(), CpuBudget(config.cpu_share)
        self._record = Record(self._replayed, self._dropped)
        labels = (name, str(config.version))
        self._rows, self._flips = metrics.shadow_rows.labels(*labels), metrics.shadow_flips.labels(*labels)
        self._errors, self._cpu = metrics.shadow_errors.labels(*labels), metrics.shadow_cpu_seconds.labels(*labels)
        self._drops = {reason: metrics.shadow_dropped.labels(*labels, reason.value) for reason in Drop}

    def takes(self, answering: int) -> bool:
        """Whether to compute a request once more that this version has answered. Chance decides."""
        if answering == self._config.version:
            return False
        return random.random() * 100 < self._config.percent  # noqa: S311 - nothing is kept secret by it

    def job(self, sample: Sample, find: Find) -> Job:
        """Return the sample as work for `Replays`."""
        candidate = partial(find, self._config.version)
        return Job(sample, candidate, self._fit, self._budget, self._record, time.monotonic())

    def _replayed(self, sample: Sample, replayed: Replayed) -> None:
        counts = self._counts
        counts.cpu_s += replayed.cpu_s
        self._cpu.inc(replayed.cpu_s)
        counts.candidate.requests += 1
        counts.others.requests += 1
        if replayed.differences is None:
            if not counts.candidate.errors:
                log.warning("shadow_failed", model=self._name, version=self._config.version, error=replayed.error)
            counts.candidate.errors += 1
            self._errors.inc()
        else:
            self._compared(sample, replayed)
        self._changed()

    def _compared(self, sample: Sample, replayed: Replayed) -> None:
        counts, differences = self._counts, replayed.differences
        assert differences is not None
        for side in (counts.candidate, counts.others):
            side.rows += replayed.rows
        counts.flips += differences.flips
        for output, deltas in differences.deltas.items():
            counts.of_output(output).merge(deltas)
        if sample.call_s is not None:
            counts.candidate.seconds.add(replayed.call_s)
            counts.others.seconds.add(sample.call_s)
        self._rows.inc(replayed.rows)
        self._flips.inc(differences.flips)

    def _dropped(self, reason: Drop) -> None:
        self._counts.dropped[reason.value] = self._counts.dropped.get(reason.value, 0) + 1
        self._drops[reason].inc()
        self._changed()
