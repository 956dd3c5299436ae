"""Sends requests to a process of `tests.hostile.measured`, and judges what each one took."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from tests.spellings import Request

PROJECT = Path(__file__).resolve().parents[2]
PEAK_RATIO, FREE_PEAK_BYTES = 50, 64 << 20
MOST_STALL_S = 0.1
HANG_S = 120.0
"""A request that has no answer after so long hangs, however busy the machine is."""
REPEATS = 3
"""How often a request is sent again that took too much: a measurement may be disturbed, and none is made too small."""


@dataclass(frozen=True)
class Taken:
    """What a request took. status: 0 if the process died or hung, and `start` then says how."""

    status: int
    start: str
    cpu_s: float = 0.0
    stall_s: float = 0.0
    peak_bytes: int = 0


class Probe:
    """The process. It is started again after a request that ended it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Probe:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with suppress(BrokenPipeError):
                    stream.close()
            process.wait()

    def send(self, request: Request, model: str) -> Taken:
        """Send a request once."""
        process = self.process()
        assert process.stdin is not None
        head = {"path": request.path.replace("MODEL", model), "headers": request.headers, "length": len(request.body)}
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(head).encode() + b"\n" + request.body)
            process.stdin.flush()
        line = self._line(process)
        if line.endswith(b"\n"):
            return Taken(**json.loads(line))
        is_over = self._is_over(process)
        code = process.returncode
        self.close()
        return Taken(0, f"the process died: {code}" if is_over else f"no answer after {HANG_S:g} s")

    def process(self) -> subprocess.Popen[bytes]:
        """The process, which is started if there is none."""
        self._process = self._process or self._start()
        return self._process

    @staticmethod
    def _is_over(process: subprocess.Popen[bytes]) -> bool:
        """Whether the process has ended, or ends now: its output closes a little before it is reaped."""
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        return process.returncode is not None

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tests.hostile.measured", str(self._folder)]
        environ = {**os.environ, "PYTHONFAULTHANDLER": "1", "PYTHONPATH": f"{PROJECT}/src:{PROJECT}"}
        process = subprocess.Popen(
            command, cwd=PROJECT, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._line(process) == b"ready\n"
        return process

    @staticmethod
    def _line(process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], HANG_S)
        return process.stdout.readline() if ready else b""


def too_much(taken: Taken, body: bytes) -> str:
    """What is wrong with a request that took this; empty if nothing is."""
    if taken.status == 0 or taken.status >= 500:
        return f"status {taken.status}: {taken.start}"
    allowed = PEAK_RATIO * len(body) + FREE_PEAK_BYTES
    if taken.peak_bytes > allowed:
        return f"peak memory {taken.peak_bytes / 1e6:.0f} MB, and {allowed / 1e6:.0f} MB are allowed"
    if taken.stall_s > MOST_STALL_S:
        return f"the event loop stood still for {taken.stall_s * 1e3:.0f} ms of CPU"
    return ""


def problem(probe: Probe, request: Request, model: str) -> tuple[str, Taken]:
    """Send a request, again if it took too much. Return what is wrong each time, and the last measurement."""
    for _ in range(REPEATS):
        taken = probe.send(request, model)
        found = too_much(taken, request.body)
        if not found or taken.status == 0:
            break
    return found, taken
