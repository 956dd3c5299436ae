"""The batcher, with threads of this process; under gevent the same tests run again with greenlets."""

from __future__ import annotations

import gc
import socket
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest
from gevent.monkey import get_original
from hypothesis import given
from hypothesis import strategies as st

from tableside.batching.batcher import BatchedResult, Batcher
from tableside.batching.cost import CostModel
from tableside.batching.limits import RequestLimits
from tableside.batching.queue import BatchPolicy
from tableside.contracts.schema import Contract
from tableside.decoding.json_tables import from_rows
from tableside.errors import (
    ClientClosedRequest,
    DeadlineExceeded,
    InferenceFailed,
    Overloaded,
    RequestRejected,
    WaitedTooLong,
)
from tableside.process.offload import Offload, make_offload
from tableside.repository.model_toml import BatchConfig, ModelConfig
from tableside.serving.policy import make_policy
from tableside.serving.servable import Servable
from tableside.settings import Predict, Settings
from tests.fakes import CarefulRuntime, FakeClock, HereOffload, RecordingBatchMetrics, sum_contract

SLEEP: Callable[[float], None] = get_original("time", "sleep")
"""The sleep of native threads, also where gevent has patched `time`."""
POLICY = BatchPolicy(max_batch_rows=64, max_queue_rows=1000)
GIVE_UP_S = 30.0


class Echo:
    """Returns each item as its own result and remembers the calls.

    Each call runs `during`, moves the clock by `busy_s`, and then lasts until `holding` is false.
    """

    def __init__(self, clock: FakeClock, busy_s: float = 0.0) -> None:
        self.clock, self.busy_s = clock, busy_s
        self.holding = False
        self.during: Callable[[], None] = lambda: None
        self.calls: list[list[Any]] = []

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.calls.append(list(items))
        self.during()
        self.clock.advance(self.busy_s)
        while self.holding:
            SLEEP(0.001)
        return list(items)


class Bench:
    """A batcher with a fake clock, an Echo and recorded metrics. keys: item to key; None gives all the same key."""

    def __init__(
        self, policy: BatchPolicy = POLICY, keys: Any = None, busy_s: float = 0.0, run: Any = None,
        offload: Any = None,
    ) -> None:  # fmt: skip
        self.clock = FakeClock()
        self.echo = Echo(self.clock, busy_s)
        self.metrics = RecordingBatchMetrics()
        self.offload: Offload = offload or make_offload(2)
        self.batcher: Batcher[Any, Any] = Batcher(
            run or self.echo, lambda item: "k" if keys is None else keys[item], policy, self.clock
        )
        self.batcher.metrics = self.metrics

    def limits(self, within_s: float = 30.0, **more: Any) -> RequestLimits:
        return RequestLimits(self.clock() + within_s, within_s, **more)

    def submit(self, item: Any, limits: RequestLimits | None = None, rows: int = 1) -> BatchedResult[Any]:
        return self.batcher.submit(item, rows, self.offload, limits or self.limits())

    def submitting(self, item: Any, limits: RequestLimits | None = None) -> Callable[[], Any]:
        return lambda: self.submit(item, limits).result

    def in_turn(self, *calls: Callable[[], Any]) -> list[Any]:
        """Return what each call returns or raises. The first runs until the others, one by one, wait behind it."""
        before, waiting = len(self.echo.calls), 0

        def arrived(threads: list[threading.Thread]) -> None:
            nonlocal waiting
            newest, is_first = threads[-1], len(threads) == 1

            def has_arrived() -> bool:
                if not newest.is_alive():
                    return True
                return len(self.echo.calls) > before if is_first else self.batcher.queued_requests > waiting

            wait_until(has_arrived)
            waiting = self.batcher.queued_requests
            self.echo.holding = len(threads) < len(calls)

        self.echo.holding = True
        return together(*calls, after_start=arrived)


def wait_until(condition: Callable[[], bool]) -> None:
    give_up_at_s = time.monotonic() + GIVE_UP_S
    while not condition():
        assert time.monotonic() < give_up_at_s
        time.sleep(0.001)


