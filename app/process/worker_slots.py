"""Numbered places for worker processes, held by `flock`.

The kernel frees a slot on any death of its holder, SIGKILL included. Metric files carry the slot's number instead of
the pid, so their count stays bounded and counters never go back; a worker's status is believed only while its slot is
held.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

import orjson

from tableside.process.file_locks import try_lock

MAX_WORKER_SLOTS = 4096


class WorkerSlot:
    """One held place. Keep the object: the lock goes when its file is closed."""

    def __init__(self, number: int, folder: Path, fd: int) -> None:
        self.number = number
        self._folder = folder
        self._fd = fd

    def write_status(self, status: dict[str, object]) -> None:
        """Replace this slot's status file atomically."""
        target = self._folder / f"{self.number}.json"
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(orjson.dumps({"worker_slot": self.number, **status}))
        temporary.replace(target)

    def release(self) -> None:
        """Give the place back (a death does the same)."""
        with suppress(OSError):
            os.close(self._fd)


def acquire(folder: Path) -> WorkerSlot:
    """Take the lowest free slot below `folder`. Raises OSError when the folder cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(MAX_WORKER_SLOTS):
        fd = try_lock(folder / f"{number}.lock")
        if fd is None:
            continue
        slot = WorkerSlot(number, folder, fd)
        slot.write_status({"pid": os.getpid()})  # what the last holder said is not true of us
        return slot
    raise OSError(f"{folder}: all {MAX_WORKER_SLOTS} slots are held")


def _is_held(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # Shared, so that two readers who look at once do not take each other for a holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def held(folder: Path) -> set[int]:
    """Numbers of the slots whose holder lives."""
    return {int(lock.stem) for lock in folder.glob("*.lock") if _is_held(lock)}


def statuses(folder: Path) -> list[dict[str, object]]:
    """What each living worker last said of itself, by slot number."""
    found: list[dict[str, object]] = []
    for number in sorted(held(folder)):
        try:
            found.append(orjson.loads((folder / f"{number}.json").read_bytes()))
        except (OSError, orjson.JSONDecodeError):
            found.append({"worker_slot": number})
    return found
