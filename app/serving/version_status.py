"""Every version of the repository with what all workers say of it: for the index, for `tableside list`, for a load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tableside.errors import ContractBroken, FailureKind
from tableside.repository import model_toml, paths
from tableside.serving.lifecycle import State
from tableside.serving.loader import UNLOADED
from tableside.serving.servable import Servable


class VersionStatus(msgspec.Struct, frozen=True):
    """One version in one worker, or in all of them.

    current: what is served, if anything, is what lies in the repository; the reason is no more than a warning then.
    """

    name: str
    version: int
    state: State
    failure_kind: FailureKind = FailureKind.NONE
    reason: str = ""
    current: bool = True


def status_of_servable(servable: Servable) -> VersionStatus:
    """What a worker says of a version in its status."""
    current = servable.reason == servable.warning
    return VersionStatus(
        servable.name, servable.version, servable.state, servable.failure_kind, servable.reason, current
    )


def read_statuses(statuses: Iterable[dict[str, Any]]) -> list[VersionStatus]:
    """The entries of the workers' status files. One that cannot be read (another release's, say) tells nothing."""
    found: list[VersionStatus] = []
    for status in statuses:
        try:
            found += msgspec.convert(status.get("models", []), list[VersionStatus])
        except msgspec.ValidationError:
            continue
    return found


def merge_statuses(entries: Iterable[VersionStatus]) -> dict[tuple[str, int], VersionStatus]:
    """By (name, version) what the worker says that has most to say against it: READY only when it is so in all."""
    worst: dict[tuple[str, int], VersionStatus] = {}
    for entry in entries:
        known = worst.get((entry.name, entry.version))
        if known is None or _severity(entry) > _severity(known):
            worst[entry.name, entry.version] = entry
    return worst


def _severity(entry: VersionStatus) -> tuple[bool, bool, bool]:
    return entry.state is not State.READY, entry.failure_kind is not FailureKind.NONE, bool(entry.reason)


def all_versions(root: Path, entries: Sequence[VersionStatus]) -> list[VersionStatus]:
    """All versions below `root` and all that are served, by name and version; the reason where one is not."""
    found = merge_statuses(entries)
    for name in paths.models(root):
        for entry in _unserved(root, name):
            found.setdefault((name, entry.version), entry)
    return [found[key] for key in sorted(found)]


def _unserved(root: Path, name: str) -> Iterable[VersionStatus]:
    """Why a version on disk would be unknown to the workers."""
    published = paths.versions(root, name)
    wanted: list[int] = []
    failure_kind, left_out = FailureKind.NONE, UNLOADED
    try:
        config = model_toml.read(root, name)
        if config.enabled:
            wanted, left_out = config.wanted(published), "not served: `versions` in model.toml leaves it out"
    except ContractBroken as problem:
        failure_kind, left_out = problem.failure_kind, str(problem)
    unread = "not read yet: published since the last reload, or no worker has loaded"
    for number in published:
        reason = unread if number in wanted else left_out
        yield VersionStatus(name, number, State.UNAVAILABLE, failure_kind, reason)
