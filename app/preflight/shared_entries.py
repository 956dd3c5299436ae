"""Shared entries: decides which forests the workers of a host share, and checks an entry before it computes answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tableside.contracts.schema import Contract
from tableside.contracts.table import Table
from tableside.errors import ContractBroken
from tableside.repository import integrity, paths
from tableside.runtimes import golden
from tableside.runtimes.fast.backend import build_shared
from tableside.runtimes.fast.packed_trees import SHARED_MEMORY
from tableside.runtimes.lazy_estimator import LazyEstimator
from tableside.runtimes.router import RoutedRuntime, difference_from_estimator
from tableside.runtimes.shared_store import SharedStore, unpacked_bytes
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.settings import Repository

MB = 1_000_000
_TRIES = 2
"""A second try is needed where another process finds the old entry damaged and removes the new one with it."""
UNSHARED = (
    "every worker holds a copy of its own of this forest, because the shared store in the run folder cannot be written "
    "or read; check the disk's free space and the folder's permissions"
)
"""The warning of a version that should be shared and is not."""


def should_share(contract: Contract, artifact: Path, policy: Repository) -> bool:
    """Return whether workers share the trees of this version.

    They do if the artifact takes more memory than `repository.shared_memory_above_mb` (0 turns sharing off) and publish
    found the shared-memory backend equal to the estimator in every bit.
    """
    is_equal = any(
        check.backend == SHARED_MEMORY and check.outcome in ("equal", "used") and check.largest_difference == 0
        for check in contract.equivalence_checks
    )
    above_mb = policy.shared_memory_above_mb
    return is_equal and bool(above_mb) and unpacked_bytes(artifact) > above_mb * MB


def is_shared(runtime: object) -> bool:
    """Return whether a loaded version uses trees in the shared store."""
    return isinstance(runtime, RoutedRuntime) and isinstance(runtime.original, LazyEstimator)


def unshared_warning(root: Path, contract: Contract, policy: Repository, runtime: object) -> str:
    """Return UNSHARED for a loaded version that should be shared and is not; an empty string for any other."""
    artifact = paths.version_folder(root, contract.name, contract.version) / contract.artifact.file
    return UNSHARED if not is_shared(runtime) and should_share(contract, artifact, policy) else ""


def open_entry(
    contract: Contract, policy: Repository, store: SharedStore, load_estimator: Callable[[], SklearnRuntime]
) -> RoutedRuntime | None:
    """Return a runtime that uses the version's entry in the shared store, after replaying its golden rows.

    load_estimator: loads the whole estimator, for requests that only it can answer. Returns None if there is no entry,
    or if the entry is damaged or answers differently; such an entry is removed.
    """
    try:
        found = store.open(contract, policy.trusted_types)
        if found is None:
            return None
        stub, packed = found
        original = LazyEstimator(stub, load_estimator)
        routed = RoutedRuntime(original, [(0, build_shared(original, stub.estimator, packed, contract.input))])
        golden.replay(contract, routed.run, _unchanged)
    except Exception:  # noqa: BLE001 - a damaged entry may raise anything; the artifact is loaded instead
        store.drop(contract)
        return None
    return routed


def make_entry(
    root: Path, contract: Contract, policy: Repository, store: SharedStore, runtime: SklearnRuntime,
    load_estimator: Callable[[], SklearnRuntime],
) -> RoutedRuntime | None:  # fmt: skip
    """Write the entry of a loaded estimator and return a runtime that uses it.

    Returns None if the entry cannot be written, or does not give the estimator's answers in every bit; `runtime` then
    serves the version. Entries of versions that have left the repository are removed first.
    """
    try:
        store.sweep(published(root))
        for _ in range(_TRIES):
            store.put(contract, runtime.estimator)
            routed = open_entry(contract, policy, store, load_estimator)
            if routed is not None:
                break
        table = golden.golden_table(contract)
        direct = routed.pick(table.rows) if routed is not None else None
        if direct is None:
            return None
        compared = RoutedRuntime(runtime, [(0, direct)])  # with the estimator just loaded, not with one from the disk
        return routed if difference_from_estimator(compared, table, contract.outputs) == 0 else None
    except Exception:  # noqa: BLE001 - for example a full disk; the loaded estimator serves the version
        return None


def _unchanged(table: Table) -> Table:
    return table


def published(root: Path) -> Iterator[Contract]:
    """Yield the contract of each version of the repository; those that cannot be read are left out."""
    for name in paths.models(root):
        for number in paths.versions(root, name):
            try:
                yield integrity.read_contract(root, name, number)
            except ContractBroken:
                continue
