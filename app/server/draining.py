"""Drain the worker when its master has ended: gunicorn's gevent worker exits at once then, and drops its requests.

A worker that hangs while no master is left to kill it is ended by SIGALRM.
"""

from __future__ import annotations

import os
import signal

from gevent import spawn
from gunicorn.workers.base import Worker
from gunicorn.workers.ggevent import GeventWorker

HANG_GRACE_S = 15
"""Seconds between gunicorn's `timeout`, when a master kills a worker that hangs, and SIGALRM."""


class DrainingWorker(GeventWorker):
    """A gevent worker that answers the requests it has accepted before it ends."""

    def notify(self) -> None:
        """Send the heartbeat, restart the alarm, and drain if the master has ended. gunicorn calls it once a second."""
        Worker.notify(self)  # GeventWorker.notify exits when the master has ended
        if self.cfg.timeout:
            signal.alarm(int(self.cfg.timeout) + HANG_GRACE_S)
        if self.alive and self.ppid != os.getppid():
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
