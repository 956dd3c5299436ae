"""Large forests that the workers of a host share: when, from what, and what is checked before one answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from tableside.contract.schema import Contract
from tableside.contract.table import Table
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
"""Another worker may find the damage at the same time, and remove with it what this one has just made."""
UNSHARED = "every worker holds a copy of its own: what they would share cannot be written to the run folder, or read"


def should_share(contract: Contract, artifact: Path, policy: Repository) -> bool:
    """Whether it is large enough in memory, and publish has found the shared-memory backend equal to the bit."""
    proved = any(
        each.backend == SHARED_MEMORY and each.outcome in ("equal", "used") and each.largest_difference == 0
        for each in contract.equivalence_checks
    )
    return (
        proved and bool(policy.shared_memory_above_mb) and unpacked_bytes(artifact) > policy.shared_memory_above_mb * MB
    )


def is_shared(runtime: object) -> bool:
    """Whether a loaded version's nodes are mapped."""
    return isinstance(runtime, RoutedRuntime) and isinstance(runtime.original, LazyEstimator)


def unshared_warning(root: Path, contract: Contract, policy: Repository, runtime: object) -> str:
    """What to say of a loaded version that should be shared and is not; empty for others."""
    artifact = paths.version_folder(root, contract.name, contract.version) / contract.artifact.file
    return UNSHARED if not is_shared(runtime) and should_share(contract, artifact, policy) else ""


def open_entry(
    contract: Contract, policy: Repository, store: SharedStore, whole: Callable[[], SklearnRuntime]
) -> RoutedRuntime | None:
    """The version over its mapped nodes, held to its golden rows; None, and no entry any more, when that cannot be.

    whole: loads the estimator, for what only it can answer.
    """
    try:
        found = store.open(contract, policy.trusted_types)
        if found is None:
            return None
        stub, packed = found
        original = LazyEstimator(stub, whole)
        planned = RoutedRuntime(original, [(0, build_shared(original, stub.estimator, packed, contract.input))])
        golden.replay(contract, planned.run, _as_it_is)
    except Exception:  # noqa: BLE001 - whatever is wrong with an entry, the artifact itself decides what is served
        store.drop(contract)
        return None
    return planned


def make_entry(
    root: Path, contract: Contract, policy: Repository, store: SharedStore, runtime: SklearnRuntime,
    whole: Callable[[], SklearnRuntime],
) -> RoutedRuntime | None:  # fmt: skip
    """Lay the loaded estimator out for all workers and open that; None when it cannot be, or answers otherwise."""
    try:
        store.sweep(_published(root))
        for _ in range(_TRIES):
            store.put(contract, runtime.estimator)
            planned = open_entry(contract, policy, store, whole)
            if planned is not None:
                break
        table = golden.golden_table(contract)
        direct = planned.pick(table.rows) if planned is not None else None
        held = RoutedRuntime(runtime, [(0, direct)])
        return planned if direct is not None and difference_from_estimator(held, table, contract.outputs) == 0 else None
    except Exception:  # noqa: BLE001 - a full disk, say: the estimator has just proved itself, and takes more memory
        return None


def _as_it_is(table: Table) -> Table:
    return table


def _published(root: Path) -> Iterator[Contract]:
    for name in paths.models(root):
        for number in paths.versions(root, name):
            try:
                yield integrity.read_contract(root, name, number)
            except ContractBroken:
                continue
