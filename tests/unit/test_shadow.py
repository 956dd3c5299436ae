"""The shadow: answers are compared row by row, within a share of a core, and only while no request is in hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from tableside.contracts.schema import Column, Contract, Input, Output
from tableside.contracts.table import Table
from tableside.contracts.table_fit import input_differences, output_differences
from tableside.process.offload import ThreadOffload
from tableside.runtimes.base import Runtime
from tableside.serving import answer_comparison, shadow
from tableside.serving.answer_comparison import compare
from tableside.serving.cpu_budget import CpuBudget
from tableside.serving.servable import Servable
from tableside.serving.shadow import MAX_ROWS, MAX_WAITING, Drop, InputFit, Job, Record, Replayed, Replays, sample_of
from tests.fakes import FailingRuntime, FakeClock, SumRuntime, sum_contract
from tests.waiting import wait_until

LABEL, NUMBER = Output("predict", "BYTES", 1, flat=True), Output("predict", "FP64", 1, flat=True)

BOTH = (sum_contract(), sum_contract())
CLASSIFIER = msgspec.structs.replace(sum_contract(), kind="classifier")


@pytest.mark.parametrize(
    ("one", "other", "flips"),
    [
        (["a", "b", "c"], ["a", "b", "c"], 0),
        (["a", "b", "c"], ["a", "x", "y"], 2),
        ([1, 2, 3], [1, 2, 4], 1),
        (["1", "2"], [1, 2], 2),
        ([True, False], [1, 0], 2),
    ],
)
def test_labels_flip_by_row(one: list[Any], other: list[Any], flips: int) -> None:
    """Texts of any width, integers and booleans; a label of another type is another label."""
    found = compare([LABEL], {"predict": np.array(one)}, {"predict": np.array(other)}, BOTH)
    assert (found.flips, found.deltas) == (flips, {})


def test_a_classifiers_numbers_are_labels() -> None:
    """A model that was trained on 0.0 and 1.0 answers with them: another one is a flip, and no difference of 1."""
    one, two = {"predict": np.array([0.0, 1.0, 1.0, np.nan])}, {"predict": np.array([0.0, 0.0, 1.0, np.nan])}
    found = compare([NUMBER], one, two, (CLASSIFIER, CLASSIFIER))
    assert (found.flips, found.deltas) == (1, {})
    assert compare([NUMBER], one, two, BOTH).flips == 0


def test_a_row_with_several_labels_flips_once() -> None:
    """An output of several columns, and two outputs: rows are counted, not cells."""
    outputs = [Output("predict", "INT64", 2, flat=False), Output("other", "INT64", 1, flat=True)]
    one = {"predict": np.array([[1, 2], [3, 4], [5, 6]]), "other": np.array([1, 2, 3])}
    two = {"predict": np.array([[9, 9], [3, 4], [5, 6]]), "other": np.array([9, 2, 9])}
    assert compare(outputs, one, two, BOTH).flips == 2


def test_numbers_differ_beyond_the_tolerance() -> None:
    """Within it they are equal; a number in place of none is a flip, and none in place of none is not."""
    one = {"predict": np.array([1.0, 2.0, np.nan, np.nan, np.inf, 1e-9])}
    two = {"predict": np.array([1.0 + 1e-10, 2.5, np.nan, 1.0, np.inf, 2e-9])}
    found = compare([NUMBER], one, two, BOTH)
    deltas = found.deltas["predict"]
    assert (found.flips, deltas.count, deltas.zeros) == (1, 5, 3)
    assert deltas.quantile(1.0) == pytest.approx(0.5, rel=0.06)
    assert compare([NUMBER], one, one, BOTH).deltas["predict"].zeros == 6
    assert compare([NUMBER], {"predict": np.zeros(3)}, {"predict": np.zeros((3, 2))}, BOTH).flips == 3


def test_the_tolerance_is_what_both_contracts_allow() -> None:
    """The larger of golden tolerance and backend tolerance of either version: beyond it, they would not be served."""
    exact = sum_contract()
    loose = msgspec.structs.replace(exact, tolerance=1e-4)
    output = exact.default_output
    assert answer_comparison.tolerances_of([output], (exact, exact)) == [1e-9]
    assert answer_comparison.tolerances_of([output], (exact, loose)) == [1e-4]


def test_tables_fit_columns_of_the_same_names_and_types() -> None:
    """What differs is said in words, for the command that refuses it."""

    def of(*columns: Column) -> Input:
        return Input("frame", columns)

    a, b = Column("a", "FP64", "float64"), Column("b", "BYTES", "object")
    assert input_differences(of(a, b), of(a, msgspec.structs.replace(b, dtype="category"))) == []
    assert input_differences(of(a, b), of(b, a)) == ["the columns have another order"]
    whole = msgspec.structs.replace(a, datatype="INT64")
    assert input_differences(of(a, b), of(whole, Column("c", "BOOL", "bool"))) == [
        "the column 'b' is gone", "the column 'c' is new", "the column 'a' is INT64, and was FP64",
    ]  # fmt: skip
    dates = Column("b", "BYTES", "datetime64[ns]")
    assert input_differences(of(b), of(dates)) == ["the column 'b' is BYTES (datetime64[ns]), and was BYTES"]
    contract = sum_contract()
    assert output_differences([Output("predict_proba", "FP64", 2, flat=False)], contract) == [
        "the output 'predict_proba' is gone"
    ]
    of_two = Output("predict", "FP64", 1, flat=True, classes=("a", "b"))
    assert output_differences([of_two], contract) == [
        "the output 'predict' has other classes, or another order of them"
    ]
    assert output_differences([*contract.outputs, Output("predict", "FP64", 3, flat=False)], contract) == [
        "the output 'predict' has 1 columns, and had 3"
    ]


def test_the_budget_is_a_share_of_time() -> None:
    """It begins with what it may save up; what is overdrawn is paid back before the next work."""
    clock = FakeClock()
    budget = CpuBudget(0.05, clock)
    assert budget.has_left
    budget.spend(0.15)  # 0.05 s were saved up, so 0.1 s are missing
    clock.advance(1.9)
    assert not budget.has_left
    clock.advance(0.2)
    assert budget.has_left
    clock.advance(1000)
    assert budget.has_left
    budget.spend(0.051)
    assert not budget.has_left


class Busy:
    """A worker that has as many requests in hand as a test says, and records what its shadow did."""

    def __init__(self, runtime: Runtime, contract: Contract | None = None) -> None:
        self.in_hand = 0
        self.replayed: list[Replayed] = []
        self.dropped: list[Drop] = []
        self.done = threading.Event()
        self.contract = contract or sum_contract()
        self.servable = Servable("m", 2, self.contract)
        self.servable.ready(runtime, 0.0)
        self.budget = CpuBudget(0.5)
        self.replays = Replays(lambda: ThreadOffload(1), lambda: bool(self.in_hand))

    def add(self, rows: int = 3, answered: Callable[[Any], Any] = lambda sums: sums, **more: Any) -> None:
        matrix = np.arange(rows * len(self.contract.input.columns), dtype=np.float64).reshape(rows, -1)
        served = more.pop("served", self.contract)
        table = Table(served.input, rows, None, matrix)
        arrays = {"predict": answered(matrix.sum(axis=1))}
        sample = sample_of(table, served.outputs[:1], arrays, served, 0.01)
        assert (sample.call_s is None) == (rows > MAX_ROWS)
        record = Record(lambda _, found: self.replayed.append(found), self.dropped.append)
        self.replays.add(
            Job(
                sample,
                lambda: more.get("candidate", self.servable),
                InputFit(),
                self.budget,
                record,
                shadow.time.monotonic(),
            )
        )

    def wait(self, events: int) -> None:
        assert wait_until(lambda: len(self.replayed) + len(self.dropped) >= events)


def test_a_good_candidate_agrees_and_a_bad_one_does_not() -> None:
    """The answers are those that the client got; only the first rows of a large request are compared."""
    worker = Busy(SumRuntime())
    worker.add(rows=5)
    worker.wait(1)
    worker.add(rows=MAX_ROWS + 7, answered=lambda sums: sums + 1.0)
    worker.wait(2)
    good, bad = worker.replayed
    assert good.differences is not None
    assert bad.differences is not None
    assert (good.rows, good.differences.deltas["predict"].zeros) == (5, 5)
    assert (bad.rows, bad.differences.deltas["predict"].zeros) == (MAX_ROWS, 0)
    assert min(good.call_s, good.cpu_s, bad.call_s, bad.cpu_s) > 0


def test_what_the_candidate_raises_is_an_error() -> None:
    """It ends nothing: the next sample is replayed."""
    worker = Busy(FailingRuntime(ZeroDivisionError("no")))
    worker.add()
    worker.add()
    worker.wait(2)
    assert [(each.error, each.differences) for each in worker.replayed] == [("ZeroDivisionError", None)] * 2


class StuckRuntime(SumRuntime):
    """A runtime that does not return before `release` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.release = threading.Event()

    def run(self, method: str, data: Any) -> Any:
        self.release.wait(60)
        return super().run(method, data)


