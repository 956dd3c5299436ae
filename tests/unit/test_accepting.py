"""A worker accepts when it is ready, or at once if no other worker of the run folder is."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from gunicorn.config import Config

from tableside.process import worker_slots
from tableside.process.worker_slots import WorkerSlot
from tableside.server.accepting import AcceptingWorker, is_served_by_others


@pytest.fixture
def slots(tmp_path: Path) -> Iterator[tuple[WorkerSlot, WorkerSlot]]:
    """The slots of this worker and of another one."""
    made = [worker_slots.acquire(tmp_path / "worker_slots") for _ in range(2)]
    yield made[0], made[1]
    for slot in made:
        slot.release()


class Registry(SimpleNamespace):
    """A registry whose first load is over when the test says so."""

    is_complete: bool = False
    draining: bool = False

    def report_draining(self) -> None:
        """Nobody reads it."""


@pytest.fixture
def worker(slots: tuple[WorkerSlot, WorkerSlot]) -> Iterator[AcceptingWorker]:
    cfg = Config()
    cfg.set("timeout", 0)
    made = AcceptingWorker(1, os.getppid(), [], None, 0, cfg, None)
    made.slot = slots[0]
    made.wsgi = SimpleNamespace(extensions={"tableside": SimpleNamespace(registry=Registry())})
    yield made
    made.tmp.close()


def registry_of(worker: AcceptingWorker) -> Registry:
    registry: Registry = worker.wsgi.extensions["tableside"].registry
    return registry


def test_in_a_cold_start_a_worker_accepts_at_once(
    worker: AcceptingWorker, slots: tuple[WorkerSlot, WorkerSlot]
) -> None:
    """Other workers that load too do not count, and neither does this worker's own status."""
    slots[0].write_status({"ready": True})
    slots[1].write_status({"ready": False})
    assert not is_served_by_others(slots[0])
    gevent.spawn(worker.wait_for_turn).get(timeout=10)


def test_beside_a_ready_worker_it_waits_for_its_models(
    worker: AcceptingWorker, slots: tuple[WorkerSlot, WorkerSlot]
) -> None:
    """It goes on sending heartbeats, and accepts as soon as its first load is over."""
    slots[1].write_status({"ready": True})
    waiting = gevent.spawn(worker.wait_for_turn)
    gevent.sleep(0.1)
    assert not waiting.ready()
    registry_of(worker).is_complete = True
    waiting.get(timeout=10)


def test_it_sends_heartbeats_while_it_waits(
    worker: AcceptingWorker, slots: tuple[WorkerSlot, WorkerSlot], monkeypatch: pytest.MonkeyPatch
) -> None:
    """gunicorn kills a worker without heartbeats for 30 s, and a load may take longer than that."""
    monkeypatch.setattr("tableside.server.accepting.HEARTBEAT_S", 0.1)
    beats: list[float] = []
    monkeypatch.setattr(worker, "notify", lambda: beats.append(time.monotonic()))
    slots[1].write_status({"ready": True})
    waiting = gevent.spawn(worker.wait_for_turn)
    while len(beats) < 20:
        gevent.sleep(0.05)
        assert not waiting.ready()
    assert max(later - earlier for earlier, later in itertools.pairwise(beats)) < 5
    registry_of(worker).is_complete = True
    waiting.get(timeout=10)


@pytest.mark.parametrize("event", ["the other worker dies", "the other worker drains", "this worker is stopped"])
def test_it_does_not_wait_for_ever(worker: AcceptingWorker, slots: tuple[WorkerSlot, WorkerSlot], event: str) -> None:
    """It accepts when the last ready worker is gone, and ends when it is told to."""
    slots[1].write_status({"ready": True})
    waiting = gevent.spawn(worker.wait_for_turn)
    gevent.sleep(0.1)
    assert not waiting.ready()
    if event == "the other worker dies":
        slots[1].release()
    elif event == "the other worker drains":
        slots[1].write_status({"ready": False})
    else:
        worker.begin_drain()
    waiting.get(timeout=10)


@pytest.mark.parametrize("application", [SimpleNamespace(), SimpleNamespace(extensions={})])
def test_other_applications_do_not_wait(
    worker: AcceptingWorker, slots: tuple[WorkerSlot, WorkerSlot], application: object
) -> None:
    """A worker that serves another WSGI application has no models, and one without a slot knows no others."""
    slots[1].write_status({"ready": True})
    worker.wsgi = application
    worker.wait_for_turn()
    worker.slot = None
    worker.wait_for_turn()
