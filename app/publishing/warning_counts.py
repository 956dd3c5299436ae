"""Collects warnings, so that an estimator's equal warnings are reported once with their number."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
_MAX_CHARS = 400


class WarningCounts:
    """The warnings that were collected, in the order in which each came first."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[type[Warning], str]] = Counter()

    def add(self, category: type[Warning], text: str) -> None:
        """Count one warning."""
        self._counts[category, text] += 1

    def lines(self) -> list[str]:
        """Return one line for each different warning: its class, its text and how often it came."""
        found = []
        for (category, text), count in self._counts.items():
            words = " ".join(text.split())
            words = words if len(words) <= _MAX_CHARS else f"{words[:_MAX_CHARS]}..."
            found.append(f"{category.__name__}{f' ({count} times)' if count > 1 else ''}: {words}")
        return found

    def warn(self, stacklevel: int) -> None:
        """Issue each different warning once, with its number. stacklevel: as in `warnings.warn`, from this call."""
        for (category, text), count in self._counts.items():
            warnings.warn(
                _message(category, f"{text} ({count} times)" if count > 1 else text), stacklevel=stacklevel + 1
            )


def _message(category: type[Warning], text: str) -> Warning:
    try:
        return category(text)
    except TypeError:  # a class that is made from other arguments, as InconsistentVersionWarning of scikit-learn
        return UserWarning(f"{category.__name__}: {text}")


@contextmanager
def counted() -> Iterator[WarningCounts]:
    """Collect the warnings of this thread's code until the end of the block, also when it raises."""
    counts = WarningCounts()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for developers_only in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
            warnings.simplefilter("ignore", developers_only)
        try:
            yield counts
        finally:
            for each in caught:
                counts.add(each.category, str(each.message))


def warn_once(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function issue each different warning once, with its number, when it returns."""

    @wraps(function)
    def quieter(*args: P.args, **more: P.kwargs) -> T:
        with counted() as counts:
            result = function(*args, **more)
        counts.warn(stacklevel=2)
        return result

    return quieter
