"""The registry: all servables of this worker, and the thread that reloads them when a new generation is published."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec

from tableside import __version__
from tableside.errors import FailureKind, ModelNotReady
from tableside.model_process.environment_pools import Environments, supervised
from tableside.preflight.coordinator import PreflightCoordinator
from tableside.preflight.results import PreflightResults
from tableside.process import lame_duck, worker_slots
from tableside.process.instance_names import INSTANCE_ID
from tableside.process.offload import Offload
from tableside.repository.model_toml import ModelConfig
from tableside.runtimes.checked_artifacts import CHECKED_ARTIFACTS_FOLDER, CheckedArtifacts
from tableside.runtimes.shared_store import SHARED_STORE_FOLDER, SharedStore
from tableside.serving import generations
from tableside.serving.catalog import EMPTY, Catalog
from tableside.serving.lifecycle import State
from tableside.serving.loader import load_catalog, versions_to_load
from tableside.serving.model_metrics import ProcessMetrics, PrometheusBatchMetrics, PrometheusCacheMetrics
from tableside.serving.policy import make_policy
from tableside.serving.servable import Servable
from tableside.serving.version_status import status_of_servable
from tableside.settings import Repository, Settings
from tableside.telemetry import logs
from tableside.telemetry.metrics import Metrics

FIRST_LOAD_WAIT_S = 3.0
"""Once one version is READY, requests wait this long for the rest of the first load before they are answered."""
READINESS_WAIT_S = 30.0
"""Readiness waits this much longer than requests: a load balancer sends traffic for every model once it is ready."""
_POLL_S = 0.1
REMOVED = "no longer in the repository"
"""The reason of a version whose folder has been removed."""
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
        self._reported: dict[tuple[str, int], tuple[State, FailureKind, str]] = {}
        self._on_change: Callable[[], None] = lambda: None
        self._first_load = threading.Event()
        self._answer_from_s = math.inf
        self._stop = threading.Event()
        self._reload_lock = threading.Lock()
        self.catalog: Catalog = EMPTY
        self.draining = False
        self.failure = ""

    @property
    def repository(self) -> Path:
        """The folder of the model repository."""
        return self._settings.repository_path

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
        while True:
            catalog = self.wait_loaded(timeout_s)
            if catalog.find(spec, version).state is not State.LOADING or time.monotonic() >= give_up_at_s:
                return catalog.servable(spec, version)
            time.sleep(_POLL_S)

    @property
    def is_stopping(self) -> bool:
        """Whether the whole stack is about to stop. It serves requests, but should get no new traffic."""
        return lame_duck.is_announced(self._settings.run_dir)

    def not_ready(self) -> str:
        """Return why this worker should get no traffic; an empty string if it should."""
        if self.is_stopping:
            return "stopping: the server will stop soon"
        if self.draining:
            return "draining: the worker is stopping"
        if not self._first_load.is_set() and time.monotonic() < self._answer_from_s + READINESS_WAIT_S:
            return "loading: the repository is being read"
        if not any(servable.state is State.READY for servable in self.catalog):
            return self.failure or "no model of the repository can be served"
        return ""

    def reload(self, generation: int) -> None:
        """Read the repository in a native thread and replace the catalog. Never raises; a failure keeps the models.

        Versions whose preflight is still running follow later. The catalog gets the number `generation` when the last
        one is decided.
        """
        with self._reload_lock:
            root, policy = self._settings.repository_path, self._settings.repository
            store = SharedStore(self._settings.run_dir / SHARED_STORE_FOLDER)
            checked = CheckedArtifacts(self._settings.run_dir / CHECKED_ARTIFACTS_FOLDER)
            try:
                for results in self._rounds(root, policy):
                    complete = results is None or results.complete
                    number = generation if complete else self.catalog.generation
                    load = partial(load_catalog, root, policy, number, self.catalog, results, store,
                                   self._environments, checked)  # fmt: skip
                    self._adopt(self._loading.call(load), complete)
                self.failure = ""
            except Exception as problem:  # noqa: BLE001 - the worker keeps serving, whatever goes wrong on the disk
                self.failure = f"{type(problem).__name__}: {problem}"
                log.error("reload_failed", generation=generation, reason=self.failure)
                self._adopt(Catalog(generation, self.catalog.models), True)

    def _rounds(self, root: Path, policy: Repository) -> Iterator[PreflightResults | None]:
        if self._preflights is None:
            return iter([None])
        find = partial(versions_to_load, root, self.catalog, policy, self._environments)
        return self._preflights.rounds(root, policy, find)

    def _adopt(self, catalog: Catalog, complete: bool) -> None:
        for model in catalog.models.values():
            for servable in model.servables:
                self._configure(servable, model.config)
        before, self.catalog = self.catalog, catalog
        if complete:
            self._first_load.set()
        elif any(servable.state is State.READY for servable in catalog):
            self._answer_from_s = min(self._answer_from_s, time.monotonic() + FIRST_LOAD_WAIT_S)
        self._report(before, catalog)
        self._on_change()

    def _configure(self, servable: Servable, config: ModelConfig | None) -> None:
        if config is not None:
            servable.adopt(make_policy(config, servable.contract, self._settings))
        servable.count(PrometheusBatchMetrics(self.metrics, servable.name, servable.version))
        servable.renew_cache(partial(PrometheusCacheMetrics, self.metrics, servable.name, servable.version))

    def _report(self, before: Catalog, now: Catalog) -> None:
        old = {(servable.name, servable.version): servable for servable in before}
        for servable in now:
            known = old.pop((servable.name, servable.version), None)
            if known is not None and known is not servable:
                known.drop_cache()
                if servable.state is State.UNAVAILABLE:
                    _unload(known)
            self._report_state(servable, is_new=known is not servable and servable.state is State.READY)
        for servable in old.values():
            _unload(servable)
            servable.report_problem(REMOVED, FailureKind.NONE)
            self._report_state(servable)
        self.metrics.generation.set(now.generation)

    def _report_state(self, servable: Servable, is_new: bool = False) -> None:
        """Write a version's state to the metrics and the log if it has changed since the last report."""
        key, now = (servable.name, servable.version), (servable.state, servable.failure_kind, servable.reason)
        before, self._reported[key] = self._reported.get(key), now
        if before == now and not is_new:
            return
        state, failure_kind, reason = now
        labels = (servable.name, str(servable.version))
        for possible in State:
            self.metrics.model_state.labels(*labels, possible.value).set(1.0 if possible is state else 0.0)
        for problem in {before[1] if before else FailureKind.NONE, failure_kind} - {FailureKind.NONE}:
            self.metrics.model_problem.labels(*labels, problem.value).set(1.0 if problem is failure_kind else 0.0)
        self.metrics.load_seconds.labels(*labels).set(servable.load_s)
        write = log.info if state in (State.READY, State.LOADING) and not failure_kind else log.warning
        write(
            "model_state",
            model=servable.name,
            version=servable.version,
            state=state.value,
            failure_kind=failure_kind.value,
            reason=reason,
            load_s=round(servable.load_s, 3),
        )

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
        self._on_change()

    def stop(self) -> None:
        """End the thread that `follow` has started, at its next poll."""
        self._stop.set()

    def _follow(self, folder: Path) -> None:
        interval_s = self._settings.repository.poll_interval_ms / 1000
        seen = -1
        while not self._stop.is_set():
            try:
                newest = generations.newest(folder)
                if newest != seen:
                    self.reload(newest)
                    seen = newest
                    self._on_change()
                self._process_metrics.update()
            except Exception as problem:  # noqa: BLE001 - without this thread the worker would never reload again
                log.error("follow_failed", reason=f"{type(problem).__name__}: {problem}")
            self._stop.wait(interval_s)


