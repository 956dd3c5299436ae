"""`tableside top` on a terminal: draws a frame after each look, and answers keys, until it is told to end."""

from __future__ import annotations

import time
from collections import deque

from rich.console import Console

from tableside.cli.top.differences import SORT_KEYS, between
from tableside.cli.top.looking import Looker, Server
from tableside.cli.top.samples import Sample
from tableside.cli.top.screen import MOST_BARS, Frame
from tableside.cli.top.terminal import Screen, Stopped, signals
from tableside.errors import StackError

KEY_WAIT_S = 0.1
"""How soon a new sample or a new size of the terminal is seen."""


class Board:
    """What is on the screen, and what keys change of it."""

    def __init__(self, server: str, interval_s: float, sort: str) -> None:
        self._server, self._interval_s = server, interval_s
        self._frame = Frame(None, 0, server=server, sort=sort)
        self._before: Sample | None = None
        self._failing_since_s: float | None = None
        self._rates: deque[float] = deque(maxlen=MOST_BARS)

    def take(self, found: Sample | StackError, now_s: float) -> None:
        """Take a sample, or why there is none. The first sample after a failure is a new beginning."""
        if isinstance(found, StackError):
            self._before = None
            self._failing_since_s = self._failing_since_s or now_s
            failing_s = now_s - self._failing_since_s
            self._frame.trouble = f"No answer for {failing_s:.0f} s, asking again every {self._interval_s:g} s: {found}"
            return
        self._failing_since_s, self._frame.trouble = None, ""
        view = between(self._server, self._before, found)
        if view.total.requests_per_s is not None:
            self._rates.append(view.total.requests_per_s)
        self._before, self._frame.view = found, view

    def press(self, key: str) -> bool:
        """Do what a key does. Return False if it ends the command."""
        frame = self._frame
        if key == "sort":
            keys = list(SORT_KEYS)
            frame.sort = keys[(keys.index(frame.sort) + 1) % len(keys)]
        page = max(1, frame.shown[0] - 1)
        step = {"up": -1, "down": 1, "page up": -page, "page down": page, "home": -frame.first}.get(key, 0)
        frame.first = max(0, min(frame.first + step, frame.shown[1] - 1))
        return key != "quit"

    def draw(self, screen: Screen) -> None:
        """Draw the frame for the size that the terminal has now."""
        self._frame.width, self._frame.height = screen.size
        self._frame.keys, self._frame.rates = screen.has_keys, tuple(self._rates)
        screen.draw(self._frame.draw())


def run(server: Server, name: str, interval_s: float, sort: str) -> None:
    """Show the stack until `q`, Ctrl-C or a signal. name: the server's, for the heading."""
    looker, board = Looker(server, interval_s), Board(name, interval_s, sort)
    try:
        with Screen(Console()) as screen, signals(screen.suspend):
            looker.start()
            size, goes_on = (0, 0), True
            while goes_on:
                changed = screen.size != size
                size = screen.size
                while (found := looker.newest()) is not None:
                    board.take(found, time.monotonic())
                    changed = True
                if changed:
                    board.draw(screen)
                if key := screen.wait_key(KEY_WAIT_S):
                    goes_on = board.press(key)
                    board.draw(screen)
    except (KeyboardInterrupt, Stopped):
        pass
