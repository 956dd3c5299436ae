"""Drain when the master is gone: gunicorn's gevent worker exits at once then, and loses its requests in progress.

A worker that hangs with no master left to notice is ended by SIGALRM.
"""

from __future__ import annotations

import os
import signal

from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

HANG_GRACE_S = 15
"""Seconds after gunicorn's `timeout`, at which a living master ends a worker that hangs."""


class DrainingWorker(GeventWorker):
    """A gevent worker that finishes what it has accepted."""

    def notify(self) -> None:
        """Heartbeat, called once a second."""
        Worker.notify(self)  # that of GeventWorker exits when the master is gone
        if self.cfg.timeout:
            signal.alarm(int(self.cfg.timeout) + HANG_GRACE_S)
        if self.alive and self.ppid != os.getppid():
            self.log.warning("the master is gone, draining")
            self.begin_drain()

    def handle_exit(self, sig: int, frame: object) -> None:
        """SIGTERM: accept no new connections, finish the requests in progress."""
        self.begin_drain()

    def begin_drain(self) -> None:
        """Turn readiness off, and let gunicorn's loop stop accepting and wait for the requests in progress."""
        extensions = getattr(self.wsgi, "extensions", {}) if self.wsgi else {}
        if "tableside" in extensions:
            extensions["tableside"].registry.draining = True
        self.alive = False
