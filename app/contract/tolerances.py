"""How far two answers of one output lie apart, in units in the last place."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tableside.contract.array_type import Array
from tableside.contract.schema import Cell

DIFFERENT = float("inf")
"""Another label, another shape, another type, a number against none: no count of units says that."""


def scale(answers: Iterable[Iterable[Cell]]) -> float:
    """The largest magnitude of an output's golden answers: the unit is the last place of a number of that size, so that
    a sum which nearly cancels out does not look far off. 0.0 where there is none.
    """
    return max((abs(float(cell)) for row in answers for cell in row if isinstance(cell, (int, float))), default=0.0)


def ulp_difference(one: Array, other: Array, magnitude: float) -> float:
    """The largest difference in units in the last place at `magnitude` or at the number's own, whichever is larger.

    0.0: equal to the bit. Infinity (APART): not the same kind of answer at all, or another label.
    """
    if one.shape != other.shape or one.dtype.kind != other.dtype.kind:
        return DIFFERENT
    if one.dtype.kind != "f":
        return 0.0 if np.array_equal(one, other) else DIFFERENT
    if one.dtype != other.dtype:
        return DIFFERENT
    if one.tobytes() == other.tobytes():
        return 0.0
    finite = np.isfinite(one)
    if not (finite == np.isfinite(other)).all() or not np.array_equal(one[~finite], other[~finite], equal_nan=True):
        return DIFFERENT
    left, right = one[finite], other[finite]
    sizes = np.maximum(np.maximum(np.abs(left), np.abs(right)), one.dtype.type(magnitude))
    return float((np.abs(left - right) / np.spacing(sizes)).max(initial=0.0))
