"""The loader: reads the repository and makes a catalog. A version that cannot be loaded gets the reason instead."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from tableside.contract.schema import Contract
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
from tableside.serving.catalog import Catalog, Model, aliases_that_moved
from tableside.serving.lifecycle import State
from tableside.serving.scan import PendingVersion, fingerprint, scan
from tableside.serving.servable import Servable
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

    preflight_results: versions that passed are loaded, and versions without a result stay LOADING; None loads every
    version. The other arguments are those of `scan` and `Loader`. Raises OSError if `root` cannot be read.
    """
    found = scan(root, policy, before, environments)
    loader = Loader(root, policy, store, environments, checked)
    models = dict(found.models)
    for pending in found.pending:
        result = _PASSED
        if preflight_results is not None:
            missing = _UNKNOWN if preflight_results.complete else None
            known = preflight_results.known.get(pending.files, missing)
            if known is None:
                find_servable(models, pending).reason = PREFLIGHT_RUNS
                continue
            result = known
        models[pending.files.name] = settle(models[pending.files.name], pending, loader.load(pending, result))
    return Catalog(generation, models)


def find_servable(models: Mapping[str, Model], pending: PendingVersion) -> Servable:
    """Return the servable that stands for a pending version now."""
    name, number = pending.key
    return next(servable for servable in models[name].servables if servable.version == number)


def settle(model: Model, pending: PendingVersion, fresh: Servable) -> Model:
    """Return the model with a version that was loaded, or with the old one if the changed files do not load.

    A version whose consent was revoked is not served any more.
    """
    old, chosen = pending.old, fresh
    revoked = fresh.failure_kind is FailureKind.CONSENT
    if fresh.state is not State.READY and old is not None and old.state is State.READY and not revoked:
        old.report_problem(
            f"the files changed and no longer load ({fresh.reason}); still serving what was loaded before",
            fresh.failure_kind,
        )
        chosen = old
    servables = tuple(chosen if each.version == chosen.version else each for each in model.servables)
    if model.config is None:
        return replace(model, servables=servables)
    aliases = aliases_that_moved(model.config.aliases, model.aliases, servables)
    return replace(model, servables=servables, aliases=aliases)


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
            self._load(fresh, started_s)
        except ContractBroken as problem:
            fresh.fail(str(problem), problem.failure_kind)
        except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything; other versions still load
            fresh.fail(f"{type(problem).__name__}: {problem}", FailureKind.OTHER)
        return fresh

    def _load(self, fresh: Servable, started_s: float) -> None:
        contract = integrity.read_contract(self._root, fresh.name, fresh.version, self._policy.trusted_keys)
        fresh.contract = contract
        runtime = load_contracted(self._root, contract, self._policy, self._store, self._environments, self._checked)
        if contract.size_bytes > LARGE_BYTES:
            release_free_memory()
        warning = self._warning(contract, runtime)
        original = runtime.original if isinstance(runtime, RoutedRuntime) else runtime
        if isinstance(original, (SklearnRuntime, RemoteRuntime)):
            fresh.golden_difference = original.golden_difference
        fresh.ready(runtime, time.monotonic() - started_s, warning)
        if self._store is not None and not fresh.reason and not isinstance(runtime, RemoteRuntime):
            unshared = shared_entries.unshared_warning(self._root, contract, self._policy, runtime)
            fresh.report_problem(unshared, fresh.failure_kind)

    def _warning(self, contract: Contract, runtime: Runtime) -> str:
        """What differs from publish where the version runs; empty if nothing does."""
        if isinstance(runtime, RemoteRuntime):
            return runtime.warning
        warning = integrity.check_environment(contract, self._policy.environment_skew)
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
