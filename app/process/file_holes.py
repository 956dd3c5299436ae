"""Gives back the space of what was read of a file that another process appends to. The file's size stays as it is.

See fallocate(2), FALLOC_FL_PUNCH_HOLE. What is in the hole reads as zero bytes.
"""

from __future__ import annotations

import ctypes
import os

_KEEP_SIZE, _PUNCH_HOLE = 1, 2
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_longlong, ctypes.c_longlong)


def free_before(fd: int, end: int) -> None:
    """Free the space of the first `end` bytes. Raises OSError, for instance where the file system cannot do it."""
    if end > 0 and _libc.fallocate(fd, _KEEP_SIZE | _PUNCH_HOLE, 0, end) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
