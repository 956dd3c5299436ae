"""`tableside top` against a running stack: its numbers, and what it does with a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import termios
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tableside.cli import remote
from tableside.cli.top import samples
from tableside.cli.top.differences import between
from tableside.cli.top.samples import Sample
from tableside.telemetry.metrics import STAGE_BUCKETS_S
from tests.e2e.conftest import BIN, PROJECT, Stack, until

pytestmark = pytest.mark.e2e

GOOD, BAD = {"instances": [[5.1, 3.5, 1.4, 0.2]]}, {"instances": [["x"]]}
PATH = "/v1/models/iris:predict"
OTHER_SCREEN, OWN_SCREEN = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture(scope="module")
def stack(shared_stack: Stack) -> Stack:
    """The stack of several files."""
    return shared_stack


@pytest.fixture
def server(stack: Stack, tmp_path: Path) -> remote.Remote:
    """The stack's admin plane, as with `--to`."""
    key = tmp_path / "key"
    key.write_text(stack.key)
    return remote.of_url(f"http://127.0.0.1:{stack.admin}", key)


def milliseconds_of(stack: Stack, ids: set[str]) -> list[float]:
    """The times of these requests in the access log, ordered."""

    def look() -> list[float]:
        lines = [json.loads(line) for line in (stack.run_dir / "log" / "web.log").read_text().splitlines()
                 if '"source":"access"' in line]  # fmt: skip
        found = [line["ms"] for line in lines if line["request_id"] in ids]
        return sorted(found) if len(found) == len(ids) else []

    return until(look)


def quiet(server: remote.Remote) -> Sample:
    """A look at which everything that other tests have sent is counted."""
    look, last = samples.take(server), samples.take(server)
    while look.metrics != last.metrics:
        look, last = last, samples.take(server)
    return last


