"""Before the stack ends, readiness answers 503: a process announces the end, and every worker sees it at once."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tableside.process import lame_duck
from tests.waiting import wait_until


def test_the_end_is_announced_until_the_lock_is_released(tmp_path: Path) -> None:
    """Every reader sees the announcement until its descriptor is closed; without the file there is none."""
    assert not lame_duck.is_announced(tmp_path / "missing")
    assert not lame_duck.is_announced(tmp_path)
    descriptor = lame_duck.announce(tmp_path)
    assert lame_duck.is_announced(tmp_path)
    os.close(descriptor)
    assert not lame_duck.is_announced(tmp_path)


def test_a_file_that_exists_is_enough(tmp_path: Path) -> None:
    """The file is locked, not written: a full disk or one that is read-only does not matter."""
    path = tmp_path / lame_duck.LOCK
    path.touch(mode=0o400)
    descriptor = lame_duck.announce(tmp_path)
    assert lame_duck.is_announced(tmp_path)
    os.close(descriptor)
    assert path.stat().st_size == 0


@pytest.mark.no_greenlets  # the readers never yield
def test_readers_do_not_hinder_the_announcement(tmp_path: Path) -> None:
    """Probes that read the state at the same moment delay an announcement, and do not take each other for one."""
    (tmp_path / lame_duck.LOCK).touch()
    stop, seen = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            seen.append(lame_duck.is_announced(tmp_path))

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    assert wait_until(lambda: len(seen) > 100)
    assert not any(seen)
    for _ in range(20):
        os.close(lame_duck.announce(tmp_path))
    stop.set()
    for reader in readers:
        reader.join(10)


def test_two_processes_cannot_both_announce(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one gets an OSError with the path, after a short wait."""
    monkeypatch.setattr(lame_duck, "_GIVE_UP_S", 0.05)
    descriptor = lame_duck.announce(tmp_path)
    with pytest.raises(OSError, match="lame_duck.lock is locked by another process"):
        lame_duck.announce(tmp_path)
    os.close(descriptor)


@pytest.mark.processes
def test_a_killed_process_announces_nothing(tmp_path: Path) -> None:
    """The announcement ends with the process that made it, even by SIGKILL: the stack is ready again."""
    code = (
        "import sys, pathlib; from tableside.process import lame_duck; "
        "descriptor = lame_duck.announce(pathlib.Path(sys.argv[1])); print(flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert lame_duck.is_announced(tmp_path)
        process.kill()
    assert not lame_duck.is_announced(tmp_path)
