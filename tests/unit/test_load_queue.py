"""The load queue: what a request waits for comes first, each version is taken once, and its end is reported."""

from __future__ import annotations

import threading

from tableside.process.pacing import Paced
from tableside.serving.load_queue import LoadQueue

KEYS = [("a", 1), ("b", 1), ("c", 1), ("d", 1)]


def offered(*keys: tuple[str, int]) -> LoadQueue[str]:
    queue: LoadQueue[str] = LoadQueue(KEYS)
    queue.offer((key, key[0].upper()) for key in keys or KEYS)
    return queue


def order(queue: LoadQueue[str]) -> str:
    queue.close()
    found = ""
    while (taken := queue.take(KEYS)) is not None:
        found += taken[1]
        queue.done(taken[0])
    return found


def test_versions_come_in_their_order_if_nobody_asks() -> None:
    """The order of the announcement counts, not that of the offers."""
    queue = offered(KEYS[2], KEYS[0])
    queue.offer([(KEYS[1], "B")])
    assert order(queue) == "ABC"


def test_what_requests_wait_for_comes_first() -> None:
    """Asked-for versions come in the order of the questions; a question may come before the offer."""
    queue: LoadQueue[str] = LoadQueue(KEYS)
    for key in (KEYS[3], KEYS[1], KEYS[3]):
        queue.ask(key)
    assert queue.asked == (KEYS[3], KEYS[1])
    queue.offer((key, key[0].upper()) for key in KEYS)
    assert order(queue) == "DBAC"
    assert queue.asked == ()


def test_the_end_of_a_version_is_reported() -> None:
    """The event of a question is set when the version is done; later questions get None, as for unknown versions."""
    queue = offered()
    ended = queue.ask(KEYS[1])
    assert ended is not None
    assert queue.take(KEYS) == (KEYS[1], "B")
    assert not ended.is_set()
    queue.done(KEYS[1])
    assert ended.is_set()
    assert queue.ask(KEYS[1]) is None
    assert queue.ask(("none", 1)) is None


def test_a_second_taker_takes_only_what_was_asked_for() -> None:
    """It waits for questions while the first taker is busy, and ends when nothing more is offered."""
    queue, found = offered(), []

    def take_asked() -> None:
        while (taken := queue.take(KEYS, only_asked=True)) is not None:
            found.append(taken[1])
            queue.done(taken[0])

    assert queue.take(KEYS) == (KEYS[0], "A")
    second = threading.Thread(target=take_asked)
    second.start()
    ended = queue.ask(KEYS[2])
    assert ended is not None
    assert ended.wait(30)
    assert found == ["C"]
    queue.done(KEYS[0])
    assert order(queue) == "BD"
    second.join(30)
    assert not second.is_alive()


def test_finish_waits_for_what_was_taken_and_names_the_rest() -> None:
    """Requests for versions that were never offered stop waiting when these have been given up."""
    queue = offered(KEYS[0])
    queue.close()
    ended = queue.ask(KEYS[3])
    assert ended is not None
    assert queue.take(KEYS) is not None
    left: list[tuple[str, int]] = []
    finishing = threading.Thread(target=lambda: left.extend(queue.finish()))
    finishing.start()
    queue.done(KEYS[0])
    finishing.join(30)
    assert left == KEYS[1:]
    assert not ended.is_set()
    queue.done(KEYS[3])
    assert ended.is_set()
    assert queue.take(KEYS) is None


def test_work_is_paced_and_its_last_change_is_never_lost() -> None:
    """Many changes cause little work, and the work after the last one is done without another call."""
    state, seen, last = [0], [], threading.Event()

    def work() -> None:
        seen.append(state[0])
        for _ in range(20000):  # takes a moment, which the pause is a multiple of
            pass
        if seen[-1] == 500:
            last.set()

    paced = Paced(work)
    for number in range(1, 501):
        state[0] = number
        paced.write()
    assert last.wait(30)
    assert len(seen) < 250
    state[0] = 501
    paced.write(now=True)
    assert seen[-1] == 501
