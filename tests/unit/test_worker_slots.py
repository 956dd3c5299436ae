"""Slots: held while their holder lives, free at once when it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tableside.process import worker_slots

ROOT = Path(__file__).parents[2]
HOLDER = """
import sys, time
from pathlib import Path
from tableside.process import worker_slots
slot = worker_slots.acquire(Path(sys.argv[1]))
slot.write_status({"pid": 1, "generation": 5})
print(slot.number, flush=True)
time.sleep(60)
"""


def test_the_lowest_free_slot_is_taken(tmp_path: Path) -> None:
    """Slots count from 0, and a released one is the next to be taken."""
    first, second = worker_slots.acquire(tmp_path), worker_slots.acquire(tmp_path)
    assert (first.number, second.number) == (0, 1)
    assert worker_slots.held(tmp_path) == {0, 1}
    first.release()
    assert worker_slots.held(tmp_path) == {1}
    again = worker_slots.acquire(tmp_path)
    assert again.number == 0
    again.release()
    second.release()


def test_a_status_is_its_holder_s(tmp_path: Path) -> None:
    """A status is shown while its slot is held, and the next holder does not inherit it."""
    slot = worker_slots.acquire(tmp_path / "worker_slots")
    assert worker_slots.statuses(tmp_path / "worker_slots") == [{"worker_slot": 0, "pid": os.getpid()}]
    slot.write_status({"generation": 3})
    assert worker_slots.statuses(tmp_path / "worker_slots") == [{"worker_slot": 0, "generation": 3}]
    slot.release()
    assert worker_slots.statuses(tmp_path / "worker_slots") == []
    again = worker_slots.acquire(tmp_path / "worker_slots")
    assert worker_slots.statuses(tmp_path / "worker_slots") == [{"worker_slot": 0, "pid": os.getpid()}]
    again.release()


def test_a_torn_status_is_no_status(tmp_path: Path) -> None:
    """A status file that is no JSON leaves only the slot's number."""
    slot = worker_slots.acquire(tmp_path)
    (tmp_path / "0.json").write_bytes(b'{"worker_slot": 0, "gen')
    assert worker_slots.statuses(tmp_path) == [{"worker_slot": 0}]
    slot.release()


def test_no_folder_holds_nothing(tmp_path: Path) -> None:
    """Where no worker ever ran, no slot is held."""
    assert worker_slots.held(tmp_path / "none") == set()
    assert worker_slots.statuses(tmp_path / "none") == []


@pytest.mark.processes
def test_a_killed_holder_frees_its_slot(tmp_path: Path) -> None:
    """SIGKILL frees a slot: the kernel drops the lock with the process."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True
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
