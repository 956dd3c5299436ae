"""Starts and ends of workers are counted once each, whoever learns of them, and whatever becomes of the disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.process import shared_record, worker_lives
from tableside.process.worker_lives import Cause
from tests.small_disks import on_small_disks

ROOT = Path(__file__).parents[2]


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


def ends(run_dir: Path) -> dict[str, int]:
    return {cause.value: count for cause, count in worker_lives.counts(run_dir).ends.items() if count}


def test_an_end_counts_once(tmp_path: Path) -> None:
    """The worker counts it, or else the master: the one that comes second counts nothing."""
    worker_lives.began(tmp_path, 0, 100)
    worker_lives.began(tmp_path, 1, 101)
    assert worker_lives.ended(tmp_path, 100, 0, recycled=True) is Cause.RECYCLED
    assert worker_lives.ended(tmp_path, 100, "SIGKILL") is None
    assert worker_lives.ended(tmp_path, 101, "SIGKILL", recycled=True) is Cause.KILLED
    assert worker_lives.counts(tmp_path).starts == 2
    assert ends(tmp_path) == {"recycled": 1, "killed": 1}


def test_the_next_worker_of_a_slot_counts_an_end_that_nobody_has_counted(tmp_path: Path) -> None:
    """As after the death of a master and its workers; what was noted of the death is its cause."""
    for slot, pid in ((0, 100), (1, 101), (2, 102)):
        worker_lives.began(tmp_path, slot, pid)
    worker_lives.note(tmp_path, 101, Cause.CRASHED)
    worker_lives.note(tmp_path, 999, Cause.CRASHED)
    for slot, pid in ((0, 200), (1, 201)):
        worker_lives.began(tmp_path, slot, pid)
    assert worker_lives.counts(tmp_path).starts == 5
    assert ends(tmp_path) == {"killed": 1, "crashed": 1}


def test_a_missing_or_broken_file_counts_nothing(tmp_path: Path) -> None:
    """Counts begin anew, and nothing is raised."""
    assert worker_lives.counts(tmp_path).starts == 0
    assert worker_lives.ended(tmp_path, 1, 0) is None
    (tmp_path / worker_lives.FILE).write_bytes(b'{"starts":')
    assert worker_lives.counts(tmp_path).starts == 0
    worker_lives.began(tmp_path, 0, 100)
    assert worker_lives.counts(tmp_path).starts == 1


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
worker_lives.began(run_dir, 0, 100)
fill(run_dir)
worker_lives.began(run_dir, 1, 101)
assert worker_lives.ended(run_dir, 100, "SIGKILL") is worker_lives.Cause.KILLED
assert worker_lives.counts(run_dir).starts == 2
(run_dir / worker_lives.FILE).unlink()
fill(run_dir)
worker_lives.began(run_dir, 2, 102)
assert worker_lives.counts(run_dir).starts == 0
assert (run_dir / worker_lives.FILE).stat().st_size == 0
"""


@pytest.mark.processes
def test_a_full_disk_loses_no_count(tmp_path: Path) -> None:
    """A file that was made before has its space. One that cannot be made counts nothing, and ends no worker."""
    command = on_small_disks([sys.executable, "-c", ON_A_FULL_DISK, str(tmp_path)], {tmp_path: "1m"})
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [*sys.path, str(ROOT)]))}
    ended = subprocess.run(command, cwd=ROOT, env=environ, timeout=60, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
