"""The divided traffic of all models of one worker: keeps their counts on disk, judges them, rolls a canary back."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

from tableside.process.offload import make_offload
from tableside.repository.model_toml import ModelConfig
from tableside.serving import canary_rollback, comparisons
from tableside.serving.catalog import Catalog
from tableside.serving.comparisons import FOLDER, ComparisonId, Counts, ids
from tableside.serving.judgement import Judgement, Outcome, judge_all
from tableside.serving.servable import Servable
from tableside.serving.shadow import Replays
from tableside.serving.traffic import ModelTraffic, find
from tableside.settings import Settings
from tableside.telemetry import logs
from tableside.telemetry.metrics import Metrics

WRITE_EVERY_S = 1.0
JUDGE_EVERY_S = 5.0
log = logs.get_logger("traffic")


class WorkerTraffic:
    """What `ModelTraffic` needs of a worker. Without `start`, as outside of the stack, counts stay in memory."""

    def __init__(self, settings: Settings, metrics: Metrics, catalog: Callable[[], Catalog]) -> None:
        self._settings, self._metrics, self._catalog = settings, metrics, catalog
        self._folder = settings.run_dir / FOLDER
        self._slot: int | None = None
        self._models: dict[str, ModelTraffic] = {}
        self._counts: dict[ComparisonId, Counts] = {}
        self._former: dict[ComparisonId, Counts] = {}
        self._judged: set[tuple[str, int]] = set()
        self._errors_seen: dict[str, int] = {}
        self._is_changed = False
        self._next_judgement_s = 0.0
        self._stop = threading.Event()
        self.replays = Replays(lambda: make_offload(1), lambda: False)

    def of(self, name: str, config: ModelConfig) -> ModelTraffic | None:
        """Return how a model's traffic is divided; None if no version is tried. The same object while that holds."""
        known = self._models.get(name)
        if known is not None and _asks_the_same(known.config, config):
            return known
        if known is not None:
            self._end(name, known.config)
        if not config.candidates:
            return None
        counts = {kind: self._counts_of(each) for kind, each in ids(name, config).items()}
        found = ModelTraffic(
            name, config, counts, partial(self._find, name), self.replays, self._metrics, self._note_change
        )
        if config.canary is not None:
            share, labels = config.canary.percent / 100, (name, str(config.canary.version))
            self._metrics.canary_share.labels(*labels).set(share)
            self._metrics.canary_rollbacks.labels(*labels)  # 0 is shown, so that the first rollback is an increase
        self._models[name] = found
        return found

    def _end(self, name: str, config: ModelConfig) -> None:
        self._is_changed = True
        if config.canary is not None:
            self._metrics.canary_share.labels(name, str(config.canary.version)).set(0)
        del self._models[name]

    def _counts_of(self, wanted: ComparisonId) -> Counts:
        if wanted not in self._counts:
            self._counts[wanted] = self._former.pop(wanted) if wanted in self._former else Counts(wanted)
        return self._counts[wanted]

    def _find(self, name: str, version: int) -> Servable | None:
        return find(self._catalog(), name, version)

    def _note_change(self) -> None:
        self._is_changed = True

    def start(self, slot: int) -> None:
        """Go on with what the slot's file has counted, and write it from now on, until `stop`."""
        self._slot = slot
        self._former = {counts.id: counts for counts in comparisons.read(self._folder, slot)}
        threading.Thread(target=self._follow, name="comparisons", daemon=True).start()

    def stop(self) -> None:
        """Write what was counted, and end the thread."""
        self._stop.set()
        self.write()

    def _follow(self) -> None:
        while not self._stop.wait(WRITE_EVERY_S):
            try:
                self.write()
                self.act()
            except Exception as problem:  # noqa: BLE001 - without this thread nothing would be written any more
                log.error("comparisons_failed", reason=f"{type(problem).__name__}: {problem}")

    def write(self) -> None:
        """Write the counts of the comparisons that model.toml asks for, if something was counted since."""
        if self._slot is None or not self._is_changed:
            return
        self._is_changed = False
        for gone in self._models.keys() - self._catalog().models.keys():
            self._end(gone, self._models[gone].config)
        wanted = {each for name, traffic in self._models.items() for each in ids(name, traffic.config).values()}
        self._counts = {each: counts for each, counts in self._counts.items() if each in wanted}
        comparisons.write(self._folder, self._slot, self._counts.values())

    def act(self) -> None:
        """Roll back canaries that fail too often, and judge every JUDGE_EVERY_S."""
        for name, traffic in list(self._models.items()):
            if self._has_failed_since(name, traffic.config):
                self._roll_back_if_it_fails(name, traffic.config)
        now_s = time.monotonic()
        if now_s >= self._next_judgement_s and (self._models or self._judged):
            self._next_judgement_s = now_s + JUDGE_EVERY_S
            self.judge()

    def _roll_back_if_it_fails(self, name: str, config: ModelConfig) -> None:
        if canary_rollback.roll_back_if_it_fails(self._settings, name, config) and config.canary is not None:
            self._metrics.canary_rollbacks.labels(name, str(config.canary.version)).inc()

    def _has_failed_since(self, name: str, config: ModelConfig) -> bool:
        """Whether the canary has failed in this worker since the last look."""
        wanted = ids(name, config).get("canary")
        errors = self._counts[wanted].candidate.errors if wanted in self._counts and wanted is not None else 0
        before, self._errors_seen[name] = self._errors_seen.get(name, 0), errors
        return errors > before

    def judge(self) -> None:
        """Set the metrics of the judgement of each version that is tried, and of those that no longer are."""
        now = {(name, each.version): each for name, each in self._judgements()}
        ready, failing = self._metrics.release_ready, self._metrics.release_failing
        for name, version in self._judged - now.keys():
            ready.labels(name, str(version)).set(0)
            failing.labels(name, str(version)).set(0)
        for (name, version), judgement in now.items():
            ready.labels(name, str(version)).set(judgement.is_ready)
            failing.labels(name, str(version)).set(judgement.outcome is Outcome.FAILING)
        self._judged = set(now)

    def _judgements(self) -> Iterator[tuple[str, Judgement]]:
        for name, traffic in list(self._models.items()):
            found = comparisons.merged(self._folder, ids(name, traffic.config).values())
            for judgement in judge_all(name, traffic.config, found):
                yield name, judgement


def _asks_the_same(one: ModelConfig, other: ModelConfig) -> bool:
    return (one.canary, one.shadow, one.rules) == (other.canary, other.shadow, other.rules)
