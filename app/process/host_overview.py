"""What an operator wants to know of the host of a stack: its processors, its memory, and how long the stack runs."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from tableside import machine
from tableside.process import drained, process_table

PID_FILE = "supervisord.pid"
_IDLE_FIELDS = (3, 4)
"""`idle` and `iowait` among the numbers of the first line of /proc/stat (proc(5))."""
_GUEST_FIELDS = 8
"""`guest` and `guest_nice` come after so many numbers; `user` and `nice` have them already."""


def host(run_dir: Path) -> dict[str, object]:
    """Return the host's members. Seconds of processors count since the host was started; what is unknown is null."""
    busy_s, all_s = _processor_seconds()
    memory, free = machine.memory_bytes()[0], machine.free_bytes()[0]
    return {
        "processors": machine.processors(),
        "processor_busy_s": busy_s,
        "processor_s": all_s,
        "memory_bytes": memory or None,
        "memory_free_bytes": free or None,
        "stack_age_s": stack_age_s(run_dir),
        "drained": drained.is_drained(run_dir),
    }


def _processor_seconds() -> tuple[float | None, float | None]:
    """Seconds in which processors were busy, and all of their seconds, over all processors of the machine."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
        ticks = [int(each) for each in fields[:_GUEST_FIELDS]]
    except (OSError, ValueError):
        return None, None
    if len(ticks) <= max(_IDLE_FIELDS):
        return None, None
    per_second = os.sysconf("SC_CLK_TCK")
    idle = sum(ticks[each] for each in _IDLE_FIELDS)
    return round((sum(ticks) - idle) / per_second, 2), round(sum(ticks) / per_second, 2)


def stack_age_s(run_dir: Path) -> float | None:
    """Return the seconds since supervisord was started; None if it does not run."""
    with suppress(OSError, ValueError):
        started = process_table.started(int((run_dir / PID_FILE).read_text()))
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        if started:
            return round(up_s - started / os.sysconf("SC_CLK_TCK"), 1)
    return None
