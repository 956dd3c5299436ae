"""What the preflight process may use: memory, files and no network. It reads artifacts that nobody has loaded before.

Sources: setrlimit(2), prctl(2), seccomp(2), linux/filter.h (classic BPF), linux/seccomp.h (struct seccomp_data).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import resource
import socket
import struct
from contextlib import suppress

from tableside import machine

MEMORY_SHARE = 0.75
"""The share of the machine's memory, or of its control group's, that a preflight may take for data of its own."""
MIN_MEMORY_BYTES = 2 << 30
MAX_OPEN_FILES = 1024
MAX_FILE_BYTES = 1 << 37
"""The largest file that a preflight may write: an entry of the shared store is as large as its artifact unpacked."""
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER_AT, _ARCHITECTURE_AT, _FIRST_ARGUMENT_AT = 0, 4, 16
_IO_URING_SETUP = 425
"""It could open sockets without socket(2)."""
_OTHER_ABI = 0x40000000
"""System calls of x86-64's x32 begin here."""
_SOCKET = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""The architecture as the kernel names it (linux/audit.h), and its number of socket(2)."""


def confine() -> None:
    """Limit this process and all that it starts. What the system does not offer is left out; nothing is raised."""
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _lower(resource.RLIMIT_FSIZE, MAX_FILE_BYTES)
    _lower(resource.RLIMIT_DATA, max(MIN_MEMORY_BYTES, int(machine.memory_bytes()[0] * MEMORY_SHARE)))
    without_network()


def _lower(limit: int, value: int) -> None:
    _, hard = resource.getrlimit(limit)
    if hard == resource.RLIM_INFINITY or hard > value:
        with suppress(OSError, ValueError):
            resource.setrlimit(limit, (value, value))


def without_network() -> bool:
    """Make socket(2) fail with EACCES for all but Unix sockets, for good. Return whether the kernel does so.

    Unlike a network namespace it needs no right, and users and files keep their owners. The filter is for the 64-bit
    system calls of x86-64 and ARM; other calls that the processor offers fail too.
    """
    if platform.machine() not in _SOCKET:
        return False
    code = b"".join(struct.pack("HBBI", *each) for each in _program(*_SOCKET[platform.machine()]))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer)))
    try:
        prctl = ctypes.CDLL(None).prctl
    except (OSError, AttributeError):
        return False
    zero = ctypes.c_ulong(0)
    if prctl(_PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), zero, zero, zero) != 0:
        return False
    return bool(prctl(_PR_SET_SECCOMP, ctypes.c_ulong(_FILTER_MODE), program, zero, zero) == 0)


def _program(architecture: int, socket_number: int) -> list[tuple[int, int, int, int]]:
    """The filter: each instruction is a code, how many to skip if true and if false, and a value."""
    return [
        (_LOAD, 0, 0, _ARCHITECTURE_AT),
        (_EQUAL, 0, 6, architecture),
        (_LOAD, 0, 0, _NUMBER_AT),
        (_AT_LEAST, 4, 0, _OTHER_ABI),
        (_EQUAL, 3, 0, _IO_URING_SETUP),
        (_EQUAL, 0, 3, socket_number),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_AT),
        (_EQUAL, 1, 0, socket.AF_UNIX),
        (_RETURN, 0, 0, _ERRNO | errno.EACCES),
        (_RETURN, 0, 0, _ALLOW),
    ]
