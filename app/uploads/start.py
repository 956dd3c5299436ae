"""Starts upload processes, and sees to it that the end of one that did not say how it ended is known."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import partial

import msgspec

from tableside.process import operations
from tableside.process.audit_log import AuditLog, now
from tableside.process.endings import ending_of
from tableside.process.file_locks import try_lock
from tableside.process.operations import RunningOperation
from tableside.uploads.child import PUBLISH_S, UploadJob

POLL_S = 0.1
_LOCK_FD = 3
_DEFAULT_SIGNALS = (signal.SIGALRM, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGQUIT)


def start(job: UploadJob, running: RunningOperation, spawn: Callable[[Callable[[], None]], None]) -> None:
    """Start the process of an upload, and leave its operation to it. spawn: runs the function that waits for its end.

    Raises OSError if it cannot be started.
    """
    content = os.memfd_create("upload")
    try:
        os.write(content, msgspec.json.encode(msgspec.structs.replace(job, lock=_LOCK_FD)))
        os.lseek(content, 0, os.SEEK_SET)
        actions = [(os.POSIX_SPAWN_DUP2, content, 0), (os.POSIX_SPAWN_DUP2, running.lock, _LOCK_FD)]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONFAULTHANDLER": "1"}
        command = [sys.executable, "-m", "tableside.uploads.child"]
        pid = os.posix_spawn(
            sys.executable, command, environ, file_actions=actions, setsigmask=(), setsigdef=_DEFAULT_SIGNALS
        )
    finally:
        os.close(content)
    running.hand_over()
    spawn(partial(_watch, pid, job))


def _watch(pid: int, job: UploadJob) -> None:
    """Wait for the end of the process. If it was ended by a signal, say so in its operation and in the audit log."""
    while True:
        try:
            ended, status = os.waitpid(pid, os.WNOHANG)
        except ChildProcessError:  # other code of this process has reaped it
            ended, status = pid, 0
        if ended:
            break
        time.sleep(POLL_S)
    _close_if_lost(job, os.waitstatus_to_exitcode(status))


def _close_if_lost(job: UploadJob, code: int) -> None:
    run_dir, operation = job.settings.run_dir, operations.find(job.settings.run_dir, job.operation.id)
    if operation is None or operation.state != "lost":
        return
    lock = try_lock(run_dir / operations.FOLDER / f"{operation.id}.lock")
    if lock is None:
        return
    error = f"{_ending(code)} while it was {operation.step or 'starting'}. Nothing was published unless it is listed"
    AuditLog(run_dir, job.settings.log.max_bytes).end({**now(), **job.change, "state": "failed", "reason": error})
    RunningOperation(run_dir, operation, lock).fail(500, error)


def _ending(code: int) -> str:
    if code == -signal.SIGALRM:
        return f"the upload took longer than {PUBLISH_S:g} s"
    if code < 0:
        return f"the upload process was ended by {ending_of(code)}"
    return f"the upload process ended with {ending_of(code)}"
