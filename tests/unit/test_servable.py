"""The lifecycle, the servable and the catalog."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from typing import Any

import msgspec
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from tableside.batching.limits import RequestLimits
from tableside.batching.queue import BatchPolicy
from tableside.decoding.json_tables import from_rows
from tableside.errors import (
    DeadlineExceeded,
    FailureKind,
    InferenceFailed,
    ModelNotFound,
    ModelNotReady,
    Overloaded,
    RequestRejected,
)
from tableside.repository.model_toml import ModelConfig
from tableside.runtimes.sklearn import SklearnRuntime
from tableside.serving.catalog import EMPTY, Catalog, Model
from tableside.serving.lifecycle import NEXT, State, check
from tableside.serving.policy import Policy, make_policy
from tableside.serving.servable import Servable
from tableside.settings import Predict, Server, Settings
from tests.fakes import FailingRuntime, HereOffload, RecordingBatchMetrics, SumRuntime, sum_contract


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
    """Every transition in the table is allowed, and every other one raises ValueError."""
    if new in NEXT[old]:
        assert check(old, new) is new
    else:
        with pytest.raises(ValueError, match=f"from {old} to {new}"):
            check(old, new)


def test_every_state_has_a_successor() -> None:
    """The table has every state, and each can be left."""
    assert set(NEXT) == set(State)
    assert all(NEXT.values())


def test_a_ready_servable_answers() -> None:
    """The answer is what the runtime returns, for the requested outputs or the default one."""
    prediction = ask(served())
    np.testing.assert_array_equal(prediction.arrays["predict"], [3.0, 7.5])
    assert prediction.predict_s >= 0
    both = ask(served(), "transform", "predict").arrays
    assert list(both) == ["transform", "predict"]
    np.testing.assert_array_equal(both["transform"], [[3.0, -3.0], [7.5, -7.5]])


def test_an_unknown_output_is_refused() -> None:
    """The error for an output that the model does not have names those that it has."""
    with pytest.raises(RequestRejected, match=r"no output 'proba'; it has predict, transform"):
        served().outputs(["proba"])


def test_a_large_batch_does_not_make_one_row_look_cheap() -> None:
    """A call has a cost before its rows: 20 ms for 1000 rows does not mean 20 us for one."""
    servable, offload = served(), HereOffload()
    servable.batcher.cost.learn(1000, 0.02)
    ask(servable, offload=offload, inline_below_s=0.001, rows=[[1.0, 2.0]])
    assert offload.calls == 1


def test_cheap_calls_run_on_the_callers_thread() -> None:
    """A call is measured in a native thread first; once it is known to be cheap, it runs on the caller's thread."""
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
    """An exception of the estimator becomes an error of Tableside; its text stays in the chain and is not sent."""
    with pytest.raises(raised) as caught:
        ask(served(runtime=FailingRuntime(fault)))
    assert "secret" not in str(caught.value)
    assert caught.value is fault or caught.value.__cause__ is fault


def test_a_request_that_has_found_a_version_is_answered_after_its_unload() -> None:
    """The version left between the look-up and the prediction. The estimator is released with the last request."""
    servable = served()
    servable.unload()
    assert servable.state is State.UNAVAILABLE
    assert ask(servable).arrays["predict"].tolist() == [3.0, 7.5]
    runtime = weakref.ref(servable.runtime)
    gc.disable()
    try:
        del servable
        assert runtime() is None, "nothing may refer to it in a circle: the collector does not look at old objects"
    finally:
        gc.enable()


def test_a_version_that_was_never_loaded_is_not_ready() -> None:
    """`predict` raises ModelNotReady with the state."""
    with pytest.raises(ModelNotReady, match="LOADING"):
        ask(Servable("sums", 1, sum_contract()))


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
    """A version or alias picks that version; without one the highest READY version is picked."""
    assert CATALOG.servable(spec, version).version == expected


def test_the_highest_ready_version_is_picked() -> None:
    """A higher version that is not READY is skipped."""
    assert Model("sums", (served(1), served(2), failed(3))).pick(None).version == 2


@pytest.mark.parametrize(
    ("spec", "version", "expected"),
    [
        ("nope", None, "there is down, empty, sums"),
        ("sums", "7", "it has 1, 2, 3, 10, champion, broken, gone"),
        ("sums", "gone", "points at version 9, which does not exist; the model has versions 1, 2, 3, 10"),
        ("sums", "", "no version or alias ''"),
        ("sums", "01", "no version or alias '01'"),
        ("sums@champion", "1", "no model"),
        ("empty", None, "has no version; publish one with `tableside publish`"),
    ],
)
def test_an_unknown_model_version_or_alias_is_not_found(spec: str, version: str | None, expected: str) -> None:
    """ModelNotFound names what exists."""
    with pytest.raises(ModelNotFound) as missing:
        CATALOG.servable(spec, version)
    assert expected in str(missing.value)


@pytest.mark.parametrize(("spec", "version"), [("sums", "3"), ("sums@broken", None), ("down", None)])
def test_a_version_that_cannot_answer_is_not_ready(spec: str, version: str | None) -> None:
    """`find` returns a version that cannot answer, and `servable` raises ModelNotReady with its reason."""
    assert CATALOG.find(spec, version).state is State.UNAVAILABLE
    with pytest.raises(ModelNotReady, match="UNAVAILABLE: it is damaged"):
        CATALOG.servable(spec, version)


def test_nothing_is_served_before_the_first_load() -> None:
    """The empty catalog has no servable, and every name is unknown."""
    assert list(EMPTY) == []
    with pytest.raises(ModelNotFound, match="there is none"):
        EMPTY.find("x")


