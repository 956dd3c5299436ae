"""Batch while busy, with threads of this process: greenlets when the ring runs again under gevent."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from gevent.monkey import get_original
from hypothesis import given
from hypothesis import strategies as st

from tableside.batching.batcher import Batcher, RequestLimits
from tableside.batching.queue import BatchPolicy
from tableside.contract.schema import Contract
from tableside.decoding.json_tables import from_rows
from tableside.errors import ClientClosedRequest, DeadlineExceeded, InferenceFailed, Overloaded, RequestRejected
from tableside.process.offload import make_offload
from tableside.repository.model_toml import BatchConfig, ModelConfig
from tableside.serving.policy import make_policy
from tableside.serving.servable import Servable
from tableside.settings import Predict, Settings
from tests.fakes import CarefulRuntime, CountingMeter, sum_contract

SLEEP: Callable[[float], None] = get_original("time", "sleep")
POLICY = BatchPolicy(max_batch_rows=64, max_queue_rows=1000)


class Slow:
    """Answers each item with itself, after a while, and not before `holding` ends; remembers its calls."""

    def __init__(self, busy_s: float) -> None:
        self.busy_s = busy_s
        self.holding = False
        self.calls: list[list[Any]] = []

    def __call__(self, items: Sequence[Any]) -> list[Any]:
        self.calls.append(list(items))
        SLEEP(self.busy_s)
        while self.holding:
            SLEEP(0.001)
        return list(items)


def limits(within_s: float = 30.0, **more: Any) -> RequestLimits:
    return RequestLimits(time.monotonic() + within_s, within_s, **more)


def batching(run: Callable[[Sequence[Any]], list[Any]], policy: BatchPolicy = POLICY, keys: Any = None) -> Any:
    """A batcher whose items have the keys of that mapping, or all the same one."""
    return Batcher(run, lambda item: "k" if keys is None else keys[item], policy)


def nothing(_: Any = None) -> None:
    """What is done between calls that are all made at once."""


def together(
    *calls: Callable[[], Any], pause_s: float = 0.0, after: Callable[[list[threading.Thread]], None] = nothing
) -> list[Any]:
    """What each call returns or raises, all made at once (or `pause_s` apart). after: what follows each start."""
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
        after(threads)
        if pause_s:
            time.sleep(pause_s)
    for thread in threads:
        thread.join(60)
    return outcomes


def in_turn(batcher: Batcher[Any, Any], slow: Slow, *calls: Callable[[], Any]) -> list[Any]:
    """What each call returns or raises: the first is held until the others, one by one, wait behind it."""
    before, waiting = len(slow.calls), 0

    def arrived(threads: list[threading.Thread]) -> None:
        nonlocal waiting
        is_first, give_up_at_s = len(threads) == 1, time.monotonic() + 10
        while threads[-1].is_alive() and (len(slow.calls) == before if is_first else batcher.queued_requests <= waiting):
            assert time.monotonic() < give_up_at_s
            time.sleep(0.001)
        waiting = batcher.queued_requests
        slow.holding = len(threads) < len(calls)

    slow.holding = True
    return together(*calls, after=arrived)


def asking(batcher: Batcher[Any, Any], item: Any, offload: Any, given: RequestLimits) -> Callable[[], Any]:
    return lambda: batcher.submit(item, 1, offload, given).result


def test_who_comes_while_it_is_busy_shares_the_next_call() -> None:
    """The first runs at once and alone; those who come meanwhile run together, each with its own answer."""
    slow, offload = Slow(0.2), make_offload(2)
    batcher: Batcher[Any, Any] = batching(slow)
    batcher.cost.learn(1, 0.2), batcher.cost.learn(8, 0.2)
    batcher.metrics = metrics = CountingMeter()
    outcomes = in_turn(batcher, slow, *(asking(batcher, at, offload, limits()) for at in range(8)))
    assert outcomes == list(range(8))
    assert slow.calls == [[0], [1, 2, 3, 4, 5, 6, 7]]
    assert metrics.rows == [1, 7]
    assert max(metrics.waited) == 7
    assert metrics.waited[-1] == 0


def test_keys_do_not_share_a_call() -> None:
    """Requests of another key have calls of their own; those of none run alone."""
    slow, offload = Slow(0.1), make_offload(2)
    batcher = batching(slow, keys=["x", "x", "y", "x", "y", None, None])
    calls = [asking(batcher, at, offload, limits()) for at in range(7)]
    assert in_turn(batcher, slow, *calls) == list(range(7))
    assert slow.calls == [[0], [1, 3], [2, 4], [5], [6]]


def test_calls_of_one_model_leave_a_thread_to_others() -> None:
    """With two native threads one slow model has one: another's request does not wait for it."""
    slow, quick, offload = Slow(0.5), Slow(0.0), make_offload(2)
    alone = BatchPolicy(shares_calls=False)
    busy, other = batching(slow, alone), batching(quick, alone)
    threads = [threading.Thread(target=asking(busy, at, offload, limits())) for at in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.1)
    began_s = time.monotonic()
    assert asking(other, 1, offload, limits())() == 1
    assert time.monotonic() - began_s < 0.3
    for thread in threads:
        thread.join(30)
    assert len(slow.calls) == 3


