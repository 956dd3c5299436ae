"""Faster ways to the same answers, tried at publish: only what agrees with the estimator everywhere is used.

Each candidate is asked for at least 10,000 rows: resampled from the sample, moved by one unit in the last place, put on
and beside the thresholds of the fitted trees, large as ids and seconds since 1970 are, missing and unknown where the
columns take that; in calls of a thousand, by the dozen and one by one. Then it is timed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from app.contract import answers
from app.contract.cells import Array, limits
from app.contract.decode import from_columns
from app.contract.schema import Candidate, Column, Input, Output, Way
from app.contract.table import Table
from app.runtimes.direct import shared
from app.runtimes.direct.compiled import WAYS, DirectRuntime, build
from app.runtimes.direct.parts import Unsupported
from app.runtimes.planned import SKLEARN, difference
from app.runtimes.sklearn import SklearnRuntime

ROWS = 10_000
SIZES = (1, 32, 1000)
RANGES = ((8, 1), (256, 32), (0, 1000))
"""Up to so many rows the time at that size decides; 0 is any number."""
WORTH = 1.1
"""How many times faster a way must be to be used."""
_TIME_S = 0.08
_SINGLES, _DOZENS, _DOZEN = 100, 20, 32
_UNKNOWN = "\u2063no such category"
_LARGE = (1.7e9, 1.7e12, -3e6, 123456789.0)

_UNUSED = (("slower", "another way is faster"), ("proved", "used where workers share the artifact"))

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Proved:
    """candidates: what was tried, for the contract. ways: what is to be used."""

    candidates: tuple[Candidate, ...]
    ways: tuple[Way, ...]


@dataclass
class _Found:
    way: str
    order: Literal["C", "F"]
    runtime: DirectRuntime
    rows: int = 0
    difference: float = 0.0
    differs: str = ""


def prove(
    original: SklearnRuntime, schema: Input, outputs: Sequence[Output], frame: Any, tolerance: float = 0.0,
    tell: Tell = lambda step: None,
) -> Proved:  # fmt: skip
    """Try every way. tolerance: how far numbers may lie apart, relative; 0 is to the bit. Labels must always agree."""
    tried = [_build(original, schema, way) for way in WAYS]
    possible = [each for each in tried if isinstance(each, list)]
    candidates = [each for each in tried if isinstance(each, Candidate)]
    if not possible:
        return Proved(tuple(candidates), ())
    tell("comparing faster ways with the estimator")
    tables = list(_tables(schema, frame, _thresholds(original.estimator, len(schema.columns))))
    known = {name for group in possible for found in group for name in found.runtime.ways}
    asked = [output for output in outputs if output.source in known]
    expected = [_ask(original, asked, table) for table in tables]
    proved: list[_Found] = []
    for group in possible:
        for found in group:
            _compare(found, asked, tables, expected, tolerance)
            if not found.differs:
                proved.append(found)
                break
        else:
            candidates.append(_candidate(group[0], "differs", group[0].differs))
    return _choose(original, proved, candidates, outputs, tables, tell)


def _build(original: SklearnRuntime, schema: Input, way: str) -> list[_Found] | Candidate:
    """One way, in each memory order that may be the estimator's own."""
    orders: list[Literal["C", "F"]] = ["C", "F"] if schema.form == "frame" else ["C"]
    try:
        return [_Found(way, order, build(original, schema, way, order)) for order in orders]
    except Unsupported as unknown:
        return Candidate(way, "impossible", str(unknown))


def _candidate(found: _Found, verdict: Any, why: str, speed_up: dict[str, float] | None = None) -> Candidate:
    return Candidate(found.way, verdict, why, found.rows, found.difference, speed_up or {})


def _compare(
    found: _Found, outputs: Sequence[Output], tables: Sequence[Table], expected: Sequence[dict[str, Array] | str],
    tolerance: float,
) -> None:  # fmt: skip
    known = [output for output in outputs if output.source in found.runtime.ways]
    for table, own in zip(tables, expected, strict=True):
        got = _ask(found.runtime, known, table)
        if isinstance(own, str) or isinstance(got, str):
            if own != got:
                found.differs = "refuses other rows than the estimator"
                return
            continue
        for name, array in got.items():
            distance = difference(own[name], array)
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
    tables: Sequence[Table], tell: Tell,
) -> Proved:  # fmt: skip
    tell("timing the ways that agree")
    timed = {size: _sized(tables, size) for size in SIZES}
    first = [next(output for output in outputs if output.source in found.runtime.ways) for found in proved]
    speed: list[dict[int, float]] = []
    for found, output in zip(proved, first, strict=True):
        own = {size: _seconds(original, output, table) for size, table in timed.items()}
        speed.append({size: own[size] / _seconds(found.runtime, output, timed[size]) for size in SIZES})
    ways: list[Way] = []
    contenders = [at for at, found in enumerate(proved) if found.way != shared.WAY]
    for most, size in RANGES:
        best = max(contenders, key=lambda at: speed[at][size], default=None)
        use = best is not None and speed[best][size] >= WORTH
        way, order = (proved[best].way, proved[best].order) if use and best is not None else (SKLEARN, "C")
        if ways and (ways[-1].way, ways[-1].order) == (way, order):
            ways.pop()
        ways.append(Way(way, most, order))
    used = {way.way for way in ways}
    for found, by_size in zip(proved, speed, strict=True):
        rounded = {str(size): round(ratio, 2) for size, ratio in by_size.items()}
        ranges = ", ".join(_words(ways, at) for at, way in enumerate(ways) if way.way == found.way)
        verdict, why = ("used", ranges) if found.way in used else _UNUSED[found.way == shared.WAY]
        candidates.append(_candidate(found, verdict, why, rounded))
    order_of = {way: at for at, way in enumerate(WAYS)}
    candidates.sort(key=lambda each: order_of[each.way])
    return Proved(tuple(candidates), tuple(ways) if used != {SKLEARN} else ())


