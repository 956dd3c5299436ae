"""Chooses, by the number of rows, between the fast backends that a contract names and the estimator."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tableside.contracts import answers
from tableside.contracts.answers import MethodAnswer
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Artifact, Contract, Output, Route
from tableside.contracts.table import Table
from tableside.errors import ContractBroken, FailureKind
from tableside.process import plain_files
from tableside.runtimes import golden, onnx
from tableside.runtimes.base import Runtime
from tableside.runtimes.fast.backend import FastRuntime, build
from tableside.runtimes.fast.numerics import LibraryMissing
from tableside.runtimes.fast.treelite import Keep, convert_anew
from tableside.runtimes.lazy_estimator import LazyEstimator
from tableside.runtimes.onnx import ONNX
from tableside.runtimes.sklearn import SklearnRuntime

Answers = Mapping[str, Array]
RowRange = tuple[int, FastRuntime | None]
"""The largest number of rows (0: any number) and the backend for them; None stands for the estimator."""


class RoutedRuntime:
    """Fast backends in front of the estimator.

    used: names of the backends in the ranges. `wanted` turns the fast backends off and on again; `retire` turns them
    off for the lifetime of this object.
    """

    platform = "scikit-learn_skops"

    def __init__(self, original: Runtime, ranges: Sequence[RowRange], used: Collection[str] = ()) -> None:
        self.original = original
        self.used = frozenset(used)
        self._built = tuple(ranges)
        self.wanted = True

    @property
    def wanted(self) -> bool:
        """Whether the operator's settings allow the fast backends."""
        return self._wanted

    @wanted.setter
    def wanted(self, wanted: bool) -> None:
        self._wanted = wanted
        self._serve(self._built if wanted else ())

    def _serve(self, ranges: tuple[RowRange, ...]) -> None:
        self._ranges = ranges
        self.is_fast = any(runtime is not None for _, runtime in ranges)
        """Whether a fast backend is in use: the settings allow it (`wanted`), and it has not been retired."""

    @property
    def is_whole(self) -> bool:
        """Whether the estimator is loaded in this process."""
        return not isinstance(self.original, LazyEstimator) or self.original.is_loaded

    def pick(self, rows: int) -> FastRuntime | None:
        """The fast backend for this number of rows; None stands for the estimator."""
        for most, runtime in self._ranges:
            if not most or rows <= most:
                return runtime
        return None

    def prepare(self, table: Table) -> Any:
        """Return the table unchanged: `run` converts it only if the estimator computes the answer."""
        return table

    def run(self, method: str, data: Any) -> MethodAnswer:
        """Run `method` on `data`, a Table, with the backend for its number of rows."""
        backend = self.pick(data.rows)
        if backend is not None:
            return backend.run(method, data)
        return self.original.run(method, data.to_input())

    def retire(self) -> None:
        """Turn the fast backends off for good: the estimator computes every answer from now on."""
        self._built = ()
        self._serve(())


def build_router(original: SklearnRuntime, contract: Contract, folder: Path, keep: Keep = convert_anew) -> Runtime:
    """Build the backends of the contract's routes and put them in front of the estimator.

    original: the loaded estimator; it is returned as it is where the contract has no routes. folder: the version's
    folder, whose checksums have been verified. keep: keeps what treelite converts of the artifact. A backend whose
    library is not installed is replaced by the route's fallback, or by the estimator. Raises Unsupported for a backend
    that this release does not have.
    """
    if not contract.routes:
        return original
    builder, least_rows = _RouteBuilder(original, contract, folder, keep), 1
    ranges: list[RowRange] = []
    for route in contract.routes:
        ranges.append((route.up_to_rows, builder.runtime(route, least_rows)))
        least_rows = route.up_to_rows + 1
    # A route keeps its backend's name also where its fallback takes its place.
    used = {route.backend for route, (_, runtime) in zip(contract.routes, ranges, strict=True) if runtime is not None}
    return RoutedRuntime(original, ranges, used) if used else original


class _RouteBuilder:
    """Builds each backend once, for the first of its routes, which is the one with the fewest rows."""

    def __init__(self, original: SklearnRuntime, contract: Contract, folder: Path, keep: Keep) -> None:
        self._original = original
        self._contract = contract
        self._folder = folder
        self._keep = keep
        self._built: dict[tuple[str, str], FastRuntime | None] = {}

    def runtime(self, route: Route, least_rows: int) -> FastRuntime | None:
        """The backend of the route, or of its fallback where a library is missing; None stands for the estimator."""
        if route.backend == SKLEARN:
            return None
        key = (route.backend, route.order)
        if key not in self._built:
            try:
                self._built[key] = self._build(route, least_rows)
            except LibraryMissing:
                self._built[key] = None
        found = self._built[key]
        if found is None and route.fallback is not None:
            return self.runtime(route.fallback, least_rows)
        return found

    def _build(self, route: Route, least_rows: int) -> FastRuntime:
        contract = self._contract
        if route.backend == ONNX and contract.graph is not None:
            content, row = _graph(self._folder, contract.graph), golden.golden_table(contract).take(0, 1)
            return onnx.build(self._original, contract.input, contract.outputs, content, row)
        return build(self._original, contract.input, route.backend, route.order, least_rows, self._keep)


def _graph(folder: Path, published: Artifact) -> bytes:
    """Return the bytes of the graph. Raises ContractBroken if they are not those of the contract any more."""
    content = plain_files.read(folder / published.file, published.size_bytes)
    if hashlib.sha256(content).hexdigest() != published.sha256:
        raise ContractBroken(f"{published.file} was changed while the version was loaded", FailureKind.DAMAGED)
    return content


SKLEARN = "sklearn"
"""Name of the route that uses the estimator itself."""


def allowed_difference(contract: Contract) -> float:
    """The largest relative difference from the estimator that the backends in use may have.

    This is the tolerance given at publish, or the largest difference that publish measured if that is larger.
    """
    return max(contract.tolerance, _largest_used_difference(contract))


def _largest_used_difference(contract: Contract) -> float:
    return max((each.largest_difference for each in contract.equivalence_checks if each.outcome == "used"), default=0.0)


def difference_from_estimator(
    router: RoutedRuntime, table: Table, outputs: Sequence[Output], answered: Answers | None = None,
    own: Answers | None = None,
) -> float:  # fmt: skip
    """The largest relative difference between the fast backend and the estimator on these rows.

    answered, own: the answers of the fast backend and of the estimator by output name, where they have been computed
    already.
    """
    if answered is None:
        answered = answers.collect(outputs, router.run, table)
    if own is None:
        own = answers.collect(outputs, router.original.run, table.to_input())
    return max((difference(own[name], array) for name, array in answered.items()), default=0.0)


def difference(one: Array, other: Array) -> float:
    """The largest relative difference between two answers of the same rows.

    0.0 when they are equal to the bit; infinity when a label, the dtype or the shape differs; at least half the dtype's
    epsilon when only the bits differ, as for 0.0 and -0.0.
    """
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
