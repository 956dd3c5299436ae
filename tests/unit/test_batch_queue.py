"""The pure parts of batching: cost model, queue, refusals and isolation of failures; no clock and no threads."""

from __future__ import annotations

import gc
import math
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tableside.batching.admission import USABLE_DEADLINE_SHARE, refusal
from tableside.batching.cost import CostModel
from tableside.batching.isolation import run_isolated, run_timed
from tableside.batching.queue import MAX_BATCH_S, BatchPolicy, DropReason, Queue, QueuedRequest
from tableside.errors import Overloaded, WaitedTooLong

LIMITS = BatchPolicy(max_batch_rows=10, max_queue_rows=100)


def job(
    rows: int = 1, key: Any = "k", item: Any = None, deadline_at_s: float = 100.0, abandoned: bool = False
) -> QueuedRequest[Any, Any]:
    return QueuedRequest(item, rows, key, 0.0, deadline_at_s, abandoned=abandoned)


def queue(*jobs: QueuedRequest[Any, Any]) -> Queue[Any, Any]:
    filled: Queue[Any, Any] = Queue()
    for waiting in jobs:
        filled.push(waiting)
    return filled


def known(*pairs: tuple[int, float]) -> CostModel:
    cost = CostModel()
    for rows, seconds in pairs:
        cost.learn(rows, seconds)
    return cost


def test_nothing_is_known_before_the_first_call() -> None:
    """Before the first call both estimates are infinite, so that no call counts as cheap."""
    assert CostModel().typical_s(1) == CostModel().least_s(1) == math.inf


def test_a_call_has_a_cost_before_its_rows() -> None:
    """20 ms for 1000 rows does not mean 20 us for one; 3 ms for one row means at most 192 ms for 64."""
    assert known((1000, 0.02)).least_s(1) == 0.02
    assert known((1, 0.003)).least_s(64) == pytest.approx(0.192)


def test_between_two_sizes_the_cost_is_a_line() -> None:
    """Between two measured sizes the estimate is interpolated linearly, in whatever order they were measured."""
    cost = known((100, 0.011), (1, 0.001), (1024, 0.1))
    assert cost.typical_s(1) == 0.001
    assert cost.typical_s(51) == pytest.approx(0.001 + 0.010 * 50 / 99)
    assert cost.typical_s(2048) == pytest.approx(0.2, rel=0.02)


def test_beyond_what_was_seen_the_line_goes_on() -> None:
    """Batches grow in steps where a call costs the same for any number of rows, and stay small where each row costs."""
    cost, limits = known((1, 0.2)), BatchPolicy(1000, 1000)
    sizes = []
    for _ in range(5):
        batch, _ = queue(*(job() for _ in range(1000))).take(0.0, limits, cost)
        sizes.append(len(batch))
        cost.learn(len(batch), 0.2)
    assert sizes[:2] == [2, 22]
    assert sizes[-1] == 1000
    expensive = known((1, 0.2), (2, 0.4))
    assert len(queue(*(job() for _ in range(1000))).take(0.0, limits, expensive)[0]) == 2


def test_the_least_cost_forgives_noise_and_follows_a_change() -> None:
    """One slow call hardly changes the least cost; some hundred slow calls raise it to theirs."""
    cost = known((1, 0.001), (1, 0.5))
    assert cost.least_s(1) < 0.0011
    for _ in range(300):
        cost.learn(1, 0.1)
    assert cost.least_s(1) == pytest.approx(0.1)


def test_the_oldest_request_leads_and_its_key_joins() -> None:
    """Requests with the key of the oldest one join it in order; those with another key keep their places."""
    a, b, c, d = job(key="x"), job(key="y"), job(key="x"), job(key="y")
    waiting = queue(a, b, c, d)
    assert waiting.take(0.0, LIMITS, CostModel()) == ([a, c], [])
    assert waiting.rows == 2
    assert waiting.take(0.0, LIMITS, CostModel()) == ([b, d], [])
    assert waiting.take(0.0, LIMITS, CostModel()) == ([], [])