def _words(ways: Sequence[Way], at: int) -> str:
    low = ways[at - 1].up_to_rows + 1 if at else 1
    return f"from {low} rows" if not ways[at].up_to_rows else f"{low} to {ways[at].up_to_rows} rows"


def _sized(tables: Sequence[Table], size: int) -> Table:
    """So many rows that the estimator answers, taken from the first, plainly resampled ones."""
    return max(tables, key=lambda table: table.rows).take(0, size)


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


def _tables(schema: Input, frame: Any, thresholds: Sequence[Array]) -> Iterator[Table]:
    """The rows to compare: plainly resampled ones first, then all kinds, then dozens and single rows of them."""
    chance = np.random.default_rng(20)
    plain = _table(schema, frame, thresholds, chance, 1000, odd=False)
    odd = _table(schema, frame, thresholds, chance, ROWS - 1000, odd=True)
    yield plain
    for start in range(0, odd.rows, 1000):
        yield odd.take(start, min(start + 1000, odd.rows))
    for at in range(_DOZENS):
        yield odd.take(at * _DOZEN, (at + 1) * _DOZEN)
    for at in range(_SINGLES):
        yield (plain if at % 2 else odd).take(at, at + 1)


def _table(
    schema: Input, frame: Any, thresholds: Sequence[Array], chance: np.random.Generator, rows: int, odd: bool
) -> Table:
    columns = {}
    for at, column in enumerate(schema.columns):
        near = thresholds[at] if at < len(thresholds) else np.empty(0)
        columns[column.name] = _cells(column, frame[column.name], near, chance, rows, odd)
    return from_columns(columns, schema)


def _cells(
    column: Column, series: Any, near: Array, chance: np.random.Generator, rows: int, odd: bool
) -> list[Any]:  # fmt: skip
    present = series.dropna().tolist()
    cells: list[Any] = [present[at] for at in chance.integers(len(present), size=rows)] if present else [None] * rows
    if column.datatype in ("FP64", "FP32", "INT64") and not column.closed and present:
        cells = _numbers(column, np.array(cells, dtype=np.float64), near, chance, odd)
    elif odd and column.datatype == "BYTES" and not column.closed:
        cells = [_UNKNOWN if chance.random() < 0.05 else cell for cell in cells]
    if column.nullable:
        share = 0.05 if present else 1.0
        cells = [None if chance.random() < share else cell for cell in cells]
    return cells


def _numbers(column: Column, values: Array, near: Array, chance: np.random.Generator, odd: bool) -> list[Any]:
    if odd:
        kind = chance.random(len(values))
        values = np.where(kind < 0.15, np.nextafter(values, np.inf), values)
        values = np.where(kind > 0.97, chance.choice(_LARGE, len(values)), values)
        spread = float(values.std()) or 1.0
        values = np.where((kind > 0.85) & (kind < 0.97), values + chance.normal(0, spread, len(values)), values)
        if len(near):
            values = np.where((kind > 0.2) & (kind < 0.6), chance.choice(_beside(near), len(values)), values)
    if column.datatype == "INT64":
        low, high, _ = limits(column)
        edge = 2.0**53
        whole = np.clip(np.rint(values), max(low, -edge), min(high, edge))
        return [int(value) for value in whole]
    if column.datatype == "FP32" or column.dtype == "float32":
        return [float(value) for value in values.astype(np.float32)]
    return [float(value) for value in values]


def _beside(near: Array) -> Array:
    """Each threshold, and its neighbours in double and in single precision."""
    narrow = near.astype(np.float32)
    sides = [near, np.nextafter(near, np.inf), np.nextafter(near, -np.inf)]
    sides += [np.nextafter(narrow, np.float32(side)).astype(np.float64) for side in (np.inf, -np.inf)]
    return np.concatenate([*sides, narrow.astype(np.float64)])


def _thresholds(estimator: Any, width: int) -> list[Array]:
    """The split points of each column, for trees that see the columns as they come."""
    found: list[list[Array]] = [[] for _ in range(width)]
    trees = [estimator, *np.ravel(getattr(estimator, "estimators_", [])).tolist()]
    for each in trees:
        nodes = getattr(each, "tree_", None)
        if nodes is not None and each.n_features_in_ == width:
            for at in range(width):
                found[at].append(nodes.threshold[nodes.feature == at])
    for rounds in getattr(estimator, "_predictors", []):
        for predictor in rounds:
            nodes = predictor.nodes[predictor.nodes["is_leaf"] == 0]
            for at in range(width):
                found[at].append(nodes["num_threshold"][nodes["feature_idx"] == at])
    joined = [np.unique(np.concatenate(parts)) if parts else np.empty(0) for parts in found]
    return [split[np.isfinite(split)] for split in joined]
