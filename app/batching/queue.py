"""The waiting requests of one model, and the decisions about them. Pure: time comes in as a value."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec

from tableside.batching.cost import CostModel
from tableside.server.disconnect import HasDescriptor

MAX_BATCH_S = 0.1
"""A batch is not filled beyond what is expected to take this long, or twice as long as its first request alone: where
rows are that dear, more of them would save little and make all wait.
"""
USABLE_DEADLINE_SHARE = 0.75
"""How much of a request's time may be planned with; the rest is for what no estimate knows."""


class DropReason(StrEnum):
    """Why a request was not given to the estimator."""

    EXPIRED = "expired"
    ABANDONED = "abandoned"
    REFUSED = "refused"


class BatchPolicy(msgspec.Struct, frozen=True):
    """How the requests of one model wait and run. Made anew at each reload, and replaced as a whole.

    max_batch_rows: rows of one batched call. max_queue_rows: rows that may wait. max_concurrent_calls: calls at once.
    shares_calls: whether requests may share a call. inline_below_s: cheaper calls run on the event loop; 0: none does.
    """

    max_batch_rows: int = 1024
    max_queue_rows: int = 10_000
    max_concurrent_calls: int = 1
    shares_calls: bool = True
    inline_below_s: float = 0.0


@dataclass(eq=False, slots=True)
class QueuedRequest:
    """One request that waits. key: requests of equal keys may share a call; None: it runs alone.

    connection: its client's socket, None where there is none; abandoned: the client has closed it.
    may_inline: whether its call may run on the event loop. budget_s: all the time it was given.
    expected_s: what its wait and its own call were expected to take. tried: it was let in because none was ahead, and
    is run even if it seems to take too long.
    result, error: its outcome, once `done` is set.
    """

    item: Any
    rows: int
    key: Hashable | None
    queued_at_s: float
    deadline_at_s: float
    connection: HasDescriptor | None = None
    may_inline: bool = True
    budget_s: float = 0.0
    expected_s: float = 0.0
    tried: bool = False
    left: bool = False
    abandoned: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    result: Any = None
    error: Exception | None = None
    started_at_s: float = 0.0
    ended_at_s: float = 0.0


DroppedRequests = list[tuple[QueuedRequest, DropReason]]


class Queue:
    """Jobs in the order they came. `rows`: how many rows wait; `alone_s`: what they would cost one by one."""

    def __init__(self) -> None:
        self._jobs: deque[QueuedRequest] = deque()
        self.rows = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[QueuedRequest]:
        return iter(self._jobs)

    def push(self, job: QueuedRequest) -> None:
        """Put a job at the end."""
        self._jobs.append(job)
        self.rows += job.rows

    def take(self, now_s: float, policy: BatchPolicy, cost: CostModel) -> tuple[list[QueuedRequest], DroppedRequests]:
        """The next jobs to run as one call, oldest first, and those that are dropped: nobody wants them any more, or
        they cannot be answered in time.

        The oldest job leads; those of its key join it in their order until one does not fit. The others stay.
        """
        filling = _BatchBuilder(now_s, policy, cost)
        stay: list[QueuedRequest] = []
        dropped: DroppedRequests = []
        for job in self._jobs:
            reason = _unwanted(job, now_s) or filling.refuses(job)
            if reason is not None:
                dropped.append((job, reason))
            elif not filling.takes(job):
                stay.append(job)
        end_s = now_s + filling.takes_s
        for job in stay:  # who could not even be next
            if not job.tried and _too_late(end_s, _known(cost.typical_s(job.rows)), job.deadline_at_s):
                dropped.append((job, DropReason.REFUSED))
        lost = {id(job) for job, _ in dropped}
        self._jobs = deque(job for job in stay if id(job) not in lost)
        self.rows = sum(job.rows for job in self._jobs)
        return filling.batch, dropped

    def drain_s(self, rows: int, policy: BatchPolicy, cost: CostModel) -> float:
        """How long the waiting jobs and one more of `rows` rows should take; 0 while nothing is known of the cost."""
        if math.isinf(cost.typical_s(1)):
            return 0.0
        if not policy.shares_calls:
            return (
                sum(cost.typical_s(job.rows) for job in self._jobs) + cost.typical_s(rows)
            ) / policy.max_concurrent_calls
        full, rest = divmod(self.rows + rows, policy.max_batch_rows)
        return full * cost.typical_s(policy.max_batch_rows) + (cost.typical_s(rest) if rest else 0.0)


def _unwanted(job: QueuedRequest, now_s: float) -> DropReason | None:
    if job.left or now_s >= job.deadline_at_s:
        return DropReason.EXPIRED
    return DropReason.ABANDONED if job.abandoned else None


def _known(seconds: float) -> float:
    return 0.0 if math.isinf(seconds) else seconds


def _too_late(now_s: float, takes_s: float, deadline_at_s: float) -> bool:
    """Whether what is begun now may well end too late: only SHARE of the time may be planned with."""
    return takes_s > USABLE_DEADLINE_SHARE * (deadline_at_s - now_s)


class _BatchBuilder:
    """A batch that is being filled."""

    def __init__(self, now_s: float, policy: BatchPolicy, cost: CostModel) -> None:
        self.batch: list[QueuedRequest] = []
        self.takes_s = 0.0
        self._now_s, self._policy, self._cost = now_s, policy, cost
        self._rows = 0
        self._full = False
        self._must_end_s = math.inf

    def refuses(self, job: QueuedRequest) -> DropReason | None:
        """A job that would be late even if it were run now, unless none was ahead of it when it came."""
        late = _too_late(self._now_s, _known(self._cost.typical_s(job.rows)), job.deadline_at_s)
        return DropReason.REFUSED if late and not job.tried else None

    def takes(self, job: QueuedRequest) -> bool:
        """Whether the job goes into the batch; one of the batch's key that does not makes it full."""
        if self._full or (self.batch and (job.key is None or job.key != self.batch[0].key)):
            return False
        rows = self._rows + job.rows
        takes_s = self._cost.typical_s(rows)
        if self.batch and not self._has_room(rows, takes_s, job):
            self._full = True
            return False
        self.batch.append(job)
        self._rows, self.takes_s = rows, _known(takes_s)
        self._must_end_s = min(self._must_end_s, job.deadline_at_s)
        self._full = job.key is None or rows >= self._policy.max_batch_rows
        return True

    def _has_room(self, rows: int, takes_s: float, job: QueuedRequest) -> bool:
        if rows > self._policy.max_batch_rows:
            return False
        if takes_s > max(MAX_BATCH_S, 2 * self._cost.typical_s(self.batch[0].rows)):
            return False
        return not _too_late(self._now_s, _known(takes_s), min(self._must_end_s, job.deadline_at_s))


def refusal(
    now_s: float, deadline_at_s: float, queued_rows: int, rows: int, policy: BatchPolicy, wait_s: float, own_s: float
) -> str:
    """Why a request is not let in; empty when it is. wait_s: expected before its call; own_s: its call.

    Where nothing is ahead it is always let in: only trying shows whether a dear call meets its deadline. Else what is
    expected must fit into SHARE of its time.
    """
    if queued_rows and queued_rows + rows > policy.max_queue_rows:
        return f"{queued_rows} rows wait for this model already (predict.max_queue_rows is {policy.max_queue_rows})"
    if wait_s > 0 and _too_late(now_s, wait_s + own_s, deadline_at_s):
        return f"the answer would take about {wait_s + own_s:.2g} s, longer than the request has"
    return ""
