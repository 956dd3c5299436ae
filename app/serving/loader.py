"""From a folder of the repository to a servable, or to the reason why not."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

from tableside.contract.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.preflight import shared_entries
from tableside.preflight.checks import check_version
from tableside.preflight.results import Fingerprint, PreflightResults, VersionFiles
from tableside.repository import integrity, model_toml, paths
from tableside.runtimes.base import Runtime
from tableside.runtimes.malloc_trim import release_free_memory
from tableside.runtimes.router import (
    SKLEARN,
    RoutedRuntime,
)
from tableside.runtimes.shared_store import SharedStore
from tableside.serving.catalog import Catalog, Model
from tableside.serving.lifecycle import State
from tableside.serving.servable import Servable
from tableside.settings import Repository

LARGE_BYTES = 1_000_000
"""From here on it is worth giving back to the system what a load has left behind."""
UNLOADED = "unloaded: enabled is false in model.toml"


def load_catalog(
    root: Path, policy: Repository, generation: int, before: Catalog, preflight_results: PreflightResults | None = None,
    store: SharedStore | None = None,
) -> Catalog:  # fmt: skip
    """Read the repository. Versions that `before` already serves from the same files are kept as they are.

    preflight_results: of preflights; only what passed one is loaded, and what still waits for one is LOADING. None: all
    is loaded. store: where large forests lie that workers share. None: every worker holds its own.
    Runs in a native thread: it neither logs nor counts. Raises OSError when `root` itself cannot be read.
    """
    names = _names(root)
    return Catalog(
        generation, {name: _load_model(root, name, policy, before, preflight_results, store) for name in names}
    )


def versions_to_load(root: Path, before: Catalog) -> list[VersionFiles]:
    """The versions `load_catalog` would load now. Raises OSError when `root` cannot be read."""
    return [each for name in _names(root) for each in _versions_to_load(root, name, before)]


def _names(root: Path) -> list[str]:
    if not root.is_dir():
        raise FileNotFoundError(f"repository {root} is not there")
    return paths.models(root)


def _versions_to_load(root: Path, name: str, before: Catalog) -> Iterator[VersionFiles]:
    try:
        config = model_toml.read(root, name)
    except ContractBroken:
        return
    kept = _served_before(before, name)
    for number in config.wanted(paths.versions(root, name)) if config.enabled else ():
        fingerprint_now = fingerprint(root, name, number)
        if not _is_unchanged(kept.get(number), fingerprint_now):
            yield VersionFiles(name, number, fingerprint_now)


def _served_before(before: Catalog, name: str) -> dict[int, Servable]:
    model = before.models.get(name)
    return {servable.version: servable for servable in model.servables} if model else {}


def _is_unchanged(old: Servable | None, fingerprint_now: Fingerprint) -> bool:
    return old is not None and old.state is State.READY and old.fingerprint == fingerprint_now


def _load_model(
    root: Path,
    name: str,
    policy: Repository,
    before: Catalog,
    preflight_results: PreflightResults | None,
    store: SharedStore | None,
) -> Model:
    kept = _served_before(before, name)
    published = paths.versions(root, name)
    try:
        config = model_toml.read(root, name)
    except ContractBroken as problem:
        return _without_config(name, published, before, problem)
    numbers = config.wanted(published)
    if not config.enabled:
        return Model(name, tuple(_failed(name, n, UNLOADED) for n in numbers), config.aliases)
    servables = tuple(_load_version(root, name, n, policy, kept.get(n), preflight_results, store) for n in numbers)
    return Model(name, servables, config.aliases, config=config)


def _without_config(name: str, published: list[int], before: Catalog, problem: ContractBroken) -> Model:
    """A model whose model.toml cannot be read: what was served goes on being served, and says so."""
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


def fingerprint(root: Path, name: str, number: int) -> Fingerprint:
    """Changes when any file of the version does; None when they cannot be seen."""
    folder = paths.version_folder(root, name, number)
    try:
        stats = [(file.name, file.stat()) for file in sorted(folder.iterdir())]
    except OSError:
        return None
    return tuple((file, stat.st_ino, stat.st_size, stat.st_mtime_ns) for file, stat in stats)


def _load_version(
    root: Path,
    name: str,
    number: int,
    policy: Repository,
    old: Servable | None,
    preflight_results: PreflightResults | None,
    store: SharedStore | None,
) -> Servable:
    fingerprint_now = fingerprint(root, name, number)
    if old is not None and _is_unchanged(old, fingerprint_now):
        old.report_problem(old.warning, FailureKind.ENVIRONMENT if old.warning else FailureKind.NONE)
        return old
    fresh = Servable(name, number)
    fresh.fingerprint = fingerprint_now
    _load(root, fresh, policy, preflight_results, store)
    if fresh.state is State.READY or old is None or old.state is not State.READY:
        return fresh
    if fresh.state is State.UNAVAILABLE:
        old.report_problem(
            f"the files changed and no longer load ({fresh.reason}); still serving what was loaded before",
            fresh.failure_kind,
        )
    return old


def _load(
    root: Path,
    fresh: Servable,
    policy: Repository,
    preflight_results: PreflightResults | None,
    store: SharedStore | None,
) -> None:
    """Make it ready, or fail it; leave it LOADING while its preflight is not over."""
    started_s = time.monotonic()
    try:
        if preflight_results is not None and not _passed(fresh, preflight_results):
            return
        contract = integrity.read_contract(root, fresh.name, fresh.version)
        fresh.contract = contract
        runtime = check_version(root, fresh.name, fresh.version, policy, store)
        if contract.artifact.size_bytes > LARGE_BYTES:
            release_free_memory()
        warning = integrity.check_environment(contract, policy.environment_skew)
        note = "" if store is None else shared_entries.unshared_warning(root, contract, policy, runtime)
        fresh.ready(runtime, time.monotonic() - started_s, warning or _unused_backends(contract, runtime))
        fresh.report_problem(fresh.reason or note, fresh.failure_kind)
    except ContractBroken as problem:
        fresh.fail(str(problem), problem.failure_kind)
    except Exception as problem:  # noqa: BLE001 - a broken artifact may raise anything; the others must still load
        fresh.fail(f"{type(problem).__name__}: {problem}", FailureKind.OTHER)


def _unused_backends(contract: Contract, runtime: Runtime) -> str:
    """Which of the contract's fast backends are not in service here, in words."""
    if shared_entries.is_shared(runtime):
        return ""
    used = runtime.used if isinstance(runtime, RoutedRuntime) else frozenset()
    unused = sorted({route.backend for route in contract.routes} - used - {SKLEARN})
    return f"its fast backend ({', '.join(unused)}) does not hold here; the estimator answers" if unused else ""


def _passed(fresh: Servable, preflight_results: PreflightResults) -> bool:
    """Whether its preflight let it through; False while that is not known. Raises ContractBroken with what was
    found.
    """
    preflight_result = preflight_results.known.get(VersionFiles(fresh.name, fresh.version, fresh.fingerprint))
    if preflight_result is None:
        if preflight_results.complete:
            raise ContractBroken(
                "its files appeared or changed while others were read; reload again", FailureKind.OTHER
            )
        fresh.reason = "preflight: being loaded in a process of its own"
        return False
    if preflight_result.failure_kind:
        raise ContractBroken(preflight_result.reason, preflight_result.failure_kind)
    return True
