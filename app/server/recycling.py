"""Replace a worker that has answered `max_requests` requests, and end it when its successor is ready.

gunicorn ends such a worker at once, and starts another one that still has to load its models. This class uses
gunicorn's signals for scaling instead: SIGTTIN makes the master start one more worker, and SIGTTOU, once that one is
ready, makes it end the oldest one. If that is another worker, this one asks again. One worker of a run folder is
replaced at a time.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

from gevent import sleep, spawn

from tableside.process import worker_slots
from tableside.process.file_locks import is_locked, try_lock
from tableside.process.instance_names import INSTANCE_ID
from tableside.server.accepting import AcceptingWorker

LOCK = "recycling.lock"
POLL_S = 0.2


class RecyclingWorker(AcceptingWorker):
    """A worker that has a successor before it ends."""

    max_requests: int

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._recycle_after: int = self.max_requests
        self.max_requests = sys.maxsize
        self._lock: int | None = None
        self.is_recycled = False
        """Whether this worker ends because another one replaces it."""

    def notify(self) -> None:
        """Send the heartbeat, and ask for a successor when it is time. gunicorn calls this once a second."""
        super().notify()
        is_due = self.nr >= self._recycle_after and self._lock is None
        if is_due and self.alive and self.ppid == os.getppid():
            self._recycle()

    def handle_exit(self, sig: int, frame: object) -> None:
        """Handle SIGTERM. While a worker is replaced, it comes from SIGTTOU: the master has chosen this one."""
        with suppress(OSError):
            self.is_recycled = self.slot is not None and is_locked(self.slot.run_dir / LOCK)
        super().handle_exit(sig, frame)

    def _recycle(self) -> None:
        if self.slot is None:  # it has no status file, and would not see whether its successor is ready
            self.is_recycled = True
            self.begin_drain()
            return
        with suppress(OSError):  # it cannot be made: another time
            self._lock = try_lock(self.slot.run_dir / LOCK)
        if self._lock is not None:
            self.log.info("replacing worker %s: %s", os.getpid(), self._why_recycled())
            spawn(self._succeed, self.slot.run_dir / "worker_slots")

    def _why_recycled(self) -> str:
        if self._recycle_after == 0:
            return "calls that never end hold its threads"
        return (
            f"it has answered {self.nr} requests, and may answer {self._recycle_after} (server.max_requests_per_worker)"
        )

    def _succeed(self, folder: Path) -> None:
        """Wait for one more ready worker of this master, then let the master end the oldest one."""
        before = ready_siblings(folder)
        os.kill(self.ppid, signal.SIGTTIN)
        while self.alive and self.ppid == os.getppid() and not ready_siblings(folder) - before:
            sleep(POLL_S)
        if self.ppid == os.getppid():
            os.kill(self.ppid, signal.SIGTTOU)
        while self.alive and self.ppid == os.getppid() and before <= ready_siblings(folder):
            sleep(POLL_S)
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)


def ready_siblings(folder: Path) -> set[object]:
    """Return the pids of the ready workers of this worker's instance, itself included."""
    instance = os.environ.get(INSTANCE_ID, "")
    return {
        status.get("pid")
        for status in worker_slots.statuses(folder)
        if status.get("ready") is True and status.get("instance_id") == instance
    }
