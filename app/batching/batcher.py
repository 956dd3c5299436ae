"""Batch while busy: a request runs at once when its model is idle, and joins the next call when it is not.

No window and no timer. Callers and the serving loop are greenlets of one hub in a worker, plain threads elsewhere; only
the call itself runs in a native thread, and not even that when it is cheap.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from tableside.batching.cost import CostModel
from tableside.batching.isolation import run_isolated
from tableside.batching.queue import BatchPolicy, DroppedRequests, DropReason, Queue, QueuedRequest, refusal
from tableside.errors import ClientClosedRequest, DeadlineExceeded, Overloaded
from tableside.process.offload import Offload
from tableside.server.disconnect import HasDescriptor, is_disconnected

P = TypeVar("P")
R = TypeVar("R")

GATHER_ABOVE_S = 0.0001
"""Cheaper calls are not worth gathering neighbours for: merging and splitting would cost as much."""
WAITED_S = 0.05
_PROBE_EVERY = 16
_WORTH_GATHERING = 1.1
_SMOOTHING = 0.1
_MAX_BIAS = 5.0


class BatchMetrics(Protocol):
    """Where the batcher says what it does. Called on the hub, never from native threads."""

    def ran(self, rows: int) -> None:
        """The estimator was called with `rows` rows."""

    def waiting(self, rows: int) -> None:
        """So many rows wait now."""

    def dropped(self, reason: DropReason) -> None:
        """A request was not given to the estimator."""


class NoBatchMetrics:
    """Says nothing."""

    def ran(self, rows: int) -> None:
        """See BatchMetrics."""

    def waiting(self, rows: int) -> None:
        """See BatchMetrics."""

    def dropped(self, reason: DropReason) -> None:
        """See BatchMetrics."""


class RequestLimits(msgspec.Struct, frozen=True):
    """What one request sets for itself, whoever runs its batch.

    deadline_at_s: on the monotonic clock. budget_s: all the time it was given, for the error that names it.
    waited_s: how long it waited before this process saw it; past WAITED_S there is a queue that we do not see.
    may_inline: whether its call may run on the event loop when it is cheap. connection: its client's socket, to see
    whether the client has left.
    """

    deadline_at_s: float
    budget_s: float = 0.0
    waited_s: float = 0.0
    may_inline: bool = True
    connection: HasDescriptor | None = None

    @property
    def is_queued(self) -> bool:
        """Whether others were ahead of it before it came here."""
        return self.waited_s > WAITED_S


class BatchedResult(msgspec.Struct, Generic[R], frozen=True):
    """queue_s, run_s: seconds waited, and in the call (which may have answered others, too)."""

    result: R
    queue_s: float
    run_s: float


class Batcher(Generic[P, R]):
    """The queue of one model.

    policy: how requests wait and run. Store another one to change it: each admission and each batch reads it once.
    """

    def __init__(
        self, run: Callable[[Sequence[P]], list[R]], key_of: Callable[[P], Hashable | None],
        policy: BatchPolicy | None = None,
    ) -> None:  # fmt: skip
        """run: answers several items by one call, in order, also from native threads. key_of: items of equal keys may
        share a call; None: the item runs alone. It is not called where `policy.merges` is false.
        """
        self.policy = policy or BatchPolicy()
        self.metrics: BatchMetrics = NoBatchMetrics()
        self.cost = CostModel()
        self._run = run
        self._key_of = key_of
        self._lock = threading.Lock()
        self._queue = Queue()
        self._running = 0
        self._ends_at_s: list[float] = []
        self._mean_batch_requests = 1.0
        self._inline_calls = 0
        self._bias = 1.0

    def submit(self, item: P, rows: int, offload: Offload, request: RequestLimits) -> BatchedResult[R]:
        """Answer one item of `rows` rows.

        Raises what `run` raises for this item alone, Overloaded when it could not be answered in time, DeadlineExceeded
        when it was not, ClientClosedRequest when nobody waits for it any more.
        """
        now_s, policy = time.monotonic(), self.policy
        if now_s >= request.deadline_at_s:
            raise self._too_late(request)
        if request.may_inline:
            least_s = self.cost.least_s(rows)
            if least_s < policy.inline_below_s and self._is_inline(least_s, policy.shares_calls, now_s):
                return self._run_inline(item, rows, now_s)
        key = self._key_of(item) if policy.shares_calls else None
        job = QueuedRequest(
            item, rows, key, now_s, request.deadline_at_s, request.connection, request.may_inline, request.budget_s
        )
        if self._enter(job, now_s, request):
            offload.spawn(partial(self._serve, offload))
        if not job.done.wait(max(0.0, request.deadline_at_s - now_s)) and not job.done.is_set():
            job.left = True
            raise DeadlineExceeded(request.budget_s)
        if job.error is not None:
            raise job.error
        return BatchedResult(job.result, job.started_at_s - job.queued_at_s, job.ended_at_s - job.started_at_s)

    def check_room(self, request: RequestLimits) -> None:
        """Raise Overloaded when not even one more row would be let in: before a body is read."""
        if len(self._queue):
            with self._lock:
                self._admit(1, time.monotonic(), request, self.policy)

    def _too_late(self, request: RequestLimits) -> Exception:
        """What a request is told whose time was over when it came: that there was a queue, or too little time."""
        self._count(DropReason.REFUSED if request.is_queued else DropReason.EXPIRED)
        if request.is_queued:
            return Overloaded("the request's time was over before a worker could begin with it")
        return DeadlineExceeded(request.budget_s)

    def _is_inline(self, least_s: float, batched: bool, now_s: float) -> bool:
        """Whether a cheap call is made on the caller's greenlet: when no neighbour is to be expected, or when the call
        that runs now takes so long that waiting for it would be silly.
        """
        if not batched or least_s < GATHER_ABOVE_S:
            return True
        if self._ends_at_s or len(self._queue):
            return self._busy_s(now_s) > 10 * least_s + 0.01
        self._inline_calls += 1
        return self._mean_batch_requests < _WORTH_GATHERING and self._inline_calls % _PROBE_EVERY != 0

    def _run_inline(self, item: P, rows: int, now_s: float) -> BatchedResult[R]:
        result = self._run([item])[0]
        run_s = time.monotonic() - now_s
        self.cost.learn(rows, run_s)
        self.metrics.ran(rows)
        return BatchedResult(result, 0.0, run_s)

    def _enter(self, job: QueuedRequest, now_s: float, request: RequestLimits) -> bool:
        """Let the job into the queue. Returns whether a batch loop has to be started for it."""
        with self._lock:
            policy = self.policy
            job.expected_s, job.tried = self._admit(job.rows, now_s, request, policy)
            self._queue.push(job)
            rows = self._queue.rows
            starts = self._running < policy.max_concurrent_calls
            self._running += starts
        self.metrics.waiting(rows)
        return starts

    def _admit(self, rows: int, now_s: float, request: RequestLimits, policy: BatchPolicy) -> tuple[float, bool]:
        """What the answer should take, and whether none is ahead. Raises Overloaded."""
        total_s = self._busy_s(now_s) / policy.max_concurrent_calls + self._queue.drain_s(rows, policy, self.cost)
        own_s = self.cost.typical_s(rows)
        own_s = 0.0 if math.isinf(own_s) else own_s
        total_s *= self._bias
        ahead = self._running >= policy.max_concurrent_calls or len(self._queue) > 0 or request.is_queued
        wait_s = max(total_s - own_s, 1e-9) if ahead else 0.0
        why = refusal(now_s, request.deadline_at_s, self._queue.rows, rows, policy, wait_s, own_s)
        if why:
            self._count(DropReason.REFUSED)
            raise Overloaded(why, max(1, math.ceil(total_s)))
        return total_s, not ahead

    def _busy_s(self, now_s: float) -> float:
        return sum(max(0.0, end - now_s) for end in self._ends_at_s)

    def _serve(self, offload: Offload) -> None:
        """Run batches until none waits."""
        while self._serve_once(offload):
            pass

    def _serve_once(self, offload: Offload) -> bool:
        """Run the next batch. False when none waits: then this loop no longer counts as running. Never raises."""
        now_s = time.monotonic()
        with self._lock:
            policy = self.policy
            for job in self._queue:
                job.abandoned = is_disconnected(job.connection)
            batch, dropped = self._queue.take(now_s, policy, self.cost)
            rows = sum(job.rows for job in batch)
            expected_s = self.cost.typical_s(rows) if batch else 0.0
            end_at_s = now_s + (0.0 if math.isinf(expected_s) else expected_s)
            if batch:
                self._ends_at_s.append(end_at_s)
            else:
                self._running -= 1
            waiting = self._queue.rows
        # Each request's own limit counts, not that of the one that began the loop.
        here = bool(batch) and self.cost.least_s(rows) < policy.inline_below_s and all(job.may_inline for job in batch)
        self._drop(dropped, now_s)
        with suppress(Exception):  # a full disk of metrics must not end the loop
            self.metrics.waiting(waiting)
        if batch:
            self._run_batch(batch, rows, offload, here, end_at_s)
        if here:
            offload.pause()
        return bool(batch)

    def _run_batch(self, batch: list[QueuedRequest], rows: int, offload: Offload, here: bool, end_at_s: float) -> None:
        work = partial(_work, batch, self._run)
        try:
            outcomes, calls, started_at_s, ended_at_s = work() if here else offload.call(work)
        except Exception as problem:  # noqa: BLE001 - no thread to be had, no memory: every job learns it
            outcomes, calls, ended_at_s = [problem] * len(batch), 0, time.monotonic()
            started_at_s = ended_at_s
        with self._lock:
            self._ends_at_s.remove(end_at_s)
        if calls == 1:
            self.cost.learn(rows, ended_at_s - started_at_s)
        if batch[0].key is not None:
            self._mean_batch_requests += _SMOOTHING * 3 * (len(batch) - self._mean_batch_requests)
        for job, outcome in zip(batch, outcomes, strict=True):
            job.started_at_s, job.ended_at_s = started_at_s, ended_at_s
            self._settle(job, outcome)
        with suppress(Exception):
            self.metrics.ran(rows)

    def _settle(self, job: QueuedRequest, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            job.error = outcome
        else:
            job.result = outcome
            self._correct(job, job.ended_at_s)
        job.done.set()

    def _correct(self, job: QueuedRequest, now_s: float) -> None:
        """Compare what a request was expected to take with what it took: quick to become careful, slow to forget."""
        if job.expected_s > 0.001:
            actual = self._bias * (now_s - job.queued_at_s) / job.expected_s
            weight = 2 * _SMOOTHING if actual > self._bias else _SMOOTHING / 2
            self._bias = min(_MAX_BIAS, max(1.0, self._bias + weight * (actual - self._bias)))

    def _count(self, reason: DropReason) -> None:
        with suppress(Exception):  # what cannot be counted is dropped all the same
            self.metrics.dropped(reason)

    def _drop(self, dropped: DroppedRequests, now_s: float) -> None:
        for job, reason in dropped:
            self._count(reason)
            if reason is DropReason.ABANDONED:
                job.error = ClientClosedRequest()
            elif reason is DropReason.EXPIRED:
                job.error = DeadlineExceeded(job.budget_s)
            else:
                job.error = Overloaded("others took longer than expected: the answer would have come too late")
            if reason is not DropReason.ABANDONED:
                self._correct(job, max(now_s, job.deadline_at_s))
            job.done.set()


def _work(batch: list[QueuedRequest], run: Callable[[Sequence[Any]], list[Any]]) -> tuple[list[Any], int, float, float]:
    """Outcomes, calls that it took, and when it began and ended. Runs in a native thread: no locks, no metrics."""
    calls = 0

    def counted(items: Sequence[Any]) -> list[Any]:
        nonlocal calls
        calls += 1
        return run(items)

    started_at_s = time.monotonic()
    outcomes = run_isolated([job.item for job in batch], counted)
    return outcomes, calls, started_at_s, time.monotonic()
