"""Keeps what lives as long as the process out of garbage collections."""

from __future__ import annotations

import gc


def exclude_all() -> None:
    """Exclude all present objects from garbage collections, as gunicorn.conf.py has done before the fork.

    Otherwise each full collection would traverse every loaded model. That takes 0.2 s for a thousand models, in which a
    worker answers no request. Models that are replaced are freed all the same: no circle of references holds them.
    Does nothing in a process in which nothing was excluded before, such as a test.
    """
    if gc.get_freeze_count():
        gc.collect()
        gc.freeze()
