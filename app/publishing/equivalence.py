"""Fast backends, tried at publish: only what agrees with the estimator everywhere is used.

Each candidate is asked for at least 10,000 rows: resampled from the sample, moved by one unit in the last place, put on
and beside the thresholds of the fitted trees, large as ids and seconds since 1970 are, missing and unknown where the
columns take that; in calls of a thousand, by the dozen and one by one; and for the sample's own rows. Then it is timed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec

from tableside.contract import answers
from tableside.contract.array_type import Array
from tableside.contract.schema import EquivalenceCheck, Input, Output, Route
from tableside.contract.table import Table
from tableside.publishing import comparison_rows, onnx_export
from tableside.repository.integrity import LIBRARIES
from tableside.runtimes import onnx
from tableside.runtimes.fast import packed_trees
from tableside.runtimes.fast.backend import BACKENDS, FastRuntime, build
from tableside.runtimes.fast.numerics import LibraryMissing, Unsupported
from tableside.runtimes.onnx import ONNX
from tableside.runtimes.router import SKLEARN, difference
from tableside.runtimes.sklearn import SklearnRuntime

ALL_BACKENDS = (*BACKENDS, ONNX)
SIZES = (1, 32, 1000)
RANGES = ((8, 1), (256, 32), (0, 1000))
"""Up to so many rows the time at that size decides; 0 is any number."""
MIN_SPEED_UP = 1.1
"""How many times faster a backend must be to be used."""
INSTALL = "pip install -r requirements/onnx.txt"
_TIME_S = 0.08

_USED_WHEN_SHARED = ("equal", "used where workers share the artifact")

Progress = Callable[[str], None]


@dataclass(frozen=True)
class EquivalenceReport:
    """candidates: what was tried, for the contract. routes: what is to be used. graph: the ONNX file, if that is."""

    equivalence_checks: tuple[EquivalenceCheck, ...]
    routes: tuple[Route, ...]
    graph: bytes | None = None


@dataclass
class _CandidateBackend:
    backend: str
    order: Literal["C", "F"]
    runtime: FastRuntime
    graph: bytes | None = None
    rows: int = 0
    difference: float = 0.0
    differs: str = ""


class _EstimatorAnswers:
    """The estimator's own answers: each table is asked once, and not before it is needed."""

    def __init__(self, original: SklearnRuntime, outputs: Sequence[Output], tables: Sequence[Table]) -> None:
        self.tables = tables
        self._original, self._outputs = original, outputs
        self._answers: dict[int, dict[str, Array] | str] = {}

    def answers_for(self, at: int) -> dict[str, Array] | str:
        """What it answered to a table, or that it refused."""
        if at not in self._answers:
            self._answers[at] = _answers_of(self._original, self._outputs, self.tables[at])
        return self._answers[at]


def check_backends(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], frame: Any, tolerance: float = 0.0,
    progress: Progress = lambda step: None, golden: Table | None = None,
) -> EquivalenceReport:  # fmt: skip
    """Try every backend. tolerance: how far numbers may lie apart, relative; 0 is to the bit. Labels must always agree.

    golden: rows that are compared too, whatever else is.
    """
    progress("looking for fast backends")
    tables = [
        *comparison_rows.tables(schema, frame, comparison_rows.thresholds(original.estimator, len(schema.columns)))
    ]
    real = [*comparison_rows.sample_rows(schema, frame), *([golden] if golden is not None else [])] or tables[:1]
    tables += real
    tried = [_build(original, schema, backend) for backend in BACKENDS]
    tried.append(_convert(original, schema, outputs, tables[0].take(0, 1), tolerance > 0))
    possible = [each for each in tried if isinstance(each, list)]
    equivalence_checks = [each for each in tried if isinstance(each, EquivalenceCheck)]
    if not possible:
        return EquivalenceReport(tuple(equivalence_checks), ())
    progress("comparing fast backends with the estimator")
    known = {name for group in possible for found in group for name in found.runtime.methods}
    own = _EstimatorAnswers(original, [output for output in outputs if output.source in known], tables)
    equal: list[_CandidateBackend] = []
    for group in possible:
        for found in group:
            _compare(found, outputs, own, tolerance)
            if not found.differs:
                equal.append(found)
                break
        else:
            last = max(group, key=lambda found: found.rows)
            equivalence_checks.append(_check_of(last, "differs", last.differs))
    return _choose(original, equal, equivalence_checks, outputs, real[0], progress)


def largest_used_difference(equal: EquivalenceReport) -> float:
    """How far what is to be used lay apart from the estimator, relative."""
    return max((each.largest_difference for each in equal.equivalence_checks if each.outcome == "used"), default=0.0)


def _build(original: SklearnRuntime, schema: Input, backend: str) -> list[_CandidateBackend] | EquivalenceCheck:
    """One backend, in each memory order that may be the estimator's own."""
    orders: list[Literal["C", "F"]] = ["C", "F"] if schema.form == "frame" else ["C"]
    try:
        return [_CandidateBackend(backend, order, build(original, schema, backend, order)) for order in orders]
    except Unsupported as unknown:
        return _unsupported(backend, unknown)


def _convert(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], row: Table, single: bool
) -> list[_CandidateBackend] | EquivalenceCheck:  # fmt: skip
    """The graphs that can be made and run, the more precise first."""
    found: list[_CandidateBackend] = []
    refused = Unsupported("no output that a graph can compute")
    try:
        contents = onnx_export.convert(original.estimator, schema, single) if onnx.answerable(outputs, 2) else []
    except Unsupported as unknown:
        return _unsupported(ONNX, unknown)
    for content in contents:
        try:
            found.append(_CandidateBackend(ONNX, "C", onnx.build(original, schema, outputs, content, row), content))
        except Unsupported as unknown:
            refused = unknown
    return found or _unsupported(ONNX, refused)