def together(
    *calls: Callable[[], Any], after_start: Callable[[list[threading.Thread]], None] = lambda threads: None
) -> list[Any]:
    """Return what each call returns or raises; each runs in a thread. after_start: called when one has started."""
    outcomes: list[Any] = [None] * len(calls)

    def run(at: int) -> None:
        try:
            outcomes[at] = calls[at]()
        except Exception as problem:
            outcomes[at] = problem

    threads: list[threading.Thread] = []
    for at in range(len(calls)):
        threads.append(threading.Thread(target=run, args=(at,)))
        threads[-1].start()
        after_start(threads)
    for thread in threads:
        thread.join(60)
    return outcomes


def test_requests_that_arrive_during_a_call_share_the_next_call() -> None:
    """The first request runs alone; those that arrive meanwhile run together, and each gets its own result."""
    bench = Bench()
    bench.batcher.cost.learn(1, 0.2), bench.batcher.cost.learn(8, 0.2)
    assert bench.in_turn(*(bench.submitting(at) for at in range(8))) == list(range(8))
    assert bench.echo.calls == [[0], [1, 2, 3, 4, 5, 6, 7]]
    assert bench.metrics.rows == [1, 7]
    assert max(bench.metrics.waited) == 7
    assert bench.metrics.waited[-1] == 0


def test_keys_do_not_share_a_call() -> None:
    """Only requests with equal keys share a call, and a request with the key None runs alone."""
    bench = Bench(keys=["x", "x", "y", "x", "y", None, None])
    assert bench.in_turn(*(bench.submitting(at) for at in range(7))) == list(range(7))
    assert bench.echo.calls == [[0], [1, 3], [2, 4], [5], [6]]


def test_one_busy_model_leaves_a_thread_to_another() -> None:
    """With two native threads, a model that runs one call at a time does not delay another model."""
    offload = make_offload(2)
    busy, other = (Bench(BatchPolicy(shares_calls=False), offload=offload) for _ in range(2))
    during: list[Any] = []

    def call_the_other() -> None:
        during.append((other.submitting(1)(), busy.echo.holding))

    outcomes = busy.in_turn(*(busy.submitting(at) for at in range(3)), call_the_other)
    assert outcomes[:3] == [0, 1, 2]
    assert during == [(1, True)]
    assert busy.echo.calls == [[0], [1], [2]]


def test_expired_and_abandoned_requests_are_dropped_before_predict() -> None:
    """A request whose deadline passes, or whose client leaves, while it waits never reaches the estimator."""
    bench = Bench()
    client, served = socket.socketpair()
    long = bench.limits(3000.0)

    def leave() -> None:
        client.close()
        bench.clock.advance(21.0)

    outcomes = bench.in_turn(
        bench.submitting("first", long),
        bench.submitting("late", bench.limits(20.0)),
        bench.submitting("left", bench.limits(3000.0, connection=served)),
        bench.submitting("last", long),
        leave,
    )
    served.close()
    assert [outcomes[0], outcomes[3]] == ["first", "last"]
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert str(outcomes[1]) == "no answer within the deadline of 20 s"
    assert isinstance(outcomes[2], ClientClosedRequest)
    assert bench.echo.calls == [["first"], ["last"]]
    assert bench.metrics.drops == ["expired", "abandoned"]


def test_a_caller_stops_waiting_at_its_deadline() -> None:
    """`submit` raises DeadlineExceeded while the call ahead still runs, and its request is dropped afterwards."""
    bench, ended = Bench(), threading.Event()

    def short() -> Any:
        try:
            return bench.submit("short", bench.limits(0.05))
        finally:
            ended.set()

    outcomes = bench.in_turn(bench.submitting("first"), short, lambda: ended.wait(GIVE_UP_S))
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert bench.submitting("next")() == "next"
    assert bench.echo.calls == [["first"], ["next"]]
    assert bench.metrics.drops == ["expired"]


def test_a_result_has_the_seconds_of_its_queue_and_of_its_call() -> None:
    """queue_s ends when the call begins, and run_s is the duration of the whole shared call."""
    bench = Bench(busy_s=2.0, offload=HereOffload())
    first = bench.submit("a")
    assert (first.result, first.queue_s, first.run_s) == ("a", 0.0, 2.0)
    shared = Bench(busy_s=2.0)
    results = shared.in_turn(
        lambda: shared.submit("a"), lambda: shared.submit("b"), lambda: shared.submit("c"),
        lambda: shared.clock.advance(5.0),
    )  # fmt: skip
    assert [(result.queue_s, result.run_s) for result in results[1:3]] == [(5.0, 2.0), (5.0, 2.0)]


