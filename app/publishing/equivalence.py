"""The equivalence check: compares each fast backend with the estimator, and times those that agree.

A backend is used only when it agrees with the estimator on all rows of `tableside.publishing.comparison_rows` (more
than 10,000, in calls of 1,000, 32 and one), on the sample and on the golden rows, and when it is also faster.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import pandas as pd

from tableside.contracts import answers
from tableside.contracts.array_type import Array
from tableside.contracts.schema import EquivalenceCheck, Input, Output, Route
from tableside.contracts.table import Table
from tableside.install_hints import install_hint
from tableside.publishing import backend_timing, comparison_rows, onnx_export
from tableside.publishing.effort import FULL, Effort
from tableside.publishing.progress import Progress, show_share, silent
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
"""The numbers of rows that are timed."""
RANGES = ((8, 1), (256, 32), (0, 1000))
"""(up to so many rows, the size of SIZES whose timing decides for them); 0 means any number of rows."""
MIN_SPEED_UP = 1.1
"""A backend is used when it is at least this many times as fast as the estimator."""

Outcome = Literal["used", "equal", "slower", "differs", "unsupported"]
_USED_WHEN_SHARED: tuple[Outcome, str] = ("equal", "used where workers share the artifact")


@dataclass(frozen=True)
class EquivalenceReport:
    """The result of the equivalence check, as it goes into the contract.

    equivalence_checks: one for each backend. routes: the backends to use by number of rows; empty when the estimator
    answers everything. graph: the bytes of the ONNX file when the backend `onnx` is used.
    """

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
    """The estimator's answers to the tables to compare, computed when first needed and once for all backends."""

    def __init__(self, original: SklearnRuntime, outputs: Sequence[Output], tables: Sequence[Table]) -> None:
        self.tables = tables
        self._original, self._outputs = original, outputs
        self._answers: dict[int, dict[str, Array] | None] = {}

    def answers_for(self, index: int) -> dict[str, Array] | None:
        """Return the answers to `tables[index]`, or None when the estimator raised for it."""
        if index not in self._answers:
            self._answers[index] = _answers_of(self._original, self._outputs, self.tables[index])
        return self._answers[index]


def check_backends(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], frame: pd.DataFrame, tolerance: float = 0.0,
    progress: Progress = silent, golden: Table | None = None, effort: Effort = FULL,
) -> EquivalenceReport:  # fmt: skip
    """Compare every fast backend with the estimator, and choose the fastest for each range of rows.

    frame: the aligned sample. tolerance: the relative difference that numbers may have; 0 compares them to the bit.
    Labels, missing values, dtypes and shapes must always agree. golden: the golden rows, which are compared as well.
    effort: how many rows are compared, and how long the speeds are measured.
    """
    progress("looking for fast backends")
    split_points = comparison_rows.thresholds(original.estimator, len(schema.columns))
    tables = [*comparison_rows.tables(schema, frame, split_points, effort)]
    unchanged = [
        *comparison_rows.sample_rows(schema, frame, effort),
        *([golden] if golden is not None else []),
    ] or tables[:1]
    tables += unchanged
    tried = [_build(original, schema, backend) for backend in BACKENDS]
    if effort.converts:
        answered = golden if golden is not None else unchanged[0]
        tried.append(_convert(original, schema, outputs, answered.take(0, 1), tolerance > 0))
    else:
        tried.append(EquivalenceCheck(ONNX, "unsupported", "not tried: the publish was quick"))
    candidates = [result for result in tried if isinstance(result, list)]
    checks = [result for result in tried if isinstance(result, EquivalenceCheck)]
    if not candidates:
        return EquivalenceReport(tuple(checks), ())
    progress("comparing fast backends with the estimator")
    methods = {name for variants in candidates for variant in variants for name in variant.runtime.methods}
    expected = _EstimatorAnswers(original, [output for output in outputs if output.source in methods], tables)
    equal: list[_CandidateBackend] = []
    total = len(candidates) * len(tables)
    for at, variants in enumerate(candidates):
        for variant in variants:
            for index in _compare(variant, outputs, expected, tolerance):
                show_share(progress, at * len(tables) + index, total)
            if not variant.differs:
                equal.append(variant)
                break
        else:
            closest = max(variants, key=lambda variant: variant.rows)
            checks.append(_check_of(closest, "differs", closest.differs))
    return _choose(original, equal, checks, outputs, unchanged[0], progress, effort)


