"""Wait for a condition instead of sleeping for a fixed time."""

from __future__ import annotations

import time
from collections.abc import Callable


def wait_until(condition: Callable[[], object], timeout_s: float = 90) -> bool:
    """Whether the condition has become true within the time. Greenlets and threads run while it waits."""
    give_up_at_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at_s:
            return False
        time.sleep(0.005)
    return True