def refused_during_a_call(bench: Bench, within_s: float) -> Overloaded:
    """Return the error of a request that arrives while another one runs."""
    errors: list[Overloaded] = []

    def submit_another() -> None:
        with pytest.raises(Overloaded) as refused:
            bench.submit("second", bench.limits(within_s))
        errors.append(refused.value)

    bench.echo.during = submit_another
    bench.submit("first", bench.limits(600.0))
    return errors[0]


def known_cost(seconds: float) -> CostModel:
    cost = CostModel()
    cost.learn(1, seconds)
    return cost


def test_a_request_that_would_be_late_is_refused_at_once() -> None:
    """Once the cost is known, Overloaded names the expected and the remaining seconds, and when to come again."""
    bench = Bench(offload=HereOffload())
    bench.batcher.cost = known_cost(3.0)
    error = refused_during_a_call(bench, within_s=4.0)
    assert str(error) == (
        "the answer would take about 6 s and the request has 4 s left; send it again later, or with a longer deadline"
    )
    assert error.retry_after_s == 6
    assert bench.metrics.drops == ["refused"]


class Item:
    """Stands for the table of a request."""


def test_a_refusal_keeps_nothing_of_its_request() -> None:
    """The item of a refused request is freed with the error, and does not wait for a garbage collection."""
    bench = Bench(offload=HereOffload())
    bench.batcher.cost = known_cost(3.0)
    freed: list[bool] = []

    def submit_another() -> None:
        item = Item()
        weakref.finalize(item, freed.append, True)
        with suppress(Overloaded):
            bench.submit(item, bench.limits(4.0))

    bench.echo.during = submit_another
    gc.disable()
    try:
        bench.submit("first", bench.limits(600.0))
        assert bench.metrics.drops == ["refused"]
        assert freed
    finally:
        gc.enable()


def test_estimates_that_were_too_low_are_corrected() -> None:
    """After calls that took longer than expected, `retry_after_s` is longer than the cost model alone says."""
    bench = Bench(offload=HereOffload(), busy_s=40.0)
    bench.batcher.cost = known_cost(10.0)
    assert refused_during_a_call(bench, within_s=1.0).retry_after_s == 20
    bench.batcher.cost = known_cost(10.0)
    corrected_s = refused_during_a_call(bench, within_s=1.0).retry_after_s
    assert corrected_s == 32  # the first call took 4 times as long: a fifth of the way from a factor of 1 to one of 4
    for _ in range(50):
        bench.echo.during = lambda: None
        bench.batcher.cost = known_cost(10.0)
        bench.submit("slow", bench.limits(600.0))
    bench.batcher.cost = known_cost(10.0)
    assert 70 < refused_during_a_call(bench, within_s=1.0).retry_after_s <= 80  # the factor is near 4


def test_a_full_queue_refuses() -> None:
    """Past `max_queue_rows` every request is refused, and `check_room` finds that out before a body is read."""
    bench = Bench(BatchPolicy(max_batch_rows=1, max_queue_rows=2))
    calls = [bench.submitting(at) for at in range(5)]
    outcomes = bench.in_turn(*calls, lambda: bench.batcher.check_room(bench.limits()))
    assert outcomes[:3] == [0, 1, 2]
    assert all(isinstance(outcome, Overloaded) for outcome in outcomes[3:])
    assert str(outcomes[3]) == (
        "the queue of this model is full: it holds 2 rows and predict.max_queue_rows is 2; send the request again later"
    )
    bench.batcher.check_room(bench.limits())


def test_three_large_requests_are_all_answered() -> None:
    """Neither the cost of one row nor the rows of another request refuses a large one that was never tried."""
    bench = Bench(BatchPolicy(max_batch_rows=1024, max_queue_rows=16384))
    bench.batcher.cost = known_cost(0.05)  # in proportion, 10 000 rows would take 500 s
    large = [lambda at=at: bench.submit(at, bench.limits(10.0), rows=10_000).result for at in range(3)]
    assert bench.in_turn(*large) == [0, 1, 2]
    assert bench.metrics.drops == []


