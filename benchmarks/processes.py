"""Servers as child processes: started, watched, measured and ended, each with everything it started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PROC = Path("/proc")
STOP_S = 20


def free_port() -> int:
    """A TCP port of the loopback that nobody has now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environ(**more: str) -> dict[str, str]:
    """The environment each contestant gets: the caller's own, without Python's settings, one thread a library."""
    kept = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TABLESIDE", "VIRTUAL_ENV"))
    }
    return {**kept, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", **more}


class Server:
    """A command in a session of its own. Its output goes to `log`."""

    def __init__(self, command: Sequence[str], folder: Path, environ: Mapping[str, str], log: Path) -> None:
        self.log = log
        self._known: set[int] = set()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                command, cwd=folder, env=dict(environ), stdout=output, stderr=output, start_new_session=True
            )

    def running(self) -> bool:
        """Whether the process that was started still runs."""
        return self._process.poll() is None

    def pids(self) -> list[int]:
        """The process, its descendants and whoever shares its session."""
        found = family(self._process.pid, _table())
        self._known |= found
        return sorted(found)

    def last_words(self, lines: int = 4) -> str:
        """The end of the log, for a report of why it did not start."""
        text = self.log.read_text(errors="replace").strip().splitlines()
        return " / ".join(line.strip() for line in text[-lines:])[-600:]

    def stop(self) -> None:
        """SIGTERM, and after STOP_S seconds SIGKILL for whatever is left of the family."""
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
    """Wait a little for these processes, kill those that stay, and wait until they are gone."""
    for pid in _left(pids, 3):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _left(pids, 5)


def _left(pids: set[int], seconds: float) -> set[int]:
    """Those that still run after at most `seconds`."""
    deadline_at_s = time.monotonic() + seconds
    while (left := pids & _table().keys()) and time.monotonic() < deadline_at_s:
        time.sleep(0.05)
    return left


def family(root: int, table: Mapping[int, tuple[int, int]]) -> set[int]:
    """`root`, its descendants, and the members of its session. table: pid to (parent, session)."""
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
        except OSError:  # gone meanwhile
            continue
        if fields[0] != "Z":
            found[int(entry.name)] = (int(fields[1]), int(fields[3]))
    return found


def pss_mb(pids: Sequence[int]) -> float:
    """The proportional set sizes added up, in MB: a page that n processes share counts as 1/n in each."""
    total_kb = 0
    for pid in pids:
        try:
            lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total_kb += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total_kb / 1024
