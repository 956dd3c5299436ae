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

from app.batching.cost import Cost
from app.batching.isolate import run_isolated
from app.batching.queue import Dropped, Drops, Job, Limits, Queue, refusal
from app.concurrency.offload import Offload
from app.errors import ClientGone, DeadlineExceeded, Overloaded

P = TypeVar("P")
R = TypeVar("R")

GATHER_ABOVE_S = 0.0001
"""Cheaper calls are not worth gathering neighbours for: merging and splitting would cost as much."""
WAITED_S = 0.05
_PROBE_EVERY = 16
_CROWDED = 1.1
_SMOOTHING = 0.1
_MOST_BIAS = 5.0


class Meter(Protocol):
    """Where the batcher says what it does. Called on the hub, never from native threads."""

    def ran(self, rows: int) -> None:
        """The estimator was called with `rows` rows."""

    def waiting(self, rows: int) -> None:
        """So many rows wait now."""

    def dropped(self, reason: Dropped) -> None:
        """A request was not given to the estimator."""


class Silent:
    """Says nothing."""

    def ran(self, rows: int) -> None:
        """See Meter."""

    def waiting(self, rows: int) -> None:
        """See Meter."""

    def dropped(self, reason: Dropped) -> None:
        """See Meter."""


def stays() -> bool:
    """A client that never leaves."""
    return False


class Terms(msgspec.Struct, frozen=True):
    """deadline_at_s: on the monotonic clock. inline_below_s: cheaper calls run on the hub. gone: has the client left?

    budget_s: all the time it was given, for the error that names it. waited_s: how long it waited before this process
    saw it; past WAITED_S there is a queue that we do not see.
    """

    limits: Limits
    deadline_at_s: float
    inline_below_s: float
    gone: Callable[[], bool] = stays
    waited_s: float = 0.0
    budget_s: float = 0.0

    @property
    def is_queued(self) -> bool:
        """Whether others were ahead of it before it came here."""
        return self.waited_s > WAITED_S


class Answered(msgspec.Struct, Generic[R], frozen=True):
    """queue_s, run_s: seconds waited, and in the call (which may have answered others, too)."""

    result: R
    queue_s: float
    run_s: float


