"""The runner: starts processes of `tableside.preflight.child` and reads one result for each version.

It polls and sleeps instead of using `subprocess`, whose locks and child watchers belong to one gevent hub. It starts
processes by posix_spawn(3), which runs no Python code between fork and exec, so that no lock is left held in the child.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside.errors import FailureKind
from tableside.preflight.child import START_S, Message, PreflightJob
from tableside.preflight.results import PreflightResult, VersionFiles
from tableside.settings import Environment, Repository

BATCH = 50
"""The most versions of one process. They share one start of the interpreter; Linux limits their argument to 128 kB."""
SLOW_S = 8.0
"""After this time on one version, the versions behind it are given to another process."""
MAX_PROCESSES = 4
"""The most processes at the same time."""
POLL_S = 0.01
GRACE_S = 2.0
"""How long after a time limit the runner waits for the alarm in the process before it kills the process itself."""
_TAIL_BYTES = 16000
_TAIL_SHOWN = 2000
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


def run(
    root: Path, wanted: Sequence[VersionFiles], policy: Repository, store: Path | None = None,
    environments: Mapping[str, Environment] | None = None, checked: Path | None = None,
) -> Iterator[tuple[VersionFiles, PreflightResult] | None]:  # fmt: skip
    """Run the preflights of the versions in `wanted`, BATCH of them in a process.

    A version that ends its process gets that as its result, and the versions behind it go to the next process. If a
    version takes longer than SLOW_S, the versions behind it go to a second process at once, up to MAX_PROCESSES.
    store, checked: the folders of the shared store and of checked artifacts. environments: those that models may name.

    Yields each version with its result, and None after each POLL_S seconds without one. The caller must be a greenlet
    of the hub's thread or a plain thread, because the generator sleeps.
    """
    missing: list[VersionFiles] = list(wanted)
    running: list[_BatchRun] = []

    def make_job(batch: Sequence[VersionFiles]) -> PreflightJob:
        versions = tuple((files.name, files.version) for files in batch)
        named = dict(environments or {})
        return PreflightJob(str(root), versions, policy, os.getpid(), str(store or ""), named, str(checked or ""))

    try:
        while missing or running:
            if missing and all(batch.is_slow for batch in running) and len(running) < MAX_PROCESSES:
                running.append(_BatchRun(missing[:BATCH], make_job))
                del missing[:BATCH]
            for batch in list(running):
                yield batch.step()
                if batch.is_over:
                    running.remove(batch)
                if batch.is_over or batch.is_slow:
                    missing[:0] = batch.give_up_rest()
    finally:
        for batch in running:
            batch.close()


class _BatchRun:
    """One process and the versions that it has not finished, in its order."""

    def __init__(self, batch: Sequence[VersionFiles], make_job: Callable[[Sequence[VersionFiles]], PreflightJob]):
        self._left = list(batch)
        self._steps = _preflight(make_job(batch), batch)
        self._since_s = time.monotonic()
        self._ended = False

    def step(self) -> tuple[VersionFiles, PreflightResult] | None:
        """Return the next result; None after POLL_S seconds without one, or if the process has ended."""
        for result in self._steps:
            if result is None:
                return None
            self._since_s = time.monotonic()
            found = (self._left.pop(0), result)
            if not self._left:
                self.close()
            return found
        self._ended = True
        return None

    @property
    def is_over(self) -> bool:
        """Whether no more results will come: the process has finished its versions, or has ended before."""
        return self._ended

    @property
    def is_slow(self) -> bool:
        """Whether the version that runs now has taken longer than SLOW_S."""
        return time.monotonic() - self._since_s > SLOW_S

    def give_up_rest(self) -> list[VersionFiles]:
        """Remove and return the versions that the process has not begun."""
        keep = 0 if self._ended else 1
        self._left, rest = self._left[:keep], self._left[keep:]
        return rest

    def close(self) -> None:
        """End the process and release its pipes."""
        self._ended = True
        self._steps.close()


def _preflight(job: PreflightJob, batch: Sequence[VersionFiles]) -> Generator[PreflightResult | None, None, None]:
    """Yield the results of the batch in order; the version that ends the process gets the last one."""
    policy = job.policy
    try:
        process = _Process(job)
    except OSError as problem:
        yield from (_not_started(str(problem)) for _ in batch)
        return
    begun, done, overdue_at_s = -1, 0, time.monotonic() + START_S + GRACE_S
    try:
        while done < len(batch):
            ended = process.ended()
            for line in process.lines():
                overdue_at_s = time.monotonic() + policy.load_timeout_s + GRACE_S
                begun = line.at
                if line.done:
                    done += 1
                    yield PreflightResult(line.failure_kind, line.reason)
            if ended:
                break
            if time.monotonic() > overdue_at_s:
                process.kill(signal.SIGALRM)
            yield None
            time.sleep(POLL_S)
        if begun < 0:
            yield from (_not_started(process.ending, process.stderr_tail()) for _ in batch)
        elif done < len(batch):
            yield _failure_of(process, policy)
    finally:
        process.close()


def _not_started(cause: str, stderr_tail: str = "") -> PreflightResult:
    return PreflightResult(
        FailureKind.OTHER,
        f"no preflight process could be started: {cause}; the next reload tries again",
        stderr_tail,
        is_permanent=False,
    )


def _failure_of(process: _Process, policy: Repository) -> PreflightResult:
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


class _Process:
    """A preflight process: its messages, the end of its stderr, and how it ended. Only `close` waits."""

    def __init__(self, job: PreflightJob) -> None:
        """Start the process. Raises OSError if that fails."""
        self._out, out = os.pipe()
        self._err, err = os.pipe()
        self._unread = b""
        self._written = b""
        self._status: int | None = None
        self._killed_with: signal.Signals | None = None
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, out, 1),
            (os.POSIX_SPAWN_DUP2, err, 2),
        ]
        command = [sys.executable, "-m", "tableside.preflight.child", msgspec.json.encode(job).decode()]
        environ = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "PYTHONFAULTHANDLER": "1"}
        try:
            self.pid = os.posix_spawn(
                sys.executable, command, environ, file_actions=actions, setsigmask=(),
                setsigdef=(signal.SIGALRM, signal.SIGPIPE, signal.SIGTERM, signal.SIGINT),
            )  # fmt: skip
        except OSError:
            os.close(self._out)
            os.close(self._err)
            raise
        finally:
            os.close(out)
            os.close(err)

    def ended(self) -> bool:
        """Return whether the process has ended, and reap it."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # other code of this process has reaped it
                pid, status = self.pid, 255 << 8
            if pid:
                self._status = status
        return self._status is not None

    def lines(self) -> Iterator[Message]:
        """Yield the messages that have arrived since the last call. The rest of an unfinished line is kept."""
        self._written = (self._written + _read(self._err))[-_TAIL_BYTES:]
        *whole, self._unread = (self._unread + _read(self._out)).split(b"\n")
        for line in whole:
            yield msgspec.json.decode(line, type=Message)

    def kill(self, as_if: signal.Signals) -> None:
        """Kill the process. as_if: the signal that `ending` reports as the cause."""
        self._killed_with = as_if
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    @property
    def _code(self) -> int:
        if self._killed_with is not None:
            return -self._killed_with
        return os.waitstatus_to_exitcode(self._status) if self._status is not None else 0

    @property
    def timed_out(self) -> bool:
        """Whether a time limit ended the process."""
        return self._code == -signal.SIGALRM

    @property
    def ending(self) -> str:
        """The exit code or the signal that ended the process, as text."""
        if self._code >= 0:
            return f"exit code {self._code}"
        name = signal.Signals(-self._code).name
        return f"{name}, which often means that the machine ran out of memory" if name == "SIGKILL" else name

    def stderr_tail(self) -> str:
        """Return the last _TAIL_SHOWN characters of stderr; values of variables that may be secrets are masked."""
        text = self._written.decode(errors="replace").strip()
        for name, value in os.environ.items():
            if len(value) > 3 and _SECRET.search(name):
                text = text.replace(value, "***")
        lines = [line for line in text.splitlines() if not line.startswith("Extension modules:")]
        return "\n".join(lines)[-_TAIL_SHOWN:]

    def close(self) -> None:
        """Kill the process if it runs, wait for its end, and close the pipes."""
        if not self.ended():
            self.kill(signal.SIGKILL)
            while not self.ended():
                time.sleep(POLL_S)
        os.close(self._out)
        os.close(self._err)


def _read(fd: int) -> bytes:
    chunks = []
    with suppress(BlockingIOError):
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    return b"".join(chunks)
