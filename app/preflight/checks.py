"""Load one version and hold it to its contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from tableside.contract.schema import Contract
from tableside.errors import ContractBroken, FailureKind
from tableside.preflight import shared_entries
from tableside.repository import integrity
from tableside.runtimes import golden
from tableside.runtimes.base import Runtime
from tableside.runtimes.router import (
    RoutedRuntime,
    allowed_difference,
    build_router,
    difference_from_estimator,
)
from tableside.runtimes.shared_store import SharedStore
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.runtimes.sklearn import load as load_sklearn
from tableside.settings import Repository


def check_version(root: Path, name: str, number: int, policy: Repository, store: SharedStore | None = None) -> Runtime:
    """Load a version and hold it to its contract: hash, environment, types, golden rows, checksums. Raises
    ContractBroken.

    The checksums come last: where the golden rows can tell what is wrong, they say more. What lies in the shared store
    already was loaded so by another process of this host, and is held to the same but for the types.
    """
    contract = integrity.read_contract(root, name, number)
    artifact = integrity.check_artifact(root, contract)
    integrity.check_environment(contract, policy.environment_skew)
    if store is None or not shared_entries.should_share(contract, artifact, policy):
        runtime = _load_estimator(artifact, contract, policy)
        integrity.check_checksums(root, contract)
        return _routed(runtime, contract, artifact.parent)
    later = partial(_load_checked_estimator, root, contract, policy)
    shared = shared_entries.open_entry(contract, policy, store, later)
    if shared is None:
        runtime = _load_estimator(artifact, contract, policy)
        shared = shared_entries.make_entry(root, contract, policy, store, runtime, later)
    integrity.check_checksums(root, contract)
    return _routed(runtime, contract, artifact.parent) if shared is None else shared


def _load_checked_estimator(root: Path, contract: Contract, policy: Repository) -> SklearnRuntime:
    return _load_estimator(integrity.check_artifact(root, contract), contract, policy)


def _load_estimator(artifact: Path, contract: Contract, policy: Repository) -> SklearnRuntime:
    """The estimator in memory, held to its golden rows. Raises ContractBroken."""
    runtime = load_sklearn(artifact, policy.trusted_types)
    _replay(contract, runtime)
    return runtime


def _routed(original: SklearnRuntime, contract: Contract, folder: Path) -> Runtime:
    """The backends the contract asks for, held once more to the estimator here; the estimator alone where they differ.

    Another processor may add up otherwise: then the estimator is right, and slower.
    """
    try:
        routed = build_router(original, contract, folder)
        if isinstance(routed, RoutedRuntime):
            table = golden.golden_table(contract)
            apart = difference_from_estimator(routed, table, contract.outputs)
            if apart > allowed_difference(contract):
                return original
    except Exception:  # noqa: BLE001 - whatever goes wrong with a fast backend, the estimator has just proved itself
        return original
    return routed


def _replay(contract: Contract, runtime: Runtime) -> None:
    try:
        golden.replay(contract, runtime.run)
    except ContractBroken as problem:
        raise ContractBroken(str(problem), FailureKind.GOLDEN) from problem
    except Exception as problem:
        detail = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise ContractBroken(f"golden rows: not answered: {detail}", FailureKind.GOLDEN) from problem
