"""A process of `tableside.preflight.child`, as the one that starts it sees it.

It polls instead of using `subprocess`, whose locks and child watchers belong to one gevent hub. It is started by
posix_spawn(3), which runs no Python code between fork and exec, so that no lock is left held in the child.
"""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress

import msgspec

from tableside.preflight.child import Message, PreflightJob
from tableside.process.endings import ending_of

POLL_S = 0.01
_TAIL_BYTES = 16000
_TAIL_SHOWN = 2000
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASSW|CREDENTIAL", re.IGNORECASE)


class PreflightProcess:
    """A preflight process: its messages, the end of its stderr, and how it ended. Only `close` waits."""

    def __init__(self, job: PreflightJob) -> None:
        """Start the process. Raises OSError if that fails."""
        into, self._into = os.pipe()
        self._out, out = os.pipe()
        self._err, err = os.pipe()
        self._unread = b""
        self._written = b""
        self._status: int | None = None
        self._killed_with: signal.Signals | None = None
        for fd in (self._out, self._err):
            os.set_blocking(fd, False)
        actions = [
            (os.POSIX_SPAWN_DUP2, into, 0),
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
            self._close_pipes()
            raise
        finally:
            for fd in (into, out, err):
                os.close(fd)

    def send(self, name: str, number: int) -> None:
        """Write the next version to the process. If it has ended, that is noticed by `ended`."""
        with suppress(BrokenPipeError):
            os.write(self._into, msgspec.json.encode((name, number)) + b"\n")

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
        return ending_of(self._code)

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
        self._close_pipes()

    def _close_pipes(self) -> None:
        for fd in (self._into, self._out, self._err):
            os.close(fd)


def _read(fd: int) -> bytes:
    chunks = []
    with suppress(BlockingIOError):
        while chunk := os.read(fd, 65536):
            chunks.append(chunk)
    return b"".join(chunks)
