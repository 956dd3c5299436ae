"""Maps a file into memory: processes share its pages until one of them writes, which changes only its own copy.

The standard library's `mmap` keeps a file descriptor open for each mapping, and a worker that serves a thousand models
would run out of them. This calls mmap(2) itself and closes the file.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref

Mapping = ctypes.Array[ctypes.c_ubyte]

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (
    ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_longlong,
)  # fmt: skip
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_FAILED = ctypes.c_void_p(-1).value


def map_private(fd: int, size: int) -> Mapping:
    """Return the first `size` bytes of an open file as a writable buffer, which lives as long as it is referred to.

    What is written stays in this process. Raises OSError if the file cannot be mapped, ValueError for no bytes.
    """
    if size <= 0:
        raise ValueError("an empty file cannot be mapped")
    address = _libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_PRIVATE, fd, 0)
    if address == _FAILED:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    found = (ctypes.c_ubyte * size).from_address(address)
    release = weakref.finalize(found, _libc.munmap, address, size)
    release.atexit = False  # at the end of the process other threads may still read the arrays
    return found
