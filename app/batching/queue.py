"""The waiting requests of one model, and the decisions about them. Pure: time comes in as a value."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from app.batching.cost import Cost

LONGEST_S = 0.1
"""A batch is not filled beyond what is expected to take this long, or twice as long as its first request alone: where
rows are that dear, more of them would save little and make all wait.
"""


class Dropped(StrEnum):
    """Why a request was not given to the estimator."""

    EXPIRED = "expired"
    ABANDONED = "abandoned"
    REFUSED = "refused"


@dataclass(frozen=True)
class Limits:
    """max_batch_rows: rows of one merged call. max_queue_rows: rows that may wait. lanes: calls at once."""

    max_batch_rows: int
    max_queue_rows: int
    lanes: int = 1


@dataclass(eq=False, slots=True)
class Job:
    """One request that waits. key: requests of equal keys may share a call; None: it runs alone.

    gone: whether its client has left. budget_s: all the time it was given.
    expected_s: what its wait and its own call were expected to take.
    result, error: its outcome, once `done` is set.
    """

    item: Any
    rows: int
    key: Hashable | None
    queued_at_s: float
    deadline_at_s: float
    gone: Callable[[], bool]
    budget_s: float = 0.0
    expected_s: float = 0.0
    left: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: Exception | None = None
    started_at_s: float = 0.0
    ended_at_s: float = 0.0


Drops = list[tuple[Job, Dropped]]


class Queue:
    """Jobs in the order they came. `rows`: how many rows wait; `alone_s`: what they would cost one by one."""

    def __init__(self) -> None:
        self._jobs: deque[Job] = deque()
        self.rows = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def push(self, job: Job) -> None:
        """Put a job at the end."""
        self._jobs.append(job)
        self.rows += job.rows

    def take(self, now_s: float, limits: Limits, cost: Cost) -> tuple[list[Job], Drops]:
        """The next jobs to run as one call, oldest first, and those that are dropped because nobody wants them.

        The oldest job leads; those of its key join it in their order until one does not fit. The others stay.
        """
        batch: list[Job] = []
        dropped: Drops = []
        stay: deque[Job] = deque()
        rows, full = 0, False
        while self._jobs and not full:
            job = self._jobs.popleft()
            reason = _unwanted(job, now_s)
            if reason is not None:
                self.rows -= job.rows
                dropped.append((job, reason))
            elif not batch or (job.key == batch[0].key and _fits(rows + job.rows, batch[0].rows, limits, cost)):
                batch.append(job)
                rows += job.rows
                full = job.key is None or rows >= limits.max_batch_rows
            else:
                stay.append(job)
                full = job.key == batch[0].key
        stay.extend(self._jobs)
        self._jobs = stay
        self.rows -= rows
        return batch, dropped

    def drain_s(self, rows: int, limits: Limits, cost: Cost, merged: bool) -> float:
        """How long the waiting jobs and one more of `rows` rows should take; 0 while nothing is known of the cost."""
        if math.isinf(cost.typical_s(1)):
            return 0.0
        if not merged:
            return (sum(cost.typical_s(job.rows) for job in self._jobs) + cost.typical_s(rows)) / limits.lanes
        full, rest = divmod(self.rows + rows, limits.max_batch_rows)
        return full * cost.typical_s(limits.max_batch_rows) + (cost.typical_s(rest) if rest else 0.0)


def _unwanted(job: Job, now_s: float) -> Dropped | None:
    if job.left or now_s >= job.deadline_at_s:
        return Dropped.EXPIRED
    return Dropped.ABANDONED if job.gone() else None


def _fits(rows: int, first_rows: int, limits: Limits, cost: Cost) -> bool:
    if rows > limits.max_batch_rows:
        return False
    return cost.typical_s(rows) <= max(LONGEST_S, 2 * cost.typical_s(first_rows))


def refusal(
    now_s: float, deadline_at_s: float, queued_rows: int, rows: int, limits: Limits, wait_s: float, own_s: float
) -> str:
    """Why a request is not let in; empty when it is. wait_s: expected before its call; own_s: its call.

    Where nothing is ahead it is always let in: only trying shows whether a dear call meets its deadline.
    """
    if queued_rows and queued_rows + rows > limits.max_queue_rows:
        return f"{queued_rows} rows wait for this model already (predict.max_queue_rows is {limits.max_queue_rows})"
    if wait_s > 0 and now_s + wait_s + own_s > deadline_at_s:
        return f"the answer would take about {wait_s + own_s:.2g} s, longer than the request has"
    return ""
