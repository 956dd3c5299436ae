"""The registry: all servables of this worker, and the thread that reloads them when a new generation is published."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tableside.errors import ModelNotReady
from tableside.model_process.environment_pools import Environments, supervised
from tableside.preflight.coordinator import PreflightCoordinator
from tableside.process import drained, lame_duck, long_lived
from tableside.process.offload import Offload
from tableside.process.pacing import Paced
from tableside.process.worker_hand import WorkerHand
from tableside.repository.model_toml import ModelConfig
from tableside.serving import generations, readiness
from tableside.serving.catalog import EMPTY, Catalog, Model, without_surplus
from tableside.serving.lifecycle import State
from tableside.serving.loader import loader_of, settle
from tableside.serving.model_metrics import ProcessMetrics, PrometheusBatchMetrics, PrometheusCacheMetrics
from tableside.serving.policy import make_policy
from tableside.serving.quarantine import QuarantineReports
from tableside.serving.reloading import Reload
from tableside.serving.scan import PendingVersion, scan
from tableside.serving.servable import Servable
from tableside.serving.traffic_of_worker import WorkerTraffic
from tableside.serving.version_reports import VersionReports
from tableside.settings import Settings
from tableside.telemetry import logs
from tableside.telemetry.metrics import Metrics

FIRST_LOAD_WAIT_S = 3.0
"""Once one version is READY, requests wait this long for the rest of the first load before they are answered."""
_POLL_S = 0.1
log = logs.get_logger("registry")


class Registry:
    """Holds the current catalog. `reload` replaces it in one assignment, so that no request sees parts of two."""

    def __init__(
        self, settings: Settings, metrics: Metrics, loading: Offload, preflights: PreflightCoordinator | None = None,
        environments: Environments | None = None,
    ) -> None:  # fmt: skip
        """Make a registry with an empty catalog; `reload` or `follow` fills it.

        loading: runs loads in a native thread. preflights: runs the preflights of new versions; None skips them.
        environments: the model processes; by default those that supervisord runs.
        """
        self._settings = settings
        self.metrics = metrics
        self._loading = loading
        self._preflights = preflights
        self.worker_number = 0
        """The number of this worker's slot: workers with different numbers prefer different model processes."""
        self._environments = environments or supervised(settings, lambda: self.worker_number)
        self._process_metrics = ProcessMetrics(metrics, self._environments)
        self._reports = VersionReports(metrics)
        self.hand = WorkerHand()
        """The requests in hand, and those that have ended workers."""
        self.traffic = WorkerTraffic(settings, metrics, lambda: self.catalog)
        """How the requests of models are divided, of which another version is tried."""
        self._quarantine = QuarantineReports(self.hand, self._reports)
        self._on_change: Callable[[], None] = lambda: None
        self._scanned = threading.Event()
        self._first_load = threading.Event()
        self._answer_from_s = math.inf
        self._stop = threading.Event()
        self._reload_lock = threading.Lock()
        self._adopt_lock = threading.Lock()
        self._reload: Reload | None = None
        self._status = Paced(lambda: self._on_change())
        self.catalog: Catalog = EMPTY
        self.draining = False
        self.failure = ""

    @property
    def repository(self) -> Path:
        """The folder of the model repository."""
        return self._settings.repository_path

    @property
    def is_scanned(self) -> bool:
        """Whether the names of all models are known."""
        return self._scanned.is_set()

    @property
    def is_complete(self) -> bool:
        """Whether the first load is over: every version of the repository serves or is refused."""
        return self._first_load.is_set()

    @property
    def loaded(self) -> bool:
        """Whether requests may be answered: the first load is over, or lasts longer than FIRST_LOAD_WAIT_S."""
        return self._first_load.is_set() or time.monotonic() >= self._answer_from_s

    def wait_first(self, timeout_s: float) -> bool:
        """Wait up to `timeout_s` for the first load. Return whether requests may be answered."""
        give_up_at_s = time.monotonic() + timeout_s
        while not self.loaded and not self._first_load.wait(min(_POLL_S, timeout_s)):
            if time.monotonic() >= give_up_at_s:
                return False
        return True

    def wait_loaded(self, timeout_s: float) -> Catalog:
        """Return the catalog after the first load. Raises ModelNotReady if that takes longer than `timeout_s`."""
        if not self.wait_first(timeout_s):
            raise ModelNotReady("the worker is still loading its models")
        return self.catalog

    def wait_servable(self, spec: str, version: str | None, timeout_s: float) -> Servable:
        """Return the servable of a spec (see `Catalog.find`); wait up to `timeout_s` while it is LOADING.

        Raises ModelNotFound, or ModelNotReady with its state and reason.
        """
        if self._first_load.is_set():
            found = self.catalog.find(spec, version)
            if found.state is State.READY:
                return found
        give_up_at_s = time.monotonic() + timeout_s
        if not self._scanned.wait(timeout_s):
            raise ModelNotReady("the worker is still loading its models")
        while True:
            catalog = self.catalog
            found = catalog.find(spec, version, can_wait=not self._first_load.is_set())
            left_s = give_up_at_s - time.monotonic()
            if found.state is not State.LOADING or left_s <= 0:
                return found if found.state is State.READY else catalog.servable(spec, version)
            self._wait_for(found, left_s)

    def _wait_for(self, servable: Servable, timeout_s: float) -> None:
        """Ask for a version that is LOADING, and wait up to `timeout_s` for its end."""
        reload = self._reload
        ended = reload.ask((servable.name, servable.version)) if reload is not None else None
        (ended or threading.Event()).wait(timeout_s if ended is not None else min(_POLL_S, timeout_s))

    def missing(self) -> list[str]:
        """Return the versions that the first load has not loaded yet, as `name/version`."""
        return [] if self.is_complete else readiness.missing(self.catalog)

    @property
    def is_stopping(self) -> bool:
        """Whether the whole stack is about to stop. It serves requests, but should get no new traffic."""
        return lame_duck.is_announced(self._settings.run_dir)

    def not_ready(self) -> str:
        """Return why this worker should get no traffic; an empty string if it should."""
        if self.is_stopping:
            return "stopping: the server will stop soon"
        if drained.is_drained(self._settings.run_dir):
            return "drained by an operator: `tableside resume` puts the host back"
        if self.draining:
            return "draining: the worker is stopping"
        if not self._first_load.is_set():
            return readiness.what_is_missing(self.catalog)
        if not any(servable.state is State.READY for servable in self.catalog):
            return self.failure or "no model of the repository can be served"
        return ""

    def reload(self, generation: int) -> None:
        """Read the repository in a native thread, and load what is new or has changed. Never raises.

        Each version serves as soon as it is loaded, and a version that requests wait for is loaded first. A failure
        keeps the models. The catalog gets the number `generation` when the last version is decided.
        """
        with self._reload_lock:
            root, policy = self._settings.repository_path, self._settings.repository
            try:
                found = self._loading.call(partial(scan, root, policy, self.catalog, self._environments))
                loader = loader_of(self._settings, self._environments)
                reload = self._reload = Reload(found.pending, loader, self._loading, self._adopt_version)
                self._adopt_scan(found.models)
                files, check = [each.files for each in found.pending], self._preflights
                reload.run(check.rounds(root, policy, lambda: files, reload.asked) if check is not None else None)
                self.failure = ""
            except Exception as problem:  # noqa: BLE001 - the worker keeps serving, whatever goes wrong on the disk
                self.failure = f"{type(problem).__name__}: {problem}"
                log.error("reload_failed", generation=generation, reason=self.failure)
            self._complete(generation)

    def _adopt_scan(self, models: dict[str, Model]) -> None:
        """Serve what the scan has kept. Nothing is done for models in which nothing has changed."""
        with self._adopt_lock:
            before = self.catalog
            changed = [model for name, model in models.items() if model is not before.models.get(name)]
            for model in changed:
                for servable in model.servables:
                    if servable.state is not State.LOADING:
                        self._configure(servable, model.config)
            self.catalog = Catalog(before.generation, models)
            self._scanned.set()
            for model in changed:
                self._reports.report(before.models.get(model.name), model)
            for name in before.models.keys() - models.keys():
                self._reports.report(before.models[name], None)
        self._status.write()

    def _adopt_version(self, pending: PendingVersion, fresh: Servable) -> None:
        """Serve a version that was loaded, or keep the old one if it cannot be."""
        with self._adopt_lock:
            name = pending.files.name
            before = self.catalog.models[name]
            now = settle(before, pending, fresh)
            if fresh in now.servables:
                self._configure(fresh, now.config)
            self.catalog = Catalog(self.catalog.generation, {**self.catalog.models, name: now})
            if fresh.state is State.READY:
                self._answer_from_s = min(self._answer_from_s, time.monotonic() + FIRST_LOAD_WAIT_S)
            self._reports.report(before, now)
        self._status.write()

    def _complete(self, generation: int) -> None:
        if not self.is_complete:
            long_lived.exclude_all()
        with self._adopt_lock:
            before = self.catalog.models
            models = {name: without_surplus(model) for name, model in before.items()}
            self.catalog = Catalog(generation, models)
            for name in (name for name, model in models.items() if model is not before[name]):
                self._reports.report(before[name], models[name])
            self._reload = None  # it refers to the versions that were replaced
            self._scanned.set()
            self._first_load.set()
            self.metrics.generation.set(generation)
            self.hand.serves(generation)
        for model, alias, target, serves in self.catalog.waiting_aliases():
            log.warning("alias_not_moved", model=model, alias=alias, version=target, serves=serves)
        self._status.write(now=True)

    def _configure(self, servable: Servable, config: ModelConfig | None) -> None:
        if config is not None:
            servable.adopt(make_policy(config, servable.contract, self._settings))
            servable.traffic = self.traffic.of(servable.name, config)
        servable.count(PrometheusBatchMetrics(self.metrics, servable.name, servable.version))
        servable.renew_cache(partial(PrometheusCacheMetrics, self.metrics, servable.name, servable.version))

    def follow(self, folder: Path, acknowledge: Callable[[], None]) -> threading.Thread:
        """Start the thread that reloads at once and at each new generation in `folder`. Return the thread.

        acknowledge: called after each change of the catalog.
        """
        self._on_change = acknowledge
        thread = threading.Thread(target=self._follow, args=(folder,), name="generations", daemon=True)
        thread.start()
        return thread

    def report_draining(self) -> None:
        """Write to the worker's status file that it is no longer ready: it is about to end."""
        self.draining = True
        self._status.write(now=True)

    def stop(self) -> None:
        """End the thread that `follow` has started, at its next poll."""
        self._stop.set()
        self.traffic.stop()

    def _follow(self, folder: Path) -> None:
        interval_s = self._settings.repository.poll_interval_ms / 1000
        seen = -1
        while not self._stop.is_set():
            try:
                newest = generations.newest(folder)
                if newest != seen:
                    self.reload(newest)
                    seen = newest
                self._process_metrics.update()
                if self._quarantine.update(self.catalog):
                    self._status.write()
                self._environments.serve(servable.runtime for servable in self.catalog)
            except Exception as problem:  # noqa: BLE001 - without this thread the worker would never reload again
                log.error("follow_failed", reason=f"{type(problem).__name__}: {problem}")
            self._stop.wait(interval_s)
