"""The loader: reads the repository and makes a catalog. A version that cannot be loaded gets the reason instead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tableside.contracts.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.environment_pools import Environments
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.preflight import shared_entries
from tableside.preflight.checks import load_contracted
from tableside.preflight.results import PreflightResult, PreflightResults
from tableside.repository import integrity
from tableside.runtimes.base import Runtime
from tableside.runtimes.checked_artifacts import CHECKED_ARTIFACTS_FOLDER, CheckedArtifacts
from tableside.runtimes.malloc_trim import release_free_memory
from tableside.runtimes.router import (
    SKLEARN,
    RoutedRuntime,
)
from tableside.runtimes.shared_store import SHARED_STORE_FOLDER, SharedStore
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.serving import desired
from tableside.serving.catalog import Catalog, Model
from tableside.serving.lifecycle import State
from tableside.serving.scan import PendingVersion, fingerprint, scan
from tableside.serving.servable import Servable
from tableside.serving.statement import Key, Refusal
from tableside.settings import Repository, Settings

LARGE_BYTES = 1_000_000
"""After loading an artifact of at least this size, memory that the load has freed is returned to the system."""
PREFLIGHT_RUNS = "the preflight of this version is running"
CHANGED = "the files of this version appeared or changed during the reload; reload again"
_PASSED = PreflightResult(FailureKind.NONE)
_UNKNOWN = PreflightResult(FailureKind.OTHER, CHANGED)


def load_catalog(
    root: Path, policy: Repository, generation: int, before: Catalog, preflight_results: PreflightResults | None = None,
    store: SharedStore | None = None, environments: Environments | None = None,
    checked: CheckedArtifacts | None = None,
) -> Catalog:  # fmt: skip
    """Read the repository below `root`, load all pending versions, and return the catalog.

    A version that does not load is left out, and what was served before goes on. preflight_results: versions that
    passed are loaded, and versions without a result stay LOADING; None loads every version. The other arguments are
    those of `scan` and `Loader`. Raises OSError if `root` cannot be read.
    """
    loader = Loader(root, policy, store, environments, checked)
    refused: dict[Key, Refusal] = {}
    loaded: dict[Key, Servable] = {}
    while True:
        wanted = desired.read(root, before.statement, refused)
        found = scan(root, policy, before, environments, wanted)
        models, failed = dict(found.models), dict(refused)
        for pending in found.pending:
            result = _result_of(pending, preflight_results)
            if result is None:
                find_servable(models, pending).reason = PREFLIGHT_RUNS
                continue
            fresh = loaded.get(pending.key) or loader.load(pending, result)
            if fresh.state is State.READY:
                loaded[pending.key] = fresh
                models[fresh.name] = with_servable(models[fresh.name], fresh)
            else:
                refused[pending.key] = refusal_of(fresh)
        if refused == failed:
            for servable in (each for model in models.values() for each in model.servables):
                if servable.state is State.READY:
                    servable.report_warning()
            for key, problem in found.problems.items():
                served = next(each for each in models[key[0]].servables if each.version == key[1])
                served.report_problem(problem.reason, problem.kind)
            return Catalog(generation, models, wanted)


def _result_of(pending: PendingVersion, results: PreflightResults | None) -> PreflightResult | None:
    if results is None:
        return _PASSED
    return results.known.get(pending.files, _UNKNOWN if results.complete else None)


def find_servable(models: Mapping[str, Model], pending: PendingVersion) -> Servable:
    """Return the servable that stands for a pending version now."""
    name, number = pending.key
    return next(servable for servable in models[name].servables if servable.version == number)


def with_servable(model: Model, fresh: Servable) -> Model:
    """Return the model with a version that was loaded."""
    servables = tuple(fresh if each.version == fresh.version else each for each in model.servables)
    return replace(model, servables=servables)


def refusal_of(servable: Servable) -> Refusal:
    """Return why a version could not be loaded."""
    return Refusal(servable.failure_kind or FailureKind.OTHER, servable.reason)


class Loader:
    """Loads versions in native threads. It neither logs nor counts.

    store: where workers share large forests; None gives each worker a copy. checked: where audited artifacts are kept;
    None reads each artifact. environments: the model processes of versions that name an environment.
    """

    def __init__(
        self, root: Path, policy: Repository, store: SharedStore | None = None,
        environments: Environments | None = None, checked: CheckedArtifacts | None = None,
    ) -> None:  # fmt: skip
        self._root = root
        self._policy = policy
        self._store = store
        self._environments = environments
        self._checked = checked

    def load(self, pending: PendingVersion, result: PreflightResult = _PASSED) -> Servable:
        """Return a new servable of the version, READY or UNAVAILABLE with the reason. result: that of its preflight."""
        started_s = time.monotonic()
        fresh = Servable(*pending.key)
        fresh.fingerprint, fresh.environment = pending.files.fingerprint, pending.files.environment
        try:
            if result.failure_kind:
                raise ContractBroken(result.reason, result.failure_kind)
            if fingerprint(self._root, fresh.name, fresh.version, self._policy) != fresh.fingerprint:
                raise ContractBroken(CHANGED, FailureKind.OTHER)
            self._load(fresh, started_s, pending.environment)
        except ContractBroken as problem:
            fresh.fail(str(problem), problem.failure_kind)
        except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything; other versions still load
            fresh.fail(f"{type(problem).__name__}: {problem}", FailureKind.OTHER)
        return fresh

    def _load(self, fresh: Servable, started_s: float, environment: str) -> None:
        contract = integrity.read_contract(self._root, fresh.name, fresh.version, self._policy.trusted_keys)
        fresh.contract = contract
        runtime = load_contracted(
            self._root, contract, self._policy, self._store, self._environments, self._checked, environment
        )
        if contract.size_bytes > LARGE_BYTES:
            release_free_memory()
        warning = self._warning(contract, runtime)
        original = runtime.original if isinstance(runtime, RoutedRuntime) else runtime
        if isinstance(original, (SklearnRuntime, RemoteRuntime)):
            fresh.golden_difference = original.golden_difference
        fresh.ready(runtime, time.monotonic() - started_s, warning)
        if self._store is not None and not fresh.reason and not isinstance(runtime, RemoteRuntime):
            fresh.notice = shared_entries.unshared_warning(self._root, contract, self._policy, runtime)
            fresh.report_warning()

    def _warning(self, contract: Contract, runtime: Runtime) -> str:
        """What differs from publish where the version runs; empty if nothing does."""
        if isinstance(runtime, RemoteRuntime):
            return runtime.warning
        warning = integrity.environment_warnings(contract, self._policy.environment_skew)
        return warning or _unused_backends(contract, runtime)


def _unused_backends(contract: Contract, runtime: Runtime) -> str:
    """A warning that names the contract's fast backends that are not used here; empty if all of them are."""
    if shared_entries.is_shared(runtime):
        return ""
    used = runtime.used if isinstance(runtime, RoutedRuntime) else frozenset()
    unused = sorted({route.backend for route in contract.routes} - used - {SKLEARN})
    if not unused:
        return ""
    return (
        f"fast backend disabled ({', '.join(unused)}): it fails, or differs from the estimator, on the golden rows on "
        "this machine; using scikit-learn"
    )


def loader_of(settings: Settings, environments: Environments) -> Loader:
    """Return the loader of a worker, which shares the files of the run folder with the host's other workers."""
    store = SharedStore(settings.run_dir / SHARED_STORE_FOLDER)
    checked = CheckedArtifacts(settings.run_dir / CHECKED_ARTIFACTS_FOLDER)
    return Loader(settings.repository_path, settings.repository, store, environments, checked)
