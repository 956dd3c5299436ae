"""A worker slot is held while its worker lives, and free as soon as the worker has ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.process import worker_slots
from tests.small_disks import run_on_small_disk

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys
from pathlib import Path
from tableside.process import worker_slots
slot = worker_slots.acquire(Path(sys.argv[1]))
slot.write_status({"pid": 1, "generation": 5})
print(slot.number, flush=True)
sys.stdin.read()
"""


def test_the_lowest_free_slot_is_taken(tmp_path: Path) -> None:
    """Slots are numbered from 0, and the lowest released one is taken next."""
    first, second = worker_slots.acquire(tmp_path), worker_slots.acquire(tmp_path)
    assert (first.number, second.number) == (0, 1)
    assert worker_slots.held(tmp_path) == {0, 1}
    first.release()
    assert worker_slots.held(tmp_path) == {1}
    again = worker_slots.acquire(tmp_path)
    assert again.number == 0
    again.release()
    second.release()


def test_a_status_belongs_to_the_current_holder(tmp_path: Path) -> None:
    """A status is listed while its slot is held, and the next holder begins with a new one."""
    slot = worker_slots.acquire(tmp_path / "worker_slots")
    assert worker_slots.statuses(tmp_path / "worker_slots") == [{"worker_slot": 0, "pid": os.getpid()}]
    slot.write_status({"generation": 3})
    assert worker_slots.statuses(tmp_path / "worker_slots") == [{"worker_slot": 0, "generation": 3}]
    slot.release()
    assert worker_slots.statuses(tmp_path / "worker_slots") == []
    again = worker_slots.acquire(tmp_path / "worker_slots")
    assert worker_slots.statuses(tmp_path / "worker_slots") == [{"worker_slot": 0, "pid": os.getpid()}]
    again.release()


def test_a_broken_status_file_is_ignored(tmp_path: Path) -> None:
    """If a status file is not JSON or is missing, the status has only the slot's number."""
    slot = worker_slots.acquire(tmp_path)
    (tmp_path / "0.json").write_bytes(b'{"worker_slot": 0, "gen')
    assert worker_slots.statuses(tmp_path) == [{"worker_slot": 0}]
    (tmp_path / "0.json").unlink()
    assert worker_slots.statuses(tmp_path) == [{"worker_slot": 0}]
    slot.release()


def test_statuses_are_ordered_by_slot(tmp_path: Path) -> None:
    """Slot 10 comes after slot 2, and no temporary file of a status is left."""
    slots = [worker_slots.acquire(tmp_path) for _ in range(11)]
    for slot in slots:
        slot.write_status({"generation": slot.number})
    assert [status["generation"] for status in worker_slots.statuses(tmp_path)] == list(range(11))
    assert not list(tmp_path.glob("*.tmp"))
    for slot in slots:
        slot.release()


def test_a_second_release_closes_nothing(tmp_path: Path) -> None:
    """The number of the closed descriptor may belong to another file by then, which must stay open."""
    slot = worker_slots.acquire(tmp_path)
    slot.release()
    with (tmp_path / "other").open("wb") as other:  # gets the lowest free descriptor, which the slot had
        slot.release()
        other.write(b"still open")
    assert (tmp_path / "other").read_bytes() == b"still open"


def test_no_slot_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If all slots are held, the error names the folder, the limit and what to do."""
    monkeypatch.setattr(worker_slots, "MAX_WORKER_SLOTS", 2)
    slots = [worker_slots.acquire(tmp_path) for _ in range(2)]
    with pytest.raises(OSError, match="all 2 worker slots are held. Stop other workers") as refused:
        worker_slots.acquire(tmp_path)
    assert str(tmp_path) in str(refused.value)
    for slot in slots:
        slot.release()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A file in place of the folder raises OSError."""
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match="file"):
        worker_slots.acquire(tmp_path / "file")


ON_A_FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from tableside.process import worker_slots
from tests.small_disks import fill
folder = Path(sys.argv[1])
first = worker_slots.acquire(folder)
assert first.write_status({"generation": 1, "models": ["x" * 100] * 20})
fill(folder)
assert first.write_status({"generation": 2}), "the file is written over in place"
assert worker_slots.statuses(folder) == [{"worker_slot": 0, "generation": 2}]
assert not first.write_status({"models": ["x" * 100] * 1000})
assert worker_slots.statuses(folder) == [{"worker_slot": 0, "generation": 2}], "what has no room changes nothing"
first.release()
subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
again = worker_slots.acquire(folder)
assert again.number == 0
assert not again.write_status({"generation": 3})
assert worker_slots.held(folder) == {0}
try:
    worker_slots.acquire(folder)
except OSError as problem:
    print("no further slot:", problem.strerror)
slot = worker_slots.unlisted()
assert not slot.write_status({"generation": 3})
assert slot.number == os.getpid()
slot.release()
"""


@pytest.mark.processes
def test_a_disk_that_cannot_be_written_stops_no_worker(tmp_path: Path) -> None:
    """On a full disk a status is written over in place; slots of before are taken on a read-only file system too."""
    ended = run_on_small_disk(ON_A_FULL_DISK, tmp_path, "64k")
    assert (ended.returncode, ended.stdout) == (0, "no further slot: No such file or directory\n"), ended.stderr


RESERVED_BEFORE_A_FULL_DISK = """
import sys
from pathlib import Path
from tableside.process import worker_slots
from tests.small_disks import fill
folder = Path(sys.argv[1])
worker_slots.reserve(folder, 2)
fill(folder)
slots = [worker_slots.acquire(folder) for _ in range(2)]
status = {"models": ["x" * 100] * 1000}
assert [slot.write_status(status) for slot in slots] == [True, True]
assert worker_slots.statuses(folder) == [{"worker_slot": number, **status} for number in range(2)]
worker_slots.reserve(folder, 3)
assert worker_slots.statuses(folder)[1]["models"] == status["models"], "what is there stays"
"""


@pytest.mark.processes
def test_reserved_slots_can_be_taken_on_a_full_disk(tmp_path: Path) -> None:
    """Each has room for the status of a worker with hundreds of versions."""
    ended = run_on_small_disk(RESERVED_BEFORE_A_FULL_DISK, tmp_path, "1m")
    assert ended.returncode == 0, ended.stderr


def test_a_missing_folder_has_no_slots(tmp_path: Path) -> None:
    """Before the first worker starts, no slot is held and there is no status."""
    assert worker_slots.held(tmp_path / "none") == set()
    assert worker_slots.statuses(tmp_path / "none") == []


@pytest.mark.processes
def test_a_killed_worker_frees_its_slot(tmp_path: Path) -> None:
    """After SIGKILL the kernel has released the lock, and the slot can be taken."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "0\n"
        assert worker_slots.statuses(tmp_path) == [{"worker_slot": 0, "pid": 1, "generation": 5}]
        other = worker_slots.acquire(tmp_path)
        assert other.number == 1
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert worker_slots.held(tmp_path) == {1}
    mine = worker_slots.acquire(tmp_path)
    assert mine.number == 0
    mine.release()
    other.release()
