"""What the workers of each instance report of themselves, in their status files."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import msgspec

from tableside.deployment.instances import Instance
from tableside.deployment.succession import Seen
from tableside.process import worker_slots


class _Version(msgspec.Struct):
    name: str = ""
    version: int = 0
    state: str = ""
    reason: str = ""
    failure_kind: str = ""


class _Worker(msgspec.Struct):
    """What is read of a status file; a worker of another release may write more, or less."""

    instance_id: str = ""
    instance_size: int = 0
    ready: bool = False
    models: list[_Version] = []


def _workers(run_dir: Path) -> list[_Worker]:
    found = []
    for status in worker_slots.statuses(run_dir / "worker_slots"):
        try:
            found.append(msgspec.convert(status, _Worker))
        except msgspec.ValidationError:
            continue
    return found


def observe(run_dir: Path, found: Mapping[str, Instance]) -> dict[str, Seen]:
    """Return what is seen of each instance. found: those whose processes exist."""
    workers = _workers(run_dir)
    return {name: _seen(each, [w for w in workers if w.instance_id == name]) for name, each in found.items()}


def _seen(instance: Instance, workers: list[_Worker]) -> Seen:
    ready = sum(worker.ready for worker in workers)
    decided = sum(version.state != "LOADING" for worker in workers for version in worker.models)
    wanted = max((worker.instance_size for worker in workers), default=0)
    return Seen(instance.master is not None, ready, wanted, ready + decided + len(workers))


def lost_versions(run_dir: Path, name: str, kinds: Collection[str] | None = None) -> list[str]:
    """Return the versions that a worker of another instance serves and a worker of this one does not, with the reason.

    kinds: the failure kinds that count; None for all. A version that this instance does not know was removed from the
    repository, and is not lost.
    """
    served: set[tuple[str, int]] = set()
    failed: dict[tuple[str, int], str] = {}
    for worker in _workers(run_dir):
        for version in worker.models:
            key = (version.name, version.version)
            if worker.instance_id != name and version.state == "READY":
                served.add(key)
            elif worker.instance_id != name or version.state == "READY":
                continue
            elif kinds is None or version.failure_kind in kinds:
                failed[key] = version.reason
    return [f"{key[0]}/{key[1]} ({failed[key]})" for key in sorted(served & failed.keys())]
