"""Differences in units in the last place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tableside.contracts.tolerances import DIFFERENT, scale, ulp_difference


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        (((1.5, -7.0), (2.0, None)), 7.0),
        ((("a",), ("b",)), 0.0),
        (((3,), (-4,)), 4.0),
        ((), 0.0),
    ],
)
def test_the_scale_is_the_largest_magnitude(answers: Any, expected: float) -> None:
    """The sign is ignored, and so are missing values and text."""
    assert scale(answers) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("units", [1, 3])
def test_the_unit_is_that_of_the_dtype(dtype: str, units: int) -> None:
    """Neighbouring numbers differ by one unit, in either width and in either order."""
    left = np.array([1.0, 8.0], dtype=dtype)
    right = left + np.array([0.0, units * np.spacing(left[1])], dtype=dtype)
    assert ulp_difference(left, right, 0.0) == units
    assert ulp_difference(right, left, 0.0) == units


def test_the_magnitude_sets_the_smallest_unit() -> None:
    """A number far below the magnitude is measured in the magnitude's units, a larger one in its own."""
    left, right = np.array([1e-20]), np.array([1e-20 + 2.0**-52])
    assert ulp_difference(left, right, 1.0) == pytest.approx(1.0)
    assert ulp_difference(left, right, 0.0) > 1e15
    assert ulp_difference(np.array([1024.0]), np.array([1024.0 + 2.0**-42]), 1.0) == 1.0


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (np.array([1.0], dtype=np.float32), np.array([1.0])),
        (np.array([1, 2]), np.array([1, 3])),
        (np.array([[1.0]]), np.array([1.0])),
        (np.array([np.inf, 1.0]), np.array([1.0, np.inf])),
        (np.array([np.nan]), np.array([np.inf])),
    ],
)
def test_arrays_of_another_kind_have_no_distance(left: Any, right: Any) -> None:
    """Another dtype, shape, label or place of an infinity is a difference that no tolerance allows."""
    assert ulp_difference(left, right, 1.0) == DIFFERENT


def test_empty_arrays_are_equal() -> None:
    """Arrays without numbers, or without finite numbers, have no difference."""
    assert ulp_difference(np.empty((0, 2)), np.empty((0, 2)), 1.0) == 0.0
    assert ulp_difference(np.array([np.nan, np.inf]), np.array([-np.nan, np.inf]), 1.0) == 0.0
