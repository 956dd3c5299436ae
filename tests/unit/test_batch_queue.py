"""The pure half of batching: cost, queue, refusals, isolation. No clock, no threads."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.batching.cost import CostModel
from tableside.batching.isolation import run_isolated
from tableside.batching.queue import (
    MAX_BATCH_S,
    USABLE_DEADLINE_SHARE,
    BatchPolicy,
    DropReason,
    Queue,
    QueuedRequest,
    refusal,
)

LIMITS = BatchPolicy(max_batch_rows=10, max_queue_rows=100)


def job(
    rows: int = 1, key: Any = "k", item: Any = None, deadline_at_s: float = 100.0, abandoned: bool = False
) -> QueuedRequest:
    return QueuedRequest(item, rows, key, 0.0, deadline_at_s, abandoned=abandoned)


def queue(*jobs: QueuedRequest) -> Queue:
    made = Queue()
    for each in jobs:
        made.push(each)
    return made


def known(*pairs: tuple[int, float]) -> CostModel:
    cost = CostModel()
    for rows, seconds in pairs:
        cost.learn(rows, seconds)
    return cost


def test_nothing_is_known_before_the_first_call() -> None:
    """An unknown cost is no number one could compare."""
    assert CostModel().typical_s(1) == CostModel().least_s(1) == math.inf


def test_a_call_has_a_cost_before_its_rows() -> None:
    """20 ms for 1000 rows does not mean 20 us for one; 3 ms for one row means at most 192 ms for 64."""
    assert known((1000, 0.02)).least_s(1) == 0.02
    assert known((1, 0.003)).least_s(64) == pytest.approx(0.192)


def test_between_two_sizes_the_cost_is_a_line() -> None:
    """Once both ends are known, what lies between is drawn between them, in whatever order they were learnt."""
    cost = known((100, 0.011), (1, 0.001), (1024, 0.1))
    assert cost.typical_s(1) == 0.001
    assert cost.typical_s(51) == pytest.approx(0.001 + 0.010 * 50 / 99)
    assert cost.typical_s(2048) == pytest.approx(0.2, rel=0.02)


def test_beyond_what_was_seen_the_line_goes_on() -> None:
    """A model whose calls cost 200 ms whatever their rows is found out by steps; one of dear rows is not tried on."""
    cost, limits = known((1, 0.2)), BatchPolicy(1000, 1000)
    sizes = []
    for _ in range(5):
        batch, _ = queue(*(job() for _ in range(1000))).take(0.0, limits, cost)
        sizes.append(len(batch))
        cost.learn(len(batch), 0.2)
    assert sizes[:2] == [2, 22]
    assert sizes[-1] == 1000
    dear = known((1, 0.2), (2, 0.4))
    assert len(queue(*(job() for _ in range(1000))).take(0.0, limits, dear)[0]) == 2


def test_the_least_cost_forgives_noise_and_follows_a_change() -> None:
    """One slow call does not make a model dear; a model that has become slow is found dear in some hundred calls."""
    cost = known((1, 0.001), (1, 0.5))
    assert cost.least_s(1) < 0.0011
    for _ in range(300):
        cost.learn(1, 0.1)
    assert cost.least_s(1) == pytest.approx(0.1)


def test_the_oldest_leads_and_its_like_join() -> None:
    """Jobs of the leader's key join in order; another key waits its turn and keeps its place."""
    a, b, c, d = job(key="x"), job(key="y"), job(key="x"), job(key="y")
    waiting = queue(a, b, c, d)
    assert waiting.take(0.0, LIMITS, CostModel()) == ([a, c], [])
    assert waiting.rows == 2
    assert waiting.take(0.0, LIMITS, CostModel()) == ([b, d], [])
    assert waiting.take(0.0, LIMITS, CostModel()) == ([], [])


def test_a_batch_is_not_overfilled_and_nobody_is_overtaken() -> None:
    """What does not fit waits, and so does all of its key behind it; a job of more rows than a batch runs alone."""
    a, b, c = job(6), job(6), job(1)
    waiting = queue(a, b, c)
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [a]
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [b, c]
    big, small = job(11), job(1)
    waiting = queue(big, small)
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [big]
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [small]


def test_without_a_key_each_runs_alone() -> None:
    """Jobs of no key never share a call."""
    waiting = queue(job(key=None), job(key=None))
    assert len(waiting.take(0.0, LIMITS, CostModel())[0]) == 1


def test_a_batch_is_not_filled_beyond_its_time() -> None:
    """Where rows are dear, more of them would only make all wait."""
    cost = known((1, MAX_BATCH_S / 2.5))
    assert len(queue(*(job() for _ in range(5))).take(0.0, LIMITS, cost)[0]) == 2


def test_what_nobody_wants_is_dropped_first() -> None:
    """Expired jobs and those whose client has left are not run, and the others do not wait for them."""
    late, left, wanted = job(deadline_at_s=1.0), job(abandoned=True), job()
    waiting = queue(late, left, wanted)
    batch, dropped = waiting.take(1.0, LIMITS, CostModel())
    assert batch == [wanted]
    assert dropped == [(late, DropReason.EXPIRED), (left, DropReason.ABANDONED)]
    assert waiting.rows == 0


