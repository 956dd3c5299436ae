"""Run CPU work in a native thread, so that the caller's event loop goes on answering.

Under gevent's monkey-patching `threading` gives greenlets, which do not leave the hub; `gevent.threadpool` holds the
real threads. The function that is handed over must touch neither metrics nor logs: their locks belong to the hub.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeout
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from tableside.errors import DeadlineExceeded

T = TypeVar("T")


class Offload(Protocol):
    """Runs a function elsewhere and waits for its result."""

    def call(self, work: Callable[[], T], deadline_at_s: float | None = None) -> T:
        """Return what `work` returns or raise what it raises; DeadlineExceeded past `deadline_at_s` (monotonic).

        Work whose deadline passes while it still waits for a thread is never started.
        """

    def spawn(self, loop: Callable[[], None]) -> None:
        """Start `loop` beside the caller, on a thread of the caller's kind: it may use locks, metrics and `call`."""

    def pause(self) -> None:
        """Let others of the caller's kind go first."""

    @property
    def threads(self) -> int:
        """How many calls run at once."""


class _Cancelled(Exception):
    pass


def _guarded(work: Callable[[], T], deadline_at_s: float | None) -> Callable[[], T]:
    def run() -> T:
        if deadline_at_s is not None and time.monotonic() >= deadline_at_s:
            raise _Cancelled
        return work()

    return run


@dataclass
class _Raised:
    error: BaseException


def _caught(work: Callable[[], T]) -> Callable[[], T | _Raised]:
    """gevent writes whatever a pool's function raises to stderr, a client's mistakes too: so it raises nothing."""

    def run() -> T | _Raised:
        try:
            return work()
        except BaseException as error:  # noqa: BLE001 - raised again where the result is asked for
            return _Raised(error)

    return run


def _outcome(found: T | _Raised) -> T:
    if isinstance(found, _Raised):
        raise found.error
    return found


class ThreadOffload:
    """Plain threads: tests, the command line, and workers that are not patched."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    def spawn(self, loop: Callable[[], None]) -> None:
        """See Offload: a plain thread."""
        threading.Thread(target=loop, name="batches", daemon=True).start()

    def pause(self) -> None:
        """See Offload."""
        time.sleep(0)

    def call(self, work: Callable[[], T], deadline_at_s: float | None = None) -> T:
        started_s = time.monotonic()
        future: Future[T] = self._pool.submit(_guarded(work, deadline_at_s))
        try:
            return future.result(None if deadline_at_s is None else max(0.0, deadline_at_s - started_s))
        except (FutureTimeout, _Cancelled) as late:
            if isinstance(late, FutureTimeout) and future.done() and future.exception() is late:
                raise  # the work's own
            future.cancel()
            raise DeadlineExceeded((deadline_at_s or started_s) - started_s) from None


class GeventOffload:
    """Native threads of gevent's pool; the waiting greenlet yields to the hub."""

    def __init__(self, threads: int) -> None:
        from gevent.threadpool import ThreadPool

        self.threads = threads
        self._pool: Any = ThreadPool(threads)

    def spawn(self, loop: Callable[[], None]) -> None:
        """See Offload: a greenlet. It begins when the hub has served all that is ready now."""
        import gevent

        gevent.spawn(loop)

    def pause(self) -> None:
        """See Offload: one turn of the hub."""
        import gevent

        gevent.sleep(0)

    def call(self, work: Callable[[], T], deadline_at_s: float | None = None) -> T:
        import gevent

        started_s = time.monotonic()
        if deadline_at_s is None:
            result: T = _outcome(self._pool.spawn(_caught(work)).get())
            return result
        budget_s = max(0.0, deadline_at_s - started_s)
        late = gevent.Timeout(budget_s)
        with late:
            try:
                answer: T = _outcome(self._pool.spawn(_caught(_guarded(work, deadline_at_s))).get())
                return answer
            except (gevent.Timeout, _Cancelled) as reason:
                if reason is late or isinstance(reason, _Cancelled):
                    raise DeadlineExceeded(budget_s) from None
                raise


def run_native(work: Callable[[], T]) -> T:
    """Do slow work where no event loop waits for it: in a native thread of the hub's own, or here if this is one."""
    if not is_patched() or threading.get_native_id() != os.getpid():
        return work()
    import gevent

    found: T = _outcome(gevent.get_hub().threadpool.apply(_caught(work)))
    return found


def native_lock() -> AbstractContextManager[Any]:
    """A lock for native threads, also where gevent has patched `threading`. Never to be waited for on a hub."""
    if not is_patched():
        return threading.Lock()
    from gevent import monkey

    lock: AbstractContextManager[Any] = monkey.get_original("_thread", "allocate_lock")()
    return lock


def is_patched() -> bool:
    """Whether gevent has patched this process."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("threading"))


def make_offload(threads: int) -> Offload:
    """The offload that fits this process."""
    return GeventOffload(threads) if is_patched() else ThreadOffload(threads)
