"""Named fakes and small builders. A fake mirrors a seam of Tableside; nothing of Tableside is patched with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tableside.contract.schema import Artifact, Column, Contract, Golden, Input, Output


class SumRuntime:
    """Adds up each row and remembers the batches it saw."""

    platform = "fake_sum"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def prepare(self, table: Any) -> Any:
        return table.to_input()

    def run(self, method: str, data: Any) -> Any:
        self.seen.append(data)
        totals = np.asarray(data, dtype=np.float64).sum(axis=1)
        return np.column_stack([totals, -totals]) if method == "transform" else totals


class RecordingRuntime:
    """Remembers what it was given, and answers a zero a row."""

    platform = "fake_recording"

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def prepare(self, table: Any) -> Any:
        return table.to_input()

    def run(self, method: str, data: Any) -> Any:
        self.seen.append(data)
        return np.zeros(len(data))


class FailingRuntime:
    """Raises what it was given, for whatever it is asked."""

    platform = "fake_failing"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def prepare(self, table: Any) -> Any:
        return table

    def run(self, method: str, data: Any) -> Any:
        raise self.error


class HereOffload:
    """Runs the work on the caller's thread and counts the calls."""

    threads = 2

    def __init__(self) -> None:
        self.calls = 0

    def spawn(self, loop: Callable[[], None]) -> None:
        loop()

    def pause(self) -> None:
        pass

    def call(self, work: Callable[[], Any], deadline_at_s: float | None = None) -> Any:
        self.calls += 1
        return work()


SUM_OUTPUTS = (Output("predict", "FP64", 1, True), Output("transform", "FP64", 2, False))


def numbers(*names: str, form: Any = "matrix", **more: Any) -> Input:
    """A table of float64 columns."""
    return Input(form, tuple(Column(name, "FP64", "float64", **more) for name in names))


def sum_contract(schema: Input | None = None, name: str = "sums", version: int = 1) -> Contract:
    """The contract a SumRuntime keeps."""
    golden = Golden(((1.0, 2.0), (3.0, 4.5)), {"predict": ((3.0,), (7.5,)), "transform": ((3.0, -3.0), (7.5, -7.5))})
    return Contract(
        format=1, name=name, version=version, created_at="2026-01-01T00:00:00+00:00", kind="other", estimator="Sum",
        input=schema or numbers("a", "b"), outputs=SUM_OUTPUTS, golden=golden,
        artifact=Artifact("model.skops", "", 0), environment={},
    )  # fmt: skip


class CarefulRuntime:
    """Adds up each row, after a while; refuses a row that holds `poison`; remembers how many rows each call had.

    sleep: of the kind that a native thread needs.
    """

    platform = "fake_careful"

    def __init__(self, busy_s: float = 0.0, poison: float | None = None, sleep: Callable[[float], None] | None = None):
        self.busy_s, self.poison, self.sleep = busy_s, poison, sleep
        self.sizes: list[int] = []

    def prepare(self, table: Any) -> Any:
        return table  # as planned runtimes do: whoever calls `run` has to prepare for it

    def run(self, method: str, data: Any) -> Any:
        table = np.asarray(data.to_input(), dtype=np.float64)
        self.sizes.append(len(table))
        if self.sleep is not None:
            self.sleep(self.busy_s)
        if self.poison is not None and (table == self.poison).any():
            raise ValueError("poison")
        totals = table.sum(axis=1)
        return np.column_stack([totals, -totals]) if method == "transform" else totals


class CountingMeter:
    """Remembers what a batcher said."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.waited: list[int] = []
        self.drops: list[str] = []

    def ran(self, rows: int) -> None:
        self.rows.append(rows)

    def waiting(self, rows: int) -> None:
        self.waited.append(rows)

    def dropped(self, reason: Any) -> None:
        self.drops.append(str(reason))
