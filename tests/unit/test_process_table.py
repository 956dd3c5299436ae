"""Processes are found by command line and environment, and a pid that another process has got is not signalled."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tableside.deployment import instances
from tableside.deployment.instances import Instance
from tableside.deployment.releases import Release
from tableside.process import process_table
from tableside.process.process_table import Process
from tests.waiting import wait_until

pytestmark = pytest.mark.processes
MASTER = """
import os, sys, time
if os.fork() == 0:
    time.sleep(60)
    os._exit(0)
time.sleep(60)
"""
"""A process that looks like a gunicorn master with one worker."""


@pytest.fixture
def master(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    environ = {**os.environ, "TABLESIDE_RUN_DIR": str(tmp_path), "TABLESIDE_INSTANCE_ID": "7-a"}
    started = subprocess.Popen([sys.executable, "-c", MASTER, "gunicorn"], env=environ, start_new_session=True)
    yield started
    with suppress(ProcessLookupError):  # a test may have ended both
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def test_an_instance_is_its_master_and_its_workers(master: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """The master leads a session of its own; the process that it has forked is its worker."""
    assert wait_until(lambda: [each.workers for each in instances.find(tmp_path).values()] not in ([], [()]))
    (found,) = instances.find(tmp_path).values()
    assert found.name == "7-a"
    assert found.master is not None
    assert found.master.pid == master.pid
    assert len(found.workers) == 1
    assert instances.find(tmp_path / "other") == {}


def test_a_link_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    """An instance knows the folder that it was started in, and the link by which the operator named it."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    link = tmp_path / "current"
    link.symlink_to(tmp_path / "one")
    release = Release(str(link), "python")
    instance = Instance("a", "", None, (), os.path.realpath(link), release)
    assert instance.flipped_release is None
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert instance.flipped_release == release
    assert Instance("a", "", None, ()).flipped_release is None


def test_workers_without_a_master_are_found_and_ended(master: subprocess.Popen[bytes], tmp_path: Path) -> None:
    """After SIGKILL of the master the instance has no master; SIGTERM then goes to the workers."""
    assert wait_until(lambda: instances.find(tmp_path) and instances.find(tmp_path)["7-a"].workers)
    master.kill()
    master.wait()
    orphaned = instances.find(tmp_path)["7-a"]
    assert orphaned.master is None
    assert len(orphaned.workers) == 1
    orphaned.terminate()
    assert wait_until(lambda: not instances.find(tmp_path))


def test_an_ended_process_is_not_alive_before_it_is_waited_for() -> None:
    """A zombie still has its pid, but counts as ended."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    process = Process(child.pid, process_table.started(child.pid))
    assert process.started > 0
    assert wait_until(lambda: not process_table.is_alive(process))
    assert not process_table.send(process, signal.SIGTERM)
    child.wait()
    assert not process_table.is_alive(process)
    assert not process_table.send(process, signal.SIGTERM)


def test_a_reused_pid_is_not_signalled() -> None:
    """A process with the same pid and another start time gets nothing."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        then = process_table.started(child.pid)
        assert not process_table.send(Process(child.pid, then - 1), signal.SIGKILL)
        assert child.poll() is None
        assert process_table.send(Process(child.pid, then), signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL


def test_without_pidfd_a_signal_is_sent_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Old kernels and some sandboxes have no pidfd_open(2)."""

    def missing(pid: int) -> int:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", missing)
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as child:
        process = Process(child.pid, process_table.started(child.pid))
        assert process_table.send(process, signal.SIGKILL)
        assert child.wait() == -signal.SIGKILL
