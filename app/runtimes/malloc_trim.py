"""Returns memory to the operating system after an artifact has been loaded."""

from __future__ import annotations

import ctypes
from contextlib import suppress


def release_free_memory() -> None:
    """Return the free memory of the C library's heap to the operating system. Does nothing without glibc.

    Loading a skops file needs up to three times the artifact's size. Python frees the difference, but the C library
    keeps it for the process, so that a worker would stay at that size (docs/decisions/0006).
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
