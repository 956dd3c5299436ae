"""Sends the spans of one process to the receiver, from a bounded queue and in a thread of its own.

The thread is a plain one of `threading`: under gevent a greenlet, so that it takes turns with the requests and never
competes with them for the interpreter's lock. It starts with the first request that is traced, so never in the
process that forks the workers. Nothing waits for it: when its queue is full, spans are dropped and counted.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import Protocol

from tableside.telemetry import logs
from tableside.telemetry.otlp_receiver import Outcome
from tableside.telemetry.spans import TracedRequest

log = logs.get_logger("tracing")

GATHER_S = 1.0
"""How long spans wait for others, so that one message takes many."""
MESSAGE_REQUESTS = 64
"""Requests in one message; 50 kB with all of their spans."""
RETRY_S = 30.0
"""How long one message is sent again while the receiver is away or busy."""
END_S = 3.0
"""Seconds that the end of a process waits for its last spans: less than the 5 s that gunicorn leaves a worker after the
deadline of its last request."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 8.0
_LOG_EVERY_S = 60.0

QUEUE_FULL, UNREACHABLE, REFUSED, REJECTED, STOPPED, FAILED = DROP_REASONS = (
    "queue_full", "unreachable", "refused", "rejected", "stopped", "failed",
)  # fmt: skip
"""Why spans are dropped: the queue was full; the receiver was away or busy for RETRY_S; it answered another status; it
rejected some of a message; the process ended before; an error of this server."""


class Receiver(Protocol):
    """What is used of `tableside.telemetry.otlp_receiver.Receiver`."""

    name: str

    def send(self, message: bytes) -> Outcome:
        """Send one message."""

    def close(self) -> None:
        """Close the connection."""


class Counts(Protocol):
    """Counts the spans that were sent and dropped."""

    def sent(self, spans: int) -> None:
        """Count spans that the receiver took."""

    def dropped(self, reason: str, spans: int) -> None:
        """Count spans that the receiver did not get."""


class SpanExporter:
    """The queue of one process, and its thread.

    encode: makes a message of the spans of some requests. max_requests: how many requests may wait. gather_s, retry_s:
    see GATHER_S and RETRY_S.
    """

    def __init__(
        self, receiver: Receiver, encode: Callable[[Sequence[TracedRequest]], bytes], counts: Counts,
        max_requests: int, gather_s: float = GATHER_S, retry_s: float = RETRY_S,
    ) -> None:  # fmt: skip
        self._receiver = receiver
        self._encode = encode
        self._counts = counts
        self._max_requests = max_requests
        self._gather_s, self._retry_s = gather_s, retry_s
        self._pid = 0
        self._is_registered = False
        self._dropped: Counter[str] = Counter()
        self._log_at_s = 0.0
        self._begin()

    def _begin(self) -> None:
        self._queue: deque[TracedRequest] = deque()
        self._thread: threading.Thread | None = None
        self._wake, self._full, self._stop = threading.Event(), threading.Event(), threading.Event()
        self._end_at_s = 0.0

    def start(self) -> None:
        """Start the thread if this process has none. Call it before `add`, and not in a callback of the event loop."""
        if self._pid != os.getpid():  # the first request of this process, also of one that was forked
            self._pid = os.getpid()
            self._begin()
        if self._thread is None and not self._stop.is_set():
            self._stop_at_exit()
            thread = self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no thread left: the next request tries again
                self._thread = None

    def _stop_at_exit(self) -> None:
        """Register `stop` once, for servers without a hook at the end of a worker. A forked process inherits it."""
        if not self._is_registered:
            self._is_registered = True
            atexit.register(self.stop, END_S)

    def add(self, request: TracedRequest) -> None:
        """Queue the spans of one request. Never waits, and never raises."""
        if len(self._queue) >= self._max_requests or self._stop.is_set():
            self._drop(STOPPED if self._stop.is_set() else QUEUE_FULL, [request], "")
            return
        self._queue.append(request)
        if not self._wake.is_set():
            self._wake.set()
        if len(self._queue) >= MESSAGE_REQUESTS and not self._full.is_set():
            self._full.set()

    def lose(self, spans: int, problem: str) -> None:
        """Count spans that could not be made."""
        self._count_drop(FAILED, spans, problem)

    def stop(self, timeout_s: float) -> None:
        """Send what waits, for at most `timeout_s` seconds, and end the thread. What is left then is dropped."""
        if self._pid != os.getpid() or self._thread is None:
            return
        self._end_at_s = time.monotonic() + timeout_s
        for event in (self._stop, self._wake, self._full):
            event.set()
        self._thread.join(timeout_s)
        if left := self._take(len(self._queue)):
            self._drop(STOPPED, left, "")

    def _run(self) -> None:
        while not self._stop.is_set():
            self._wake.wait()
            self._full.wait(self._gather_s)
            self._wake.clear()
            self._full.clear()
            self._send_all()
        self._receiver.close()

    def _send_all(self) -> None:
        while requests := self._take(MESSAGE_REQUESTS):
            try:
                self._send(requests)
            except Exception as problem:  # noqa: BLE001 - the thread must not end, or no span would be sent any more
                self._drop(FAILED, requests, type(problem).__name__)
            if self._stop.is_set() and time.monotonic() >= self._end_at_s:
                return

    def _take(self, most: int) -> list[TracedRequest]:
        return [self._queue.popleft() for _ in range(min(most, len(self._queue)))]

    def _send(self, requests: Sequence[TracedRequest]) -> None:
        message = self._encode(requests)
        give_up_at_s, pause_s = time.monotonic() + self._retry_s, _FIRST_PAUSE_S
        while True:
            outcome = self._receiver.send(message)
            if not outcome.problem:
                self._count_sent(requests, outcome)
                return
            wait_s = max(pause_s, outcome.retry_after_s)
            if outcome.is_final:
                self._drop(REFUSED, requests, outcome.problem)
                return
            if self._stop.is_set() or time.monotonic() + wait_s >= give_up_at_s:
                self._drop(UNREACHABLE, requests, outcome.problem)
                return
            self._stop.wait(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def _count_sent(self, requests: Sequence[TracedRequest], outcome: Outcome) -> None:
        spans = _number(requests)
        rejected = min(outcome.rejected.spans, spans)
        self._counts.sent(spans - rejected)
        if rejected:
            self._count_drop(REJECTED, rejected, outcome.rejected.message[:200])

    def _drop(self, reason: str, requests: Sequence[TracedRequest], problem: str) -> None:
        self._count_drop(reason, _number(requests), problem)

    def _count_drop(self, reason: str, spans: int, problem: str) -> None:
        """Count dropped spans, and log them once in a while."""
        self._counts.dropped(reason, spans)
        self._dropped[reason] += spans
        now_s = time.monotonic()
        if now_s < self._log_at_s:
            return
        self._log_at_s = now_s + _LOG_EVERY_S
        log.warning("spans_dropped", receiver=self._receiver.name, problem=problem, **self._dropped)
        self._dropped.clear()


def _number(requests: Sequence[TracedRequest]) -> int:
    return sum(len(request.spans) for request in requests)