def test_a_value_error_names_the_model_and_the_type() -> None:
    """RequestRejected says which estimator raised what, and where to read more; the values are not in it."""
    with pytest.raises(RequestRejected) as caught:
        ask(served(runtime=FailingRuntime(ValueError("Input contains 4711"))))
    assert str(caught.value) == (
        "the estimator of model sums raised ValueError on these values; "
        "the server's log has the traceback under this request id"
    )


def test_another_exception_names_its_class_and_step() -> None:
    """InferenceFailed names the class of the exception, the step and the column; its text is not in it."""

    class Fails(LogisticRegression):  # type: ignore[misc, unused-ignore]
        """Fails for every row."""

        def predict(self, X: Any) -> Any:
            """Raise."""
            raise KeyError("secret-value")

    rows = [[1.0, 2.0], [3.0, 4.5]]
    pipeline = Pipeline([("scale", StandardScaler()), ("model", Fails())]).fit(rows, [0, 1])
    with pytest.raises(InferenceFailed) as caught:
        ask(served(runtime=SklearnRuntime(pipeline)))
    assert str(caught.value) == (
        "the prediction of model sums raised KeyError in step 'model'; the server's log has the traceback under this "
        "request id"
    )


def test_a_long_unknown_name_is_cut() -> None:
    """The error repeats at most 100 characters of a name that a client has sent."""
    with pytest.raises(ModelNotFound) as missing:
        CATALOG.find("x" * 5000)
    assert str(missing.value).count("x") == 100


def test_a_catalog_iterates_over_every_servable() -> None:
    """Each version of each model comes once, also those that cannot answer."""
    assert [(servable.name, servable.version) for servable in CATALOG] == [
        ("sums", 1), ("sums", 2), ("sums", 3), ("sums", 10), ("sums", 1),
    ]  # fmt: skip


def test_a_failure_kind_follows_the_problem() -> None:
    """A warning makes the kind `environment`; a version without a problem has none."""
    servable = Servable("sums", 1, sum_contract())
    servable.ready(SumRuntime(), 0.5, "scikit-learn 1.6 at publish")
    assert (servable.reason, servable.failure_kind) == ("scikit-learn 1.6 at publish", FailureKind.ENVIRONMENT)
    assert (served().reason, served().failure_kind) == ("", FailureKind.NONE)
    assert servable.load_s == 0.5


def test_a_running_request_finishes_after_unload() -> None:
    """A request that has its runtime is answered, although the servable has been unloaded meanwhile."""
    servable = served()

    class Unloading(SumRuntime):
        def run(self, method: str, data: Any) -> Any:
            servable.unload()
            return super().run(method, data)

    servable.runtime = Unloading()
    assert ask(servable).arrays["predict"].tolist() == [3.0, 7.5]
    assert servable.state is State.UNAVAILABLE


def test_an_unloaded_servable_cannot_be_unloaded_again() -> None:
    """`unload` raises ValueError unless the servable is READY."""
    servable = served()
    servable.unload()
    with pytest.raises(ValueError, match="cannot go from UNAVAILABLE to UNLOADING"):
        servable.unload()


def test_the_input_schema_is_that_of_the_contract() -> None:
    """`input` is the contract's table."""
    servable = served()
    assert servable.contract is not None
    assert servable.input is servable.contract.input


def test_a_full_queue_is_found_before_a_body_is_decoded() -> None:
    """`check_room` raises Overloaded while the queue is full, and does nothing once a cache may have the answer."""
    go, servable = threading.Event(), served()

    class Held(SumRuntime):
        def run(self, method: str, data: Any) -> Any:
            assert go.wait(30)
            return super().run(method, data)

    servable.runtime = Held()
    servable.adopt(Policy(batching=BatchPolicy(max_queue_rows=1, shares_calls=False)))
    limits = RequestLimits(time.monotonic() + 60)
    table, wanted = from_rows([[1.0, 2.0]], servable.input), servable.outputs([])
    offload = HereOffload()
    threads = [threading.Thread(target=servable.predict, args=(table, wanted, offload, limits)) for _ in range(2)]
    metrics = RecordingBatchMetrics()
    servable.count(metrics)
    for at, thread in enumerate(threads):
        thread.start()
        while len(metrics.waited) < 2 + at:  # the first leaves the queue, the second stays in it
            time.sleep(0.001)
    try:
        with pytest.raises(Overloaded, match="it holds 1 rows and predict.max_queue_rows is 1"):
            servable.check_room(limits)
        servable.adopt(Policy(batching=servable.policy.batching, cache_bytes=1 << 20))
        servable.renew_cache()
        servable.check_room(limits)
    finally:
        go.set()
        for thread in threads:
            thread.join(30)


@pytest.mark.parametrize(
    ("batch_invariance", "threads", "concurrent"), [("exact", 4, 1), ("none", 4, 3), (None, 1, 1), ("none", 2, 1)]
)
def test_calls_that_are_not_shared_leave_one_thread(batch_invariance: Any, threads: int, concurrent: int) -> None:
    """Shared calls run one at a time; other calls use all native threads but one, and at least one."""
    contract = msgspec.structs.replace(sum_contract(), batch_invariance=batch_invariance)
    settings = Settings(server=Server(predict_threads=threads), predict=Predict(max_queue_rows=77))
    batching = make_policy(ModelConfig(), contract, settings).batching
    assert (batching.shares_calls, batching.max_concurrent_calls) == (batch_invariance == "exact", concurrent)
    assert batching.max_queue_rows == 77


def test_model_toml_turns_fast_backends_off() -> None:
    """`runtime = "sklearn"` in model.toml means that only the estimator computes answers."""
    assert make_policy(ModelConfig(), None, Settings()).fast
    assert not make_policy(ModelConfig(runtime="sklearn"), None, Settings()).fast