def largest_used_difference(report: EquivalenceReport) -> float:
    """Return the largest relative difference from the estimator of the backends that will be used; 0.0 for none."""
    return max((each.largest_difference for each in report.equivalence_checks if each.outcome == "used"), default=0.0)


def _build(original: SklearnRuntime, schema: Input, backend: str) -> list[_CandidateBackend] | EquivalenceCheck:
    """Return variants of one backend, one for each memory order in which scikit-learn may lay out a frame."""
    orders: list[Literal["C", "F"]] = ["C", "F"] if schema.form == "frame" else ["C"]
    try:
        return [_CandidateBackend(backend, order, build(original, schema, backend, order)) for order in orders]
    except Unsupported as reason:
        return _unsupported(backend, reason)


def _convert(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], row: Table, single: bool
) -> list[_CandidateBackend] | EquivalenceCheck:  # fmt: skip
    """Return the ONNX graphs that can be made and run, the one in double precision first."""
    variants: list[_CandidateBackend] = []
    last_reason = Unsupported("an ONNX graph cannot give any of its outputs")
    try:
        contents = onnx_export.convert(original.estimator, schema, single) if onnx.answerable(outputs, 2) else []
    except Unsupported as reason:
        return _unsupported(ONNX, reason)
    for content in contents:
        try:
            variants.append(_CandidateBackend(ONNX, "C", onnx.build(original, schema, outputs, content, row), content))
        except Unsupported as reason:
            last_reason = reason
    return variants or _unsupported(ONNX, last_reason)


def _unsupported(backend: str, reason: Unsupported) -> EquivalenceCheck:
    text = f"needs the library {reason}: {install_hint('onnx')}" if isinstance(reason, LibraryMissing) else str(reason)
    return EquivalenceCheck(backend, "unsupported", text)


def _check_of(
    candidate: _CandidateBackend, outcome: Outcome, reason: str, speed_up: dict[str, float] | None = None
) -> EquivalenceCheck:
    return EquivalenceCheck(candidate.backend, outcome, reason, candidate.rows, candidate.difference, speed_up or {})


def _compare(
    candidate: _CandidateBackend, outputs: Sequence[Output], estimator: _EstimatorAnswers, tolerance: float
) -> Iterator[int]:
    """Fill in the candidate's `rows`, `difference` and, at the first disagreement, `differs`.

    Yields the index of each table before it is compared.
    """
    known = [output for output in outputs if output.source in candidate.runtime.methods]
    for index, table in enumerate(estimator.tables):
        yield index
        expected, answered = estimator.answers_for(index), _answers_of(candidate.runtime, known, table)
        if expected is None or answered is None:
            if expected is not answered:
                candidate.differs = "raises for other rows than the estimator"
                return
            continue
        for name, array in answered.items():
            distance = difference(expected[name], array)
            if distance == float("inf"):  # JSON, and so the contract, has no number for it
                candidate.differs = f"{name} has another label, missing value, dtype or shape on {table.rows} rows"
                return
            candidate.difference = max(candidate.difference, distance)
            if distance > tolerance:
                candidate.differs = f"{name} differs by {distance:.2g} on {table.rows} rows"
                return
        candidate.rows += table.rows