def _unload(servable: Servable) -> None:
    if servable.state is State.READY:
        servable.unload()


def status_of(registry: Registry, instance: str, started_at: datetime, instance_size: int = 0) -> dict[str, object]:
    """Return the content of a worker's status file, which other processes read: `tableside list`, the admin routes.

    instance_size: how many workers gunicorn starts; the web keeper waits until so many are ready.
    """
    return {
        "pid": os.getpid(),
        "instance": instance,
        "instance_id": os.environ.get(INSTANCE_ID, ""),
        "instance_size": instance_size,
        "ready": registry.is_complete and not registry.draining,
        "version": __version__,
        "started_at": started_at.isoformat(timespec="seconds"),
        "generation": registry.catalog.generation,
        "failure": registry.failure,
        "repository": str(registry.repository),
        "models": [msgspec.to_builtins(status_of_servable(servable)) for servable in registry.catalog],
    }


def start_worker(
    registry: Registry, slot: worker_slots.WorkerSlot, run_dir: Path, instance: str, instance_size: int = 0
) -> None:
    """Start loading models and following generations; write the worker's status file after each change.

    instance_size: how many workers gunicorn starts.
    """
    started_at = datetime.now(UTC)

    def acknowledge() -> None:
        slot.write_status(status_of(registry, instance, started_at, instance_size))

    registry.worker_number = slot.number
    acknowledge()
    registry.follow(run_dir / "generations", acknowledge)


def wait_for_generation(run_dir: Path, generation: int, timeout_s: float) -> tuple[bool, list[dict[str, object]]]:
    """Wait up to `timeout_s` until every worker serves `generation`.

    Returns whether they all do, and the content of their status files.
    """
    give_up_at_s = time.monotonic() + timeout_s
    while True:
        workers = worker_slots.statuses(run_dir / "worker_slots")
        done = bool(workers) and all(_number(worker.get("generation")) >= generation for worker in workers)
        if done or time.monotonic() >= give_up_at_s:
            return done, workers
        time.sleep(0.02)


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1