def test_a_batch_is_not_overfilled_and_no_request_is_overtaken() -> None:
    """A request that does not fit closes the batch for its key; one with more rows than a batch runs alone."""
    a, b, c = job(6), job(6), job(1)
    waiting = queue(a, b, c)
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [a]
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [b, c]
    big, small = job(11), job(1)
    waiting = queue(big, small)
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [big]
    assert waiting.take(0.0, LIMITS, CostModel())[0] == [small]


def test_without_a_key_each_runs_alone() -> None:
    """Requests with the key None never share a call."""
    waiting = queue(job(key=None), job(key=None))
    assert len(waiting.take(0.0, LIMITS, CostModel())[0]) == 1


def test_a_batch_is_not_filled_beyond_its_time() -> None:
    """A batch ends at MAX_BATCH_S, or at twice the cost of its first request."""
    cost = known((1, MAX_BATCH_S / 2.5))
    assert len(queue(*(job() for _ in range(5))).take(0.0, LIMITS, cost)[0]) == 2


def test_expired_and_abandoned_requests_are_dropped() -> None:
    """Requests past their deadline, or whose client has left, do not run and do not delay the others."""
    late, left, wanted = job(deadline_at_s=1.0), job(abandoned=True), job()
    waiting = queue(late, left, wanted)
    batch, dropped = waiting.take(1.0, LIMITS, CostModel())
    assert batch == [wanted]
    assert dropped == [(late, DropReason.EXPIRED), (left, DropReason.ABANDONED)]
    assert waiting.rows == 0


