"""Counts how workers start and end, over all gunicorn masters of a run folder.

A worker counts its start, and its own end if it ends in good order. gunicorn's master counts the end of one that was
killed, when it learns of it. Where the master has died too, nobody learns of it: a worker that starts finds it gone,
and it is counted when some time has passed in which a master would have. Whoever comes second finds that the worker is
counted already.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tableside.process import process_table, shared_record
from tableside.process.process_table import Process
from tableside.process.shared_record import Record

FILE = Path("metrics") / "workers.json"
"""In the run folder. The folder is emptied when a stack starts: the counts begin anew then."""
MASTER_S = 30.0
"""How long a worker has to be gone before others than its master count it."""
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


class End(NamedTuple):
    """How a worker has ended. in_hand: the requests that it had, if the worker has recorded them."""

    cause: Cause
    in_hand: int | None = None


class _Life(NamedTuple):
    """What the record has of a worker that nobody has counted, under its pid.

    started: see `Process`. cause, in_hand: what `note` was told. gone_at_s: when it was found gone, 0 if it was not.
    """

    started: int
    cause: str = ""
    in_hand: int | None = None
    gone_at_s: float = 0.0


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


def began(run_dir: Path, pid: int, now_s: float) -> None:
    """Count the start of a worker. now_s: seconds of the monotonic clock."""

    def change(record: Record) -> bool:
        _count_forgotten(record, now_s)
        alive = record.setdefault(_ALIVE, {})
        for other, life in _lives(record):
            if not life.gone_at_s and process_table.is_ending(Process(other, life.started)):
                alive[str(other)] = [*life._replace(gone_at_s=now_s)]
        if known := alive.pop(str(pid), None):  # the kernel gives a pid again
            _add_end(record, _Life(*known).cause)
        record[_STARTS] = record.get(_STARTS, 0) + 1
        alive[str(pid)] = [*_Life(process_table.started(pid))]
        return True

    shared_record.change(run_dir / FILE, change)


def note(run_dir: Path, pid: int, cause: Cause | None, in_hand: int) -> None:
    """Note what was found out about a worker that has died, for the process that counts its end.

    cause: None if it is not known. in_hand: how many requests the worker had.
    """

    def change(record: Record) -> bool:
        alive = record.get(_ALIVE, {})
        if known := alive.get(str(pid)):
            alive[str(pid)] = [*_Life(*known)._replace(cause=cause.value if cause else "", in_hand=in_hand)]
        return bool(known)

    shared_record.change(run_dir / FILE, change)


def ended(run_dir: Path, pid: int, ending: int | str, is_overdue: bool = False, recycled: bool = False) -> End | None:
    """Count the end of a worker, and return it; None if it is counted already.

    ending, is_overdue: as for `cause_of`. recycled: whether another worker replaces it.
    """
    found: End | None = None

    def change(record: Record) -> bool:
        nonlocal found
        if known := record.get(_ALIVE, {}).pop(str(pid), None):
            life = _Life(*known)
            cause = cause_of(ending, is_overdue, life.cause)
            found = End(Cause.RECYCLED if cause is Cause.STOPPED and recycled else cause, life.in_hand)
            _add_end(record, found.cause)
        return found is not None

    shared_record.change(run_dir / FILE, change)
    return found


def counts(run_dir: Path, now_s: float) -> Counts:
    """Return what was counted in the run folder. Where nothing could be written, nothing was.

    now_s: seconds of the monotonic clock.
    """
    record = shared_record.read(run_dir / FILE)
    _count_forgotten(record, now_s)
    ends = record.get(_ENDS, {})
    return Counts(record.get(_STARTS, 0), {cause: ends.get(cause.value, 0) for cause in Cause})


def _lives(record: Record) -> Iterator[tuple[int, _Life]]:
    for pid, known in list(record.get(_ALIVE, {}).items()):
        yield int(pid), _Life(*known)


def _count_forgotten(record: Record, now_s: float) -> None:
    """Count the workers that have been gone for so long that no master will."""
    for pid, life in _lives(record):
        if life.gone_at_s and now_s - life.gone_at_s > MASTER_S:
            del record[_ALIVE][str(pid)]
            _add_end(record, life.cause)


def _add_end(record: Record, cause: str) -> None:
    """Count an end. cause: empty if nobody knows it."""
    ends, name = record.setdefault(_ENDS, {}), str(cause or Cause.KILLED)
    ends[name] = ends.get(name, 0) + 1