def test_expired_and_abandoned_requests_are_dropped_before_predict() -> None:
    """Whose time is over, or whose client has left while it waited, is answered so and never given to the estimator."""
    slow, offload = Slow(0.4), make_offload(2)
    batcher: Batcher[Any, Any] = batching(slow)
    batcher.metrics = metrics = CountingMeter()
    client, served = socket.socketpair()

    def leave() -> None:
        while max(metrics.waited, default=0) < 3:  # all but the first
            time.sleep(0.001)
        client.close()

    outcomes = together(
        asking(batcher, "first", offload, limits()),
        asking(batcher, "late", offload, limits(0.1)),
        asking(batcher, "left", offload, limits(connection=served)),
        asking(batcher, "last", offload, limits()),
        leave,
        pause_s=0.01,
    )
    served.close()
    assert [outcomes[0], outcomes[3]] == ["first", "last"]
    assert isinstance(outcomes[1], DeadlineExceeded)
    assert str(outcomes[1]) == "no answer within the deadline of 0.1 s"
    assert isinstance(outcomes[2], ClientClosedRequest)
    assert slow.calls == [["first"], ["last"]]
    assert metrics.drops == ["expired", "abandoned"]


def test_who_cannot_be_answered_in_time_is_refused_at_once() -> None:
    """Once the cost is known, a request behind others that take too long gets Overloaded with when to come again."""
    slow, offload = Slow(0.3), make_offload(2)
    batcher: Batcher[Any, Any] = batching(slow)
    batcher.metrics = metrics = CountingMeter()
    asking(batcher, 0, offload, limits())()
    first = threading.Thread(target=asking(batcher, 1, offload, limits()))
    first.start()
    time.sleep(0.05)
    began_s = time.monotonic()
    with pytest.raises(Overloaded, match="the answer would take about") as refused:
        asking(batcher, 2, offload, limits(0.4))()
    assert time.monotonic() - began_s < 0.2
    assert refused.value.retry_after_s == 1
    first.join(30)
    assert asking(batcher, 3, offload, limits(0.4))() == 3
    assert metrics.drops == ["refused"]


def test_a_full_queue_refuses() -> None:
    """Past `max_queue_rows` nobody is let in, whatever its deadline; before a body is read that shows as well."""
    slow, offload = Slow(0.3), make_offload(2)
    batcher = batching(slow, BatchPolicy(max_batch_rows=1, max_queue_rows=2))
    calls = [asking(batcher, at, offload, limits()) for at in range(5)]

    def look() -> None:
        batcher.check_room(limits())

    outcomes = in_turn(batcher, slow, *calls, look)
    assert outcomes[:3] == [0, 1, 2]
    assert all(isinstance(outcome, Overloaded) for outcome in outcomes[3:])
    assert "predict.max_queue_rows is 2" in str(outcomes[3])
    batcher.check_room(limits())


