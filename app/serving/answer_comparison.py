"""Compares two versions' answers to the same rows, row by row, for a shadow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np

from tableside.comparison.answers import is_label
from tableside.contracts.array_type import Array
from tableside.contracts.schema import Contract, Output
from tableside.runtimes.golden import tolerance_of
from tableside.runtimes.router import allowed_difference
from tableside.serving.log_histogram import LogHistogram

_SMALLEST_SIZE = 1e-3
"""Relative differences are those of numbers of at least this size, as for golden rows."""


class Differences(msgspec.Struct):
    """How two answers differ. flips: rows with another label, or with a number in place of none.

    deltas: by output, the absolute differences of its numbers, zero within the tolerance.
    """

    flips: int
    deltas: dict[str, LogHistogram]


def compare(
    outputs: Sequence[Output],
    answered: Mapping[str, Array],
    candidate: Mapping[str, Array],
    contracts: tuple[Contract, Contract],
) -> Differences:
    """Compare the arrays of each output, of shape [rows] or [rows, width].

    contracts: of the version that answered and of the candidate: they say which outputs are labels, and which
    differences are none. An output of another shape differs in every row.
    """
    rows = len(next(iter(answered.values())))
    flipped = np.zeros(rows, dtype=bool)
    deltas: dict[str, LogHistogram] = {}
    for output, tolerance in zip(outputs, tolerances_of(outputs, contracts), strict=True):
        one, other = answered[output.name], candidate[output.name]
        if one.shape != other.shape:
            flipped[:] = True
        elif one.dtype.kind == "f" and other.dtype.kind in "fiu" and not is_label(output, contracts[0]):
            lost, apart = _apart(one, other, tolerance)
            flipped |= lost
            deltas[output.name] = LogHistogram()
            deltas[output.name].add_all(apart)
        else:
            flipped |= _any_in_row(_differ(one, other))
    return Differences(int(np.count_nonzero(flipped)), deltas)


def _differ(one: Array, other: Array) -> Array:
    if one.dtype.kind in "fiu" and other.dtype.kind in "fiu":  # labels that are numbers, such as 0.0 and 1.0
        return np.asarray((one != other) & ~((one != one) & (other != other)))
    if one.dtype.kind != other.dtype.kind and {one.dtype.kind, other.dtype.kind} - set("UO"):
        return np.ones(one.shape, dtype=bool)  # the text "1" is another label than the number 1
    return np.asarray(one.astype(object) != other.astype(object), dtype=bool)


def _apart(one: Array, other: Array, tolerance: float) -> tuple[Array, Array]:
    """The rows in which one has a number and the other none, and the differences of all other cells."""
    one, other = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(all="ignore"):
        apart = np.abs(one - other)
        size = np.maximum(np.maximum(np.abs(one), np.abs(other)), _SMALLEST_SIZE)
        same = (one == other) | (np.isnan(one) & np.isnan(other)) | (apart <= tolerance * size)
    apart = np.where(same, 0.0, apart)
    lost = ~np.isfinite(apart)
    return _any_in_row(lost), apart[~lost]


def _any_in_row(cells: Array) -> Array:
    found: Array = np.any(cells.reshape(len(cells), -1), axis=1)
    return found


def tolerances_of(outputs: Sequence[Output], contracts: Sequence[Contract]) -> list[float]:
    """Return for each output the largest relative difference that is none: what either contract allows by itself."""
    fast = max(map(allowed_difference, contracts))
    return [max(fast, *(tolerance_of(contract, output) for contract in contracts)) for output in outputs]
