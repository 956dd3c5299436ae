"""The loader: reads the repository and makes a catalog. A version that cannot be loaded gets the reason instead."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from tableside.contract.consent_digest import FOLDER, PICKLE
from tableside.contract.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.model_process.environment_pools import Environments
from tableside.model_process.remote_runtime import RemoteRuntime
from tableside.preflight import shared_entries
from tableside.preflight.checks import check_version
from tableside.preflight.results import Fingerprint, PreflightResults, VersionFiles
from tableside.repository import consent_file, integrity, model_toml, paths
from tableside.runtimes.base import Runtime
from tableside.runtimes.checked_artifacts import CheckedArtifacts
from tableside.runtimes.malloc_trim import release_free_memory
from tableside.runtimes.router import (
    SKLEARN,
    RoutedRuntime,
)
from tableside.runtimes.shared_store import SharedStore
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.serving.catalog import Catalog, Model
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.settings import Repository

LARGE_BYTES = 1_000_000
"""After loading an artifact of at least this size, memory that the load has freed is returned to the system."""
UNLOADED = "unloaded: enabled is false in model.toml"
"""The reason of every version of a model that the operator has turned off."""


def load_catalog(
    root: Path, policy: Repository, generation: int, before: Catalog, preflight_results: PreflightResults | None = None,
    store: SharedStore | None = None, environments: Environments | None = None,
    checked: CheckedArtifacts | None = None,
) -> Catalog:  # fmt: skip
    """Read the repository below `root` and return its catalog.

    before: the current catalog; versions that it serves from unchanged files are reused. preflight_results: versions
    that passed are loaded, and versions without a result stay LOADING; None loads every version. store: where workers
    share large forests; None gives each worker a copy. checked: where audited artifacts are kept; None reads each
    artifact. environments: the model processes of versions that name an environment.
    Runs in a native thread, so it neither logs nor counts. Raises OSError if `root` cannot be read.
    """
    load = _Load(root, policy, before, preflight_results, store, environments, checked)
    return Catalog(generation, {name: load.model(name) for name in _names(root)})


def versions_to_load(
    root: Path, before: Catalog, policy: Repository | None = None, environments: Environments | None = None
) -> list[VersionFiles]:
    """Return the versions that `load_catalog` would load now. Raises OSError if `root` cannot be read.

    policy: that of `load_catalog`; without one, a change of consent is not seen. environments: as for `load_catalog`.
    """
    names = _names(root)
    return [version for name in names for version in _versions_to_load(root, name, before, policy, environments)]


def _names(root: Path) -> list[str]:
    if not root.is_dir():
        raise FileNotFoundError(f"the repository {root} does not exist; create it, or correct repository.path")
    return paths.models(root)


def _versions_to_load(
    root: Path, name: str, before: Catalog, policy: Repository | None, environments: Environments | None
) -> Iterator[VersionFiles]:
    try:
        config = model_toml.read(root, name)
    except ContractBroken:
        return
    kept = _served_before(before, name)
    for number in config.wanted(paths.versions(root, name)) if config.enabled else ():
        fingerprint_now = fingerprint(root, name, number, policy)
        environment = _stamp(config.environment, environments)
        if not _is_unchanged(kept.get(number), fingerprint_now, environment):
            yield VersionFiles(name, number, fingerprint_now, environment)


def _served_before(before: Catalog, name: str) -> dict[int, Servable]:
    model = before.models.get(name)
    return {servable.version: servable for servable in model.servables} if model else {}


def _stamp(environment: str, environments: Environments | None) -> str:
    return environments.stamp(environment) if environment and environments is not None else environment


def _is_unchanged(old: Servable | None, fingerprint_now: Fingerprint, environment: str) -> bool:
    return (
        old is not None
        and old.state is State.READY
        and old.fingerprint == fingerprint_now
        and old.environment == environment
    )


def _without_config(name: str, published: list[int], before: Catalog, problem: ContractBroken) -> Model:
    """A model whose model.toml cannot be read. Versions that are served stay served, with the problem as a warning."""
    kept = [servable for servable in _served_before(before, name).values() if servable.state is State.READY]
    for servable in kept:
        servable.report_problem(f"{problem}; still serving what was loaded before", problem.failure_kind)
    if not kept:
        kept = [_failed(name, number, str(problem), problem.failure_kind) for number in published]
    old = before.models.get(name)
    return Model(name, tuple(kept), old.aliases if old else {}, str(problem))


def _failed(name: str, number: int, reason: str, failure_kind: FailureKind = FailureKind.NONE) -> Servable:
    servable = Servable(name, number)
    servable.fail(reason, failure_kind)
    return servable


def fingerprint(root: Path, name: str, number: int, policy: Repository | None = None) -> Fingerprint:
    """Return a value that changes when any file of the version changes; None if the folder cannot be read.

    A file counts as changed by its name, inode, size or modification time. Its content is not read. With a policy, the
    value of a version with own code or a pickle also changes when consent to it is given or revoked.
    """
    folder = paths.version_folder(root, name, number)
    try:
        files = sorted([*folder.iterdir(), *_code_files(folder / FOLDER)])
        stats = [(str(file.relative_to(folder)), file.stat()) for file in files]
    except OSError:
        return None
    found = tuple((file, stat.st_ino, stat.st_size, stat.st_mtime_ns) for file, stat in stats)
    if policy is None or not any(file in (FOLDER, PICKLE) for file, *_ in found):
        return found
    return (*found, ("consent", int(_has_consent(root, name, number, policy)), 0, 0))


def _code_files(folder: Path) -> Iterable[Path]:
    """Everything below the folder. A link in its place is not followed: it could lead to the whole disk."""
    return () if folder.is_symlink() else folder.rglob("*")


def _has_consent(root: Path, name: str, number: int, policy: Repository) -> bool:
    try:
        contract = integrity.read_contract(root, name, number)
        return consent_file.is_granted(contract, Path(policy.consent_file))
    except ContractBroken:
        return False


class _Load:
    """One read of the repository: the arguments of `load_catalog`, which every version needs."""

    def __init__(
        self, root: Path, policy: Repository, before: Catalog, results: PreflightResults | None,
        store: SharedStore | None, environments: Environments | None, checked: CheckedArtifacts | None,
    ) -> None:  # fmt: skip
        self._root = root
        self._policy = policy
        self._before = before
        self._results = results
        self._store = store
        self._environments = environments
        self._checked = checked

    def model(self, name: str) -> Model:
        kept = _served_before(self._before, name)
        published = paths.versions(self._root, name)
        try:
            config = model_toml.read(self._root, name)
        except ContractBroken as problem:
            return _without_config(name, published, self._before, problem)
        numbers = config.wanted(published)
        if not config.enabled:
            return Model(name, tuple(_failed(name, n, UNLOADED) for n in numbers), config.aliases)
        environment = _stamp(config.environment, self._environments)
        servables = tuple(self._version(name, number, kept.get(number), environment) for number in numbers)
        return Model(name, servables, config.aliases, config=config)

    def _version(self, name: str, number: int, old: Servable | None, environment: str) -> Servable:
        """The servable of a version: `old` if its files are unchanged, or if the changed files do not load.

        A version whose consent was revoked is not served any more.
        """
        fingerprint_now = fingerprint(self._root, name, number, self._policy)
        if old is not None and _is_unchanged(old, fingerprint_now, environment):
            old.report_problem(old.warning, FailureKind.ENVIRONMENT if old.warning else FailureKind.NONE)
            return old
        fresh = Servable(name, number)
        fresh.fingerprint, fresh.environment = fingerprint_now, environment
        self._load(fresh)
        revoked = fresh.failure_kind is FailureKind.CONSENT
        if fresh.state is State.READY or old is None or old.state is not State.READY or revoked:
            return fresh
        if fresh.state is State.UNAVAILABLE:
            old.report_problem(
                f"the files changed and no longer load ({fresh.reason}); still serving what was loaded before",
                fresh.failure_kind,
            )
        return old

    def _load(self, fresh: Servable) -> None:
        """Make the servable READY or UNAVAILABLE. It stays LOADING while its preflight runs."""
        started_s = time.monotonic()
        try:
            if self._results is not None and not _passed(fresh, self._results):
                return
            contract = integrity.read_contract(self._root, fresh.name, fresh.version)
            fresh.contract = contract
            runtime = check_version(
                self._root, fresh.name, fresh.version, self._policy, self._store, self._environments,
                self._checked,
            )  # fmt: skip
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
        except ContractBroken as problem:
            fresh.fail(str(problem), problem.failure_kind)
        except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything; other versions still load
            fresh.fail(f"{type(problem).__name__}: {problem}", FailureKind.OTHER)

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


def _passed(fresh: Servable, preflight_results: PreflightResults) -> bool:
    """Whether the version passed its preflight; False while the preflight runs. Raises ContractBroken if it failed."""
    preflight_result = preflight_results.known.get(
        VersionFiles(fresh.name, fresh.version, fresh.fingerprint, fresh.environment)
    )
    if preflight_result is None:
        if preflight_results.complete:
            raise ContractBroken(
                "the files of this version appeared or changed during the reload; reload again", FailureKind.OTHER
            )
        fresh.reason = "the preflight of this version is running"
        return False
    if preflight_result.failure_kind:
        raise ContractBroken(preflight_result.reason, preflight_result.failure_kind)
    return True
