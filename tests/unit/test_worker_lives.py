"""Starts and ends of workers are counted once each, whoever learns of them, and whatever becomes of the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.process import shared_record, worker_lives
from tableside.process.worker_lives import Cause
from tests.small_disks import run_on_small_disk

NOW_S = 1000.0
GONE = 2**22 + 1
"""A pid that no process has: it is above the kernel's limit."""


@pytest.mark.parametrize(
    ("ending", "is_overdue", "noted", "cause"),
    [
        (0, False, "", Cause.STOPPED),
        (3, False, "", Cause.FAILED),
        (-1, False, "", Cause.FAILED),
        ("SIGTERM", False, "", Cause.STOPPED),
        ("SIGKILL", False, "", Cause.KILLED),
        ("SIGKILL", False, "memory", Cause.MEMORY),
        ("SIGKILL", True, "", Cause.TIMEOUT),
        ("SIGABRT", True, "crashed", Cause.TIMEOUT),
        ("SIGABRT", False, "crashed", Cause.CRASHED),
        ("SIGALRM", False, "", Cause.TIMEOUT),
        ("SIGSEGV", False, "", Cause.CRASHED),
        ("SIGSEGV", False, "memory", Cause.CRASHED),
        ("SIGBUS", True, "", Cause.CRASHED),
        ("SIGUSR2", False, "", Cause.KILLED),
    ],
)
def test_the_cause_follows_from_how_the_worker_ended(
    ending: int | str, is_overdue: bool, noted: str, cause: Cause
) -> None:
    """A SIGKILL is the OOM killer's only if the kernel says so, and gunicorn's if it had missed the heartbeat."""
    assert worker_lives.cause_of(ending, is_overdue, noted) is cause


def ends(run_dir: Path, now_s: float = NOW_S) -> dict[str, int]:
    return {cause.value: count for cause, count in worker_lives.counts(run_dir, now_s).ends.items() if count}


def test_an_end_counts_once(tmp_path: Path) -> None:
    """The worker counts it, or else the master: the one that comes second counts nothing."""
    worker_lives.began(tmp_path, 100, NOW_S)
    worker_lives.began(tmp_path, 101, NOW_S)
    assert worker_lives.ended(tmp_path, 100, 0, recycled=True) == (Cause.RECYCLED, None)
    assert worker_lives.ended(tmp_path, 100, "SIGKILL") is None
    worker_lives.note(tmp_path, 101, None, 3)
    assert worker_lives.ended(tmp_path, 101, "SIGKILL", recycled=True) == (Cause.KILLED, 3)
    assert worker_lives.counts(tmp_path, NOW_S).starts == 2
    assert ends(tmp_path) == {"recycled": 1, "killed": 1}


def test_an_end_that_no_master_counts_is_counted_later(tmp_path: Path) -> None:
    """As after the death of a master and its workers. A master that is only slow still says why, within its time."""
    alive = subprocess.Popen(["sleep", "60"])
    worker_lives.began(tmp_path, GONE, NOW_S)
    worker_lives.began(tmp_path, GONE + 1, NOW_S)
    worker_lives.began(tmp_path, GONE + 2, NOW_S)
    worker_lives.note(tmp_path, GONE + 1, Cause.CRASHED, 2)
    worker_lives.note(tmp_path, 999, Cause.CRASHED, 1)
    worker_lives.began(tmp_path, alive.pid, NOW_S)
    assert ends(tmp_path, NOW_S + worker_lives.MASTER_S) == {}
    assert worker_lives.ended(tmp_path, GONE + 2, "SIGABRT", is_overdue=True) == (Cause.TIMEOUT, None)
    later_s = NOW_S + worker_lives.MASTER_S + 1
    expected = {"timeout": 1, "killed": 1, "crashed": 1}
    assert ends(tmp_path, later_s) == expected
    worker_lives.began(tmp_path, GONE + 3, later_s)
    assert ends(tmp_path, later_s) == expected
    assert worker_lives.ended(tmp_path, GONE, "SIGKILL") is None
    assert worker_lives.ended(tmp_path, alive.pid, 0) == (Cause.STOPPED, None)
    assert worker_lives.counts(tmp_path, later_s).starts == 5
    alive.kill()
    alive.wait()


def test_a_pid_that_is_given_again_is_another_worker(tmp_path: Path) -> None:
    """The end of the first one counts when the second starts."""
    worker_lives.began(tmp_path, GONE, NOW_S)
    worker_lives.began(tmp_path, GONE, NOW_S)
    assert (worker_lives.counts(tmp_path, NOW_S).starts, ends(tmp_path)) == (2, {"killed": 1})


def test_a_missing_or_broken_file_counts_nothing(tmp_path: Path) -> None:
    """Counts begin anew, and nothing is raised."""
    assert worker_lives.counts(tmp_path, NOW_S).starts == 0
    assert worker_lives.ended(tmp_path, 1, 0) is None
    (tmp_path / worker_lives.FILE).write_bytes(b'{"starts":')
    assert worker_lives.counts(tmp_path, NOW_S).starts == 0
    worker_lives.began(tmp_path, 100, NOW_S)
    assert worker_lives.counts(tmp_path, NOW_S).starts == 1


COUNT = """
import sys
from pathlib import Path
from tableside.process import shared_record

def change(record):
    record["count"] = record.get("count", 0) + 1
    return True

for _ in range(200):
    assert shared_record.change(Path(sys.argv[1]), change)
"""


@pytest.mark.processes
def test_no_change_of_several_processes_is_lost(tmp_path: Path) -> None:
    """Three processes count in one file."""
    file = tmp_path / "metrics" / "counts.json"
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    counting = [subprocess.Popen([sys.executable, "-c", COUNT, str(file)], env=environ) for _ in range(3)]
    assert [each.wait(60) for each in counting] == [0, 0, 0]
    assert shared_record.read(file) == {"count": 600}
    assert file.stat().st_size == shared_record.RESERVED_BYTES


def test_a_record_grows(tmp_path: Path) -> None:
    """It may become longer than the space that was reserved first, and shorter again."""
    file = tmp_path / "record.json"
    for words in (["a"], ["a" * 10_000], []):

        def change(record: shared_record.Record, words: list[str] = words) -> bool:
            record["words"] = words
            return True

        assert shared_record.change(file, change)
        assert shared_record.read(file) == {"words": words}


ON_A_FULL_DISK = """
import sys
from pathlib import Path
from tableside.process import worker_lives
from tests.small_disks import fill
run_dir = Path(sys.argv[1])
worker_lives.began(run_dir, 100, 0.0)
fill(run_dir)
worker_lives.began(run_dir, 101, 0.0)
assert worker_lives.ended(run_dir, 100, "SIGKILL").cause is worker_lives.Cause.KILLED
assert worker_lives.counts(run_dir, 0.0).starts == 2
(run_dir / worker_lives.FILE).unlink()
fill(run_dir)
worker_lives.began(run_dir, 102, 0.0)
assert worker_lives.counts(run_dir, 0.0).starts == 0
assert (run_dir / worker_lives.FILE).stat().st_size == 0
"""


@pytest.mark.processes
def test_a_full_disk_loses_no_count(tmp_path: Path) -> None:
    """A file that was made before has its space. One that cannot be made counts nothing, and ends no worker."""
    ended = run_on_small_disk(ON_A_FULL_DISK, tmp_path, "1m")
    assert ended.returncode == 0, ended.stderr
