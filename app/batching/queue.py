"""The queue of one model: which waiting requests run next, and which are dropped.

Everything here is pure: the current time is an argument, so that tests need no clock.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Generic, TypeVar

import msgspec

from tableside.batching.admission import too_late
from tableside.batching.cost import CostModel
from tableside.errors import ClientClosedRequest, DeadlineExceeded, Overloaded
from tableside.process.worker_hand import Held
from tableside.server.disconnect import HasDescriptor

P = TypeVar("P")
R = TypeVar("R")

MAX_BATCH_S = 0.1
"""A batch is not filled beyond this expected duration, or beyond twice that of its first request alone if that is more:
where rows are this expensive, a larger batch saves little time and delays all of its requests.
"""


class DropReason(StrEnum):
    """Why a request never reached the estimator; the label `reason` of the metric `tableside_dropped_total`."""

    EXPIRED = "expired"
    ABANDONED = "abandoned"
    REFUSED = "refused"


class BatchPolicy(msgspec.Struct, frozen=True):
    """How the requests of one model wait and run. A reload makes a new policy and replaces the old one.

    max_batch_rows: the most rows of a shared call. max_queue_rows: the most rows that may wait.
    max_concurrent_calls: how many calls may run at the same time. shares_calls: whether requests may share a call.
    inline_below_s: calls that are expected to be shorter run on the event loop; 0 runs every call in a native thread.
    waits: whether a call waits for another process instead of computing here; it then runs on the event loop, and other
    requests are answered meanwhile.
    """

    max_batch_rows: int = 1024
    max_queue_rows: int = 10_000
    max_concurrent_calls: int = 1
    shares_calls: bool = True
    inline_below_s: float = 0.0
    waits: bool = False


@dataclass(eq=False, slots=True)
class QueuedRequest(Generic[P, R]):
    """One waiting request.

    key: requests with equal keys may share a call; None means that the request runs alone.
    connection: the socket of the client, or None if there is none. abandoned: the client has closed it.
    may_inline: whether the call may run on the event loop. budget_s: the whole time that the request was allowed.
    expected_s: the expected time until the answer. largest_size: of the cost model when that was estimated. was_first:
    no request was ahead when this one came; it runs even if it is expected to be late.
    has_left: the caller has stopped waiting. has_begun: its call has begun. held: where it is recorded as in hand.
    outcome: the result or the exception; it is set before `done` is.
    """

    item: P
    rows: int
    key: Hashable | None
    queued_at_s: float
    deadline_at_s: float
    connection: HasDescriptor | None = None
    may_inline: bool = True
    budget_s: float = 0.0
    expected_s: float = 0.0
    largest_size: int = 0
    was_first: bool = False
    has_left: bool = False
    has_begun: bool = False
    held: Held | None = None
    abandoned: bool = False
    done: threading.Event = field(default_factory=threading.Event)
    outcome: R | Exception = field(init=False)
    started_at_s: float = 0.0
    ended_at_s: float = 0.0


DroppedRequests = list[tuple[QueuedRequest[P, R], DropReason]]


class Queue(Generic[P, R]):
    """Waiting requests in order of arrival. `rows` is the sum of their rows."""

    def __init__(self) -> None:
        self._jobs: deque[QueuedRequest[P, R]] = deque()
        self.rows = 0

    def __len__(self) -> int:
        return len(self._jobs)

    def __iter__(self) -> Iterator[QueuedRequest[P, R]]:
        return iter(self._jobs)

    def push(self, job: QueuedRequest[P, R]) -> None:
        """Append a request."""
        self._jobs.append(job)
        self.rows += job.rows

    def take(
        self, now_s: float, policy: BatchPolicy, cost: CostModel
    ) -> tuple[list[QueuedRequest[P, R]], DroppedRequests[P, R]]:
        """Remove the next batch, and the requests to drop. Return both.

        The oldest request leads the batch; requests with its key join it in order until one does not fit. Dropped are
        requests whose deadline has passed, whose client has left, or that can no longer be answered in time. All other
        requests stay in the queue.
        """
        builder: _BatchBuilder[P, R] = _BatchBuilder(now_s, policy, cost)
        staying: list[QueuedRequest[P, R]] = []
        dropped: DroppedRequests[P, R] = []
        for job in self._jobs:
            reason = _expired_or_abandoned(job, now_s) or builder.refusal_of(job)
            if reason is not None:
                dropped.append((job, reason))
            elif not builder.add(job):
                staying.append(job)
        end_s = now_s + builder.expected_s
        for job in staying:  # some would be late even if they ran right after this batch
            if not job.was_first and too_late(end_s, cost.proven_s(job.rows), job.deadline_at_s):
                dropped.append((job, DropReason.REFUSED))
        dropped_ids = {id(job) for job, _ in dropped}
        self._jobs = deque(job for job in staying if id(job) not in dropped_ids)
        self.rows = sum(job.rows for job in self._jobs)
        return builder.batch, dropped

    def drain_s(self, rows: int, policy: BatchPolicy, cost: CostModel) -> float:
        """Return the expected seconds to run all waiting requests and one more of `rows` rows, as far as measured.

        Returns 0 while no cost is known.
        """
        if not policy.shares_calls:
            waiting_s = sum(cost.proven_s(job.rows) for job in self._jobs)
            return (waiting_s + cost.proven_s(rows)) / policy.max_concurrent_calls
        full, rest = divmod(self.rows + rows, policy.max_batch_rows)
        return full * cost.proven_s(policy.max_batch_rows) + (cost.proven_s(rest) if rest else 0.0)


def drop_error(job: QueuedRequest[P, R], reason: DropReason) -> Exception:
    """Return the error that a dropped request gets."""
    if reason is DropReason.ABANDONED:
        return ClientClosedRequest()
    if reason is DropReason.EXPIRED:
        return DeadlineExceeded(job.budget_s)
    return Overloaded(
        "earlier requests took longer than expected and the answer would be too late; send it again later"
    )


def _expired_or_abandoned(job: QueuedRequest[P, R], now_s: float) -> DropReason | None:
    if job.has_left or now_s >= job.deadline_at_s:
        return DropReason.EXPIRED
    return DropReason.ABANDONED if job.abandoned else None


def _or_zero(seconds: float) -> float:
    return 0.0 if math.isinf(seconds) else seconds


class _BatchBuilder(Generic[P, R]):
    """A batch while it is being filled."""

    def __init__(self, now_s: float, policy: BatchPolicy, cost: CostModel) -> None:
        self.batch: list[QueuedRequest[P, R]] = []
        self.expected_s = 0.0
        self._now_s, self._policy, self._cost = now_s, policy, cost
        self._rows = 0
        self._is_full = False
        self._earliest_deadline_s = math.inf

    def refusal_of(self, job: QueuedRequest[P, R]) -> DropReason | None:
        late = too_late(self._now_s, self._cost.proven_s(job.rows), job.deadline_at_s)
        return DropReason.REFUSED if late and not job.was_first else None

    def add(self, job: QueuedRequest[P, R]) -> bool:
        """Add the request if it fits. A request of the batch's key that does not fit closes the batch, so that no later
        request of that key overtakes it.
        """
        if self._is_full or (self.batch and (job.key is None or job.key != self.batch[0].key)):
            return False
        rows = self._rows + job.rows
        expected_s = self._cost.typical_s(rows)
        if self.batch and not self._has_room(rows, expected_s, job):
            self._is_full = True
            return False
        self.batch.append(job)
        self._rows, self.expected_s = rows, _or_zero(expected_s)
        self._earliest_deadline_s = min(self._earliest_deadline_s, job.deadline_at_s)
        self._is_full = job.key is None or rows >= self._policy.max_batch_rows
        return True

    def _has_room(self, rows: int, expected_s: float, job: QueuedRequest[P, R]) -> bool:
        if rows > self._policy.max_batch_rows:
            return False
        if expected_s > max(MAX_BATCH_S, 2 * self._cost.typical_s(self.batch[0].rows)):
            return False
        return not too_late(self._now_s, _or_zero(expected_s), min(self._earliest_deadline_s, job.deadline_at_s))
