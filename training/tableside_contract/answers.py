"""The answers of an estimator's methods as arrays, and by the names under which a server gives them."""

from __future__ import annotations

from typing import Any, Iterable

import numpy as np


def as_array(answer: Any) -> np.ndarray[Any, Any]:
    """One answer of an estimator as an array: float16 becomes float32, and long double becomes float64."""
    if hasattr(answer, "toarray"):
        answer = answer.toarray()
    if hasattr(answer, "to_numpy"):
        answer = answer.to_numpy()
    array: np.ndarray[Any, Any] = np.asarray(answer)
    if array.dtype == np.float16:
        return array.astype(np.float32)
    return array.astype(np.float64) if array.dtype == np.longdouble != np.float64 else array


def answer(estimator: Any, methods: Iterable[str], data: Any) -> tuple[dict[str, np.ndarray[Any, Any]], dict[str, str]]:
    """Return the array of each output by its name, and why a method has none.

    A method that returns a list of arrays, one for each target, has the outputs METHOD_0, METHOD_1 and so on. A method
    is left out if it raises, or if it answers the same rows with something else when it is called again.
    """
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    left_out: dict[str, str] = {}
    for method in methods:
        try:
            first, again = (_named(method, getattr(estimator, method)(data)) for _ in range(2))
            if not all(_equal(first[name], again[name]) for name in first):
                raise TypeError("the answer for the same rows changes from call to call")
            arrays.update(first)
        except Exception as problem:  # noqa: BLE001 - a method may raise anything; the record says what
            left_out[method] = f"{type(problem).__name__}: {problem}"
    return arrays, left_out


def _named(method: str, answered: Any) -> dict[str, np.ndarray[Any, Any]]:
    if isinstance(answered, list) and any(getattr(part, "ndim", 0) for part in answered):
        return {f"{method}_{part}": as_array(array) for part, array in enumerate(answered)}
    return {method: as_array(answered)}


def _equal(one: np.ndarray[Any, Any], other: np.ndarray[Any, Any]) -> bool:
    if np.array_equal(one, other):
        return True
    both_floats = one.dtype.kind == other.dtype.kind == "f" and one.shape == other.shape
    return both_floats and bool(np.allclose(one, other, rtol=0, atol=0, equal_nan=True))