def test_a_first_large_call_does_not_raise_later_estimates() -> None:
    """What was expected of a size that was never tried is no error of the estimates."""
    bench = Bench(offload=HereOffload(), busy_s=5.0)
    bench.batcher.cost = known_cost(0.05)
    bench.submit("large", bench.limits(100.0), rows=10_000)
    bench.batcher.cost = known_cost(10.0)
    assert refused_during_a_call(bench, within_s=1.0).retry_after_s == 20, "the factor is still 1"


def test_a_request_that_waited_outside_is_refused_and_not_late() -> None:
    """Time spent in the kernel's queue is the server's fault (503); a deadline too short by itself is 504."""
    bench = Bench()
    with pytest.raises(WaitedTooLong, match=r"waited 2 s until a worker read it and has 0 s left"):
        bench.submit(1, bench.limits(-0.1, waited_s=2.0))
    with pytest.raises(DeadlineExceeded):
        bench.submit(1, bench.limits(-0.1))
    with pytest.raises(DeadlineExceeded):
        bench.submit(1, bench.limits(0.0))
    assert bench.metrics.drops == ["refused", "expired", "expired"]
    assert bench.echo.calls == []


def test_an_expensive_call_with_nothing_ahead_runs() -> None:
    """A request with nothing ahead runs whatever its expected time: a wrong estimate must not block a model."""
    bench = Bench()
    bench.batcher.cost.learn(1, 60.0)
    assert bench.submitting(1, bench.limits(5.0))() == 1


def test_cheap_calls_share_only_where_sharing_pays() -> None:
    """A cheap call alone runs on its caller's thread; one in some tries the queue, to find out whether others come."""
    threads: list[int] = []

    def run(items: Sequence[Any]) -> list[Any]:
        threads.append(threading.get_ident())
        bench.clock.advance(0.0005)
        return list(items)

    bench = Bench(BatchPolicy(inline_below_s=0.05), run=run)
    bench.batcher.cost.learn(1, 0.0005)
    for at in range(48):
        assert bench.submitting(at)() == at
    assert sum(thread != threading.get_ident() for thread in threads) == 3  # one in 16


@pytest.mark.parametrize(("cost_s", "may_inline", "offloaded"), [(0.01, True, 0), (0.01, False, 1), (0.2, True, 1)])
def test_only_cheap_calls_that_may_run_inline_do(cost_s: float, may_inline: bool, offloaded: int) -> None:
    """A call runs on the event loop if it costs less than `inline_below_s` and its request allows that."""
    bench = Bench(BatchPolicy(shares_calls=False, inline_below_s=0.05), offload=HereOffload())
    bench.batcher.cost.learn(1, cost_s)
    assert bench.submit("a", bench.limits(may_inline=may_inline)).result == "a"
    assert bench.offload.calls == offloaded  # type: ignore[attr-defined]
    assert bench.metrics.rows == [1]


def test_an_inline_call_that_raises_raises_in_submit() -> None:
    """The caller gets the exception itself, and the next request runs."""

    def run(items: Sequence[Any]) -> list[Any]:
        if items == ["bad"]:
            raise KeyError("bad")
        return list(items)

    bench = Bench(BatchPolicy(shares_calls=False, inline_below_s=0.05), run=run, offload=HereOffload())
    bench.batcher.cost.learn(1, 0.0)
    for item in ("bad", "good", "bad"):
        if item == "good":
            assert bench.submit(item).result == "good"
        else:
            with pytest.raises(KeyError, match="bad"):
                bench.submit(item)


def test_keys_are_not_computed_where_calls_are_not_shared() -> None:
    """Without `shares_calls` an item needs no key; a key may cost time."""
    bench = Bench(BatchPolicy(shares_calls=False), keys={}, offload=HereOffload())
    assert bench.submit("no key").result == "no key"
    with pytest.raises(KeyError):
        Bench(keys={}, offload=HereOffload()).submit("no key")


class CountedOffload:
    """An offload that runs work in native threads and counts the calls."""

    def __init__(self) -> None:
        self.real = make_offload(2)
        self.threads, self.calls = 2, 0
        self.spawn, self.pause = self.real.spawn, self.real.pause

    def call(self, work: Callable[[], Any], deadline_at_s: float | None = None) -> Any:
        self.calls += 1
        return self.real.call(work, deadline_at_s)


