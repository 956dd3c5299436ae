"""Large forests that the workers of a host share: when, from what, and what is checked before one answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from app.contract import golden
from app.contract.schema import Contract
from app.contract.table import Table
from app.errors import ContractBroken
from app.repository import integrity, paths
from app.repository.shelf import Shelf, unpacked_bytes
from app.runtimes.direct.compiled import build_shared
from app.runtimes.direct.shared import WAY
from app.runtimes.planned import PlannedRuntime, disagreement
from app.runtimes.shelved import Shelved
from app.runtimes.sklearn import SklearnRuntime
from app.settings import Repository

MB = 1_000_000
_TRIES = 2
"""Another worker may find the damage at the same time, and remove with it what this one has just made."""
UNSHARED = "every worker holds a copy of its own: what they would share cannot be written to the run folder, or read"


def fits(contract: Contract, artifact: Path, policy: Repository) -> bool:
    """Whether it is large enough in memory, and publish has found the shared way equal to the bit."""
    proved = any(
        each.way == WAY and each.verdict in ("proved", "used") and each.largest_difference == 0
        for each in contract.candidates
    )
    return proved and bool(policy.share_above_mb) and unpacked_bytes(artifact) > policy.share_above_mb * MB


def is_shared(runtime: object) -> bool:
    """Whether a loaded version's nodes are mapped."""
    return isinstance(runtime, PlannedRuntime) and isinstance(runtime.original, Shelved)


def note(root: Path, contract: Contract, policy: Repository, runtime: object) -> str:
    """What to say of a loaded version that should be shared and is not; empty for others."""
    artifact = paths.version_folder(root, contract.name, contract.version) / contract.artifact.file
    return UNSHARED if not is_shared(runtime) and fits(contract, artifact, policy) else ""


def open_entry(
    contract: Contract, policy: Repository, shelf: Shelf, whole: Callable[[], SklearnRuntime]
) -> PlannedRuntime | None:
    """The version over its mapped nodes, held to its golden rows; None, and no entry any more, when that cannot be.

    whole: loads the estimator, for what only it can answer.
    """
    try:
        found = shelf.open(contract, policy.trusted_types)
        if found is None:
            return None
        hollow, packed = found
        original = Shelved(hollow, whole)
        planned = PlannedRuntime(original, [(0, build_shared(original, hollow.estimator, packed, contract.input))])
        golden.replay(contract, planned.run, _as_it_is)
    except Exception:  # noqa: BLE001 - whatever is wrong with an entry, the artifact itself decides what is served
        shelf.drop(contract)
        return None
    return planned


def make_entry(
    root: Path, contract: Contract, policy: Repository, shelf: Shelf, runtime: SklearnRuntime,
    whole: Callable[[], SklearnRuntime],
) -> PlannedRuntime | None:  # fmt: skip
    """Lay the loaded estimator out for all workers and open that; None when it cannot be, or answers otherwise."""
    try:
        shelf.sweep(_published(root))
        for _ in range(_TRIES):
            shelf.put(contract, runtime.estimator)
            planned = open_entry(contract, policy, shelf, whole)
            if planned is not None:
                break
        table = golden.golden_table(contract)
        direct = planned.pick(table.rows) if planned is not None else None
        held = PlannedRuntime(runtime, [(0, direct)])
        return planned if direct is not None and disagreement(held, table, contract.outputs) == 0 else None
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
