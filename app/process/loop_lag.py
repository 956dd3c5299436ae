"""Measures how late the event loop is: a greenlet that sleeps is woken late while another one keeps the loop busy."""

from __future__ import annotations

import time
from collections.abc import Callable

from tableside.process.offload import is_patched

EVERY_S = 0.25


def watch(observe: Callable[[float], None]) -> bool:
    """Call `observe` four times a second with the seconds that this greenlet was woken too late.

    Returns False, and does nothing, in a process without an event loop.
    """
    if not is_patched():
        return False
    from gevent import spawn

    spawn(_measure, observe)
    return True


def _measure(observe: Callable[[float], None]) -> None:
    from gevent import sleep

    while True:
        due_s = time.monotonic() + EVERY_S
        sleep(EVERY_S)
        observe(max(0.0, time.monotonic() - due_s))
