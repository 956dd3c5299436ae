"""Memory that a load took and no longer needs, given back to the system."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def release_free_memory() -> None:
    """Return what is free in the C library's heap; nothing where it cannot (only glibc can).

    A skops file passes through memory twice before it is an estimator. What is freed of that stays with the process:
    a worker that has loaded a large artifact keeps up to three times its size (docs/decisions/0006).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
