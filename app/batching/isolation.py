"""One failing request does not fail those it shares a call with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

P = TypeVar("P")
R = TypeVar("R")


def run_isolated(items: Sequence[P], run: Callable[[Sequence[P]], list[R]]) -> list[R | Exception]:
    """Each item's result, or what `run` raises for it alone. A call that raises is asked again in two halves.

    run: gives one result an item, in order. It must not keep or change its items between calls.
    """
    try:
        results = run(items)
        if len(results) != len(items):
            raise TypeError(f"{len(results)} results for {len(items)} requests")
        return list(results)
    except Exception as problem:  # noqa: BLE001 - whatever a model raises belongs to a request
        if len(items) == 1:
            return [problem]
        half = len(items) // 2
        return run_isolated(items[:half], run) + run_isolated(items[half:], run)
