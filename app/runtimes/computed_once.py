"""Lets a forest compute its probabilities once while the golden rows are replayed.

A forest's `predict` asks its own `predict_proba`, and the golden rows have answers of both. Asking a hundred trees
takes some 5 ms, which is a third of loading a small forest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from sklearn.ensemble import BaggingClassifier, ExtraTreesClassifier, RandomForestClassifier

from tableside.runtimes.fast.backend import steps_of
from tableside.runtimes.fast.numerics import is_exactly

_CLASSES = (RandomForestClassifier, ExtraTreesClassifier, BaggingClassifier)
"""Classes of scikit-learn whose `predict` calls `self.predict_proba` with the rows that it was given.

They do not change these rows. A subclass may compute something else, so it does not count.
"""
_METHOD = "predict_proba"


@contextmanager
def probabilities_computed_once(estimator: Any) -> Iterator[None]:
    """Within the block, the forest that is the estimator, or its last step, keeps its probabilities of the last rows.

    The same rows get the same array again, which the caller must not change. For other estimators nothing changes.
    No other thread may use the estimator meanwhile.
    """
    last = steps_of(estimator)[-1]
    if not is_exactly(last, *_CLASSES):
        yield
        return
    vars(last)[_METHOD] = _Kept(getattr(last, _METHOD))
    try:
        yield
    finally:
        del vars(last)[_METHOD]


class _Kept:
    """A method of one argument that keeps its last answer."""

    def __init__(self, method: Any) -> None:
        self._method = method
        self._last: tuple[Any, Any] | None = None

    def __call__(self, rows: Any, **more: Any) -> Any:
        if more:
            return self._method(rows, **more)
        if self._last is None or not _are_same(self._last[0], rows):
            self._last = rows, self._method(rows)
        return self._last[1]


def _are_same(one: Any, other: Any) -> bool:
    """Whether two inputs are one object, or arrays that are equal in every bit and in their order."""
    if one is other:
        return True
    if type(one) is not np.ndarray or type(other) is not np.ndarray or one.dtype.hasobject:
        return False
    are_alike = one.dtype == other.dtype and one.shape == other.shape and one.strides == other.strides
    return are_alike and one.tobytes() == other.tobytes()
