"""Work that can wait until the hub has served all that is ready now: the log lines of many requests in one go."""

from __future__ import annotations

from collections.abc import Callable

from app.concurrency.offload import is_patched
from app.tallies import Later, at_once


def make_later() -> Later:
    """In a worker: before the hub looks for the next requests, so at most one turn (milliseconds) late."""
    if not is_patched():
        return at_once
    from gevent import get_hub

    def later(work: Callable[[], None]) -> None:
        get_hub().loop.run_callback(work)

    return later