def _answers_of(
    runtime: SklearnRuntime | FastRuntime, outputs: Sequence[Output], table: Table
) -> dict[str, Array] | None:
    """Return the answers by output, or None when the runtime raises: scikit-learn and boosters refuse some rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return answers.collect(outputs, runtime.run, runtime.prepare(table))
        except Exception:  # noqa: BLE001 - CatBoost's and LightGBM's errors are no ValueErrors
            return None


def _choose(
    original: SklearnRuntime,
    equal: Sequence[_CandidateBackend],
    checks: list[EquivalenceCheck],
    outputs: Sequence[Output],
    sample_table: Table,
    progress: Progress,
    effort: Effort,
) -> EquivalenceReport:
    """Time the backends that agree with the estimator, and put the fastest into the routes."""
    progress("timing the backends that are equal")
    speed_ups = [_speed_ups(original, candidate, outputs, sample_table, effort) for candidate in equal]
    routes = _routes(equal, speed_ups)
    used = {route.backend for route in routes}
    for candidate, by_size in zip(equal, speed_ups, strict=True):
        outcome, reason = _outcome(candidate, routes, by_size)
        checks.append(_check_of(candidate, outcome, reason, {str(size): round(x, 2) for size, x in by_size.items()}))
    checks.sort(key=lambda check: ALL_BACKENDS.index(check.backend))
    graph = next((candidate.graph for candidate in equal if candidate.backend == ONNX and ONNX in used), None)
    return EquivalenceReport(tuple(checks), tuple(routes) if used != {SKLEARN} else (), graph)


def _outcome(
    candidate: _CandidateBackend, routes: Sequence[Route], by_size: dict[int, float]
) -> tuple[Outcome, str]:  # fmt: skip
    ranges = [_range_in_words(routes, at) for at, route in enumerate(routes) if route.backend == candidate.backend]
    if ranges:
        return "used", ", ".join(ranges)
    if candidate.backend == packed_trees.SHARED_MEMORY:
        return _USED_WHEN_SHARED
    return "slower", "another backend is faster" if max(
        by_size.values()
    ) >= MIN_SPEED_UP else "the estimator is as fast"


def _speed_ups(
    original: SklearnRuntime, candidate: _CandidateBackend, outputs: Sequence[Output], sample_table: Table,
    effort: Effort,
) -> dict[int, float]:  # fmt: skip
    """Return, for each of SIZES, how many times as fast as the estimator the candidate's first output is computed."""
    output = next(output for output in outputs if output.source in candidate.runtime.methods)
    speed_ups = {}
    for size in SIZES:
        table = backend_timing.repeated(sample_table, size)
        estimator_s = backend_timing.best_s(original, output, table, effort)
        speed_ups[size] = estimator_s / backend_timing.best_s(candidate.runtime, output, table, effort)
    return speed_ups


def _routes(equal: Sequence[_CandidateBackend], speed_ups: Sequence[dict[int, float]]) -> list[Route]:
    """Return the fastest backend for each range of rows.

    A backend that needs an optional library gets a fallback: the fastest backend that needs none.
    """
    routes: list[Route] = []
    for up_to_rows, size in RANGES:
        ratios = [
            (by_size[size], candidate)
            for candidate, by_size in zip(equal, speed_ups, strict=True)
            if candidate.backend != packed_trees.SHARED_MEMORY
        ]
        route = _fastest(ratios)
        if route.backend in LIBRARIES:
            fallback = _fastest(
                [(ratio, candidate) for ratio, candidate in ratios if candidate.backend not in LIBRARIES]
            )
            route = msgspec.structs.replace(route, fallback=fallback if fallback.backend != SKLEARN else None)
        if routes and msgspec.structs.replace(routes[-1], up_to_rows=0) == route:
            routes.pop()
        routes.append(msgspec.structs.replace(route, up_to_rows=up_to_rows))
    return routes


def _fastest(ratios: Sequence[tuple[float, _CandidateBackend]]) -> Route:
    ratio, candidate = max(ratios, key=lambda pair: pair[0], default=(0.0, None))
    if candidate is None or ratio < MIN_SPEED_UP:
        return Route(SKLEARN)
    return Route(candidate.backend, order=candidate.order)


def _range_in_words(routes: Sequence[Route], at: int) -> str:
    low = routes[at - 1].up_to_rows + 1 if at else 1
    return f"from {low} rows" if not routes[at].up_to_rows else f"{low} to {routes[at].up_to_rows} rows"
