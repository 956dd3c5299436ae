"""Run CPU work in a native thread, so that the event loop of the caller keeps answering requests.

Where gevent has patched the process, `threading` makes greenlets, which all run on one native thread; native threads
come from `gevent.threadpool`. Work that runs in them must use neither metrics nor logs, nor any other lock that several
threads share and that was made after gevent's patch: such locks work only between greenlets.
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
from typing import Protocol, TypeVar

from tableside.errors import DeadlineExceeded

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class Offload(Protocol):
    """Runs functions in native threads."""

    def call(self, work: Callable[[], T], deadline_at_s: float | None = None) -> T:
        """Run `work` in a native thread and wait for it. Returns what it returns and raises what it raises.

        deadline_at_s: seconds of the monotonic clock; None for no deadline.
        Raises DeadlineExceeded after the deadline. Work that has begun then runs to its end, and its result is lost.
        Work that still waits for a thread is never started.
        """

    def spawn(self, loop: Callable[[], None]) -> None:
        """Start `loop` in a thread of the same kind as the caller's: a greenlet if gevent has patched the process.

        `loop` may use locks, metrics, logs and `call`.
        """

    def pause(self) -> None:
        """Let other threads of the caller's kind run first."""

    @property
    def threads(self) -> int:
        """Number of calls that run at the same time."""


class _DeadlinePassed(Exception):
    """The deadline has passed before the work began."""


def _unless_late(work: Callable[[], T], deadline_at_s: float | None) -> Callable[[], T]:
    def run() -> T:
        if deadline_at_s is not None and time.monotonic() >= deadline_at_s:
            raise _DeadlinePassed
        return work()

    return run


@dataclass
class _Raised:
    error: BaseException


def _caught(work: Callable[[], T]) -> Callable[[], T | _Raised]:
    """Return exceptions of `work` instead of raising them: gevent would write each of them to standard error."""

    def run() -> T | _Raised:
        try:
            return work()
        except BaseException as error:  # noqa: BLE001 - `_outcome` raises it again
            return _Raised(error)

    return run


def _outcome(result: T | _Raised) -> T:
    if not isinstance(result, _Raised):
        return result
    try:
        raise result.error
    finally:
        # The error's traceback names this frame. With `result` in it, the two would keep each other, and all that the
        # error's frames hold, until a garbage collection.
        del result


class ThreadOffload:
    """Runs work in threads of the standard library: for tests, the command line and processes without gevent."""

    def __init__(self, threads: int) -> None:
        self.threads = threads
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="predict")

    def spawn(self, loop: Callable[[], None]) -> None:
        """Start `loop` in a daemon thread, which does not keep the process from ending."""
        threading.Thread(target=loop, name="batches", daemon=True).start()

    def pause(self) -> None:
        """Release the interpreter's lock once."""
        time.sleep(0)

    def call(self, work: Callable[[], T], deadline_at_s: float | None = None) -> T:
        """Run `work` in the pool, as `Offload.call` describes."""
        started_s = time.monotonic()
        future: Future[T] = self._pool.submit(_unless_late(work, deadline_at_s))
        try:
            return future.result(None if deadline_at_s is None else max(0.0, deadline_at_s - started_s))
        except (FutureTimeout, _DeadlinePassed) as late:
            if isinstance(late, FutureTimeout) and future.done() and future.exception() is late:
                raise  # `work` itself raised it
            future.cancel()
            raise DeadlineExceeded((deadline_at_s or started_s) - started_s) from None
        finally:
            del future  # as in `_outcome`


class _Pending(Protocol[T_co]):
    def get(self) -> T_co: ...


class _GeventPool(Protocol):
    """What is used of gevent.threadpool.ThreadPool, which has no type hints."""

    def spawn(self, work: Callable[[], T], /) -> _Pending[T]: ...


class GeventOffload:
    """Runs work in native threads of gevent's pool. Other greenlets run while the caller waits."""

    def __init__(self, threads: int) -> None:
        from gevent.threadpool import ThreadPool

        import_under_native_locks()
        self.threads = threads
        self._pool: _GeventPool = ThreadPool(threads)

    def spawn(self, loop: Callable[[], None]) -> None:
        """Start `loop` in a greenlet. It begins after the greenlets that are ready now."""
        import gevent

        gevent.spawn(loop)

    def pause(self) -> None:
        """Let the event loop run once."""
        import gevent

        gevent.sleep(0)

    def call(self, work: Callable[[], T], deadline_at_s: float | None = None) -> T:
        """Run `work` in the pool, as `Offload.call` describes."""
        import gevent

        started_s = time.monotonic()
        if deadline_at_s is None:
            return _outcome(self._pool.spawn(_caught(work)).get())
        budget_s = max(0.0, deadline_at_s - started_s)
        late = gevent.Timeout(budget_s)
        with late:
            try:
                return _outcome(self._pool.spawn(_caught(_unless_late(work, deadline_at_s))).get())
            except (gevent.Timeout, _DeadlinePassed) as reason:
                if reason is late or isinstance(reason, _DeadlinePassed):
                    raise DeadlineExceeded(budget_s) from None
                raise


def run_native(work: Callable[[], T]) -> T:
    """Run slow work without blocking the event loop, and return its result.

    On the event loop's thread it runs in the loop's own pool of native threads. In any other thread, and in a process
    without gevent, it runs in the caller's thread. Raises what `work` raises.
    """
    if not is_patched() or threading.get_native_id() != os.getpid():
        return work()
    import gevent

    pool: _GeventPool = gevent.get_hub().threadpool
    return _outcome(pool.spawn(_caught(work)).get())


def native_lock() -> AbstractContextManager[bool]:
    """Return a lock for native threads, even if gevent has patched `threading`.

    Never wait for it on the event loop: that would block all requests.
    """
    if not is_patched():
        return threading.Lock()
    from gevent import monkey

    lock: AbstractContextManager[bool] = monkey.get_original("_thread", "allocate_lock")()
    return lock


def import_under_native_locks() -> None:
    """Let imports take native locks from now on, although gevent has patched `_thread`.

    The interpreter makes a lock with `_thread.allocate_lock` for each module that it imports. If that is a lock of
    gevent's kind, a native thread that waits for a module which another thread imports may never be woken
    (https://github.com/gevent/gevent/issues/1744): its load or prediction would not end. gevent puts its own back each
    time it patches, so call this afterwards. A greenlet that waits for such a lock holds up the event loop until the
    import in the other thread has ended. No module of a worker may let other greenlets run while it is imported.
    """
    import _thread

    from gevent import monkey

    _thread.allocate_lock = monkey.get_original("_thread", "allocate_lock")


def is_patched() -> bool:
    """Whether gevent has patched the threads of this process."""
    monkey = sys.modules.get("gevent.monkey")
    return bool(monkey and monkey.is_module_patched("threading"))


def make_offload(threads: int) -> Offload:
    """Make the kind of offload that this process needs. threads: how many calls run at the same time."""
    return GeventOffload(threads) if is_patched() else ThreadOffload(threads)
