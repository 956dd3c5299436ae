"""Runs servers as child processes: starts, measures and stops each with all processes that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
STOP_S = 20


def clean_environ(**more: str) -> dict[str, str]:
    """Return the caller's environment variables without those of Python and Tableside, with one thread per library."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TABLESIDE", "VIRTUAL_ENV"))
    }
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **more}


class Server:
    """A command that runs in a new session. Its output goes to the file `log`."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._known: set[int] = set()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=folder, env=dict(environ), stdout=output, stderr=output, start_new_session=True
            )

    def running(self) -> bool:
        """Return whether the started process still runs."""
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """Return the pids of the process, its descendants and every process in its session."""
        found = family(self._process.pid, _table())
        self._known |= found
        return sorted(found)

    def last_lines(self, lines: int = 4) -> str:
        """Return the last lines of the log, which usually show why the server did not start."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in text[-lines:])[-600:]

    def stop(self) -> None:
        """Send SIGTERM; after STOP_S seconds kill every process of the family that still runs."""
        self.pids()
        if self.running():
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        session = {pid for pid, (_, session) in _table().items() if session == self._process.pid}
        _end(session | (self._known & _table().keys()) - {self._process.pid})


def _end(pids: set[int]) -> None:
    """Wait up to 3 s for these processes to end, kill those that remain, and wait until they are gone."""
    for pid in _left(pids, 3):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _left(pids, 5)


def _left(pids: set[int], seconds: float) -> set[int]:
    """Wait until the processes have ended, at most `seconds`. Return those that still run."""
    deadline_at_s = time.monotonic() + seconds
    while (left := pids & _table().keys()) and time.monotonic() < deadline_at_s:
        time.sleep(0.05)
    return left


def family(root: int, table: Mapping[int, tuple[int, int]]) -> set[int]:
    """Return `root`, its descendants and the members of its session. table: (parent, session) of each pid."""
    found = {pid for pid, (_, session) in table.items() if session == root} | ({root} & table.keys())
    while more := {pid for pid, (parent, _) in table.items() if parent in found} - found:
        found |= more
    return found


def _table() -> dict[int, tuple[int, int]]:
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended meanwhile
            continue
        if fields[0] != "Z":
            found[int(entry.name)] = (int(fields[1]), int(fields[3]))
    return found


def pss_mb(pids: Sequence[int]) -> float:
    """Return the sum of the proportional set sizes in MB: a page that n processes share counts as 1/n in each."""
    total_kb = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024