def test_a_candidate_that_does_not_return_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its call counts as one that failed, and its budget is used up; later samples go on."""
    monkeypatch.setattr(shadow, "TIMEOUT_S", 0.05)
    runtime = StuckRuntime()
    worker = Busy(runtime)
    worker.add()
    worker.wait(1)
    assert [(each.error, each.differences) for each in worker.replayed] == [("DeadlineExceeded", None)]
    runtime.release.set()
    monkeypatch.setattr(shadow, "TIMEOUT_S", 60.0)
    worker.budget.spend(-1.0)
    worker.add()
    worker.wait(2)
    assert worker.replayed[1].error == ""


def test_a_mistake_of_ours_stops_no_later_sample() -> None:
    """The loop logs what it did not expect, and goes on."""
    worker = Busy(SumRuntime())
    worker.add(candidate=7)
    worker.add()
    worker.wait(1)
    assert [each.error for each in worker.replayed] == [""]


def test_nothing_is_computed_while_a_request_is_in_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples wait a moment, a few of them; then they are dropped as `busy`. When the worker is idle they run."""
    runtime = SumRuntime()
    worker = Busy(runtime)
    worker.in_hand = 1
    for _ in range(MAX_WAITING + 2):
        worker.add()
    worker.wait(2)
    assert worker.dropped == [Drop.BUSY] * 2
    assert runtime.seen == []
    worker.in_hand = 0
    worker.wait(MAX_WAITING + 2)
    assert (len(worker.replayed), len(runtime.seen)) == (MAX_WAITING, MAX_WAITING)
    monkeypatch.setattr(shadow, "MAX_AGE_S", 0.0)
    worker.in_hand = 1
    worker.add()
    worker.wait(MAX_WAITING + 3)
    assert worker.dropped == [Drop.BUSY] * 3


def test_each_reason_has_its_name() -> None:
    """The share of a core is used up; the columns or outputs differ; the candidate is not there or not READY."""
    worker = Busy(SumRuntime())
    other = sum_contract()
    wide = msgspec.structs.replace(
        other, input=Input("matrix", (*other.input.columns, Column("more", "FP64", "float64")))
    )
    renamed = msgspec.structs.replace(other, outputs=(Output("decide", "FP64", 1, flat=True),))
    worker.add(served=wide)
    worker.wait(1)
    worker.add(served=renamed)
    worker.wait(2)
    worker.add(candidate=None)
    worker.wait(3)
    worker.budget.spend(100.0)
    worker.add()
    worker.wait(4)
    worker.servable.unload()
    worker.add()
    worker.wait(5)
    assert worker.dropped == [
        Drop.INPUT_DIFFERS, Drop.OUTPUT_DIFFERS, Drop.NOT_READY, Drop.CPU_SHARE, Drop.NOT_READY,
    ]  # fmt: skip
    assert worker.replayed == []
