"""Offloads run work in native threads: results and errors come back, and deadlines hold, for both kinds of threads."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest
from gevent.monkey import get_original

from tableside.errors import DeadlineExceeded, RequestRejected
from tableside.process.offload import (
    GeventOffload,
    Offload,
    ThreadOffload,
    is_patched,
    make_offload,
    native_lock,
    run_native,
)
from tests.waiting import wait_until

FAR_S = 60.0
"""A deadline that no test reaches."""
native_sleep: Callable[[float], None] = get_original("time", "sleep")


class Gate:
    """Work that runs until the test opens the gate.

    is_native: whether the work runs in native threads of gevent's pool, which need an unpatched lock.
    """

    def __init__(self, is_native: bool) -> None:
        self.started = self.finished = False
        self._lock = get_original("_thread", "allocate_lock")() if is_native else threading.Lock()
        self._lock.acquire()

    def work(self) -> str:
        self.started = True
        with self._lock:
            self.finished = True
        return "done"

    def open(self) -> None:
        if self._lock.locked():
            self._lock.release()


@pytest.fixture(params=[ThreadOffload, GeventOffload])
def kind(request: pytest.FixtureRequest) -> type[ThreadOffload] | type[GeventOffload]:
    made: type[ThreadOffload] | type[GeventOffload] = request.param
    return made


@pytest.fixture
def offload(kind: type[ThreadOffload] | type[GeventOffload]) -> Offload:
    """An offload with one native thread."""
    return kind(1)


@pytest.fixture
def gate(kind: type[ThreadOffload] | type[GeventOffload]) -> Iterator[Gate]:
    one = Gate(kind is GeventOffload)
    yield one
    one.open()


def in_background(offload: Offload, work: Callable[[], object]) -> Any:
    """Call the offload from another thread of the caller's kind; the result has `join`."""
    if isinstance(offload, GeventOffload):
        return gevent.spawn(offload.call, work)
    thread = threading.Thread(target=offload.call, args=(work,))
    thread.start()
    return thread


def wait_for(condition: Callable[[], object]) -> None:
    """Wait until the condition is true, while greenlets and threads run."""
    assert wait_until(lambda: gevent.sleep(0) or condition())


def test_the_result_is_returned(offload: Offload) -> None:
    """`call` returns what the work returns, with a deadline and without."""
    assert offload.call(lambda: 42) == 42
    assert offload.call(lambda: 43, time.monotonic() + FAR_S) == 43


def test_work_runs_in_another_native_thread() -> None:
    """The offload that fits the process does not run its work in the caller's native thread."""
    native_id = get_original("_thread", "get_native_id")
    assert make_offload(1).call(native_id) != native_id()


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("the work's own"), DeadlineExceeded(9.0)])
def test_an_error_is_raised_in_the_caller(offload: Offload, error: Exception) -> None:
    """`call` raises the very object that the work raised, also if it is a timeout."""

    def work() -> None:
        raise error

    for deadline_at_s in (None, time.monotonic() + FAR_S):
        with pytest.raises(type(error)) as raised:
            offload.call(work, deadline_at_s)
        assert raised.value is error


def test_errors_are_not_written_to_stderr(offload: Offload, capfd: pytest.CaptureFixture[str]) -> None:
    """An error that work raises in a native thread belongs to its caller, and not into the log."""
    with pytest.raises(KeyError):
        offload.call(lambda: {}["x"])
    assert capfd.readouterr().err == ""


class Body:
    """Something large in a frame of work that raises."""


@pytest.mark.parametrize("deadline_s", [None, FAR_S])
def test_an_error_keeps_nothing_of_its_work(offload: Offload, deadline_s: float | None) -> None:
    """What the frames of the work hold is freed with the error, and does not wait for a garbage collection."""
    deadline_at_s = None if deadline_s is None else time.monotonic() + deadline_s
    calls = [lambda work: offload.call(work, deadline_at_s), run_native]
    for call in calls:
        freed = threading.Event()

        def work(freed: threading.Event = freed) -> None:
            body = Body()
            weakref.finalize(body, freed.set)
            raise RequestRejected("too large")

        gc.disable()
        try:
            with suppress(RequestRejected):
                call(work)
            for _ in range(3):
                gevent.sleep(0)  # gevent's loop holds the last result until its next turn
            assert freed.is_set()
        finally:
            gc.enable()