def test_what_waited_too_long_outside_is_refused_and_not_late() -> None:
    """Time that went by in the kernel's queue is overload (429); a deadline that is too short by itself is 504."""
    batcher: Batcher[Any, Any] = batching(Slow(0.0))
    with pytest.raises(Overloaded, match="for a free worker"):
        asking(batcher, 1, make_offload(1), limits(-0.1, waited_s=2.0))()
    with pytest.raises(DeadlineExceeded):
        asking(batcher, 1, make_offload(1), limits(-0.1))()


def test_a_dear_call_with_nothing_ahead_is_tried() -> None:
    """However long it seems to take: an estimate that is wrong must not lock a model up."""
    batcher: Batcher[Any, Any] = batching(Slow(0.0))
    batcher.cost.learn(1, 60.0)
    assert asking(batcher, 1, make_offload(1), limits(5.0))() == 1


def test_cheap_calls_gather_only_in_a_crowd() -> None:
    """A cheap call alone runs on its caller's thread, and looks for neighbours now and then."""
    seen: list[int] = []

    def run(items: Sequence[Any]) -> list[Any]:
        seen.append(threading.get_ident())
        SLEEP(0.0005)
        return list(items)

    batcher = batching(run, BatchPolicy(inline_below_s=0.05))
    batcher.cost.learn(1, 0.0005)
    for at in range(48):
        assert asking(batcher, at, make_offload(1), limits())() == at
    elsewhere = [ident for ident in seen if ident != threading.get_ident()]
    assert 1 <= len(elsewhere) <= 6


class CountedOffload:
    """Runs work in native threads and counts it."""

    def __init__(self) -> None:
        self.real = make_offload(2)
        self.threads, self.calls = 2, 0
        self.spawn, self.pause = self.real.spawn, self.real.pause

    def call(self, work: Callable[[], Any], deadline_at_s: float | None = None) -> Any:
        self.calls += 1
        return self.real.call(work, deadline_at_s)


@pytest.mark.parametrize("keys", ["kkk", "abc"])
def test_a_large_body_keeps_its_own_limits_in_a_loop_that_a_small_request_began(keys: str) -> None:
    """What may not run on the event loop runs in a native thread, alone or with others, whoever began the loop."""

    class Cheap(Slow):
        def __call__(self, items: Sequence[Any]) -> list[Any]:
            batcher.cost.learn(1, 0.0002)  # whoever comes next is cheap enough to run on the event loop
            return super().__call__(items)

    slow, offload = Cheap(0.0), CountedOffload()
    batcher = batching(slow, BatchPolicy(inline_below_s=0.05), keys)
    small, large = limits(), limits(may_inline=False)
    calls = [asking(batcher, at, offload, given) for at, given in enumerate((small, large, small))]
    assert in_turn(batcher, slow, *calls) == [0, 1, 2]
    assert slow.calls == ([[0], [1, 2]] if keys == "kkk" else [[0], [1], [2]])
    assert offload.calls == 2  # the first, whose cost was not known, and the one with the large body


def test_another_policy_counts_from_the_next_batch_on() -> None:
    """A policy that is stored while the batch loop runs is what its next batch is filled by."""
    slow, offload = Slow(0.0), make_offload(2)
    batcher = batching(slow)

    def reload() -> None:
        batcher.policy = BatchPolicy(max_batch_rows=2)

    assert in_turn(batcher, slow, *(asking(batcher, at, offload, limits()) for at in range(5)), reload)[:5] == [
        *range(5)
    ]
    assert slow.calls == [[0], [1, 2], [3, 4]]


ROWS = st.lists(st.lists(st.sampled_from([0.5, 2.0, -3.25, 666.0]), min_size=2, max_size=2), min_size=1, max_size=5)


def merging_servable(runtime: Any, batch: Any = "exact", rules: BatchConfig | None = None) -> Servable:
    import msgspec

    contract: Contract = msgspec.structs.replace(sum_contract(), batch_invariance=batch)
    servable = Servable("sums", 1, contract)
    servable.ready(runtime, 0.0)
    settings = Settings(predict=Predict(inline_below_ms=0.0))
    servable.adopt(make_policy(ModelConfig(batching=rules or BatchConfig()), contract, settings))
    return servable


