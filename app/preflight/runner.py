"""Preflights as they are run: processes of `tableside.preflight.child`, watched until each version has its preflight
result.

`run` waits beside the event loop: it polls and sleeps, and leaves `subprocess` alone, whose locks and child watchers
would belong to one hub or another. `posix_spawn` runs nothing between fork and exec, so no lock of this process can be
held in the child.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from tableside.errors import FailureKind
from tableside.preflight.child import START_S, Message, PreflightJob
from tableside.preflight.results import PreflightResult, VersionFiles
from tableside.settings import Repository

BATCH = 50
"""Versions one process tries at most: they share one start of the interpreter, and one argument of 128 kB."""
SLOW_S = 8.0
"""How long a version may take before the others go on without it."""
MAX_PROCESSES = 4
"""Processes at once, when all are slow."""
POLL_S = 0.01
GRACE_S = 2.0
"""What the kernel's own alarm in the process gets to end it, before this side does."""
_TAIL_BYTES = 16000
_TAIL_SHOWN = 2000
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


def run(
    root: Path, wanted: Sequence[VersionFiles], policy: Repository, store: Path | None = None
) -> Iterator[tuple[VersionFiles, PreflightResult] | None]:
    """Try versions, one process after another; a version that ends one is blamed and the rest go on in the next.

    They do so too, beside it, when one takes long.

    Yields each candidate with its preflight result, and None whenever there was nothing for POLL_S seconds. To be
    called where `time.sleep` lets others run: from a greenlet of the hub's own thread, or from any plain thread.
    """
    left: list[VersionFiles] = list(wanted)
    running: list[_BatchRun] = []
    try:
        while left or running:
            if left and all(run.is_slow for run in running) and len(running) < MAX_PROCESSES:
                running.append(_BatchRun(root, left[:BATCH], policy, store))
                del left[:BATCH]
            for each in list(running):
                yield each.step()
                if each.is_over:
                    running.remove(each)
                if each.is_over or each.is_slow:
                    left[:0] = each.give_up_rest()
    finally:
        for each in running:
            each.close()


class _BatchRun:
    """One process at work on a batch. One that is slow keeps the version it has in hand and no more."""

    def __init__(self, root: Path, batch: Sequence[VersionFiles], policy: Repository, store: Path | None) -> None:
        self._left = list(batch)
        self._steps = _preflight(root, batch, policy, store)
        self._since_s = time.monotonic()
        self._ended = False

    def step(self) -> tuple[VersionFiles, PreflightResult] | None:
        """Its next preflight result, or None after a moment without one."""
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
        """Whether no more will come: it has given all its preflight results, or ended with the one it is to blame
        for.
        """
        return self._ended

    @property
    def is_slow(self) -> bool:
        """Whether others had better not wait for what it has in hand."""
        return time.monotonic() - self._since_s > SLOW_S

    def give_up_rest(self) -> list[VersionFiles]:
        """The versions it has not begun, for another process."""
        keep = 0 if self._ended else 1
        self._left, rest = self._left[:keep], self._left[keep:]
        return rest

    def close(self) -> None:
        """End the process."""
        self._ended = True
        self._steps.close()


def _preflight(
    root: Path, batch: Sequence[VersionFiles], policy: Repository, store: Path | None
) -> Generator[PreflightResult | None, None, None]:
    """Preflight results for a beginning of the batch: all of it, or up to the one that ended the process."""
    versions = tuple((each.name, each.version) for each in batch)
    job = PreflightJob(str(root), versions, policy, os.getpid(), str(store) if store else "")
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


def _not_started(why: str, stderr_tail: str = "") -> PreflightResult:
    return PreflightResult(
        FailureKind.OTHER, f"no preflight process could be started: {why}", stderr_tail, is_permanent=False
    )


def _failure_of(process: _Process, policy: Repository) -> PreflightResult:
    if process.timed_out:
        reason = (
            f"it did not load and answer its golden rows within repository.load_timeout_s ({policy.load_timeout_s:g} s)"
        )
        return PreflightResult(FailureKind.TIMEOUT, reason, process.stderr_tail())
    return PreflightResult(
        FailureKind.CRASHED, f"it ended its preflight process: {process.ending}; the log has what it wrote",
        process.stderr_tail(),
    )  # fmt: skip


class _Process:
    """A running preflight: its lines, what it wrote to stderr, how it ended. Nothing here blocks."""

    def __init__(self, job: PreflightJob) -> None:
        """Raises OSError when no process can be started."""
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
        """Whether the process is over."""
        if self._status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else has reaped it
                pid, status = self.pid, 255 << 8
            if pid:
                self._status = status
        return self._status is not None

    def lines(self) -> Iterator[Message]:
        """The whole lines that came since the last call."""
        self._written = (self._written + _read(self._err))[-_TAIL_BYTES:]
        *whole, self._unread = (self._unread + _read(self._out)).split(b"\n")
        for line in whole:
            yield msgspec.json.decode(line, type=Message)

    def kill(self, as_if: signal.Signals) -> None:
        """End it at once; `as_if` is the signal it counts as having died of."""
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
        """Whether its time was over."""
        return self._code == -signal.SIGALRM

    @property
    def ending(self) -> str:
        """How it ended, in words."""
        if self._code >= 0:
            return f"exit code {self._code}"
        name = signal.Signals(-self._code).name
        return f"{name}, perhaps for want of memory" if name == "SIGKILL" else name

    def stderr_tail(self) -> str:
        """The last it wrote to stderr, without the values of variables that look like secrets."""
        text = self._written.decode(errors="replace").strip()
        for name, value in os.environ.items():
            if len(value) > 3 and _SECRET.search(name):
                text = text.replace(value, "***")
        lines = [line for line in text.splitlines() if not line.startswith("Extension modules:")]
        return "\n".join(lines)[-_TAIL_SHOWN:]

    def close(self) -> None:
        """End it if it runs, and let go of it."""
        if not self.ended():
            self.kill(signal.SIGKILL)
            while not self.ended():
                time.sleep(POLL_S)
        os.close(self._out)
        os.close(self._err)


def _read(fd: int) -> bytes:
    parts = []
    with suppress(BlockingIOError):
        while part := os.read(fd, 65536):
            parts.append(part)
    return b"".join(parts)
