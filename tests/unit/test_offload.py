"""Offload: results and errors come back, deadlines hold, in both kinds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import gevent
import pytest
from gevent.monkey import get_original

from tableside.errors import DeadlineExceeded
from tableside.process.offload import GeventOffload, ThreadOffload, is_patched, make_offload, native_lock, run_native

Kind = tuple[Callable[[int], Any], Callable[[float], None]]


@pytest.fixture(params=["thread", "gevent"])
def kind(request: pytest.FixtureRequest) -> Kind:
    """The offload, and the sleep that fits its threads: gevent's pool holds real ones."""
    return (ThreadOffload, time.sleep) if request.param == "thread" else (GeventOffload, get_original("time", "sleep"))


def test_results_come_back(kind: Kind) -> None:
    """What the work returns is returned, with a deadline and without."""
    offload = kind[0](1)
    assert offload.call(lambda: 42) == 42
    assert offload.call(lambda: 43, time.monotonic() + 30) == 43


@pytest.mark.parametrize("error", [KeyError("x"), TimeoutError("the work's own"), DeadlineExceeded(9.0)])
def test_errors_come_back(kind: Kind, error: Exception) -> None:
    """What the work raises is raised, its own timeouts included."""

    def work() -> None:
        raise error

    for deadline_at_s in (None, time.monotonic() + 30):
        with pytest.raises(type(error)) as raised:
            kind[0](1).call(work, deadline_at_s)
        assert raised.value is error


def test_errors_are_not_written_to_stderr(kind: Kind, capfd: pytest.CaptureFixture[str]) -> None:
    """A client's mistake that is found in a native thread is no line in anybody's log."""
    with pytest.raises(KeyError):
        kind[0](1).call(lambda: {}["x"])
    assert capfd.readouterr().err == ""


def test_late_work_is_given_up(kind: Kind) -> None:
    """Past the deadline the caller goes on, long before the work is over."""
    make, sleep = kind
    started_s = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"within the deadline of 0\.\d+ s"):
        make(1).call(lambda: sleep(1.5), started_s + 0.1)
    assert time.monotonic() - started_s < 1.2


def test_late_work_is_not_started(kind: Kind) -> None:
    """Work whose deadline passes while it waits for a thread never runs."""
    make, sleep = kind
    offload, ran = make(1), []
    if make is GeventOffload:  # its callers are greenlets of one hub
        occupant: Any = gevent.spawn(offload.call, lambda: sleep(0.5))
        gevent.sleep(0.1)
    else:
        occupant = threading.Thread(target=lambda: offload.call(lambda: sleep(0.5)))
        occupant.start()
        time.sleep(0.1)
    with pytest.raises(DeadlineExceeded):
        offload.call(lambda: ran.append(1), time.monotonic() + 0.05)
    occupant.join(30)
    assert offload.call(lambda: "free") == "free"
    assert ran == []


def test_a_passed_deadline_starts_nothing(kind: Kind) -> None:
    """Work that comes too late is refused without running."""
    ran: list[int] = []
    with pytest.raises(DeadlineExceeded):
        kind[0](1).call(lambda: ran.append(1), time.monotonic() - 1)
    assert ran == []


def test_the_process_decides_the_kind() -> None:
    """A patched process gets gevent's native threads, another one plain threads."""
    assert isinstance(make_offload(1), GeventOffload if is_patched() else ThreadOffload)


def test_slow_work_aside_leaves_the_hub_alone() -> None:
    """Where there is a hub it goes on; elsewhere, and in a native thread already, the work is done in place."""
    nap, ticks = get_original("time", "sleep"), []

    def tick() -> None:
        while True:
            ticks.append(1)
            gevent.sleep(0.01)

    beside = gevent.spawn(tick)
    gevent.sleep(0)
    assert run_native(lambda: nap(0.3) or threading.get_native_id()) != (
        threading.get_native_id() if is_patched() else 0
    )
    beside.kill()
    assert (len(ticks) > 3) is is_patched()

    def inside() -> bool:
        return bool(run_native(threading.get_native_id) == threading.get_native_id())

    assert GeventOffload(1).call(inside)


def test_work_aside_raises_what_it_raises() -> None:
    """A failed load is the caller's to hear of."""
    with pytest.raises(ZeroDivisionError):
        run_native(lambda: 1 / 0)


def test_the_native_lock_keeps_native_threads_apart() -> None:
    """Two at once in a pool of native threads: one after the other, whatever gevent has patched."""
    nap, lock, inside, most = get_original("time", "sleep"), native_lock(), [], []
    offload = GeventOffload(2)

    def work() -> None:
        with lock:
            inside.append(1)
            nap(0.05)
            most.append(len(inside))
            inside.pop()

    for each in [gevent.spawn(offload.call, work) for _ in range(4)]:
        each.join(20)
    assert most == [1, 1, 1, 1]
