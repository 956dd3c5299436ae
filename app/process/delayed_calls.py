"""Run a function a little later on the event loop, so that many small writes become one write."""

from __future__ import annotations

from collections.abc import Callable

from tableside.process.offload import is_patched

LOG_DELAY_S = 0.01
"""How long a line of the access log may be buffered. Each write wakes supervisord, which needs as long for one line as
for a hundred: at a few thousand requests a second that took half a core.
"""


def make_call_later(delay_s: float = LOG_DELAY_S) -> Callable[[Callable[[], None]], None] | None:
    """Return a function `later(work)`, which calls `work` once after `delay_s` seconds on the event loop.

    A second call of `later` within that time replaces the first one. Returns None in a process without an event loop.
    """
    if not is_patched():
        return None
    from gevent import get_hub

    timer = get_hub().loop.timer(delay_s, ref=False)

    def later(work: Callable[[], None]) -> None:
        timer.start(work)

    return later
