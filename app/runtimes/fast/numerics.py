"""What the pieces share: the two ways out, and small pieces of scikit-learn's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from tableside.contract.array_type import Array

Step = Callable[[Array], Array]
"""A matrix of shape [rows, columns] in, another out. Never writes into what it is given."""

Method = Callable[[Array], Array]

_FLOAT32_SQUARE = 1e76
"""Below the square of float32's largest number, 3.4e38, by more than a sum could be wrong."""


class Unsupported(Exception):
    """This estimator, or this setting of it, is not known here; the text says which."""


class LibraryMissing(Unsupported):
    """A library this backend needs is not installed here, or cannot be loaded; the text is its name."""


class EstimatorRequired(Exception):
    """These rows are for the estimator itself: it refuses them, or treats them by a rule that is not here."""


def require(known: bool, what: str) -> None:
    """Raise Unsupported saying `what`, unless it is known here."""
    if not known:
        raise Unsupported(what)


def is_exactly(estimator: Any, *kinds: type) -> bool:
    """Whether it is one of these classes and no subclass, which might answer otherwise."""
    return type(estimator) in kinds


def check_finite(matrix: Array) -> Array:
    """The matrix, when every cell is a number. Raises Unusual: scikit-learn refuses others with its own words."""
    if not math.isfinite(squares(matrix)) and not np.isfinite(matrix).all():
        raise EstimatorRequired
    return matrix


def squares(matrix: Array) -> float:
    """The sum of all cells' squares: finite only if every cell is. Unlike `sum` and `dot`, `vdot` warns of nothing."""
    flat = matrix.ravel("K")
    return float(np.vdot(flat, flat))


def to_float32(matrix: Array) -> Array:
    """As scikit-learn's trees take it. Raises Unusual for a number that float32 does not hold."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(matrix, dtype=np.float32)


def fits_float32(matrix: Array) -> bool:
    """Whether all cells are numbers that float32 is sure to hold: none is greater than the root of this sum."""
    return squares(matrix) < _FLOAT32_SQUARE


def softmax(scores: Array) -> Array:
    """`sklearn.utils.extmath.softmax`, operation by operation."""
    found: Array = scores - scores.max(axis=1).reshape(-1, 1)
    np.exp(found, out=found)
    found /= found.sum(axis=1).reshape(-1, 1)
    return found


def pair(scores: Array) -> Array:
    """Probabilities of two classes from one score a row."""
    second = expit(scores)
    found: Array = np.stack([1 - second, second], axis=1)
    return found
