"""Signals as something that select(2) can wait for, beside sockets."""

from __future__ import annotations

import os
import signal


class SignalQueue:
    """Collects signals of this process instead of being interrupted by them. Make it in the main thread, once."""

    def __init__(self, *numbers: signal.Signals) -> None:
        """numbers: the signals to collect. A child process that is started gets their default handling."""
        self._read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, _collected)

    def fileno(self) -> int:
        """Return the descriptor that is readable when a signal has arrived."""
        return self._read

    def received(self) -> list[int]:
        """Return the numbers of the signals that have arrived since the last call, in their order."""
        try:
            return list(os.read(self._read, 4096))
        except BlockingIOError:
            return []


def _collected(number: int, frame: object) -> None:
    """Do nothing: Python has written the number into the pipe, and a signal without a handler would end the process."""
