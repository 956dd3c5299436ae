"""Ends instances: they finish the requests in progress, within a limit."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from pathlib import Path

from tableside.deployment import instances
from tableside.deployment.instances import Instance

POLL_S = 0.1


def end(run_dir: Path, grace_s: float, names: Collection[str] | None = None) -> None:
    """Make instances drain, and return when they have ended. names: which; None for all of the run folder.

    Those that still run after `grace_s` are killed.
    """

    def left() -> list[Instance]:
        found = instances.find(run_dir)
        return [each for name, each in found.items() if names is None or name in names]

    for instance in left():
        instance.terminate()
    if _wait(left, grace_s):
        return
    for instance in left():
        instance.kill()
    _wait(left, POLL_S * 50)


def terminate(run_dir: Path) -> None:
    """Make all instances of the run folder drain. Does not wait for them."""
    for instance in instances.find(run_dir).values():
        instance.terminate()


def _wait(left: Callable[[], list[Instance]], timeout_s: float) -> bool:
    give_up_at_s = time.monotonic() + timeout_s
    while left():
        if time.monotonic() >= give_up_at_s:
            return False
        time.sleep(POLL_S)
    return True
