"""The runner: starts processes of `tableside.preflight.child` and reads one result for each version.

It polls and sleeps, because a worker's other greenlets run meanwhile.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tableside.errors import FailureKind
from tableside.preflight.child import START_S, PreflightJob
from tableside.preflight.child_process import POLL_S, PreflightProcess
from tableside.preflight.results import PreflightResult, VersionFiles
from tableside.settings import Environment, Repository

SLOW_S = 8.0
"""After this time on one version, the versions behind it are given to another process."""
FEW = 8
"""For fewer versions than this another process is not started, unless one of them is slow."""
MAX_PROCESSES = 4
"""The most processes at the same time."""
GRACE_S = 2.0
"""How long after a time limit the runner waits for the alarm in the process before it kills the process itself."""


def run(
    root: Path, wanted: Sequence[VersionFiles], policy: Repository, store: Path | None = None,
    environments: Mapping[str, Environment] | None = None, checked: Path | None = None,
    first: Callable[[], Sequence[VersionFiles]] = tuple, workers: int = 0, kept: Path | None = None,
) -> Iterator[tuple[VersionFiles, PreflightResult] | None]:  # fmt: skip
    """Run the preflights of the versions in `wanted`: those that `first` returns now, then the others in their order.

    There is a process for each processor, up to MAX_PROCESSES and for at least FEW versions each, because a process
    takes a second to start. If all are busy with one version for longer than SLOW_S, another is started. A version that
    ends its process gets that as its result. store, checked: the folders of the shared store and of checked artifacts.
    environments: those that models may name. workers: those that will load the versions, whose memory they must fit
    into; 0 does not look at it. kept: the folder of the results of other versions.

    Yields each version with its result, and None after each POLL_S seconds without one. The caller must be a greenlet
    of the hub's thread or a plain thread, because the generator sleeps.
    """
    job = PreflightJob(
        str(root), policy, os.getpid(), str(store or ""), dict(environments or {}), str(checked or ""), workers,
        str(kept or ""),
    )  # fmt: skip
    pool = _Pool(job, list(wanted), first)
    try:
        while not pool.is_over:
            results = pool.step()
            yield from results
            if not results:
                yield None
                time.sleep(POLL_S)
    finally:
        pool.close()


Result = tuple[VersionFiles, PreflightResult]


class _Pool:
    """The processes, and the versions that none of them has begun."""

    def __init__(
        self, job: PreflightJob, missing: list[VersionFiles], first: Callable[[], Sequence[VersionFiles]]
    ) -> None:
        self._job = job
        self._missing = missing
        self._first = first
        self._running: list[_Preflight] = []
        self._wide = max(1, min(MAX_PROCESSES, len(os.sched_getaffinity(0)), len(missing) // FEW))

    @property
    def is_over(self) -> bool:
        """Whether every version has a result."""
        return not self._missing and not any(each.version for each in self._running)

    def step(self) -> list[Result]:
        """Give versions to idle processes, and return the results that have arrived."""
        self._start()
        found: list[Result] = []
        for process in list(self._running):
            if process.is_idle and self._missing:
                process.begin(self._next())
            found.extend(process.results())
            if process.is_over:
                self._running.remove(process)
                found.extend(self._give_up(process))
                process.close()
        return found

    def _start(self) -> None:
        """Start a process where one is missing, and beside those that are slow."""
        busy = len(self._running)
        is_slow = all(each.is_slow for each in self._running)
        if self._missing and (busy < self._wide or is_slow) and busy < MAX_PROCESSES:
            self._running.append(_Preflight(self._job))

    def _next(self) -> VersionFiles:
        chosen = next((files for files in self._first() if files in self._missing), self._missing[0])
        self._missing.remove(chosen)
        return chosen

    def _give_up(self, process: _Preflight) -> list[Result]:
        """The results of what a process leaves behind that could not start: no other one would start either."""
        if process.has_started:
            return []
        self._wide = max(1, len(self._running))
        if self._running:
            return []
        missing, self._missing = self._missing, []
        return [(files, process.not_started()) for files in missing]

    def close(self) -> None:
        """End the processes."""
        for process in self._running:
            process.close()


class _Preflight:
    """A process, and the version that it loads."""

    def __init__(self, job: PreflightJob) -> None:
        self._policy = job.policy
        self._problem = ""
        self._process: PreflightProcess | None = None
        try:
            self._process = PreflightProcess(job)
        except OSError as problem:
            self._problem = str(problem)
        self.version: VersionFiles | None = None
        self.has_started = False
        self.is_over = False
        self._since_s = time.monotonic()
        self._overdue_at_s = self._since_s + START_S + GRACE_S

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a version."""
        return self.has_started and self.version is None and not self.is_over

    @property
    def is_slow(self) -> bool:
        """Whether the version that runs now has taken longer than SLOW_S."""
        return self.version is not None and time.monotonic() - self._since_s > SLOW_S

    def begin(self, version: VersionFiles) -> None:
        """Give it a version."""
        assert self._process is not None
        self.version, self._since_s = version, time.monotonic()
        self._overdue_at_s = self._since_s + self._policy.load_timeout_s + GRACE_S
        self._process.send(version.name, version.version)

    def results(self) -> list[Result]:
        """Return the result of its version, if it is there: that of the version, or that it has ended the process."""
        if self._process is None:
            self.is_over = True
            return []
        ended, found = self._process.ended(), []
        for message in self._process.lines():
            self.has_started = True
            if message.done and self.version is not None:
                found.append((self.version, PreflightResult(message.failure_kind, message.reason, held=message.held)))
                self.version = None
        if ended:
            self.is_over = True
            if self.version is not None:
                found.append((self.version, _failure_of(self._process, self._policy)))
                self.version = None
        elif (self.version is not None or not self.has_started) and time.monotonic() > self._overdue_at_s:
            self._process.kill(signal.SIGALRM)
        return found

    def not_started(self) -> PreflightResult:
        """The result of a version for which no process could be started."""
        if self._process is None:
            return _not_started(self._problem)
        return _not_started(self._process.ending, self._process.stderr_tail())

    def close(self) -> None:
        """End the process and release its pipes."""
        if self._process is not None:
            self._process.close()


def _not_started(cause: str, stderr_tail: str = "") -> PreflightResult:
    return PreflightResult(
        FailureKind.OTHER,
        f"no preflight process could be started: {cause}; the next reload tries again",
        stderr_tail,
        is_permanent=False,
    )


def _failure_of(process: PreflightProcess, policy: Repository) -> PreflightResult:
    if process.timed_out:
        limit = f"repository.load_timeout_s ({policy.load_timeout_s:g} s)"
        reason = (
            f"the version did not load and answer its golden rows within {limit}; raise that setting if it needs longer"
        )
        return PreflightResult(FailureKind.TIMEOUT, reason, process.stderr_tail())
    return PreflightResult(
        FailureKind.CRASHED,
        f"the preflight process ended while it loaded the version: {process.ending}; "
        "the log has its last output (event preflight_failed)",
        process.stderr_tail(),
    )  # fmt: skip