@given(st.lists(st.tuples(ROWS, st.sampled_from(["predict", "transform"])), min_size=1, max_size=12))
def test_every_request_gets_its_own_answer(asked: list[Any]) -> None:
    """Random requests at once, some of them refused by the estimator: each gets what it would get alone."""
    runtime = CarefulRuntime(0.005, 666.0, SLEEP)
    servable, offload = merging_servable(runtime), make_offload(2)
    assert servable.contract is not None
    schema = servable.contract.input

    def submit(rows: Any, output: str) -> Callable[[], Any]:
        table, wanted = from_rows(rows, schema), servable.outputs([output])
        given = RequestLimits(time.monotonic() + 60)
        return lambda: servable.predict(table, wanted, offload, given).arrays

    outcomes = together(*(submit(rows, output) for rows, output in asked))
    alone = CarefulRuntime()
    for (rows, output), outcome in zip(asked, outcomes, strict=True):
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
def test_who_may_share_a_call(batch: Any, rules: BatchConfig, batched: bool) -> None:
    """What publish measured, and what model.toml demands; what nobody measured is not merged."""
    runtime = CarefulRuntime(0.05, sleep=SLEEP)
    servable, offload = merging_servable(runtime, batch, rules), make_offload(2)
    assert servable.policy.batching.shares_calls is batched
    assert servable.contract is not None
    table, wanted = from_rows([[1.0, 2.0]], servable.contract.input), servable.outputs([])
    given = RequestLimits(time.monotonic() + 60)
    together(*[lambda: servable.predict(table, wanted, offload, given)] * 6)
    assert sum(runtime.sizes) == 6
    assert (max(runtime.sizes) > 1) is batched


def test_a_wrong_number_of_answers_is_no_answer_to_others() -> None:
    """An estimator that answers a merged call with too few rows is asked for each request alone."""

    class Forgetful(CarefulRuntime):
        def run(self, method: str, data: Any) -> Any:
            answer = super().run(method, data)
            return answer[:-1] if len(answer) > 1 else answer

    runtime = Forgetful(0.05, sleep=SLEEP)
    servable, offload = merging_servable(runtime), make_offload(2)
    assert servable.contract is not None
    given = RequestLimits(time.monotonic() + 60)

    def submit(at: int) -> Callable[[], Any]:
        table = from_rows([[float(at), 1.0]], servable.contract.input)  # type: ignore[union-attr]
        return lambda: servable.predict(table, servable.outputs([]), offload, given).arrays["predict"].tolist()

    assert together(*(submit(at) for at in range(6))) == [[at + 1.0] for at in range(6)]
    assert max(runtime.sizes) > 1


def test_a_pool_that_fails_fails_its_requests_and_nothing_else() -> None:
    """No thread to be had: the waiting requests learn it, and the next ones are served."""

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
    given = RequestLimits(time.monotonic() + 60)
    with pytest.raises(InferenceFailed):
        servable.predict(table, servable.outputs([]), offload, given)
    offload.failing = False
    assert servable.predict(table, servable.outputs([]), offload, given).arrays["predict"].tolist() == [3.0]


def test_metrics_that_fail_lose_no_request() -> None:
    """What counts calls may fail: the loop goes on, and everybody is answered."""

    class Broken(CountingMeter):
        def ran(self, rows: int) -> None:
            raise OSError("no space left")

        def dropped(self, reason: Any) -> None:
            raise OSError("no space left")

    slow, offload = Slow(0.1), make_offload(2)
    batcher: Batcher[Any, Any] = batching(slow)
    batcher.metrics = Broken()
    calls = [asking(batcher, at, offload, limits(0.05 if at == 2 else 30.0)) for at in range(4)]
    outcomes = together(*calls, pause_s=0.01)
    assert [outcomes[at] for at in (0, 1, 3)] == [0, 1, 3]
    assert isinstance(outcomes[2], DeadlineExceeded)
    assert asking(batcher, 9, offload, limits())() == 9
