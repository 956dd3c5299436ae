"""The registry: all servables of this worker, as of the generation that the host serves."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import msgspec

from tableside.model_process.environment_pools import Environments, supervised
from tableside.preflight.coordinator import PreflightCoordinator
from tableside.process import drained, lame_duck, long_lived
from tableside.process.generation_words import CURRENT
from tableside.process.offload import Offload
from tableside.process.pacing import Paced
from tableside.process.worker_hand import WorkerHand
from tableside.repository.model_toml import ModelConfig
from tableside.serving import readiness
from tableside.serving.catalog import Catalog, Model
from tableside.serving.lifecycle import State
from tableside.serving.loader import with_servable
from tableside.serving.model_metrics import (
    ProcessMetrics,
    PrometheusBatchMetrics,
    PrometheusCacheMetrics,
    count_from_zero,
    count_load,
)
from tableside.serving.policy import make_policy
from tableside.serving.quarantine import QuarantineReports
from tableside.serving.repository_loads import RepositoryLoads, changed_models, with_prepared
from tableside.serving.scan import PendingVersion, Scan
from tableside.serving.servable import Servable
from tableside.serving.served import Served
from tableside.serving.statement import Key, Refusal, Statement
from tableside.serving.traffic_of_worker import WorkerTraffic
from tableside.serving.version_reports import VersionReports
from tableside.settings import Settings
from tableside.telemetry import logs
from tableside.telemetry.metrics import Metrics

FIRST_LOAD_WAIT_S = 3.0
"""Once one version is READY, requests wait this long for the rest of the first load before they are answered."""
log = logs.get_logger("registry")


class Registry(Served):
    """Holds the current catalog. A switch replaces it in one assignment, so that no request sees parts of two."""

    def __init__(
        self, settings: Settings, metrics: Metrics, loading: Offload, preflights: PreflightCoordinator | None = None,
        environments: Environments | None = None,
    ) -> None:  # fmt: skip
        """Make a registry with an empty catalog; `reload` or a `Follower` fills it.

        loading: runs loads in a native thread. preflights: runs the preflights of new versions; None skips them.
        environments: the model processes; by default those that supervisord runs.
        """
        super().__init__()
        self._settings = settings
        self.metrics = metrics
        self.worker_number = 0
        """The number of this worker's slot: workers with different numbers prefer different model processes."""
        self._environments = environments or supervised(settings, lambda: self.worker_number)
        self._loads = RepositoryLoads(settings, loading, preflights, self._environments, partial(count_load, metrics))
        self._process_metrics = ProcessMetrics(metrics, self._environments)
        self._reports = VersionReports(metrics)
        self.hand = WorkerHand()
        """The requests in hand, and those that have ended workers."""
        self.traffic = WorkerTraffic(settings, metrics, lambda: self.catalog)
        """How the requests of models are divided, of which another version is tried."""
        self._quarantine = QuarantineReports(self.hand, self._reports)
        self._on_change: Callable[[], None] = lambda: None
        self._problems: Mapping[Key, Refusal] = {}
        self._waiting: set[tuple[str, str, int, int | None]] = set()
        self._reload_lock = threading.Lock()
        self._status = Paced(lambda: self._on_change())
        self.draining = False
        self.failure = ""

    @property
    def repository(self) -> Path:
        """The folder of the model repository."""
        return self._settings.repository_path

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

    def load(self, statement: Statement) -> None:
        """Load a statement as the first one. Never raises.

        Each version serves as soon as it is loaded, and a version that requests wait for is loaded first.
        """
        with self._reload_lock:
            try:
                found = self._loads.scan(statement, self.catalog)
                self._reload, rounds = self._loads.begin(found, self._adopt_version)
                self._adopt_scan(found, statement)
                self._reload.run(rounds)
                self.failure = ""
            except Exception as problem:  # noqa: BLE001 - the worker keeps serving, whatever goes wrong on the disk
                self.failed(problem)

    def failed(self, problem: Exception) -> None:
        """Report that the repository could not be read."""
        self.failure = f"{type(problem).__name__}: {problem}"
        log.error("reload_failed", generation=self.catalog.generation, reason=self.failure)

    def _divide(self, model: Model) -> None:
        """Let the requests of a model be divided as its model.toml says."""
        if model.config is not None:
            traffic = self.traffic.of(model.name, model.config)
            for servable in model.servables:
                servable.traffic = traffic

    def _adopt_scan(self, found: Scan, statement: Statement) -> None:
        with self._adopt_lock:
            self.catalog = Catalog(statement.generation, found.models, statement)
            self._scanned.set()
            for model in found.models.values():
                self._reports.report(None, model)
        self._status.write()

    def _adopt_version(self, pending: PendingVersion, fresh: Servable) -> None:
        """Serve a version that the first load has loaded, or show why it cannot be."""
        with self._adopt_lock:
            before = self.catalog.models[fresh.name]
            now = with_servable(before, fresh)
            self._configure(fresh, now.config)
            self._divide(now)
            models = {**self.catalog.models, fresh.name: now}
            self.catalog = Catalog(self.catalog.generation, models, self.catalog.statement)
            if fresh.state is State.READY:
                self._answer_from_s = min(self._answer_from_s, time.monotonic() + FIRST_LOAD_WAIT_S)
            self._reports.report(before, now)
        self._status.write()

    def complete(self) -> None:
        """End the first load: from now on every version is served or refused."""
        long_lived.exclude_all()
        self._reload = None
        self._scanned.set()
        self._first_load.set()
        self._tell()

    def read_repository(self, before: Statement, reason: str) -> Statement:
        """Return the statement that the repository asks for. Raises OSError if it cannot be read."""
        return msgspec.structs.replace(self._loads.read(before, {}), reason=reason)

    def prepare(self, statement: Statement) -> Mapping[Key, Refusal]:
        """Load what a generation needs beside what is served, replay its golden rows, and keep it for the switch.

        Returns the versions that cannot be served here, with the reasons. Raises as `RepositoryLoads.prepare` does.
        """
        with self._reload_lock:
            base = with_prepared(self.catalog, self._prepared)
            self._prepared = self._loads.prepare(
                statement, base, lambda fresh, model: self._configure(fresh, model.config)
            )
            self.failure = ""
            return self._prepared.refused

    def forget_prepared(self) -> None:
        """Release what was prepared for a generation that was given up."""
        self._prepared = None

    def report_switches(self) -> bool:
        """Report the switches since the last call: states of versions in metrics and log, and the worker's status.

        Returns whether there were any.
        """
        had_any = bool(self._switched)
        while self._switched:
            before, prepared = self._switched.pop(0)
            models, problems = prepared.catalog.models, prepared.problems
            changed = {name: was for name, _, was in changed_models(before, prepared.catalog)}
            with_problems = {name for name, _ in (*problems, *self._problems)}
            self._problems = problems
            for name in changed.keys() | with_problems:
                model = models.get(name)
                for servable in model.servables if model is not None else ():
                    if servable.state is State.READY:
                        servable.report_warning()
                        problem = problems.get((servable.name, servable.version))
                        if problem is not None:
                            servable.report_problem(problem.reason, problem.kind)
                self._reports.report(changed.get(name, model), model)
                time.sleep(0)
            self._tell()
        return had_any

    def _tell(self) -> None:
        self.metrics.generation.set(self.catalog.generation)
        self.hand.serves(self.catalog.generation, self.catalog.statement.starts)
        self._quarantine.update(self.catalog)  # models that this generation starts again are READY in the status below
        waiting = set(self.catalog.waiting_aliases())
        for model, alias, target, serves in sorted(waiting - self._waiting, key=str):
            log.warning("alias_not_moved", model=model, alias=alias, version=target, serves=serves)
        self._waiting = waiting
        self._status.write(now=True)

    def reload(self, generation: int) -> None:
        """Read the repository and serve it as `generation`, in this process alone. Never raises.

        Versions that do not load are left out, and what was served before goes on.
        """
        refused: dict[Key, Refusal] = {}
        try:
            while True:
                wanted = msgspec.structs.replace(
                    self._loads.read(self.catalog.statement, refused), generation=generation, starts=None
                )
                if not self.is_complete:
                    self.load(wanted)
                    break
                found = self.prepare(wanted)
                if not found:
                    break
                refused |= found
        except Exception as problem:  # noqa: BLE001 - as in `load`
            self.failed(problem)
            self.catalog = Catalog(generation, self.catalog.models, self.catalog.statement)
        self.words[CURRENT] = generation
        if not self.is_complete:
            self.complete()
        self.switch()
        self.report_switches()

    def _configure(self, servable: Servable, config: ModelConfig | None) -> None:
        if config is not None:
            servable.adopt(make_policy(config, servable.contract, self._settings))
        servable.count(PrometheusBatchMetrics(self.metrics, servable.name, servable.version))
        count_from_zero(self.metrics, servable)
        servable.renew_cache(partial(PrometheusCacheMetrics, self.metrics, servable.name, servable.version))

    def on_change(self, acknowledge: Callable[[], None]) -> None:
        """Have `acknowledge` called after each change of the catalog."""
        self._on_change = acknowledge

    def report_draining(self) -> None:
        """Write to the worker's status file that it is no longer ready: it is about to end."""
        self.draining = True
        self._status.write(now=True)

    def look_around(self) -> None:
        """Report model processes and stopped models, and tell the model processes which versions are in use."""
        self._process_metrics.update()
        if self._quarantine.update(self.catalog):
            self._status.write()
        used = [*self.catalog, *(self._prepared.catalog if self._prepared is not None else ())]
        self._environments.serve(servable.runtime for servable in used)
