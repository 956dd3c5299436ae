"""How a worker died: by a fault of its own, by the OOM killer, or by somebody's signal.

faulthandler writes a worker's fatal signal, and where it was, into a file of its slot. gunicorn's SIGABRT to a worker
without a heartbeat is one of those. The kernel counts OOM kills in /proc/vmstat. A SIGKILL for which the count has not
risen came from an operator or a supervisor, and says nothing about the requests.
"""

from __future__ import annotations

import faulthandler
import os
import re
import signal
from contextlib import suppress
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple

from tableside.process.hand_file import Holder

VMSTAT_VARIABLE = "TABLESIDE_VMSTAT"
"""Variable with the path of the kernel's counters, for sandboxes that mount them elsewhere; else /proc/vmstat."""
FAULT_BYTES = 1 << 14
_OOM_KILLS = re.compile(rb"^oom_kill ([0-9]+)$", re.MULTILINE)
_SIGNAL = re.compile(r"Fatal Python error: (.{1,60})")
_PLACE = re.compile(r'File "([^"]{1,300})", line ([0-9]+) in (\S{1,100})')


class Cause(StrEnum):
    """FAULT: a fatal signal, or no heartbeat. MEMORY: the OOM killer. HUNG: a call that did not end."""

    FAULT = "fault"
    MEMORY = "memory"
    HUNG = "hung"


class Death(NamedTuple):
    """Why a worker died, if its requests may be the reason. detail: the signal and the place in the code."""

    cause: Cause | None
    detail: str = ""


def oom_kills() -> int:
    """Return how many processes the OOM killer of this host has ended; 0 if that is not known."""
    vmstat = Path(os.environ.get(VMSTAT_VARIABLE, "/proc/vmstat"))
    with suppress(OSError):
        if found := _OOM_KILLS.search(vmstat.read_bytes()):
            return int(found[1])
    return 0


def fault_file(folder: Path, slot: int) -> Path:
    """Return the file that gets the fatal signal of the worker in this slot."""
    return folder / f"{slot}.fault"


def record_faults(file: Path) -> None:
    """Let a fatal signal of this process be written to `file`, whose space is reserved.

    SIGABRT ends the process at once from now on: gunicorn's handler would need a main thread that does not hang. Raises
    OSError if the file cannot be made.
    """
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    os.posix_fallocate(fd, 0, FAULT_BYTES)
    signal.signal(signal.SIGABRT, signal.SIG_DFL)
    faulthandler.enable(fd, all_threads=False)


def how(file: Path, holder: Holder, oom_kills_now: int) -> Death:
    """Return how the worker died whose fault file this is."""
    text = ""
    with suppress(OSError):
        text = file.read_bytes().rstrip(b"\0").decode(errors="replace")
    if text:
        found, place = _SIGNAL.search(text), _PLACE.search(text)
        where = f" in {place[3]} ({place[1]}:{place[2]})" if place else ""
        return Death(Cause.FAULT, f"{found[1] if found else 'fatal signal'}{where}")
    if oom_kills_now > holder.oom_kills:
        return Death(Cause.MEMORY, "the OOM killer of this host")
    return Death(None)
