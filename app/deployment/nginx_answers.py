"""Counts the errors that nginx answered itself: no worker knows of them, so that they are in no worker's metrics.

nginx writes the status of each into a file, a line of four bytes, some of them at once. That costs nothing per request,
never makes nginx wait, and loses nothing while this process restarts; the reasons are in
docs/decisions/0035-what-no-worker-sees.md. What was counted, and how far the files were read, is one shared record.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from tableside.deployment.layout import ADMIN, DATA
from tableside.process import file_holes, shared_record
from tableside.process.shared_record import Record

PLANES = {DATA: "data", ADMIN: "control"}
"""The label of each plane."""
FILES = {plane: f"metrics/nginx-{label}.answers" for plane, label in PLANES.items()}
"""The file of each plane's nginx, in the run folder. Its folder is emptied when a stack starts."""
COUNTS = Path("metrics") / "nginx_answers.json"
OTHER = "other"
CODES = (
    "400", "405", "408", "413", "414", "429", "431", "499", "501", "502", "503", "504", "505", "507", OTHER,
)  # fmt: skip
"""The label of each status. 499: the client has closed the connection before there was an answer."""
MAX_BYTES = 1 << 16
"""A file that has been read to its end is emptied when it is larger. While nginx goes on to write, a look always finds
something new: then the space of what was read is given back instead, and no line is lost."""
LIMIT_BYTES = 1 << 26
"""A file that takes more space is emptied in any case, as where the file system cannot give back a part of it. Lines
that nginx writes at that moment are not counted."""
_READ_BYTES = 1 << 20
_BLOCK_BYTES = 512


def collect(run_dir: Path) -> None:
    """Count what nginx has written since the last call of any process. Never raises OSError."""
    known = shared_record.read(run_dir / COUNTS).get("read", {})
    places = {plane: _place(run_dir / file) for plane, file in FILES.items()}
    due = [plane for plane, at in places.items() if at and (at != known.get(PLANES[plane]) or at[1] > MAX_BYTES)]
    if due:
        shared_record.change(run_dir / COUNTS, lambda record: _count(record, run_dir, due))


def counts(run_dir: Path) -> dict[tuple[str, str], int]:
    """Return the counts by plane and code, with 0 for those that did not happen; empty if nginx was never started."""
    if not any((run_dir / file).exists() for file in FILES.values()):
        return {}
    counted = shared_record.read(run_dir / COUNTS).get("counts", {})
    return {(label, code): counted.get(label, {}).get(code, 0) for label in PLANES.values() for code in CODES}


def _place(file: Path) -> list[int] | None:
    """What differs when there is more to read: the file's number, and its size. None without a file."""
    try:
        status = file.stat()
    except OSError:
        return None
    return [status.st_ino, status.st_size]


def _count(record: Record, run_dir: Path, planes: Iterable[str]) -> bool:
    """Add what the files have beyond the places that were read. Returns whether anything has changed."""
    read, counted = record.setdefault("read", {}), record.setdefault("counts", {})
    before = [*map(str, (read, counted))]
    for plane in planes:
        label = PLANES[plane]
        with suppress(OSError):
            found, read[label] = _new_lines(run_dir / FILES[plane], read.get(label, [0, 0]))
            for code, count in found.items():
                counted.setdefault(label, {})[code] = counted.get(label, {}).get(code, 0) + count
    return before != [*map(str, (read, counted))]


def _new_lines(file: Path, place: list[int]) -> tuple[Mapping[str, int], list[int]]:
    """Return the counts of the lines after a place, and the new place. Raises OSError."""
    fd = os.open(file, os.O_RDWR | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        at = place[1] if place[0] == status.st_ino and place[1] <= status.st_size else 0
        if at == status.st_size and at > MAX_BYTES:
            os.ftruncate(fd, 0)  # nginx appends, wherever the end is
            return {}, [status.st_ino, 0]
        if at > MAX_BYTES:
            with suppress(OSError):
                file_holes.free_before(fd, at)
        found, at = _read(fd, at, status.st_size)
        if os.fstat(fd).st_blocks * _BLOCK_BYTES > LIMIT_BYTES:
            os.ftruncate(fd, 0)
            at = 0
    finally:
        os.close(fd)
    return found, [status.st_ino, at]


def _read(fd: int, at: int, end: int) -> tuple[Mapping[str, int], int]:
    """Return the counts of the whole lines between two places, and where the last one ends."""
    found: Counter[str] = Counter()
    while lines := os.pread(fd, min(_READ_BYTES, end - at), at):
        lines = lines[: lines.rfind(b"\n") + 1]
        if not lines:  # the rest of the line is still to come
            break
        at += len(lines)
        for word, count in Counter(lines.decode("ascii", errors="replace").split()).items():
            found[word if word in CODES else OTHER] += count
    return found, at