@pytest.mark.parametrize("keys", ["kkk", "abc"])
def test_a_large_body_keeps_its_own_limits_in_a_loop_that_a_small_request_began(keys: str) -> None:
    """A request that may not run on the event loop runs in a native thread, whichever request began the loop."""

    class BecomesCheap(Echo):
        def __call__(self, items: Sequence[Any]) -> list[Any]:
            bench.batcher.cost.learn(1, 0.0002)  # from now on a call is cheap enough for the event loop
            return super().__call__(items)

    offload = CountedOffload()
    bench = Bench(BatchPolicy(inline_below_s=0.05), keys, offload=offload)
    echo = BecomesCheap(bench.clock)
    bench.batcher = Batcher(echo, lambda item: keys[item], bench.batcher.policy, bench.clock)
    bench.echo = echo
    small, large = bench.limits(), bench.limits(may_inline=False)
    calls = [bench.submitting(at, limits) for at, limits in enumerate((small, large, small))]
    assert bench.in_turn(*calls) == [0, 1, 2]
    assert echo.calls == ([[0], [1, 2]] if keys == "kkk" else [[0], [1], [2]])
    assert offload.calls == 2  # the first, whose cost was not known, and the one with the large body


def test_a_new_policy_counts_from_the_next_batch_on() -> None:
    """A policy that is stored while a call runs decides how the next batch is filled."""
    bench = Bench()

    def reload() -> None:
        bench.batcher.policy = BatchPolicy(max_batch_rows=2)

    assert bench.in_turn(*(bench.submitting(at) for at in range(5)), reload)[:5] == [0, 1, 2, 3, 4]
    assert bench.echo.calls == [[0], [1, 2], [3, 4]]


ROWS = st.lists(st.lists(st.sampled_from([0.5, 2.0, -3.25, 666.0]), min_size=2, max_size=2), min_size=1, max_size=5)


def merging_servable(runtime: Any, batch: Any = "exact", rules: BatchConfig | None = None) -> Servable:
    contract: Contract = msgspec.structs.replace(sum_contract(), batch_invariance=batch)
    servable = Servable("sums", 1, contract)
    servable.ready(runtime, 0.0)
    settings = Settings(predict=Predict(inline_below_ms=0.0))
    servable.adopt(make_policy(ModelConfig(batching=rules or BatchConfig()), contract, settings))
    return servable


@given(st.lists(st.tuples(ROWS, st.sampled_from(["predict", "transform"])), min_size=1, max_size=12))
@pytest.mark.slow
def test_every_request_gets_its_own_answer(requests: list[Any]) -> None:
    """Of random requests at once, on some of which the estimator raises, each gets what it would get alone."""
    runtime = CarefulRuntime(0.005, 666.0, SLEEP)
    servable, offload = merging_servable(runtime), make_offload(2)
    assert servable.contract is not None
    schema = servable.contract.input

    def submit(rows: Any, output: str) -> Callable[[], Any]:
        table, wanted = from_rows(rows, schema), servable.outputs([output])
        limits = RequestLimits(time.monotonic() + 60)
        return lambda: servable.predict(table, wanted, offload, limits).arrays

    outcomes = together(*(submit(rows, output) for rows, output in requests))
    alone = CarefulRuntime()
    for (rows, output), outcome in zip(requests, outcomes, strict=True):
        if any(666.0 in row for row in rows):
            assert isinstance(outcome, RequestRejected)
        else:
            assert list(outcome) == [output]
            np.testing.assert_array_equal(outcome[output], alone.run(output, from_rows(rows, schema)))


@pytest.mark.parametrize(
    ("batch", "rules", "batched"),
    [
        ("exact", BatchConfig(), True),
        ("ulp", BatchConfig(), True),
        ("none", BatchConfig(), False),
        (None, BatchConfig(), False),
        ("exact", BatchConfig(require="exact"), True),
        ("ulp", BatchConfig(require="exact"), False),
        ("exact", BatchConfig(enabled=False), False),
    ],
)
def test_which_requests_may_share_a_call(batch: Any, rules: BatchConfig, batched: bool) -> None:
    """Requests share calls only where publish measured that they may and model.toml allows it."""
    runtime = CarefulRuntime(0.05, sleep=SLEEP)
    servable, offload = merging_servable(runtime, batch, rules), make_offload(2)
    assert servable.policy.batching.shares_calls is batched
    assert servable.contract is not None
    table, wanted = from_rows([[1.0, 2.0]], servable.contract.input), servable.outputs([])
    limits = RequestLimits(time.monotonic() + 60)
    together(*[lambda: servable.predict(table, wanted, offload, limits)] * 6)
    assert sum(runtime.sizes) == 6
    assert (max(runtime.sizes) > 1) is batched


