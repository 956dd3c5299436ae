"""Generations: numbered files that say a host's workers shall read the repository anew.

A number is published with link(2), which fails when it exists: two writers never share one, without a lock. Workers
poll; a worker born later starts from the newest.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import suppress
from pathlib import Path

import orjson

KEEP = 8


def newest(folder: Path) -> int:
    """The highest published generation; 0 when there is none yet."""
    try:
        return max((int(name[:-5]) for name in os.listdir(folder) if name.endswith(".json")), default=0)
    except FileNotFoundError:
        return 0


def publish(folder: Path, reason: str) -> int:
    """Publish the next generation and return its number. `reason` is kept in the file, for people."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{uuid.uuid4().hex}"
    try:
        while True:
            number = newest(folder) + 1
            draft.write_bytes(orjson.dumps({"generation": number, "reason": reason, "time": time.time()}))
            try:
                os.link(draft, folder / f"{number:010d}.json")
            except FileExistsError:
                continue
            if newest(folder) < number + KEEP:
                break
            # Others went so far ahead meanwhile that this number had been published and swept: it is not ours.
            (folder / f"{number:010d}.json").unlink(missing_ok=True)
    finally:
        draft.unlink(missing_ok=True)
    for old in sorted(folder.glob("*.json"))[:-KEEP]:
        with suppress(FileNotFoundError):
            old.unlink()
    return number
