"""Lifecycle, servable and catalog."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from tableside.batching.batcher import RequestLimits
from tableside.batching.queue import BatchPolicy
from tableside.decoding.json_tables import from_rows
from tableside.errors import DeadlineExceeded, InferenceFailed, ModelNotFound, ModelNotReady, RequestRejected
from tableside.serving.catalog import EMPTY, Catalog, Model
from tableside.serving.lifecycle import NEXT, State, check
from tableside.serving.policy import Policy
from tableside.serving.servable import Servable
from tests.fakes import FailingRuntime, HereOffload, SumRuntime, sum_contract


def served(version: int = 1, runtime: Any = None) -> Servable:
    servable = Servable("sums", version, sum_contract(version=version))
    servable.ready(runtime or SumRuntime(), 0.25)
    return servable


def ask(servable: Servable, *outputs: str, offload: Any = None, inline_below_s: float = 0.0, rows: Any = None) -> Any:
    assert servable.contract is not None
    table = from_rows(rows or [[1.0, 2.0], [3.0, 4.5]], servable.contract.input)
    wanted = servable.outputs(outputs)
    servable.adopt(Policy(batching=BatchPolicy(shares_calls=False, inline_below_s=inline_below_s)))
    return servable.predict(table, wanted, offload or HereOffload(), RequestLimits(time.monotonic() + 30))


@pytest.mark.parametrize("old", list(State))
@pytest.mark.parametrize("new", list(State))
def test_the_table_is_the_lifecycle(old: State, new: State) -> None:
    """A servable goes where the table says and nowhere else."""
    if new in NEXT[old]:
        assert check(old, new) is new
    else:
        with pytest.raises(ValueError, match=f"from {old} to {new}"):
            check(old, new)


def test_every_state_has_a_way_on() -> None:
    """No state is forgotten in the table, and none is a dead end."""
    assert set(NEXT) == set(State)
    assert all(NEXT.values())


def test_a_ready_servable_answers() -> None:
    """The answer is the runtime's own, for the output asked for or the default one."""
    prediction = ask(served())
    np.testing.assert_array_equal(prediction.arrays["predict"], [3.0, 7.5])
    assert prediction.predict_s >= 0
    both = ask(served(), "transform", "predict").arrays
    assert list(both) == ["transform", "predict"]
    np.testing.assert_array_equal(both["transform"], [[3.0, -3.0], [7.5, -7.5]])


def test_an_unknown_output_is_refused() -> None:
    """An output the estimator does not have is refused with those it has."""
    with pytest.raises(RequestRejected, match=r"no output 'proba'; it has predict, transform"):
        served().outputs(["proba"])


def test_a_large_batch_does_not_make_one_row_look_cheap() -> None:
    """A call has a cost before its rows: 20 ms for 1000 rows does not mean 20 us for one."""

    class SlowToStart(SumRuntime):
        def run(self, method: str, data: Any) -> Any:
            time.sleep(0.02)
            return super().run(method, data)

    servable, offload = served(runtime=SlowToStart()), HereOffload()
    ask(servable, offload=offload, inline_below_s=0.001, rows=[[1.0, 2.0]] * 1000)
    ask(servable, offload=offload, inline_below_s=0.001, rows=[[1.0, 2.0]])
    assert offload.calls == 2


def test_cheap_work_stays_here() -> None:
    """The first call is measured in a thread; once known to be cheap, work runs on the caller's thread."""
    servable, offload = served(), HereOffload()
    for _ in range(3):
        ask(servable, offload=offload, inline_below_s=10.0)
    assert offload.calls == 1
    ask(servable, offload=offload, inline_below_s=0.0)
    assert offload.calls == 2