def test_the_numbers_are_those_of_the_requests(stack: Stack, server: remote.Remote) -> None:
    """Every request between two looks is counted once, by its answer and by its worker; the quantiles lie in the
    buckets of the exact ones.
    """
    before = quiet(server)
    ids = {f"top-{os.getpid()}-{number}" for number in range(120)}
    for number, each in enumerate(sorted(ids)):
        status, _, _ = stack.call(PATH, BAD if number % 4 == 0 else GOOD, headers={"X-Request-ID": each})
        assert status == (400 if number % 4 == 0 else 200)
    times = milliseconds_of(stack, ids)
    after = quiet(server)
    view = between("here", before, after)
    by_name = {each.name: each for each in view.models}
    iris = by_name["iris"].numbers
    assert (iris.requests, iris.client_errors, iris.server_errors) == (120, 30, 0)
    assert iris.requests_per_s == 120 / view.seconds
    assert view.total.requests == 120
    answered = [sum(each.requests or 0 for each in look.workers.workers) for look in (before, after)]
    assert answered[1] - answered[0] == 120, "each worker's slot has its own"
    assert (view.workers_ready, view.workers_wanted) == (2, 2)
    for share, shown_s in ((0.5, iris.p50_s), (0.95, iris.p95_s), (0.99, iris.p99_s)):
        exact_s = times[max(0, -int(-share * 120 // 1) - 1)] / 1000
        assert shown_s is not None
        assert bisect_left(STAGE_BUCKETS_S, round(shown_s, 9)) == bisect_left(STAGE_BUCKETS_S, exact_s), share


def test_one_frame_for_programs_and_pipes(stack: Stack) -> None:
    """`--json` is one document, and without a terminal the frame is plain text with every model."""
    done = stack.cli("top", "--json", "--interval", "0.3")
    content: Any = json.loads(done.stdout)
    assert {each["name"] for each in content["models"]} >= {"iris", "wine", "diabetes", "breast-cancer"}
    assert content["total"]["requests"] == 0
    assert content["seconds"] >= 0.3
    done = stack.cli("top", "--interval", "0.3", "--sort", "model")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert re.search(r"^breast-cancer/\d+ +0 ", done.stdout, re.MULTILINE)
    assert "workers 2 of 2 ready" in done.stdout


def at_a_terminal() -> None:
    """Make a new process like one that a user starts: with this terminal, and with Ctrl-C."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """A command on a terminal of its own, which the test reads and writes."""

    def __init__(self, stack: Stack, words: tuple[str, ...], **environ: str) -> None:
        self.fd, self.inner = pty.openpty()
        self.resize(100, 30)
        self.modes = termios.tcgetattr(self.inner)
        self.text = ""
        self.process = subprocess.Popen(
            [str(BIN / "tableside"), *words], cwd=PROJECT, stdin=self.inner, stdout=self.inner, stderr=self.inner,
            env={**stack.environ, "TERM": "xterm-256color", **environ}, start_new_session=True,
            preexec_fn=at_a_terminal,
        )  # fmt: skip

    def resize(self, width: int, height: int) -> None:
        fcntl.ioctl(self.inner, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def press(self, keys: bytes) -> None:
        """Press keys. What was written before is forgotten."""
        self._read()
        self.text = ""
        os.write(self.fd, keys)

    def shows(self, text: str) -> bool:
        """Wait until the text was written."""
        return until(lambda: text in self._read(), 60)

    def _read(self) -> str:
        while select.select([self.fd], [], [], 0.02)[0]:
            self.text += os.read(self.fd, 1 << 16).decode(errors="replace")
        return self.text

    def widest_line(self) -> int:
        """The number of characters of the longest line in the last frame that was written as a whole."""
        frame = self._read().split("\x1b[H")[-2]
        return max(map(len, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", frame).split("\r\n")))

    def ended(self) -> int:
        """Wait for the end of the command; return its exit status. The terminal must be as it was."""
        assert until(lambda: (self._read(), self.process.poll())[1] is not None, 60), self.text
        assert termios.tcgetattr(self.inner) == self.modes
        assert self._read().rstrip().endswith(OWN_SCREEN), self.text[-500:]
        return self.process.returncode


@contextmanager
def terminal(stack: Stack, *words: str, **environ: str) -> Iterator[Terminal]:
    opened = Terminal(stack, words, **environ)
    try:
        yield opened
    finally:
        opened.process.kill()
        opened.process.wait()
        os.close(opened.fd)
        os.close(opened.inner)


def test_a_terminal_is_drawn_on_and_given_back(stack: Stack) -> None:
    """The table comes, keys are answered, another size draws a fitting frame, and `q` leaves what was there before."""
    with terminal(stack, "top", "--interval", "0.3", NO_COLOR="1") as top:
        assert top.shows("models 1 to")
        assert OTHER_SCREEN in top.text
        assert "iris/" in top.text
        assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", top.text), "NO_COLOR"
        top.press(b"s\x1b[B")
        assert top.shows("sort by errors")
        assert top.shows("models 2 to")
        top.resize(60, 12)
        top.press(b"")
        assert top.shows("sort by errors")
        assert until(lambda: top.widest_line() <= 60, 60), top.text
        top.press(b"q")
        assert top.ended() == 0


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_gives_the_terminal_back(stack: Stack, sign: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end it like `q`, without a traceback."""
    with terminal(stack, "top", "--interval", "0.3") as top:
        assert top.shows("iris/")
        top.process.send_signal(sign)
        assert top.ended() == 0
        assert "Traceback" not in top.text


def test_it_waits_for_a_stack_that_is_down(stack: Stack, tmp_path: Path) -> None:
    """It says why there is no answer, and goes on when there is one. A stack that was never there is the same."""
    other = tmp_path / "run"
    with terminal(stack, "top", "--interval", "0.3", TABLESIDE__SERVER__RUN_DIR=str(other)) as top:
        assert top.shows("No answer for 1 s")
        other.symlink_to(stack.run_dir)
        assert top.shows("iris/")
        top.press(b"")
        assert top.shows("models 1 to")
        assert "No answer" not in top.text
        other.unlink()
        assert top.shows("No answer for")
        assert "iris/" in top.text, "the last numbers stay"
        top.press(b"q")
        assert top.ended() == 0
    done = subprocess.run(
        [str(BIN / "tableside"), "top", "--once"], cwd=PROJECT, capture_output=True, text=True, timeout=60,
        env={**stack.environ, "TABLESIDE__SERVER__RUN_DIR": str(other)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert "start the stack with" in done.stderr
