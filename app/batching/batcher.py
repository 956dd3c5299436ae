"""The batcher: runs a request at once while its model is idle, and in the next shared call while the model is busy.

There is no batching window and no timer. In a gevent worker the callers and the batch loop are greenlets of one hub;
elsewhere they are plain threads. Only the call itself runs in a native thread, and a cheap call does not even do that.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Generic, TypeVar

import msgspec

from tableside.batching.admission import refusal, waited_too_long
from tableside.batching.batch_metrics import BatchMetrics, NoBatchMetrics
from tableside.batching.cost import CostModel
from tableside.batching.isolation import run_timed
from tableside.batching.limits import RequestLimits
from tableside.batching.queue import BatchPolicy, DroppedRequests, DropReason, Queue, QueuedRequest, drop_error
from tableside.errors import DeadlineExceeded
from tableside.process.offload import Offload
from tableside.server.disconnect import is_disconnected

P = TypeVar("P")
R = TypeVar("R")

GATHER_ABOVE_S = 0.0001
"""Shorter calls are not delayed to share a call: joining and splitting the tables would take as long as they do."""
OVERDUE_S = 5.0
"""A call that runs so much longer than expected may never end. Other requests of the model do not wait for it then."""
_PROBE_EVERY = 16
_WORTH_GATHERING = 1.1
_SMOOTHING = 0.1
_MAX_CORRECTION = 5.0


class BatchedResult(msgspec.Struct, Generic[R], frozen=True):
    """The result of one request. queue_s: seconds in the queue. run_s: seconds of the call, which may be shared."""

    result: R
    queue_s: float
    run_s: float


class Batcher(Generic[P, R]):
    """The queue of one model and the loops that run its batches.

    policy: how requests wait and run. It may be replaced at any time; each admission and each batch reads it once.
    """

    def __init__(
        self, run: Callable[[Sequence[P]], list[R]], key_of: Callable[[P], Hashable | None],
        policy: BatchPolicy | None = None, clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """Make an idle batcher.

        run: returns one result for each item, in order; native threads call it. key_of: items with equal keys may share
        a call, and an item with the key None runs alone; not called where `policy.shares_calls` is false. clock: the
        current time in seconds.
        """
        self.policy = policy or BatchPolicy()
        self.metrics: BatchMetrics = NoBatchMetrics()
        self.cost = CostModel()
        self.setbacks: Callable[[], int] = lambda: 0
        """Returns how often something else delayed calls (a restarting model process); estimates skip such a call."""
        self._run = run
        self._key_of = key_of
        self._clock = clock
        self._lock = threading.Lock()
        self._queue: Queue[P, R] = Queue()
        self._loops = 0
        self._ends_at_s: list[float] = []
        self._mean_batch_requests = 1.0
        self._inline_calls = 0
        self._is_waiting = False  # an inline call has not returned yet: of a policy that waits, others run meanwhile
        self._correction = 1.0

    @property
    def queued_requests(self) -> int:
        """How many requests wait. Requests that run now are not counted."""
        return len(self._queue)

    def submit(self, item: P, rows: int, offload: Offload, request: RequestLimits) -> BatchedResult[R]:
        """Run one item of `rows` rows and wait for its result.

        Raises what `run` raises for this item alone; Overloaded if the request is not expected to be answered in time,
        and WaitedTooLong if that is because it waited outside of this process; DeadlineExceeded if its deadline passes;
        ClientClosedRequest if its client leaves while it waits.
        """
        now_s, policy = self._clock(), self.policy
        if now_s >= request.deadline_at_s:
            raise self._deadline_error(request)
        if request.may_inline and not (policy.waits and self._is_waiting):
            least_s = self.cost.least_s(rows)
            if least_s < policy.inline_below_s and self._is_inline(least_s, policy.shares_calls, now_s):
                return self._run_inline(item, rows, now_s)
        key = self._key_of(item) if policy.shares_calls else None
        job: QueuedRequest[P, R] = QueuedRequest(
            item, rows, key, now_s, request.deadline_at_s, request.connection, request.may_inline, request.budget_s,
            held=request.held,
        )  # fmt: skip
        if request.held is not None:
            request.held.waits()
        if self._enqueue(job, now_s, request):
            offload.spawn(partial(self._run_batches, offload))
        if not self._wait(job, offload, request.deadline_at_s - now_s) and not job.done.is_set():
            job.has_left = True
            if job.has_begun and job.held is not None:
                job.held.leave_behind()
            raise DeadlineExceeded(request.budget_s)
        if isinstance(job.outcome, Exception):
            try:
                raise job.outcome
            finally:
                del job  # the error's traceback names this frame: without this, it would keep its own table
        return BatchedResult(job.outcome, job.started_at_s - job.queued_at_s, job.ended_at_s - job.started_at_s)

    def check_room(self, request: RequestLimits) -> None:
        """Raise what `submit` would raise for a request of one row. Views call it before they read a body."""
        if len(self._queue):
            now_s = self._clock()
            if now_s >= request.deadline_at_s:
                raise self._deadline_error(request)
            with self._lock:
                self._admit(1, now_s, request, self.policy)

    def _wait(self, job: QueuedRequest[P, R], offload: Offload, left_s: float) -> bool:
        """Wait for a request's end. Return False after `left_s` seconds. Passes by a call that does not end."""
        while left_s > OVERDUE_S:
            if job.done.wait(OVERDUE_S):
                return True
            left_s -= OVERDUE_S
            with self._lock:
                starts = not job.has_begun and self._loops - self._overdue(self._clock()) < (
                    self.policy.max_concurrent_calls
                )
                self._loops += starts
            if starts:
                offload.spawn(partial(self._run_batches, offload))
        return job.done.wait(max(0.0, left_s))

    def _deadline_error(self, request: RequestLimits) -> Exception:
        """The deadline passed before `submit`: because of a queue outside this process, or because it was too short."""
        self._count_drop(DropReason.REFUSED if request.is_queued else DropReason.EXPIRED)
        return waited_too_long(request.waited_s, 0.0) if request.is_queued else DeadlineExceeded(request.budget_s)

    def _is_inline(self, least_s: float, shares_calls: bool, now_s: float) -> bool:
        """Whether a cheap call runs on the caller's greenlet: if no other request is likely to share it, or if the
        call that runs now takes much longer than this one would.
        """
        if not shares_calls or least_s < GATHER_ABOVE_S:
            return True
        if self._ends_at_s or len(self._queue):
            return self._overdue(now_s) > 0 or self._busy_s(now_s) > 10 * least_s + 0.01
        self._inline_calls += 1
        return self._mean_batch_requests < _WORTH_GATHERING and self._inline_calls % _PROBE_EVERY != 0

    def _run_inline(self, item: P, rows: int, now_s: float) -> BatchedResult[R]:
        setbacks, self._is_waiting = self.setbacks(), True
        try:
            result = self._run([item])[0]
        finally:
            self._is_waiting = False
        run_s = self._clock() - now_s
        if self.setbacks() == setbacks:
            self.cost.learn(rows, run_s)
        self.metrics.ran(rows)
        return BatchedResult(result, 0.0, run_s)

    def _enqueue(self, job: QueuedRequest[P, R], now_s: float, request: RequestLimits) -> bool:
        """Append the job to the queue. Return whether a batch loop has to be started for it."""
        with self._lock:
            policy = self.policy
            job.expected_s, job.was_first = self._admit(job.rows, now_s, request, policy)
            job.largest_size = self.cost.largest_size
            self._queue.push(job)
            rows = self._queue.rows
            starts = self._loops - self._overdue(now_s) < policy.max_concurrent_calls
            self._loops += starts
        self.metrics.waiting(rows)
        return starts

    def _admit(self, rows: int, now_s: float, request: RequestLimits, policy: BatchPolicy) -> tuple[float, bool]:
        """Return the expected seconds until the answer, and whether nothing is ahead.

        Raises Overloaded or WaitedTooLong.
        """
        total_s = self._busy_s(now_s) / policy.max_concurrent_calls + self._queue.drain_s(rows, policy, self.cost)
        total_s *= self._correction
        own_s = self.cost.proven_s(rows)
        is_behind = self._loops >= policy.max_concurrent_calls or len(self._queue) > 0
        reason = refusal(
            now_s, request.deadline_at_s, self._queue.rows, policy.max_queue_rows,
            max(0.0, total_s - own_s) if is_behind else None, own_s, request.waited_s if request.is_queued else 0.0,
        )  # fmt: skip
        if reason:
            self._count_drop(DropReason.REFUSED)
            reason.retry_after_s = max(1, math.ceil(total_s))
            try:
                raise reason
            finally:
                del reason  # as in `submit`: otherwise the refused request's table would wait for a garbage collection
        return total_s, not is_behind and not request.is_queued

    def _overdue(self, now_s: float) -> int:
        """How many calls run so much longer than expected that others do not wait for them any more."""
        return sum(now_s - end >= OVERDUE_S for end in self._ends_at_s)

    def _busy_s(self, now_s: float) -> float:
        return sum(max(0.0, end - now_s) for end in self._ends_at_s)

    def _run_batches(self, offload: Offload) -> None:
        while self._run_next_batch(offload):
            pass

    def _run_next_batch(self, offload: Offload) -> bool:
        """Run the next batch. Return False if nothing waits; this loop has then ended. Never raises."""
        now_s = self._clock()
        with self._lock:
            policy = self.policy
            for job in self._queue:
                job.abandoned = is_disconnected(job.connection)
            batch, dropped = self._queue.take(now_s, policy, self.cost)
            rows = sum(job.rows for job in batch)
            end_at_s = now_s + self.cost.proven_s(rows)
            if batch:
                self._ends_at_s.append(end_at_s)
            else:
                self._loops -= 1
            waiting = self._queue.rows
        # `may_inline` of every request in the batch counts, not only that of the request that started this loop.
        is_quick = policy.waits or self.cost.least_s(rows) < policy.inline_below_s
        inline = bool(batch) and is_quick and all(j.may_inline for j in batch)
        self._drop(dropped, now_s)
        with suppress(Exception):  # an error of the metrics must not end the loop
            self.metrics.waiting(waiting)
        if batch:
            for job in batch:
                job.has_begun = True
                if job.held is not None:
                    job.held.computes()
            self._run_batch(batch, rows, offload, inline, end_at_s)
        if inline:
            offload.pause()
        return bool(batch)

    def _run_batch(
        self, batch: list[QueuedRequest[P, R]], rows: int, offload: Offload, inline: bool, end_at_s: float
    ) -> None:
        work = partial(run_timed, [job.item for job in batch], self._run, self._clock)
        setbacks = self.setbacks()
        outcomes: Sequence[R | Exception]
        try:
            outcomes, calls, started_at_s, ended_at_s = work() if inline else offload.call(work)
        except Exception as problem:  # noqa: BLE001 - no thread or no memory left: each request of the batch fails
            outcomes, calls, ended_at_s = [problem] * len(batch), 0, self._clock()
            started_at_s = ended_at_s
        with self._lock:
            self._ends_at_s.remove(end_at_s)
        is_usual = self.setbacks() == setbacks
        if calls == 1 and is_usual:
            self.cost.learn(rows, ended_at_s - started_at_s)
        if batch[0].key is not None:
            self._mean_batch_requests += _SMOOTHING * 3 * (len(batch) - self._mean_batch_requests)
        for job, outcome in zip(batch, outcomes, strict=True):
            job.started_at_s, job.ended_at_s, job.outcome = started_at_s, ended_at_s, outcome
            if is_usual and not isinstance(outcome, Exception):  # an early error means little about the cost
                self._correct_estimate(job, ended_at_s)
            job.done.set()
            if job.has_left and job.held is not None:
                job.held.call_ended()
        with suppress(Exception):
            self.metrics.ran(rows)

    def _correct_estimate(self, job: QueuedRequest[P, R], now_s: float) -> None:
        """Compare expected and actual time. The correction rises fast and falls slowly, so that it errs on the side of
        refusing a request early. What was expected before a larger call was measured is not compared.
        """
        if job.expected_s > 0.001 and job.largest_size == self.cost.largest_size:
            actual = self._correction * (now_s - job.queued_at_s) / job.expected_s
            weight = 2 * _SMOOTHING if actual > self._correction else _SMOOTHING / 2
            self._correction = min(_MAX_CORRECTION, max(1.0, self._correction + weight * (actual - self._correction)))

    def _count_drop(self, reason: DropReason) -> None:
        with suppress(Exception):  # an error of the metrics must not change what the client gets
            self.metrics.dropped(reason)

    def _drop(self, dropped: DroppedRequests[P, R], now_s: float) -> None:
        for job, reason in dropped:
            self._count_drop(reason)
            job.outcome = drop_error(job, reason)
            if reason is not DropReason.ABANDONED:
                self._correct_estimate(job, max(now_s, job.deadline_at_s))
            job.done.set()
