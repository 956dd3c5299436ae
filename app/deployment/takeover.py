"""Takes a stack over whose supervisord was killed: its processes serve until those of the new supervisord do.

The parts replace each other. A socket holder that starts gets the sockets from an old one or from a keeper, and ends
the old one. The keepers of nginx and web end the old nginx and gunicorn when their own accept connections. What is
still left when all new workers are ready is ended here.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence

from tableside.deployment import stopping
from tableside.deployment.layout import ADMIN, DATA, socket_addresses
from tableside.deployment.socket_holder import close, fetch, tcp_addresses
from tableside.deployment.socket_rescue import rescue
from tableside.deployment.stack_processes import StackProcess, find, leaders, send, wait_until
from tableside.process import worker_slots
from tableside.settings import Settings

REPLACED_WITHIN_S = 600.0
"""How long the new keepers may take to replace what serves: gunicorn's workers load all models first."""


def check(settings: Settings) -> list[StackProcess]:
    """Return the processes that a killed supervisord has left behind and that the next one can take over.

    If they cannot be taken over, end them and return none. Both is reported on stderr.
    """
    left = find(settings.run_dir)
    if not left:
        return []
    if _sockets_fit(settings):
        _say(f"taking over the stack that runs without supervisord in {settings.run_dir}: {_names(left)}")
        return left
    _say(f"ending what an earlier stack has left in {settings.run_dir}: {_names(left)}")
    stopping.end(settings)
    return []


def _sockets_fit(settings: Settings) -> bool:
    """Return whether the next holders can get listening sockets with the addresses of the settings."""
    try:
        descriptors = fetch(settings.run_dir, timeout_s=0)
    except TimeoutError:
        descriptors = rescue(settings)
    try:
        return {DATA, ADMIN} <= set(descriptors) and tcp_addresses(descriptors) == socket_addresses(settings)
    finally:
        close(descriptors.values())


def finish(settings: Settings, left: Sequence[StackProcess]) -> None:
    """End what the new stack has not replaced yet, as soon as its workers are ready.

    left: what `check` has returned. Call it in a child process of supervisord that may wait.
    """
    if not left:
        return
    parent, old = os.getppid(), {process.pid for process in left}

    def is_replaced() -> bool:
        workers = worker_slots.statuses(settings.run_dir / "worker_slots")
        ready = [worker for worker in workers if worker.get("ready") and worker.get("pid") not in old]
        return os.getppid() != parent or len(ready) >= settings.server.workers

    if wait_until(is_replaced, REPLACED_WITHIN_S, poll_s=0.5) and os.getppid() == parent:
        for process in leaders(left):
            send(process, signal.SIGTERM)


def _names(processes: Iterable[StackProcess]) -> str:
    return ", ".join(map(str, processes))


def _say(message: str) -> None:
    sys.stderr.write(f"tableside: {message}\n")
