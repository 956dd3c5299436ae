"""The runtime a contract asks for: by the number of rows a fast backend, or the estimator."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from tableside.contract import answers
from tableside.contract.answers import MethodAnswer
from tableside.contract.array_type import Array
from tableside.contract.schema import Contract, Output, Route
from tableside.contract.table import Table
from tableside.runtimes import golden, onnx
from tableside.runtimes.base import Runtime
from tableside.runtimes.fast.backend import FastRuntime, build
from tableside.runtimes.fast.numerics import LibraryMissing
from tableside.runtimes.lazy_estimator import LazyEstimator
from tableside.runtimes.onnx import ONNX
from tableside.runtimes.sklearn import SklearnRuntime

Answers = Mapping[str, Array]
RowRange = tuple[int, FastRuntime | None]
"""Up to how many rows (0: any), and who answers them; None is the estimator."""


class RoutedRuntime:
    """Fast backends in front of the estimator, by name in `used`. `retire` takes them out of service for good."""

    platform = "scikit-learn_skops"

    def __init__(self, original: Runtime, ranges: Sequence[RowRange], used: Collection[str] = ()) -> None:
        self.original = original
        self.used = frozenset(used)
        self._built = tuple(ranges)
        self.wanted = True

    @property
    def wanted(self) -> bool:
        """Whether the operator wants the fast backends."""
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: bool) -> None:
        self._wanted = wanted
        self._serve(self._built if wanted else ())

    def _serve(self, ranges: tuple[RowRange, ...]) -> None:
        self._ranges = ranges
        self.is_fast = any(runtime is not None for _, runtime in ranges)
        """Whether a fast backend is in service: the operator wants it (`wanted`), and it has not been retired."""

    @property
    def is_whole(self) -> bool:
        """Whether the estimator itself is in this worker's memory."""
        return not isinstance(self.original, LazyEstimator) or self.original.is_loaded

    def pick(self, rows: int) -> FastRuntime | None:
        """Who answers so many rows; None is the estimator."""
        for most, runtime in self._ranges:
            if not most or rows <= most:
                return runtime
        return None

    def prepare(self, table: Table) -> Any:
        """The table as it is; what the estimator takes is made of it only if it is asked."""
        return table

    def run(self, method: str, data: Any) -> MethodAnswer:
        """See `Runtime.run`; `data` is a Table."""
        direct = self.pick(data.rows)
        if direct is not None:
            return direct.run(method, data)
        return self.original.run(method, data.to_input())

    def retire(self) -> None:
        """From now on the estimator answers everything."""
        self._built = ()
        self._serve(())


def build_router(original: SklearnRuntime, contract: Contract, folder: Path) -> Runtime:
    """The runtime of the contract's routes. folder: the version's; its graph is held to its hash elsewhere.

    A backend whose library is missing here leaves its rows to the one named instead, or to the estimator. Raises
    Unsupported when one is not known here.
    """
    if not contract.routes:
        return original
    built: dict[Route, FastRuntime | None] = {}
    for route in contract.routes:
        same = msgspec.structs.replace(route, up_to_rows=0)
        if same not in built:
            built[same] = _build(original, contract, route, folder)
    ranges = [(route.up_to_rows, built[msgspec.structs.replace(route, up_to_rows=0)]) for route in contract.routes]
    used = {
        route.backend for route, runtime in built.items() if runtime is not None
    }  # under its name, whoever stands in
    return RoutedRuntime(original, ranges, used) if used else original


def _build(original: SklearnRuntime, contract: Contract, route: Route, folder: Path) -> FastRuntime | None:
    if route.backend == SKLEARN:
        return None
    try:
        if route.backend == ONNX and contract.graph is not None:
            content, row = (folder / contract.graph.file).read_bytes(), golden.golden_table(contract).take(0, 1)
            return onnx.build(original, contract.input, contract.outputs, content, row)
        return build(original, contract.input, route.backend, route.order)
    except LibraryMissing:
        return _build(original, contract, route.fallback, folder) if route.fallback is not None else None


SKLEARN = "sklearn"
"""The fallback: the estimator itself."""


def allowed_difference(contract: Contract) -> float:
    """How far the backends in use may lie apart from the estimator: what publish allowed, or at least saw."""
    return max(contract.tolerance, _largest_used_difference(contract))


def _largest_used_difference(contract: Contract) -> float:
    return max((each.largest_difference for each in contract.equivalence_checks if each.outcome == "used"), default=0.0)


def difference_from_estimator(
    planned: RoutedRuntime, table: Table, outputs: Sequence[Output], answered: Answers | None = None
) -> float:
    """How far the fast backend lies from the estimator on these rows. answered: what it answered, if it was asked
    already.
    """
    if answered is None:
        answered = answers.collect(outputs, planned.run, table)
    own = answers.collect(outputs, planned.original.run, table.to_input())
    return max((difference(own[name], array) for name, array in answered.items()), default=0.0)


def difference(one: Array, other: Array) -> float:
    """How far two answers lie apart: 0 when they are equal to the bit, infinity when a label, type or shape differs."""
    if one.dtype != other.dtype or one.shape != other.shape:
        return float("inf")
    if one.dtype.kind != "f":
        return 0.0 if bool((one == other).all()) else float("inf")
    if np.ascontiguousarray(one).tobytes() == np.ascontiguousarray(other).tobytes():
        return 0.0
    with np.errstate(all="ignore"):
        apart = np.abs(one - other) / np.maximum(np.maximum(np.abs(one), np.abs(other)), np.finfo(one.dtype).tiny)
    same = (one == other) | (np.isnan(one) & np.isnan(other))
    worst = float(np.where(same, 0.0, apart).max())
    return float("inf") if worst != worst else max(worst, float(np.finfo(one.dtype).eps) / 2)