def test_a_wrong_number_of_answers_is_no_answer_to_others() -> None:
    """If a shared call returns too few rows, each request is computed alone."""

    class Forgetful(CarefulRuntime):
        def run(self, method: str, data: Any) -> Any:
            answer = super().run(method, data)
            return answer[:-1] if len(answer) > 1 else answer

    runtime = Forgetful(0.05, sleep=SLEEP)
    servable, offload = merging_servable(runtime), make_offload(2)
    assert servable.contract is not None
    limits = RequestLimits(time.monotonic() + 60)

    def submit(at: int) -> Callable[[], Any]:
        table = from_rows([[float(at), 1.0]], servable.contract.input)  # type: ignore[union-attr]
        return lambda: servable.predict(table, servable.outputs([]), offload, limits).arrays["predict"].tolist()

    assert together(*(submit(at) for at in range(6))) == [[at + 1.0] for at in range(6)]
    assert max(runtime.sizes) > 1


def test_a_pool_that_fails_fails_its_requests_and_nothing_else() -> None:
    """If no thread can be started, the waiting requests fail with InferenceFailed, and the next ones are answered."""

    class Broken:
        threads = 1

        def __init__(self) -> None:
            self.real = make_offload(1)
            self.failing = True

        def call(self, work: Any, deadline_at_s: float | None = None) -> Any:
            if self.failing:
                raise MemoryError("no more threads")
            return self.real.call(work, deadline_at_s)

        def spawn(self, loop: Any) -> None:
            self.real.spawn(loop)

        def pause(self) -> None:
            pass

    servable, offload = merging_servable(CarefulRuntime()), Broken()
    assert servable.contract is not None
    table = from_rows([[1.0, 2.0]], servable.contract.input)
    limits = RequestLimits(time.monotonic() + 60)
    with pytest.raises(InferenceFailed):
        servable.predict(table, servable.outputs([]), offload, limits)
    offload.failing = False
    assert servable.predict(table, servable.outputs([]), offload, limits).arrays["predict"].tolist() == [3.0]


def test_metrics_that_fail_lose_no_request() -> None:
    """Metrics that raise neither end the batch loop nor change what a client gets."""

    class Broken(RecordingBatchMetrics):
        def ran(self, rows: int) -> None:
            raise OSError("no space left")

        def dropped(self, reason: Any) -> None:
            raise OSError("no space left")

    bench = Bench()
    bench.batcher.metrics = Broken()
    calls = [bench.submitting(at, bench.limits(20.0 if at == 2 else 3000.0)) for at in range(4)]
    outcomes = bench.in_turn(*calls, lambda: bench.clock.advance(21.0))
    assert [outcomes[at] for at in (0, 1, 3)] == [0, 1, 3]
    assert isinstance(outcomes[2], DeadlineExceeded)
    assert bench.submitting(9)() == 9


def test_requests_behind_a_call_that_does_not_end_use_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """They wait for OVERDUE_S; those that came before the call was overdue look again themselves."""
    monkeypatch.setattr("tableside.batching.batcher.OVERDUE_S", 0.2)
    goes_on = threading.Event()

    def run(items: Sequence[Any]) -> list[Any]:
        while items == ["hung"] and not goes_on.is_set():
            SLEEP(0.002)
        return list(items)

    batcher: Batcher[Any, Any] = Batcher(run, lambda item: "k", POLICY)
    offload = make_offload(2)
    outcomes: dict[str, Any] = {}

    def submit(item: str) -> None:
        outcomes[item] = batcher.submit(item, 1, offload, RequestLimits(time.monotonic() + 60, 60.0)).result

    threads = [threading.Thread(target=submit, args=(item,)) for item in ("hung", "next")]
    threads[0].start()
    wait_until(lambda: bool(batcher._ends_at_s))
    threads[1].start()
    wait_until(lambda: "next" in outcomes)
    assert outcomes == {"next": "next"}
    goes_on.set()
    for thread in threads:
        thread.join(60)
    assert outcomes == {"next": "next", "hung": "hung"}
    assert batcher._loops == 0
