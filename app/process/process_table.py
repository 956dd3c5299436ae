"""Processes of this host, found in /proc by their command line and environment, and signalled without mistaking one.

The kernel gives the pid of a process that has ended to another one. A process is therefore named by its pid and its
start time, and a signal goes through a descriptor of the process (pidfd_open(2)), where the kernel has it.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

_EXITING = 0x4
"""PF_EXITING of the kernel (include/linux/sched.h): set when a process begins to end."""


class Process(NamedTuple):
    """A process. started: when it was started, in clock ticks since the boot of the host."""

    pid: int
    started: int


class Found(NamedTuple):
    """A process that runs. session: the pid of the process that began its session. environ: as it was started with."""

    process: Process
    parent: int
    session: int
    environ: Mapping[str, str]

    @property
    def leads_session(self) -> bool:
        """Whether the process began its session; those that it has forked belong to it."""
        return self.session == self.process.pid


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on (proc(5)); none if the process has ended or cannot be seen."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return []
    return [] if not fields or fields[0] in "ZX" else fields


def started(pid: int) -> int:
    """Return when the process was started, in clock ticks since boot; 0 if it has ended."""
    fields = _stat(pid)
    return int(fields[19]) if fields else 0


def cpu_s(pid: int) -> float | None:
    """Return the seconds of processor time that the process has taken, in all its threads; None if it has ended."""
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") if fields else None


def find(word: str, variable: str) -> Iterator[Found]:
    """Yield this user's processes that have `word` in their command line and `variable` in their environment."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        with suppress(OSError):
            if word.encode() not in Path(f"/proc/{entry}/cmdline").read_bytes():
                continue
            environ = _environ(int(entry))
            fields = _stat(int(entry))
            if variable in environ and fields:
                yield Found(Process(int(entry), int(fields[19])), int(fields[1]), int(fields[3]), environ)


def _environ(pid: int) -> dict[str, str]:
    lines = os.fsdecode(Path(f"/proc/{pid}/environ").read_bytes()).split("\0")
    return dict(line.split("=", 1) for line in lines if "=" in line)


def is_alive(process: Process) -> bool:
    """Return whether the process still runs. One that has ended and was not waited for does not."""
    return started(process.pid) == process.started


def is_ending(process: Process) -> bool:
    """Return whether the process has ended, or can do nothing any more but end: its connections may be closed before.

    A process that was never recorded, with pid 0, has ended.
    """
    fields = _stat(process.pid)
    return not fields or int(fields[19]) != process.started or bool(int(fields[6]) & _EXITING)


def send(process: Process, sign: signal.Signals) -> bool:
    """Send a signal. Return whether the process was there to get it."""
    try:
        fd = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    except OSError:  # an old kernel, or a sandbox without this call
        fd = -1
    try:
        if not is_alive(process):
            return False
        if fd >= 0:
            signal.pidfd_send_signal(fd, sign)
        else:
            os.kill(process.pid, sign)
    except (ProcessLookupError, PermissionError):
        return False
    finally:
        if fd >= 0:
            os.close(fd)
    return True
