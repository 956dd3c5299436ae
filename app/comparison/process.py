"""Starts the process that loads two versions and compares their answers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import msgspec

from tableside.comparison.child import MODULE, ComparisonJob
from tableside.comparison.report import AnswerComparison
from tableside.process.endings import ending_of

_TAIL_CHARS = 300


def compare(job: ComparisonJob) -> AnswerComparison:
    """Return the comparison of a job. If the process ends without one, that is its `problem`; nothing is raised."""
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-m", MODULE, msgspec.json.encode(job).decode()]
    done = subprocess.run(  # noqa: S603 - this interpreter, and a module of this release
        command, stdin=subprocess.DEVNULL, capture_output=True, env=environ, check=False
    )
    if done.returncode == 0:
        return msgspec.json.decode(done.stdout, type=AnswerComparison)
    return AnswerComparison(job.data or "golden rows", problem=ending(done.returncode, done.stderr, job))


def ending(code: int, stderr: bytes, job: ComparisonJob) -> str:
    """Return in a sentence how a process ended that has given no result. code: negative for a signal."""
    if code == -signal.SIGALRM:
        limit = f"repository.load_timeout_s ({job.policy.load_timeout_s:g} s)"
        return f"a version did not load within {limit}; raise that setting if it needs longer"
    tail = " ".join(stderr.decode(errors="replace").split())[-_TAIL_CHARS:]
    return f"the process that compares the versions ended: {ending_of(code)}. {tail}".rstrip()
