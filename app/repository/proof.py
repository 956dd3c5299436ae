"""Faster ways to the same answers, tried at publish: only what agrees with the estimator everywhere is used.

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

from app.contract import answers
from app.contract.cells import Array
from app.contract.schema import Candidate, Input, Output, Way
from app.contract.table import Table
from app.repository import graphs, rows
from app.repository.integrity import LIBRARIES
from app.runtimes import graph
from app.runtimes.direct import shared
from app.runtimes.direct.compiled import WAYS, DirectRuntime, build
from app.runtimes.direct.parts import Missing, Unsupported
from app.runtimes.graph import ONNX
from app.runtimes.planned import SKLEARN, difference
from app.runtimes.sklearn import SklearnRuntime

TRIED = (*WAYS, ONNX)
SIZES = (1, 32, 1000)
RANGES = ((8, 1), (256, 32), (0, 1000))
"""Up to so many rows the time at that size decides; 0 is any number."""
WORTH = 1.1
"""How many times faster a way must be to be used."""
INSTALL = "pip install -r requirements/onnx.txt"
_TIME_S = 0.08

_SHARED = ("proved", "used where workers share the artifact")

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Proved:
    """candidates: what was tried, for the contract. ways: what is to be used. graph: the ONNX file, if that is."""

    candidates: tuple[Candidate, ...]
    ways: tuple[Way, ...]
    graph: bytes | None = None


@dataclass
class _Found:
    way: str
    order: Literal["C", "F"]
    runtime: DirectRuntime
    graph: bytes | None = None
    rows: int = 0
    difference: float = 0.0
    differs: str = ""


class _Own:
    """The estimator's own answers: each table is asked once, and not before it is needed."""

    def __init__(self, original: SklearnRuntime, outputs: Sequence[Output], tables: Sequence[Table]) -> None:
        self.tables = tables
        self._original, self._outputs = original, outputs
        self._said: dict[int, dict[str, Array] | str] = {}

    def said(self, at: int) -> dict[str, Array] | str:
        """What it answered to a table, or that it refused."""
        if at not in self._said:
            self._said[at] = _ask(self._original, self._outputs, self.tables[at])
        return self._said[at]


def prove(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], frame: Any, tolerance: float = 0.0,
    tell: Tell = lambda step: None, golden: Table | None = None,
) -> Proved:  # fmt: skip
    """Try every way. tolerance: how far numbers may lie apart, relative; 0 is to the bit. Labels must always agree.

    golden: rows that are compared too, whatever else is.
    """
    tell("looking for faster ways")
    tables = [*rows.tables(schema, frame, rows.thresholds(original.estimator, len(schema.columns)))]
    real = [*rows.real(schema, frame), *([golden] if golden is not None else [])] or tables[:1]
    tables += real
    tried = [_build(original, schema, way) for way in WAYS]
    tried.append(_convert(original, schema, outputs, tables[0].take(0, 1), tolerance > 0))
    possible = [each for each in tried if isinstance(each, list)]
    candidates = [each for each in tried if isinstance(each, Candidate)]
    if not possible:
        return Proved(tuple(candidates), ())
    tell("comparing faster ways with the estimator")
    known = {name for group in possible for found in group for name in found.runtime.ways}
    own = _Own(original, [output for output in outputs if output.source in known], tables)
    proved: list[_Found] = []
    for group in possible:
        for found in group:
            _compare(found, outputs, own, tolerance)
            if not found.differs:
                proved.append(found)
                break
        else:
            last = max(group, key=lambda found: found.rows)
            candidates.append(_candidate(last, "differs", last.differs))
    return _choose(original, proved, candidates, outputs, real[0], tell)


def farthest(proved: Proved) -> float:
    """How far what is to be used lay apart from the estimator, relative."""
    return max((each.largest_difference for each in proved.candidates if each.verdict == "used"), default=0.0)


def _build(original: SklearnRuntime, schema: Input, way: str) -> list[_Found] | Candidate:
    """One way, in each memory order that may be the estimator's own."""
    orders: list[Literal["C", "F"]] = ["C", "F"] if schema.form == "frame" else ["C"]
    try:
        return [_Found(way, order, build(original, schema, way, order)) for order in orders]
    except Unsupported as unknown:
        return _impossible(way, unknown)


def _convert(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], row: Table, single: bool
) -> list[_Found] | Candidate:  # fmt: skip
    """The graphs that can be made and run, the more precise first."""
    found: list[_Found] = []
    refused = Unsupported("no output that a graph gives")
    try:
        contents = graphs.convert(original.estimator, schema, single) if graph.answerable(outputs, 2) else []
    except Unsupported as unknown:
        return _impossible(ONNX, unknown)
    for content in contents:
        try:
            found.append(_Found(ONNX, "C", graph.build(original, schema, outputs, content, row), content))
        except Unsupported as unknown:
            refused = unknown
    return found or _impossible(ONNX, refused)


