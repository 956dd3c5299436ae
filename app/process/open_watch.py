"""Tells which files of a folder have been opened, by inotify(7), which the standard library has no module for."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path

_IN_OPEN, _IN_Q_OVERFLOW = 0x20, 0x4000
_HEAD = struct.Struct("iIII")
"""An event has the watch, what happened, a cookie, and the length of the file's name that follows."""
_READ_BYTES = 1 << 16
_libc = ctypes.CDLL(None, use_errno=True)


class OpenWatch:
    """The files of one folder that any process has opened since the last call of `opened`.

    Raises OSError if the folder cannot be watched, for instance because this user watches too many.
    """

    def __init__(self, folder: Path) -> None:
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        try:
            _checked(_libc.inotify_add_watch(self._fd, os.fsencode(folder), _IN_OPEN))
        except OSError:
            os.close(self._fd)
            raise

    def opened(self) -> set[str]:
        """Return the names of files that were opened. Names are lost if very many were; never waits."""
        names: set[str] = set()
        while True:
            try:
                events = os.read(self._fd, _READ_BYTES)
            except BlockingIOError:
                return names
            names |= _names(events)

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def _names(events: bytes) -> set[str]:
    names, at = set(), 0
    while at < len(events):
        _, kind, _, length = _HEAD.unpack_from(events, at)
        at += _HEAD.size + length
        if kind & _IN_OPEN and not kind & _IN_Q_OVERFLOW:
            names.add(os.fsdecode(events[at - length : at].rstrip(b"\0")))
    return names


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result