def test_what_would_be_late_is_dropped_before_it_is_run() -> None:
    """Who could not be answered in time even now, or right after this call, is refused rather than run for nothing; but
    not who had none ahead, and nobody while the cost is unknown.
    """
    doomed, fine, next_one = job(deadline_at_s=0.5), job(deadline_at_s=1.5), job(key="other", deadline_at_s=2.2)
    cost = known((1, 1.0), (2, 2.0))
    batch, dropped = queue(doomed, fine, next_one).take(0.0, LIMITS, cost)
    assert batch == [fine]
    assert dropped == [(doomed, DropReason.REFUSED), (next_one, DropReason.REFUSED)]
    alone = job(deadline_at_s=0.5)
    alone.was_first = True
    assert queue(alone).take(0.0, LIMITS, cost)[0] == [alone]
    assert queue(doomed, next_one).take(0.0, LIMITS, CostModel())[0] == [doomed]


def test_who_joins_makes_nobody_late() -> None:
    """A batch ends before the earliest deadline in it."""
    cost = known((1, 1.0), (10, 1.9))
    first, second, third = job(deadline_at_s=1.5), job(), job()
    waiting = queue(first, second, third)
    assert waiting.take(0.0, LIMITS, cost)[0] == [first, second]
    assert waiting.take(0.0, LIMITS, cost)[0] == [third]


@given(
    st.lists(st.tuples(st.integers(1, 15), st.sampled_from(["x", "y", None]), st.sampled_from([1.0, 9.0]))),
    st.floats(0.0001, 0.3),
)
def test_every_job_is_taken_once_in_order(jobs: list[Any], per_row_s: float) -> None:
    """Whatever waits: nothing is lost, nothing taken twice, no batch too large or of two keys."""
    made = [job(rows, key, at, deadline) for at, (rows, key, deadline) in enumerate(jobs)]
    waiting, cost, seen, taken = queue(*made), known((1, per_row_s)), [], []
    while True:
        batch, dropped = waiting.take(1.0, LIMITS, cost)
        seen += [each for each, _ in dropped]
        runs_s = cost.typical_s(sum(each.rows for each in batch)) if batch else 0.0
        for each, reason in dropped:
            late = cost.typical_s(each.rows) > USABLE_DEADLINE_SHARE * (each.deadline_at_s - 1.0 - runs_s)
            assert each.deadline_at_s <= 1.0 or (late and reason is DropReason.REFUSED)
        if not batch:
            break
        assert all(each.deadline_at_s > 1.0 for each in batch)
        assert len({each.key for each in batch}) == 1
        assert len(batch) == 1 or (batch[0].key and sum(each.rows for each in batch) <= LIMITS.max_batch_rows)
        seen, taken = seen + batch, taken + batch
    assert sorted(each.item for each in seen) == list(range(len(made)))
    assert waiting.rows == 0
    for key in ("x", "y"):
        order = [each.item for each in taken if each.key == key]
        assert order == sorted(order)


def test_the_queue_s_time_follows_from_its_rows() -> None:
    """Merged: by full batches; unmerged: one by one, over as many calls as run at once; unknown: nothing."""
    cost = known((1, 1.0), (10, 2.0))
    waiting = queue(*(job() for _ in range(19)))
    assert waiting.drain_s(1, LIMITS, cost) == pytest.approx(4.0)
    assert waiting.drain_s(1, BatchPolicy(10, 100, max_concurrent_calls=2, shares_calls=False), cost) == pytest.approx(
        10.0
    )
    assert waiting.drain_s(1, LIMITS, CostModel()) == 0.0


@pytest.mark.parametrize(
    ("queued", "rows", "wait_s", "own_s", "refused"),
    [
        (0, 1000, 0.0, 0.0, False),  # larger than the queue, but there is none
        (90, 11, 0.0, 0.0, True),
        (90, 10, 0.0, 0.0, False),
        (1, 1, 0.5, 0.2, False),
        (1, 1, 0.5, 0.3, True),
        (0, 1, 0.0, 50.0, False),  # nothing ahead: only trying shows
    ],
)
def test_who_is_refused(queued: int, rows: int, wait_s: float, own_s: float, refused: bool) -> None:
    """Who finds the queue full, or would get the answer too late because of others; never who finds none ahead."""
    assert bool(refusal(10.0, 11.0, queued, rows, LIMITS, wait_s, own_s)) is refused


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_failing_item_fails_alone(poisoned: list[bool]) -> None:
    """Whichever items fail: each gets its own outcome, in order; the good ones their result."""

    def run(items: Any) -> list[int]:
        bad = [at for at in items if poisoned[at]]
        if bad:
            raise ValueError(bad[0])
        return [at * 10 for at in items]

    outcomes = run_isolated(range(len(poisoned)), run)
    for at, outcome in enumerate(outcomes):
        if poisoned[at]:
            assert isinstance(outcome, ValueError)
            assert outcome.args == (at,)
        else:
            assert outcome == at * 10
    assert len(outcomes) == len(poisoned)


def test_a_wrong_number_of_results_is_a_failure() -> None:
    """Rather than give one request another's answer."""
    outcomes = run_isolated([1, 2], lambda items: [0] * (len(items) + (len(items) > 1)))
    assert outcomes == [0, 0]
    assert isinstance(run_isolated([1], lambda items: [])[0], TypeError)
