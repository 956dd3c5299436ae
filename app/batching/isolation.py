"""Isolation of failures: a request that makes a shared call fail does not fail the other requests of that call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from tableside.errors import DeadlineExceeded, ModelNotReady

P = TypeVar("P")
R = TypeVar("R")


def run_isolated(items: Sequence[P], run: Callable[[Sequence[P]], list[R]]) -> list[R | Exception]:
    """Return, for each item, its result or the exception that `run` raises for this item alone.

    run: returns one result for each item, in order. It must not keep or change the items.
    If a call raises, or returns another number of results than items, each half of the items is run again by itself,
    down to single items. One bad item among n costs about 2 * log2(n) more calls. A call that took too long, or
    found no model process, is not run again.
    """
    try:
        results = run(items)
        if len(results) != len(items):
            raise TypeError(f"the model returned {len(results)} results for {len(items)} requests")
        return list(results)
    except (DeadlineExceeded, ModelNotReady) as problem:  # says nothing about an item
        return [problem] * len(items)
    except Exception as problem:  # noqa: BLE001 - a model may raise anything, and it belongs to one request
        if len(items) == 1:
            return [problem]
        half = len(items) // 2
        return run_isolated(items[:half], run) + run_isolated(items[half:], run)


def run_timed(
    items: Sequence[P], run: Callable[[Sequence[P]], list[R]], clock: Callable[[], float]
) -> tuple[list[R | Exception], int, float, float]:
    """Run a batch. Return the outcomes, the number of calls they took, and when the first began and the last ended.

    Runs in a native thread, so it must not touch locks or metrics, which belong to the hub.
    """
    calls = 0

    def counted(some: Sequence[P]) -> list[R]:
        nonlocal calls
        calls += 1
        return run(some)

    started_at_s = clock()
    # Without a variable for the outcomes: an error's traceback leads to this frame, which would keep the error.
    return run_isolated(items, counted), calls, started_at_s, clock()
