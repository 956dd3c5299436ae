"""Work that can wait until the hub has served what is ready now."""

from __future__ import annotations

from collections.abc import Callable

from app.concurrency.offload import is_patched
from app.tallies import Later, at_once

LOG_DELAY_S = 0.01
"""How long a line of the access log may wait for others. Each write wakes supervisord, which takes as long for one line
as for a hundred: at some thousand requests a second that was half a core.
"""


def make_later(delay_s: float = LOG_DELAY_S) -> Later:
    """In a worker: runs what it is given after `delay_s`, once; asked again before that, it forgets what came first."""
    if not is_patched():
        return at_once
    from gevent import get_hub

    timer = get_hub().loop.timer(delay_s, ref=False)

    def later(work: Callable[[], None]) -> None:
        timer.start(work)

    return later


def after_the_others() -> None:
    """Go on when everybody whose event has arrived by now had a turn."""
    from gevent import get_hub, getcurrent

    hub = get_hub()
    hub.loop.run_callback(getcurrent().switch)
    hub.switch()
