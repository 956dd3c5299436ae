"""Starts the process that loads two versions and compares their answers.

A worker may call it: the process is started by posix_spawn(3) and awaited by polling, because `subprocess` has locks
and child watchers that belong to one gevent hub.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

import msgspec

from tableside.comparison.child import MODULE, ComparisonJob
from tableside.comparison.report import AnswerComparison
from tableside.process.endings import ending_of

POLL_S = 0.02
LIMIT_S = 3600.0
"""How long both loads and the comparison may take together."""
_TAIL_CHARS = 300
_DEFAULT_SIGNALS = (signal.SIGALRM, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGQUIT)


def compare(job: ComparisonJob, limit_s: float = LIMIT_S) -> AnswerComparison:
    """Return the comparison of a job. If the process ends without one, that is its `problem`; nothing is raised.

    limit_s: it is killed then.
    """
    result, stderr = os.memfd_create("comparison"), os.memfd_create("stderr")
    try:
        code = _run(job, result, stderr, limit_s)
        if code == 0:
            return msgspec.json.decode(_content(result), type=AnswerComparison)
        problem = ending(code, _content(stderr), job) if code is not None else f"it took longer than {limit_s:g} s"
    except OSError as cause:
        problem = f"the process that compares the versions could not be started: {cause}"
    finally:
        os.close(result)
        os.close(stderr)
    return AnswerComparison(job.data or "golden rows", problem=problem)


def _run(job: ComparisonJob, result: int, stderr: int, limit_s: float) -> int | None:
    """Run the process and return its exit code, negative for a signal; None if it was killed at its time limit."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, result, 1),
        (os.POSIX_SPAWN_DUP2, stderr, 2),
    ]  # fmt: skip
    command = [sys.executable, "-m", MODULE, msgspec.json.encode(job).decode()]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    pid = os.posix_spawn(
        sys.executable, command, environ, file_actions=actions, setsigmask=(), setsigdef=_DEFAULT_SIGNALS
    )
    give_up_at_s = time.monotonic() + limit_s
    try:
        while (status := _status(pid)) is None and time.monotonic() < give_up_at_s:
            time.sleep(POLL_S)
    except BaseException:  # Ctrl-C, or the request that waits has ended
        _kill(pid)
        raise
    if status is None:
        _kill(pid)
        return None
    return os.waitstatus_to_exitcode(status)


def _status(pid: int) -> int | None:
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # other code of this process has reaped it
        return 255 << 8
    return status if ended else None


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    while _status(pid) is None:
        time.sleep(POLL_S)


def _content(fd: int) -> bytes:
    return os.pread(fd, os.fstat(fd).st_size, 0)


def ending(code: int, stderr: bytes, job: ComparisonJob) -> str:
    """Return in a sentence how a process ended that has given no result. code: negative for a signal."""
    if code == -signal.SIGALRM:
        limit = f"repository.load_timeout_s ({job.policy.load_timeout_s:g} s)"
        return f"a version did not load within {limit}; raise that setting if it needs longer"
    tail = " ".join(stderr.decode(errors="replace").split())[-_TAIL_CHARS:]
    return f"the process that compares the versions ended: {ending_of(code)}. {tail}".rstrip()
