"""A worker that has answered its number of requests ends when its successor is ready."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import gevent
import pytest
from gunicorn.config import Config

from tableside.process import worker_slots
from tableside.process.file_locks import is_locked
from tableside.server.recycling import LOCK, RecyclingWorker

LIMIT = 100


class Lines(list[str]):
    """A log that keeps what it is told."""

    def info(self, msg: str, *args: object) -> None:
        self.append(msg % args)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """The signals that are sent; none reaches a process."""
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr("tableside.server.recycling.os.kill", lambda pid, sign: signals.append((pid, sign)))
    return signals


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[RecyclingWorker]:
    """A worker that is ready, with one place in front of it for a sibling."""
    cfg = Config()
    cfg.set("timeout", 0)
    cfg.set("max_requests", LIMIT)
    made = RecyclingWorker(1, os.getppid(), [], None, 0, cfg, Lines())
    made.slot = worker_slots.acquire(tmp_path / "worker_slots")
    made.slot.write_status({"pid": 1, "ready": True, "instance_id": ""})
    made.wsgi = SimpleNamespace()
    yield made
    made.tmp.close()
    made.slot.release()


def settle() -> None:
    """Let the greenlets run through a few of their polls."""
    gevent.sleep(0.5)


def test_gunicorn_itself_never_ends_the_worker(worker: RecyclingWorker, sent: list[tuple[int, int]]) -> None:
    """gunicorn would end it after this request; below its limit the worker asks for nothing."""
    worker.nr = LIMIT - 1
    worker.notify()
    assert worker.max_requests == sys.maxsize
    assert (sent, worker.alive) == ([], True)


def test_it_is_ended_when_one_more_worker_is_ready(
    worker: RecyclingWorker, sent: list[tuple[int, int]], tmp_path: Path
) -> None:
    """One more worker is asked for once; when it is ready, the master is told to have one less."""
    worker.nr = LIMIT
    worker.notify()
    worker.notify()
    settle()
    assert sent == [(os.getppid(), signal.SIGTTIN)]
    successor = worker_slots.acquire(tmp_path / "worker_slots")
    successor.write_status({"pid": 2, "ready": False, "instance_id": ""})
    stranger = worker_slots.acquire(tmp_path / "worker_slots")
    stranger.write_status({"pid": 3, "ready": True, "instance_id": "another"})
    settle()
    assert len(sent) == 1
    successor.write_status({"pid": 2, "ready": True, "instance_id": ""})
    settle()
    assert sent[1:] == [(os.getppid(), signal.SIGTTOU)]
    assert is_locked(tmp_path / LOCK)
    worker.handle_exit(signal.SIGTERM, None)  # the master ends the oldest one, which is this one
    assert worker.is_recycled
    settle()
    assert not is_locked(tmp_path / LOCK)
    successor.release()
    stranger.release()


def test_one_that_was_not_the_oldest_asks_again(
    worker: RecyclingWorker, sent: list[tuple[int, int]], tmp_path: Path
) -> None:
    """The master ends the oldest worker; the one that asked still has to be replaced."""
    older = worker_slots.acquire(tmp_path / "worker_slots")
    older.write_status({"pid": 0, "ready": True, "instance_id": ""})
    worker.nr = LIMIT
    worker.notify()
    settle()
    successor = worker_slots.acquire(tmp_path / "worker_slots")
    successor.write_status({"pid": 2, "ready": True, "instance_id": ""})
    settle()
    older.release()
    settle()
    assert len(sent) == 2
    worker.notify()
    settle()
    assert sent[2:] == [(os.getppid(), signal.SIGTTIN)]
    worker.begin_drain()
    settle()
    successor.release()


def test_a_worker_that_is_asked_to_end_is_not_recycled(worker: RecyclingWorker) -> None:
    """While no worker is replaced, SIGTERM is a restart, or the end of the stack."""
    worker.handle_exit(signal.SIGTERM, None)
    assert (worker.alive, worker.is_recycled) == (False, False)


def test_a_worker_without_a_slot_drains(worker: RecyclingWorker, sent: list[tuple[int, int]], tmp_path: Path) -> None:
    """It has no status file, in which a successor could be seen; it ends as gunicorn's own workers do."""
    worker.nr = LIMIT
    worker.slot, slot = None, worker.slot
    worker.notify()
    settle()
    assert (sent, worker.alive, worker.is_recycled) == ([], False, True)
    worker.slot = slot
