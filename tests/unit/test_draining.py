"""A worker whose master has ended answers its requests before it ends itself."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from gunicorn.config import Config

from tableside.process import worker_slots
from tableside.process.file_locks import try_lock
from tableside.process.instance_names import GUARDIAN_LOCK, KEEPER_LOCK
from tableside.server.draining import HANG_GRACE_S, UNKEPT_S, DrainingWorker
from tableside.server.gunicorn_log import GunicornLog
from tableside.server.worker import TablesideWorker


class Lines(list[str]):
    """A log that keeps its warnings."""

    def warning(self, msg: str, *args: object) -> None:
        self.append(msg % args)


@pytest.fixture
def alarms(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The alarms that a worker sets; none of them reaches this process."""
    seconds: list[int] = []
    monkeypatch.setattr("signal.alarm", seconds.append)
    return seconds


MakeWorker = Callable[..., DrainingWorker]


@pytest.fixture
def make_worker() -> Iterator[MakeWorker]:
    """Makes workers whose master is the parent of this process, before they serve."""
    made: list[DrainingWorker] = []

    def make(timeout_s: int = 30, kind: type[DrainingWorker] = DrainingWorker) -> DrainingWorker:
        cfg = Config()
        cfg.set("timeout", timeout_s)
        worker = kind(1, os.getppid(), [], None, timeout_s, cfg, Lines())
        registry = SimpleNamespace(draining=False, report_draining=lambda: None)
        worker.wsgi = SimpleNamespace(extensions={"tableside": SimpleNamespace(registry=registry)})
        made.append(worker)
        return worker

    yield make
    for worker in made:
        worker.tmp.close()


def is_draining(worker: DrainingWorker) -> bool:
    draining: bool = worker.wsgi.extensions["tableside"].registry.draining
    return draining


def test_a_worker_serves_while_its_master_lives(make_worker: MakeWorker, alarms: list[int]) -> None:
    """A heartbeat with a living master changes neither readiness nor the worker's loop, and logs nothing."""
    worker = make_worker()
    worker.notify()
    assert worker.alive
    assert not is_draining(worker)
    assert worker.log == []


def test_a_worker_drains_when_its_master_has_ended(make_worker: MakeWorker, alarms: list[int]) -> None:
    """The next heartbeat reports not ready, ends the loop and logs one warning; later heartbeats log nothing more."""
    worker = make_worker()
    worker.ppid = -1
    worker.notify()
    worker.notify()
    assert not worker.alive
    assert is_draining(worker)
    assert worker.log == ["the master process has ended: draining this worker"]


def test_a_worker_that_hangs_is_ended_after_the_master_would(make_worker: MakeWorker, alarms: list[int]) -> None:
    """Each heartbeat restarts an alarm, which is later than gunicorn's own timeout; without timeout there is none."""
    worker = make_worker(timeout_s=30)
    worker.notify()
    worker.notify()
    assert alarms == [30 + HANG_GRACE_S] * 2
    make_worker(timeout_s=0).notify()
    assert len(alarms) == 2


def test_a_worker_without_a_master_serves_while_a_keeper_lives(
    make_worker: MakeWorker, alarms: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It drains UNKEPT_S after the end of keeper and guardian, which would replace it. It says each only once."""
    worker = make_worker()
    worker.slot = worker_slots.acquire(tmp_path / "worker_slots")
    worker.ppid = -1
    now_s = 1000.0
    monkeypatch.setattr("tableside.server.draining.time", SimpleNamespace(monotonic=lambda: now_s))
    for name, shared in ((KEEPER_LOCK, False), (GUARDIAN_LOCK, True)):
        lock = try_lock(tmp_path / name, shared=shared)
        assert lock is not None
        worker.notify()
        now_s += 10 * UNKEPT_S
        worker.notify()
        os.close(lock)
        assert worker.alive
    worker.notify()
    now_s += UNKEPT_S - 1
    worker.notify()
    assert worker.alive
    now_s += 1
    worker.notify()
    assert not worker.alive
    assert is_draining(worker)
    assert worker.log == [
        "the master process has ended: serving until another instance is ready",
        "the master process has ended: draining this worker",
    ]
    worker.slot.release()


@pytest.mark.parametrize("kind", [DrainingWorker, TablesideWorker])
def test_sigterm_drains(make_worker: MakeWorker, kind: type[DrainingWorker]) -> None:
    """SIGTERM reports not ready and ends the loop of the base class and of the whole worker class."""
    worker = make_worker(kind=kind)
    worker.handle_exit(signal.SIGTERM, None)
    assert not worker.alive
    assert is_draining(worker)


@pytest.mark.parametrize("application", [None, SimpleNamespace(), SimpleNamespace(extensions={})])
def test_other_applications_drain_too(make_worker: MakeWorker, application: object) -> None:
    """A worker that serves another WSGI application drains without an error."""
    worker = make_worker()
    worker.wsgi = application
    worker.begin_drain()
    assert not worker.alive


def test_a_worker_that_is_still_loading_drains_too(make_worker: MakeWorker) -> None:
    """SIGTERM may arrive before gunicorn has set `wsgi`."""
    worker = make_worker()
    del worker.wsgi
    worker.handle_exit(signal.SIGTERM, None)
    assert not worker.alive


@pytest.mark.parametrize(("accesslog", "lines"), [(None, 0), ("-", 1)])
def test_gunicorn_formats_an_access_log_line_only_on_request(
    monkeypatch: pytest.MonkeyPatch, accesslog: str | None, lines: int
) -> None:
    """Without the setting `accesslog` gunicorn's logger formats nothing; with it, one line for each request."""
    written: list[object] = []
    monkeypatch.setattr("gunicorn.glogging.Logger.access", lambda *args: written.append(args))
    cfg = Config()
    cfg.set("accesslog", accesslog)
    GunicornLog(cfg).access(None, None, {}, None)
    assert len(written) == lines
