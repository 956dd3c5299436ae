"""Worker slots: numbered places for worker processes, each held by a lock on a file.

The kernel frees a slot when its worker ends, even by SIGKILL. Metric files are named after the slot instead of the
process id, so that there are few of them and counters never decrease. A status file is valid only while its slot is
held.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import orjson

from tableside.process.file_locks import is_locked, try_lock

MAX_WORKER_SLOTS = 4096
_PAGE_BYTES = 4096
RESERVED_BYTES = 1 << 17
"""Space of a status file that is reserved: a version takes some 150 bytes."""
_ATTEMPTS = 3
"""A file that is written over in place, as on a full disk, may be read while it is half new."""


class WorkerSlot:
    """A slot that this process holds until `release` or its end."""

    def __init__(self, number: int, folder: Path, fd: int | None) -> None:
        self.number = number
        self._folder = folder
        self._fd = fd

    def write_status(self, status: dict[str, object]) -> bool:
        """Replace the slot's status file. status: what JSON can express; the slot's number is added.

        Return whether it was written. Never raises OSError: a worker serves also where nothing can be written.
        The file is replaced atomically; on a full disk it is written over in place, in the space that it has.
        """
        if self._fd is None:
            return False
        target = self._folder / f"{self.number}.json"
        temporary = target.with_suffix(".tmp")
        content = orjson.dumps({"worker_slot": self.number, **status})
        try:
            temporary.write_bytes(content.ljust(_room_for(len(content))))
            temporary.replace(target)
        except OSError:
            with suppress(OSError):
                temporary.unlink()
            return _overwrite(target, content)
        return True

    @property
    def is_listed(self) -> bool:
        """Whether it is a slot of the run folder, which others see (`unlisted`)."""
        return self._fd is not None

    @property
    def run_dir(self) -> Path:
        """The run folder that the slot belongs to."""
        return self._folder.parent

    def release(self) -> None:
        """Free the slot. The end of the process does the same. A second call has no effect."""
        fd, self._fd = self._fd, None
        if fd is not None:
            os.close(fd)


def _room_for(size: int) -> int:
    """Return the size of a status file with this content: some kB more, so that it can be written over later."""
    return (size // _PAGE_BYTES + 2) * _PAGE_BYTES


def _overwrite(file: Path, content: bytes) -> bool:
    """Write over a file in place, filled up with spaces. Return False if it is missing or too small."""
    try:
        fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        size = os.fstat(fd).st_size
        return len(content) <= size and os.pwrite(fd, content.ljust(size), 0) == size
    except OSError:
        return False
    finally:
        os.close(fd)


def reserve(folder: Path, count: int) -> None:
    """Make the files of the first `count` slots, with space for a status each, so that a full disk lacks none later.

    Files that exist stay as they are. Where nothing can be written, nothing is reserved.
    """
    with suppress(OSError):
        for number in range(count):
            os.close(os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            with suppress(FileExistsError):
                fd = os.open(folder / f"{number}.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(fd, 0, RESERVED_BYTES)
                finally:
                    os.close(fd)


def acquire(folder: Path) -> WorkerSlot:
    """Take the lowest free slot in `folder`, which is made if it is missing.

    Raises OSError if a file can neither be made nor opened, or all slots are held.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(MAX_WORKER_SLOTS):
        fd = _try_lock(folder / f"{number}.lock")
        if fd is None:
            continue
        slot = WorkerSlot(number, folder, fd)
        if not slot.write_status({"pid": os.getpid()}):  # replaces the status of the last holder
            with suppress(OSError):
                (folder / f"{number}.json").unlink()
        return slot
    raise OSError(f"{folder}: all {MAX_WORKER_SLOTS} worker slots are held. Stop other workers of this run folder")


def unlisted() -> WorkerSlot:
    """Return a slot that is not one: it is not listed, has no status, and its number is the process id.

    A worker that finds no slot takes this one and serves all the same.
    """
    return WorkerSlot(os.getpid(), Path(), None)


def _try_lock(lock: Path) -> int | None:
    try:
        return try_lock(lock)
    except OSError:  # a lock of before can be taken on a file system that can no longer be written
        return try_lock(lock, os.O_RDONLY | os.O_CLOEXEC)


def held(folder: Path) -> set[int]:
    """Return the numbers of the slots that are held. A missing folder has none."""
    return {int(lock.stem) for lock in folder.glob("*.lock") if is_locked(lock)}


def statuses(folder: Path) -> list[dict[str, object]]:
    """Return the last status of each living worker, ordered by slot.

    If a status file cannot be read, the status has only the slot's number.
    """
    return [_read(folder, number) for number in sorted(held(folder))]


def _read(folder: Path, number: int) -> dict[str, object]:
    for _ in range(_ATTEMPTS):
        with suppress(OSError, orjson.JSONDecodeError):
            status: dict[str, object] = orjson.loads((folder / f"{number}.json").read_bytes())
            return status
    return {"worker_slot": number}
