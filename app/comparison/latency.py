"""The time that two versions need for the same rows: one row, and all of them in one call."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np

from tableside.contracts.table import Table

MOST_BATCH_ROWS = 1000
_CALLS = {True: 300, False: 40}
BUDGET_S = 4.0
"""For both sizes and both versions together; one call of each is made whatever it takes."""

Call = Callable[[Table], object]
"""Computes the default output of a table."""


class Latency(msgspec.Struct, frozen=True):
    """Milliseconds of one call, without HTTP. rows: in a call. calls: how many there were of each version."""

    rows: int
    calls: int
    old_p50_ms: float
    old_p99_ms: float
    new_p50_ms: float
    new_p99_ms: float
    ratio_p50: float
    ratio_p99: float


def measure(old: Call, new: Call, old_rows: Table, new_rows: Table, budget_s: float) -> tuple[Latency, ...]:
    """Measure both versions in turn, so that whatever else the machine does meets both. The tables have equal rows."""
    rows = min(old_rows.rows, MOST_BATCH_ROWS)
    sizes = (1, rows) if rows > 1 else (1,)
    return tuple(_of_size(size, old, new, old_rows, new_rows, budget_s / len(sizes)) for size in sizes)


def _of_size(size: int, old: Call, new: Call, old_rows: Table, new_rows: Table, budget_s: float) -> Latency:
    taken: tuple[list[float], list[float]] = ([], [])
    give_up_at_s = time.perf_counter() + budget_s
    for at in range(-2, _CALLS[size == 1]):
        start = max(at, 0) % (old_rows.rows - size + 1)
        for call, table, times in ((old, old_rows, taken[0]), (new, new_rows, taken[1])):
            part = table.take(start, start + size)
            begin_s = time.perf_counter()
            call(part)
            if at >= 0:  # the first calls fill caches
                times.append(time.perf_counter() - begin_s)
        if at >= 0 and time.perf_counter() > give_up_at_s:
            break
    (old_p50, old_p99), (new_p50, new_p99) = (np.quantile(times, (0.5, 0.99)) * 1e3 for times in taken)
    return Latency(
        size, len(taken[0]), float(old_p50), float(old_p99), float(new_p50), float(new_p99), float(new_p50 / old_p50),
        float(new_p99 / old_p99),
    )  # fmt: skip
