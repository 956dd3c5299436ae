"""The status file of a worker, and the start of its registry."""

from __future__ import annotations

import os
from datetime import UTC, datetime

import msgspec

from tableside import __version__
from tableside.process import loop_lag, worker_slots
from tableside.process.instance_names import INSTANCE_ID
from tableside.serving import readiness
from tableside.serving.following import Follower, follow
from tableside.serving.registry import Registry
from tableside.serving.version_status import status_of_servable
from tableside.settings import Settings


def status_of(registry: Registry, instance: str, started_at: datetime, instance_size: int = 0) -> dict[str, object]:
    """Return the content of a worker's status file, which other processes read: `tableside list`, the admin routes.

    instance_size: how many workers gunicorn starts; the web keeper waits until so many are ready.
    """
    return {
        "pid": os.getpid(),
        "instance": instance,
        "instance_id": os.environ.get(INSTANCE_ID, ""),
        "instance_size": instance_size,
        "ready": registry.is_complete and not registry.draining,
        "missing": registry.missing()[: readiness.LISTED],
        "version": __version__,
        "started_at": started_at.isoformat(timespec="seconds"),
        "generation": registry.catalog.generation if registry.is_complete else 0,
        "failure": registry.failure,
        "repository": str(registry.repository),
        "aliases": {name: dict(model.aliases) for name, model in registry.catalog.models.items() if model.aliases},
        "models": [msgspec.to_builtins(status_of_servable(servable)) for servable in registry.catalog],
    }


def start_worker(
    registry: Registry, slot: worker_slots.WorkerSlot, settings: Settings, instance: str, instance_size: int = 0
) -> Follower:
    """Start loading models and following generations; write the worker's status file after each change.

    instance_size: how many workers gunicorn starts.
    """
    started_at = datetime.now(UTC)

    def acknowledge() -> None:
        slot.write_status(status_of(registry, instance, started_at, instance_size))

    registry.worker_number = slot.number
    registry.traffic.start(slot.number)
    acknowledge()
    loop_lag.watch(registry.metrics.event_loop_lag.observe)
    return follow(registry, settings, acknowledge, slot.is_listed, os.getpid())