def test_requests_that_would_be_late_are_dropped() -> None:
    """A request that would be late even if it ran now or right after this batch is refused.

    A request that had nothing ahead still runs, and so does every request while the cost is unknown.
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


def test_joining_requests_make_no_request_late() -> None:
    """A batch takes a request only if it ends before the earliest deadline in it."""
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
    """Of any queue every request is taken or dropped once, in order, in batches of one key that are not too large."""
    made = [job(rows, key, at, deadline) for at, (rows, key, deadline) in enumerate(jobs)]
    waiting, cost, seen, taken = queue(*made), known((1, per_row_s)), [], []
    while True:
        batch, dropped = waiting.take(1.0, LIMITS, cost)
        seen += [each for each, _ in dropped]
        runs_s = cost.typical_s(sum(each.rows for each in batch)) if batch else 0.0
        for each, reason in dropped:
            late = cost.proven_s(each.rows) > USABLE_DEADLINE_SHARE * (each.deadline_at_s - 1.0 - runs_s)
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


def test_the_time_of_the_queue_follows_from_its_rows() -> None:
    """Shared calls take the time of full batches, other calls that of each request divided by the concurrent calls."""
    cost = known((1, 1.0), (10, 2.0))
    waiting = queue(*(job() for _ in range(19)))
    assert waiting.drain_s(1, LIMITS, cost) == pytest.approx(4.0)
    assert waiting.drain_s(1, BatchPolicy(10, 100, max_concurrent_calls=2, shares_calls=False), cost) == pytest.approx(
        10.0
    )
    assert waiting.drain_s(1, LIMITS, CostModel()) == 0.0


@pytest.mark.parametrize(
    ("queued", "wait_s", "own_s", "refused"),
    [
        (100, 0.0, 0.0, True),
        (99, 0.0, 0.0, False),
        (1, 0.5, 0.2, False),
        (1, 0.5, 0.3, True),
        (0, 0.0, 0.8, True),
        (0, None, 50.0, False),  # nothing ahead: only trying shows
    ],
)
def test_which_requests_are_refused(queued: int, wait_s: float | None, own_s: float, refused: bool) -> None:
    """A request is refused if the queue is full, or if those ahead make it late; never if nothing is ahead."""
    assert isinstance(refusal(10.0, 11.0, queued, 100, wait_s, own_s), Overloaded) is refused


@pytest.mark.parametrize(
    ("now_s", "wait_s", "own_s", "waited_s", "expected"),
    [
        (10.0, None, 0.5, 20.0, type(None)),  # enough time is left
        (10.0, None, 0.8, 20.0, WaitedTooLong),
        (11.5, None, 0.0, 20.0, WaitedTooLong),  # nothing is left, and nothing is known of the cost
        (10.0, 0.4, 0.4, 20.0, WaitedTooLong),
        (10.0, 20.0, 0.4, 20.0, Overloaded),  # it would have been too late in any case
        (10.0, 0.4, 0.4, 0.0, Overloaded),
    ],
)
def test_the_servers_own_delay_is_not_the_callers_fault(
    now_s: float, wait_s: float | None, own_s: float, waited_s: float, expected: type
) -> None:
    """A request that would have been in time without its wait for a worker: the refusal says the server is late."""
    found = refusal(now_s, 11.0, 1, 100, wait_s, own_s, waited_s)
    assert type(found) is expected
    if isinstance(found, WaitedTooLong):
        assert str(found) == (
            f"the request waited 20 s until a worker read it and has {max(0, 11 - now_s):g} s left: "
            "the server was busy or restarting; send it again"
        )


def test_a_size_that_was_never_tried_refuses_nothing() -> None:
    """Above the largest measured size only what was measured counts, and below it the line between two sizes."""
    cost = known((1, 1.0), (8, 2.0))
    assert CostModel().proven_s(100) == 0.0
    assert cost.proven_s(8) == cost.proven_s(100_000) == 2.0
    assert cost.proven_s(4) == cost.typical_s(4) < cost.typical_s(100_000)
    assert (CostModel().largest_size, cost.largest_size) == (0, 4)
    large = job(rows=5000, deadline_at_s=10.0)
    assert queue(large).take(1.0, LIMITS, cost) == ([large], [])


@given(st.lists(st.booleans(), min_size=1, max_size=40))
def test_a_failing_item_fails_alone(poisoned: list[bool]) -> None:
    """Whichever items fail, each item gets its own outcome, in order."""

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
    """If a call returns another number of results than items, each item runs alone, and no result is misplaced."""
    outcomes = run_isolated([1, 2], lambda items: [0] * (len(items) + (len(items) > 1)))
    assert outcomes == [0, 0]
    (error,) = run_isolated([1], lambda items: [])
    assert isinstance(error, TypeError)
    assert str(error) == "the model returned 0 results for 1 requests"


def test_one_bad_item_costs_few_calls() -> None:
    """One failing item among 64 is found by halving, in at most 1 + 2 * 6 calls."""
    sizes: list[int] = []

    def run(items: Any) -> list[int]:
        sizes.append(len(items))
        if 37 in items:
            raise ValueError
        return list(items)

    outcomes = run_isolated(range(64), run)
    assert [at for at, outcome in enumerate(outcomes) if isinstance(outcome, Exception)] == [37]
    assert len(sizes) == 13
    assert sizes[0] == 64


def test_an_interrupt_is_not_an_outcome() -> None:
    """KeyboardInterrupt and SystemExit are raised, not kept as a result: they are not errors of a request."""

    def run(items: Any) -> list[int]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_isolated([1, 2], run)


def test_no_items_are_no_results() -> None:
    """An empty batch gives an empty list."""
    assert run_isolated([], list) == []


def test_a_refusal_names_the_limit_and_the_next_step() -> None:
    """The text of a refusal holds the number, the setting or the seconds, and says what to do."""
    full = refusal(10.0, 11.0, 100, 100, 0.0, 0.0)
    assert str(full) == (
        "the queue of this model is full: it holds 100 rows and predict.max_queue_rows is 100; "
        "send the request again later"
    )
    late = refusal(10.0, 11.5, 1, 100, 2.0, 0.25)
    assert str(late) == (
        "the answer would take about 2.2 s and the request has 1.5 s left; "
        "send it again later, or with a longer deadline"
    )
    assert "has 0 s left" in str(refusal(12.0, 11.5, 1, 100, 2.0, 0.25))


def test_a_caller_that_has_left_counts_as_expired() -> None:
    """A request whose caller stopped waiting is dropped as expired, also if its client has left as well."""
    left = job(abandoned=True)
    left.has_left = True
    assert queue(left).take(0.0, LIMITS, CostModel()) == ([], [(left, DropReason.EXPIRED)])


def test_a_deadline_is_over_at_its_own_moment() -> None:
    """A request runs a moment before its deadline, and is expired at the deadline itself."""
    waiting = job(deadline_at_s=5.0)
    assert queue(waiting).take(4.999, LIMITS, CostModel())[0] == [waiting]
    assert queue(waiting).take(5.0, LIMITS, CostModel())[1] == [(waiting, DropReason.EXPIRED)]


def test_the_queue_knows_its_rows() -> None:
    """`rows` is the sum of the rows that wait, after each push and each take."""
    waiting = queue(job(3), job(4, key="other"), job(5))
    assert (len(waiting), waiting.rows) == (3, 12)
    waiting.take(0.0, LIMITS, CostModel())
    assert (len(waiting), waiting.rows) == (1, 4)
    assert [each.rows for each in waiting] == [4]


def test_a_batch_is_full_at_its_last_row() -> None:
    """A batch that has exactly `max_batch_rows` takes no more, and one row less leaves room for one."""
    exact, more = job(10), job(1)
    assert queue(exact, more).take(0.0, LIMITS, CostModel())[0] == [exact]
    nearly, one = job(9), job(1)
    assert queue(nearly, one, job(1)).take(0.0, LIMITS, CostModel())[0] == [nearly, one]


def test_a_partly_full_batch_counts_with_its_rows() -> None:
    """Three full batches and a rest of 5 rows take three full calls and one of 5 rows."""
    cost = known((1, 1.0), (10, 2.0))
    waiting = queue(*(job(5) for _ in range(6)))
    assert waiting.drain_s(5, LIMITS, cost) == pytest.approx(3 * 2.0 + cost.typical_s(5))


def test_calls_of_one_size_are_averaged() -> None:
    """A new duration moves the typical cost by a fifth of the difference; a shorter one becomes the least cost."""
    cost = known((4, 1.0), (4, 2.0))
    assert cost.typical_s(4) == pytest.approx(1.2)
    assert cost.least_s(4) == pytest.approx(1.02)  # it grows by 2 % with each slower call
    cost.learn(4, 0.5)
    assert cost.least_s(4) == pytest.approx(0.5)
    assert cost.typical_s(4) == pytest.approx(1.06)


def test_sizes_that_differ_little_share_an_estimate() -> None:
    """Calls of 4 to 7 rows are one size, and 8 rows are the next one."""
    cost = known((4, 1.0), (7, 1.0), (8, 9.0))
    assert cost.typical_s(4) == pytest.approx(1.0)
    assert cost.typical_s(8) == pytest.approx(9.0)
    assert 1.0 < cost.typical_s(6) < 9.0


class Item:
    """Stands for the table of a request."""


def test_a_failure_keeps_nothing_of_its_item() -> None:
    """The outcomes of a batch hold the errors; what the errors' frames hold is freed with them."""
    freed: list[bool] = []

    def fail(items: Any) -> list[Any]:
        raise ArithmeticError

    def outcomes() -> list[Any]:
        item = Item()
        weakref.finalize(item, freed.append, True)
        return run_timed([item], fail, lambda: 0.0)[0]

    gc.disable()
    try:
        assert isinstance(outcomes()[0], ArithmeticError)
        assert freed
    finally:
        gc.enable()