class Batcher(Generic[P, R]):
    """The queue of one model. `run` answers several items by one call, in order, also from native threads."""

    def __init__(self, run: Callable[[Sequence[P]], list[R]]) -> None:
        self.meter: Meter = Silent()
        self.cost = Cost()
        self._run = run
        self._lock = threading.Lock()
        self._queue = Queue()
        self._running = 0
        self._ends_at_s: list[float] = []
        self._crowd = 1.0
        self._alone = 0
        self._bias = 1.0

    def ask(
        self, item: P, rows: int, key_of: Callable[[P], Hashable] | None, offload: Offload, terms: Terms
    ) -> Answered[R]:
        """Answer one item. key_of: items of equal keys may share a call, it is asked for those that wait; None: this
        one runs alone.

        Raises what `run` raises for this item alone, Overloaded when it could not be answered in time, DeadlineExceeded
        when it was not, ClientGone when nobody waits for it any more.
        """
        now_s = time.monotonic()
        if now_s >= terms.deadline_at_s:
            raise self._late(terms)
        least_s = self.cost.least_s(rows)
        if least_s < terms.inline_below_s and self._runs_here(least_s, key_of is not None, now_s):
            return self._here(item, rows, now_s, terms)
        key = key_of(item) if key_of is not None else None
        job = Job(item, rows, key, now_s, terms.deadline_at_s, terms.gone, terms.budget_s)
        if self._enter(job, now_s, terms):
            offload.spawn(partial(self._serve, offload, terms))
        if not job.done.wait(max(0.0, terms.deadline_at_s - now_s)) and not job.done.is_set():
            job.left = True
            raise DeadlineExceeded(terms.budget_s)
        if job.error is not None:
            raise job.error
        return Answered(job.result, job.started_at_s - job.queued_at_s, job.ended_at_s - job.started_at_s)

    def check_room(self, merged: bool, terms: Terms) -> None:
        """Raise Overloaded when not even one more row would be let in: before a body is read."""
        if len(self._queue):
            with self._lock:
                self._admit(1, merged, time.monotonic(), terms)

    def _late(self, terms: Terms) -> Exception:
        """What a request is told whose time was over when it came: that there was a queue, or too little time."""
        self._count(Dropped.REFUSED if terms.is_queued else Dropped.EXPIRED)
        if terms.is_queued:
            return Overloaded("the request's time was over before a worker could begin with it")
        return DeadlineExceeded(terms.budget_s)

    def _runs_here(self, least_s: float, merged: bool, now_s: float) -> bool:
        """Whether a cheap call is made on the caller's greenlet: when no neighbour is to be expected, or when the call
        that runs now takes so long that waiting for it would be silly.
        """
        if not merged or least_s < GATHER_ABOVE_S:
            return True
        if self._ends_at_s or len(self._queue):
            return self._busy_s(now_s) > 10 * least_s + 0.01
        self._alone += 1
        return self._crowd < _CROWDED and self._alone % _PROBE_EVERY != 0

    def _here(self, item: P, rows: int, now_s: float, terms: Terms) -> Answered[R]:
        result = self._run([item])[0]
        run_s = time.monotonic() - now_s
        self.cost.learn(rows, run_s)
        self.meter.ran(rows)
        return Answered(result, 0.0, run_s)

    def _enter(self, job: Job, now_s: float, terms: Terms) -> bool:
        """Let the job into the queue. Returns whether a serving loop has to be started for it."""
        with self._lock:
            job.expected_s, job.tried = self._admit(job.rows, job.key is not None, now_s, terms)
            self._queue.push(job)
            rows = self._queue.rows
            starts = self._running < terms.limits.lanes
            self._running += starts
        self.meter.waiting(rows)
        return starts

    def _admit(self, rows: int, merged: bool, now_s: float, terms: Terms) -> tuple[float, bool]:
        """What the answer should take, and whether none is ahead. Raises Overloaded."""
        limits = terms.limits
        total_s = self._busy_s(now_s) / limits.lanes + self._queue.drain_s(rows, limits, self.cost, merged)
        own_s = self.cost.typical_s(rows)
        own_s = 0.0 if math.isinf(own_s) else own_s
        total_s *= self._bias
        ahead = self._running >= limits.lanes or len(self._queue) > 0 or terms.is_queued
        wait_s = max(total_s - own_s, 1e-9) if ahead else 0.0
        why = refusal(now_s, terms.deadline_at_s, self._queue.rows, rows, limits, wait_s, own_s)
        if why:
            self._count(Dropped.REFUSED)
            raise Overloaded(why, max(1, math.ceil(total_s)))
        return total_s, not ahead

    def _busy_s(self, now_s: float) -> float:
        return sum(max(0.0, end - now_s) for end in self._ends_at_s)

    def _serve(self, offload: Offload, terms: Terms) -> None:
        """Run batches until none waits."""
        while self._serve_once(offload, terms):
            pass

    def _serve_once(self, offload: Offload, terms: Terms) -> bool:
        """Run the next batch. False when none waits: then this loop no longer counts as running. Never raises."""
        now_s = time.monotonic()
        with self._lock:
            batch, dropped = self._queue.take(now_s, terms.limits, self.cost)
            rows = sum(job.rows for job in batch)
            expected_s = self.cost.typical_s(rows) if batch else 0.0
            end_at_s = now_s + (0.0 if math.isinf(expected_s) else expected_s)
            if batch:
                self._ends_at_s.append(end_at_s)
            else:
                self._running -= 1
            waiting = self._queue.rows
        here = bool(batch) and self.cost.least_s(rows) < terms.inline_below_s
        self._drop(dropped, now_s)
        with suppress(Exception):  # a full disk of metrics must not end the loop
            self.meter.waiting(waiting)
        if batch:
            self._run_batch(batch, rows, offload, here, end_at_s)
        if here:
            offload.pause()
        return bool(batch)

    def _run_batch(self, batch: list[Job], rows: int, offload: Offload, here: bool, end_at_s: float) -> None:
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
            self._crowd += _SMOOTHING * 3 * (len(batch) - self._crowd)
        for job, outcome in zip(batch, outcomes, strict=True):
            job.started_at_s, job.ended_at_s = started_at_s, ended_at_s
            self._settle(job, outcome)
        with suppress(Exception):
            self.meter.ran(rows)

    def _settle(self, job: Job, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            job.error = outcome
        else:
            job.result = outcome
            self._correct(job, job.ended_at_s)
        job.done.set()

    def _correct(self, job: Job, now_s: float) -> None:
        """Compare what a request was expected to take with what it took: quick to become careful, slow to forget."""
        if job.expected_s > 0.001:
            actual = self._bias * (now_s - job.queued_at_s) / job.expected_s
            weight = 2 * _SMOOTHING if actual > self._bias else _SMOOTHING / 2
            self._bias = min(_MOST_BIAS, max(1.0, self._bias + weight * (actual - self._bias)))

    def _count(self, reason: Dropped) -> None:
        with suppress(Exception):  # what cannot be counted is dropped all the same
            self.meter.dropped(reason)

    def _drop(self, dropped: Drops, now_s: float) -> None:
        for job, reason in dropped:
            self._count(reason)
            if reason is Dropped.ABANDONED:
                job.error = ClientGone()
            elif reason is Dropped.EXPIRED:
                job.error = DeadlineExceeded(job.budget_s)
            else:
                job.error = Overloaded("others took longer than expected: the answer would have come too late")
            if reason is not Dropped.ABANDONED:
                self._correct(job, max(now_s, job.deadline_at_s))
            job.done.set()


def _work(batch: list[Job], run: Callable[[Sequence[Any]], list[Any]]) -> tuple[list[Any], int, float, float]:
    """Outcomes, calls that it took, and when it began and ended. Runs in a native thread: no locks, no metrics."""
    calls = 0

    def counted(items: Sequence[Any]) -> list[Any]:
        nonlocal calls
        calls += 1
        return run(items)

    started_at_s = time.monotonic()
    outcomes = run_isolated([job.item for job in batch], counted)
    return outcomes, calls, started_at_s, time.monotonic()