def test_a_caller_does_not_wait_beyond_its_deadline(offload: Offload, gate: Gate) -> None:
    """After the deadline `call` raises, although its work still runs; the text gives the time that the call had."""
    with pytest.raises(DeadlineExceeded, match=r"^no answer within the deadline of 0\.\d+ s$"):
        offload.call(gate.work, time.monotonic() + 0.1)
    assert not gate.finished


def test_work_is_not_started_after_its_deadline(offload: Offload, gate: Gate) -> None:
    """Work whose deadline passes while it waits for a thread never runs, and the thread is free for other work."""
    occupant = in_background(offload, gate.work)
    wait_for(lambda: gate.started)
    ran: list[int] = []
    with pytest.raises(DeadlineExceeded):
        offload.call(lambda: ran.append(1), time.monotonic() + 0.05)
    gate.open()
    occupant.join(30)
    assert offload.call(lambda: "free") == "free"
    assert ran == []


def test_a_passed_deadline_starts_nothing(offload: Offload) -> None:
    """Work whose deadline has already passed is refused without running, and its time is given as 0 s."""
    ran: list[int] = []
    with pytest.raises(DeadlineExceeded):
        offload.call(lambda: ran.append(1), time.monotonic() - 1)
    assert ran == []


@pytest.mark.parametrize("threads", [1, 3])
def test_as_many_calls_run_as_there_are_threads(kind: type[ThreadOffload] | type[GeventOffload], threads: int) -> None:
    """With `threads` calls in progress the next one waits until one of them has ended."""
    offload = kind(threads)
    assert offload.threads == threads
    gates = [Gate(kind is GeventOffload) for _ in range(threads + 1)]
    callers = [in_background(offload, gate.work) for gate in gates]
    wait_for(lambda: sum(gate.started for gate in gates) == threads)
    for gate in gates:
        gate.open()
    for caller in callers:
        caller.join(30)
    assert all(gate.finished for gate in gates)


def test_a_spawned_loop_may_use_the_offload(offload: Offload) -> None:
    """`spawn` returns at once, and its loop may call the offload itself."""
    results: list[str] = []
    offload.spawn(lambda: results.append(offload.call(lambda: "from the loop")))
    wait_for(lambda: results)
    assert results == ["from the loop"]


@pytest.mark.parametrize("threads", [1, 4])
def test_the_process_decides_the_kind(threads: int) -> None:
    """A process that gevent has patched gets native threads from gevent, and another one plain threads."""
    made = make_offload(threads)
    assert isinstance(made, GeventOffload if is_patched() else ThreadOffload)
    assert made.threads == threads


def test_gevent_s_offload_lets_other_greenlets_run() -> None:
    """While one greenlet waits for its work, and in `pause`, the others go on."""
    offload, gate, events = GeventOffload(1), Gate(is_native=True), list[str]()
    waiting = gevent.spawn(lambda: events.append(offload.call(gate.work)))
    wait_for(lambda: gate.started)
    gevent.spawn(events.append, "other")
    offload.pause()
    assert events == ["other"]
    gate.open()
    waiting.join(30)
    assert events == ["other", "done"]


def test_run_native_keeps_the_event_loop_free() -> None:
    """On an event loop other greenlets run meanwhile; without one the work runs in the caller's thread."""
    if not is_patched():
        assert run_native(threading.get_native_id) == threading.get_native_id()
        return
    gate = Gate(is_native=True)
    gevent.spawn(gate.open)  # the work ends only if this greenlet can run
    assert run_native(gate.work) == "done"


def test_run_native_stays_in_a_native_thread() -> None:
    """Work that is already in a native thread is not moved to another one."""

    def is_same_thread() -> bool:
        return bool(run_native(threading.get_native_id) == threading.get_native_id())

    assert GeventOffload(1).call(is_same_thread)


def test_run_native_raises_what_the_work_raises(capfd: pytest.CaptureFixture[str]) -> None:
    """The caller gets the error, and nothing is written to standard error."""
    with pytest.raises(ZeroDivisionError):
        run_native(lambda: 1 / 0)
    assert capfd.readouterr().err == ""


def test_the_native_lock_excludes_native_threads() -> None:
    """Of several native threads only one at a time holds the lock, even if gevent has patched the process."""
    lock, inside, counts = native_lock(), list[int](), list[int]()
    offload = GeventOffload(2)

    def work() -> None:
        with lock:
            inside.append(1)
            native_sleep(0.02)  # gives the other thread the time to break the rule
            counts.append(len(inside))
            inside.pop()

    for greenlet in [gevent.spawn(offload.call, work) for _ in range(4)]:
        greenlet.join(20)
    assert counts == [1, 1, 1, 1]
