"""Serve on when the master has ended: gunicorn's gevent worker exits at once then, and drops its requests.

The web keeper starts another instance, and sends SIGTERM to the workers without a master when that one is ready. If no
keeper lives, they drain after a while. A worker that hangs while no master is left to kill it is ended by SIGALRM.
"""

from __future__ import annotations

import os
import signal
import time

from gevent import spawn
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

from tableside.process.instance_names import is_kept
from tableside.process.worker_slots import WorkerSlot

HANG_GRACE_S = 15
"""Seconds between gunicorn's `timeout`, when a master kills a worker that hangs, and SIGALRM."""
UNKEPT_S = 60.0
"""Seconds that a worker whose master has ended serves without a web keeper."""


class DrainingWorker(GeventWorker):
    """A gevent worker that answers the requests it has accepted before it ends."""

    slot: WorkerSlot | None = None
    _unkept_since_s: float | None = None
    _says_orphaned = False

    def notify(self) -> None:
        """Send the heartbeat, restart the alarm, and drain if the master has ended. gunicorn calls it once a second."""
        Worker.notify(self)  # GeventWorker.notify exits when the master has ended
        if self.cfg.timeout:
            signal.alarm(int(self.cfg.timeout) + HANG_GRACE_S)
        if self.alive and self.ppid != os.getppid():
            self._serve_without_master()

    def _serve_without_master(self) -> None:
        """Drain if nobody will replace this worker."""
        now_s = time.monotonic()
        if self.slot is not None and is_kept(self.slot.run_dir):
            self._unkept_since_s = None
            if not self._says_orphaned:
                self.log.warning("the master process has ended: serving until another instance is ready")
            self._says_orphaned = True
            return
        self._unkept_since_s = self._unkept_since_s or now_s
        if self.slot is None or now_s - self._unkept_since_s >= UNKEPT_S:
            self.log.warning("the master process has ended: draining this worker")
            self.begin_drain()

    def handle_exit(self, sig: int, frame: object) -> None:
        """Handle SIGTERM: accept no new connections, and finish the requests in progress."""
        self.begin_drain()

    def begin_drain(self) -> None:
        """Report not ready, and end gunicorn's loop: it then closes the listeners and waits for the requests."""
        application = getattr(self, "wsgi", None)  # missing while the worker still loads it
        extensions = getattr(application, "extensions", {})
        if "tableside" in extensions:
            registry = extensions["tableside"].registry
            registry.draining = True
            spawn(registry.report_draining)  # not here: SIGTERM may have interrupted the writing of the status file
        self.alive = False
