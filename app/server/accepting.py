"""Accept no connection before this worker is ready, while other workers of the run folder are.

gunicorn's gevent worker accepts as soon as its application is imported. Requests that reach it then wait for its models
to load, although other workers could answer them at once.
"""

from __future__ import annotations

import time
from typing import Protocol

from gevent import sleep

from tableside.process import worker_slots
from tableside.process.worker_slots import WorkerSlot
from tableside.server.draining import DrainingWorker

POLL_S = 0.02
LOOK_S = 0.25
"""Seconds between two looks at the other workers: if the last one that is ready dies, this one accepts."""
HEARTBEAT_S = 1.0
HOLD_S = 10.0
"""Seconds in which the web keeper decides whether an instance that lacks versions is ended."""


class Readiness(Protocol):
    """What is used of the registry."""

    @property
    def is_complete(self) -> bool:
        """Whether everything that is to serve serves."""


class AcceptingWorker(DrainingWorker):
    """A worker that begins to accept when it is its turn."""

    def run(self) -> None:
        """Wait for the models, if others serve meanwhile; then serve until the worker ends."""
        self.wait_for_turn()
        if self.alive:
            super().run()

    def wait_for_turn(self) -> None:
        """Return when the first load is over, when no other worker is ready, or when this one shall end."""
        extensions = getattr(self.wsgi, "extensions", {})
        if self.slot is None or "tableside" not in extensions:
            return
        registry: Readiness = extensions["tableside"].registry
        look_at_s = beat_at_s = 0.0
        while self.alive and not registry.is_complete:
            now_s = time.monotonic()
            if now_s >= look_at_s:
                look_at_s = now_s + LOOK_S
                if not is_served_by_others(self.slot):
                    return
            if now_s >= beat_at_s:
                beat_at_s = now_s + HEARTBEAT_S
                self.notify()
            sleep(POLL_S)
        self._hold_if_versions_are_lost(self.slot)

    def _hold_if_versions_are_lost(self, slot: WorkerSlot) -> None:
        """Accept nothing for HOLD_S if this worker lacks a version that others serve: the web keeper ends it then."""
        give_up_at_s, beat_at_s = time.monotonic() + HOLD_S, 0.0
        while self.alive and time.monotonic() < give_up_at_s and loses_versions(slot):
            if time.monotonic() >= beat_at_s:
                beat_at_s = time.monotonic() + HEARTBEAT_S
                self.notify()
            sleep(LOOK_S)


def loses_versions(slot: WorkerSlot) -> bool:
    """Return whether other ready workers of this run folder serve a version that this one does not serve."""
    mine: set[tuple[object, object]] = set()
    theirs: set[tuple[object, object]] = set()
    for status in worker_slots.statuses(slot.run_dir / "worker_slots"):
        models = status.get("models")
        found = {
            (model.get("name"), model.get("version"))
            for model in (models if isinstance(models, list) else [])
            if model.get("state") == "READY"
        }
        if status.get("worker_slot") == slot.number:
            mine |= found
        elif status.get("ready") is True:
            theirs |= found
    return bool(theirs - mine)


def is_served_by_others(slot: WorkerSlot) -> bool:
    """Return whether another worker of this run folder is ready."""
    folder = slot.run_dir / "worker_slots"
    return any(
        status.get("ready") is True and status.get("worker_slot") != slot.number
        for status in worker_slots.statuses(folder)
    )
