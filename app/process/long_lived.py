"""Keeps what lives as long as the process out of garbage collections."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

COLLECT_AFTER = 500_000
"""Python looks for garbage after so many new objects, some 50 MB of small ones. Its own number is 700 to 2000."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Let Python look for garbage rarely within this block, which imports large libraries.

    An import makes many objects that stay, and nearly no garbage. With Python's own number of new objects, a seventh of
    the CPU time of importing scikit-learn, pandas and skops goes into looking for garbage.
    """
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def exclude_all() -> None:
    """Exclude all present objects from garbage collections, as gunicorn.conf.py has done before the fork.

    Otherwise each full collection would traverse every loaded model. That takes 0.2 s for a thousand models, in which a
    worker answers no request. Models that are replaced are freed all the same: no circle of references holds them.
    Does nothing in a process in which nothing was excluded before, such as a test.
    """
    if gc.get_freeze_count():
        gc.collect()
        gc.freeze()