def _impossible(way: str, why: Unsupported) -> Candidate:
    return Candidate(way, "impossible", f"needs {why}: {INSTALL}" if isinstance(why, Missing) else str(why))


def _candidate(found: _Found, verdict: Any, why: str, speed_up: dict[str, float] | None = None) -> Candidate:
    return Candidate(found.way, verdict, why, found.rows, found.difference, speed_up or {})


def _compare(found: _Found, outputs: Sequence[Output], own: _Own, tolerance: float) -> None:
    known = [output for output in outputs if output.source in found.runtime.ways]
    for at, table in enumerate(own.tables):
        said, got = own.said(at), _ask(found.runtime, known, table)
        if isinstance(said, str) or isinstance(got, str):
            if said != got:
                found.differs = "refuses other rows than the estimator"
                return
            continue
        for name, array in got.items():
            distance = difference(said[name], array)
            if distance == float("inf"):  # which no contract could hold
                found.differs = f"{name} gives another label, gap, type or shape on {table.rows} rows"
                return
            found.difference = max(found.difference, distance)
            if distance > tolerance:
                found.differs = f"{name} lies apart by {distance:.2g} on {table.rows} rows"
                return
        found.rows += table.rows


def _ask(runtime: SklearnRuntime | DirectRuntime, outputs: Sequence[Output], table: Table) -> dict[str, Array] | str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return answers.collect(outputs, runtime.run, runtime.prepare(table))
        except ValueError:
            return "ValueError"


def _choose(
    original: SklearnRuntime, proved: Sequence[_Found], candidates: list[Candidate], outputs: Sequence[Output],
    real: Table, tell: Tell,
) -> Proved:  # fmt: skip
    tell("timing the ways that agree")
    timed = {size: _sized(real, size) for size in SIZES}
    first = [next(output for output in outputs if output.source in found.runtime.ways) for found in proved]
    speed: list[dict[int, float]] = []
    for found, output in zip(proved, first, strict=True):
        own = {size: _seconds(original, output, table) for size, table in timed.items()}
        speed.append({size: own[size] / _seconds(found.runtime, output, timed[size]) for size in SIZES})
    ways = _by_rows(proved, speed)
    used = {way.way for way in ways}
    for found, by_size in zip(proved, speed, strict=True):
        rounded = {str(size): round(ratio, 2) for size, ratio in by_size.items()}
        ranges = ", ".join(_words(ways, at) for at, way in enumerate(ways) if way.way == found.way)
        slower = "another way is faster" if max(by_size.values()) >= WORTH else "the estimator is as fast"
        unused = _SHARED if found.way == shared.WAY else ("slower", slower)
        verdict, why = ("used", ranges) if found.way in used else unused
        candidates.append(_candidate(found, verdict, why, rounded))
    candidates.sort(key=lambda each: TRIED.index(each.way))
    made = next((found.graph for found in proved if found.way == ONNX and ONNX in used), None)
    return Proved(tuple(candidates), tuple(ways) if used != {SKLEARN} else (), made)


def _by_rows(proved: Sequence[_Found], speed: Sequence[dict[int, float]]) -> list[Way]:
    """The fastest for each range of rows; where that needs a library, also the fastest that needs none."""
    ways: list[Way] = []
    for most, size in RANGES:
        each = zip(proved, speed, strict=True)
        ratios = [(by_size[size], found) for found, by_size in each if found.way != shared.WAY]
        way = _fastest(ratios)
        if way.way in LIBRARIES:
            instead = _fastest([(ratio, found) for ratio, found in ratios if found.way not in LIBRARIES])
            way = msgspec.structs.replace(way, instead=instead if instead.way != SKLEARN else None)
        if ways and msgspec.structs.replace(ways[-1], up_to_rows=0) == way:
            ways.pop()
        ways.append(msgspec.structs.replace(way, up_to_rows=most))
    return ways


def _fastest(ratios: Sequence[tuple[float, _Found]]) -> Way:
    ratio, found = max(ratios, key=lambda each: each[0], default=(0.0, None))
    return Way(found.way, order=found.order) if found is not None and ratio >= WORTH else Way(SKLEARN)


def _words(ways: Sequence[Way], at: int) -> str:
    low = ways[at - 1].up_to_rows + 1 if at else 1
    return f"from {low} rows" if not ways[at].up_to_rows else f"{low} to {ways[at].up_to_rows} rows"


def _sized(real: Table, size: int) -> Table:
    """So many rows that the estimator answers: the sample's own, over and over."""
    return Table.concat([real] * (size // real.rows + 1)).take(0, size)


def _seconds(runtime: SklearnRuntime | DirectRuntime, output: Output, table: Table) -> float:
    """The fastest of several calls."""
    best, give_up_at_s = float("inf"), time.perf_counter() + _TIME_S
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        while time.perf_counter() < give_up_at_s or best == float("inf"):
            began_s = time.perf_counter()
            runtime.run(output.source, runtime.prepare(table))
            best = min(best, time.perf_counter() - began_s)
    return best
