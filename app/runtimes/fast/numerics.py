"""Exceptions of the fast backends, and small functions that reproduce scikit-learn's arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.special import expit

from tableside.contracts.array_type import Array

Step = Callable[[Array], Array]
"""Takes a matrix of shape [rows, columns] and returns another. It does not change its argument."""

Method = Callable[[Array], Array]

_FLOAT32_SQUARE = 1e76
"""Less than the square of float32's largest number, 3.4e38, by a margin for rounding errors of a sum."""


class Unsupported(Exception):
    """The backend does not support this estimator or this setting of it; the text names it."""


class LibraryMissing(Unsupported):
    """A library that the backend needs is not installed or cannot be loaded; the text is its name."""


class EstimatorRequired(Exception):
    """The estimator must compute these rows: it refuses them, or handles them in a way the backend does not have."""


def require(known: bool, what: str) -> None:
    """Raise Unsupported with the text `what` unless `known`."""
    if not known:
        raise Unsupported(what)


def is_exactly(estimator: Any, *kinds: type) -> bool:
    """Whether the estimator is of one of these classes. A subclass does not count: it may compute something else."""
    return type(estimator) in kinds


def check_finite(matrix: Array) -> Array:
    """Return the matrix if every cell is finite. Raises EstimatorRequired otherwise."""
    if not math.isfinite(squares(matrix)) and not np.isfinite(matrix).all():
        raise EstimatorRequired
    return matrix


def squares(matrix: Array) -> float:
    """The sum of the squares of all cells; finite only if every cell is. `vdot` emits no warnings, unlike `sum`."""
    flat = matrix.ravel("K")
    return float(np.vdot(flat, flat))


def to_float32(matrix: Array) -> Array:
    """The matrix in float32, C-ordered, as scikit-learn's trees take it. Numbers that are too large become infinite."""
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(matrix, dtype=np.float32)


def fits_float32(matrix: Array) -> bool:
    """Whether all cells are finite and fit into float32: no cell is larger than the root of the sum of squares."""
    return squares(matrix) < _FLOAT32_SQUARE


def softmax(scores: Array) -> Array:
    """The softmax of each row, with the operations of `sklearn.utils.extmath.softmax` in their order."""
    found: Array = scores - scores.max(axis=1).reshape(-1, 1)
    np.exp(found, out=found)
    found /= found.sum(axis=1).reshape(-1, 1)
    return found


def pair(scores: Array) -> Array:
    """Probabilities of two classes, shape [rows, 2], from one score for each row."""
    second = expit(scores)
    found: Array = np.stack([1 - second, second], axis=1)
    return found
