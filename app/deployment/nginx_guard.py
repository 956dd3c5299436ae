"""Watches nginx while it runs: rotates its logs, and gives it new workers when slow clients fill its connections.

nginx has no time limit for a body as a whole: a client that sends a byte every few seconds keeps its connection for
days. Such clients take no place of a request, but enough of them from enough addresses would take all connections. When
they take half of them, nginx is told to read its configuration again. New workers, with an empty table of connections,
accept at once, and the old ones finish the requests that they have; what they still hold after nginx's
`worker_shutdown_timeout` is closed. So a body has as much time as a request has, when connections are short.

nginx counts the requests at the workers in memory that its processes share. A process that is killed leaves its
requests in that count, for good. nginx reads its configuration again then too, which begins the count anew.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from tableside.deployment import log_rotation

ROTATED = ("nginx-access.log", "nginx-error.log")
STATUS_PATH = "/nginx/status"
"""Path on its own unix socket where nginx counts its connections."""
CHECK_EVERY_S = 1.0
RENEW_EVERY_S = 5.0
MAX_GENERATIONS = 4
"""New workers are not started while the old ones of so many renewals still end, because each needs memory."""
FULL_SHARE = 0.5
"""nginx is renewed when connections with a request take this share of one process's table."""
_STATUS_TIMEOUT_S = 2.0
_STATUS = re.compile(r"Reading: (\d+) Writing: (\d+) Waiting: (\d+)")


class NginxGuard:
    """What to do for one nginx. `check` is called again and again, and returns the signals that its master needs."""

    def __init__(
        self, log_dir: Path, max_bytes: int, keep_files: int, connections: int, processes: int,
        busy: Callable[[], int | None],
    ) -> None:  # fmt: skip
        """connections: of each nginx process. processes: how many workers one nginx has.

        busy: returns the number of connections with a request, None if nginx does not answer.
        """
        self._log_dir, self._max_bytes, self._keep_files = log_dir, max_bytes, keep_files
        self._connections, self._processes, self._busy = connections, processes, busy
        self._checked_at_s = self._renewed_at_s = float("-inf")
        self._accepting: set[int] = set()
        self.reason = ""
        """Why `check` has returned HUP the last time, for the log."""

    def check(self, now_s: float, workers: Callable[[], Sequence[int]]) -> list[signal.Signals]:
        """Return the signals that nginx's master needs now: USR1 to open its logs again, HUP to renew its workers.

        workers: the process ids of all workers of nginx, those included that only finish their requests.
        """
        if now_s - self._checked_at_s < CHECK_EVERY_S:
            return []
        self._checked_at_s = now_s
        signals = [signal.SIGUSR1] if self._rotate() else []
        if now_s - self._renewed_at_s >= RENEW_EVERY_S:
            running = workers()
            before, self._accepting = self._accepting, {pid for pid in running if not _is_leaving(pid)}
            # A renewal replaces all workers, and a death some of them. A single worker has no shared count.
            has_died = bool(before & self._accepting) and not before <= set(running)
            if has_died or self._is_full(running):
                self._renewed_at_s, self._accepting = now_s, set()
                self.reason = "a worker of nginx has died" if has_died else "slow clients hold half of its connections"
                signals.append(signal.SIGHUP)
        return signals

    def _rotate(self) -> bool:
        return any([log_rotation.rotate(self._log_dir / name, self._max_bytes, self._keep_files) for name in ROTATED])

    def _is_full(self, workers: Sequence[int]) -> bool:
        """Whether the table of some worker is half full, and not with idle connections, which nginx closes itself."""
        limit = FULL_SHARE * self._connections
        if len(workers) >= self._processes * MAX_GENERATIONS:
            return False
        if max(map(open_files, self._accepting), default=0) < limit:
            return False
        busy = self._busy()
        return busy is None or busy >= limit


def open_files(pid: int) -> int:
    """Return how many files a process has open; 0 if it has ended."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def _is_leaving(pid: int) -> bool:
    """Whether an nginx worker accepts no more connections: nginx says so in the title of the process."""
    try:
        return b"shutting down" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return True


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_STATUS_TIMEOUT_S)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_STATUS_TIMEOUT_S)
        self.sock.connect(str(self._path))


def busy_connections(path: Path) -> int | None:
    """Ask nginx how many of its connections have a request. Return None if it does not answer in time.

    path: its unix socket for that (`tableside.deployment.nginx.status_socket`).
    """
    connection = _UnixConnection(path)
    try:
        connection.request("GET", STATUS_PATH)
        found = _STATUS.search(connection.getresponse().read().decode("latin-1"))
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()
    return int(found[1]) + int(found[2]) if found else None
