"""The distance between two arrays of one output, in units in the last place (ULP)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from tableside.contracts.array_type import Array
from tableside.contracts.schema import Cell

DIFFERENT = float("inf")
"""The distance of arrays that differ in shape, dtype or label, or of a number from NaN: no number of units fits."""


def scale(answers: Iterable[Iterable[Cell]]) -> float:
    """Return the largest absolute number among an output's golden answers, 0.0 if there are no numbers.

    Differences are measured in the last place of a number of that size. Measured at its own size, a sum of large terms
    that is close to zero would look far off.
    """
    return max((abs(float(cell)) for row in answers for cell in row if isinstance(cell, (int, float))), default=0.0)


def ulp_difference(left: Array, right: Array, magnitude: float) -> float:
    """Return the largest difference between two arrays of one output, in units in the last place.

    The unit is that of a number of size `magnitude`, or of the compared number if that is larger. 0.0 means equal bits,
    or equal labels; DIFFERENT (infinity) means arrays of another shape or dtype, other labels, or NaN or an infinity
    at other places.
    """
    if left.shape != right.shape or left.dtype.kind != right.dtype.kind:
        return DIFFERENT
    if left.dtype.kind != "f":
        return 0.0 if np.array_equal(left, right) else DIFFERENT
    if left.dtype != right.dtype:
        return DIFFERENT
    if left.tobytes() == right.tobytes():
        return 0.0
    finite = np.isfinite(left)
    if not (finite == np.isfinite(right)).all() or not np.array_equal(left[~finite], right[~finite], equal_nan=True):
        return DIFFERENT
    left, right = left[finite], right[finite]
    sizes = np.maximum(np.maximum(np.abs(left), np.abs(right)), left.dtype.type(magnitude))
    return float((np.abs(left - right) / np.spacing(sizes)).max(initial=0.0))
