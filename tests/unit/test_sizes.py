"""Numbers of bytes and lengths of time in words."""

from __future__ import annotations

import pytest

from tableside import durations, sizes


@pytest.mark.parametrize(
    ("count", "expected"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1024, "1.0 kB"), (9_949, "9.9 kB"), (9_950, "10 kB"),
        (54_321, "54 kB"), (999_499, "999 kB"), (999_500, "1.0 MB"), (7_249_000, "7.2 MB"), (852_000_000, "852 MB"),
        (999_600_000, "1.0 GB"), (3_140_000_000, "3.1 GB"), (5_000_000_000_000, "5000 GB"),
    ],
)  # fmt: skip
def test_sizes_have_the_largest_unit_that_they_fill(count: int, expected: str) -> None:
    """A number that is rounded to 1000 of a unit is shown as 1.0 of the next."""
    assert sizes.in_words(count) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(0.9, "0:00:00"), (725, "0:12:05"), (360_000 - 1, "99:59:59"), (360_000, "4 d"), (864_000, "10 d")],
)
def test_a_clock_shows_hours_and_days(seconds: float, expected: str) -> None:
    """An age of more than four days needs no seconds."""
    assert durations.as_clock(seconds) == expected
