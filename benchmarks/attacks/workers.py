"""What the workers of a stack use: CPU time of all threads, and the most memory since a moment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")


def cpu_s(pids: Iterable[int]) -> float:
    """Return the CPU seconds that these processes have used. One that has ended counts as 0.

    /proc/PID/task/TID/schedstat counts nanoseconds, and loses threads that have ended; /proc/PID/stat keeps them, and
    counts in hundredths of a second. Threads of a worker live as long as it does.
    """
    total = 0.0
    for pid in pids:
        with suppress(OSError):
            for task in (PROC / str(pid) / "task").iterdir():
                total += int((task / "schedstat").read_text().split()[0]) / 1e9
    return total


def memory(pid: int, field: str) -> int:
    """Return a field of /proc/PID/status in bytes. Raises OSError if the process has ended, KeyError without field."""
    for line in (PROC / str(pid) / "status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


class Peaks:
    """The growth of each worker's memory beyond what it had when this was made."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._before: dict[int, int] = {}
        for pid in pids:
            (PROC / str(pid) / "clear_refs").write_text("5")  # proc(5): begins a new VmHWM
            self._before[pid] = memory(pid, "VmRSS")

    def growth(self, field: str = "VmHWM") -> int:
        """Return the largest growth of a living worker. field: VmHWM for its peak, VmRSS for what it has now."""
        found = [0]
        for pid, before in self._before.items():
            with suppress(OSError, KeyError):
                found.append(memory(pid, field) - before)
        return max(found)
