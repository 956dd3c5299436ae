"""Named fakes and small builders. A fake implements an interface of Tableside; tests pass it in and patch nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from tableside.batching.queue import DropReason
from tableside.contracts.schema import Artifact, Column, Contract, Golden, Input, Output
from tableside.contracts.table import Table

T = TypeVar("T")


class FakeClock:
    """A clock that stands still until a test moves it; it replaces `time.monotonic`."""

    def __init__(self, now_s: float = 1000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s

    def advance(self, seconds: float) -> None:
        self.now_s += seconds


class SumRuntime:
    """A runtime that adds up each row and remembers the batches it got."""

    platform = "fake_sum"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def prepare(self, table: Table) -> Any:
        return table.to_input()

    def run(self, method: str, data: Any) -> Any:
        self.seen.append(data)
        totals = np.asarray(data, dtype=np.float64).sum(axis=1)
        return np.column_stack([totals, -totals]) if method == "transform" else totals


class RecordingRuntime:
    """A runtime that remembers its input and returns a zero for each row."""

    platform = "fake_recording"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def prepare(self, table: Table) -> Any:
        return table.to_input()

    def run(self, method: str, data: Any) -> Any:
        self.seen.append(data)
        return np.zeros(len(data))


class FailingRuntime:
    """A runtime that raises `error` on every call."""

    platform = "fake_failing"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def prepare(self, table: Table) -> Table:
        return table

    def run(self, method: str, data: Any) -> Any:
        raise self.error.with_traceback(None)  # otherwise it would grow with each call


class CarefulRuntime:
    """A runtime that adds up each row, after `busy_s`, and remembers the number of rows of each call.

    It raises ValueError for a row that holds `poison`. sleep: a sleep that works in native threads.
    """

    platform = "fake_careful"

    def __init__(self, busy_s: float = 0.0, poison: float | None = None, sleep: Callable[[float], None] | None = None):
        self.busy_s, self.poison, self.sleep = busy_s, poison, sleep
        self.sizes: list[int] = []

    def prepare(self, table: Table) -> Table:
        return table  # like RoutedRuntime, which converts the table in `run`

    def run(self, method: str, data: Any) -> Any:
        rows = np.asarray(data.to_input(), dtype=np.float64)
        self.sizes.append(len(rows))
        if self.sleep is not None:
            self.sleep(self.busy_s)
        if self.poison is not None and (rows == self.poison).any():
            raise ValueError("poison")
        totals = rows.sum(axis=1)
        return np.column_stack([totals, -totals]) if method == "transform" else totals


class HereOffload:
    """An offload that runs work on the caller's thread and counts the calls."""

    threads = 2

    def __init__(self) -> None:
        self.calls = 0

    def spawn(self, loop: Callable[[], None]) -> None:
        loop()

    def pause(self) -> None:
        pass

    def call(self, work: Callable[[], T], deadline_at_s: float | None = None) -> T:
        self.calls += 1
        return work()


class RecordingBatchMetrics:
    """BatchMetrics that remember every event in its order."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.waited: list[int] = []
        self.drops: list[str] = []

    def ran(self, rows: int) -> None:
        self.rows.append(rows)

    def waiting(self, rows: int) -> None:
        self.waited.append(rows)

    def dropped(self, reason: DropReason) -> None:
        self.drops.append(str(reason))


class RecordingCacheMetrics:
    """CacheMetrics that remember each look-up and add up the bytes."""

    def __init__(self) -> None:
        self.looks: list[bool] = []
        self.bytes = 0

    def looked(self, hit: bool) -> None:
        self.looks.append(hit)

    def held(self, more_bytes: int) -> None:
        self.bytes += more_bytes


SUM_OUTPUTS = (Output("predict", "FP64", 1, True), Output("transform", "FP64", 2, False))


def numbers(*names: str, form: Any = "matrix", **more: Any) -> Input:
    """Return the schema of a table of float64 columns."""
    return Input(form, tuple(Column(name, "FP64", "float64", **more) for name in names))


def sum_contract(schema: Input | None = None, name: str = "sums", version: int = 1) -> Contract:
    """Return a contract that a SumRuntime keeps."""
    golden = Golden(((1.0, 2.0), (3.0, 4.5)), {"predict": ((3.0,), (7.5,)), "transform": ((3.0, -3.0), (7.5, -7.5))})
    return Contract(
        format=1, name=name, version=version, created_at="2026-01-01T00:00:00+00:00", kind="other", estimator="Sum",
        input=schema or numbers("a", "b"), outputs=SUM_OUTPUTS, golden=golden,
        artifact=Artifact("model.skops", "", 0), environment={},
    )  # fmt: skip
