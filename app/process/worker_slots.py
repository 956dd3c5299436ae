"""Worker slots: numbered places for worker processes, each held by a lock on a file.

The kernel frees a slot when its worker ends, even by SIGKILL. Metric files are named after the slot instead of the
process id, so that there are few of them and counters never decrease. A status file is valid only while its slot is
held.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import orjson

from tableside.process.file_locks import try_lock

MAX_WORKER_SLOTS = 4096


class WorkerSlot:
    """A slot that this process holds until `release` or its end."""

    def __init__(self, number: int, folder: Path, fd: int) -> None:
        self.number = number
        self._folder = folder
        self._fd: int | None = fd

    def write_status(self, status: dict[str, object]) -> None:
        """Replace the slot's status file atomically. status: what JSON can express; the slot's number is added."""
        target = self._folder / f"{self.number}.json"
        temporary = target.with_suffix(".tmp")
        temporary.write_bytes(orjson.dumps({"worker_slot": self.number, **status}))
        temporary.replace(target)

    def release(self) -> None:
        """Free the slot. The end of the process does the same. A second call has no effect."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def acquire(folder: Path) -> WorkerSlot:
    """Take the lowest free slot in `folder`, which is made if it is missing.

    Raises OSError if the folder cannot be written or all slots are held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(MAX_WORKER_SLOTS):
        fd = try_lock(folder / f"{number}.lock")
        if fd is None:
            continue
        slot = WorkerSlot(number, folder, fd)
        slot.write_status({"pid": os.getpid()})  # replaces the status of the last holder
        return slot
    raise OSError(f"{folder}: all {MAX_WORKER_SLOTS} worker slots are held. Stop other workers of this run folder")


def _is_held(lock: Path) -> bool:
    try:
        fd = os.open(lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        # A shared lock: with an exclusive one, two processes that check at once would see each other as the holder.
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def held(folder: Path) -> set[int]:
    """Return the numbers of the slots that are held. A missing folder has none."""
    return {int(lock.stem) for lock in folder.glob("*.lock") if _is_held(lock)}


def statuses(folder: Path) -> list[dict[str, object]]:
    """Return the last status of each living worker, ordered by slot.

    If a status file cannot be read, the status has only the slot's number.
    """
    found: list[dict[str, object]] = []
    for number in sorted(held(folder)):
        try:
            found.append(orjson.loads((folder / f"{number}.json").read_bytes()))
        except (OSError, orjson.JSONDecodeError):
            found.append({"worker_slot": number})
    return found
