"""The guardian: watches over instances while no web keeper runs, so that a restart of `web` opens no gap.

supervisor's `restart` is a stop followed by a start, and a process that is stopped cannot know whether a start follows.
The keeper therefore leaves its instances serving when it is stopped, and this process with them. It ends them if `web`
stays stopped, or if the whole stack ends. If a keeper runs again, the instances are that keeper's.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from tableside.deployment import draining, instances, supervision
from tableside.deployment.supervision import Says
from tableside.process.file_locks import is_locked, try_lock
from tableside.process.instance_names import GUARDIAN_LOCK, KEEPER_LOCK
from tableside.telemetry import logs

STOPPED_S = 5.0
"""How long `web` must have been stopped before its instances are ended. `supervisorctl restart` takes less."""
POLL_S = 0.25
LOCK_TRIES = 20
log = logs.get_logger("web_guardian")


def leave_behind(run_dir: Path, grace_s: float, close: Callable[[], None]) -> bool:
    """Start a guardian that outlives this process. Return whether that was possible.

    close: called in the guardian; closes what belongs to the keeper. The lock that says that a guardian lives is taken
    before this returns.
    """
    lock = _lock(run_dir)
    if lock is None:
        return False
    keeper = os.getpid()
    try:
        child = os.fork()  # without exec: this code is in memory, whatever has become of the files
    except OSError:
        os.close(lock)
        return False
    if child:
        os.close(lock)
        return True
    status = 1
    try:
        with suppress(OSError):
            os.setsid()
        for sign in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(sign, signal.SIG_IGN)  # its end is the end of the instances, however that comes
        close()
        while os.getppid() == keeper:  # it still holds its lock
            time.sleep(POLL_S / 10)
        guard(run_dir, grace_s)
        status = 0
    except Exception as problem:  # noqa: BLE001 - nobody else would report it
        log.error("guardian_failed", reason=f"{type(problem).__name__}: {problem}")
    finally:
        os._exit(status)


def _lock(run_dir: Path) -> int | None:
    """Another process that looks whether a guardian lives may hold the lock for a moment."""
    for _ in range(LOCK_TRIES):
        with suppress(OSError):
            fd = try_lock(run_dir / GUARDIAN_LOCK, shared=True)
            if fd is not None:
                return fd
        time.sleep(0.01)
    return None


def guard(run_dir: Path, grace_s: float) -> None:
    """Watch over the instances of the run folder. Returns when they have ended, or when they have a keeper again."""
    stopped_since_s: float | None = None
    while instances.find(run_dir):
        says = supervision.ask(run_dir).says
        if says in (Says.SHUTDOWN, Says.GONE):
            log.info("draining", reason="the whole stack ends")
            draining.end(run_dir, grace_s)
            return
        if says is Says.STOPPED:
            stopped_since_s = stopped_since_s or time.monotonic()
            if time.monotonic() - stopped_since_s >= STOPPED_S:
                log.info("draining", reason="web was stopped and not started again")
                draining.end(run_dir, grace_s)
                return
        else:
            stopped_since_s = None
            if is_locked(run_dir / KEEPER_LOCK):
                return
        time.sleep(POLL_S)
