"""Run a function a little later on the event loop, so that many small writes become one."""

from __future__ import annotations

from collections.abc import Callable

from tableside.process.offload import is_patched

LOG_DELAY_S = 0.01
"""How long a line of the access log may wait for others. Each write wakes supervisord, which takes as long for one line
as for a hundred: at some thousand requests a second that was half a core.
"""


def make_call_later(delay_s: float = LOG_DELAY_S) -> Callable[[Callable[[], None]], None] | None:
    """A function that runs what it is given once, after `delay_s` seconds. A call before that replaces the one before.

    Returns None in a process without an event loop.
    """
    if not is_patched():
        return None
    from gevent import get_hub

    timer = get_hub().loop.timer(delay_s, ref=False)

    def later(work: Callable[[], None]) -> None:
        timer.start(work)

    return later