@pytest.mark.parametrize(
    ("fault", "raised"),
    [
        (ValueError("secret-value"), RequestRejected),
        (RuntimeError("secret-value"), InferenceFailed),
        (MemoryError("secret-value"), InferenceFailed),
        (DeadlineExceeded(1.0), DeadlineExceeded),
    ],
)
def test_a_fault_is_chained_and_not_shown(fault: Exception, raised: type[Exception]) -> None:
    """What the estimator raises becomes our error; its own text stays in the chain."""
    with pytest.raises(raised) as caught:
        ask(served(runtime=FailingRuntime(fault)))
    assert "secret" not in str(caught.value)
    assert caught.value is fault or caught.value.__cause__ is fault


def test_an_unloaded_servable_says_so() -> None:
    """After unloading no answer is given, and the reason is."""
    servable = served()
    servable.unload()
    assert servable.state is State.UNAVAILABLE
    with pytest.raises(ModelNotReady, match="unloaded"):
        ask(servable)


def test_a_failed_servable_keeps_its_reason() -> None:
    """A version that could not be loaded is UNAVAILABLE with the reason, and cannot become ready."""
    servable = Servable("sums", 1)
    servable.fail("the file is damaged")
    assert (servable.state, servable.reason) == (State.UNAVAILABLE, "the file is damaged")
    with pytest.raises(ValueError, match="cannot go"):
        servable.ready(SumRuntime(), 0.0)


def failed(version: int) -> Servable:
    servable = Servable("sums", version)
    servable.fail("it is damaged")
    return servable


MODEL = Model("sums", (served(1), served(2), failed(3), served(10)), {"champion": 2, "broken": 3, "gone": 9})
CATALOG = Catalog(4, {"sums": MODEL, "down": Model("down", (failed(1),)), "empty": Model("empty", ())})


@pytest.mark.parametrize(
    ("spec", "version", "expected"),
    [
        ("sums", None, 10),
        ("sums", "latest", 10),
        ("sums", "1", 1),
        ("sums", "champion", 2),
        ("sums@champion", None, 2),
        ("sums/1", None, 1),
        ("sums@latest", None, 10),
    ],
)
def test_a_pick_is_by_version_or_alias(spec: str, version: str | None, expected: int) -> None:
    """A version or alias picks just that one; nothing picks the highest that is ready."""
    assert CATALOG.servable(spec, version).version == expected


def test_the_highest_ready_version_is_picked() -> None:
    """A higher version that cannot be served is passed over."""
    assert Model("sums", (served(1), served(2), failed(3))).pick(None).version == 2


@pytest.mark.parametrize(
    ("spec", "version", "said"),
    [
        ("nope", None, "there is down, empty, sums"),
        ("sums", "7", "it has 1, 2, 3, 10, champion, broken, gone"),
        ("sums", "gone", "alias 'gone' of model 'sums' points at version"),
        ("sums", "", "no version or alias ''"),
        ("sums", "01", "no version or alias '01'"),
        ("sums@champion", "1", "no model"),
        ("empty", None, "has no version"),
    ],
)
def test_what_is_not_there_is_not_found(spec: str, version: str | None, said: str) -> None:
    """An unknown model, version or alias is not found, and the error says what there is."""
    with pytest.raises(ModelNotFound) as missing:
        CATALOG.servable(spec, version)
    assert said in str(missing.value)


@pytest.mark.parametrize(("spec", "version"), [("sums", "3"), ("sums@broken", None), ("down", None)])
def test_what_cannot_answer_is_not_ready(spec: str, version: str | None) -> None:
    """A version that exists and cannot answer is found, but not ready, with its reason."""
    assert CATALOG.find(spec, version).state is State.UNAVAILABLE
    with pytest.raises(ModelNotReady, match="UNAVAILABLE: it is damaged"):
        CATALOG.servable(spec, version)


def test_nothing_is_served_before_the_first_load() -> None:
    """The empty catalog holds nothing at all."""
    assert list(EMPTY) == []
    with pytest.raises(ModelNotFound, match="there is none"):
        EMPTY.find("x")
