"""Version statuses: the state of every version in all workers, for the repository index, `tableside list` and loads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tableside.errors import ContractBroken, FailureKind
from tableside.repository import model_toml, paths
from tableside.serving.lifecycle import UNLOADED, State

if TYPE_CHECKING:  # commands read statuses too, and do without scikit-learn
    from tableside.serving.servable import Servable


class VersionStatus(msgspec.Struct, frozen=True):
    """The state of one version, in one worker or merged over all workers.

    reason: why it is not served, or a warning; empty if there is nothing to report. current: whether the files in the
    repository are what the worker serves; False if it still serves what it had loaded before they changed.
    golden_difference: the largest relative difference of the golden answers here from those of publish.
    """

    name: str
    version: int
    state: State
    failure_kind: FailureKind = FailureKind.NONE
    reason: str = ""
    current: bool = True
    golden_difference: float = 0.0

    @property
    def key(self) -> tuple[str, int]:
        """The model's name and the version's number."""
        return self.name, self.version


def status_of_servable(servable: Servable) -> VersionStatus:
    """Return the status of a version in this worker, as the worker writes it to its status file."""
    current = servable.reason in (servable.warning, servable.notice) or servable.failure_kind is FailureKind.QUARANTINED
    return VersionStatus(
        servable.name,
        servable.version,
        servable.state,
        servable.failure_kind,
        servable.reason,
        current,
        servable.golden_difference,
    )


def read_statuses(statuses: Iterable[Mapping[str, object]]) -> list[VersionStatus]:
    """Return the entries of the workers' status files.

    Skips a file whose entries have another form, such as one that a worker of another release has written.
    """
    found: list[VersionStatus] = []
    for status in statuses:
        try:
            found += msgspec.convert(status.get("models", []), list[VersionStatus])
        except msgspec.ValidationError:
            continue
    return found


def merge_statuses(entries: Iterable[VersionStatus]) -> dict[tuple[str, int], VersionStatus]:
    """Return the worst status of each version by (name, version). A version is READY only if it is in all workers.

    The worst status is one that is not READY, then one with a failure kind, then one with a warning.
    """
    worst: dict[tuple[str, int], VersionStatus] = {}
    for entry in entries:
        known = worst.get(entry.key)
        if known is None or _severity(entry) > _severity(known):
            worst[entry.key] = entry
    return worst


def _severity(entry: VersionStatus) -> tuple[bool, bool, bool]:
    return entry.state is not State.READY, entry.failure_kind is not FailureKind.NONE, bool(entry.reason)


def all_versions(root: Path, entries: Sequence[VersionStatus]) -> list[VersionStatus]:
    """Return the status of every version that is in the repository or in a worker, sorted by name and version.

    Versions that no worker knows are UNAVAILABLE, with the reason.
    """
    found = merge_statuses(entries)
    for name in paths.models(root):
        for entry in _unserved(root, name):
            found.setdefault((name, entry.version), entry)
    return [found[key] for key in sorted(found)]


def versions_of(root: Path, name: str, entries: Sequence[VersionStatus]) -> list[VersionStatus]:
    """Return the same as `all_versions` for one model, without reading the others. entries: those of this model."""
    found = {entry.version: entry for entry in merge_statuses(entries).values()}
    for entry in _unserved(root, name):
        found.setdefault(entry.version, entry)
    return [found[version] for version in sorted(found)]


def _unserved(root: Path, name: str) -> Iterable[VersionStatus]:
    """The statuses that the versions on disk have if no worker knows them."""
    published = paths.versions(root, name)
    wanted: list[int] = []
    failure_kind, excluded = FailureKind.NONE, UNLOADED
    try:
        config = model_toml.read(root, name)
        if config.enabled:
            wanted, excluded = config.wanted(published), "not served: `versions` in model.toml leaves it out"
    except ContractBroken as problem:
        failure_kind, excluded = problem.failure_kind, str(problem)
    not_loaded = "not read yet: it was published after the last reload, or no worker has finished loading"
    for number in published:
        reason = not_loaded if number in wanted else excluded
        yield VersionStatus(name, number, State.UNAVAILABLE, failure_kind, reason)
