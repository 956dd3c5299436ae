"""How far the answers of two versions to the same rows lie apart: flips of labels, and differences of numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell, Contract, Output, plain
from tableside.contracts.table import Table
from tableside.runtimes.golden import cells_of

QUANTILES = (0.5, 0.9, 0.99, 1.0)
MOST_ROWS_SHOWN = 5
_MOST_CHANGES = 5
_MOST_COLUMNS = 100
_GROUPS = frozenset(("classifier", "clusterer", "outlier_detector"))


class Change(msgspec.Struct, frozen=True):
    """A label that became another one, and in how many rows."""

    old: list[Cell]
    new: list[Cell]
    rows: int


class WorstRow(msgspec.Struct, frozen=True):
    """A row whose answers lie far apart. row: its number, from 0. input: its cells, as the old version has read them.
    difference: of its numbers, the largest one.
    """

    row: int
    input: dict[str, Cell]
    old: list[Cell]
    new: list[Cell]
    difference: float | None = None


class OutputComparison(msgspec.Struct, frozen=True, omit_defaults=True):
    """One output of both versions, over the rows that both take.

    equal_rows: rows whose answers are equal to the bit. flips, share: rows with another label, and their share of all
    rows. changes: the most frequent ones. quantiles: of |new - old| over all cells, as text such as `p99` and `max`;
    numbers that are not finite on both sides are left out, and counted in `not_finite`. worst: the rows that lie
    farthest apart; for labels those whose probabilities do, if there are any. problem: why the output is not compared.
    """

    name: str
    rows: int = 0
    equal_rows: int = 0
    flips: int | None = None
    share: float | None = None
    changes: tuple[Change, ...] = ()
    quantiles: dict[str, float] = {}
    not_finite: int = 0
    worst: tuple[WorstRow, ...] = ()
    problem: str = ""


class Rows(msgspec.Struct, frozen=True):
    """The rows that were asked. numbers: the number of each. table: as the old version has read them."""

    numbers: Sequence[int]
    table: Table

    def worst(self, at: int, old: Sequence[Cell], new: Sequence[Cell], difference: float | None) -> WorstRow:
        """Return the row at a position with its two answers."""
        table, columns = self.table, self.table.schema.columns[:_MOST_COLUMNS]
        cells = (
            table.matrix[at, place] if table.arrays is None and table.matrix is not None
            else (table.arrays or {})[column.name][at]
            for place, column in enumerate(columns)
        )  # fmt: skip
        given = {column.name: plain(cell) for column, cell in zip(columns, cells, strict=True)}
        return WorstRow(self.numbers[at], given, [*old], [*new], difference)


def compare_outputs(
    old: Contract, new: Contract, was: Mapping[str, Array], now: Mapping[str, Array], rows: Rows
) -> tuple[OutputComparison, ...]:
    """Compare the answers of each output that both contracts have.

    was, now: arrays of shape [rows] or [rows, width] by output name.
    """
    apart = _apart_by_row(old, new, was, now)
    found = []
    for output in old.outputs:
        other = new.output(output.name)
        if other is None:
            found.append(OutputComparison(output.name, problem="the new version does not have it"))
        elif is_label(output, old) or is_label(other, new):
            found.append(_of_labels(output.name, was[output.name], now[output.name], rows, apart))
        else:
            found.append(_of_numbers(output, other, was[output.name], now[output.name], rows))
    return tuple(found)


def is_label(output: Output, contract: Contract) -> bool:
    """Whether the answers of an output are labels, which are equal or not, and no quantities."""
    if output.datatype in ("BYTES", "BOOL"):
        return True
    return output.source == "predict" and contract.kind in _GROUPS


def _of_labels(name: str, was: Array, now: Array, rows: Rows, apart: Array | None) -> OutputComparison:
    before, after = cells_of(was), cells_of(now)
    flipped = [at for at, (old, new) in enumerate(zip(before, after, strict=True)) if not _are_same(old, new)]
    changes = Counter((before[at], after[at]) for at in flipped).most_common(_MOST_CHANGES)
    if apart is not None:
        flipped.sort(key=lambda at: -float(apart[at]))
    count = len(before)
    return OutputComparison(
        name, count, count - len(flipped), len(flipped), len(flipped) / count if count else 0.0,
        tuple(Change([*old], [*new], times) for (old, new), times in changes),
        worst=tuple(
            rows.worst(at, before[at], after[at], None if apart is None else float(apart[at]))
            for at in flipped[:MOST_ROWS_SHOWN]
        ),
    )  # fmt: skip


def _are_same(old: Sequence[Cell], new: Sequence[Cell]) -> bool:
    return len(old) == len(new) and all(
        a == b and isinstance(a, (bool, str)) == isinstance(b, (bool, str)) for a, b in zip(old, new, strict=True)
    )


def _of_numbers(old: Output, new: Output, was: Array, now: Array, rows: Rows) -> OutputComparison:
    aligned = _aligned(old, new, was, now)
    if isinstance(aligned, str):
        return OutputComparison(old.name, problem=aligned)
    before, after = aligned
    same = (before == after) | (np.isnan(before) & np.isnan(after))
    finite = np.isfinite(before) & np.isfinite(after)
    deltas = np.where(same, 0.0, np.abs(np.where(finite, after - before, np.inf)))
    counted = deltas[finite | same]
    by_row = deltas.max(axis=1, initial=0.0)
    order = np.argsort(-by_row, kind="stable")[:MOST_ROWS_SHOWN]
    shown_old, shown_new = cells_of(before[order]), cells_of(after[order])
    return OutputComparison(
        old.name, len(before), int(same.all(axis=1).sum()),
        quantiles=_quantiles(counted),
        not_finite=int((~finite & ~same).sum()),
        worst=tuple(
            rows.worst(at, shown_old[place], shown_new[place], _finite(by_row[at]))
            for place, at in enumerate(order.tolist())
            if by_row[at]
        ),
    )  # fmt: skip


def _finite(number: float) -> float | None:
    return float(number) if np.isfinite(number) else None


def _quantiles(deltas: Array) -> dict[str, float]:
    if not deltas.size:
        return {}
    found = np.quantile(deltas, QUANTILES)
    names = ["max" if each == 1.0 else f"p{each * 100:g}" for each in QUANTILES]
    return {name: float(value) for name, value in zip(names, found.tolist(), strict=True)}


def _aligned(old: Output, new: Output, was: Array, now: Array) -> tuple[Array, Array] | str:
    """Both answers as float64 of shape [rows, width]: of the classes that both have, or all. A text says why not."""
    try:
        before, after = (each.reshape(len(each), -1).astype(np.float64) for each in (was, now))
    except (TypeError, ValueError):
        return "its answers are no numbers"
    if old.classes and new.classes and old.classes != new.classes:
        shared = [each for each in old.classes if each in new.classes]
        if not shared or len(old.classes) != before.shape[1] or len(new.classes) != after.shape[1]:
            return "the versions have other classes"
        return before[:, [old.classes.index(each) for each in shared]], after[
            :, [new.classes.index(each) for each in shared]
        ]
    if before.shape[1] != after.shape[1]:
        return f"it had {before.shape[1]} values for each row and has {after.shape[1]}"
    return before, after


def _apart_by_row(old: Contract, new: Contract, was: Mapping[str, Array], now: Mapping[str, Array]) -> Array | None:
    """How far the probabilities of each row lie apart; None if the versions have none that can be compared."""
    for name in ("predict_proba", "decision_function"):
        output, other = old.output(name), new.output(name)
        if output is not None and other is not None:
            aligned = _aligned(output, other, was[name], now[name])
            if not isinstance(aligned, str):
                apart: Array = np.nan_to_num(np.abs(aligned[0] - aligned[1])).max(axis=1, initial=0.0)
                return apart
    return None
