"""Generations: numbered files in the run folder; a new one makes all workers of the host read the repository again.

A number is published with link(2), which fails if the file exists, so that two writers never publish the same number
and need no lock. Workers poll the folder; a new worker starts with the highest number.
"""

from __future__ import annotations

import errno
import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

import orjson

from tableside.errors import ModelNotReady
from tableside.process import worker_slots

KEEP = 8
"""How many files stay in the folder."""


def newest(folder: Path) -> int:
    """Return the highest published number; 0 if there is no file or no folder."""
    try:
        return max((int(name[:-5]) for name in os.listdir(folder) if name.endswith(".json")), default=0)
    except FileNotFoundError:
        return 0


def publish(folder: Path, reason: str) -> int:
    """Publish the next generation and return its number.

    reason: a sentence for the operator; the file keeps it, unless the disk is full. Files beyond the newest KEEP are
    removed. Raises OSError if no file can be made in the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{uuid.uuid4().hex}"
    try:
        while True:
            number = newest(folder) + 1
            _write(draft, orjson.dumps({"generation": number, "reason": reason, "time": time.time()}))
            try:
                os.link(draft, folder / f"{number:010d}.json")
            except FileExistsError:
                continue
            if newest(folder) < number + KEEP:
                break
            # Other writers published KEEP numbers in between, and this number had been used and removed before.
            (folder / f"{number:010d}.json").unlink(missing_ok=True)
    finally:
        draft.unlink(missing_ok=True)
    for old in sorted(folder.glob("*.json"))[:-KEEP]:
        with suppress(FileNotFoundError):
            old.unlink()
    return number


def wait_for_generation(run_dir: Path, generation: int, timeout_s: float) -> tuple[bool, list[dict[str, object]]]:
    """Wait up to `timeout_s` until every worker serves `generation`.

    Returns whether they all do, and the content of their status files.
    """
    give_up_at_s = time.monotonic() + timeout_s
    while True:
        workers = worker_slots.statuses(run_dir / "worker_slots")
        done = bool(workers) and all(_number(worker.get("generation")) >= generation for worker in workers)
        if done or time.monotonic() >= give_up_at_s:
            return done, workers
        time.sleep(0.02)


def _number(value: object) -> int:
    return value if isinstance(value, int) else -1


def announce(folder: Path, reason: str) -> int:
    """Do as `publish`, but raise ModelNotReady with what to do if the folder cannot be written."""
    try:
        return publish(folder, reason)
    except OSError as problem:
        raise ModelNotReady(
            f"cannot tell the workers: {folder} cannot be written ({problem.strerror or problem}). Make room on disk, "
            "or give the server's user write access, then try again"
        ) from problem


def _write(draft: Path, content: bytes) -> None:
    """Write the file, or leave it empty on a full disk: workers read the numbers in the names only."""
    try:
        draft.write_bytes(content)
    except OSError as problem:
        if problem.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        draft.write_bytes(b"")