def _unsupported(backend: str, reason: Unsupported) -> EquivalenceCheck:
    return EquivalenceCheck(
        backend, "unsupported", f"needs {reason}: {INSTALL}" if isinstance(reason, LibraryMissing) else str(reason)
    )


def _check_of(
    found: _CandidateBackend, outcome: Any, reason: str, speed_up: dict[str, float] | None = None
) -> EquivalenceCheck:
    return EquivalenceCheck(found.backend, outcome, reason, found.rows, found.difference, speed_up or {})


def _compare(found: _CandidateBackend, outputs: Sequence[Output], own: _EstimatorAnswers, tolerance: float) -> None:
    known = [output for output in outputs if output.source in found.runtime.methods]
    for at, table in enumerate(own.tables):
        expected, got = own.answers_for(at), _answers_of(found.runtime, known, table)
        if isinstance(expected, str) or isinstance(got, str):
            if expected != got:
                found.differs = "refuses other rows than the estimator"
                return
            continue
        for name, array in got.items():
            distance = difference(expected[name], array)
            if distance == float("inf"):  # which no contract could hold
                found.differs = f"{name} gives another label, missing value, type or shape on {table.rows} rows"
                return
            found.difference = max(found.difference, distance)
            if distance > tolerance:
                found.differs = f"{name} lies apart by {distance:.2g} on {table.rows} rows"
                return
        found.rows += table.rows


def _answers_of(
    runtime: SklearnRuntime | FastRuntime, outputs: Sequence[Output], table: Table
) -> dict[str, Array] | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return answers.collect(outputs, runtime.run, runtime.prepare(table))
        except ValueError:
            return "ValueError"


def _choose(
    original: SklearnRuntime,
    equal: Sequence[_CandidateBackend],
    equivalence_checks: list[EquivalenceCheck],
    outputs: Sequence[Output],
    real: Table,
    progress: Progress,
) -> EquivalenceReport:
    progress("timing the backends that are equal")
    timed = {size: _sized(real, size) for size in SIZES}
    first = [next(output for output in outputs if output.source in found.runtime.methods) for found in equal]
    speed: list[dict[int, float]] = []
    for found, output in zip(equal, first, strict=True):
        own = {size: _seconds(original, output, table) for size, table in timed.items()}
        speed.append({size: own[size] / _seconds(found.runtime, output, timed[size]) for size in SIZES})
    routes = _by_rows(equal, speed)
    used = {route.backend for route in routes}
    for found, by_size in zip(equal, speed, strict=True):
        rounded = {str(size): round(ratio, 2) for size, ratio in by_size.items()}
        ranges = ", ".join(
            _range_in_words(routes, at) for at, route in enumerate(routes) if route.backend == found.backend
        )
        slower = "another backend is faster" if max(by_size.values()) >= MIN_SPEED_UP else "the estimator is as fast"
        unused = _USED_WHEN_SHARED if found.backend == packed_trees.SHARED_MEMORY else ("slower", slower)
        outcome, reason = ("used", ranges) if found.backend in used else unused
        equivalence_checks.append(_check_of(found, outcome, reason, rounded))
    equivalence_checks.sort(key=lambda each: ALL_BACKENDS.index(each.backend))
    made = next((found.graph for found in equal if found.backend == ONNX and ONNX in used), None)
    return EquivalenceReport(tuple(equivalence_checks), tuple(routes) if used != {SKLEARN} else (), made)


def _by_rows(equal: Sequence[_CandidateBackend], speed: Sequence[dict[int, float]]) -> list[Route]:
    """The fastest for each range of rows; where that needs a library, also the fastest that needs none."""
    routes: list[Route] = []
    for most, size in RANGES:
        each = zip(equal, speed, strict=True)
        ratios = [(by_size[size], found) for found, by_size in each if found.backend != packed_trees.SHARED_MEMORY]
        route = _fastest(ratios)
        if route.backend in LIBRARIES:
            fallback = _fastest([(ratio, found) for ratio, found in ratios if found.backend not in LIBRARIES])
            route = msgspec.structs.replace(route, fallback=fallback if fallback.backend != SKLEARN else None)
        if routes and msgspec.structs.replace(routes[-1], up_to_rows=0) == route:
            routes.pop()
        routes.append(msgspec.structs.replace(route, up_to_rows=most))
    return routes


def _fastest(ratios: Sequence[tuple[float, _CandidateBackend]]) -> Route:
    ratio, found = max(ratios, key=lambda each: each[0], default=(0.0, None))
    return Route(found.backend, order=found.order) if found is not None and ratio >= MIN_SPEED_UP else Route(SKLEARN)


def _range_in_words(routes: Sequence[Route], at: int) -> str:
    low = routes[at - 1].up_to_rows + 1 if at else 1
    return f"from {low} rows" if not routes[at].up_to_rows else f"{low} to {routes[at].up_to_rows} rows"


def _sized(real: Table, size: int) -> Table:
    """So many rows that the estimator answers: the sample's own, over and over."""
    return Table.concat([real] * (size // real.rows + 1)).take(0, size)


def _seconds(runtime: SklearnRuntime | FastRuntime, output: Output, table: Table) -> float:
    """The fastest of several calls."""
    best, give_up_at_s = float("inf"), time.perf_counter() + _TIME_S
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.perf_counter() < give_up_at_s or best == float("inf"):
            began_s = time.perf_counter()
            runtime.run(output.source, runtime.prepare(table))
            best = min(best, time.perf_counter() - began_s)
    return best
