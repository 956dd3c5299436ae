"""One request of a worker runs while no other is in hand. The suite runs it with greenlets too, as a worker does."""

from __future__ import annotations

import threading
import time

import pytest

from tableside.process import exclusive
from tableside.process.exclusive import Exclusive
from tests.waiting import wait_until

LATER = 60.0


def test_a_request_alone_waits_for_the_others_and_they_for_it() -> None:
    """It begins when the last one has left; one that comes meanwhile begins after it."""
    gate, order = Exclusive(), []
    gate.enter(0.0)
    gate.enter(0.0)

    def alone() -> None:
        assert gate.enter_alone(time.monotonic() + LATER)
        order.append("alone")
        gate.leave(True)

    def other() -> None:
        gate.enter(time.monotonic() + LATER)
        order.append("other")
        gate.leave(False)

    threads = [threading.Thread(target=alone)]
    threads[0].start()
    assert wait_until(lambda: gate.wanted == 1)
    threads.append(threading.Thread(target=other))
    threads[1].start()
    gate.leave(False)
    assert order == []
    gate.leave(False)
    for thread in threads:
        thread.join(60)
    assert order == ["alone", "other"]
    assert (gate.inside, gate.wanted) == (0, 0)


def test_others_wait_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that runs alone and hangs does not hold up the others for ever."""
    monkeypatch.setattr(exclusive, "GATE_S", 0.01)
    gate = Exclusive()
    assert gate.enter_alone(time.monotonic() + LATER)
    gate.enter(time.monotonic() + LATER)
    gate.leave(False)
    gate.leave(True)
    assert (gate.inside, gate.wanted) == (0, 0)


def test_a_deadline_ends_the_wait_to_be_alone() -> None:
    """Then the request does not run, and nobody waits for it any more."""
    gate = Exclusive()
    gate.enter(0.0)
    assert not gate.enter_alone(time.monotonic())
    assert (gate.inside, gate.wanted) == (1, 0)
    gate.leave(False)
    assert gate.enter_alone(time.monotonic())
    gate.leave(True)
