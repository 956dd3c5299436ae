"""The terminal while `tableside top` draws on it: a screen of its own, keys without Enter, and back to what it was."""

from __future__ import annotations

import os
import re
import select
import signal
import sys
import termios
import tty
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from rich.console import Console, RenderableType
from rich.live import Live

KEYS = {
    b"q": "quit", b"Q": "quit", b"\x1b[A": "up", b"k": "up", b"\x1b[B": "down", b"j": "down", b"\x1b[5~": "page up",
    b"\x1b[6~": "page down", b" ": "page down", b"s": "sort", b"\x1bOA": "up", b"\x1bOB": "down", b"\x1b[H": "home",
    b"g": "home",
}  # fmt: skip
"""What terminals send for a key, and what it does."""
_KEY = re.compile(rb"\x1b(?:\[[0-9;]*[A-Za-z~]|O.)|.", re.DOTALL)
"""One key in what terminals send. A key that is held, or typed while a frame is drawn, comes together with others."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGHUP)
_READ_BYTES = 64


def split_keys(typed: bytes) -> list[bytes]:
    """Return what each key has sent."""
    found: list[bytes] = _KEY.findall(typed)
    return found


class Stopped(Exception):
    """A signal asks the command to end."""


class Screen:
    """The terminal. Use it with `with`; afterwards it shows what it had shown before."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, screen=True, auto_refresh=False)
        self._keys = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._give_back: Callable[[], None] = lambda: None
        self._waiting: deque[bytes] = deque()

    def __enter__(self) -> Screen:
        self._start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def _start(self) -> None:
        if self._keys is not None:
            before = termios.tcgetattr(self._keys)
            self._give_back = partial(termios.tcsetattr, self._keys, termios.TCSADRAIN, before)
            tty.setcbreak(self._keys)
        self._live.start()

    def _stop(self) -> None:
        self._live.stop()
        self._give_back()

    @property
    def has_keys(self) -> bool:
        """Whether keys can be read: standard input is a terminal too."""
        return self._keys is not None

    @property
    def size(self) -> tuple[int, int]:
        """The width and the height of the terminal now, in characters."""
        size = self._console.size
        return size.width, size.height

    def draw(self, frame: RenderableType) -> None:
        """Replace what is shown."""
        self._live.update(frame, refresh=True)

    def wait_key(self, seconds: float) -> str:
        """Wait for a key, at most so long. Return what it does; empty without one, or for one that does nothing."""
        if self._keys is None:
            select.select([], [], [], seconds)
            return ""
        if key := self._next_key():
            return key
        if not select.select([self._keys], [], [], seconds)[0]:
            return ""
        self._waiting += split_keys(os.read(self._keys, _READ_BYTES))
        return self._next_key()

    def _next_key(self) -> str:
        while self._waiting:
            if does := KEYS.get(self._waiting.popleft()):
                return does
        return ""

    def suspend(self) -> None:
        """Give the terminal back and stop this process, as Ctrl-Z asks. Take the terminal again when it goes on."""
        self._stop()
        before = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)  # goes on here after SIGCONT
        signal.signal(signal.SIGTSTP, before)
        self._start()
        self._live.refresh()


@contextmanager
def signals(suspend: Callable[[], None]) -> Iterator[None]:
    """Raise Stopped for the signals that end a process, and call `suspend` for Ctrl-Z, while the body runs."""

    def stop(number: int, _: FrameType | None) -> None:
        raise Stopped(signal.Signals(number).name)

    def pause(_: int, __: FrameType | None) -> None:
        suspend()

    before = {each: signal.signal(each, stop) for each in _STOP_SIGNALS}
    before[signal.SIGTSTP] = signal.signal(signal.SIGTSTP, pause)
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
