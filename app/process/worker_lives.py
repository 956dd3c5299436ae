"""Counts how workers start and end, over all gunicorn masters of a run folder.

A worker counts its start, and its own end if it ends in good order. gunicorn's master counts the end of one that was
killed, when it learns of it. Where the master has died too, the worker that takes the slot next does. Whoever comes
second finds that the worker is counted already.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tableside.process import shared_record
from tableside.process.shared_record import Record

FILE = Path("metrics") / "workers.json"
"""In the run folder. The folder is emptied when a stack starts: the counts begin anew then."""
_STARTS, _ENDS, _ALIVE = "starts", "ends", "alive"


class Cause(StrEnum):
    """Why a worker has ended.

    STOPPED: it was asked to: restart, reload, the end of the stack. RECYCLED: another worker has replaced it, see
    `tableside.server.recycling`. TIMEOUT: it had no heartbeat. MEMORY: the OOM killer. KILLED: SIGKILL by somebody
    else. CRASHED: a fatal signal. FAILED: an exit code other than 0.
    """

    STOPPED = "stopped"
    RECYCLED = "recycled"
    TIMEOUT = "timeout"
    MEMORY = "memory"
    KILLED = "killed"
    CRASHED = "crashed"
    FAILED = "failed"


_ASKED = frozenset(("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP"))
"""Signals that end a worker before it has its handlers for them."""
_CRASHES = frozenset(("SIGSEGV", "SIGBUS", "SIGABRT", "SIGFPE", "SIGILL", "SIGSYS", "SIGTRAP"))


class Counts(NamedTuple):
    """How many workers have started, and how many have ended for each cause."""

    starts: int
    ends: Mapping[Cause, int]


def cause_of(ending: int | str, is_overdue: bool = False, noted: str = "") -> Cause:
    """Return why a worker has ended.

    ending: its exit code, or the name of the signal that ended it. is_overdue: whether gunicorn had missed its
    heartbeat. noted: what `note` was told.
    """
    if isinstance(ending, int):
        return Cause.FAILED if ending else Cause.STOPPED
    if ending == "SIGALRM" or (is_overdue and ending in ("SIGABRT", "SIGKILL")):
        return Cause.TIMEOUT
    if ending in _CRASHES:
        return Cause.CRASHED
    if ending in _ASKED:
        return Cause.STOPPED
    return Cause.MEMORY if noted == Cause.MEMORY else Cause.KILLED


def began(run_dir: Path, slot: int, pid: int) -> None:
    """Count the start of a worker. One that had the slot before, and whose end nobody has counted, is counted too."""

    def change(record: Record) -> bool:
        _count_end(record, str(slot), None)
        record[_STARTS] = record.get(_STARTS, 0) + 1
        record.setdefault(_ALIVE, {})[str(slot)] = [pid, ""]
        return True

    shared_record.change(run_dir / FILE, change)


def note(run_dir: Path, pid: int, cause: Cause) -> None:
    """Note what was found out about a worker that has died, for the process that counts its end."""

    def change(record: Record) -> bool:
        slot = _slot_of(record, pid)
        if slot is not None:
            record[_ALIVE][slot] = [pid, cause.value]
        return slot is not None

    shared_record.change(run_dir / FILE, change)


def ended(run_dir: Path, pid: int, ending: int | str, is_overdue: bool = False, recycled: bool = False) -> Cause | None:
    """Count the end of a worker, and return its cause; None if it is counted already.

    ending, is_overdue: as for `cause_of`. recycled: whether another worker replaces it.
    """
    found: Cause | None = None

    def change(record: Record) -> bool:
        nonlocal found
        slot = _slot_of(record, pid)
        if slot is None:
            return False
        found = cause_of(ending, is_overdue, record[_ALIVE][slot][1])
        if found is Cause.STOPPED and recycled:
            found = Cause.RECYCLED
        _count_end(record, slot, found)
        return True

    shared_record.change(run_dir / FILE, change)
    return found


def counts(run_dir: Path) -> Counts:
    """Return what was counted in the run folder. Where nothing could be written, nothing was."""
    record = shared_record.read(run_dir / FILE)
    ends = record.get(_ENDS, {})
    return Counts(record.get(_STARTS, 0), {cause: ends.get(cause.value, 0) for cause in Cause})


def _slot_of(record: Record, pid: int) -> str | None:
    alive: dict[str, list[object]] = record.get(_ALIVE, {})
    return next((slot for slot, (known, _) in alive.items() if known == pid), None)


def _count_end(record: Record, slot: str, cause: Cause | None) -> None:
    """Count the end of the worker that the record has for a slot, if there is one. cause: None if nobody knows it."""
    known = record.get(_ALIVE, {}).pop(slot, None)
    if known is not None:
        ends, name = record.setdefault(_ENDS, {}), (cause or known[1] or Cause.KILLED)
        ends[str(name)] = ends.get(str(name), 0) + 1
