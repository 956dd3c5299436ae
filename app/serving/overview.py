"""Every version of the repository with what all workers say of it: for the index, for `tableside list`, for a load."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from app.errors import ContractBroken, Trouble
from app.repository import modelfile, paths
from app.serving.lifecycle import State
from app.serving.loader import UNLOADED
from app.serving.servable import Servable


class Entry(msgspec.Struct, frozen=True):
    """One version in one worker, or in all of them.

    current: what is served, if anything, is what lies in the repository; the reason is no more than a warning then.
    """

    name: str
    version: int
    state: State
    trouble: Trouble = Trouble.NONE
    reason: str = ""
    current: bool = True


def entry_of(servable: Servable) -> Entry:
    """What a worker says of a version in its status."""
    current = servable.reason == servable.warning
    return Entry(servable.name, servable.version, servable.state, servable.trouble, servable.reason, current)


def told(statuses: Iterable[dict[str, Any]]) -> list[Entry]:
    """The entries of the workers' status files. One that cannot be read (another release's, say) tells nothing."""
    found: list[Entry] = []
    for status in statuses:
        try:
            found += msgspec.convert(status.get("models", []), list[Entry])
        except msgspec.ValidationError:
            continue
    return found


def merged(entries: Iterable[Entry]) -> dict[tuple[str, int], Entry]:
    """By (name, version) what the worker says that has most to say against it: READY only when it is so in all."""
    worst: dict[tuple[str, int], Entry] = {}
    for entry in entries:
        known = worst.get((entry.name, entry.version))
        if known is None or _against(entry) > _against(known):
            worst[entry.name, entry.version] = entry
    return worst


def _against(entry: Entry) -> tuple[bool, bool, bool]:
    return entry.state is not State.READY, entry.trouble is not Trouble.NONE, bool(entry.reason)


def overview(root: Path, entries: Sequence[Entry]) -> list[Entry]:
    """All versions below `root` and all that are served, by name and version; the reason where one is not."""
    found = merged(entries)
    for name in paths.models(root):
        for entry in _unserved(root, name):
            found.setdefault((name, entry.version), entry)
    return [found[key] for key in sorted(found)]


def _unserved(root: Path, name: str) -> Iterable[Entry]:
    """Why a version on disk would be unknown to the workers."""
    published = paths.versions(root, name)
    wanted: list[int] = []
    trouble, left_out = Trouble.NONE, UNLOADED
    try:
        words = modelfile.read(root, name)
        if words.enabled:
            wanted, left_out = words.wanted(published), "not served: `versions` in model.toml leaves it out"
    except ContractBroken as problem:
        trouble, left_out = problem.trouble, str(problem)
    unread = "not read yet: published since the last reload, or no worker has loaded"
    for number in published:
        reason = unread if number in wanted else left_out
        yield Entry(name, number, State.UNAVAILABLE, trouble, reason)
